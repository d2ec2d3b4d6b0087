"""Losses on surfaces that cross every image column once: where they lie, and how they run.

Shapes: column logits or log-probabilities (B,N,H,W), normalised over the rows H; surfaces (B,N,W)
in rows. ``valid`` (B,W) or (B,N,W) says where the truth is known; elsewhere it may be anything,
NaN included.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg_core import checks


def gaussian_target(surfaces: Tensor, height: int, sigma: float | Tensor) -> Tensor:
    r"""Column distribution ``(B,N,H,W)`` around each true surface, ∝ exp(−(z − s)² / 2σ²).

    Normalised over the rows, so that it stays a distribution where the Gaussian leaves the image.
    Source: Xie et al. 2020, §2.3. Taught in ``ipm-surfaces``.

    Args:
        surfaces: (B,N,W), rows; NaN (unknown) gives the uniform distribution.
        height: H.
        sigma: rows, > 0; a number or a tensor (B,N,W), one for every point of a surface.
    """
    checks.shape(surfaces, "surfaces", "B N W")
    if not isinstance(sigma, Tensor):
        checks.between(sigma, "sigma", 1e-6, float("inf"))
        sigma = torch.as_tensor(sigma, dtype=surfaces.dtype, device=surfaces.device)
    z = torch.arange(height, dtype=surfaces.dtype, device=surfaces.device)[:, None]
    exponent = -0.5 * ((z - surfaces[:, :, None]) / sigma.expand_as(surfaces)[:, :, None]) ** 2
    return exponent.nan_to_num(0.0).softmax(2)  # softmax: no underflow however far the surface


def gradient_weight(magnitude: Tensor, alpha: float = 10.0) -> Tensor:
    """Weight of a pixel, w = 1 + α‖∇I‖, from the gradient's magnitude (Xie et al. 2020, §2.3)."""
    return 1 + alpha * magnitude


def weighted_divergence(
    log_p: Tensor, target: Tensor, weight: Tensor | None = None, valid: Tensor | None = None
) -> Tensor:
    r"""L_Div = Σ_z w g |log(g/p)|, the mean over surfaces, columns and batch.

    Not a divergence proper: the modulus keeps the terms with p > g from cancelling the others, so
    it is never below the Kullback–Leibler divergence. Source: Xie et al. 2020, §2.3. Taught in
    ``ipm-surfaces``.

    Args:
        log_p: (B,N,H,W), a log-softmax over H.
        target: g, (B,N,H,W).
        weight: w, (B,1,H,W); None: 1.
        valid: (B,W) or (B,N,W).
    """
    checks.same_shape(log_p, target, ("log_p", "target"))
    g = target.clamp_min(1e-8)
    terms = g * (g.log() - log_p).abs()
    return _mean((terms if weight is None else weight * terms).sum(2), valid)


def kl_divergence(log_p: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Σ_z g log(g/p), the mean over surfaces, columns and batch; arguments as above."""
    checks.same_shape(log_p, target, ("log_p", "target"))
    g = target.clamp_min(1e-8)
    return _mean((g * (g.log() - log_p)).sum(2), valid)


def surface_cross_entropy(
    log_p: Tensor, surfaces: Tensor, weight: Tensor | None = None, valid: Tensor | None = None
) -> Tensor:
    """−w log p at the row nearest to the true surface, the mean over surfaces, columns, batch.

    Plain: the loss of He et al. 2019. With ``weight`` (B,1,H,W): ablation 4 of Xie et al. 2020.
    A surface outside of the image counts at its first or last row. Taught in ``ipm-surfaces``.
    """
    row = surfaces.nan_to_num(0.0).round().long().clamp(0, log_p.shape[2] - 1)[:, :, None]
    terms = -log_p.gather(2, row)[:, :, 0]  # (B,N,W)
    if weight is not None:
        terms = terms * weight.expand(-1, log_p.shape[1], -1, -1).gather(2, row)[:, :, 0]
    return _mean(terms, valid)


def smooth_loss(
    surfaces: Tensor, truth: Tensor, *, circular: bool = False, valid: Tensor | None = None
) -> Tensor:
    r"""L_smooth: surfaces should change from column to column, and lie apart, as the true ones do.

    .. math:: \sum_i \mathrm{MSE}(\partial_x s_i, \partial_x s^*_i)
              + \sum_{i<N-1} \mathrm{MSE}(s_{i+1} - s_i,\ s^*_{i+1} - s^*_i)

    in rows²; MSE is the mean over columns and batch. Source: Xie et al. 2020, §2.3. Taught in
    ``ipm-surfaces``.

    Args:
        surfaces: (B,N,W); truth: the same.
        circular: the last column is the neighbour of the first (columns = angle).
        valid: (B,W) or (B,N,W); a difference counts where both of its ends do.
    """
    checks.same_shape(surfaces, truth, ("surfaces", "truth"))
    off = surfaces - truth
    known = _known(off, valid)
    if circular:
        slope, both = off.roll(-1, 2) - off, known & known.roll(-1, 2)
    else:
        slope, both = off.diff(dim=2), known[:, :, 1:] & known[:, :, :-1]
    loss = _mse_per_row(slope, both).sum()
    return loss + _mse_per_row(off.diff(dim=1), known[:, 1:] & known[:, :-1]).sum()


def l1_loss(surfaces: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean |s − s*| in rows over the known points of the surfaces."""
    return _mean((surfaces - truth).abs(), valid)


def smooth_l1_loss(surfaces: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Huber's loss with its corner at one row (He et al. 2019), the mean over known points."""
    known = torch.where(_known(surfaces, valid), truth, surfaces.detach())
    return _mean(F.smooth_l1_loss(surfaces, known, reduction="none"), valid)


def _known(like: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return torch.ones_like(like, dtype=torch.bool)
    valid = valid.bool() if valid.ndim == 3 else valid.bool()[:, None]
    return valid.expand_as(like)


def _mean(terms: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of (B,N,W) over what is known; 0 where nothing is."""
    if valid is None:
        return terms.mean()
    known = _known(terms, valid)
    # where, not a product: 0 × NaN would be NaN.
    return torch.where(known, terms, 0.0).sum() / known.sum().clamp_min(1)


def _mse_per_row(off: Tensor, known: Tensor) -> Tensor:
    """Mean square over batch and columns for each surface: (B,N,W) -> (N,)."""
    square = torch.where(known, off, 0.0).square().sum((0, 2))
    return square / known.sum((0, 2)).clamp_min(1)
