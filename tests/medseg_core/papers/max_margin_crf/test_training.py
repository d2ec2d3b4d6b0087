"""Algorithm 2's loop: what a step is given, what an epoch reports, what is kept."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from medseg_core.papers.max_margin_crf import experiment, training
from medseg_core.papers.max_margin_crf.experiment import SETTINGS, Bench, Parts, Settings
from medseg_core.papers.max_margin_crf.gradient import hinge_subgradient, margin_loss
from medseg_core.papers.max_margin_crf.training import Batch, BatchFit, Epoch, Objective, Training
from medseg_core.rng import seed_all

TINY = Settings(
    size=32, n_train=3, n_small=2, n_large=4, n_validation=2, n_test=2, widths=(8,) * 5,
    convs=(1,) * 5, fc=8, batch=2, epochs=2, eps=3.0, dropout=0.1,
)  # fmt: skip
RATE = 1e-2


@pytest.fixture(scope="module")
def bench():
    parts = Parts(*map(experiment.prepared, experiment.load("ultrasound", TINY, 0)))
    return Bench(TINY, parts, torch.device("cpu"))


@pytest.fixture
def start(bench):
    """An untrained network that says something, at random."""
    seed_all(0)
    model = experiment.network(bench.s)
    for score in model.scores:
        nn.init.normal_(score.weight, std=0.3)
    return model


def margin_step(model, optimizer, batch):
    a = experiment.logits_of(model, batch.image)
    gamma, found = margin_loss(a, batch.crf, **experiment.tolerance(TINY))
    training.update(optimizer, gamma / TINY.size**2)
    return BatchFit(found.rounds, found.largest_violation, found.converged, float(found.w[0]))


def epoch(cut=0.0, threshold=0.0, **more):
    values = dict.fromkeys(field.name for field in dataclasses.fields(Epoch))
    return Epoch(**(values | {"cut": cut, "threshold": threshold} | more))


def test_all_sizes_get_about_as_many_updates():
    s = SETTINGS["lesson"]  # 4 batches of 33 images in each of 8 epochs
    per_epoch = {12: 2, 33: 4, 66: 7}
    assert {n: training.n_epochs(n, s) for n in per_epoch} == {12: 16, 33: 8, 66: 5}
    assert training.n_epochs(10**6, s) == 1


def test_an_epoch_sees_every_image_once():
    s = SETTINGS["lesson"]
    order = training.epoch_batches(33, 1, 0, s)
    assert list(map(len, order)) == [10, 10, 10, 3]
    assert sorted(torch.cat(order).tolist()) == list(range(33))
    for other in ((33, 2, 0, s), (33, 1, 1, s)):
        assert not torch.equal(torch.cat(order), torch.cat(training.epoch_batches(*other)))


def test_the_best_epoch_is_the_earliest_after_the_start():
    epochs = [epoch(9, 9), epoch(1, 3), epoch(2, 1), epoch(2, 3)]
    done = Training(epochs)
    assert done.best_with_cut is epochs[2] and done.best_without_cut is epochs[1]


def test_the_later_half_judges_a_rate():
    assert Training([epoch(9), epoch(1), epoch(2), epoch(4)]).later == 3
    assert Training([epoch(9), epoch(1), epoch(2), epoch(4), epoch(6)]).later == 4


class TestLoop:
    def test_what_a_step_is_given(self, bench, start):
        seen = []

        def step(model, optimizer, batch):
            assert model.training and model is not start
            seen.append((batch, optimizer.param_groups[0]["lr"]))

        done = training.train_on(start, Objective(step), RATE, 3, 5, bench)
        assert (done.updates, done.images, done.fits) == (4, 6, [])
        assert [rate for _, rate in seen] == [RATE / 2, RATE, RATE, RATE]  # up in the first epoch
        order = [index for k in (1, 2) for index in training.epoch_batches(3, k, 5, TINY)]
        weights = [done.epochs[k].w for k in (0, 0, 1, 1)]  # learnt after the epoch before
        for (batch, _), index, w in zip(seen, order, weights, strict=True):
            for key in ("image", "target"):
                assert torch.equal(getattr(batch, key), bench.parts.train[key][index])
            assert len(batch.crf) == len(index) and torch.equal(batch.w, w)

    def test_a_step_that_does_nothing_changes_nothing(self, bench, start):
        before = [p.clone() for p in start.parameters()]
        done = training.train_on(start, Objective(lambda *_: None), RATE, 3, 0, bench)
        assert all(map(torch.equal, before, start.parameters()))
        for a, b in itertools.pairwise(done.epochs):
            assert torch.equal(a.test, b.test) and a.cut == b.cut
            assert a.gamma == pytest.approx(b.gamma, abs=2 * TINY.C * TINY.eps)

    def test_what_an_epoch_reports(self, bench, start):
        first = training.train_on(start, Objective(lambda *_: None), RATE, 3, 0, bench).epochs[0]
        data = bench.parts
        a = experiment.predict(start, data.train["image"][:3], TINY)
        fitted = experiment.crf_of(data.train, TINY, 3).fit(a, **experiment.tolerance(TINY))
        assert first.gamma == fitted.gamma and torch.equal(first.w, fitted.w)
        assert first.stale == 0  # no labellings from batches
        assert torch.equal(first.test, experiment.predict(start, data.test["image"], TINY))

    def test_the_margin_fills_the_sets_and_moves_the_network(self, bench, start):
        objective = Objective(margin_step)
        done = training.train_on(start, objective, RATE, 3, 0, bench)
        assert len(done.fits) == done.updates == 4
        for entry in done.epochs[1:]:
            assert 0 < entry.stale <= entry.gamma * (1 + 1e-6)  # a lower bound
        assert not torch.equal(done.epochs[0].test, done.epochs[-1].test)
        again, other = (training.train_on(start, objective, RATE, 3, k, bench) for k in (0, 1))
        assert torch.equal(done.epochs[-1].test, again.epochs[-1].test)
        assert not torch.equal(done.epochs[-1].test, other.epochs[-1].test)

    def test_without_contrast_w3_is_0(self, bench, start):
        objective = Objective(lambda *_: None, contrast=False)
        done = training.train_on(start, objective, RATE, 3, 0, bench)
        assert [float(entry.w[2]) for entry in done.epochs] == [0, 0, 0]

    def test_the_arm(self, bench, start):
        asked = []
        arm = training.continued(
            Objective(training.likelihood_step), RATE, 2, lambda k: asked.append(k) or start, bench
        )
        out = arm(7)
        assert asked == [7] and (out["updates"], out["images"]) == (4, 8)  # 4 epochs of one batch
        assert len(out["extras"]["training"].epochs) == 5

    def test_a_maker_starts_from_the_weights_of_its_seed(self, bench, start):
        states = {k: {n: k * x for n, x in start.state_dict().items()} for k in (1, 2)}
        objective = Objective(lambda *_: None)
        make = training.maker(objective, 2, states, bench)
        first = make(RATE)(2)["extras"]["training"].epochs[0]
        expected = experiment.predict(
            experiment.restored(states[2], bench), bench.parts.test["image"], TINY
        )
        assert torch.equal(first.test, expected)


class Direct(nn.Module):
    """Logits that are its weights, whatever the image."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(a)

    def forward(self, image):
        return torch.cat([0 * self.a, self.a], 1)


