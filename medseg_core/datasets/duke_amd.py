"""Duke's OCT volumes of eyes with and without AMD: ILM, RPEDC and BM by hand (Farsiu 2014)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from medseg_core import checks
from medseg_core.datasets.bscans import bscan, on_bscan_grid
from medseg_core.datasets.duke_amd_files import (
    GROUPS,
    NAME,
    SURFACES,
    Volume,
    key,
    read,
    read_volume,
)
from medseg_core.datasets.report import Report, content_line, folder_problem
from medseg_core.datasets.samples import checked_index, checked_indices
from medseg_core.stacking import stack

# Volumes (AMD, Control) per part, after Liefers et al. 2019.
SPLIT = {"train": (159, 5), "validation": (10, 10), "test": (100, 100)}

LAYOUT = """
ROOT/, in any folder below it:
    Farsiu_Ophthalmology_2013_AMD_Subject_1001.mat, or AMD_1001.mat
        images     (512, 1000, 100): row, column, B-scan; 8-bit grey
        layerMaps  (100, 1000, 3): B-scan, column, surface (ILM, RPEDC, BM); rows counted from 1,
                   NaN outside the region that was annotated
        Age        years
    Farsiu_Ophthalmology_2013_Control_Subject_1001.mat, or Control_1001.mat
