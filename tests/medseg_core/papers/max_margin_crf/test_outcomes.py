"""What the arms report, for networks whose answers are written down."""

import dataclasses

import pytest
import torch
from torch import nn

from medseg_core.papers.max_margin_crf import experiment, outcomes
from medseg_core.papers.max_margin_crf.experiment import Bench, Parts, Settings
from medseg_core.papers.max_margin_crf.scores import mean_overlap, overlap
from medseg_core.papers.max_margin_crf.training import Epoch, Training
from medseg_core.training.fit import History

TINY = Settings(
    size=32, n_train=3, n_small=2, n_large=4, n_validation=2, n_test=2, grid=(0.0, 1.0, 50.0)
)
HISTORY = History(updates=200, images=2000)
THRESHOLD = torch.tensor([1.0, 0.0, 0.0])  # weights under which the cut is the threshold
SMOOTH = torch.tensor([1.0, 1.0, 0.0])


@pytest.fixture(scope="module")
def bench():
    parts = Parts(*map(experiment.prepared, experiment.load("ultrasound", TINY, 0)))
    return Bench(TINY, parts, torch.device("cpu"))


def logits(part, noise, seed=0):
    """The truth as logits ±1, under noise."""
    gen = torch.Generator().manual_seed(seed)
    truth = part["target"][:, None]
    return 2.0 * truth - 1 + noise * torch.randn(truth.shape, generator=gen)


def epoch(bench, w=THRESHOLD, noise=0.0, **more):
    values = dict.fromkeys(field.name for field in dataclasses.fields(Epoch))
    return Epoch(**(values | {"w": w, "test": logits(bench.parts.test, noise)} | more))


def test_a_network_that_knows_the_truth_scores_100(bench):
    found = outcomes.from_pretrained(epoch(bench), HISTORY, bench)
    assert list(found) == ["CNN only", "piecewise"]
    for out in found.values():
        assert out["jaccard"].tolist() == [100, 100]
        assert (out["updates"], out["images"]) == (200, 2000)
        assert torch.equal(out["extras"]["labels"].long(), bench.parts.test["target"])
        assert torch.equal(out["extras"]["logits"], epoch(bench).test)


def test_the_cut_uses_the_epochs_weights_and_the_threshold_none(bench):
    start = epoch(bench, SMOOTH, noise=1.0)
    found = outcomes.from_pretrained(start, HISTORY, bench)
    truth = bench.parts.test["target"]
    plain = overlap(start.test[:, 0] > 0, truth)
    assert torch.equal(found["CNN only"]["jaccard"], plain)
    cut = experiment.crf_of(bench.parts.test, TINY).infer(start.test, SMOOTH)
    assert torch.equal(found["piecewise"]["extras"]["labels"], cut)
    assert (found["piecewise"]["jaccard"] > plain).all()  # it removes the islands
    assert found["piecewise"]["extras"]["w"] is SMOOTH


class Answer(nn.Module):
    """A network that has learnt the images by heart."""

    def __init__(self, images, answers):
        super().__init__()
        self.images, self.answers = images, answers
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image):
        which = [int((self.images == x).flatten(1).all(1).nonzero()) for x in image]
        a = self.answers[which]
        return torch.cat([0 * a, a], 1)


def test_weights_tried_out_by_hand(bench):
    validation, test = bench.parts.validation, bench.parts.test
    a = logits(validation, 1.0), logits(test, 1.0)
    model = Answer(torch.cat([validation["image"], test["image"]]), torch.cat(a))
    found = outcomes.hand_tuned(model, HISTORY, bench)["hand-tuned Potts"]
    crf = experiment.crf_of(validation, TINY)
    scores = {
        (w2, w3): mean_overlap(crf.infer(a[0], (1.0, w2, w3)), validation["target"])
        for w2 in TINY.grid
        for w3 in TINY.grid
    }
    assert tuple(found["extras"]["w"][1:].tolist()) == max(scores, key=scores.get)
    cut = experiment.crf_of(test, TINY).infer(a[1], found["extras"]["w"])
    assert torch.equal(found["extras"]["labels"], cut)
    assert (found["updates"], found["images"]) == (200, 2000)


def test_the_first_weights_win_a_tie(bench):
    perfect = 1e4 * logits(bench.parts.validation, 0.0)  # no weight of the grid moves a pixel
    assert outcomes.tuned_potts(perfect, bench).tolist() == [1, 0, 0]


def test_the_trained_arms_take_their_best_epoch_and_the_whole_budget(bench):
    epochs = [
        epoch(bench, noise=3.0, cut=99.0, threshold=99.0),  # the start does not count
        epoch(bench, SMOOTH, noise=1.0, cut=90.0, threshold=20.0),
        epoch(bench, noise=0.0, cut=80.0, threshold=95.0),
    ]
    done = Training(epochs, updates=32, images=264)
    joint = outcomes.from_margin(done, HISTORY, bench)
    control = outcomes.from_control(done, HISTORY, bench)
    assert list(control) == ["CNN longer", "CNN longer + piecewise"]
    assert control["CNN longer"]["jaccard"].tolist() == [100, 100]  # of the last epoch
    for out in (joint, control["CNN longer + piecewise"]):
        assert out["extras"]["w"] is SMOOTH and out["extras"]["training"] is done
        assert torch.equal(out["extras"]["logits"], epochs[1].test)
        assert (out["jaccard"] < 100).all()
    for out in (joint, *control.values()):
        assert (out["updates"], out["images"]) == (232, 2264)


def test_every_arm_in_the_tables_order(bench):
    network = experiment.network(TINY)
    pretrained = {"state": network.state_dict(), "history": HISTORY}
    epochs = [epoch(bench, SMOOTH, noise=1.0, cut=1.0, threshold=1.0) for _ in range(2)]
    done = Training(epochs, updates=32, images=264)
    short = ["CNN only", "piecewise", "joint", "CNN longer", "CNN longer + piecewise"]
    found = outcomes.every_arm(pretrained, done, done, bench, by_hand=False)
    assert list(found) == short
    assert [out["updates"] for out in found.values()] == [200, 200, 232, 232, 232]
    whole = outcomes.every_arm(pretrained, done, done, bench, by_hand=True)
    assert list(whole) == [*short[:2], "hand-tuned Potts", *short[2:]]
