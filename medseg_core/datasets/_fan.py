"""The fan of an ultrasound probe in an image: what it sees, and on which side it stands."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

# File axis that runs away from the probe, as the view of the array (row, column) = (y, x).
ROWS = {
    "y": lambda a: a,
    "-y": lambda a: a[::-1],
    "x": lambda a: a.T,
    "-x": lambda a: a.T[::-1],
}


def sector(image: np.ndarray) -> np.ndarray:
    """The part of the image that the probe sees: pixels that are not 0, holes filled."""
    return ndimage.binary_fill_holes(image > 0)


def check_upright(image: np.ndarray, rows: str, name: str) -> None:
    """Refuse an image, read with "y", whose fan does not narrow where ``rows`` says it does.

    Raises:
        ValueError: it narrows to another side, which is named, or there is no fan.
    """
    side = probe_side(image)
    if side != rows:
        advice = f"give rows={side!r}" if side else "its pixels that are not 0 form no fan"
        raise ValueError(f"{name}: the fan does not narrow upwards; {advice}")


def probe_side(image: np.ndarray) -> str:
    """The value of ``rows`` that puts the fan's narrow end on top, from an image read with "y".

    A fan has more pixels far from the probe: their mean position, in shares of the fan's extent, is
    compared along both axes. "" if they lie in the middle of both.
    """
    places = np.argwhere(sector(image))
    if not len(places):
        return ""
    extent = np.maximum(np.ptp(places, axis=0), 1)
    row, column = (places.mean(0) - places.min(0)) / extent - 0.5
    if max(abs(row), abs(column)) < 0.02:
        return ""
    axis, towards = ("y", row) if abs(row) > abs(column) else ("x", column)
    return axis if towards > 0 else f"-{axis}"
