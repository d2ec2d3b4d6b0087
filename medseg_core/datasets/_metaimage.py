"""MetaImage files (.mhd with .raw), read by SimpleITK."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np


def header(path: Path, ndim: int) -> tuple[tuple[int, ...], tuple[float, ...], np.ndarray]:
    """Shape, pixel size (mm) and affine (as NIfTI's) along the file's axes; no pixels yet.

    Raises:
        ValueError: no such image, no pixels beside it, pixel sizes that are not > 0.
        ImportError: without SimpleITK.
    """
    raw = _raw(path)
    if raw and not raw.is_file():
        raise ValueError(f"{path.name} names {raw.name}, which is not there")
    reader = _simple_itk(path).ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ValueError(f"{path.name} cannot be read as MetaImage: {_last(error)}") from error
    shape, mm = reader.GetSize(), np.array(reader.GetSpacing())
    if not (np.isfinite(mm[:ndim]).all() and mm[:ndim].min() > 0):
        raise ValueError(f"{path.name} must have pixel sizes > 0, got {mm.tolist()}")
    n = min(len(mm), 3)
    affine = np.eye(4)
    directions = np.reshape(reader.GetDirection(), (len(mm), len(mm)))
    affine[:n, :n] = directions[:n, :n] * mm[:n]
    affine[:n, 3] = reader.GetOrigin()[:n]
    affine[:2] *= -1  # left and posterior are positive here, right and anterior in NIfTI
    return tuple(int(size) for size in shape), tuple(float(v) for v in mm[:ndim]), affine


def voxels(path: Path) -> np.ndarray:
    """The pixels in the file's axes.

    Raises:
        ValueError: the file is damaged, or its pixels are not as many as its header says.
    """
    itk, raw = _simple_itk(path), _raw(path)
    try:
        array = itk.GetArrayFromImage(itk.ReadImage(str(path))).T
    except RuntimeError as error:
        raise ValueError(f"{path.name} or its .raw is damaged: {_last(error)}") from error
    compressed = re.search(rb"CompressedData *= *True", path.read_bytes())
    if raw and not compressed and raw.stat().st_size != array.nbytes:
        raise ValueError(
            f"{raw.name} has {raw.stat().st_size} bytes, {path.name} promises {array.nbytes}"
        )
    return array


def _raw(path: Path) -> Path | None:
    """The file beside the header that holds the pixels, if it is another one."""
    found = re.search(rb"ElementDataFile *= *(\S+)", path.read_bytes())
    return path.parent / found[1].decode() if found and found[1] != b"LOCAL" else None


def _simple_itk(path: Path) -> ModuleType:
    try:
        import SimpleITK
    except ImportError as error:
        raise ImportError(
            f"{path.name} is read by SimpleITK: pip install SimpleITK (the extra `data`)"
        ) from error
    return SimpleITK


def _last(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].strip()
