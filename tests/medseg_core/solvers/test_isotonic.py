"""Oracle: scipy's isotonic regression, and the max-min formula."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression as scipy_isotonic

from medseg_core.solvers.isotonic import in_block, isotonic_regression


def columns(seed, n, count=50, spread=3.0):
    rng = np.random.default_rng(seed)
    y = rng.normal(0, spread, (n, count)) + np.arange(n)[:, None]
    return y, 10 ** rng.uniform(-3, 3, (n, count))


def max_min(y, weight):
    """s_i = max over j ≤ i of min over k ≥ i of the mean of y_j..y_k, one column."""
    n = len(y)
    mean = [[np.average(y[j : k + 1], weights=weight[j : k + 1]) for k in range(j, n)]
            for j in range(n)]  # fmt: skip
    return [max(min(mean[j][k - j] for k in range(i, n)) for j in range(i + 1)) for i in range(n)]


def test_scipy_and_the_max_min_formula():
    for n in range(1, 13):
        y, weight = columns(n, n)
        s, pooled = isotonic_regression(torch.from_numpy(y), torch.from_numpy(weight))
        for c in range(y.shape[1]):
            fit = scipy_isotonic(y[:, c], weights=weight[:, c])
            np.testing.assert_allclose(s[:, c], fit.x, rtol=0, atol=1e-10)
            starts = np.flatnonzero(~np.r_[False, pooled[:, c].numpy()])
            np.testing.assert_array_equal(starts, fit.blocks[:-1])
        np.testing.assert_allclose(s[:, 0], max_min(y[:, 0], weight[:, 0]), atol=1e-10)


def test_falling_columns_need_every_sweep():
    n = 40
    convex = -(torch.arange(n, dtype=torch.float64) ** 1.5)[:, None]  # one block
    s, pooled = isotonic_regression(convex, torch.ones_like(convex))
    torch.testing.assert_close(s, convex.mean().expand_as(s))
    assert pooled.all()
    growing = torch.zeros(n, 1, dtype=torch.float64)
    growing[-1] = -1.0  # pools upwards one step at a time where the values rise
    growing += torch.arange(n, dtype=torch.float64)[:, None] * 1e-4
    s, _ = isotonic_regression(growing, torch.ones_like(growing))
    fit = scipy_isotonic(growing[:, 0].numpy()).x
    np.testing.assert_allclose(s[:, 0], fit, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12))
def test_whole_numbers_with_ties(values):
    y = torch.tensor(values, dtype=torch.float64)[:, None]
    s, _ = isotonic_regression(y, torch.ones_like(y))
    assert (s.diff(dim=0) >= 0).all()
    np.testing.assert_allclose(s[:, 0], scipy_isotonic(np.array(values, float)).x, atol=1e-12)
    again, _ = isotonic_regression(s, torch.ones_like(s))  # a projection
    torch.testing.assert_close(again, s)


def test_a_column_in_order_is_returned_bit_by_bit():
    y = torch.randn(9, 30, dtype=torch.float64).sort(0).values
    y[3] = y[4]  # a tie is in order
    s, pooled = isotonic_regression(y, torch.rand_like(y) + 0.1)
    assert torch.equal(s, y) and not pooled.any()
    assert not in_block(pooled).any()


def test_columns_do_not_depend_on_each_other():
    y, weight = map(torch.from_numpy, columns(5, 9, 20))
    together, _ = isotonic_regression(y, weight)
    for c in range(20):
        one, _ = isotonic_regression(y[:, c : c + 1], weight[:, c : c + 1])
        torch.testing.assert_close(one[:, 0], together[:, c])
    s, pooled = isotonic_regression(y[:, :0], weight[:, :0])
    assert s.shape == (9, 0) and pooled.shape == (8, 0)
