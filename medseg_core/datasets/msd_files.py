"""Where a task of the Decathlon lies and what is wrong with it; the reader is `msd`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from medseg_core.datasets import nifti
from medseg_core.datasets.msd_tasks import TASKS, is_named, known
from medseg_core.datasets.report import folder_problem

# Folders of images, labels and unlabelled images, as published and as pairs alone.
FOLDERS = (("imagesTr", "labelsTr", "imagesTs"), ("images", "labels", "imagesTs"))


@dataclass(frozen=True)
class Case:
    """One volume; ``label`` is None for a test image."""

    id: str
    image: Path
    label: Path | None


@dataclass
class Found:
    """A task in the user's folder: what it is and which cases it holds."""

    home: Path
    layout: str
    task: str = ""
    channels: tuple[str, ...] = ()
    labels: dict[int, str] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self, part: str) -> list[str]:
        """What was found, for the report."""
        labels = ", ".join(f"{value} {name}" for value, name in self.labels.items())
        return [
            f"{self.task or self.home.name}: {len(self.cases)} {part} volumes",
            f"layout: {self.layout}",
            f"modality {', '.join(self.channels)}; labels {labels}",
            *self.notes,
        ]


def find(root: Path, task: int | str | None, part: str, missing: list[str]) -> Found | None:
    """The task below ``root``; what is wrong is added to ``missing``."""
    home = _home(root, task, missing)
    if home is None:
        return None
    if (home / "dataset.json").is_file():
        found = _from_json(home, part, missing)
    else:
        found = _from_folders(home, task, part, missing)
    if found and not found.cases and not missing:
        missing.append(f"no {part} image in {home.name}/")
    return found


def _home(root: Path, task: int | str | None, missing: list[str]) -> Path | None:
    problem = folder_problem(root)
    if problem:
        missing.append(problem)
        return None
    if _holds_task(root):
        here = known(root.resolve().name)
        if task is not None and here and not is_named(here.name, task):
            missing.append(f"task {task!r}: this is the folder {here.name}/")
            return None
        return root
    below = sorted(p for p in root.iterdir() if p.is_dir() and _holds_task(p))
    named = [p for p in below if task is None or is_named(p.name, task)]
    if len(named) == 1:
        return named[0]
    names = ", ".join(p.name for p in below)
    if not below:
        missing.append("no dataset.json, imagesTr/ or images/, neither here nor one folder below")
    elif task is None:
        missing.append(f"which task? There are {names}: give task=")
    else:
        missing.append(f"no task {task!r}: there is {names}")
    return None


def _holds_task(folder: Path) -> bool:
    names = ("dataset.json", *(images for images, _, _ in FOLDERS))
    return any((folder / name).exists() for name in names)


def hint(root: Path) -> str:
    """Another folder that the user probably meant."""
    if root.resolve().name in sum(FOLDERS, ()):
        return f"the folder above, {root.resolve().parent}"
    if root.is_dir():
        for path in sorted(root.glob("*/*/")):
            if _holds_task(path):
                return f"the folder below, {path.parent}"
    return ""


def _from_json(home: Path, part: str, missing: list[str]) -> Found | None:
    try:
        text = (home / "dataset.json").read_text(encoding="utf-8")
        described = json.loads(text)
        labels = {int(value): str(name) for value, name in described["labels"].items()}
        channels = described["modality"]
        channels = tuple(str(channels[key]) for key in sorted(channels, key=int))
        listed = described[part]
        pairs = [(e, None) if isinstance(e, str) else (e["image"], e.get("label")) for e in listed]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        missing.append(
            "dataset.json must hold labels {'0': 'background', …}, modality {'0': 'CT'} and "
            f"{part}, a list of {{'image': …, 'label': …}}: {what}"
        )
        return None
    name = home.resolve().name
    task = known(name) or known(str(described.get("name", "")))
    found = Found(home, "dataset.json", task.name if task else name, channels, labels)
    if task and set(labels) != set(task.labels):
        found.notes.append(
            f"dataset.json has the labels {labels}, {task.name} as published {task.labels}"
        )
    for image, label in pairs:
        if PurePosixPath(image).name.startswith("._"):
            continue
        if part == "training" and label is None:
            missing.append(f"dataset.json names no label for {image}")
            continue
        files = [_inside(home, path, missing) for path in (image, label) if path is not None]
        if None not in files:
            found.cases.append(Case(stem(files[0]), *files, *([None] * (2 - len(files)))))
    _unlisted(home, part, pairs, found)
    return found


def _inside(home: Path, path: str, missing: list[str]) -> Path | None:
    """The file that dataset.json names, which must be there and inside the task's folder."""
    file = home / path
    if not file.resolve().is_relative_to(home.resolve()):
        missing.append(f"dataset.json names {path}, outside of its folder")
    elif not file.is_file():
        missing.append(f"dataset.json names {path}, which is not there")
    else:
        return file
    return None


def _unlisted(home: Path, part: str, pairs: list[tuple], found: Found) -> None:
    folder = home / ("imagesTr" if part == "training" else "imagesTs")
    listed = {PurePosixPath(image).name for image, _ in pairs}
    rest = sorted(path.name for path in files(folder).values() if path.name not in listed)
    if rest:
        found.notes.append(
            f"left out, since dataset.json does not name them: {len(rest)} files in "
            f"{folder.name}/, first {rest[0]}"
        )


