"""Sunnybrook Cardiac Data as pairs of PNG images: short-axis cine MR with the LV's cavity."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medseg_core import checks
from medseg_core.datasets.grey import read_grey
from medseg_core.datasets.preprocess import centre_of_mass, scale_percentile
from medseg_core.datasets.report import Report, content_line, folder_problem
from medseg_core.datasets.samples import checked_index, checked_indices, on_grid
from medseg_core.stacking import stack

LV = 3  # ACDC's number, which the phantom has too
PARTS = ("Train", "Test")
NAME = re.compile(r"(SC-(HF-I|HF-NI|HYP|N)-(\d+))-IM-\d+-(\d+)(?:\.dcm)?\.png")
PATHOLOGY = {
    "HF-I": "heart failure with infarction",
    "HF-NI": "heart failure without infarction",
    "HYP": "hypertrophy",
    "N": "normal",
}
PHASES_PER_SLICE = 20  # of every cine in this data set; the first starts at the R wave

LAYOUT = """
ROOT/Train|Test/
    Images/.../SC-HF-I-01-IM-0001-0048.dcm.png  8-bit grey (or R = G = B)
    Labels/.../SC-HF-I-01-IM-0001-0048.dcm.png  the same name; 255 in the LV's cavity, else 0
"""
WHERE = "https://github.com/mshunshin/SegNetCMR, folder Data (PNG pairs)"
LICENCE = "CC0 1.0 (images and contours), MIT (conversion); cite Radau et al., MIDAS Journal 2009"


@dataclass(frozen=True)
class _Pair:
    part: str
    patient: str
    pathology: str  # HF-I, HF-NI, HYP or N
    group: int
    number: int
    image: Path
    label: Path


class SunnybrookPNG:
    """Read pairs of PNG files of the Sunnybrook Cardiac Data.

    One sample is one slice at end-diastole or end-systole; ``group`` is the patient, and patients
    are to be split (`splits.group_split`). The conversion to PNG lost the pixel size: ``spacing``
    counts pixels of the published images (``spacing_unit`` is "px"), and so do all lengths. Only
    the LV's cavity is annotated: myocardium and RV are 0 in ``label``. Taught in the chapter
    `edpcnn`.

    Args:
        root: the folder that holds ``Train/`` and/or ``Test/``.
        part: "Train", "Test", or None for all there is.

    ``reader[i]`` gives ``image (1,1,H,W)`` float32 in [0, 1] (grey value / 255), ``label (1,H,W)``
    int64 with 3 for the LV, ``spacing``, ``spacing_unit``, ``group (1,)``, ``phase_name``,
    ``centre (1,2)`` of the LV in pixels, ``slice (1,)`` (counted within the examination),
    ``patient`` (the published name; ``group`` is its number, plus 100 for HF-NI, 200 for HYP, 300
    for N) and ``pathology``. Slice and phase come from the image's
    number: 20 phases per slice, diastole within 4 of the R wave, which the names do not say.
    """

    def __init__(self, root: str | Path, *, part: str | None = None) -> None:
        if part is not None:
            checks.choice(part, "part", PARTS)
        self.root, self.part = Path(root).expanduser(), part
        self._index: list[_Pair] | None = None

    def check(self, *, pixels: bool = False) -> Report:
        """Say what is there and what is not; never raises (`Report.require` does).

        Args:
            pixels: read every image too, which finds damaged or coloured files early.
        """
        return self._scan(pixels)[1]

    def __len__(self) -> int:
        return len(self._pairs())

    def __getitem__(self, index: int) -> dict:
        pairs = self._pairs()
        pair = pairs[checked_index(index, len(pairs))]
        image, label = _read(pair)
        at, phase = divmod(pair.number - 1, PHASES_PER_SLICE)
        label = torch.from_numpy(label)[None]  # (1, H, W)
        return {
            "image": torch.from_numpy(image)[None, None],  # (1, 1, H, W)
            "label": label,
            "spacing": (1.0, 1.0),
            "spacing_unit": "px",
            "group": torch.tensor([pair.group]),
            "phase_name": ["ED" if min(phase, PHASES_PER_SLICE - phase) <= 4 else "ES"],
            "slice": torch.tensor([at]),
            "centre": centre_of_mass(label, LV),
            "patient": [pair.patient],
            "pathology": [PATHOLOGY[pair.pathology]],
        }

    def load(
        self,
        indices: Iterable[int] | None = None,
        *,
        size: int | Sequence[int] | None = None,
        spacing: float | Sequence[float] | None = None,
        percentiles: tuple[float, float] | None = (1.0, 99.0),
    ) -> dict:
        """Slices on one grid, stacked like a phantom.

        ``spacing`` merges pixels and ``size`` cuts (or fills up) about the IMAGE's centre, never
        about the truth. size=64, spacing=2 keeps the middle 128 of 256 pixels and gives radii of
        5 to 14 pixels, the phantom's at 64 pixels.

        Args:
            indices: which slices, in this order; None: all.
            size: pixels, or (rows, columns).
            spacing: pixels of the published image per pixel, or (row, column).
            percentiles: of the slice as loaded that become 0 and 1 (the rest is clipped), since
                fat makes a few pixels bright; None keeps grey value / 255.
        """
        wanted = range(len(self)) if indices is None else indices
        data = stack(
            [
                on_grid(self[i], size, spacing, centre_value=LV)
                for i in checked_indices(wanted, len(self))
            ]
        )
        if percentiles is not None:
            data["image"] = scale_percentile(data["image"], None, *percentiles)
        return data

    def _pairs(self) -> list[_Pair]:
        if self._index is None:
            pairs, report = self._scan()
            report.require()
            self._index = pairs
        return self._index

    def _scan(self, pixels: bool = False) -> tuple[list[_Pair], Report]:
        pairs, missing, hint = _find(self.root, self.part)
        if pixels:
            missing = missing + [problem for problem in map(_problem, pairs) if problem]
        found = []
        for part in dict.fromkeys(p.part for p in pairs):
            n = Counter(p.patient for p in pairs if p.part == part).values()
            found.append(
                f"{part}: {sum(n)} pairs of {len(n)} patients, {min(n)} to {max(n)} of each"
            )
        if not pairs and not folder_problem(self.root):
            found = [content_line(self.root)]
        name = "Sunnybrook Cardiac Data (PNG)"
        return pairs, Report(name, self.root, LAYOUT, WHERE, LICENCE, found, missing, hint)


def _find(root: Path, part: str | None) -> tuple[list[_Pair], list[str], str]:
    """The pairs, what is wrong, and which folder was probably meant."""
    problem = folder_problem(root)
    if problem:
        return [], [problem], ""
    parts = [name for name in PARTS if (root / name).is_dir() and part in (None, name)]
    if not parts:
        wanted = f"{part}/" if part else "Train/ and Test/: neither is there"
        return [], [wanted], _meant(root)
    pairs: list[_Pair] = []
    missing: list[str] = []
    for name in parts:
        images, labels = (_files(root / name / kind, missing) for kind in ("Images", "Labels"))
        missing += [f"{name}/Labels: no {stem}" for stem in sorted(images.keys() - labels.keys())]
        missing += [f"{name}/Images: no {stem}" for stem in sorted(labels.keys() - images.keys())]
        for stem in sorted(images.keys() & labels.keys()):
            patient, pathology, n, number = NAME.fullmatch(stem).groups()
            group = 100 * list(PATHOLOGY).index(pathology) + int(n)
            files = images[stem], labels[stem]
            pairs.append(_Pair(name, patient, pathology, group, int(number), *files))
        if not images and not labels:
            missing.append(f"{name}/: no image at all")
    sides = defaultdict(set)
    for pair in pairs:
        sides[pair.patient].add(pair.part)
    missing += [f"{name} is in Train/ and in Test/" for name, s in sides.items() if len(s) > 1]
    return pairs, missing, ""


def _files(folder: Path, missing: list[str]) -> dict[str, Path]:
    """The PNG files below ``folder`` by name; what is odd about them goes to ``missing``."""
    at = f"{folder.parent.name}/{folder.name}"
    if not folder.is_dir():
        missing.append(f"{at}/: there is no such folder")
        return {}
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("[!.]*.png")):
        if not NAME.fullmatch(path.name):
            missing.append(f"{at}: {path.name} is not named like SC-HF-I-01-IM-0001-0048.dcm.png")
        elif path.name in files:
            missing.append(f"{at}: {path.name} is there twice")
        else:
            files[path.name] = path
    return files


def _meant(root: Path) -> str:
    """The folder above or below ``root`` that has the layout."""
    for path in sorted((*root.glob("*/T*/Images"), *root.glob("*/*/T*/Images"))):
        if path.parent.name in PARTS:
            return f"the folder below, {path.parent.parent}"
    for folder in (root.resolve(), root.resolve().parent):
        if folder.name in PARTS:
            return f"the folder above, {folder.parent}"
    return ""


def _read(pair: _Pair) -> tuple[np.ndarray, np.ndarray]:
    """Image in [0, 1] and label, both (H, W)."""
    image, label = read_grey(pair.image), read_grey(pair.label)
    if image.shape != label.shape:
        raise ValueError(
            f"{pair.label.name}: the label has shape {label.shape}, its image {image.shape}"
        )
    values = np.unique(label)
    if not np.isin(values, (0, 255)).all():
        raise ValueError(
            f"{pair.label.name}: a label must hold 0 and 255, got {values[:6].tolist()}"
        )
    return image.astype(np.float32) / 255, np.where(label > 0, LV, 0).astype(np.int64)


def _problem(pair: _Pair) -> str:
    try:
        _read(pair)
    except ValueError as error:
        return str(error)
    return ""