"""
WHERE = "https://people.duke.edu/~sf59/RPEDC_Ophth_2013_dataset.htm (269 AMD and 115 normal eyes)"
LICENCE = "see the site; cite Farsiu et al., Ophthalmology 2014, 121(1):162-172"


class DukeAMD:
    """Read the Duke AMD data, one MATLAB file per eye.

    One sample is one B-scan; ``group`` is the person. The paper of `selected-dimensions-oct`
    counts in pixels, whose size the files do not hold: ``spacing`` is in pixels
    (``spacing_unit`` is "px"). RPEDC is the complex's upper border. Taught in that chapter.

    Args:
        root: the folder that holds the files, in sub-folders or not.
        annotated_only: leave out the B-scans without a single annotated column.
        exclude: eyes to leave out, such as ("Control_1088",), e.g. because a file is damaged.
        first_row: what layerMaps calls the first row; MATLAB counts from 1, and the site does not
            say otherwise.

    ``reader[i]`` gives the whole B-scan: ``image (1,1,H,W)`` in [0, 1], ``surfaces (1,3,W)`` rows,
    ``surface_names``, ``valid (1,W)``: columns in which all three are annotated, ``label (1,H,W)``
    (`bscans.bscan`), ``top (1,W)`` zeros, ``spacing``, ``spacing_unit``, ``slice (1,)``,
    ``group (1,)`` (10 000 is added for controls), ``amd (1,)`` bool, ``age_years (1,)`` and
    ``patient``.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        annotated_only: bool = True,
        exclude: Sequence[str] = (),
        first_row: int = 1,
    ) -> None:
        checks.choice(first_row, "first_row", (0, 1))
        if isinstance(exclude, str):
            raise ValueError(f"exclude must be a sequence of names, got the text {exclude!r}")
        for name in exclude:
            if not NAME.fullmatch(f"{name}.mat"):
                raise ValueError(f"exclude must hold names such as 'Control_1088', got {name!r}")
        self.root, self.annotated_only = Path(root).expanduser(), annotated_only
        self.exclude, self.first_row = {key(f"{name}.mat") for name in exclude}, first_row
        self._index: list[tuple[Volume, int]] | None = None
        self._open: tuple[Path, tuple] | None = None  # the volume read last

    def check(self, *, pixels: bool = False) -> Report:
        """Say what is there and what is not; never raises (`Report.require` does).

        Args:
            pixels: read every volume too, which finds damaged files early (minutes).
        """
        return self._scan(pixels)[1]

    def __len__(self) -> int:
        return len(self._bscans())

    def __getitem__(self, index: int) -> dict:
        volume, at = self._bscans()[checked_index(index, len(self))]
        images, layers = self._read(volume)
        image = torch.from_numpy(images[at] / np.float32(255))[None, None]  # (1, 1, H, W)
        surfaces = torch.from_numpy(layers[at].T - self.first_row).float()[None]  # (1, 3, W)
        amd = volume.group == "AMD"
        sample = bscan(image, surfaces, (1.0, 1.0)) | {
            "surface_names": SURFACES,
            "spacing_unit": "px",
            "slice": torch.tensor([at]),
            "group": torch.tensor([volume.number + 10_000 * (not amd)]),
            "amd": torch.tensor([amd]),
            "age_years": torch.tensor([volume.age]),
            "patient": [f"{volume.group}_{volume.number}"],
        }
        return on_bscan_grid(sample, None, None)

    def load(
        self,
        indices: Iterable[int] | None = None,
        *,
        size: int | Sequence[int | None] | None = None,
        spacing: float | Sequence[float] | None = None,
        flatten: bool = False,
    ) -> dict:
        """B-scans on one grid, stacked like a phantom; the paper has size=(512, 1024).

        Columns are cut or filled up about the middle; those added are 0 and not valid.

        Args:
            indices: which B-scans, in this order; None: all.
            size: (rows, columns); fewer rows are cut around the retina, found in the image alone.
            spacing: published pixels per pixel, or (row, column): 8 gives 64 rows of 512.
            flatten: let the rows that are cut follow the retina; ``top`` says how.
        """
        wanted = range(len(self)) if indices is None else indices
        wanted = checked_indices(wanted, len(self))
        samples = {}
        for i in sorted(set(wanted)):  # in the order of the files: each volume is read once
            samples[i] = on_bscan_grid(self[i], size, spacing, flatten=flatten)
        return stack([samples[i] for i in wanted])

    def split(
        self, sizes: Mapping[str, tuple[int, int]] | None = None
    ) -> tuple[list[int], list[int], list[int]]:
        """Indices for training, validation and test, in volumes of the paper's numbers.

        The paper does not say which eyes are in which part. Here they follow one another by
        number: the first 159 AMD and 5 normal eyes train, the next 10 and 10 validate, then 100
        and 100 test.

        Args:
            sizes: volumes (AMD, Control) of "train", "validation" and "test"; None: `SPLIT`.

        Raises:
            ValueError: there are fewer volumes than that.
        """
        sizes = dict(SPLIT if sizes is None else sizes)
        if sizes.keys() != SPLIT.keys():
            raise ValueError(f"sizes must have the keys {list(SPLIT)}, got {list(sizes)}")
        part_of: dict[tuple[str, int], str] = {}
        for at, group in enumerate(GROUPS):
            numbers = sorted({v.number for v, _ in self._bscans() if v.group == group})
            parts = [part for part in SPLIT for _ in range(sizes[part][at])]
            if len(numbers) < len(parts):
                raise ValueError(
                    f"the split {sizes} needs {len(parts)} {group} volumes, there are "
                    f"{len(numbers)}"
                )
            part_of |= {(group, n): part for n, part in zip(numbers, parts, strict=False)}
        indices: dict[str, list[int]] = {part: [] for part in SPLIT}
        for at, (volume, _) in enumerate(self._bscans()):
            part = part_of.get((volume.group, volume.number))
            if part:
                indices[part].append(at)
        return tuple(indices.values())

    def _bscans(self) -> list[tuple[Volume, int]]:
        if self._index is None:
            volumes, report = self._scan()
            report.require()
            index = [(v, at) for v in volumes for at in range(len(v.annotated))]
            if self.annotated_only:
                index = [(v, at) for v, at in index if v.annotated[at]]
            if not index:
                raise ValueError(f"{self.root}: no B-scan has an annotated column")
            self._index = index
        return self._index

    def _read(self, volume: Volume) -> tuple[np.ndarray, np.ndarray]:
        """B-scans (B, H, W) and surfaces (B, W, 3) of a volume."""
        if self._open is None or self._open[0] != volume.path:
            self._open = (volume.path, read(volume.path))
        return self._open[1]

    def _scan(self, pixels: bool = False) -> tuple[list[Volume], Report]:
        volumes: dict[tuple[str, int], Volume] = {}
        problem = folder_problem(self.root)
        missing, found = ([problem], []) if problem else ([], [content_line(self.root)])
        for path in [] if problem else sorted(self.root.rglob("[!.]*.mat")):
            if not NAME.fullmatch(path.name):
                missing.append(f"{path.name} is not named like AMD_1001.mat or Control_1001.mat")
                continue
            eye = key(path.name)
            if eye in self.exclude:
                continue
            if eye in volumes:
                missing.append(f"{eye[0]}_{eye[1]} is there twice: {path.name}")
                continue
            try:
                volumes[eye] = read_volume(path)
                if pixels:
                    read(path)
            except (ValueError, ImportError) as error:
                missing.append(str(error))
        if not volumes and not missing:
            missing.append("no file is named like AMD_1001.mat or Control_1001.mat")
        if volumes:
            found = []
            for group in GROUPS:
                mine = [v for v in volumes.values() if v.group == group]
                annotated = sum(int(v.annotated.sum()) for v in mine)
                found.append(f"{group}: {len(mine)} volumes, {annotated} annotated B-scans")
        report = Report("Duke AMD", self.root, LAYOUT, WHERE, LICENCE, found, missing)
        return [volumes[eye] for eye in sorted(volumes)], report
