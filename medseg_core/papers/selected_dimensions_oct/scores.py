"""Metrics of answers per column: a yes or no, or the row of a boundary.

A B-scan alone says little, so the columns of one volume (``group``) are pooled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.metrics.overlap import dice


def column_dice(pred: Tensor, ref: Tensor, group: Tensor) -> Tensor:
    """Dice over all columns of a volume, one value per volume.

    Args:
        pred, ref: bool (N, W), one row per B-scan.
        group: (N,) the volume of each B-scan.

    Returns:
        (G,) float32 on the CPU, volumes in the order of their number; NaN where the reference is
        empty.

    Raises:
        ValueError: shapes that do not fit; TypeError: no masks.

    Source: Liefers et al. 2019, section 4.

    Taught in: selected-dimensions-oct.
    """
    checks.shape(pred, "pred", "N W")
    checks.same_shape(pred, ref, ("pred", "ref"))
    for x, name in ((pred, "pred"), (ref, "ref")):
        if x.dtype != torch.bool:
            raise TypeError(f"{name} must be bool, got {x.dtype}: threshold it first")
    pooled = [
        dice(pred[m].reshape(1, 1, -1), ref[m].reshape(1, 1, -1))
        for m in _members(group, len(pred))
    ]
    return torch.cat(pooled)[:, 0]


def boundary_mae(pred: Tensor, ref: Tensor, valid: Tensor, group: Tensor | None = None) -> Tensor:
    """Mean absolute error of boundaries, in the unit of ``pred``, per volume and boundary.

    Args:
        pred, ref: (N, K, W), rows of K boundaries; ``ref`` may be anything where it is not valid.
        valid: bool (N, W), the annotated columns.
        group: (N,) the volume of each B-scan; None: each is one of its own.

    Returns:
        (G, K) float64 on the CPU; NaN for a boundary that is annotated nowhere in its volume.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity in a valid column.

    Source: Liefers et al. 2019, section 4.

    Taught in: selected-dimensions-oct.
    """
    checks.shape(pred, "pred", "N K W")
    checks.same_shape(pred, ref, ("pred", "ref"))
    checks.shape(valid, "valid", "N W", N=len(pred), W=pred.shape[2])
    pred, ref = pred.detach().cpu().double(), ref.detach().cpu().double()
    valid = valid.cpu().bool()[:, None].expand_as(pred)
    error = torch.where(valid, (pred - ref).abs(), 0.0)
    checks.finite(error, "pred - ref")
    group = torch.arange(len(pred)) if group is None else group
    rows = []
    for m in _members(group, len(pred)):
        rows.append(error[m].sum((0, 2)) / valid[m].sum((0, 2)))  # (K,); 0/0 is NaN
    return torch.stack(rows)


def layer_errors(pred: Tensor, data: Mapping[str, Any]) -> dict[str, float]:
    """The cells of the paper's table 1, in px, and two summaries.

    Args:
        pred: (N, K, W), rows of the K boundaries.
        data: B-scans as the phantom and the reader give them: ``surfaces (N,K,W)``,
            ``surface_names``, ``valid (N,W)``, ``group (N,)``, ``amd (N,)`` bool.

    Returns:
        "<boundary> control" and "<boundary> AMD": mean absolute error over the columns of a volume,
        averaged over the volumes of that kind; "overall": the mean of those cells; "p99": the 99th
        percentile of all absolute errors.

    Raises:
        ValueError: as `boundary_mae`.

    Taught in: selected-dimensions-oct.
    """
    error = boundary_mae(pred, data["surfaces"], data["valid"], data["group"])  # (G, K)
    amd = torch.stack([data["amd"][m][0] for m in _members(data["group"], len(pred))])
    cells = {
        f"{name} {who}": float(value)
        for who, of in (("control", ~amd), ("AMD", amd))
        for name, value in zip(data["surface_names"], torch.nanmean(error[of], 0), strict=True)
    }
    every = (pred - data["surfaces"]).abs().transpose(1, 2)[data["valid"]]
    return cells | {
        "overall": float(np.nanmean([*cells.values()])),
        "p99": _quantile(every.flatten(), 0.99),
    }


def hard_share(pred: Tensor, data: Mapping[str, Any]) -> tuple[float, float]:
    """Share of the columns, and of the squared error, that the hard columns have.

    Hard is a column whose error exceeds the mean of its image and boundary, as in
    `losses.hard_column_mse`.

    Args:
        pred: (N, K, W), rows of the K boundaries.
        data: B-scans with ``surfaces (N,K,W)`` and ``valid (N,W)``.

    Raises:
        ValueError: shapes that do not fit.

    Taught in: selected-dimensions-oct.
    """
    checks.same_shape(pred, data["surfaces"], ("pred", "surfaces"))
    valid = data["valid"][:, None].expand_as(pred)
    error = torch.where(valid, (pred - data["surfaces"]) ** 2, 0.0)
    mean = error.sum(-1, keepdim=True) / valid.sum(-1, keepdim=True)
    hard = (error > mean) & valid
    return float(hard.sum() / valid.sum()), float(error[hard].sum() / error.sum())


def shifted_dice(found: Tensor, data: Mapping[str, Any], most: int) -> float:
    """Mean Dice over the volumes, each shifted by the number of columns that suits it best.

    Args:
        found: bool (N, W).
        data: B-scans with ``columns (N,W)`` and ``group (N,)``.
        most: largest shift, either way.

    Taught in: selected-dimensions-oct.
    """
    width, options = found.shape[1], []
    for shift in range(-most, most + 1):
        column = (torch.arange(width) - shift).clamp(0, width - 1)
        options.append(column_dice(found[:, column], data["columns"], data["group"]))
    return float(torch.nanmean(torch.stack(options).amax(0)))


def _quantile(x: Tensor, q: float) -> float:
    """What torch.quantile gives, which refuses more than 16 million values (Duke has 60)."""
    rank = torch.tensor(q, dtype=x.dtype) * (len(x) - 1)
    below, above = x.sort().values[[int(rank.floor()), int(rank.ceil())]]
    return float(below.lerp(above, rank - rank.floor()))


def _members(group: Tensor, n: int) -> list[Tensor]:
    """Rows of each volume, in the order of the volumes' numbers."""
    if n == 0:
        raise ValueError("pred must hold at least one B-scan, got none")
    group = torch.as_tensor(group).cpu()
    checks.shape(group, "group", "N", N=n)
    return [torch.nonzero(group == g)[:, 0] for g in group.unique()]
