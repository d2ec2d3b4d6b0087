"""Oracles: enumeration of every closed contour, and the published algorithm."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.solvers.star_dp import (
    algorithm1,
    circular_dp,
    circular_dp_energy,
    perturbed_gradient,
    perturbed_indices,
    soft_circular_dp,
)


def maps(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def contours(n_lines, n_points, delta):
    """Every answer whose neighbours, the last and the first included, differ by at most delta."""
    every = np.array(list(itertools.product(range(1, n_points + 1), repeat=n_lines)))
    return every[(np.abs(every - np.roll(every, -1, axis=1)) <= delta).all(1)]


def energies(g, every):
    """Equations 1 and 2 for one map (N,M+1), written once more with NumPy."""
    g, lines = np.asarray(g, np.float64), np.arange(len(g))
    fall = g[lines, every] - g[lines, every - 1]
    return (fall + np.roll(fall, -1, axis=1)).sum(1)


@pytest.mark.parametrize("n_lines", [3, 4, 5])
@pytest.mark.parametrize("n_points", [1, 2, 4, 5])
def test_least_energy_of_all_contours_for_every_delta(n_lines, n_points):
    g = maps(8, n_lines, n_points + 1, seed=10 * n_lines + n_points)
    for delta in range(n_points + 2):
        every = contours(n_lines, n_points, delta)
        for solve in (circular_dp, algorithm1):
            v = solve(g, delta)
            assert v.dtype == torch.int64
            for answer, one in zip(v.numpy(), g, strict=True):
                assert any((answer == c).all() for c in every)
                best = energies(one, every).min()
                np.testing.assert_allclose(energies(one, answer[None])[0], best, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 5),
    st.integers(1, 5),
    st.integers(0, 6),
    st.lists(st.integers(-2, 2), min_size=30, max_size=30),
)
def test_whole_numbers_with_many_ties(n_lines, n_points, delta, numbers):
    g = torch.tensor(numbers[: n_lines * (n_points + 1)]).view(1, n_lines, n_points + 1).float()
    every = contours(n_lines, n_points, delta)
    cost = energies(g[0], every)
    v = circular_dp(g, delta)[0].numpy()
    assert energies(g[0], v[None])[0] == cost.min()  # whole numbers: no rounding
    ties = every[cost == cost.min()]
    if delta < n_points - 1:  # documented rule: lowest first answer, then last, then backwards
        order = [0, *range(n_lines - 1, 0, -1)]
        np.testing.assert_array_equal(v, min(ties, key=lambda c: [c[i] for i in order]))
    else:
        np.testing.assert_array_equal(v, ties.min(0))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(3, 24), st.integers(2, 24), st.integers(0, 25), st.integers(0, 10**6), st.booleans()
)
def test_same_energy_as_the_published_algorithm(n_lines, n_points, delta, seed, smooth):
    g = maps(2, n_lines, n_points + 1, seed=seed, dtype=torch.float64)
    if smooth:
        g = g.cumsum(1)
    ours, theirs = circular_dp(g, delta), algorithm1(g, delta)
    torch.testing.assert_close(
        circular_dp_energy(g, ours, delta), circular_dp_energy(g, theirs, delta)
    )
    torch.testing.assert_close(ours, theirs)  # no ties among random numbers


def test_paper_size_equals_algorithm_1():
    g = maps(2, 50, 66)
    torch.testing.assert_close(circular_dp(g, 2), algorithm1(g, 2))


def test_hand_computed_path_and_energy():
    g = torch.zeros(1, 3, 5)
    g[0, 0, 3:] = -5.0  # line 1 falls by 5 at 3
    g[0, 1, 2:] = -2.0  # line 2 by 2 at 2
    g[0, 2, 1:] = -1.0  # line 3 by 1 at 1, out of line 1's reach for δ = 1
    v = circular_dp(g, 1)
    assert v.tolist() == [[3, 2, 2]]
    assert circular_dp_energy(g, v, 1).tolist() == [2 * (-5 - 2 + 0)]
    assert circular_dp(g, 2).tolist() == [[3, 2, 1]]
    assert circular_dp_energy(g, torch.tensor([[3, 2, 1]]), 1).tolist() == [float("inf")]


def test_band_holds_between_the_last_line_and_the_first():
    # A spiral: each line's best answer is one further out, so only closing costs anything.
    n_lines = n_points = 9
    i = torch.arange(n_points + 1)
    g = -(i >= torch.arange(1, n_lines + 1)[:, None]).float()[None]
    v = circular_dp(g, 1)[0]
    assert (v - v.roll(-1)).abs().max() <= 1
    assert circular_dp_energy(g, torch.arange(1, n_lines + 1)[None], 1).isinf().all()
    assert circular_dp_energy(g, torch.arange(1, n_lines + 1)[None]).tolist() == [-18.0]


@pytest.mark.parametrize("delta", [4, 5, 6, 100])
def test_wide_band_is_the_best_answer_of_each_line(delta):
    g = maps(3, 7, 6)
    torch.testing.assert_close(circular_dp(g, delta), g.diff(dim=-1).argmin(-1) + 1)


def test_delta_zero_is_the_best_circle():
    g = maps(4, 6, 9)
    best = g.diff(dim=-1).sum(1).argmin(-1) + 1
    torch.testing.assert_close(circular_dp(g, 0), best[:, None].expand(-1, 6))


@pytest.mark.parametrize("delta", [0, 1, 2, 7])
def test_constant_map_gives_the_innermost_circle(delta):
    assert (circular_dp(torch.full((2, 5, 8), 3.0), delta) == 1).all()


@pytest.mark.parametrize("shift", [1, 4, 11])
def test_turning_the_lines_turns_the_answer(shift):
    g = maps(3, 12, 10, dtype=torch.float64)
    torch.testing.assert_close(circular_dp(g.roll(shift, 1), 2), circular_dp(g, 2).roll(shift, 1))


def test_offset_and_scale_of_a_map_change_nothing():
    g = maps(2, 9, 12, dtype=torch.float64)
    torch.testing.assert_close(circular_dp(5 * g + maps(2, 9, 1, seed=1), 1), circular_dp(g, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    g = maps(2, 8, 9).to(dtype)
    torch.testing.assert_close(circular_dp(g, 1), algorithm1(g.double(), 1))


def test_samples_do_not_depend_on_the_batch():
    g = maps(5, 9, 12)
    together = circular_dp(g, 2)
    for one, v in zip(g, together, strict=True):
        torch.testing.assert_close(circular_dp(one[None], 2)[0], v)
    assert circular_dp(g[:0], 2).shape == (0, 9)


def test_input_may_be_a_view_with_gradient_and_is_left_alone():
    base = maps(13, 9, 4).requires_grad_()
    view = base.permute(2, 1, 0)
    before = view.detach().clone()
    torch.testing.assert_close(circular_dp(view, 1), circular_dp(view.detach().contiguous(), 1))
    torch.testing.assert_close(view.detach(), before)


def test_bad_input_is_refused_by_name():
    g = maps(2, 4, 5)
    g[1, 2, 3] = float("nan")
    for solve in (
        circular_dp,
        algorithm1,
        lambda g, d: soft_circular_dp(g, d, 1.0),
        lambda g, d: circular_dp_energy(g, torch.ones(g.shape[:2]).long(), d),
    ):
        with pytest.raises(ValueError, match=r"g must be finite, got nan at index \[1, 2, 3\]"):
            solve(g, 1)
        with pytest.raises(ValueError, match="delta must be at least 0, got -1"):
            solve(maps(2, 4, 5), -1)
        with pytest.raises(TypeError, match=r"delta must be an integer, got 1\.5"):
            solve(maps(2, 4, 5), 1.5)
        with pytest.raises(ValueError, match=r"lines N.* must be at least 3, got 2"):
            solve(maps(2, 2, 5), 1)
        with pytest.raises(ValueError, match=r"samples M\+1.* must be at least 2, got 1"):
            solve(maps(2, 4, 1), 1)
        with pytest.raises(ValueError, match=r"g must have the shape"):
            solve(maps(4, 5), 1)
        with pytest.raises(TypeError, match=r"floating-point tensor, got torch\.int64"):
            solve(torch.zeros(2, 4, 5).long(), 1)
    with pytest.raises(ValueError, match=r"inf at index \[0, 0, 0\]"):
        circular_dp(torch.full((1, 3, 3), float("inf")), 1)
    with pytest.raises(ValueError, match=r"v must be in \[1, 4\], got 5"):
        circular_dp_energy(maps(1, 3, 5), torch.tensor([[1, 5, 1]]))
    with pytest.raises(ValueError, match="gamma must be positive"):
        soft_circular_dp(maps(1, 3, 5), 1, 0.0)
    with pytest.raises(ValueError, match="sigma must be positive"):
        perturbed_indices(maps(1, 3, 5), 1, 0.0, 3, torch.Generator())
    with pytest.raises(ValueError, match="n_samples must be at least 2"):
        perturbed_gradient(maps(1, 3, 5), 1, torch.ones(1, 3), 1.0, 1, torch.Generator())


@pytest.mark.parametrize(("n_points", "delta"), [(1, 0), (3, 1), (5, 0), (5, 2), (5, 9)])
@pytest.mark.parametrize("gamma", [0.1, 2.0])
def test_soft_value_and_marginals_by_enumeration(n_points, delta, gamma):
    g = maps(3, 4, n_points + 1, dtype=torch.float64)
    value, marginals = soft_circular_dp(g, delta, gamma)
    every = contours(4, n_points, delta)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(every) - 1, n_points).double()
    for b in range(3):
        score = -torch.from_numpy(energies(g[b], every)) / gamma
        torch.testing.assert_close(value[b], -gamma * score.logsumexp(0))
        expected = torch.einsum("c,cni->ni", score.softmax(0), one_hot)
        torch.testing.assert_close(marginals[b], expected)


def test_soft_gradients_by_finite_differences():
    g = maps(2, 4, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda g: soft_circular_dp(g, 1, 0.7)[0], g)
    assert torch.autograd.gradcheck(lambda g: soft_circular_dp(g, 1, 0.7)[1], g)
    value, p = soft_circular_dp(g, 1, 0.7)
    (gradient,) = torch.autograd.grad(value.sum(), g)
    padded = torch.nn.functional.pad(p, (1, 1))  # p(n,0) = p(n,M+1) = 0
    torch.testing.assert_close(gradient, -2 * padded.diff(dim=-1))


def test_soft_tends_to_the_hard_optimum_and_stays_finite():
    g = 100 * maps(2, 12, 20)
    value, marginals = soft_circular_dp(g, 1, 1e-3)
    hard = circular_dp(g, 1)
    torch.testing.assert_close(value, circular_dp_energy(g, hard, 1), rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(marginals.argmax(-1) + 1, hard)
    torch.testing.assert_close(marginals.sum(-1), torch.ones(2, 12))
    with torch.no_grad():
        assert not soft_circular_dp(g.requires_grad_(), 1, 1.0)[1].requires_grad


def test_perturbed_mean_tends_to_the_hard_answer_and_to_indifference():
    g = 10 * maps(2, 5, 5)
    gen = torch.Generator().manual_seed(0)
    one_hot = torch.nn.functional.one_hot(circular_dp(g, 1) - 1, 4).float()
    torch.testing.assert_close(perturbed_indices(g, 1, 1e-4, 20, gen), one_hot)
    flat = perturbed_indices(torch.zeros(1, 3, 3), 5, 1.0, 4000, gen)  # two equal answers
    torch.testing.assert_close(flat, torch.full((1, 3, 2), 0.5), atol=0.03, rtol=0)


def test_perturbed_gradient_by_finite_differences_with_common_noise():
    g, target = maps(1, 3, 3), torch.tensor([[2, 1, 2]])
    estimate = perturbed_gradient(g, 1, target, 1.0, 40_000, torch.Generator().manual_seed(1))

    def loss(g, n=40_000):
        noise = torch.randn((n, *g.shape[1:]), generator=torch.Generator().manual_seed(2))
        return ((circular_dp(g + noise, 1) - target).abs().float().mean(1) / 2).mean()

    for place in [(0, 0, 0), (0, 1, 1), (0, 2, 2)]:
        step = torch.zeros_like(g)
        step[place] = 0.25
        slope = (loss(g + step) - loss(g - step)) / 0.5
        torch.testing.assert_close(estimate[place], slope, atol=0.012, rtol=0)
    assert estimate.sum(-1).abs().max() < 0.02  # a constant on a line changes no answer


def test_perturbed_draws_depend_on_the_generator_alone():
    g, target = maps(3, 6, 8), torch.full((3, 6), 4)

    def draw(seed):
        gen = torch.Generator().manual_seed(seed)
        return perturbed_gradient(g, 1, target, 1.0, 300, gen, width=3)

    torch.testing.assert_close(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("delta", [0, 2, 100])
def test_cuda_gives_the_answers_of_the_cpu(delta):
    g = maps(4, 30, 41)
    for solve in (circular_dp, algorithm1):
        v = solve(g.cuda(), delta)
        assert v.is_cuda
        torch.testing.assert_close(v.cpu(), circular_dp(g, delta))
    torch.testing.assert_close(
        soft_circular_dp(g.cuda(), delta, 1.0)[1].cpu(), soft_circular_dp(g, delta, 1.0)[1]
    )


def test_equal_losses_have_no_gradient_however_large():
    g, far = maps(2, 3, 2), torch.full((2, 3), 50)  # M = 1: one answer, one loss, 49
    gradient = perturbed_gradient(g, 1, far, 1.0, 5, torch.Generator().manual_seed(0))
    assert gradient.abs().max() < 1e-3
