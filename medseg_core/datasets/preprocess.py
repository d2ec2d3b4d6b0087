"""From scanners' grids and grey values to arrays that a network can take.

All functions work on the last axes, so that `(N,C,H,W)` images and `(N,H,W)` label maps both fit.
Grids keep the image's centre: pixel i of an axis of S pixels lies at (i − (S − 1)/2)·spacing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medseg_core import checks


def resample(
    x: Tensor,
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    order: int = 1,
    *,
    size: Sequence[int] | None = None,
    fill: float = 0.0,
) -> Tensor:
    """Resample the last ``len(spacing)`` axes of an image to another pixel size, about its centre.

    Samples lie at c + (j − (S′ − 1)/2)·spacing′ (c the image's centre), so the field of view keeps
    its place, unlike with grids that share their first pixel. Axes that get coarser are first
    smoothed by a Gaussian of (factor − 1)/2 pixels (order ≥ 1), against aliasing.

    Args:
        x: ``(…, *S)``.
        spacing, new_spacing: size of a pixel per axis, > 0 (mm).
        order: of the spline; 0 nearest, 1 linear, 3 cubic. Class indices: `resample_labels`.
        size: pixels per axis of the result; by default the field of view, rounded. A larger one is
            filled up by ``fill``, a smaller one cut: cropping, padding and resampling in one step,
            and the way back to the original grid.
        fill: value beyond the original field of view.

    Returns:
        ``(…, *S′)``, float32 (or ``x``'s dtype with order 0).

    Raises:
        ValueError: spacing not positive, an order not in 0 … 5, NaN, an integer image with
            order ≥ 1.
    """
    ndim, size = _grid(x, spacing, new_spacing, size)
    checks.choice(order, "order", tuple(range(6)))
    if order and not x.is_floating_point():
        raise ValueError(
            f"x must be floating point with order={order}, got {x.dtype}: use resample_labels for "
            "class indices, or order=0"
        )
    if x.is_floating_point():
        checks.finite(x, "x")
    factor = np.asarray(new_spacing, float) / np.asarray(spacing, float)
    old = np.asarray(x.shape[-ndim:])
    offset = (old - 1) / 2 - factor * (np.asarray(size) - 1) / 2
    sigma = np.maximum(factor - 1, 0) / 2 if order else np.zeros(ndim)

    grid = np.diag(factor)
    planes = x.detach().cpu().numpy().reshape(-1, *old)  # (P, *S)
    out = np.empty((len(planes), *size), planes.dtype)
    for plane, target in zip(planes, out, strict=True):
        if sigma.any():
            plane = ndimage.gaussian_filter(plane, sigma, mode="nearest")
        ndimage.affine_transform(plane, grid, offset, tuple(size), target, order, mode="nearest")
    for axis in range(ndim):
        position = offset[axis] + factor[axis] * np.arange(size[axis])
        outside = (position < -0.5 - 1e-9) | (position > old[axis] - 0.5 + 1e-9)
        out[(..., outside) + (slice(None),) * (ndim - 1 - axis)] = fill
    return torch.from_numpy(out).reshape(*x.shape[:-ndim], *size).to(x.device)


def resample_labels(
    label: Tensor,
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    *,
    size: Sequence[int] | None = None,
) -> Tensor:
    """Resample class indices: each pixel takes the class that covers most of it.

    Every class's indicator is resampled like an image (smoothed, linear) and the largest wins, the
    lowest class at a tie. The nearest pixel alone would shift the labels against the image by
    half a pixel wherever new centres fall between old ones, e.g. at a factor of 2.

    Args:
        label: ``(…, *S)`` int64. The rest as in `resample`.

    Returns:
        ``(…, *S′)`` int64; 0 beyond the original field of view.
    """
    _, size = _grid(label, spacing, new_spacing, size)
    if label.is_floating_point():
        raise ValueError(f"label must hold integers, got {label.dtype}")
    best = resample((label == 0).float(), spacing, new_spacing, 1, size=size, fill=1.0)
    out = torch.zeros_like(best, dtype=torch.int64)
    for value in torch.unique(label).tolist():
        if value:
            share = resample((label == value).float(), spacing, new_spacing, 1, size=size)
            # A hair's breadth for rounding: at a true tie the lower class stays.
            better = share > best + 1e-5
            out[better] = value
            best = torch.where(better, share, best)
    return out


def crop_or_pad(x: Tensor, size: int | Sequence[int], *, value: float = 0.0) -> Tensor:
    """Cut or fill up the last axes about the centre, without resampling.

    Args:
        x: ``(…, *S)``.
        size: pixels per axis; one integer means the last two axes.
        value: of the pixels added.

    Returns:
        ``(…, *size)``. If the difference is odd, the extra pixel is cut or added at the end of the
        axis, so that cropping undoes padding.
    """
    size = (size, size) if isinstance(size, int) else tuple(size)
    _check_size(x, size)
    out = x.new_full((*x.shape[: -len(size)], *size), value)
    source, target = [], []
    for old, new in zip(x.shape[-len(size) :], size, strict=True):
        start, length = abs(old - new) // 2, min(old, new)
        source.append(slice(start, start + length) if old > new else slice(None))
        target.append(slice(start, start + length) if new > old else slice(None))
    out[(..., *target)] = x[(..., *source)]
    return out


def zscore(x: Tensor) -> Tensor:
    """Zero mean and unit variance of every slice of every channel: (x − mean) / SD over its pixels.

    Args:
        x: ``(N,C,H,W)`` (or any ``(…,H,W)``).

    Returns:
        Like ``x``, float32. An image of one value becomes 0.

    Raises:
        ValueError: NaN or infinity.
    """

    def normalise(image: Tensor, inside: Tensor) -> Tensor:
        sd = inside.std(correction=0)
        centred = image - inside.mean()
        return centred / sd if sd > 1e-12 * inside.abs().max() else torch.zeros_like(centred)

    return _per_image(normalise, x, None, 2)


def scale_percentile(
    x: Tensor,
    mask: Tensor | None = None,
    lo: float = 1.0,
    hi: float = 99.0,
    *,
    spatial_dims: int = 2,
) -> Tensor:
    """Map the percentiles ``lo`` and ``hi`` of every sample and channel to 0 and 1; clip the rest.

    Args:
        x, mask, spatial_dims: as in `zscore`; the percentiles are those of the mask.
        lo, hi: 0 ≤ lo < hi ≤ 100.

    Returns:
        Like ``x``, float32 in [0, 1]. An image whose two percentiles agree becomes 0.
    """
    if not 0 <= lo < hi <= 100:
        raise ValueError(f"lo and hi must be percentiles with 0 <= lo < hi <= 100, got {lo}, {hi}")

    def normalise(image: Tensor, inside: Tensor) -> Tensor:
        low, high = np.percentile(inside.cpu().numpy(), (lo, hi))
        if high <= low:
            return torch.zeros_like(image)
        return ((image - low) / (high - low)).clamp(0, 1)

    return _per_image(normalise, x, mask, spatial_dims)


def centre_of_mass(label: Tensor, value: int) -> Tensor:
    """Centre of the pixels of one class, (N,2) as (row, column) in pixels; NaN where it is absent.

    Args:
        label: ``(N,H,W)`` class indices.
    """
    centres = [torch.nonzero(image == value).double().mean(0) for image in label]
    return torch.stack(centres).float()


def _per_image(normalise, x: Tensor, mask: Tensor | None, spatial_dims: int) -> Tensor:  # noqa: ANN001
    checks.finite(x, "x")
    images = x.double().reshape(-1, *x.shape[-spatial_dims:])  # (P, *S)
    masks = [None] * len(images)
    if mask is not None:
        masks = mask.bool().expand(x.shape).reshape(images.shape)
        empty = [at for at, m in enumerate(masks) if not m.any()]
        if empty:
            raise ValueError(f"mask must hold a pixel of every image, image {empty[0]} has none")
    out = [
        normalise(image, image if m is None else image[m])
        for image, m in zip(images, masks, strict=True)
    ]
    return torch.stack(out).reshape(x.shape).float()


def _grid(
    x: Tensor,
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    size: Sequence[int] | None,
) -> tuple[int, tuple[int, ...]]:
    """Number of spatial axes and the size of the new grid, checked."""
    for name, value in (("spacing", spacing), ("new_spacing", new_spacing)):
        array = np.asarray(value, float)
        if array.ndim != 1 or not (np.isfinite(array) & (array > 0)).all():
            raise ValueError(f"{name} must be one positive number per axis, got {value}")
    if len(spacing) != len(new_spacing) or len(spacing) > x.ndim:
        raise ValueError(
            f"spacing and new_spacing must have one number for each of the last axes of x, got "
            f"{len(spacing)} and {len(new_spacing)} for the shape {tuple(x.shape)}"
        )
    ndim = len(spacing)
    if size is None:
        field = np.asarray(x.shape[-ndim:]) * np.asarray(spacing) / np.asarray(new_spacing)
        size = np.maximum(np.floor(field + 0.5).astype(int), 1).tolist()
    _check_size(x, size, ndim)
    return ndim, tuple(size)


def _check_size(x: Tensor, size: Sequence[int], ndim: int | None = None) -> None:
    wrong = len(size) > x.ndim if ndim is None else len(size) != ndim
    if wrong or any(isinstance(s, bool) or int(s) != s or s < 1 for s in size):
        raise ValueError(
            f"size must be positive integers, one for each of the last axes of an array of shape "
            f"{tuple(x.shape)}, got {tuple(size)}"
        )
