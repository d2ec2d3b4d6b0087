"""Patches cut out of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.physics import deform


def crop_subpixel(
    x: Tensor,
    index: Tensor,
    centres: Tensor,
    field: float | Sequence[float],
    out: int | Sequence[int],
    *,
    mode: str = "bilinear",
    padding: str = "border",
) -> Tensor:
    """Patches around real-valued centres, resampled.

    Sample k of ``out`` along an axis lies at centre + ((k + ½)/out − ½)·field: the samples are the
    centres of ``out`` equal cells that tile the field, so ``field == out`` keeps the pixel size,
    and an odd one with an integer centre copies pixels. Chapter ``edpcnn``.

    Args:
        x: ``(N,C,*S)``, 2 or 3 spatial axes.
        index: ``(P,)`` integer, the image of each patch.
        centres: ``(P,ndim)`` in pixels, axis order, pixel centres at integers.
        field: side of the patch in pixels, one number or one per axis, > 0.
        out: samples per axis, one number or one per axis, >= 1.
        mode: "bilinear" or "nearest".
        padding: outside the image "border" repeats the edge, "zeros" gives 0.

    Returns:
        ``(P,C,*out)``, differentiable in ``x`` and, if bilinear, in ``centres``.

    Raises:
        ValueError: shapes that do not fit, an index outside the batch, NaN among the centres.
    """
    ndim = x.ndim - 2
    checks.choice(ndim, "spatial axes of x", (2, 3))
    checks.shape(centres, "centres", "P ndim", P=len(index), ndim=ndim)
    checks.finite(centres, "centres")
    if len(index) and (int(index.min()) < 0 or int(index.max()) >= len(x)):
        raise ValueError(f"index must lie in 0..{len(x) - 1}, got {index.tolist()}")
    field, out = _per_axis(field, ndim), [int(n) for n in _per_axis(out, ndim)]
    if min(field) <= 0 or min(out) < 1:
        raise ValueError(f"field must be > 0 and out >= 1, got {field} and {out}")
    axes = [
        ((torch.arange(n, device=x.device, dtype=x.dtype) + 0.5) / n - 0.5) * side
        for n, side in zip(out, field, strict=True)
    ]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)  # (*out, ndim)
    centres = centres.to(x)
    points = centres.reshape(-1, *[1] * ndim, ndim) + offsets  # (P, *out, ndim)
    if mode == "nearest":
        # Halves go up, not to the even neighbour; off the half, grid_sample's rounding is ours.
        points = torch.floor(points + 0.5)
    return deform.sample(x[index.to(x.device)], points, mode=mode, padding=padding)


def _per_axis(value: float | Sequence[float], ndim: int) -> list[float]:
    values = list(value) if isinstance(value, Sequence) else [value] * ndim
    if len(values) != ndim:
        raise ValueError(f"field and out need one number, or one for each of {ndim} axes: {value}")
    return values
