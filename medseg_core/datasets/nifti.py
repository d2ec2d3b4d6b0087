"""NIfTI files: what may go wrong on reading them, said with the file's name."""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

# What nibabel and gzip raise on a file that is none, damaged or cut short.
READ_ERRORS = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error)


def header(path: Path) -> SpatialImage:
    """The image's header; the voxels are not read yet.

    Raises:
        ValueError: the file cannot be read; it is named.
    """
    try:
        return nib.load(path)
    except READ_ERRORS as error:
        raise ValueError(f"{path.name} cannot be read as NIfTI: {error}") from error


def voxels(path: Path, channel: int | None = None) -> np.ndarray:
    """The voxels of a file, in its own type and axes, or one channel of a 4-D one.

    Raises:
        ValueError: the file is damaged; it is named.
    """
    image = header(path)
    try:
        return np.asarray(image.dataobj if channel is None else image.dataobj[..., channel])
    except READ_ERRORS as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error


def geometry_problem(path: Path, image: SpatialImage) -> str:
    """Why voxel sizes or axes of a header cannot be used; "" when they can."""
    zooms = np.asarray(image.header.get_zooms()[:3])
    if not (np.isfinite(zooms) & (zooms > 0)).all():
        return f"{path.name} must have voxel sizes > 0, got {zooms.tolist()}"
    linear = image.affine[:3, :3]
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(linear)) < 1e-9:
        return f"{path.name} must have an affine that can be inverted, got {linear.tolist()}"
    return ""


def _orientation(affine: np.ndarray) -> np.ndarray:
    """From the file's axes to (left, posterior, superior)."""
    return nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt("LPS")
    )


def to_axes(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """From the file's axes (x,y,z) to (slice, row, column), views where possible."""
    return nib.apply_orientation(array, _orientation(affine)).transpose(2, 1, 0)


def from_axes(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Undo `to_axes`."""
    back = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("LPS"), nib.io_orientation(affine)
    )
    return nib.apply_orientation(array.transpose(2, 1, 0), back)


def spacing(image: SpatialImage) -> tuple[float, float, float]:
    """Voxel size in mm along (slice, row, column)."""
    zooms = np.asarray(image.header.get_zooms()[:3], float)
    order = _orientation(image.affine)[:, 0].astype(int)  # where each axis of the file goes
    moved = np.empty(3)
    moved[order] = zooms
    return tuple(float(v) for v in moved[::-1])
