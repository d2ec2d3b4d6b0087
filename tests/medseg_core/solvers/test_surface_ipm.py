"""Oracles: enumeration of subsequences, algorithm 1 with its dense matrix, two surfaces by hand."""

import itertools

import numpy as np
import pytest
import torch

from medseg_core.solvers.surface_ipm import increasing_start, solve_columns, strictly_inside

PAPER = {"beta1": 0.5, "beta2": 0.055, "beta3": 10.0}


def double(x):
    return torch.as_tensor(np.asarray(x), dtype=torch.float64)


def printed_algorithm_1(mu, sigma2, min_gap, max_gap, epsilon, max_iter):
    """One column, step for step with the (N+M)×(N+M) matrix J; starts where ours starts."""
    n = len(mu)
    difference = -np.diff(np.eye(n), axis=0)  # A
    b_matrix = np.concatenate([difference, -difference]) if max_gap is not None else difference
    limit = -min_gap if max_gap is None else np.concatenate([-min_gap, max_gap])
    offset = np.r_[0, min_gap.cumsum()]
    s = increasing_start(double(mu - offset)[:, None]) + double(offset)[:, None]
    high = None if max_gap is None else double(max_gap)[:, None]
    s = strictly_inside(
        s, double(mu)[:, None], double(1 / sigma2)[:, None], double(min_gap)[:, None], high
    )[:, 0].numpy()
    q, lam = np.diag(1 / sigma2), np.ones(len(b_matrix))

    def r(s, lam, t):
        outside = b_matrix @ s - limit
        return np.r_[q @ (s - mu) + b_matrix.T @ lam, -lam * outside - 1 / t]

    iterates, norms = [s], []
    for _ in range(max_iter):
        outside = b_matrix @ s - limit
        t = -PAPER["beta3"] * len(lam) / (outside @ lam)
        jacobian = np.block([[q, b_matrix.T], [-lam[:, None] * b_matrix, -np.diag(outside)]])
        step = -np.linalg.solve(jacobian, r(s, lam, t))
        d_s, d_lam = step[:n], step[n:]
        alpha = min(1, 0.99 * min([1e9, *(-lam / d_lam)[d_lam < 0]]))
        while (b_matrix @ (s + alpha * d_s) >= limit).any():
            alpha *= PAPER["beta1"]
        before = np.linalg.norm(r(s, lam, t))
        while np.linalg.norm(r(s + alpha * d_s, lam + alpha * d_lam, t)) > before * (
            1 - PAPER["beta2"] * alpha
        ):
            alpha *= PAPER["beta1"]
        s, lam = s + alpha * d_s, lam + alpha * d_lam
        iterates.append(s)
        norms.append(np.linalg.norm(r(s, lam, t)))
        if norms[-1] < epsilon:
            break
    return iterates, norms


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("n", [2, 5, 9])
def test_every_iterate_of_the_printed_algorithm(n, two_sided):
    rng = np.random.default_rng(n)
    mu = rng.normal(0, 2.2, (n, 12)) + 3 * np.arange(n)[:, None]
    sigma2 = rng.uniform(1, 11, mu.shape)
    low = rng.uniform(0, 1, (n - 1, 12))
    high = low + rng.uniform(0.5, 4, low.shape) if two_sided else None
    trace = []
    end = solve_columns(
        double(mu), double(1 / sigma2), double(low), None if high is None else double(high),
        tol=0.01, max_iter=30, stop="residual", trace=trace,
    )  # fmt: skip
    for c in range(12):
        side = None if high is None else high[:, c]
        iterates, norms = printed_algorithm_1(mu[:, c], sigma2[:, c], low[:, c], side, 0.01, 30)
        assert end.iterations[c] == len(iterates) - 1
        for t, s in enumerate(iterates):
            np.testing.assert_allclose(trace[t].s[:, c], s, atol=1e-8)
        ours = [point.residual[c].item() for point in trace[1 : len(iterates)]]
        np.testing.assert_allclose(ours, norms, rtol=1e-6)
        torch.testing.assert_close(end.s[:, c], trace[-1].s[:, c])
    assert end.converged.all() and (end.residual < 0.01).all()


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_start_keeps_a_longest_subsequence(n):
    rng = np.random.default_rng(n)
    for mu in rng.integers(-3, 4, (30, n)).astype(float):
        s = increasing_start(double(mu)[:, None])[:, 0].numpy()
        assert (np.diff(s) >= 0).all()
        longest = max(
            k
            for k in range(1, n + 1)
            for kept in itertools.combinations(range(n), k)
            if (np.diff(mu[list(kept)]) >= 0).all()
        )
        assert (s == mu).sum() >= longest
        if longest == n:
            np.testing.assert_array_equal(s, mu)
    middle = increasing_start(double([0.0, 9.0, 4.0, 5.0, 6.0])[:, None])[:, 0]
    assert middle.tolist() == [0, 2, 4, 5, 6]  # 9 goes half-way between its neighbours


