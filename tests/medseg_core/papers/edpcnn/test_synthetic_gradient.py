import copy
import math

import pytest
import torch
from torch import nn

from medseg_core.papers.edpcnn.star_approximator import StarApproximator
from medseg_core.papers.edpcnn.synthetic_gradient import SyntheticGradient

B, N, M = 4, 8, 6


def solve(g):
    """Per line, the sample before which the map falls most: 0-based."""
    return g.diff(dim=-1).argmin(-1)


class Spy:
    """A solver that remembers what it was asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, g):
        assert not g.requires_grad and not torch.is_grad_enabled()
        self.calls.append(g.clone())
        return solve(g)


class Recorder(nn.Module):
    """A network that remembers what it was shown, and in which mode."""

    def __init__(self):
        super().__init__()
        self.lines = nn.Sequential(nn.Linear(M + 1, 16), nn.ReLU(), nn.Linear(16, M))
        self.norm = nn.BatchNorm1d(N)
        self.seen = []

    def forward(self, g):
        self.seen.append((g, self.training))
        return self.lines(self.norm(g))


def make(solver=solve, seed=0, sigma=1.0, n_steps=10):
    torch.manual_seed(0)
    net = Recorder()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    gen = torch.Generator().manual_seed(seed)
    return SyntheticGradient(net, solver, optimizer, gen, sigma=sigma, n_steps=n_steps)


def state(module):
    return copy.deepcopy(module.state_dict())


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def maps(seed=0):
    return torch.randn(B, N, M + 1, generator=torch.Generator().manual_seed(seed))


def test_outer_loss_moves_nothing_of_the_approximator_but_reaches_g():
    sg = make()
    sg.step(maps())
    before = state(sg.approximator)
    for p in sg.approximator.parameters():
        p.grad = None
    source = nn.Parameter(maps(1))
    loss = sg.loss(source * 2, solve(maps(2)))
    loss.backward()
    assert source.grad.abs().sum() > 0
    assert all(p.grad is None for p in sg.approximator.parameters())
    assert all(p.requires_grad for p in sg.approximator.parameters())
    assert same(before, state(sg.approximator))  # the running statistics are in the state
    assert sg.approximator.seen[-1][1] is False  # eval mode while it ran


def test_outer_loss_in_an_optimiser_of_everything_still_spares_the_approximator():
    sg, cnn = make(), nn.Linear(M + 1, M + 1)
    everything = torch.optim.SGD([*cnn.parameters(), *sg.approximator.parameters()], lr=1.0)
    before, weights = state(sg.approximator), state(cnn)
    sg.loss(cnn(maps()), solve(maps())).backward()
    everything.step()
    assert same(before, state(sg.approximator)) and not same(weights, state(cnn))


def test_inner_loop_detaches_g_and_trains_the_approximator_only():
    sg = make(n_steps=2)
    source = nn.Parameter(maps())
    before = state(sg.approximator)
    agreement = sg.step(source * 2)
    assert source.grad is None
    assert not any(g.requires_grad for g, _ in sg.approximator.seen)
    assert all(training for _, training in sg.approximator.seen)
    assert not same(before, state(sg.approximator))
    assert sg.approximator.norm.num_batches_tracked == 2
    assert 0 <= agreement <= 1


def test_fresh_noise_of_the_right_size_every_step_and_every_call():
    spy = Spy()
    sg = make(spy, sigma=0.5, n_steps=40)
    g = maps()
    sg.step(g)
    sg.step(g)
    noise = [seen - g for seen, _ in sg.approximator.seen]
    assert len(noise) == 80
    assert len({float(e.flatten()[0]) for e in noise}) == 80
    everything = torch.stack(noise)
    assert abs(everything.std() - 0.5) < 0.01 and abs(everything.mean()) < 0.01
    # The solver was asked about exactly the maps that the approximator saw.
    assert torch.equal(torch.cat(spy.calls), torch.cat([seen for seen, _ in sg.approximator.seen]))


def test_noise_comes_from_the_generator_alone():
    def first(seed):
        sg = make(n_steps=1, seed=seed)
        torch.manual_seed(99)
        sg.step(maps())
        return sg.approximator.seen[0][0]

    assert not torch.equal(first(3), first(4))
    noise = torch.randn(1, B, N, M + 1, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first(3), maps() + noise[0])


def test_optimiser_is_kept_across_calls():
    sg = make(n_steps=3)
    sg.step(maps())
    sg.step(maps(1))
    steps = {int(s["step"]) for s in sg.optimizer.state.values()}
    assert steps == {6}


def test_algorithm_two_by_hand():
    """The loop as printed, one noise, one solution and one Adam step at a time."""
    sg = make(n_steps=3, sigma=0.7, seed=5)
    net = copy.deepcopy(sg.approximator)
    sg.step(maps())
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    noise = torch.randn(3, B, N, M + 1, generator=torch.Generator().manual_seed(5))
    for eps in noise:
        noisy = maps() + 0.7 * eps
        logits = net(noisy).log_softmax(-1)
        loss = -logits.gather(-1, solve(noisy)[..., None]).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    for a, b in zip(net.parameters(), sg.approximator.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_no_noise_shows_the_map_itself_and_solves_it_once():
    spy = Spy()
    sg = make(spy, sigma=0.0, n_steps=3)
    sg.step(maps())
    assert all(torch.equal(seen, maps()) for seen, _ in sg.approximator.seen)
    assert len(sg.approximator.seen) == 3
    assert sum(len(call) for call in spy.calls) == B
    assert sg.approximator.norm.num_batches_tracked == 3


def test_gradient_is_that_of_the_loss():
    sg = make()
    g, target = maps().requires_grad_(), solve(maps(1))
    sg.loss(g, target).backward()
    torch.testing.assert_close(sg.gradient(g, target), g.grad)
    with torch.no_grad():
        assert sg.gradient(g, target).shape == g.shape


def test_outer_loss_is_the_cross_entropy_per_line_in_eval_mode():
    sg, target = make(), solve(maps(1))
    logits = copy.deepcopy(sg.approximator).eval()(maps())
    expected = -logits.log_softmax(-1).gather(-1, target[..., None]).mean()
    torch.testing.assert_close(sg.loss(maps(), target), expected)


def test_agreement_counts_the_lines_on_which_f_names_the_answer():
    class Fixed(Recorder):
        def forward(self, g):  # always answer 0, with a weight that can be trained
            return torch.zeros(*g.shape[:2], M).index_fill(2, torch.tensor([0]), 9.0) + 0 * (
                self.norm.weight.sum()
            )

    def half(g):  # 0 on every other line, else 1
        return (torch.arange(N) % 2).expand(len(g), N)

    net = Fixed()
    sg = SyntheticGradient(
        net, half, torch.optim.SGD(net.parameters()), torch.Generator(), sigma=1.0, n_steps=3
    )
    assert sg.step(maps()) == 0.5


@pytest.mark.parametrize(
    ("solver", "error", "text"),
    [
        (lambda g: solve(g) + M, ValueError, "0-based"),
        (lambda g: solve(g) - 1, ValueError, "0-based"),
        (lambda g: solve(g).float(), TypeError, "integer"),
        (lambda g: solve(g)[:, 1:], ValueError, "target must have the shape"),
        (lambda g: torch.rand(len(g), N, M + 1), ValueError, "target must have the shape"),
    ],
)
def test_wrong_answers_of_the_solver_are_refused(solver, error, text):
    with pytest.raises(error, match=text):
        make(solver).step(maps())


def test_bad_input_is_refused():
    sg = make()
    broken = maps()
    broken[1, 2, 3] = math.nan
    with pytest.raises(ValueError, match=r"g must be finite.*\[1, 2, 3\]"):
        sg.step(broken)
    with pytest.raises(ValueError, match="g must be finite"):
        sg.loss(broken, solve(maps()))
    with pytest.raises(ValueError, match="g must be"):
        sg.step(torch.zeros(3))
    with pytest.raises(ValueError, match="sigma"):
        make(sigma=-1)
    with pytest.raises(ValueError, match="n_steps"):
        make(n_steps=0)


def test_the_star_network_learns_to_imitate_a_solver_and_its_gradient_trains_a_map():
    torch.manual_seed(0)
    f = StarApproximator(width=4)
    optimizer = torch.optim.Adam(f.parameters(), lr=1e-2)
    sg = SyntheticGradient(f, solve, optimizer, torch.Generator(), sigma=1.0, n_steps=5)
    g = nn.Parameter(0.1 * torch.randn(8, 8, 13))
    target = torch.randint(2, 10, (8, 1)).expand(8, 8)
    opt = torch.optim.Adam([g], lr=0.2)
    first = sg.step(g)
    for _ in range(25):
        last = sg.step(g)
        loss = sg.loss(g, target)
        opt.zero_grad()
        loss.backward()
        opt.step()
    assert first < 0.3 < 0.75 < last
    # The solver itself, which no gradient went through, now gives the wanted answer.
    assert (solve(g) == target).float().mean() > 0.9
