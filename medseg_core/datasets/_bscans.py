"""B-scans with surfaces: one form for all OCT readers, and other grids for image and surfaces.

A surface is a row per column, counted from the top, pixel centres at integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from medseg_core.datasets._grids import per_axis
from medseg_core.datasets.preprocess import crop_or_pad, resample

IGNORE = 255  # of a label


def bscan(
    image: Tensor | np.ndarray,
    surfaces: Tensor | np.ndarray,
    spacing: tuple[float, float],
    *,
    per_surface: bool = False,
) -> dict:
    """The keys that every OCT reader gives, from an image and surfaces with gaps.

    Args:
        image: ``(1,1,H,W)`` or ``(H,W)``.
        surfaces: ``(1,L,W)`` or ``(L,W)`` rows; NaN where they are not known.
        spacing: (row, column).
        per_surface: a gap in one surface leaves the others known in that column.

    Returns:
        ``image``; ``surfaces (1,L,W)``, finite: gaps are bridged in a straight line, so that
        nothing downstream meets a NaN; ``valid``: bool, where they are known and inside the image,
        ``(1,L,W)`` with per_surface, else ``(1,W)`` for all of them; ``label (1,H,W)``: the number
        of surfaces at or above each pixel, 255 in columns that are not valid; ``spacing``.
    """
    image = torch.as_tensor(image)
    image = image.reshape(1, 1, *image.shape[-2:])
    surfaces = torch.as_tensor(surfaces).float()
    surfaces = surfaces.reshape(1, *surfaces.shape[-2:])
    height = image.shape[2]
    valid = (surfaces >= -0.5) & (surfaces <= height - 0.5)  # NaN compares false
    column = valid.all(1)  # (1, W)
    whole = _bridged(surfaces)
    row = torch.arange(height, dtype=whole.dtype)[:, None]
    region = (whole[..., None, :] <= row).sum(-3)  # (1, H, W)
    return {
        "image": image.float().contiguous(),
        "surfaces": whole,
        "valid": valid if per_surface else column,
        "label": torch.where(column[:, None], region, IGNORE),
        "spacing": (float(spacing[0]), float(spacing[1])),
    }


def on_bscan_grid(
    sample: dict,
    size: int | Sequence[int | None] | None,
    spacing: float | Sequence[float] | None,
    *,
    flatten: bool = True,
    rows: int | None = None,
) -> dict:
    """Bring a B-scan to another pixel size, then cut or fill it up; surfaces move alongside.

    Args:
        sample: with what `bscan` returns.
        size: (rows, columns), or one number for both; None, also for one of them, keeps it. Rows
            are cut around the retina (`retina_top`, which looks at the image alone), columns
            about the middle.
        spacing: of the result, in the unit of the sample's own; None keeps it.
        flatten: follow the retina with the rows that are cut out, column by column.
        rows: of the result where ``size`` gives none.

    Returns:
        The sample on the new grid, and ``top (1,W)`` int64, the row at which each column was cut:
        row r of the result was row r + top before the cut.
    """
    size, spacing = per_axis(size, "size") or (None, None), per_axis(spacing, "spacing")
    size = (rows if size[0] is None else size[0], size[1])
    if any(n is not None and (int(n) != n or n < 1) for n in size):
        raise ValueError(f"size must be (rows, columns), positive integers or None, got {size}")
    image, valid, old = sample["image"], sample["valid"], sample["spacing"]
    per_surface = valid.ndim == 3
    known = valid if per_surface else valid[:, None].expand_as(sample["surfaces"])
    surfaces = torch.where(known, sample["surfaces"], torch.nan)
    if spacing is not None:
        before = image.shape[2:]
        image = resample(image, old, spacing)
        surfaces = _resampled(surfaces, before, image.shape[2:], old, spacing)

    top = torch.zeros(1, image.shape[3], dtype=torch.int64)
    if size[0] is not None:
        top = retina_top(image[0, 0], size[0], flatten=flatten)[None]  # (1, W)
        row = torch.arange(size[0])[:, None] + top  # (rows, W)
        inside = (row >= 0) & (row < image.shape[2])
        picked = image[0, 0].gather(0, row.clamp(0, image.shape[2] - 1))
        image = torch.where(inside, picked, 0)[None, None]
        surfaces = surfaces - top[:, None]
    if size[1] is not None:
        image = crop_or_pad(image, (image.shape[2], size[1]))
        surfaces = crop_or_pad(surfaces, (size[1],), value=torch.nan)
        top = crop_or_pad(top, (size[1],))
    made = bscan(image, surfaces, spacing or old, per_surface=per_surface)
    return {**sample, **made, "top": top}


def retina_top(image: Tensor, rows: int, *, flatten: bool = True) -> Tensor:
    """First of the ``rows`` rows that hold the retina, per column; found in the image alone.

    The middle of the light in each column (squared grey values, smoothed, above the column's
    median) stands for the retina; a parabola through it, fitted again and again with less
    weight for outliers, follows tilt and curvature. No annotation is looked at.

    Args:
        image: ``(H,W)`` in [0, 1].
        rows: to cut out; more than H fill up above and below.
        flatten: follow the curve; False takes its mean for all columns.

    Returns:
        ``(W,)`` int64, in 0 … H − rows.
    """
    height, width = image.shape
    if rows >= height:
        return torch.full((width,), -((rows - height) // 2))
    light = gaussian_filter(image.double().numpy() ** 2, (3, width / 50))
    light = np.maximum(light - np.median(light, 0), 0)
    total = light.sum(0)
    middle = np.full(width, (height - 1) / 2)
    np.divide((light * np.arange(height)[:, None]).sum(0), total, out=middle, where=total > 0)
    if flatten:
        x, weight = np.arange(width), np.sqrt(total + 1e-12)
        for _ in range(10):
            fit = np.polynomial.Polynomial.fit(x, middle, min(2, width - 1), w=weight)(x)
            off = np.abs(middle - fit)
            weight = np.sqrt(total + 1e-12) / (1 + (off / (3 * np.median(off) + 1)) ** 2)
        middle = fit
    else:
        middle = np.full(width, np.average(middle, weights=total + 1e-12))
    top = np.rint(middle - (rows - 1) / 2).astype(np.int64)
    return torch.from_numpy(top.clip(0, height - rows))


def _bridged(surfaces: Tensor) -> Tensor:
    """Gaps filled by straight lines, and by the nearest value at the ends; 0 if all is a gap."""
    out = np.zeros(surfaces.shape[1:], np.float32)
    x = np.arange(surfaces.shape[2])
    for line, target in zip(surfaces[0].numpy(), out, strict=True):
        known = np.isfinite(line)
        if known.any():
            target[:] = np.interp(x, x[known], line[known])
            target[known] = line[known]
    return torch.from_numpy(out)[None]


def _resampled(
    surfaces: Tensor,
    before: Sequence[int],
    after: Sequence[int],
    old: Sequence[float],
    new: Sequence[float],
) -> Tensor:
    """Surfaces on the grid that `preprocess.resample` made of the image; a gap widens."""
    fy, fx = new[0] / old[0], new[1] / old[1]
    at = (before[1] - 1) / 2 + fx * (torch.arange(after[1]) - (after[1] - 1) / 2)
    at = at.clamp(0, before[1] - 1)
    left = at.floor().long()
    right = at.ceil().long()  # equal to left at integers, where a neighbour's gap is no matter
    rows = torch.lerp(surfaces[..., left], surfaces[..., right], (at - left).to(surfaces.dtype))
    return (rows - (before[0] - 1) / 2) / fy + (after[0] - 1) / 2
