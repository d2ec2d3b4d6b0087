"""Surfaces of one B-scan in an ``.npz`` file, as exported from a device; nothing is unpickled."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NEEDED = ("layers", "names", "scale_mm")


@dataclass(frozen=True)
class Layers:
    """Surfaces from the top down.

    Attributes:
        rows: ``(L,W)`` float32, NaN where there is none.
        names: of the L surfaces.
        scale_mm: (column, slice, row).
        scan_pattern: the device's number for it; 0 if unknown.
    """

    rows: np.ndarray
    names: tuple[str, ...]
    scale_mm: np.ndarray
    scan_pattern: int


def read_layers(path: Path, shape: tuple[int, int]) -> Layers:
    """Read the surfaces that belong to an image of ``shape``.

    Raises:
        ValueError: unreadable or incomplete, another number of columns or names, a surface that
            is nowhere known or lies outside the image; named by its file.
    """
    at = path.name
    try:
        with np.load(path) as data:  # allow_pickle is off: nothing of the file is executed
            absent = [key for key in NEEDED if key not in data]
            if absent:
                raise ValueError(f"it has no {', '.join(absent)}, only {sorted(data)}")
            layers, names, scale_mm = (data[key] for key in NEEDED)
            pattern = int(data["scan_pattern"]) if "scan_pattern" in data else 0
    except (ValueError, TypeError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{at} cannot be read: {error}") from error
    if layers.ndim != 2 or layers.dtype.kind != "f" or layers.shape[1] != shape[1]:
        raise ValueError(
            f"{at}: layers must be floats (L, {shape[1]}) as the image has columns, got "
            f"{layers.dtype}{layers.shape}"
        )
    if names.shape != layers.shape[:1] or names.dtype.kind != "U" or not len(names):
        raise ValueError(f"{at}: names must be {len(layers)} texts, got {names.tolist()}")
    if scale_mm.shape != (3,) or not (scale_mm[[0, 2]] > 0).all():
        raise ValueError(f"{at}: scale_mm must be (column, slice, row) in mm, got {scale_mm}")
    known = np.isfinite(layers)
    if not known.any(axis=1).all():
        empty = [str(n) for n, row in zip(names, known, strict=True) if not row.any()]
        raise ValueError(f"{at}: no column of {', '.join(empty)} is known")
    outside = known & ((layers < -0.5) | (layers > shape[0] - 0.5))
    if outside.any():
        which, column = np.argwhere(outside)[0]
        raise ValueError(
            f"{at}: {names[which]} lies at row {layers[which, column]:g} in column {column}, "
            f"outside the image's {shape[0]} rows"
        )
    order = np.argsort([np.median(row[k]) for row, k in zip(layers, known, strict=True)])
    named = tuple(str(name) for name in names[order])
    return Layers(layers[order].astype(np.float32), named, scale_mm, pattern)
