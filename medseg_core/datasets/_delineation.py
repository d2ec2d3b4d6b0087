"""Surfaces of OCT volumes as JHU publishes them: control points for splines, or every column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline

from medseg_core.datasets._heyex_vol import VolHeader
from medseg_core.datasets._mat import read_mat

SURFACES = ("ILM", "RNFL-GCL", "IPL-INL", "INL-OPL", "OPL-ONL", "ELM", "IS-OS", "OS-RPE", "BM")


def read_delineation(mat: Path, volume: VolHeader) -> tuple[np.ndarray, list[int]]:
    """Surfaces ``(B,9,W)`` of a volume, NaN where none is, and the B-scans that have all nine.

    Raises:
        ValueError: the file is wrong, or does not belong to the volume.
    """
    surfaces = read_surfaces(mat, volume.columns)
    if len(surfaces) != volume.n_bscans:
        raise ValueError(
            f"{mat.name}: {len(surfaces)} B-scans are delineated, the volume has {volume.n_bscans}"
        )
    complete = np.flatnonzero(np.isfinite(surfaces).any(axis=2).all(axis=1))
    return surfaces.astype(np.float32), complete.tolist()


def read_surfaces(path: Path, columns: int) -> np.ndarray:
    """The delineated surfaces of a volume, ``(B,9,columns)`` rows counted from 0; NaN: none.

    As its authors do: along the control points of each surface a natural cubic spline (uniform in
    the points' number, constant beyond the last one), then no surface above the one before it.

    Raises:
        ValueError: neither form of delineation, or another number of surfaces or columns.
    """
    found = read_mat(path, ("control_pts", "bd_pts"))
    if not found:
        raise ValueError(f"{path.name} holds neither control_pts nor bd_pts")
    if "bd_pts" in found:
        dense = np.asarray(found["bd_pts"])
        if dense.ndim != 3 or (dense.shape[0], dense.shape[2]) != (columns, len(SURFACES)):
            raise ValueError(
                f"{path.name}: bd_pts must be ({columns}, B-scans, {len(SURFACES)}), got "
                f"{dense.shape}"
            )
        surfaces = dense.transpose(1, 2, 0).astype(float)  # (W, B, 9) → (B, 9, W)
    else:
        cells = found["control_pts"]
        if cells.dtype != object or cells.ndim != 2:
            raise ValueError(f"{path.name}: control_pts must be cells (B-scans, surfaces)")
        used = [k for k in range(cells.shape[1]) if any(np.size(c) > 1 for c in cells[:, k])]
        if len(used) != len(SURFACES):
            raise ValueError(
                f"{path.name}: control_pts has {len(used)} surfaces, {len(SURFACES)} are needed"
            )
        surfaces = np.full((len(cells), len(used), columns), np.nan)
        for b, k in np.ndindex(surfaces.shape[:2]):
            points = np.asarray(cells[b, used[k]], float)
            if points.size <= 1:  # empty, or a single 0
                continue
            if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
                raise ValueError(
                    f"{path.name}: control_pts of B-scan {b}, surface {k} must be finite points "
                    f"(P, 2), got {points.shape}"
                )
            surfaces[b, k] = spline_through(points, columns)
    complete = np.isfinite(surfaces).any(axis=2).all(axis=1)
    # A spline may swing above its neighbour by a fraction of a pixel.
    surfaces[complete] = np.maximum.accumulate(surfaces[complete], axis=1)
    return surfaces - 1


def spline_through(points: np.ndarray, columns: int) -> np.ndarray:
    """y at x = 1 … columns of the natural cubic spline through control points, ``(columns,)``.

    Args:
        points: ``(P,2)`` x, y in any order; of points with one x the first counts.
        columns: number of columns.
    """
    x, first = np.unique(points[:, 0], return_index=True)
    y = points[first, 1]
    if len(x) < 2:
        return np.full(columns, y[0])
    number = np.interp(np.arange(1, columns + 1), x, np.arange(len(x)))  # constant beyond the ends
    return CubicSpline(np.arange(len(x)), y, bc_type="natural")(number)
