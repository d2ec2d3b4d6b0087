"""CAMUS: two- and four-chamber echocardiography with labels at ED and ES (Leclerc 2019)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from medseg_core import checks
from medseg_core.datasets import camus_files as files
from medseg_core.datasets.camus_files import ATRIUM, LV, MYOCARDIUM, PHASES, ROWS, VIEWS, Frame
from medseg_core.datasets.preprocess import crop_or_pad, resample_labels
from medseg_core.datasets.report import Report, content_line
from medseg_core.datasets.samples import checked_index, checked_indices, on_grid, pair
from medseg_core.datasets.splits import group_split
from medseg_core.stacking import stack

TARGETS = {
    "lv": (LV,),
    "myocardium": (MYOCARDIUM,),
    "epicardium": (LV, MYOCARDIUM),  # all within the LV's outer border
    "atrium": (ATRIUM,),
}
LAYOUT = """
ROOT/[training/|database_nifti/]
    patient0001/
        patient0001_2CH_ED.nii.gz       the image, 2-D (x, y), grey values 0 … 255
        patient0001_2CH_ED_gt.nii.gz    0 background, 1 LV cavity, 2 myocardium, 3 left atrium
        patient0001_2CH_ES.nii.gz       and its _gt; 4CH likewise
        Info_2CH.cfg                    ImageQuality: Good, Age: 56, … (need not be there)
    patient0002/ ...
