"""A box around an object, cut out and brought to a cube of fixed size; and the way back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.datasets.preprocess import resample, resample_labels, scale_percentile

HU_WINDOW = (-100.0, 300.0)  # soft tissue
PERCENTILES = (0.5, 99.5)


def relaxed_box(
    box: Sequence[int],
    shape: Sequence[int],
    margin: float | tuple[float, float],
    gen: np.random.Generator,
) -> tuple[int, ...]:
    """Move each side of a box outwards by a share of the box's length along that axis.

    Args:
        box: (z0, r0, c0, z1, r1, c1), half-open.
        shape: of the volume, at whose border the box stops.
        margin: the share, or (lo, hi), from which each side draws its own.
        gen: for the draws; a fixed margin draws nothing.
    """
    ndim = len(shape)
    lo, hi = (margin, margin) if isinstance(margin, int | float) else margin
    if not 0 <= lo <= hi < np.inf:
        raise ValueError(f"margin must be a share >= 0 or (lo, hi), got {margin}")
    low, high = np.asarray(box[:ndim]), np.asarray(box[ndim:])
    share = gen.uniform(lo, hi, (2, ndim)) if hi > lo else np.full((2, ndim), lo)
    out = np.floor(share * (high - low) + 0.5).astype(int)
    first, last = np.maximum(low - out[0], 0), np.minimum(high + out[1], shape)
    return (*first.tolist(), *last.tolist())


def crop(
    image: Tensor,
    mask: Tensor,
    field: Sequence[int],
    spacing: Sequence[float],
    size: int | Sequence[int],
    *,
    unit: str = "",
) -> dict:
    """Cut ``field`` out of a volume, resample it to ``size`` and bring its intensity to [0, 1].

    CT (``unit="HU"``) is clipped to `HU_WINDOW` and its least and greatest value become 0 and 1;
    otherwise the `PERCENTILES` of the crop do. A z-score before either would change nothing, since
    both are the same for an image and for a·image + b.

    Args:
        image: ``(1,C,D,H,W)`` float32.
        mask: ``(1,1,D,H,W)`` bool.
        field: the voxels (z0, r0, c0, z1, r1, c1), half-open, e.g. of `relaxed_box`.
        spacing: mm per voxel.
        size: of the result: each axis is stretched to it by itself.
        unit: of the intensities.

    Returns:
        ``image (1,C,*size)`` in [0, 1]; ``mask (1,1,*size)`` bool and ``boxes (1,6)`` its tight box
        (zeros if it is empty); ``spacing`` of the crop, mm; ``field (1,6)`` int64.

    Taught in: bifseg-interactive.
    """
    size = (size,) * 3 if isinstance(size, int) else tuple(int(s) for s in size)
    checks.shape(image, "image", "1 C D H W")
    inside = tuple(slice(a, b) for a, b in zip(field[:3], field[3:], strict=True))
    old = [b - a for a, b in zip(field[:3], field[3:], strict=True)]
    new_spacing = tuple(float(mm * o / s) for mm, o, s in zip(spacing, old, size, strict=True))
    part = image[(..., *inside)]
    low, high = PERCENTILES
    if unit == "HU":
        part, low, high = part.clamp(*HU_WINDOW), 0.0, 100.0
    part = resample(part, spacing, new_spacing, size=size)
    label = resample_labels(mask[(..., *inside)].long(), spacing, new_spacing, size=size)
    return {
        "image": scale_percentile(part, None, low, high, spatial_dims=3),
        "spacing": new_spacing,
        "field": torch.tensor([list(field)]),
        "mask": label.bool(),
        "boxes": one_box(label[0, 0].bool()),
    }


def uncrop(
    label: Tensor, field: Sequence[int], shape: Sequence[int], spacing: Sequence[float]
) -> Tensor:
    """Take a label map from the cube back to the volume's own grid; 0 outside the crop.

    Args:
        label: ``(1,*size)`` int64 or bool, e.g. a prediction for the image of `crop`.
        field: the voxels that were cut out.
        shape: of the volume.
        spacing: mm per voxel of the volume.

    Returns:
        ``(1,D,H,W)`` int64.
    """
    checks.shape(label, "label", "1 d h w")
    old = [int(b - a) for a, b in zip(field[:3], field[3:], strict=True)]
    cube = tuple(mm * o / s for mm, o, s in zip(spacing, old, label.shape[1:], strict=True))
    out = torch.zeros((1, *shape), dtype=torch.int64, device=label.device)
    inside = tuple(slice(int(a), int(b)) for a, b in zip(field[:3], field[3:], strict=True))
    out[(0, *inside)] = resample_labels(label.long(), cube, spacing, size=old)[0]
    return out


def one_box(mask: Tensor) -> Tensor:
    """Tight half-open box ``(1,2·ndim)`` of all that is in a mask ``(*S)``; zeros if nothing is."""
    places = torch.nonzero(mask)  # (P, ndim)
    if not len(places):
        return torch.zeros((1, 2 * mask.ndim), dtype=torch.int64)
    return torch.cat([places.amin(0), places.amax(0) + 1])[None]
