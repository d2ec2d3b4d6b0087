"""Costs of surfaces, one row per column: from an image's gradient, summed, and between rows.

What stands around the graph search of `surface_graph`.

Taught in: ipm-surfaces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medseg_core import checks


def gradient_cost(
    image: Tensor | np.ndarray,
    polarity: Sequence[int],
    *,
    sigma: float | tuple[float, float] = 1.0,
    circular: bool = False,
) -> Tensor:
    """Hand-made cost of N surfaces, cᵢ = −pᵢ · ∂I_σ/∂z, low on edges of the polarity asked for.

    Args:
        image: ``(H,W)`` or ``(B,H,W)``.
        polarity: for each surface +1, dark above bright, or −1, bright above dark.
        sigma: of the Gaussian in pixels, one number or (down, across).
        circular: the last column is the neighbour of the first.

    Returns:
        ``(N,H,W)`` or ``(B,N,H,W)``, in the image's dtype; the derivative is a central difference.

    Raises:
        ValueError: NaN or infinity, a polarity other than ±1, fewer than two rows, a sigma < 0.
    """
    from scipy.ndimage import gaussian_filter

    array = as_float64(image, "image")
    if array.ndim not in (2, 3) or array.shape[-2] < 2:
        raise ValueError(f"image must be (H,W) or (B,H,W) with H >= 2, got {array.shape}")
    checks.finite(array, "image")
    signs = np.asarray([checks.choice(int(p), "polarity", (-1, 1)) for p in polarity], float)
    checks.between(sigma, "sigma", 0, None)
    widths = np.broadcast_to(np.asarray(sigma, float), 2)
    mode = ("nearest", "wrap" if circular else "nearest")
    smooth = gaussian_filter(array, widths, mode=mode, axes=(-2, -1))
    slope = np.gradient(smooth, axis=-2)[..., None, :, :]
    cost = torch.from_numpy(-signs[:, None, None] * slope)
    if isinstance(image, Tensor):
        cost = cost.to(image.device)
        return cost.to(image.dtype) if image.is_floating_point() else cost.float()
    return cost


def refine_subpixel(cost: Tensor | np.ndarray, surfaces: Tensor | np.ndarray) -> Tensor:
    """Real rows: the least point of the parabola through the costs at s − 1, s and s + 1.

    It lies at most half a row away. A row at the image's border, beside a forbidden one, or where
    the costs are not convex stays; where two surfaces would cross, the lower one joins the upper
    one.

    Args:
        cost: ``(N,H,W)`` or ``(B,N,H,W)``.
        surfaces: ``(N,W)`` or ``(B,N,W)`` int64 rows.

    Returns:
        ``(N,W)`` or ``(B,N,W)`` in `cost`'s dtype.

    Raises:
        ValueError: for rows outside of 0 … H − 1 or shapes that do not fit.
        TypeError: for rows that are no integers.
    """
    cost, surfaces = torch.as_tensor(cost), torch.as_tensor(surfaces)
    cost = cost if cost.is_floating_point() else cost.double()
    here = _at(cost, surfaces, 0)
    above, below = _at(cost, surfaces, -1), _at(cost, surfaces, 1)
    inside = (surfaces > 0) & (surfaces < cost.shape[-2] - 1)
    bend = above - 2 * here + below
    usable = inside & (bend > 0) & (bend < math.inf)
    step = torch.where(usable, (above - below) / (2 * bend), 0.0).clamp(-0.5, 0.5)
    return (surfaces + step).to(cost.dtype).cummax(-2).values


def _at(cost: Tensor, surfaces: Tensor, shift: int) -> Tensor:
    """Costs at rows s + shift, rows beyond the border taken from it: the shape of `surfaces`."""
    if surfaces.is_floating_point() or surfaces.dtype == torch.bool:
        raise TypeError(f"surfaces must hold whole rows (integers), got {surfaces.dtype}")
    n_rows = cost.shape[-2]
    expected = (*cost.shape[:-2], cost.shape[-1])
    if cost.ndim not in (3, 4) or surfaces.shape != expected:
        raise ValueError(
            f"surfaces must have the shape of cost without its rows, {tuple(expected)}, "
            f"got {tuple(surfaces.shape)}"
        )
    checks.between(surfaces, "surfaces", 0, n_rows - 1)
    rows = (surfaces.long() + shift).clamp(0, n_rows - 1)
    return cost.gather(-2, rows[..., None, :])[..., 0, :]


def as_float64(x: Tensor | np.ndarray, name: str) -> np.ndarray:
    """A float64 copy on the CPU, for solvers that leave torch."""
    if not isinstance(x, Tensor | np.ndarray):
        raise TypeError(f"{name} must be a tensor or an array, got {type(x).__name__}")
    return (x.detach().cpu().double().numpy() if isinstance(x, Tensor) else x).astype(np.float64)
