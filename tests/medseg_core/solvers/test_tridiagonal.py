"""Oracle: the dense matrix of the chain, solved by NumPy."""

import numpy as np
import pytest
import torch

from medseg_core.solvers.tridiagonal import FREE, links, solve_chain


def dense(weight, compliance, load):
    """One column: K = diag(w) + Aᵀ diag(1/r) A."""
    difference = -np.diff(np.eye(len(weight)), axis=0)
    matrix = np.diag(weight) + difference.T @ np.diag(1 / compliance) @ difference
    x = np.linalg.solve(matrix, load)
    return x, (difference @ x) / compliance


@pytest.mark.parametrize("n", [1, 2, 3, 9, 30])
def test_equals_the_dense_solve(n):
    rng = np.random.default_rng(n)
    weight, load = rng.uniform(0.1, 3, (n, 7)), rng.normal(size=(n, 7))
    compliance = 10 ** rng.uniform(-3, 3, (n - 1, 7))
    x, force = solve_chain(*map(torch.from_numpy, (weight, compliance, load)))
    for c in range(7):
        expected = dense(weight[:, c], compliance[:, c], load[:, c])
        np.testing.assert_allclose(x[:, c], expected[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(force[:, c], expected[1], rtol=1e-7, atol=1e-9)


def test_rigid_links_average_and_free_links_do_nothing():
    weight = torch.tensor([[1.0], [3.0], [2.0], [5.0]], dtype=torch.float64)
    target = torch.tensor([[4.0], [8.0], [-1.0], [7.0]], dtype=torch.float64)
    held = torch.tensor([[True], [False], [False]])
    x, force = solve_chain(weight, links(held), weight * target)
    assert x[:, 0].tolist() == pytest.approx([7, 7, -1, 7], rel=1e-15)  # (4 + 3·8)/4
    assert force[:, 0].tolist() == pytest.approx([1 * (4 - 7), 0, 0], abs=1e-100)


@pytest.mark.parametrize("tiny", [1e-8, 1e-20, 1e-200, 0.0])
def test_a_stiff_link_loses_no_digits(tiny):
    weight = torch.tensor([[1e-3], [1e3], [1.0]], dtype=torch.float64)
    load = torch.tensor([[1.0], [-2.0], [4.0]], dtype=torch.float64)
    compliance = torch.tensor([[tiny], [FREE]], dtype=torch.float64)
    x, force = solve_chain(weight, compliance, load)
    torch.testing.assert_close(x[0, 0] * 1e-3 + x[1, 0] * 1e3, load[:2].sum())
    torch.testing.assert_close(x[0] - x[1], tiny * force[0], rtol=0, atol=1e-17)
    torch.testing.assert_close(force[0], load[0] - 1e-3 * x[0])


def test_the_input_is_left_alone():
    parts = [torch.rand(n, 3, dtype=torch.float64) for n in (4, 3, 4)]
    before = [p.clone() for p in parts]
    solve_chain(*parts)
    for p, b in zip(parts, before, strict=True):
        assert torch.equal(p, b)
