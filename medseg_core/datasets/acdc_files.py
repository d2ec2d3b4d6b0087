"""Where ACDC's files lie, what is wrong with them, and how they are read; the reader is `acdc`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medseg_core import checks
from medseg_core.datasets.nifti import READ_ERRORS, header
from medseg_core.datasets.report import folder_problem

BACKGROUND, RV, MYOCARDIUM, LV = 0, 1, 2, 3
PARTS = ("training", "testing")
PATIENT = re.compile(r"patient(\d{3})")


@dataclass(frozen=True)
class Volume:
    """One labelled frame of one patient."""

    patient: int
    part: str
    phase: str
    info: dict
    image: Path
    label: Path


def patient_folders(root: Path, part: str | None) -> tuple[list[tuple[str, Path]], list[str], str]:
    """(part, folder) of every patient, what is wrong, and where else the patients may be."""
    problem = folder_problem(root)
    if problem:
        return [], [problem], ""
    if PATIENT.fullmatch(root.resolve().name) and (root / "Info.cfg").exists():
        return [], ["this is the folder of one patient"], f"the folder above it, {root.parent}"

    below = [name for name in PARTS if _patients(root / name)]
    if below:
        if part and part not in below:
            return [], [f"{part}/ with patient folders (there is {', '.join(below)}/)"], ""
        folders = [(n, f) for n in below if part in (None, n) for f in _patients(root / n)]
    else:
        direct = root.resolve().name if root.resolve().name in PARTS else ""
        if part and direct and part != direct:
            return (
                [],
                [f"{part}/: this is the folder {direct}/"],
                f"the folder above, {root.parent}",
            )
        folders = [(direct, f) for f in _patients(root)]
        if part and folders and not direct:
            return [], [f"{part}/: the patients lie in this folder itself, leave part=None"], ""
    if not folders:
        return (
            [],
            ["no folder named patient###, neither here nor in training/, testing/"],
            _below(root),
        )
    numbers = [folder.name for _, folder in folders]
    twice = sorted({name for name in numbers if numbers.count(name) > 1})
    return folders, [f"{name} is there twice, in training/ and testing/" for name in twice], ""


def _patients(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and PATIENT.fullmatch(p.name))


def _below(root: Path) -> str:
    """The folder further down that holds the patients, if there is one."""
    for pattern in ("*/patient[0-9]*", "*/*/patient[0-9]*"):
        for path in sorted(root.glob(pattern)):
            if _patients(path.parent):
                home = path.parent.parent if path.parent.name in PARTS else path.parent
                return f"the folder below, {home}"
    return ""


def patient(folder: Path, part: str) -> tuple[list[Volume], list[str]]:
    """The labelled volumes of one patient, and what is wrong with them."""
    try:
        info = _info(folder / "Info.cfg")
    except ValueError as error:
        return [], [str(error)]
    volumes, problems = [], []
    for phase in ("ED", "ES"):
        stem = f"{folder.name}_frame{info[phase]:02d}"
        files = [_nifti(folder, stem), _nifti(folder, f"{stem}_gt")]
        absent = [n for n, f in zip((stem, f"{stem}_gt"), files, strict=True) if f is None]
        if absent:
            problems += [f"{name}.nii.gz is missing ({phase})" for name in absent]
            continue
        volume = Volume(int(folder.name[-3:]), part, phase, info, *files)
        volumes.append(volume)
        problems += _header_problems(volume)
    return volumes, problems


def _info(path: Path) -> dict:
    """ED, ES and what is known of the person, from lines like "ED: 1"."""
    if not path.is_file():
        raise ValueError("Info.cfg is missing")
    pairs = (
        line.split(":", 1) for line in path.read_text(errors="replace").splitlines() if ":" in line
    )
    raw = {key.strip(): value.strip() for key, value in pairs}
    for key in ("ED", "ES"):
        if not re.fullmatch(r"[1-9]\d*", raw.get(key, "")):
            raise ValueError(f"Info.cfg must hold {key}: a frame number, got {raw.get(key)!r}")
    if raw["ED"] == raw["ES"]:
        raise ValueError(f"Info.cfg names the same frame {raw['ED']} for ED and ES")
    person = {
        "height_cm": _number(raw.get("Height")),
        "weight_kg": _number(raw.get("Weight")),
        "n_frames": _number(raw.get("NbFrame")),
    }
    return {
        "ED": int(raw["ED"]),
        "ES": int(raw["ES"]),
        "Group": raw.get("Group", ""),
        "person": person,
    }


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _nifti(folder: Path, stem: str) -> Path | None:
    files = (folder / f"{stem}{suffix}" for suffix in (".nii.gz", ".nii"))
    return next((file for file in files if file.is_file()), None)


def _header_problems(volume: Volume) -> list[str]:
    try:
        image, label = header(volume.image), header(volume.label)
    except ValueError as error:
        return [str(error)]
    if len(image.shape) != 3:
        return [
            f"{volume.image.name} must be 3-D (x, y, slice), got {len(image.shape)}-D {image.shape}"
            + (": the whole cine?" if len(image.shape) == 4 else "")
        ]
    if label.shape != image.shape:
        return [f"{volume.label.name} has shape {label.shape}, its image {image.shape}"]
    zooms = np.asarray(image.header.get_zooms()[:3])
    if not (np.isfinite(zooms) & (zooms > 0)).all():
        return [f"{volume.image.name} must have voxel sizes > 0, got {zooms.tolist()}"]
    return []


def read(volume: Volume) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    try:
        image = np.asarray(header(volume.image).dataobj, dtype=np.float32)
        label = np.asarray(header(volume.label).dataobj)
    except READ_ERRORS as error:
        raise ValueError(f"{volume.image.parent}: damaged file: {error}") from error
    checks.finite(torch.from_numpy(image), volume.image.name)
    wrong = np.setdiff1d(label, (BACKGROUND, RV, MYOCARDIUM, LV))
    if len(wrong):
        raise ValueError(
            f"{volume.label.name} must hold the labels 0, 1, 2, 3, got {wrong[:5].tolist()}"
        )
    x, y, z = (float(v) for v in header(volume.image).header.get_zooms()[:3])
    # NIfTI's axes are (x, y, z) = (column, row, slice).
    return image.transpose(2, 1, 0), label.transpose(2, 1, 0).astype(np.int64), (y, x, z)


def voxel_problem(volume: Volume) -> str:
    try:
        read(volume)
    except ValueError as error:
        return str(error)
    return ""
