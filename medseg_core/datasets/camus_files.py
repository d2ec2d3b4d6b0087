"""Where CAMUS's files lie, what is wrong with them, how they are read; the reader is `camus`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage

from medseg_core.datasets import nifti
from medseg_core.datasets.report import folder_problem

BACKGROUND, LV, MYOCARDIUM, ATRIUM = 0, 1, 2, 3
VIEWS, PHASES = ("2CH", "4CH"), ("ED", "ES")
PATIENT = re.compile(r"patient(\d{4})")
SUFFIXES = (".nii.gz", ".nii", ".mhd")  # the first that is there is read
# File axis that runs away from the probe, as the view of the array (row, column) = (y, x).
ROWS = {
    "y": lambda a: a,
    "-y": lambda a: a[::-1],
    "x": lambda a: a.T,
    "-x": lambda a: a.T[::-1],
}


@dataclass(frozen=True)
class Frame:
    """One image with its labels."""

    patient: int
    view: str
    phase: str
    image: Path
    label: Path
    info: dict = field(hash=False)


def patient_folders(root: Path, missing: list[str]) -> list[Path]:
    """The patients in ``root`` or in the folders right below it."""
    problem = folder_problem(root)
    if problem:
        missing.append(problem)
        return []
    if PATIENT.fullmatch(root.resolve().name):
        missing.append("this is the folder of one patient, the folder above is needed")
        return []
    folders = _patients(root)
    for part in sorted(p for p in root.iterdir() if p.is_dir()) if not folders else ():
        folders += _patients(part)
    if not folders:
        missing.append("no folder named patient####, neither here nor one folder below")
    names = [folder.name for folder in folders]
    twice = sorted({name for name in names if names.count(name) > 1})
    missing += [f"{name} is there twice" for name in twice]
    return folders


def _patients(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and PATIENT.fullmatch(p.name))


def frames(
    folder: Path, views: tuple[str, ...], phases: tuple[str, ...], missing: list[str]
) -> list[Frame]:
    """The labelled frames of one patient; a patient of a test set, without labels, has none."""
    if not any(_file(folder, f"{folder.name}_{v}_{p}_gt") for v in VIEWS for p in PHASES):
        if not any(_file(folder, f"{folder.name}_{v}_{p}") for v in VIEWS for p in PHASES):
            missing.append(f"{folder.name}: no {folder.name}_2CH_ED.nii.gz or the like")
        return []
    found = []
    for view in views:
        info = _info(folder / f"Info_{view}.cfg")
        for phase in phases:
            stems = [f"{folder.name}_{view}_{phase}{end}" for end in ("", "_gt")]
            files = [_file(folder, stem) for stem in stems]
            absent = [s for s, f in zip(stems, files, strict=True) if f is None]
            missing += [f"{folder.name}: {stem}.nii.gz (or .mhd) is missing" for stem in absent]
            if not absent:
                number = int(PATIENT.fullmatch(folder.name)[1])
                found.append(Frame(number, view, phase, *files, info))
    return found


def _file(folder: Path, stem: str) -> Path | None:
    files = (folder / f"{stem}{suffix}" for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def _info(path: Path) -> dict:
    """The lines "key: value" of a patient's text file; empty without one."""
    if not path.is_file():
        return {}
    lines = path.read_text(errors="replace").splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def header(path: Path) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Size and mm per pixel along the file's axes (x, y); the pixels are not read yet.

    Raises:
        ValueError: no such image, more than two axes, pixel sizes that are not > 0.
        ImportError: a ``.mhd`` file without SimpleITK.
    """
    if path.suffix == ".mhd":
        raw = re.search(rb"ElementDataFile *= *(\S+)", path.read_bytes())
        if raw and raw[1] != b"LOCAL" and not (path.parent / raw[1].decode()).is_file():
            raise ValueError(f"{path.name} names {raw[1].decode()}, which is not there")
        reader = _simple_itk(path).ImageFileReader()
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise ValueError(f"{path.name} cannot be read as MetaImage: {_last(error)}") from error
        size, mm = reader.GetSize(), reader.GetSpacing()
    else:
        image = nifti.header(path)
        size, mm = image.shape, image.header.get_zooms()
    size, mm = tuple(int(n) for n in size), tuple(float(v) for v in mm[:2])
    if len(size) < 2 or any(n > 1 for n in size[2:]):
        raise ValueError(f"{path.name} must be one frame (x, y), got the shape {size}: a sequence?")
    if not (np.isfinite(mm).all() and min(mm) > 0):
        raise ValueError(f"{path.name} must have pixel sizes > 0, got {mm}")
    return size[:2], mm


def problem(frame: Frame) -> str:
    """What is wrong with a frame's headers; "" if nothing is."""
    try:
        (image, _), (label, _) = header(frame.image), header(frame.label)
    except (ValueError, ImportError) as error:
        return str(error)
    if image != label:
        return f"{frame.label.name} has the shape {label}, its image {image}"
    return ""


def read(frame: Frame, rows: str) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Image ``(H,W)`` float32 in [0, 1], label ``(H,W)`` int64, mm per (row, column).

    Raises:
        ValueError: damaged files, grey values outside 0 … 255, labels other than 0 … 3.
    """
    image, label = _pixels(frame.image).astype(np.float32), _pixels(frame.label)
    if not (image.min() >= 0 and image.max() <= 255):  # NaN compares false
        got = f"{image.min():g} to {image.max():g}"
        raise ValueError(f"{frame.image.name} must have grey values in 0 … 255, got {got}")
    wrong = np.setdiff1d(label, (BACKGROUND, LV, MYOCARDIUM, ATRIUM))
    if len(wrong):
        raise ValueError(
            f"{frame.label.name} must hold the labels 0, 1, 2, 3, got {wrong[:5].tolist()}"
        )
    mm_x, mm_y = header(frame.image)[1]
    spacing = (mm_y, mm_x) if rows.endswith("y") else (mm_x, mm_y)
    return ROWS[rows](image / 255), ROWS[rows](label.astype(np.int64)), spacing


def _pixels(path: Path) -> np.ndarray:
    """(y, x) in the file's own type."""
    (x, y), _ = header(path)
    if path.suffix != ".mhd":
        return nifti.voxels(path).reshape(x, y).T
    itk = _simple_itk(path)
    try:
        return itk.GetArrayFromImage(itk.ReadImage(str(path))).reshape(y, x)
    except RuntimeError as error:
        raise ValueError(f"{path.name} or its .raw is damaged: {_last(error)}") from error


def sector(image: np.ndarray) -> np.ndarray:
    """The part of the image that the probe sees: pixels that are not 0, holes filled."""
    return ndimage.binary_fill_holes(image > 0)


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


def _simple_itk(path: Path):  # noqa: ANN202 (a module)
    try:
        import SimpleITK
    except ImportError as error:
        raise ImportError(
            f"{path.name} is read by SimpleITK: pip install SimpleITK (the extra `data`)"
        ) from error
    return SimpleITK


def _last(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].strip()
