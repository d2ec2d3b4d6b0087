"""What a scribbling pad knows without a screen: strokes, the map they make, the slice in view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NONE = 255  # no scribble
BACKGROUND, OBJECT = 0, 1
SIDE = 480  # of the picture on the page, in pixels


def paint(points: Sequence[Sequence[float]], brush: int, size: tuple[int, int]) -> NDArray:
    """Pixels (P,2) of a line through ``points`` (row, column), drawn with a round brush.

    A pixel belongs to the stroke if its centre lies within brush/2 of the line through the pixels
    that were touched: brush 1 gives a thin line without gaps. What lies outside is cut off.
    """
    stops = np.floor(np.asarray(points, dtype=float) + 0.5).reshape(-1, 2)
    stops = stops.clip(0, np.array(size) - 1)
    a, b = stops[: len(stops) - 1], stops[1:]
    if len(stops) == 1:
        a = b = stops
    margin = brush // 2 + 1
    low = (stops.min(0) - margin).clip(0).astype(int)
    high = np.minimum(stops.max(0) + margin + 1, size).astype(int)
    rows, columns = np.mgrid[low[0] : high[0], low[1] : high[1]]
    p = np.stack([rows, columns], -1).reshape(-1, 1, 2)  # (pixels, 1, 2) against (segments, 2)
    along = b - a
    t = ((p - a) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12)
    distance = np.linalg.norm(p - a - t.clip(0, 1)[..., None] * along, axis=-1).min(1)
    return p[distance <= brush / 2 + 1e-9, 0].astype(np.int64)


def outline(mask: NDArray) -> NDArray:
    """Edges between the pixels of a mask (H,W) and the rest: segments (E,2,2) in (row, column).

    In the coordinates of pixel corners: pixel (r, c) covers [r, r+1] × [c, c+1].
    """
    padded = np.pad(mask.astype(bool), 1)
    r, c = np.nonzero(padded[1:] != padded[:-1])  # between rows r−1 and r of the mask
    across = np.stack([np.stack([r, c - 1], -1), np.stack([r, c], -1)], 1)
    r, c = np.nonzero(padded[:, 1:] != padded[:, :-1])
    down = np.stack([np.stack([r - 1, c], -1), np.stack([r, c], -1)], 1)
    return np.concatenate([across, down])


@dataclass
class Strokes:
    """Strokes in a volume of ``size`` (D,H,W); where they cross, the later one counts."""

    size: tuple[int, ...]
    items: list[tuple[NDArray, int]] = field(default_factory=list)

    def add(self, voxels: NDArray, label: int) -> None:
        """One stroke: its voxels (P,3), 1 object or 0 background.

        Raises:
            ValueError: another label.
        """
        if label not in (BACKGROUND, OBJECT):
            raise ValueError(f"label must be {OBJECT} (object) or {BACKGROUND}, got {label!r}")
        if len(voxels):
            self.items.append((np.asarray(voxels, dtype=np.int64), label))

    def undo(self) -> None:
        """Forget the last stroke, if there is one."""
        del self.items[-1:]

    def clear(self) -> None:
        """Forget all strokes."""
        self.items.clear()

    def map(self) -> NDArray:
        """(D,H,W) int64: 1 object, 0 background, 255 none."""
        out = np.full(self.size, NONE, dtype=np.int64)
        for voxels, label in self.items:
            out[tuple(voxels.T)] = label
        return out


@dataclass(frozen=True)
class View:
    """One slice of a volume on a canvas: across ``axis`` at ``index``, ``zoom`` times as large."""

    axis: int
    index: int
    zoom: float

    def slice(self, volume: NDArray) -> NDArray:
        """The slice in view (H,W)."""
        return volume.take(self.index, self.axis)

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """(row, column) in the slice, pixel centres at integers, of a place on the canvas."""
        return y / self.zoom - 0.5, x / self.zoom - 0.5

    def voxels(self, pixels: NDArray) -> NDArray:
        """Pixels (P,2) of the slice as voxels (P,3)."""
        return np.insert(pixels, self.axis, self.index, 1)


def zoom_of(size: Sequence[int]) -> float:
    """Canvas pixels per voxel, so that no axis is longer than `SIDE`; whole where that is above 2.

    Pixels of one size look even; below 2 the picture would lose too much of its own.
    """
    zoom = SIDE / max(size)
    return zoom if zoom < 2 else float(int(zoom))


def largest_slice(mask: NDArray, axis: int) -> int:
    """The slice across ``axis`` with most of the mask; the middle one of an empty mask."""
    area = mask.astype(bool).sum(tuple(a for a in range(mask.ndim) if a != axis))
    return int(area.argmax()) if area.any() else mask.shape[axis] // 2
