"""Shapes with sub-pixel borders: coverage of a signed distance, outlines, polygons, curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medseg_core import checks


def coverage(sd: Tensor, width: float = 1.0) -> Tensor:
    """Share of each pixel that a shape covers, from its signed distance: clip(½ − sd/width, 0, 1).

    Args:
        sd: signed distance in pixels, negative inside, any shape.
        width: width of the transition in pixels, > 0.
    """
    if not width > 0:
        raise ValueError(f"width must be > 0, got {width}")
    return (0.5 - sd / width).clamp(0, 1)


def region_label(surfaces: Tensor, height: int) -> Tensor:
    """Region ``(*,H,W)`` int64 of every pixel: how many surfaces ``(*,L,W)`` have s ≤ its row.

    Args:
        surfaces: rows, counted from the top; one that is NaN has nothing below it.
        height: H.
    """
    row = torch.arange(height, dtype=surfaces.dtype, device=surfaces.device)[:, None]
    return (surfaces[..., None, :] <= row).sum(-3)


def fourier_outline(
    gen: torch.Generator,
    radius_px: float,
    n_harmonics: int,
    amplitude: float,
    n_points: int,
) -> Tensor:
    """Closed star-shaped outline r(a) = R·(1 + Σₖ cₖ·cos(k·a + φₖ)), k = 2 … n_harmonics + 1.

    The amplitudes cₖ are uniform in ±amplitude/k, so that high orders stay small and the outline
    stays star-shaped; order 1 would only move the centre and is left out.

    Args:
        gen: generator of amplitudes and phases.
        radius_px: R in pixels, > 0.
        n_harmonics: number of orders, ≥ 0.
        amplitude: bound of the relative amplitude, 0 ≤ amplitude < 1.
        n_points: number of points, ≥ 3, at angles 2πp/n_points.

    Returns:
        ``(n_points, 2)`` float32 offsets (row, column) from the centre; the angle is 0 along
        +column and grows towards +row.
    """
    checks.between(amplitude, "amplitude", 0, 0.999)
    checks.between(n_points, "n_points", 3, math.inf)
    angle = torch.arange(n_points) * (2 * math.pi / n_points)
    draw = torch.rand((max(n_harmonics, 0), 2), generator=gen)
    relative = torch.ones(n_points)
    for order, (u, v) in enumerate(draw.tolist(), start=2):
        c = amplitude * (2 * u - 1) / order
        relative = relative + c * torch.cos(order * angle + 2 * math.pi * v)
    r = radius_px * relative
    return torch.stack([r * torch.sin(angle), r * torch.cos(angle)], dim=1)


def polygon_mask(points: Tensor, size: Sequence[int]) -> Tensor:
    """Pixels whose centre lies inside a closed polygon (``skimage.draw.polygon2mask``).

    Args:
        points: ``(P,2)`` corners (row, column) in pixels, P ≥ 3; parts outside the image are cut.
        size: ``(H, W)``.

    Returns:
        ``(H,W)`` bool on the CPU.
    """
    from skimage.draw import polygon2mask

    checks.shape(points, "points", "P 2")
    checks.finite(points, "points")
    if len(points) < 3:
        raise ValueError(f"points must hold at least 3 corners, got {len(points)}")
    return torch.from_numpy(polygon2mask(tuple(size), points.detach().cpu().double().numpy()))


def draw_curve(
    points: Tensor, radius_px: Tensor, size: Sequence[int], profile: str = "gaussian"
) -> Tensor:
    """Tube along a polyline: value f(d/r) at distance d from the nearest segment.

    ``profile="disc"`` gives the sub-pixel coverage of the tube of radius r, ``"gaussian"`` gives
    exp(−d²/2r²). The radius is interpolated linearly along each segment.

    Args:
        points: ``(P,ndim)`` vertices in pixels, axis order, P ≥ 1 (one vertex gives a ball).
        radius_px: ``(P,)`` radii in pixels, > 0.
        size: spatial size with ``ndim`` axes.
        profile: "gaussian" or "disc".

    Returns:
        float32 tensor of ``size`` in [0, 1].
    """
    checks.choice(profile, "profile", ("gaussian", "disc"))
    ndim = len(size)
    checks.shape(points, "points", f"P {ndim}")
    if not (radius_px > 0).all():
        raise ValueError(f"radius_px must be > 0, got a minimum of {float(radius_px.min()):.4g}")
    axes = [torch.arange(n, dtype=torch.float32) for n in size]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)  # (*S, ndim)
    best = torch.zeros(tuple(size))
    ends = [(0, 0)] if len(points) == 1 else [(k, k + 1) for k in range(len(points) - 1)]
    for a, b in ends:
        step = points[b] - points[a]
        length2 = float(step @ step)
        t = ((grid - points[a]) @ step / length2).clamp(0, 1) if length2 > 0 else grid[..., 0] * 0
        d = (grid - points[a] - t[..., None] * step).norm(dim=-1)
        r = radius_px[a] + t * (radius_px[b] - radius_px[a])
        value = coverage(d - r) if profile == "disc" else torch.exp(-0.5 * (d / r) ** 2)
        best = torch.maximum(best, value)
    return best
