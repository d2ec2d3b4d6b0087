"""Beyond the paper: train through a smoothed dynamic programme, which has a gradient of its own."""

from __future__ import annotations

from torch import Tensor

from medseg_core.papers.edpcnn.experiment import ContourLoss
from medseg_core.solvers.star_dp import soft_circular_dp
from medseg_core.solvers.star_pattern import warp


def marginal_loss(delta: int, gamma: float) -> ContourLoss:
    """Loss of one update, for `experiment.contour_arm` without a solver.

    Minus the log-probability of the true answers, each ray's under all closed contours that the
    band δ allows, at temperature γ (Mensch and Blondel 2018). The moving average is no part of it.

    Taught in: edpcnn.
    """

    def loss(_: None, maps: Tensor, points: Tensor, v_star: Tensor) -> dict[str, Tensor]:
        marginals = soft_circular_dp(warp(maps, points), delta, gamma)[1]
        return {"loss": -marginals.gather(2, v_star[..., None] - 1).clamp_min(1e-8).log().mean()}

    return loss
