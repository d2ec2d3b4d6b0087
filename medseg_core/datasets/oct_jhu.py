"""JHU retinal OCT: 35 macular volumes of healthy and MS eyes, nine surfaces by hand (He 2019)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from medseg_core import checks
from medseg_core.datasets.bscans import bscan, on_bscan_grid
from medseg_core.datasets.heyex_vol import read_bscan
from medseg_core.datasets.oct_jhu_files import SURFACES, Volume, by_subject, read_volume
from medseg_core.datasets.report import Report, content_line, folder_problem
from medseg_core.datasets.samples import checked_index, checked_indices, pair
from medseg_core.stacking import stack

GROUPS = {"hc": "healthy control", "ms": "multiple sclerosis"}
# He et al.'s split, as they publish it with their preprocessing; the others are the test set.
TRAIN = (*(f"hc{n:02d}" for n in range(9, 15)), *(f"ms{n:02d}" for n in range(13, 22)))
VALIDATION = ("hc09", "ms13", "ms14")  # the people of TRAIN whom they set aside to validate

LAYOUT = """
ROOT/
    vol/hc01_spectralis_macula_v1_s1_R.vol          Heidelberg raw export (HSF-OCT): 49 B-scans
    delineation/hc01_spectralis_macula_v1_s1_R.mat  control_pts: cells (49, surfaces) of (21, 2)
                                                    x, y counted from 1, some columns empty;
                                                    or bd_pts (1024, 49, 9): y in every column
    vol/ms01_...                                    hc01 to hc14 healthy, ms01 to ms21 MS
