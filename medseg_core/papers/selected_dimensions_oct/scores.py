"""Metrics of answers per column: a yes or no, or the row of a boundary.

A B-scan alone says little, so the columns of one volume (``group``) are pooled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.metrics.overlap import EMPTY, dice


def column_dice(
    pred: Tensor, ref: Tensor, group: Tensor | None = None, *, empty: str = "nan"
) -> Tensor:
    """Dice over all columns of a volume, one value per volume.

    Args:
        pred, ref: bool (N, W), one row per B-scan.
        group: (N,) the volume of each B-scan; None: each is one of its own.
        empty: as in `overlap.dice`: "nan" where the reference is empty, or "one".

    Returns:
        (G,) float32 on the CPU, volumes in the order of their number.

    Source: Liefers et al. 2019, section 4. Taught in ``selected-dimensions-oct``.

    Raises:
        ValueError: shapes that do not fit; TypeError: no masks.
    """
    checks.shape(pred, "pred", "N W")
    checks.same_shape(pred, ref, ("pred", "ref"))
    checks.choice(empty, "empty", EMPTY)
    for x, name in ((pred, "pred"), (ref, "ref")):
        if x.dtype != torch.bool:
            raise TypeError(f"{name} must be bool, got {x.dtype}: threshold it first")
    members = _members(group, len(pred))
    pooled = [dice(pred[m].reshape(1, 1, -1), ref[m].reshape(1, 1, -1), empty=empty)
              for m in members]  # fmt: skip
    return torch.cat(pooled)[:, 0]


def boundary_mae(
    pred: Tensor, ref: Tensor, valid: Tensor | None = None, group: Tensor | None = None
) -> Tensor:
    """Mean absolute error of boundaries, in the unit of ``pred``, per volume and boundary.

    Args:
        pred, ref: (N, K, W), rows of K boundaries; ``ref`` may be anything where it is not valid.
        valid: bool (N, K, W) or (N, W), the annotated columns; None: all.
        group: (N,) the volume of each B-scan; None: each is one of its own.

    Returns:
        (G, K) float64 on the CPU; NaN for a boundary that is annotated nowhere in its volume.

    Source: Liefers et al. 2019, section 4. Taught in ``selected-dimensions-oct``.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity in a valid column.
    """
    checks.shape(pred, "pred", "N K W")
    checks.same_shape(pred, ref, ("pred", "ref"))
    pred, ref = pred.detach().cpu().double(), ref.detach().cpu().double()
    if valid is None:
        valid = torch.ones_like(pred, dtype=torch.bool)
    valid = valid.cpu().bool()
    valid = valid[:, None].expand_as(pred) if valid.ndim == 2 else valid
    checks.same_shape(pred, valid, ("pred", "valid"))
    error = torch.where(valid, (pred - ref).abs(), 0.0)
    checks.finite(error, "pred - ref")
    rows = []
    for m in _members(group, len(pred)):
        rows.append(error[m].sum((0, 2)) / valid[m].sum((0, 2)))  # (K,); 0/0 is NaN
    return torch.stack(rows)


def _members(group: Tensor | None, n: int) -> list[Tensor]:
    """Rows of each volume, in the order of the volumes' numbers."""
    if n == 0:
        raise ValueError("pred must hold at least one B-scan, got none")
    group = torch.arange(n) if group is None else torch.as_tensor(group).cpu()
    checks.shape(group, "group", "N", N=n)
    return [torch.nonzero(group == g)[:, 0] for g in group.unique()]
