"""When an interior point has converged: the paper's rule, a cap, and a rule in pixels.

Taught in: ipm-surfaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_core.papers.ipm_surfaces.scores import broken
from medseg_core.solvers.surface_qp import interior_point, ordered_surfaces

AS_PRINTED, CAPPED, TIGHT = "as printed", "8 iterations", "until the gap is small"
TRUE_ERROR = "true error (rows)"


def hard_columns(
    outs: Sequence[Mapping[str, Tensor]], spare: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, str]:
    """μ and σ² of the columns out of order, as one image (1,N,C), double precision; whose they are.

    Where the networks leave fewer than fifty, they are `spare`.
    """
    wrong = [broken(out["mu"]) for out in outs]
    if sum(int(w.sum()) for w in wrong) < 50:
        return *spare, "random columns"
    mu, sigma2 = (
        torch.cat([out[key].movedim(1, 2)[w] for out, w in zip(outs, wrong, strict=True)])
        for key in ("mu", "sigma2")
    )
    return mu.double().T[None], sigma2.double().T[None], "the test columns that are out of order"


def stopping(mu: Tensor, sigma2: Tensor, tol: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Iterations and error, rows, of each column of (1,N,C) by three rules when to stop.

    `AS_PRINTED` is the paper's ‖r‖ < 0.01, `CAPPED` takes eight iterations at most, and
    `TIGHT` waits for a duality gap below `tol`. The error is that against the closed form.
    """
    rules = {
        AS_PRINTED: {"stop": "residual", "tol": 0.01},
        CAPPED: {"stop": "residual", "tol": 1e-12, "max_iter": 8},
        TIGHT: {"stop": "gap", "tol": tol},
    }
    found = {name: _by_rule(mu, sigma2, rule) for name, rule in rules.items()}
    # An objective that is off by δ leaves s off by at most √(2δσ²); twice that for the pull.
    bound = 2 * (2 * tol * sigma2.max()).sqrt()
    assert found[TIGHT][1].max() < bound, "the interior point does not reach the closed form"
    return found


@dataclass(frozen=True)
class Way:
    """Algorithm 1 on one column, if nothing stops it: the surfaces that move, and its measures."""

    guesses: np.ndarray  # (M,) μ of the surfaces that move
    surfaces: np.ndarray  # (T+1,M) its iterates of these, rows
    measures: dict[str, np.ndarray]  # (T+1,) each: residual, duality gap, true error in rows
    stop: int  # the iteration at which the paper's rule stops

    @property
    def error(self) -> np.ndarray:
        """(T+1,) of all surfaces of the column, rows, against the closed form."""
        return self.measures[TRUE_ERROR]

    @property
    def window(self) -> tuple[float, float]:
        """Limits of the rows, downwards, that hold guesses and iterates."""
        rows = np.append(self.surfaces, self.guesses)
        return rows.max() + 0.3, rows.min() - 0.3


def hardest_way(mu: Tensor, sigma2: Tensor, tol: float = 1e-9) -> Way:
    """The way of that column of (1,N,C) which the paper's rule leaves furthest from its optimum.

    A surface moves if its way is more than a tenth of the column's longest one.
    """
    steps, error = _by_rule(mu, sigma2, {"stop": "residual", "tol": 0.01})
    hardest = int(error.argmax())
    mu, sigma2 = mu[..., [hardest]], sigma2[..., [hardest]]
    options = {"stop": "residual", "tol": tol, "max_iter": 55}  # a slider takes 60 pictures
    trace = interior_point(mu, sigma2, **options, trace=True)[1].trace
    exact = ordered_surfaces(mu, sigma2, method="pav")[0]
    moved = (exact - mu).abs().flatten()
    moves = moved > 0.1 * moved.max()
    return Way(
        mu.flatten()[moves].numpy(),
        trace.surfaces[:, 0, moves, 0].numpy(),
        {
            "residual ‖r‖": trace.residual.flatten().numpy(),
            "duality gap": trace.duality_gap.flatten().numpy(),
            TRUE_ERROR: (trace.surfaces - exact).abs().flatten(1).amax(1).numpy(),
        },
        int(steps[hardest]),
    )


def _by_rule(mu: Tensor, sigma2: Tensor, rule: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Iterations (C,) by one rule, and the error (C,), rows, against the closed form."""
    exact = ordered_surfaces(mu, sigma2, method="pav")[0]
    answer, info = interior_point(mu, sigma2, **rule)
    return info.iterations.flatten(), (answer - exact).abs().amax(1)[0]


def share_within(out: Mapping[str, Tensor], iterations: int) -> float:
    """Share of a test set's columns in which the paper's rule stops by so many iterations."""
    mu, sigma2 = out["mu"].double(), out["sigma2"].double()
    info = interior_point(mu, sigma2, stop="residual", tol=0.01)[1]
    return ((info.iterations <= iterations) & info.converged).double().mean().item()
