"""Samples of all readers: checked indices, and another grid for an image and what lies on it."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

import torch

from medseg_core.datasets.preprocess import centre_of_mass, crop_or_pad, resample, resample_labels


def checked_index(index: int, n: int, name: str = "index") -> int:
    """``index`` as an int in 0 … n − 1; negative ones count from the end.

    Raises:
        TypeError: not an integer (a bool is none). IndexError: outside the data set.
    """
    if isinstance(index, bool) or getattr(index, "dtype", None) in (torch.bool, bool):
        raise TypeError(f"{name} must be an integer, got the truth value {index}")
    try:
        value = operator.index(index)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {index!r}") from None
    if not -n <= value < n:
        raise IndexError(f"{name} must be in [0, {n - 1}], got {value}")
    return value % n


def checked_indices(indices: Iterable[int] | None, n: int) -> list[int]:
    """``indices`` as a list of ints in 0 … n − 1, in the order given; None gives all.

    Raises:
        TypeError: not integers, e.g. a mask of truth values. IndexError: outside the data set.
        ValueError: none at all.
    """
    if isinstance(indices, int):
        raise TypeError(f"indices must be a sequence of integers, got the one integer {indices}")
    wanted = range(n) if indices is None else indices
    checked = [checked_index(i, n, f"indices[{at}]") for at, i in enumerate(wanted)]
    if not checked:
        raise ValueError("indices must not be empty")
    return checked


def per_axis(value: float | Sequence[float] | None, name: str, ndim: int = 2) -> tuple | None:
    """One number for all axes, or one for each; None stays None."""
    if value is None:
        return None
    values = (value,) * ndim if isinstance(value, int | float) else tuple(value)
    if len(values) != ndim:
        raise ValueError(f"{name} must be one number or {ndim}, one per axis, got {value}")
    return values


def on_grid(
    sample: dict,
    size: int | Sequence[int] | None,
    spacing: float | Sequence[float] | None,
    *,
    fill: float = 0.0,
    centre_of: int | None = None,
) -> dict:
    """Bring a sample to another pixel size and extent about the image's centre.

    Args:
        sample: with ``image (1,C,*S)``, ``spacing``, and any of ``label (1,*S)``, ``mask``,
            ``sector (1,1,*S)`` bool.
        size: pixels, or one number per axis; None keeps the field of view.
        spacing: of the result, in the unit of the sample's own; None keeps it: cut or fill up only.
        fill: the image's value beyond its border; all else is 0 there.
        centre_of: the class whose centre of mass is ``centre``, if the sample has one.

    Returns:
        The sample with all of these, ``spacing`` and ``centre`` on the new grid.
    """
    old, ndim = sample["spacing"], len(sample["spacing"])
    size, spacing = per_axis(size, "size", ndim), per_axis(spacing, "spacing", ndim)
    maps = {key: sample[key] for key in ("label", "mask", "sector") if key in sample}
    image = sample["image"]
    if spacing is not None:
        spacing = tuple(float(mm) for mm in spacing)
        image = resample(image, old, spacing, size=size, fill=fill)
        maps = {
            key: resample_labels(value.long(), old, spacing, size=size).to(value.dtype)
            for key, value in maps.items()
        }
    elif size is not None:
        image = crop_or_pad(image, size, value=fill)
        maps = {key: crop_or_pad(value, size) for key, value in maps.items()}
    changed = {"image": image, **maps, "spacing": spacing or old}
    if centre_of is not None:
        changed["centre"] = centre_of_mass(changed["label"], centre_of)
    return {**sample, **changed}