def _from_folders(
    home: Path, task: int | str | None, part: str, missing: list[str]
) -> Found | None:
    names = next(folders for folders in FOLDERS if (home / folders[0]).is_dir())
    images = files(home / names[0 if part == "training" else 2])
    labels = files(home / names[1]) if part == "training" else {}
    found = Found(home, f"{names[0]}/ and {names[1]}/, no dataset.json")
    table = known(task) if task is not None else known(home.resolve().name)
    if table is None and task is None and images:
        prefix = re.sub(r"_?\d+$", "", next(iter(images))).lower()
        table = next((t for t in TASKS if t.prefix.lower() == prefix), None)
    if table is None and images:
        tasks = ", ".join(t.name for t in TASKS)
        missing.append(f"which task is this? Without dataset.json give task=, one of {tasks}")
        return found
    if table:
        found.task, found.channels, found.labels = table.name, table.channels, table.labels
    if part == "training":
        missing += [
            f"{names[1]}/: no label for {images[s].name}" for s in images if s not in labels
        ]
        missing += [
            f"{names[0]}/: no image for {labels[s].name}" for s in labels if s not in images
        ]
    found.cases = [
        Case(s, path, labels.get(s)) for s, path in images.items() if part == "test" or s in labels
    ]
    return found


def files(folder: Path) -> dict[str, Path]:
    """NIfTI files by name without suffix; macOS leaves others, whose names begin with ``._``."""
    if not folder.is_dir():
        return {}
    paths = (p for p in folder.iterdir() if re.fullmatch(r"[^.].*\.nii(\.gz)?", p.name))
    return {stem(path): path for path in sorted(paths)}


def stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name)


def header_problems(case: Case, channels: tuple[str, ...], chosen: bool) -> list[str]:
    """What is wrong with the shapes and geometry of one case; the voxels are not read."""
    try:
        image = nifti.header(case.image)
        label = nifti.header(case.label) if case.label else None
    except ValueError as error:
        return [str(error)]
    shape = image.shape
    if len(shape) not in (3, 4):
        return [f"{case.image.name} must be 3-D or 4-D, got {len(shape)}-D {shape}"]
    if len(shape) == 4 and shape[3] > 1 and not chosen:
        listed = ", ".join(f"{at} {name}" for at, name in enumerate(channels))
        return [f"{case.image.name} is 4-D, {shape}: give channel=, one of {listed} or 'all'"]
    n = shape[3] if len(shape) == 4 else 1
    if n != len(channels) and (chosen or n > 1):
        return [f"{case.image.name} has {n} channels, expected are {', '.join(channels)}"]
    if label is not None and label.shape != shape[:3]:
        return [f"{case.label.name} has the shape {label.shape}, its image {shape[:3]}"]
    problem = nifti.geometry_problem(case.image, image)
    return [problem] if problem else []


def read(
    case: Case, labels: dict[int, str], channel: int | str | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Image ``(C,D,H,W)`` float32 and label ``(D,H,W)`` int64 or None.

    Raises:
        ValueError: damaged files, values that are not finite, labels that the table lacks.
    """
    header = nifti.header(case.image)
    if header.ndim == 3:
        planes = [nifti.voxels(case.image)]
    elif channel == "all":
        planes = list(np.moveaxis(nifti.voxels(case.image), 3, 0))
    else:
        planes = [nifti.voxels(case.image, channel or 0)]
    image = np.stack([nifti.to_axes(p, header.affine).astype(np.float32) for p in planes])
    if not np.isfinite(image).all():
        raise ValueError(f"{case.image.name} must be finite, it holds NaN or infinity")
    if case.label is None:
        return image, None
    label = nifti.voxels(case.label)
    wrong = np.setdiff1d(label, list(labels))
    if len(wrong):
        raise ValueError(
            f"{case.label.name} must hold the labels {sorted(labels)}, got {wrong[:5].tolist()}"
        )
    return image, nifti.to_axes(label, header.affine).astype(np.int64)


def number(cases: list[Case], index: int) -> int:
    """The number in a case's name; its place in the list where numbers are absent or repeated."""
    found = [re.search(r"(\d+)$", case.id) for case in cases]
    numbers = [int(match[1]) for match in found if match]
    return numbers[index] if len(set(numbers)) == len(cases) else index


def channel_number(channel: int | str | None, channels: tuple[str, ...]) -> int | str | None:
    """The place of a channel that was given by place or name; "all" and None stay.

    Raises:
        ValueError: there is no such channel.
    """
    if channel in (None, "all"):
        return channel
    names = [name.lower() for name in channels]
    if isinstance(channel, str) and channel.lower() in names:
        return names.index(channel.lower())
    if type(channel) is int and 0 <= channel < len(names):
        return channel
    listed = ", ".join(f"{at} {name}" for at, name in enumerate(channels))
    raise ValueError(f"channel: {channel!r} is none of {listed} or 'all'")


def option_problems(
    found: Found, binary: bool | Sequence[int], channel: int | str | None
) -> list[str]:
    """Why ``binary`` and ``channel`` do not fit the task."""
    problems = []
    merged = () if isinstance(binary, bool) else set(binary) or {None}
    if not set(merged) <= set(found.labels) - {0}:
        problems.append(f"binary: {binary!r} are not labels of {found.task}: {found.labels}")
    try:
        channel_number(channel, found.channels)
    except ValueError as error:
        problems.append(str(error))
    return problems
