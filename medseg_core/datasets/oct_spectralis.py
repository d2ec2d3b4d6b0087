"""B-scans of a Heidelberg Spectralis with the surfaces that the device itself drew."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medseg_core.datasets.bscans import bscan, on_bscan_grid
from medseg_core.datasets.grey import read_grey
from medseg_core.datasets.report import Report, content_line, folder_problem
from medseg_core.datasets.samples import checked_index, checked_indices
from medseg_core.stacking import stack

NAME = re.compile(r"(?P<scan>.+)_(?P<bscan>\d+)")  # of a B-scan, without its ending
NEEDED = ("layers", "names", "scale_mm")
CIRCULAR = 2  # scan_pattern of a circle around the optic nerve: its columns are periodic

LAYOUT = """
ROOT/
    PATIENT_2_0.png         B-scan 0 of scan 2, 8-bit grey: reflectivity^(1/4)
    PATIENT_2_0_layers.npz  layers (L, W): rows, NaN where the device found none; names (L,);
                            scale_mm (column, slice, row); scan_pattern
    PATIENT_2_slo.png       the fundus image of the scan (needed with slo=True)
"""
WHERE = "an export of your own device; samples: https://github.com/halirutan/spectralis-raw-data"
LICENCE = "your own; the samples: MIT, cite the repository. The surfaces are automatic, not truth"


@dataclass(frozen=True)
class _File:
    stem: str
    scan: str
    number: int
    group: int
    image: Path

    @property
    def layers(self) -> Path:
        return self.image.with_name(f"{self.stem}_layers.npz")

    @property
    def slo(self) -> Path:
        return self.image.with_name(f"{self.scan}_slo.png")


class SpectralisExport:
    """Read exported B-scans of a Heidelberg Spectralis with the device's own surfaces.

    One sample is one B-scan; ``group`` counts the patients, by name. The surfaces (ILM, RNFL and
    BM, where the device found them) are automatic: real curves to try a method on, no reference
    standard. Taught in the chapter `ipm-surfaces`.

    Args:
        root: the folder that holds the images.
        slo: also give the fundus image, ``slo (1,1,h,w)`` in [0, 1].

    ``reader[i]`` gives the whole B-scan: ``image (1,1,H,W)`` in [0, 1] (grey value / 255),
    ``surfaces (1,L,W)`` rows, from the top one down, ``surface_names``, ``valid (1,L,W)``: where
    the device drew that surface, ``label (1,H,W)`` (`bscans.bscan`), ``top (1,W)`` zeros,
    ``spacing`` mm (row, column), ``slice (1,)``, ``group (1,)``, ``circular (1,)`` bool: a circle
    around the optic nerve, ``patient`` and ``scan``.
    """

    def __init__(self, root: str | Path, *, slo: bool = False) -> None:
        self.root, self.slo = Path(root).expanduser(), slo
        self._index: list[_File] | None = None

    def check(self) -> Report:
        """Say what is there and what is not, reading every file; never raises."""
        return self._scan()[1]

    def __len__(self) -> int:
        return len(self._files())

    def __getitem__(self, index: int) -> dict:
        files = self._files()
        file = files[checked_index(index, len(files))]
        image, layers, names, scale_mm, pattern = _read(file)
        image = torch.from_numpy(image)[None, None]  # (1, 1, H, W)
        layers = torch.from_numpy(layers)[None]  # (1, L, W)
        sample = bscan(image, layers, (scale_mm[2], scale_mm[0]), per_surface=True) | {
            "surface_names": names,
            "slice": torch.tensor([file.number]),
            "group": torch.tensor([file.group]),
            "circular": torch.tensor([pattern == CIRCULAR]),
            "patient": [_patient(file.scan)],
            "scan": [file.scan],
        }
        if self.slo:
            sample["slo"] = torch.from_numpy(read_grey(file.slo) / np.float32(255))[None, None]
        return on_bscan_grid(sample, None, None)

    def load(
        self,
        indices: Iterable[int] | None = None,
        *,
        size: int | Sequence[int | None] | None = None,
        spacing: float | Sequence[float] | None = None,
        flatten: bool = True,
    ) -> dict:
        """B-scans on one grid, stacked like a phantom; surfaces and ``valid`` move alongside.

        Args:
            indices: which B-scans, in this order; None: all.
            size: (rows, columns); rows are cut around the retina, which is found in the image
                alone, columns about the middle; None keeps them.
            spacing: mm per pixel, or (row, column), to which image and surfaces are resampled.
            flatten: let the rows follow the retina's tilt and curvature; ``top`` says how.
        """
        wanted = range(len(self)) if indices is None else indices
        wanted = checked_indices(wanted, len(self))
        return stack([on_bscan_grid(self[i], size, spacing, flatten=flatten) for i in wanted])

    def _files(self) -> list[_File]:
        if self._index is None:
            files, report = self._scan()
            report.require()
            self._index = files
        return self._index

    def _scan(self) -> tuple[list[_File], Report]:
        files: list[_File] = []
        problem = folder_problem(self.root)
        missing = [problem] if problem else []
        if not problem:
            files = self._find(missing)
            for file in files:
                try:
                    _read(file)
                    if self.slo:
                        read_grey(file.slo)
                except ValueError as error:
                    missing.append(str(error))
        found = [] if problem else [content_line(self.root)]
        if files:
            scans, patients = {f.scan for f in files}, {f.group for f in files}
            found = [f"{len(files)} B-scans of {len(scans)} scans, {len(patients)} patients"]
        report = Report("Spectralis export", self.root, LAYOUT, WHERE, LICENCE, found, missing)
        return files, report

    def _find(self, missing: list[str]) -> list[_File]:
        matches = {}
        for path in sorted(self.root.glob("[!.]*.png")):
            match = NAME.fullmatch(path.stem)
            if match:
                matches[path] = match
            elif not path.stem.endswith("_slo"):
                missing.append(f"{path.name} is not named like PATIENT_2_0.png")
        patients = sorted({_patient(match["scan"]) for match in matches.values()})
        files = [
            _File(path.stem, m["scan"], int(m["bscan"]), patients.index(_patient(m["scan"])), path)
            for path, m in matches.items()
        ]
        files.sort(key=lambda file: (file.scan, file.number))
        missing += [
            f"no {f.layers.name} for {f.image.name}" for f in files if not f.layers.exists()
        ]
        if self.slo:
            slos = dict.fromkeys(f.slo for f in files)
            missing += [f"no {slo.name} (slo=True)" for slo in slos if not slo.exists()]
        stems = {file.stem for file in files}
        for path in sorted(self.root.glob("[!.]*_layers.npz")):
            if path.name.removesuffix("_layers.npz") not in stems:
                missing.append(f"{path.name} has no image")
        if not files and not missing:
            missing.append("no B-scan: no file is named like PATIENT_2_0.png")
        return [f for f in files if f.layers.exists() and (f.slo.exists() or not self.slo)]


def _patient(scan: str) -> str:
    """The scan's name without the scan's number."""
    return re.sub(r"_\d+$", "", scan)


def _read(file: _File) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], np.ndarray, int]:
    """Image (H, W), layers (L, W) from the top down, their names, mm, scan pattern."""
    image = read_grey(file.image) / np.float32(255)
    at = file.layers.name
    try:
        with np.load(file.layers) as data:  # allow_pickle is off: nothing of the file is executed
            absent = [key for key in NEEDED if key not in data]
            if absent:
                raise ValueError(f"it has no {', '.join(absent)}, only {sorted(data)}")
            layers, names, scale_mm = (data[key] for key in NEEDED)
            pattern = int(data["scan_pattern"]) if "scan_pattern" in data else 0
    except (ValueError, TypeError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{at} cannot be read: {error}") from error
    if layers.ndim != 2 or layers.dtype.kind != "f" or layers.shape[1] != image.shape[1]:
        raise ValueError(
            f"{at}: layers must be floats (L, {image.shape[1]}) as the image has columns, got "
            f"{layers.dtype}{layers.shape}"
        )
    if names.shape != layers.shape[:1] or names.dtype.kind != "U" or not len(names):
        raise ValueError(f"{at}: names must be {len(layers)} texts, got {names.tolist()}")
    if scale_mm.shape != (3,) or not (scale_mm[[0, 2]] > 0).all():
        raise ValueError(f"{at}: scale_mm must be (column, slice, row) in mm, got {scale_mm}")
    known = np.isfinite(layers)
    if not known.any(axis=1).all():
        empty = [str(n) for n, row in zip(names, known, strict=True) if not row.any()]
        raise ValueError(f"{at}: no column of {', '.join(empty)} is known")
    outside = known & ((layers < -0.5) | (layers > len(image) - 0.5))
    if outside.any():
        which, column = np.argwhere(outside)[0]
        raise ValueError(
            f"{at}: {names[which]} lies at row {layers[which, column]:g} in column {column}, "
            f"outside the image's {len(image)} rows"
        )
    order = np.argsort([np.median(row[k]) for row, k in zip(layers, known, strict=True)])
    names = tuple(str(name) for name in names[order])
    return image, layers[order].astype(np.float32), names, scale_mm, pattern
