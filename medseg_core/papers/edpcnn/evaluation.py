"""From masks to the chapter's scores.

All masks are (N,1,H,W) bool, all centres (N,2) (row, column) in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medseg_core.metrics import overlap, surface
from medseg_core.solvers.star_pattern import contour_points, contour_to_mask


def component(masks: Tensor, centres: Tensor) -> Tensor:
    """Keep of each mask the component at its centre, else the largest, as the paper does.

    Components hang together by edges (4-neighbourhood). Taught in: edpcnn.
    """
    kept = torch.zeros_like(masks)
    for i, (mask, centre) in enumerate(zip(masks[:, 0].cpu().numpy(), centres, strict=True)):
        parts, n = ndimage.label(mask)
        if n:
            areas = ndimage.sum_labels(mask, parts, range(1, n + 1))
            kept[i, 0] = torch.from_numpy(parts == (parts[pixel(centre)] or 1 + areas.argmax()))
    return kept


def disc(centres: Tensor, radius: float | Tensor, size: int) -> Tensor:
    """Pixels no further than ``radius`` from each centre: masks (N,1,size,size).

    Taught in: edpcnn.
    """
    grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"))
    distance = (grid[None] - centres[:, :, None, None]).norm(dim=1, keepdim=True)
    return distance <= radius


def outline(v: Tensor, centres: Tensor, rho: float, size: int) -> Tensor:
    """Answers (N,rays) to filled contours: masks (N,1,size,size). Taught in: edpcnn."""
    return contour_to_mask(contour_points(centres, v, rho), (size, size))


def share_broken(
    solve: Callable[[np.ndarray, int], Any], maps: Iterable[np.ndarray], delta: int
) -> float:
    """Share of warped maps whose contour steps by more than δ from the last ray to the first.

    Taught in: edpcnn.
    """
    answers = [solve(g, delta) for g in maps]
    return float(np.mean([abs(v[0] - v[-1]) > delta for v in answers]))


def mean_dice(masks: Tensor, data: dict[str, Any]) -> float:
    """Mean Dice over the images, against ``data["mask"]``. Taught in: edpcnn."""
    return overlap.dice(masks.cpu(), data["mask"]).mean().item()


def scores(masks: Tensor, data: dict[str, Any]) -> dict[str, Tensor]:
    """Per image "dice", mean surface distance "assd" and Hausdorff distance "hd": (N,) each.

    Distances are in the units of ``data["spacing"]``, NaN for an empty mask. Taught in: edpcnn.
    """
    truth, spacing = data["mask"], data["spacing"]
    distance = {
        kind: surface.surface_distance(masks, truth, spacing=spacing, kind=kind)
        for kind in ("assd", "hd")
    }
    return {"dice": overlap.dice(masks, truth)[:, 0]} | distance


def pixel(centre: Tensor) -> tuple[int, int]:
    """The pixel that holds a centre (2,)."""
    row, column = (int(round(float(x))) for x in centre)
    return row, column