def test_start_is_strictly_inside_with_the_weighted_mean_of_mu():
    gen = torch.Generator().manual_seed(0)
    mu = 5 * torch.randn(6, 20, generator=gen, dtype=torch.float64)
    weight = torch.rand(6, 20, generator=gen, dtype=torch.float64) + 0.1
    low = torch.rand(5, 20, generator=gen, dtype=torch.float64)
    high = low + 0.02  # narrow: a quarter of it is the margin
    s = strictly_inside(mu, mu, weight, low, high)
    assert (s.diff(dim=0) - low >= 0.005 - 1e-9).all() and (high - s.diff(dim=0) > 0.0049).all()
    torch.testing.assert_close((weight * s).sum(0), (weight * mu).sum(0))
    assert (strictly_inside(mu, mu, weight, low, None).diff(dim=0) >= low + 0.01 - 1e-9).all()


def test_finished_columns_are_frozen_and_alone_give_the_same():
    gen = torch.Generator().manual_seed(1)
    mu = 3 * torch.randn(9, 40, generator=gen, dtype=torch.float64)
    weight, low = torch.ones_like(mu), torch.zeros(8, 40, dtype=torch.float64)
    trace = []
    options = {"tol": 1e-8, "max_iter": 100}
    end = solve_columns(mu, weight, low, None, trace=trace, **options)
    assert end.converged.all() and end.iterations.unique().numel() > 2
    assert len(trace) == end.iterations.max() + 1
    for c in (0, 17, 39):
        k = int(end.iterations[c])
        for later in trace[k:]:
            assert torch.equal(later.s[:, c], trace[k].s[:, c])
        alone = solve_columns(mu[:, [c]], weight[:, [c]], low[:, [c]], None, **options)
        assert alone.iterations.item() == k
        torch.testing.assert_close(alone.s[:, 0], end.s[:, c], rtol=0, atol=1e-12)


def test_an_iterate_never_leaves_the_limits_and_the_cap_is_kept():
    gen = torch.Generator().manual_seed(2)
    mu = 8 * torch.randn(5, 30, generator=gen, dtype=torch.float64)
    low = torch.full((4, 30), 0.5, dtype=torch.float64)
    trace = []
    end = solve_columns(mu, torch.ones_like(mu), low, low + 3, tol=1e-8, max_iter=4, trace=trace)
    assert not end.converged.any() and (end.iterations == 4).all() and len(trace) == 5
    for point in trace:
        gaps = point.s.diff(dim=0)
        assert (gaps > 0.5).all() and (gaps < 3.5).all()
    assert all((a.gap > b.gap).all() for a, b in itertools.pairwise(trace))


@pytest.mark.parametrize("stop", ["gap", "residual"])
def test_rigid_pairs_and_missing_limits(stop):
    mu = double([[0.0], [5.0], [4.0], [30.0]])
    low, high = double([[2.0], [0.0], [0.0]]), double([[2.0], [np.inf], [10.0]])
    end = solve_columns(mu, torch.ones_like(mu), low, high, tol=1e-9, max_iter=100, stop=stop)
    # 1 and 2 are one body at (0 + 5 − 2)/2; 3 and 4 are 10 apart: (4 + 30 − 10)/2
    assert end.converged.all()
    assert end.s[:, 0].tolist() == pytest.approx([1.5, 3.5, 12, 22], abs=1e-6)
    assert end.force[0].item() == pytest.approx(-1.5, abs=1e-6)