older releases: .mhd with .raw instead of .nii.gz (read by SimpleITK)
"""
WHERE = "https://www.creatis.insa-lyon.fr/Challenge/camus/ (500 patients)"
LICENCE = "see the terms on the page above; cite Leclerc et al., IEEE TMI 2019, 38(9):2198-2210"


class CAMUS:
    """Read CAMUS from the folder in which its archive was unpacked.

    One sample is one frame; ``group`` is the patient, so that ED and ES, 2CH and 4CH of one patient
    stay on one side of a split (`split`). The probe is on top, and with it the heart's apex: the
    file's y axis is assumed to run away from the probe, and `check` looks whether the fan of the
    first image narrows upwards. Left and right stay the file's. Taught in the chapter
    `max-margin-crf`.

    Args:
        root: the folder that holds the patients, or one right above it.
        view: "2CH", "4CH" or "both".
        phase: "ED", "ES" or "both".
        target: what ``mask`` is: "lv" (the cavity), "myocardium", "epicardium" (cavity and
            myocardium), "atrium"; None gives no mask, the labels alone.
        rows: the axis of the file that runs away from the probe: "y", "-y", "x" or "-x".

    ``reader[i]`` gives ``image (1,1,H,W)`` in [0, 1] (grey value / 255), ``label (1,H,W)`` int64,
    ``mask (1,1,H,W)`` bool, ``sector (1,1,H,W)`` bool (pixels that are not 0, holes filled),
    ``spacing`` mm per (row, column), ``group (1,)``, ``view_name``, ``phase_name``, ``quality``
    ("Good", "Medium", "Poor", or "" where no file says) and ``info``, all lines of that file.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        view: str = "2CH",
        phase: str = "both",
        target: str | None = "lv",
        rows: str = "y",
    ) -> None:
        checks.choice(view, "view", (*VIEWS, "both"))
        checks.choice(phase, "phase", (*PHASES, "both"))
        checks.choice(target, "target", (*TARGETS, None))
        self.rows = checks.choice(rows, "rows", tuple(ROWS))
        self.root, self.target = Path(root).expanduser(), target
        self.views = VIEWS if view == "both" else (view,)
        self.phases = PHASES if phase == "both" else (phase,)
        self._index: list[Frame] | None = None

    def check(self, *, pixels: bool = False) -> Report:
        """Say what is there and what is not; never raises (`Report.require` does).

        Args:
            pixels: read every image too, which finds damaged files and fans that do not stand
                upright early.
        """
        return self._scan(pixels)[1]

    def __len__(self) -> int:
        return len(self._frames())

    def __getitem__(self, index: int) -> dict:
        frame = self._frames()[checked_index(index, len(self))]
        image, label, spacing = files.read(frame, self.rows)
        sector = files.sector(image)
        sample = {
            "image": torch.from_numpy(np.ascontiguousarray(image))[None, None],  # (1, 1, H, W)
            "label": torch.from_numpy(np.ascontiguousarray(label))[None],  # (1, H, W)
            "sector": torch.from_numpy(np.ascontiguousarray(sector))[None, None],
            "spacing": spacing,
            "group": torch.tensor([frame.patient]),
            "view_name": [frame.view],
            "phase_name": [frame.phase],
            "quality": [frame.info.get("ImageQuality", "")],
            "info": [dict(frame.info)],
        }
        return self._with_mask(sample)

    def load(
        self,
        indices: Iterable[int] | None = None,
        *,
        size: int | Sequence[int] | None = None,
        spacing: float | Sequence[float] | None = None,
    ) -> dict:
        """Frames on one grid about the images' centres, stacked like a phantom.

        Files differ in size and in mm per pixel: `fit_spacing` gives the spacing with which all of
        them fit. Beyond an image all is 0.

        Args:
            indices: which frames, in this order; None: all.
            size: pixels, or (rows, columns); None keeps each field of view.
            spacing: mm, or (row, column); None keeps each frame's own, which then must agree.
        """
        wanted = checked_indices(range(len(self)) if indices is None else indices, len(self))
        return stack([self._on_grid(self[i], size, spacing) for i in wanted])

    def fit_spacing(self, size: int | Sequence[int]) -> float:
        """The least mm per pixel, alike for rows and columns, with which every frame fits ``size``.

        All frames of the reader count, so that parts of a split get the same grid.
        """
        height, width = pair(size, "size")
        fits = []
        for frame in self._frames():
            (x, y), (mm_x, mm_y) = files.header(frame.image)
            fields = (y * mm_y, x * mm_x) if self.rows.endswith("y") else (x * mm_x, y * mm_y)
            fits.append(max(fields[0] / height, fields[1] / width))
        return max(fits)

    def split(self, fractions: Sequence[float], seed: int = 0) -> list[np.ndarray]:
        """Indices of the parts of a random split by patient, e.g. ``(0.6, 0.2, 0.2)``."""
        return group_split([frame.patient for frame in self._frames()], fractions, seed)

    def _with_mask(self, sample: dict) -> dict:
        if self.target is None:
            return sample
        wanted = torch.tensor(TARGETS[self.target])
        return {**sample, "mask": torch.isin(sample["label"], wanted)[:, None]}

    def _on_grid(
        self,
        sample: dict,
        size: int | Sequence[int] | None,
        spacing: float | Sequence[float] | None,
    ) -> dict:
        out = on_grid(sample, size, spacing, centre_value=LV)
        del out["centre"]  # it would be the truth's
        grid = tuple(out["label"].shape[1:])
        if spacing is None:
            out["sector"] = crop_or_pad(sample["sector"], grid)
        else:
            sector = sample["sector"].long()
            sector = resample_labels(sector, sample["spacing"], out["spacing"], size=grid)
            out["sector"] = sector.bool()
        return self._with_mask(out)

    def _frames(self) -> list[Frame]:
        if self._index is None:
            frames, report = self._scan()
            report.require()
            self._index = frames
        return self._index

    def _scan(self, pixels: bool = False) -> tuple[list[Frame], Report]:
        missing: list[str] = []
        frames: list[Frame] = []
        folders = files.patient_folders(self.root, missing)
        for folder in folders if not missing else ():
            frames += files.frames(folder, self.views, self.phases, missing)
        missing += [text for text in map(files.problem, frames) if text]
        if not missing and not frames:
            missing.append("no patient has labels (patient####_2CH_ED_gt.nii.gz)")
        if not missing:
            looked_at = frames if pixels else frames[:1]
            missing += [text for text in map(self._pixel_problem, looked_at) if text]
        found = self._lines(len(folders), frames)
        if not folders and self.root.is_dir() and any(self.root.iterdir()):
            found = [content_line(self.root)]
        return frames, Report("CAMUS", self.root, LAYOUT, WHERE, LICENCE, found, missing)

    def _lines(self, n_folders: int, frames: list[Frame]) -> list[str]:
        if not frames:
            return []
        patients = {frame.patient: frame.info.get("ImageQuality", "") for frame in frames}
        kinds = Counter("MetaImage" if f.image.suffix == ".mhd" else "NIfTI" for f in frames)
        kind = ", ".join(f"{n} {name}" for name, n in kinds.items())
        quality = Counter(patients.values())
        lines = [
            f"{len(frames)} labelled frames of {len(patients)} patients "
            f"({', '.join(self.views)}; {', '.join(self.phases)}); files: {kind}",
            "image quality: " + ", ".join(f"{n} {q or 'unknown'}" for q, n in quality.items()),
        ]
        if n_folders > len(patients):
            lines.append(f"{n_folders - len(patients)} patients without labels, left out")
        return lines

    def _pixel_problem(self, frame: Frame) -> str:
        try:
            image, _, _ = files.read(frame, "y")
        except (ValueError, ImportError) as error:
            return str(error)
        side = files.probe_side(image)
        if side != self.rows:
            advice = f"give rows={side!r}" if side else "its pixels that are not 0 form no fan"
            return f"{frame.image.name}: the fan does not narrow upwards; {advice}"
        return ""
