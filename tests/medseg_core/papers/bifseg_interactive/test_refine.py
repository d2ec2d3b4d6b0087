"""A toy network that mistakes a distractor for the object, and the scribbles that teach it."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from medseg_core.papers.bifseg_interactive import refine as bifseg
from medseg_core.papers.bifseg_interactive.crf import Cut, crf_graphcut
from medseg_core.papers.bifseg_interactive.refine import FineTuning, bifseg_refine
from medseg_core.papers.bifseg_interactive.weight_map import (
    Doubt,
    scribble_distance,
    uncertainty_weights,
)

NONE = 255
CUT, DOUBT = Cut(0.5, 0.15), Doubt()


def refine(model, image, scribbles, *, cut=CUT, doubt=DOUBT, **tuning):
    return bifseg_refine(model, image, scribbles, cut, FineTuning(**tuning), doubt)


class Toy(nn.Module):
    """Features: the image, its local mean, and row and column; the head weighs them."""

    def __init__(self, ndim=2):
        super().__init__()
        gen = torch.Generator().manual_seed(0)
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
        self.drop = nn.Dropout(0.5)
        self.body = conv(1, 4, 3, padding=1)
        self.norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[ndim](4)
        self.last = nn.Sequential(conv(5 + ndim, 8, 1), nn.LeakyReLU(), conv(8, 1, 1))
        for p in self.parameters():
            p.data = 0.3 * torch.randn(p.shape, generator=gen)
        self.calls = 0

    def features(self, x):
        self.calls += 1
        axes = [torch.linspace(-1, 1, s, dtype=x.dtype) for s in x.shape[2:]]
        where = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(x), -1, *x.shape[2:])
        return self.drop(torch.cat([x, self.norm(self.body(x)), where], 1))

    def head(self, features):
        return self.last(features)

    def forward(self, x):
        return self.head(self.features(x))


def trained(model, image, target, steps=150):
    """The model after it learnt `target` (the object and its distractor) as the object."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    model.eval()
    for _ in range(steps):
        loss = nn.functional.binary_cross_entropy_with_logits(model(image)[:, 0], target.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def square(size, corner, side):
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[(0, *(slice(c, c + side) for c in corner))] = True
    return mask


def scene():
    """Object and distractor, equally bright: (model, image, truth, scribbles, distractor)."""
    gen = torch.Generator().manual_seed(1)
    size = (20, 24)
    truth, distractor = square(size, (6, 3), 8), square(size, (6, 14), 8)
    both = truth | distractor
    image = (0.3 + 0.4 * both + 0.05 * torch.randn(both.shape, generator=gen)).clamp(0, 1)[None]
    scribbles = torch.full(truth.shape, NONE)
    scribbles[0, 10, 15:21] = 0
    scribbles[0, 10, 5:8] = 1
    return trained(Toy(), image, both), image, truth, scribbles, distractor


def dice(a, b):
    a, b = a.bool(), b.bool()
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


SCENE = scene()


@pytest.mark.parametrize("finetune", ["last", "all"])
def test_learns_from_scribbles_what_the_cut_alone_does_not(finetune):
    model, image, truth, scribbles, distractor = SCENE
    found = refine(model, image, scribbles, lr=0.05, finetune=finetune, steps=25)
    assert dice(found.crf, truth) < 0.8  # hard scribbles alone leave most of the distractor
    assert dice(found.labels, truth) > 0.9
    inside, beside = (found.prob[:, 0][where].mean() for where in (truth, distractor))
    assert beside < 0.3 and inside > beside + 0.2
    assert (found.labels == scribbles)[scribbles != NONE].all()
    assert (found.crf == scribbles)[scribbles != NONE].all()


def test_what_is_returned():
    model, image, _, scribbles, _ = SCENE
    found = refine(model, image, scribbles, rounds=3, steps=4, lr=0.02, tol=0)
    assert found.labels.shape == found.crf.shape == found.weight.shape == scribbles.shape
    assert found.prob.shape == image.shape and not found.prob.requires_grad
    assert found.labels.dtype == found.crf.dtype == torch.int64
    with torch.no_grad():
        before = model.eval()(image).sigmoid()
    assert torch.equal(found.crf, crf_graphcut(before, image, CUT, scribbles))
    last = crf_graphcut(found.prob, image, CUT, scribbles)
    assert torch.equal(found.labels, last)
    assert (found.weight[scribbles != NONE] == 5).all()
    assert set(found.weight.unique().tolist()) == {0, 1, 5}
    assert len(found.history) == 3
    for turn in found.history:
        assert len(turn.losses) == 4 and turn.seconds.keys() == {"weights", "network", "cut"}
    assert found.history[0].losses[-1] < found.history[0].losses[0]
    assert 0 < sum(sum(turn.seconds.values()) for turn in found.history) <= found.seconds


@pytest.mark.parametrize("finetune", ["last", "all"])
def test_the_model_stays_and_every_call_starts_from_it(finetune):
    model, image, _, scribbles, _ = SCENE
    model.train()  # dropout and running statistics would show
    model.last[0].weight.requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    options = {"finetune": finetune, "rounds": 2, "steps": 5, "lr": 0.02}
    torch.manual_seed(0)
    drawn = torch.random.get_rng_state()
    first = refine(model, image, scribbles, **options)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert model.training and not model.last[0].weight.requires_grad
    model.last[0].weight.requires_grad_(True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    assert all(p.grad is None for p in Toy().parameters())
    with torch.no_grad():  # also where the caller switched gradients off
        again = refine(model, image, scribbles, **options)
    for name in ("labels", "prob", "weight", "crf"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert [r.losses for r in first.history] == [r.losses for r in again.history]


def test_last_tunes_the_head_alone_on_features_computed_once(monkeypatch):
    model, image, _, scribbles, _ = SCENE
    seen = []

    class Spy(bifseg._Network):
        def __init__(self, *rest):
            super().__init__(*rest)
            seen.append(self)

    monkeypatch.setattr(bifseg, "_Network", Spy)
    options = {"rounds": 2, "steps": 5, "lr": 0.02, "tol": 0}
    refine(model, image, scribbles, **options)
    refine(model, image, scribbles, finetune="all", **options)
    old = dict(model.named_parameters())
    for spy, moved in zip(seen, (("last",), ("last", "body", "norm")), strict=True):
        tuned = getattr(spy.forward, "__self__", spy.forward)  # the module of a bound `head`
        assert tuned.calls == model.calls + (1 if moved == ("last",) else 2 * (5 + 1) + 1)
        for name, p in tuned.named_parameters():
            assert torch.equal(p, old[name]) == (name.split(".")[0] not in moved), name


def test_every_round_weighs_by_the_current_network(monkeypatch):
    model, image, _, scribbles, _ = SCENE
    calls, searches, doubt = [], [], Doubt(omega=3)

    def spy(prob, *rest, **options):
        calls.append((prob, uncertainty_weights(prob, *rest, **options)))
        assert torch.equal(calls[-1][1], uncertainty_weights(prob, image, scribbles, doubt))
        return calls[-1][1]

    def count(image, scribbles, limit):
        searches.append(limit)
        return scribble_distance(image, scribbles, limit)

    monkeypatch.setattr(bifseg, "uncertainty_weights", spy)
    monkeypatch.setattr(bifseg, "scribble_distance", count)
    options = {"rounds": 3, "steps": 5, "lr": 0.05, "tol": 0}
    found = refine(model, image, scribbles, doubt=doubt, **options)
    assert torch.equal(found.weight, calls[-1][1])
    assert not torch.equal(calls[0][0], calls[1][0])
    assert searches == [0.2]  # the image and the scribbles stay: one search for all rounds


def test_the_loss_is_the_weighted_mean():
    model, image, _, scribbles, _ = SCENE
    found = refine(model, image, scribbles, rounds=1, steps=1, lr=1e-9)
    with torch.no_grad():
        p = model.eval()(image)[0, 0].double().sigmoid()
    total = weights = 0.0
    for place in itertools.product(*map(range, p.shape)):
        w, y = float(found.weight[0][place]), int(found.crf[0][place])
        total -= w * math.log(float(p[place]) if y else 1 - float(p[place]))
        weights += w
    assert found.history[0].losses == [pytest.approx(total / weights, rel=1e-5)]


def test_without_weights_and_without_scribbles():
    model, image, _, scribbles, _ = SCENE
    options = {"rounds": 1, "steps": 5, "lr": 0.02}
    flat = refine(model, image, scribbles, doubt=None, **options)
    assert (flat.weight == 1).all()
    full = refine(model, image, scribbles, **options)
    assert not torch.equal(flat.prob, full.prob)
    alone = refine(model, image, None, **options)
    with torch.no_grad():
        p = model.eval()(image).sigmoid()[:, 0]
    assert torch.equal(alone.weight, (~((p > 0.2) & (p < 0.7))).float())
    none = torch.full_like(scribbles, NONE)
    marked = refine(model, image, none, **options)
    assert torch.equal(marked.prob, alone.prob) and torch.equal(marked.labels, alone.labels)
    assert torch.equal(alone.crf, crf_graphcut(p[:, None], image, CUT))


def test_stops_when_the_labels_stay():
    model, image, _, scribbles, _ = SCENE
    options = {"steps": 2, "lr": 1e-9}
    still = refine(model, image, scribbles, rounds=4, **options)
    assert [turn.changed for turn in still.history] == [0]
    assert len(refine(model, image, scribbles, rounds=4, tol=0, **options).history) == 4
    none = refine(model, image, scribbles, rounds=0, **options)
    assert none.history == [] and none.weight is None and torch.equal(none.labels, none.crf)


def test_every_pixel_in_doubt_leaves_the_network_as_it_is():
    model, image, _, _, _ = SCENE
    found = refine(model, image, None, doubt=Doubt(0, 1), rounds=1, steps=3, lr=0.1)
    with torch.no_grad():
        prob = model.eval()(image).sigmoid()
    torch.testing.assert_close(found.prob, prob, rtol=1e-4, atol=1e-7)  # two copies round otherwise
    assert found.history[0].losses == [0, 0, 0]


def test_in_space_and_with_all_neighbours():
    size = (6, 8, 8)
    truth = square(size, (1, 2, 2), 4)
    gen = torch.Generator().manual_seed(0)
    image = (0.2 + 0.5 * truth + 0.05 * torch.randn(truth.shape, generator=gen)).clamp(0, 1)[None]
    scribbles = torch.full(truth.shape, NONE)
    scribbles[0, 3, 3, 2:5], scribbles[0, 0, 0] = 1, 0
    cut = Cut(0.5, 0.15, 26)
    found = refine(Toy(3), image, scribbles, cut=cut, lr=0.05, steps=30)
    assert dice(found.labels, truth) > 0.9
    again = crf_graphcut(found.prob, image, cut, scribbles)
    assert torch.equal(found.labels, again)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"image": torch.zeros(2, 1, 3, 4)}, ValueError, "number of images"),
        ({"image": torch.zeros(1, 1, 0, 4)}, ValueError, "at least one pixel"),
        ({"image": torch.full((1, 1, 3, 4), math.nan)}, ValueError, "image must be finite"),
        ({"scribbles": torch.full((1, 3, 5), NONE)}, ValueError, "scribbles must have the shape"),
        ({"scribbles": torch.full((1, 3, 4), 7)}, ValueError, "scribbles must be 1"),
        ({"cut": Cut(-1.0, 0.15)}, ValueError, "lam"),
        ({"cut": Cut(0.5, 0.0)}, ValueError, "sigma"),
        ({"cut": Cut(0.5, 0.15, 26)}, ValueError, "connectivity"),
        ({"model": nn.Conv2d(1, 1, 1)}, TypeError, "features.*head.*Conv2d"),
        ({"model": nn.Conv2d(1, 2, 1), "finetune": "all"}, ValueError, r"logits \(1, 1, 3, 4\)"),
    ],
)
def test_refuses(change, error, match):
    arguments = {"image": torch.zeros(1, 1, 3, 4), "scribbles": torch.full((1, 3, 4), NONE)}
    arguments |= {"model": Toy()} | change
    with pytest.raises(error, match=match):
        refine(arguments.pop("model"), **arguments)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"finetune": "head"}, "finetune must be one of"),
        ({"rounds": -1}, "rounds"),
        ({"steps": 0}, "steps"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"tol": -0.1}, "tol"),
    ],
)
def test_fine_tuning_refuses(bad, match):
    with pytest.raises(ValueError, match=match):
        FineTuning(**bad)


def test_a_network_that_answers_nan():
    model = Toy()
    model.last[2].bias.data[:] = math.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        refine(model, torch.zeros(1, 1, 3, 4), None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("finetune", ["last", "all"])
def test_the_network_runs_where_it_lives(finetune):
    _, image, _, scribbles, _ = SCENE
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 1))
    model.features, model.head = model[0], model[1]
    options = {"finetune": finetune, "rounds": 1, "steps": 2}
    here = refine(model, image, scribbles, **options)
    there = refine(model.cuda(), image, scribbles, **options)  # the image stays on the CPU
    both = refine(model, image.cuda(), scribbles.cuda(), **options)
    assert there.labels.device == there.prob.device == image.device
    assert both.labels.is_cuda and both.prob.is_cuda and both.weight.is_cuda
    torch.testing.assert_close(there.prob, here.prob, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(both.prob.cpu(), here.prob, rtol=1e-3, atol=1e-3)
