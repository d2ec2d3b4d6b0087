"""Shapes with sub-pixel borders: coverage, outlines, polygons, curves; and boxes."""

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


def boxes_to_mask(boxes: Tensor, size: Sequence[int], scale: float = 1.0) -> Tensor:
    """Union of boxes as a mask: pixel k is inside if lo·scale ≤ k + ½ < hi·scale on every axis.

    For integer corners and ``scale=1`` these are the pixels lo … hi − 1. A box that is smaller than
    a pixel of a coarse grid keeps the pixel that holds its centre. The inverse of `mask_to_boxes`
    for solid boxes; taught in the chapter `bifseg-interactive`.

    Args:
        boxes: ``(B, 2·ndim)`` (r0, c0, r1, c1) or (z0, r0, c0, z1, r1, c1), half-open, in pixels;
            B = 0 gives an empty mask; parts outside the image are cut.
        size: spatial size of the mask, ndim axes.
        scale: pixels of the mask per pixel of the boxes, > 0.

    Returns:
        ``(*S)`` bool, on the boxes' device.

    Raises:
        ValueError: another shape, a corner that is not finite, an empty box, a scale ≤ 0.
    """
    size = tuple(int(s) for s in size)
    ndim = len(size)
    checks.shape(boxes, "boxes", f"B {2 * ndim}")
    corners = checks.finite(boxes, "boxes").double()
    checks.positive(scale, "scale")
    low, high = corners[:, :ndim], corners[:, ndim:]
    if not (low < high).all():
        at = int((low >= high).any(1).nonzero()[0])
        raise ValueError(f"boxes must not be empty, got {boxes[at].tolist()} at index {at}")
    mask = torch.zeros(size, dtype=torch.bool, device=boxes.device)
    first = (low * scale - 0.5).ceil()
    last = (high * scale - 0.5).ceil()
    thin = first >= last
    middle = ((low + high) / 2 * scale).floor()
    first, last = torch.where(thin, middle, first), torch.where(thin, middle + 1, last)
    bounds = torch.tensor(size, dtype=torch.float64, device=boxes.device)
    first, last = first.clamp_min(0), torch.minimum(last.clamp_min(0), bounds)
    for a, b in zip(first.long().tolist(), last.long().tolist(), strict=True):
        mask[tuple(slice(lo, hi) for lo, hi in zip(a, b, strict=True))] = True
    return mask


def mask_to_boxes(instances: Tensor) -> Tensor:
    """Tight boxes of the objects in a map of instances (or of the one object in a mask).

    Args:
        instances: ``(*S)`` int, 0 none, ids ≥ 1 (gaps are allowed); or bool.

    Returns:
        ``(B, 2·ndim)`` int64, half-open (r0, c0, r1, c1) or (z0, r0, c0, z1, r1, c1) as in
        `skimage.measure.regionprops`, by rising id, on the device of ``instances``; B = 0 if there
        is no object. Taught in the chapter `bifseg-interactive`.

    Raises:
        TypeError: a floating-point map. ValueError: negative ids.
    """
    if instances.is_floating_point() or instances.is_complex():
        raise TypeError(f"instances must be bool or integer, got {instances.dtype}")
    if instances.numel() and int(instances.min()) < 0:
        raise ValueError(f"instances must be 0 or more, got {int(instances.min())}")
    ndim = instances.ndim
    boxes = []
    for found in instances.unique().tolist():
        if found:
            places = torch.nonzero(instances == found)  # (P, ndim)
            boxes.append(torch.cat([places.amin(0), places.amax(0) + 1]))
    if not boxes:
        return torch.zeros((0, 2 * ndim), dtype=torch.int64, device=instances.device)
    return torch.stack(boxes)
