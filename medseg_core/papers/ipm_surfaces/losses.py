"""Losses on surfaces that cross every image column once: where they lie, and how they run.

Shapes: column log-probabilities (B,N,H,W), normalised over the rows H; surfaces (B,N,W) in rows.
``valid`` (B,N,W) bool says where the truth is known; elsewhere it may be anything, NaN included.

Taught in: ipm-surfaces.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg_core import checks


def gaussian_target(surfaces: Tensor, height: int, sigma: float | Tensor) -> Tensor:
    r"""Column distribution ``(B,N,H,W)`` around each true surface, ∝ exp(−(z − s)² / 2σ²).

    Normalised over the rows, so that it stays a distribution where the Gaussian leaves the image.
    Source: Xie et al. 2020, §2.3.

    Args:
        surfaces: (B,N,W), rows; NaN (unknown) gives the uniform distribution.
        height: H.
        sigma: rows, > 0; a number or a tensor (B,N,W), one for every point of a surface.

    Raises:
        ValueError: surfaces of another shape; a number σ ≤ 0.

    Taught in: ipm-surfaces.
    """
    checks.shape(surfaces, "surfaces", "B N W")
    if not isinstance(sigma, Tensor):
        checks.between(sigma, "sigma", 1e-6, float("inf"))
        sigma = torch.as_tensor(sigma, dtype=surfaces.dtype, device=surfaces.device)
    z = torch.arange(height, dtype=surfaces.dtype, device=surfaces.device)[:, None]
    exponent = -0.5 * ((z - surfaces[:, :, None]) / sigma.expand_as(surfaces)[:, :, None]) ** 2
    return exponent.nan_to_num(0.0).softmax(2)  # softmax: no underflow however far the surface


def gradient_weight(magnitude: Tensor) -> Tensor:
    """Weight of a pixel, w = 1 + 10‖∇I‖, from the gradient's magnitude (Xie et al. 2020, §2.3)."""
    return 1 + 10 * magnitude


def weighted_divergence(log_p: Tensor, target: Tensor, weight: Tensor, valid: Tensor) -> Tensor:
    r"""L_Div = Σ_z w g |log(g/p)|, the mean over surfaces, columns and batch.

    Not a divergence proper: the modulus keeps the terms with p > g from cancelling the others, so
    it is never below the Kullback–Leibler divergence. Source: Xie et al. 2020, §2.3.

    Args:
        log_p: (B,N,H,W), a log-softmax over H.
        target: g, (B,N,H,W).
        weight: w, (B,1,H,W).
        valid: (B,N,W).

    Raises:
        ValueError: log_p and target of different shapes.

    Taught in: ipm-surfaces.
    """
    checks.same_shape(log_p, target, ("log_p", "target"))
    g = target.clamp_min(1e-8)
    terms = g * (g.log() - log_p).abs()
    return _mean((weight * terms).sum(2), valid)


def kl_divergence(log_p: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Σ_z g log(g/p), the mean over surfaces, columns and batch; arguments as above.

    Ablation 6 of Xie et al. 2020. Taught in: ipm-surfaces.
    """
    checks.same_shape(log_p, target, ("log_p", "target"))
    g = target.clamp_min(1e-8)
    return _mean((g * (g.log() - log_p)).sum(2), valid)


def surface_cross_entropy(
    log_p: Tensor, surfaces: Tensor, valid: Tensor, weight: Tensor | None = None
) -> Tensor:
    """−w log p at the row nearest to the true surface, the mean over surfaces, columns, batch.

    Plain: the loss of He et al. 2019. With ``weight`` (B,1,H,W): ablation 4 of Xie et al. 2020.
    A surface outside of the image counts at its first or last row.

    Taught in: ipm-surfaces.
    """
    row = surfaces.nan_to_num(0.0).round().long().clamp(0, log_p.shape[2] - 1)[:, :, None]
    terms = -log_p.gather(2, row)[:, :, 0]  # (B,N,W)
    if weight is not None:
        terms = terms * weight.expand(-1, log_p.shape[1], -1, -1).gather(2, row)[:, :, 0]
    return _mean(terms, valid)


def smooth_loss(
    surfaces: Tensor, truth: Tensor, valid: Tensor, *, circular: bool = False
) -> Tensor:
    r"""L_smooth: surfaces should change from column to column, and lie apart, as the true ones do.

    .. math:: \sum_i \mathrm{MSE}(\partial_x s_i, \partial_x s^*_i)
              + \sum_{i<N-1} \mathrm{MSE}(s_{i+1} - s_i,\ s^*_{i+1} - s^*_i)

    in rows²; MSE is the mean over columns and batch. Source: Xie et al. 2020, §2.3.

    Args:
        surfaces: (B,N,W).
        truth: the same.
        valid: (B,N,W); a difference counts where both of its ends do.
        circular: the last column is the neighbour of the first (columns = angle).

    Raises:
        ValueError: surfaces and truth of different shapes.

    Taught in: ipm-surfaces.
    """
    checks.same_shape(surfaces, truth, ("surfaces", "truth"))
    off = surfaces - truth
    if circular:
        slope, both = off.roll(-1, 2) - off, valid & valid.roll(-1, 2)
    else:
        slope, both = off.diff(dim=2), valid[:, :, 1:] & valid[:, :, :-1]
    loss = _mse_per_row(slope, both).sum()
    return loss + _mse_per_row(off.diff(dim=1), valid[:, 1:] & valid[:, :-1]).sum()


def l1_loss(surfaces: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Mean |s − s*| in rows over the known points of the surfaces. Taught in: ipm-surfaces."""
    return _mean((surfaces - truth.nan_to_num(0.0)).abs(), valid)


def smooth_l1_loss(surfaces: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Huber's loss with its corner at one row (He et al. 2019), the mean over known points.

    Taught in: ipm-surfaces.
    """
    known = torch.where(valid, truth, surfaces.detach())
    return _mean(F.smooth_l1_loss(surfaces, known, reduction="none"), valid)


def _mean(terms: Tensor, valid: Tensor) -> Tensor:
    """Mean of (B,N,W) over what is known; 0 where nothing is."""
    # where, not a product: 0 × NaN would be NaN.
    return torch.where(valid, terms, 0.0).sum() / valid.sum().clamp_min(1)


def _mse_per_row(off: Tensor, known: Tensor) -> Tensor:
    """Mean square over batch and columns for each surface: (B,N,W) -> (N,)."""
    square = torch.where(known, off, 0.0).square().sum((0, 2))
    return square / known.sum((0, 2)).clamp_min(1)
