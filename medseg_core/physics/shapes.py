"""Shapes with sub-pixel borders: coverage, outlines, polygons, curves; and boxes."""

from __future__ import annotations

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


def mask_to_boxes(instances: Tensor) -> Tensor:
    """Tight boxes of the objects in a map of instances (or of the one object in a mask).

    Args:
        instances: ``(*S)`` int, 0 none, ids ≥ 1 (gaps are allowed); or bool.

    Returns:
        ``(B, 2·ndim)`` int64, half-open (r0, c0, r1, c1) or (z0, r0, c0, z1, r1, c1) as in
        `skimage.measure.regionprops`, by rising id, on the device of ``instances``; B = 0 if there
        is no object.

    Raises:
        TypeError: a floating-point map.
        ValueError: negative ids.
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
