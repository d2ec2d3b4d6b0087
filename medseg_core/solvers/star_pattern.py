"""Star patterns: rays around a centre, an image read along them, contours back to masks.

One rule ties indices to millimetres and stands in every function here: the solver answers i where
the map falls between samples i−1 and i, so the border lies half-way, at radius (i − ½)ρ.

Taught in: dynamic-programming, edpcnn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from skimage.draw import polygon2mask
from torch import Tensor

from medseg_core import checks


def star_pattern(
    centre: Tensor, n_lines: int, n_points: int, radius: float, angle0: float | Tensor = 0.0
) -> Tensor:
    """Samples p(n,i) = c + iρ·(sin θₙ, cos θₙ), ρ = radius/n_points, θₙ = angle0 + 2πn/N.

    Sample 0 is the centre itself, so each line has one sample more than the M answers 1..M.
    (Nguyen and Ray 2019, section 2.1, where g(n,0) is left open.)

    Args:
        centre: ``(B,2)`` (row, column) in pixels.
        n_lines: N ≥ 3.
        n_points: M ≥ 1.
        radius: of sample M, in pixels.
        angle0: of line 0, radians, one number or ``(B,)``; 0 is +column, growing towards +row.

    Returns:
        ``(B,N,M+1,2)`` (row, column) in pixels.

    Raises:
        ValueError: if a size, the radius or the centre makes no star.
    """
    checks.shape(centre, "centre", "B 2")
    checks.finite(centre, "centre")
    checks.between(n_lines, "n_lines", 3, None)
    checks.between(n_points, "n_points", 1, None)
    checks.positive(radius, "radius")
    centre = centre if centre.is_floating_point() else centre.float()
    direction = _directions(centre, n_lines, angle0)  # (B,N,2)
    r = torch.arange(n_points + 1, dtype=centre.dtype, device=centre.device) * (radius / n_points)
    return centre[:, None, None] + r[:, None] * direction[:, :, None]


def warp(image: Tensor, points: Tensor) -> Tensor:
    """Read an image at the star's samples: the warped map g, differentiable in the image.

    Each sample copies the pixel that holds it, so only those pixels get a gradient (near the centre
    one pixel many times). Samples outside the image take the nearest border pixel: see
    `share_outside`.

    Args:
        image: ``(B,1,H,W)``.
        points: ``(B,N,P,2)`` (row, column) in pixels.

    Returns:
        ``(B,N,P)``, dtype of the image.

    Raises:
        ValueError: for other shapes, or points that are not finite.
    """
    size = checks.shape(image, "image", "B 1 H W")
    checks.shape(points, "points", "B N P 2", B=size["B"])
    checks.finite(points, "points")
    limit = torch.tensor([size["H"] - 1, size["W"] - 1], device=points.device)
    points = points.detach().clamp(min=0).minimum(limit.to(points.dtype))
    index = (points + 0.5).floor().long().minimum(limit)  # (B,N,P,2)
    flat = index[..., 0] * image.shape[-1] + index[..., 1]
    return image.flatten(1).gather(1, flat.flatten(1)).view(flat.shape)


def share_outside(points: Tensor, size: Sequence[int]) -> float:
    """Share of the samples ``(...,2)`` that lie outside an image of `size` (H, W)."""
    return 1.0 - _inside(points, size).double().mean().item()


def star_truth(mask: Tensor, points: Tensor) -> tuple[Tensor, float]:
    """True answers v* of a mask: per line, the first sample i ≥ 1 that lies outside it.

    Nearest-pixel sampling; outside the image is outside the object. A line that never leaves the
    object gets M. (p_gt of Nguyen and Ray 2019, section 2.2, with this module's half-sample rule.)

    Args:
        mask: ``(B,1,H,W)`` bool, or 0/1 numbers.
        points: ``(B,N,M+1,2)`` from `star_pattern`.

    Returns:
        ``(B,N)`` int64 in 1..M, and the share of lines that never leave: the star is too small.
    """
    if mask.dtype != torch.bool:
        mask = mask > 0.5
    inside = warp(mask, points) & _inside(points, mask.shape[-2:])  # (B,N,M+1)
    outside = ~inside[..., 1:]
    first = outside.to(torch.uint8).argmax(-1) + 1  # argmax: the first of the ones
    leaves = outside.any(-1)
    return torch.where(leaves, first, outside.shape[-1]), 1.0 - leaves.double().mean().item()


def smooth_indices(v: Tensor, width: int = 5) -> Tensor:
    """Circular moving average of the answers over `width` lines: ``(B,N)`` to real ``(B,N)``.

    (Nguyen and Ray 2019, section 3.4, width 5.)

    Raises:
        ValueError: if `width` is even, below 1 or above N.
    """
    n_lines = checks.shape(v, "v", "B N")["N"]
    if width % 2 == 0 or not 1 <= width <= n_lines:
        raise ValueError(f"width must be odd and in [1, N = {n_lines}], got {width}")
    v = v if v.is_floating_point() else v.float()
    padded = F.pad(v[:, None], (width // 2, width // 2), mode="circular")
    return F.avg_pool1d(padded, width, stride=1)[:, 0]


def indices_to_radii(v: Tensor, rho: float) -> Tensor:
    """Radius of the border that answer v stands for: (v − ½)ρ."""
    return (v - 0.5) * rho


def contour_points(centre: Tensor, v: Tensor, rho: float) -> Tensor:
    """Corners of the closed contour that the answers describe, one per line from angle 0 on.

    Args:
        centre: ``(B,2)`` (row, column) in pixels.
        v: ``(B,N)`` answers in 1..M, whole or smoothed.
        rho: distance between samples, radius/M, in pixels.

    Returns:
        ``(B,N,2)`` (row, column) in pixels.
    """
    n_lines = checks.shape(v, "v", "B N", B=checks.shape(centre, "centre", "B 2")["B"])["N"]
    centre = centre if centre.is_floating_point() else centre.float()
    radii = indices_to_radii(v, rho).to(centre.dtype)
    return centre[:, None] + radii[..., None] * _directions(centre, n_lines, 0.0)


def contour_to_mask(points: Tensor, size: Sequence[int]) -> Tensor:
    """Fill closed contours: the pixels whose centre lies inside (`skimage.draw.polygon2mask`).

    Args:
        points: ``(B,N,2)`` corners (row, column) in pixels, N ≥ 3.
        size: ``(H, W)``.

    Returns:
        ``(B,1,H,W)`` bool, on the contours' device.

    Raises:
        ValueError: for another shape, fewer corners, or one that is not finite (with its place).
    """
    sizes = checks.shape(points, "points", "B N 2")
    checks.between(sizes["N"], "the number of corners of points", 3, None)
    checks.finite(points, "points")
    masks = [polygon2mask(tuple(size), p) for p in points.detach().cpu().double().numpy()]
    return torch.from_numpy(np.stack(masks))[:, None].to(points.device)


def _directions(centre: Tensor, n_lines: int, angle0: float | Tensor) -> Tensor:
    """Unit vectors ``(B,N,2)`` of the lines, in (row, column)."""
    turn = torch.as_tensor(angle0, dtype=centre.dtype, device=centre.device)
    if turn.ndim:
        checks.shape(turn, "angle0", "B", B=len(centre))
    checks.finite(turn, "angle0")
    steps = torch.arange(n_lines, dtype=centre.dtype, device=centre.device)
    angles = turn.expand(len(centre))[:, None] + steps * (2 * torch.pi / n_lines)
    return torch.stack([angles.sin(), angles.cos()], dim=-1)


def _inside(points: Tensor, size: Sequence[int]) -> Tensor:
    """Whether each sample lies on the image's area: pixel r covers [r − ½, r + ½)."""
    size = torch.tensor(tuple(size), dtype=points.dtype, device=points.device)
    return ((points >= -0.5) & (points < size - 0.5)).all(-1)
