"""Sessions with made-up methods, whose curves are counted by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from medseg_core import rng
from medseg_core.papers.bifseg_interactive import methods, sessions
from medseg_core.papers.bifseg_interactive.crf import crf_graphcut
from medseg_core.papers.bifseg_interactive.experiment import SETTINGS
from medseg_core.papers.bifseg_interactive.knobs import Knobs
from medseg_core.papers.bifseg_interactive.methods import Case, make_method
from medseg_core.papers.bifseg_interactive.weight_map import Doubt

NONE = 255
SIZE = (1, 3, 8)
TRUTH = torch.zeros(SIZE, dtype=torch.bool)
TRUTH[0, 1, 1:5] = TRUTH[0, 1, 6] = True  # an error of four voxels, and one of one
S = dataclasses.replace(SETTINGS["smoke"], n_scribbles=3, tune_at=(2,))
KNOBS = {name: Knobs(lr=1e-2) for name in methods.METHODS}


def obedient(marks, count):
    """A made-up method: what is scribbled as object is the object."""
    return (marks == 1).long()


def test_a_session_by_hand():
    gen = rng.generator(0, stream="robot")
    labels, strokes = sessions.session(obedient, TRUTH, gen, 4)
    # Without scribbles nothing: Dice 0. The robot then draws through the larger error, four voxels
    # of five (2·4/9), through the other one, and rests.
    assert labels.shape == (5, *SIZE) and strokes[2:] == [None, None]
    voxels, label = strokes[0]
    assert label == 1 and sorted(voxels.tolist()) == [[0, 1, c] for c in (1, 2, 3, 4)]
    assert strokes[1][0].tolist() == [[0, 1, 6]]
    curve = sessions.overlap(labels, TRUTH)
    assert curve.tolist() == pytest.approx([0, 8 / 9, 1, 1, 1])


def test_a_content_user_and_repeated_strokes():
    gen = rng.generator(0, stream="robot")
    labels, strokes = sessions.session(obedient, TRUTH, gen, 3, goal=0.85)
    assert strokes[1:] == [None, None]  # 8/9 is enough
    assert sessions.overlap(labels, TRUTH).tolist() == pytest.approx([0, 8 / 9, 8 / 9, 8 / 9])
    asked = []

    def blind(marks, count):
        asked.append((int((marks != NONE).sum()), count))
        return torch.zeros(1, *SIZE, dtype=torch.int64)

    again, same = sessions.session(blind, TRUTH, gen, 3, strokes=[*strokes[:2], strokes[0]])
    assert asked == [(0, 0), (4, 1), (4, 3)] and same[0] is strokes[0]
    assert sessions.overlap(again, TRUTH).tolist() == [0, 0, 0, 0]


def test_a_session_refuses():
    gen = rng.generator(0)
    with pytest.raises(ValueError, match="n must be at least 0"):
        sessions.session(obedient, TRUTH, gen, -1)
    with pytest.raises(ValueError, match="number of strokes must be at least 2"):
        sessions.session(obedient, TRUTH, gen, 2, strokes=[None])


def test_maps_of_strokes():
    strokes = [(torch.tensor([[0, 0, 0], [0, 0, 1]]), 1), None, (torch.tensor([[0, 2, 7]]), 0)]
    marks = sessions.scribble_map(strokes, SIZE)
    want = torch.full((1, *SIZE), NONE)
    want[0, 0, 0, :2], want[0, 0, 2, 7] = 1, 0
    assert torch.equal(marks, want)
    two = sessions.two_strokes(TRUTH, rng.generator(0))
    assert (two == 1).any() and (two == 0).any()
    assert (TRUTH[None] == (two == 1))[two != NONE].all()


class Net(torch.nn.Module):
    """P rises with the grey value; a head of one weight."""

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Conv3d(1, 1, 1)
        torch.nn.init.constant_(self.last.weight, 6.0)
        torch.nn.init.constant_(self.last.bias, -3.0)

    def features(self, x):
        return x

    def head(self, x):
        return self.last(x)

    def forward(self, x):
        return self.head(self.features(x))


def crop():
    """Two bright objects; the second one is none."""
    image = 0.2 + 0.1 * torch.rand(1, 1, 6, 6, 8, generator=rng.generator(0))
    truth = torch.zeros(6, 6, 8, dtype=torch.bool)
    truth[2:5, 2:5, 1:4] = True
    image[0, 0][truth] = 0.9
    image[..., 2:5, 2:5, 5:7] = 0.85
    model = Net()
    with torch.no_grad():
        return Case(model, image, model(image).sigmoid()), truth


def test_each_method_answers_as_it_says():
    case, truth = crop()
    tuned = KNOBS | {"CNN + CRF": Knobs(lam=0.01), "CRF + scribbles": Knobs(lam=0.5)}
    cut = tuned["CRF + scribbles"].cut(S.connectivity)
    bare = crf_graphcut(case.prob, case.image, tuned["CNN + CRF"].cut(S.connectivity))
    nothing = sessions.scribble_map([], truth.shape)
    marks = sessions.two_strokes(truth, rng.generator(0))
    hard = crf_graphcut(case.prob, case.image, cut, marks)
    for name in methods.METHODS:
        answer = make_method(name, case, tuned, S, Doubt())
        first, second = answer(nothing, 0), answer(marks, 1)
        if name in ("Boykov–Jolly", "GrabCut"):
            assert (first == 1).all()  # the box
            # GrabCut answers when BIFSeg is fine-tuned
            assert torch.equal(second, first) == (name == "GrabCut")
        elif name == "CNN + CRF":
            assert torch.equal(first, bare)
        else:
            assert torch.equal(first, bare) and torch.equal(second, hard)
        third = answer(marks, 2)
        assert (third == marks)[marks != NONE].all(), name
        if name in methods.FINE_TUNED:
            (rounds,) = answer.tunings
            assert len(rounds) == S.rounds and answer.prob is not None
            assert not torch.equal(answer.prob, case.prob)
    with pytest.raises(ValueError, match="name must be one of"):
        make_method("BIFseg", case, tuned, S, Doubt())


def test_the_grids_of_each_method():
    assert methods.grids_of("BIFSeg", S) == {"lr": S.tune_rates, "finetune": S.finetune}
    assert methods.grids_of("GrabCut", S) == {"lam": S.lams, "sigma": S.sigmas}
    assert methods.grids_of("CNN + CRF", S, lam=0.0) == {"lam": (0.0,), "sigma": S.sigmas}
    with pytest.raises(ValueError, match="name"):
        methods.grids_of("none", S)


def test_an_arm_repeats_the_strokes_of_another_and_counts_its_updates():
    case, truth = crop()
    data = {"mask": truth[None, None], "image": case.image}
    rest = (lambda seed: [case], data, KNOBS, S, Doubt())
    own = sessions.session_arm("BIFSeg", *rest)(3)
    assert own["updates"] == S.rounds * S.tune_steps and own["images"] == 1
    assert len(own["extras"]["rounds"]) == S.rounds
    curve = own["extras"]["curve"]
    assert curve.shape == (1, S.n_scribbles + 1) and own["final"] == curve[0, -1]
    labels = own["extras"]["labels"][0]
    np.testing.assert_allclose(curve[0], sessions.overlap(labels.long(), truth))
    strokes = {3: own["extras"]["strokes"]}
    plain = sessions.session_arm("CRF + scribbles", *rest, strokes=strokes)(3)
    assert plain["updates"] == 0 and plain["extras"]["strokes"] == strokes[3]
    assert (plain["extras"]["curve"][:, :2] == curve[:, :2]).all()  # no fine-tuning yet


def test_the_tuning_score_is_the_mean_dice():
    case, truth = crop()
    data = {"mask": truth[None, None].expand(2, 1, -1, -1, -1)}
    cases, marks = [case, case], [sessions.two_strokes(truth, rng.generator(0))] * 2
    for given in (None, marks):
        score = sessions.tuning_score("CNN + CRF", cases, data, given, {}, S, Doubt())
        knobs = Knobs(lam=0.3)
        cut = knobs.cut(S.connectivity)
        labels = crf_graphcut(case.prob, case.image, cut, None if given is None else given[0])
        assert score(knobs) == pytest.approx(float(sessions.overlap(labels, truth)))


def test_patients_and_the_next_crops():
    case, truth = crop()
    data = {"image": case.image, "mask": truth[None, None]}
    table = sessions.on_patients(case.model, data, KNOBS, S, Doubt(), 0)
    assert list(table)[:2] == ["CNN", "CNN + CRF"] and all(len(v) == 1 for v in table.values())
    found = (case.prob > 0.5)[0, 0]
    dice = 2 * float((found & truth).sum()) / float(found.sum() + truth.sum())
    assert table["CNN"] == [pytest.approx(dice)]
    before, after = sessions.first_strokes(case.model, data, KNOBS, S, Doubt(), 0)
    assert before.tolist() == table["CNN + CRF"] and after.shape == (1,)