(folders and endings may differ: vol_glob and mat_glob say where the files are)
"""
WHERE = (
    "https://iacl.ece.jhu.edu, page Resources (35 volumes, OCT_Manual_Delineations-2018_June_29)"
)
LICENCE = "see the site; cite He et al., Data in Brief 2019, doi 10.1016/j.dib.2018.12.073"


class JHUOCT:
    """Read the JHU OCT data from the folder in which its archive was unpacked.

    One sample is one B-scan of a right eye's macula; ``group`` is the person. B-scans without all
    nine surfaces are left out. The truth is rebuilt as its authors do: along the control points of
    each surface a natural cubic spline (uniform in the points' number, constant beyond the last
    one), then no surface above the one before it. Taught in the chapter `ipm-surfaces`.

    Args:
        root: the folder that holds ``vol/`` and ``delineation/``.
        groups: of "hc" (healthy controls) and "ms" (multiple sclerosis).
        crop_rows: rows cut out around the retina, which is found in the image alone
            (`bscans.retina_top`); None keeps all 496.
        flatten: let them follow the retina's tilt and curvature, without which 128 rows do not
            hold every retina. The authors flatten to the lower border; this is our choice of how.
        vol_glob, mat_glob: where the files are, below root; a name begins with its person, "hc01".

    ``reader[i]`` gives ``image (1,1,H,W)`` in [0, 1] (reflectivity^¼, as the device shows it),
    ``surfaces (1,9,W)`` rows of that image, ``surface_names``, ``valid (1,W)``, ``label (1,H,W)``
    (`bscans.bscan`), ``top (1,W)``: the row of the B-scan at which each column was cut,
    ``spacing`` mm (row, column), ``column_mm (1,)``, ``slice_spacing (1,)`` mm, ``slice (1,)``,
    ``group (1,)`` (100 is added for MS), ``ms (1,)`` bool, ``patient`` and ``eye``.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        groups: Sequence[str] = ("hc", "ms"),
        crop_rows: int | None = 128,
        flatten: bool = True,
        vol_glob: str = "**/*.vol",
        mat_glob: str = "**/*.mat",
    ) -> None:
        if isinstance(groups, str) or not groups:
            raise ValueError(f"groups must be a sequence of 'hc' and 'ms', got {groups!r}")
        for group in groups:
            checks.choice(group, "groups", tuple(GROUPS))
        if crop_rows is not None:
            checks.between(crop_rows, "crop_rows", 1, None)
        self.root, self.groups = Path(root).expanduser(), tuple(groups)
        self.crop_rows, self.flatten = crop_rows, flatten
        self._globs = (vol_glob, mat_glob)
        self._index: list[tuple[Volume, int]] | None = None

    def check(self) -> Report:
        """Say what is there and what is not; never raises (`Report.require` does)."""
        return self._scan()[1]

    def __len__(self) -> int:
        return len(self._bscans())

    def __getitem__(self, index: int) -> dict:
        return on_bscan_grid(self._whole(index), (self.crop_rows, None), None, flatten=self.flatten)

    def load(
        self,
        indices: Iterable[int] | None = None,
        *,
        size: int | Sequence[int | None] | None = None,
        spacing: float | Sequence[float] | None = None,
    ) -> dict:
        """B-scans on one grid, stacked like a phantom.

        A column's width in mm depends on the eye's length. Without ``spacing`` nothing is
        resampled: ``spacing`` of the result has the median width and ``column_mm (N,)`` each one's.

        Args:
            indices: which B-scans, in this order; None: all.
            size: (rows, columns), rows cut around the retina, columns about the middle; None
                stands for crop_rows and for all columns.
            spacing: mm per pixel, or (row, column), to which image and surfaces are resampled.
        """
        wanted = range(len(self)) if indices is None else indices
        rows, columns = pair(size, "size") or (None, None)
        samples = [self._whole(i) for i in checked_indices(wanted, len(self))]
        grid = ((self.crop_rows if rows is None else rows, columns), spacing)
        samples = [on_bscan_grid(sample, *grid, flatten=self.flatten) for sample in samples]
        if spacing is None:
            width = statistics.median(sample["spacing"][1] for sample in samples)
            samples = [s | {"spacing": (s["spacing"][0], width)} for s in samples]
        return stack(samples)

    def split(self) -> tuple[list[int], list[int]]:
        """Indices for training and test: He et al.'s 15 (`TRAIN`) and 20 people.

        Raises:
            ValueError: one side would be empty.
        """
        sides: tuple[list[int], list[int]] = ([], [])
        for at, (volume, _) in enumerate(self._bscans()):
            sides[volume.subject not in TRAIN].append(at)
        if not all(sides):
            there = sorted({volume.subject for volume, _ in self._bscans()})
            raise ValueError(f"He et al.'s split leaves one side without a person of {there}")
        return sides

    def _whole(self, index: int) -> dict:
        """A B-scan before it is cut."""
        volume, at = self._bscans()[checked_index(index, len(self))]
        header, subject = volume.header, volume.subject
        image = torch.from_numpy(read_bscan(volume.path, header, at))[None, None]  # (1, 1, H, W)
        surfaces = torch.from_numpy(volume.surfaces[at]).float()[None]  # (1, 9, W)
        return bscan(image, surfaces, (header.row_mm, header.column_mm)) | {
            "surface_names": SURFACES,
            "column_mm": torch.tensor([header.column_mm]),
            "slice_spacing": torch.tensor([header.slice_mm]),
            "slice": torch.tensor([at]),
            "group": torch.tensor([int(subject[2:]) + 100 * (subject[:2] == "ms")]),
            "ms": torch.tensor([subject[:2] == "ms"]),
            "patient": [subject],
            "eye": [header.eye],
        }

    def _bscans(self) -> list[tuple[Volume, int]]:
        if self._index is None:
            volumes, report = self._scan()
            report.require()
            index = [(v, at) for v in volumes for at in v.complete]
            if not index:
                raise ValueError(f"{self.root}: no B-scan has all {len(SURFACES)} surfaces")
            self._index = index
        return self._index

    def _scan(self) -> tuple[list[Volume], Report]:
        volumes: list[Volume] = []
        problem = folder_problem(self.root)
        missing = [problem] if problem else []
        if not problem:
            vols, mats = (by_subject(self.root, glob, self.groups, missing) for glob in self._globs)
            for a, b, kind in ((vols, mats, "delineation (.mat)"), (mats, vols, "volume (.vol)")):
                missing += [f"{subject}: no {kind}" for subject in sorted(a.keys() - b.keys())]
            for subject in sorted(vols.keys() & mats.keys()):
                try:
                    volumes.append(read_volume(subject, vols[subject], mats[subject]))
                except (ValueError, ImportError, OSError) as error:
                    missing.append(str(error))
            if not volumes and not missing:
                missing = [f"{self._globs[0]} and {self._globs[1]}: no file of {self.groups}"]
        report = Report(
            "JHU OCT", self.root, LAYOUT, WHERE, LICENCE, self._found(volumes, problem), missing
        )
        return volumes, report

    def _found(self, volumes: list[Volume], problem: str) -> list[str]:
        found = []
        for group in self.groups:
            mine = [v for v in volumes if v.subject.startswith(group)]
            if mine:
                shapes = sorted({f"{v.header.rows} × {v.header.columns}" for v in mine})
                found.append(
                    f"{group} ({GROUPS[group]}): {len(mine)} volumes, "
                    f"{sum(len(v.complete) for v in mine)} B-scans with all surfaces, "
                    f"{', '.join(shapes)} pixels"
                )
        return found or ([] if problem else [content_line(self.root)])
