"""Oracle: closed forms of two surfaces, and isotonic regression from the worst guesses."""

import numpy as np
import pytest
import torch
from scipy.optimize import isotonic_regression as scipy_isotonic

from medseg_core.solvers import active_set


@pytest.mark.parametrize("guess", [0, 1])
@pytest.mark.parametrize("n", [2, 5, 12, 40])
def test_any_guess_ends_at_the_isotonic_regression(guess, n):
    rng = np.random.default_rng(n)
    mu, weight = rng.normal(0, 5, (n, 30)), 10 ** rng.uniform(-2, 2, (n, 30))
    low = torch.zeros(n - 1, 30, dtype=torch.float64)
    state = torch.full(low.shape, guess, dtype=torch.int8)
    s, force, _, exact = active_set.finish(state, *map(torch.from_numpy, (mu, weight)), low, None)
    assert exact.all() and (force >= 0).all()
    for c in range(30):
        fit = scipy_isotonic(mu[:, c], weights=weight[:, c]).x
        np.testing.assert_allclose(s[:, c], fit, atol=1e-10)


@pytest.mark.parametrize("guess", [0, 1, 2])
@pytest.mark.parametrize(
    ("mu", "expected", "force"),
    [
        ([5.0, 1.0], [1.25, 2.25], 3.75),  # (5 + 3·(1 − 1))/4, pressed by 5 − 1.25
        ([0.0, 2.0], [0.0, 2.0], 0.0),
        ([0.0, 8.0], [3.75, 6.75], -3.75),  # (0 + 3·(8 − 3))/4, pulled by 3.75
    ],
)
def test_two_surfaces_by_hand(guess, mu, expected, force):
    weight = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    low, high = (torch.full((1, 1), v, dtype=torch.float64) for v in (1.0, 3.0))
    s, found, state, exact = active_set.finish(
        torch.full((1, 1), guess, dtype=torch.int8),
        torch.tensor(mu, dtype=torch.float64)[:, None],
        weight,
        low,
        high,
    )
    assert exact.all()
    assert s[:, 0].tolist() == pytest.approx(expected)
    assert found.item() == pytest.approx(force)
    assert state.item() == (1 if force > 0 else 2 if force < 0 else 0)
