import math

import pytest
import torch
from torch import nn

from medseg_core.training.fit import fit
from medseg_core.training.samplers import batches


def problem(steps, size=4):
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(32, 3, generator=gen)
    return batches({"x": x, "y": x @ torch.tensor([1.0, -2.0, 0.5])}, size, steps=steps, seed=0)


def model():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def loss_fn(net, batch):
    return (net(batch["x"])[:, 0] - batch["y"]).square().mean()


def run(net=None, *, steps=20, **options):
    net = model() if net is None else net
    return net, fit(net, problem(steps), loss_fn, steps=steps, **options)


def test_equals_the_plain_loop():
    net, history = run(steps=15, lr=0.05)
    plain = model()
    opt = torch.optim.Adam(plain.parameters(), lr=0.05)
    losses = []
    for batch in problem(15):
        loss = loss_fn(plain, batch)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    torch.testing.assert_close(net.weight, plain.weight, atol=1e-6, rtol=1e-5)
    assert history.losses == pytest.approx(losses, rel=1e-4)
    assert (history.updates, history.images) == (15, 60)
    assert history.seconds > 0 and not net.training


def test_weight_decay_pulls_towards_zero():
    plain, decayed = run(steps=40, lr=0.05)[0], run(steps=40, lr=0.05, weight_decay=1.0)[0]
    assert decayed.weight.norm() < 0.9 * plain.weight.norm()


def test_a_function_may_make_the_optimiser():
    net, _ = run(steps=1, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    assert torch.equal(net.weight, model().weight)


def rates(schedule, steps=10):
    seen = []

    def make(parameters):
        opt = torch.optim.SGD(parameters, lr=1.0)
        opt.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["lr"]))
        return opt

    def tiny(net, batch):
        return 1e-6 * loss_fn(net, batch)

    fit(
        model(),
        problem(steps),
        tiny,
        steps=steps,
        optimizer=make,
        schedule=schedule,
    )
    return seen


def test_schedules():
    assert rates(None) == [1.0] * 10
    assert rates("cosine")[5] == pytest.approx(0.5) and rates("cosine")[0] == 1.0
    halved = rates(lambda t: 0.5 if t >= 0.5 else 1.0)
    assert halved == [1.0] * 5 + [0.5] * 5


def test_best_weights_come_back():
    scores, kept = iter([0.1, 0.9, 0.9, 0.2]), []

    def validate(net):
        assert not net.training and not torch.is_grad_enabled()
        kept.append(net.weight.clone())
        return next(scores)

    net, history = run(steps=7, validate=validate, validate_every=2)
    assert history.validation == [(2, 0.1), (4, 0.9), (6, 0.9), (7, 0.2)]
    assert history.best == (4, 0.9)
    assert torch.equal(net.weight, kept[1])


def test_last_weights_stay_when_asked_for():
    kept = []

    def validate(net):
        kept.append(net.weight.clone())
        return -len(kept)

    net, history = run(steps=4, validate=validate, validate_every=2, keep="last")
    assert history.best == (2, -1.0) and torch.equal(net.weight, kept[-1])


def test_validation_that_is_undefined_never_wins():
    scores = iter([math.nan, 0.5, math.nan])
    _, history = run(steps=3, validate=lambda net: next(scores), validate_every=1)
    assert history.best == (2, 0.5)


def test_buffers_are_restored_too():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    scores = iter([1.0, 0.0])
    run(net, steps=2, validate=lambda n: next(scores), validate_every=1)
    assert net[0].num_batches_tracked == 1


def test_losses_in_parts():
    def parts(net, batch):
        loss = loss_fn(net, batch)
        return {"loss": loss, "half": loss.detach() / 2, "constant": 3}

    history = fit(model(), problem(3), parts, steps=3)
    assert history.parts["half"] == pytest.approx([v / 2 for v in history.losses])
    assert history.parts["constant"] == [3, 3, 3]


def test_nan_loss_stops_with_the_step():
    def breaks(net, batch):
        breaks.n += 1
        return loss_fn(net, batch) * (math.inf if breaks.n == 3 else 1)

    breaks.n = 0
    with pytest.raises(FloatingPointError, match="update 3 of 5"):
        fit(model(), problem(5), breaks, steps=5)


def test_takes_no_more_batches_than_steps():
    source = problem(10)
    fit(model(), source, loss_fn, steps=4)
    assert len(list(source)) == 6


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="ended after 3 of steps=5"):
        fit(model(), problem(3), loss_fn, steps=5)
    for bad in ({"keep": "first"}, {"schedule": "exp"}, {"validate_every": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            run(steps=2, **bad)
    with pytest.raises(ValueError, match="steps"):
        fit(model(), problem(2), loss_fn, steps=0)
