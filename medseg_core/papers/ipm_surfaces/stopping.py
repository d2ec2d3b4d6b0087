"""When an interior point has converged: the paper's rule, a cap, and a rule in pixels.

Taught in: ipm-surfaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from medseg_core.papers.ipm_surfaces.scores import broken
from medseg_core.solvers.surface_qp import interior_point, ordered_surfaces

AS_PRINTED, CAPPED, TIGHT = "as printed", "8 iterations", "until the gap is small"


def out_of_order(outs: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """μ and σ² of the columns out of order, as one image (1,N,C), double precision."""
    wrong = [broken(out["mu"]) for out in outs]
    mu, sigma2 = (
        torch.cat([out[key].movedim(1, 2)[w] for out, w in zip(outs, wrong, strict=True)])
        for key in ("mu", "sigma2")
    )
    return mu.double().T[None], sigma2.double().T[None]


def stopping(mu: Tensor, sigma2: Tensor, tol: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Iterations and error, rows, of each column of (1,N,C) by three rules when to stop.

    `AS_PRINTED` is the paper's ‖r‖ < 0.01, `CAPPED` takes eight iterations whatever happens, and
    `TIGHT` waits for a duality gap below `tol`. The error is that against the closed form.
    """
    exact = ordered_surfaces(mu, sigma2, method="pav")[0]
    rules = {
        AS_PRINTED: {"stop": "residual", "tol": 0.01},
        CAPPED: {"stop": "residual", "tol": 1e-12, "max_iter": 8},
        TIGHT: {"stop": "gap", "tol": tol},
    }
    found = {}
    for name, rule in rules.items():
        answer, info = interior_point(mu, sigma2, **rule)
        found[name] = info.iterations.flatten(), (answer - exact).abs().amax(1)[0]
    # An objective that is off by δ leaves s off by at most √(2δσ²); twice that for the pull.
    bound = 2 * (2 * tol * sigma2.max()).sqrt()
    assert found[TIGHT][1].max() < bound, "the interior point does not reach the closed form"
    return found


def measures(mu: Tensor, sigma2: Tensor) -> dict[str, np.ndarray]:
    """What algorithm 1 measures at each of its iterates on one column (N,), if nothing stops it.

    Returns:
        (T+1,) each: "residual ‖r‖", "duality gap", and "true error (rows)" against the closed form.
    """
    mu, sigma2 = mu[None, :, None], sigma2[None, :, None]
    options = {"stop": "residual", "tol": 1e-9, "max_iter": 60}
    trace = interior_point(mu, sigma2, **options, trace=True)[1].trace
    exact = ordered_surfaces(mu, sigma2, method="pav")[0]
    return {
        "residual ‖r‖": trace.residual.flatten().numpy(),
        "duality gap": trace.duality_gap.flatten().numpy(),
        "true error (rows)": (trace.surfaces - exact).abs().flatten(1).amax(1).numpy(),
    }


def share_within(out: Mapping[str, Tensor], iterations: int) -> float:
    """Share of a test set's columns in which the paper's rule stops by so many iterations."""
    mu, sigma2 = out["mu"].double(), out["sigma2"].double()
    info = interior_point(mu, sigma2, stop="residual", tol=0.01)[1]
    return ((info.iterations <= iterations) & info.converged).double().mean().item()
