"""What all readers share: checked indices, one grid for image and labels."""

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


def checked_indices(indices: Iterable[int], n: int) -> list[int]:
    """``indices`` as a list of ints in 0 … n − 1, in the order given.

    Raises:
        TypeError: not integers, e.g. a mask of truth values. IndexError: outside the data set.
        ValueError: none at all.
    """
    if isinstance(indices, int):
        raise TypeError(f"indices must be a sequence of integers, got the one integer {indices}")
    checked = [checked_index(i, n, f"indices[{at}]") for at, i in enumerate(indices)]
    if not checked:
        raise ValueError("indices must not be empty")
    return checked


def pair(value: float | Sequence[float] | None, name: str) -> tuple | None:
    """One number for both axes, or (row, column); None stays None."""
    if value is None:
        return None
    both = (value, value) if isinstance(value, int | float) else tuple(value)
    if len(both) != 2:
        raise ValueError(f"{name} must be one number or (row, column), got {value}")
    return both


def on_grid(
    sample: dict,
    size: int | Sequence[int] | None,
    spacing: float | Sequence[float] | None,
    *,
    centre_value: int,
) -> dict:
    """Bring a 2-D sample to another pixel size and extent about the image's centre.

    Args:
        sample: with ``image (1,C,H,W)``, ``label (1,H,W)``, ``spacing``.
        size: pixels, or (rows, columns); None keeps the field of view.
        spacing: of the result, in the unit of the sample's own; None keeps it: cut or fill up only.
        centre_value: the class whose centre of mass is ``centre``.

    Returns:
        The sample with new ``image``, ``label``, ``spacing`` and ``centre``; 0 beyond the image.
    """
    size, spacing = pair(size, "size"), pair(spacing, "spacing")
    spacing = spacing and (float(spacing[0]), float(spacing[1]))
    image, label, old = sample["image"], sample["label"], sample["spacing"]
    if spacing is not None:
        image = resample(image, old, spacing, size=size)
        label = resample_labels(label, old, spacing, size=size)
    elif size is not None:
        image, label = crop_or_pad(image, size), crop_or_pad(label, size)
    centre = centre_of_mass(label, centre_value)
    changed = {"image": image, "label": label, "centre": centre, "spacing": spacing or old}
    return {**sample, **changed}
