"""NIfTI files: what may go wrong on reading them, said with the file's name; and writing."""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

# What nibabel and gzip raise on a file that is none, damaged or cut short.
READ_ERRORS = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error)
SIZES_AGREE = 1e-3  # relative; voxel sizes are stored as float32, some with few digits


def header(path: Path, ndim: int) -> tuple[tuple[int, ...], tuple[float, ...], np.ndarray]:
    """Shape, voxel size (mm) and affine along the file's axes; the voxels are not read yet.

    Args:
        path: of the file.
        ndim: axes in space that are needed, 2 or 3; an affine has three in any case.

    Raises:
        ValueError: unreadable; colours or complex numbers; sizes that are not > 0 or that pixdim
            and the affine do not agree on; qform and sform that say to be the same and are not; an
            affine that cannot be inverted.
    """
    image = _load(path)
    kind = image.get_data_dtype()
    if kind.kind not in "iuf":
        what = "colours (RGB)" if kind.fields else "complex numbers" if kind.kind == "c" else kind
        raise ValueError(f"{path.name} must hold one real number per voxel, got {what}")
    zooms = np.asarray(image.header.get_zooms()[:ndim], float)
    if not (np.isfinite(zooms) & (zooms > 0)).all():
        raise ValueError(f"{path.name} must have voxel sizes > 0, got {zooms.tolist()}")
    affine = np.asarray(image.affine, float).copy()
    if ndim == 2:  # a flat image's third axis may have no length
        affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1])
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ValueError(
            f"{path.name} must have an affine that can be inverted, got {affine[:3, :3].tolist()}"
        )
    forms = [image.header[f"{form}_code"] for form in ("qform", "sform")]
    if forms[0] == forms[1] > 0:  # two matrices for one and the same space
        q, s = (np.asarray(get()) for get in (image.get_qform, image.get_sform))
        corner = np.array([*image.shape[:3], *(1,) * (3 - len(image.shape[:3])), 1])
        off = max(np.linalg.norm(((q - s) @ at)[:3]) for at in (corner, [0, 0, 0, 1]))
        if off > min(zooms):
            raise ValueError(
                f"{path.name} gives two places: its qform and sform, of one code, are {off:.4g} mm "
                "apart; correct the header"
            )
    sizes = nib.affines.voxel_sizes(affine)[: len(zooms)]
    if not np.allclose(sizes, zooms, rtol=SIZES_AGREE, atol=0):
        raise ValueError(
            f"{path.name} gives two voxel sizes: pixdim {zooms.round(4).tolist()} mm, the affine "
            f"{sizes.round(4).tolist()} mm; correct the header"
        )
    return image.shape, tuple(float(z) for z in zooms), affine


def voxels(path: Path, channel: int | None = None) -> np.ndarray:
    """The voxels of a file, scaled as its header says, or one channel of a 4-D one.

    Raises:
        ValueError: the file is damaged; it is named.
    """
    image = _load(path)
    try:
        return np.asarray(image.dataobj if channel is None else image.dataobj[..., channel])
    except READ_ERRORS as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error


def write(path: Path, array: np.ndarray, like: Path) -> None:
    """Save ``array`` with the place in space of the file ``like``, in both of NIfTI's forms."""
    source = _load(like)
    image = nib.Nifti1Image(array, source.affine)
    image.set_sform(source.affine, int(source.header["sform_code"]) or 1)
    image.set_qform(source.affine, int(source.header["qform_code"]) or 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _load(path: Path) -> SpatialImage:
    try:
        image = nib.load(path)
    except READ_ERRORS as error:
        raise ValueError(f"{path.name} cannot be read as NIfTI: {error}") from error
    if not isinstance(image, nib.Nifti1Pair):
        raise ValueError(f"{path.name} cannot be read as NIfTI: it is {type(image).__name__}")
    return image
