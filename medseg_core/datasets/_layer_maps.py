"""OCT volumes in MATLAB files: ``images`` and, per B-scan and column, rows in ``layerMaps``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg_core.datasets._mat import read_mat


def annotation(path: Path) -> tuple[list[int], float]:
    """Which B-scans have a column with all surfaces, and the age (NaN if unknown).

    Raises:
        ValueError: unreadable, or no surfaces.
    """
    found = read_mat(path, ("layerMaps", "Age"))
    annotated = np.isfinite(_layers(path, found)).all(axis=2).any(axis=1)
    age = np.asarray(found.get("Age", np.nan), float).ravel()
    return np.flatnonzero(annotated).tolist(), float(age[0]) if age.size else float("nan")


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """B-scans ``(B,H,W)`` in 0 … 255 and surfaces ``(B,W,3)`` as stored, NaN where there are none.

    The axes may stand in any order: surfaces have one of length 3, a volume has fewer B-scans than
    columns, and the images' rows are what is left.

    Raises:
        ValueError: unreadable, a variable missing, axes that cannot be told apart, other values.
    """
    found = read_mat(path, ("images", "layerMaps"))
    layers, images = _layers(path, found), found.get("images")
    if images is None:
        raise ValueError(f"{path.name} holds no images")
    n_bscans, columns, _ = layers.shape
    order = _axes(images.shape, n_bscans, columns)
    if order is None:
        raise ValueError(
            f"{path.name}: images must have {n_bscans} B-scans and {columns} columns as its "
            f"layerMaps, and another number of rows, got {images.shape}"
        )
    if images.dtype.kind not in "iuf" or not (0 <= images.min() <= images.max() <= 255):
        raise ValueError(f"{path.name}: images must hold grey values in [0, 255]")
    return images.transpose(order), layers


def _layers(path: Path, found: dict[str, np.ndarray]) -> np.ndarray:
    """Surfaces ``(B,W,3)`` as stored, NaN where there are none."""
    if "layerMaps" not in found:
        raise ValueError(f"{path.name} holds no layerMaps")
    maps = found["layerMaps"]
    if maps.ndim != 3 or maps.shape.count(3) != 1 or maps.dtype.kind not in "iuf":
        raise ValueError(
            f"{path.name}: layerMaps must be numbers (B-scans, columns, 3), in any order of the "
            f"axes, got {maps.dtype}{maps.shape}"
        )
    maps = np.moveaxis(maps, maps.shape.index(3), 2).astype(np.float32)
    if maps.shape[0] > maps.shape[1]:
        maps = maps.transpose(1, 0, 2)
    return np.where(np.isfinite(maps), maps, np.float32(np.nan))


def _axes(found: tuple[int, ...], n_bscans: int, columns: int) -> tuple[int, int, int] | None:
    """Which axes are B-scan, row and column; None if that is not certain."""
    if len(found) != 3 or found.count(n_bscans) != 1 or found.count(columns) != 1:
        return None
    b, w = found.index(n_bscans), found.index(columns)
    return b, 3 - b - w, w