class TestSteps:
    def batch(self, bench):
        data = experiment.first(bench.parts.train, 2)
        crf = experiment.crf_of(data, TINY)
        return Batch(data["image"], data["target"], crf, torch.tensor([1.0, 0.3, 0.2]))

    def moved(self, step, batch):
        """The step's change of the logits, by gradient descent of rate 1."""
        gen = torch.Generator().manual_seed(0)
        a = torch.randn(2, 1, 32, 32, generator=gen, dtype=torch.float64)
        model = Direct(a.clone())
        assert step(model, torch.optim.SGD(model.parameters(), lr=1.0), batch) is None
        return a, model.a.detach() - a

    def test_the_control_moves_along_the_likelihood(self, bench):
        batch = self.batch(bench)
        a, moved = self.moved(training.likelihood_step, batch)
        expected = (batch.target[:, None] - a.sigmoid()) / batch.target.numel()
        torch.testing.assert_close(moved, expected)

    def test_the_subgradient_moves_along_one_violator_per_image(self, bench):
        batch = self.batch(bench)
        a, moved = self.moved(training.subgradient_step, batch)
        expected = -hinge_subgradient(a, batch.crf, batch.w) / 32**2
        torch.testing.assert_close(moved, expected)
        assert moved.any() and not any(map(len, batch.crf.images))
