"""Where a task of the Medical Segmentation Decathlon lies, and what is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from medseg_core.datasets._msd_tasks import TASKS, is_named, known
from medseg_core.datasets._pairs import Header
from medseg_core.datasets._search import Case
from medseg_core.datasets._text import read_text

# Folders of images and labels, as published and as pairs alone.
FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"))


@dataclass
class Task:
    """A task in the user's folder: what it is and which cases it holds."""

    home: Path
    layout: str
    task: str = ""
    channels: tuple[str, ...] = ()
    labels: dict[int, str] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What was found, for the report."""
        labels = ", ".join(f"{value} {name}" for value, name in self.labels.items())
        modality = f"modality {', '.join(self.channels)}; labels {labels}"
        return [f"{self.task or self.home.name}; layout: {self.layout}", modality, *self.notes]

    def channel(self, asked: int | str | None, missing: list[str]) -> int | None:
        """The place of a channel that was given by place or name; None stays."""
        names = [name.lower() for name in self.channels]
        if isinstance(asked, str) and asked.lower() in names:
            return names.index(asked.lower())
        if asked is not None and not (type(asked) is int and 0 <= asked < len(names)):
            missing.append(f"channel: {asked!r} is none of {self._numbered()}")
        return asked

    def check_channels(self, image: Header, *, asked: bool) -> None:
        """Refuse an image with more channels than one of which none was chosen, or than expected.

        Raises:
            ValueError: that.
        """
        n = image.shape[3] if len(image.shape) == 4 else 1
        if n > 1 and not asked:
            text = f"is 4-D, {image.shape}: give channel=, one of {self._numbered()}"
            raise ValueError(f"{image.path.name} {text}")
        if n != len(self.channels) and (asked or n > 1):
            expected = ", ".join(self.channels)
            raise ValueError(f"{image.path.name} has {n} channels, expected are {expected}")

    def holds(self, labels: Sequence[int]) -> bool:
        """Whether these are some of the task's labels of objects."""
        return bool(labels) and set(labels) <= set(self.labels) - {0}

    def _numbered(self) -> str:
        return ", ".join(f"{at} {name}" for at, name in enumerate(self.channels))


def find(root: Path, task: int | str | None) -> tuple[Task | None, list[str], str]:
    """The task below ``root``, what is wrong, and the folder that was probably meant."""
    missing: list[str] = []
    home = _home(root, task, missing)
    if home is None:
        return None, missing, _hint(root)
    read = _from_json if (home / "dataset.json").is_file() else _from_folders
    found = read(home, task, missing)
    if found:
        if not found.cases and not missing:
            missing.append(f"no training image in {home.name}/")
        for at, case in enumerate(found.cases):
            case.facts["group"] = _number(found.cases, at)
    return found, missing, ""


def _home(root: Path, task: int | str | None, missing: list[str]) -> Path | None:
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
    names = ("dataset.json", *(images for images, _ in FOLDERS))
    return any((folder / name).exists() for name in names)


def _hint(root: Path) -> str:
    """Another folder that the user probably meant."""
    if root.resolve().name in (*sum(FOLDERS, ()), "imagesTs"):
        return f"the folder above, {root.resolve().parent}"
    if root.is_dir():
        for path in sorted(root.glob("*/*/")):
            if _holds_task(path):
                return f"the folder below, {path.parent}"
    return ""


def _from_json(home: Path, task: int | str | None, missing: list[str]) -> Task | None:
    try:
        described = json.loads(read_text(home / "dataset.json"))
        labels = {int(value): str(name) for value, name in described["labels"].items()}
        channels = described["modality"]
        channels = tuple(str(channels[key]) for key in sorted(channels, key=int))
        listed = described["training"]
        pairs = [(e, None) if isinstance(e, str) else (e["image"], e.get("label")) for e in listed]
        pairs = [pair for pair in pairs if not PurePosixPath(pair[0]).name.startswith("._")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        missing.append(
            "dataset.json must hold labels {'0': 'background', …}, modality {'0': 'CT'} and "
            f"training, a list of {{'image': …, 'label': …}}: {what}"
        )
        return None
    name = home.resolve().name
    table = known(name) or known(str(described.get("name", "")))
    found = Task(home, "dataset.json", table.name if table else name, channels, labels)
    if table and set(labels) != set(table.labels):
        found.notes.append(
            f"dataset.json has the labels {labels}, {table.name} as published {table.labels}"
        )
    if described.get("numTraining", len(pairs)) != len(pairs):
        found.notes.append(
            f"dataset.json says numTraining {described['numTraining']} and lists {len(pairs)}"
        )
    for image, label in pairs:
        if label is None:
            missing.append(f"dataset.json names no label for {image}")
            continue
        image, label = (_inside(home, path, missing) for path in (image, label))
        if image and label:
            found.cases.append(_case(image, label))
    _unlisted(home, pairs, found)
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


def _unlisted(home: Path, pairs: list[tuple], found: Task) -> None:
    folder = home / "imagesTr"
    listed = {PurePosixPath(image).name for image, _ in pairs}
    rest = sorted(path.name for path in _files(folder).values() if path.name not in listed)
    if rest:
        found.notes.append(
            f"left out, since dataset.json does not name them: {len(rest)} files in "
            f"{folder.name}/, first {rest[0]}"
        )


def _from_folders(home: Path, task: int | str | None, missing: list[str]) -> Task:
    names = next(folders for folders in FOLDERS if (home / folders[0]).is_dir())
    images, labels = (_files(home / name) for name in names)
    found = Task(home, f"{names[0]}/ and {names[1]}/, no dataset.json")
    table = known(task) if task is not None else known(home.resolve().name)
    if table is None and task is None and images:
        prefix = re.sub(r"_?\d+$", "", next(iter(images))).lower()
        table = next((t for t in TASKS if t.prefix.lower() == prefix), None)
    if table is None and images:
        tasks = ", ".join(t.name for t in TASKS)
        missing.append(
            f"which task is this? Without dataset.json give task=, one of {tasks}; for volumes of "
            "your own write a dataset.json as below"
        )
        return found
    if table:
        found.task, found.channels, found.labels = table.name, table.channels, table.labels
    missing += [f"{names[1]}/: no label for {images[s].name}" for s in images if s not in labels]
    missing += [f"{names[0]}/: no image for {labels[s].name}" for s in labels if s not in images]
    found.cases = [_case(path, labels[s]) for s, path in images.items() if s in labels]
    return found


def _case(image: Path, label: Path) -> Case:
    return Case(_stem(image), "", {}, {"image": image, "label": label})


def _files(folder: Path) -> dict[str, Path]:
    """NIfTI files by name without suffix; macOS leaves others, whose names begin with ``._``."""
    if not folder.is_dir():
        return {}
    paths = (p for p in folder.iterdir() if re.fullmatch(r"[^.].*\.nii(\.gz)?", p.name))
    return {_stem(path): path for path in sorted(paths)}


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name)


def _number(cases: list[Case], index: int) -> int:
    """The number in a case's name; its place in the list where numbers are absent or repeated."""
    found = [re.search(r"(\d+)$", case.id) for case in cases]
    numbers = [int(match[1]) for match in found if match]
    return numbers[index] if len(set(numbers)) == len(cases) else index
