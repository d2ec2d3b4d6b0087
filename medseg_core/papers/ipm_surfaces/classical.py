"""Surfaces without learning: the steepest change column by column, and graph search.

From the training truth they take the polarity of each edge and the ranges of rows, gaps and slopes.

Taught in: ipm-surfaces.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medseg_core.papers.ipm_surfaces.experiment import Data, Task
from medseg_core.papers.ipm_surfaces.scores import masd
from medseg_core.solvers import surface_cost, surface_graph

BLURS_PX = (0.5, 1.0, 2.0, 4.0)  # tried on the validation images


def mean_depth(data: Data) -> Tensor:
    """Mean row of each surface (N,1)."""
    known = torch.where(data["valid"], data["surfaces"], 0.0)
    return (known.sum((0, 2)) / data["valid"].sum((0, 2)))[:, None]


def polarity(data: Data) -> Tensor:
    """(N,): +1 for a surface at which the image brightens downwards on average, −1 for others."""
    slope = torch.gradient(_smoothed(data["image"], 1.0), dim=1)[0]  # (n,H,W)
    rows = data["surfaces"].nan_to_num(0.0).round().long().clamp(0, slope.shape[1] - 1)
    at = torch.where(data["valid"], slope.gather(1, rows), 0.0)
    return at.sum((0, 2)).sign()


def steepest(images: Tensor, signs: Tensor, depth: Tensor, reach: float) -> Tensor:
    """Row of the steepest change of the right sign within `reach` rows of the usual depth.

    Args:
        images: (n,1,H,W).
        signs: (N,), of `polarity`.
        depth: (N,1), of `mean_depth`.
        reach: rows.

    Returns:
        (n,N,W), each surface by itself, in whatever order.
    """
    slope = torch.gradient(_smoothed(images, 1.5), dim=1)[0]
    rows = torch.arange(slope.shape[1])[:, None]
    far = (rows - depth[:, :, None]).abs() > reach  # (N,H,1)
    score = (signs[:, None, None] * slope[:, None]).masked_fill(far, -np.inf)
    return score.argmax(2).float()


def gap_range(data: Data) -> tuple[Tensor, Tensor]:
    """Between which gaps lie all but 0.1 % of the truth on either side: (N-1,), (N-1,) rows."""
    gaps = data["surfaces"].diff(dim=1).movedim(1, 0).flatten(1)  # (N-1, n·W)
    gaps = gaps[:, gaps.isfinite().all(0)]
    return gaps.quantile(0.001, 1), gaps.quantile(1 - 0.001, 1)


def by_graph(task: Task, data: Data, signs: Sequence[int], blur_px: float) -> Tensor:
    """Graph search on the smoothed image's derivative, refined below the row: (n,N,W).

    What the training truth never does is forbidden: gaps, slopes and rows beyond its range.
    Source: Li et al. 2006.
    """
    truth, height = task.train["surfaces"], data["image"].shape[2]
    low, high = gap_range(task.train)
    slope = truth.diff(dim=2).abs().flatten()
    slope = int(slope[slope.isfinite()].quantile(0.999).ceil())
    cost = surface_cost.gradient_cost(
        data["image"][:, 0], signs, sigma=blur_px, circular=task.circular
    )  # (n,N,H,W)
    flat = truth.movedim(1, 0).flatten(1)  # (N, n·W)
    top, bottom = flat.nan_to_num(torch.inf).amin(1), flat.nan_to_num(-torch.inf).amax(1)
    rows, margin = torch.arange(height), 0.05 * height
    never = (rows < top[:, None] - margin) | (rows > bottom[:, None] + margin)  # (N,H)
    cost = cost.masked_fill(never[:, :, None], torch.inf)
    found = surface_graph.graph_search(
        cost, max_slope=slope, min_gap=low.floor(), max_gap=high.ceil(), circular=task.circular
    )
    return surface_cost.refine_subpixel(cost, found).float()


def tuned_graph_search(task: Task) -> tuple[Tensor, float]:
    """Graph search with the smoothing that does best on the validation images.

    Returns:
        Surfaces of the test images (n,N,W), and the smoothing in pixels.
    """
    signs = polarity(task.train).long().tolist()
    tried = {
        blur: masd(by_graph(task, task.validation, signs, blur), task.validation).nanmean().item()
        for blur in BLURS_PX
    }
    blur_px = min(tried, key=tried.get)
    return by_graph(task, task.test, signs, blur_px), blur_px


def _smoothed(images: Tensor, blur_px: float) -> Tensor:
    """(n,1,H,W) -> (n,H,W)."""
    return torch.from_numpy(ndimage.gaussian_filter(images[:, 0].numpy(), (0, blur_px, blur_px)))
