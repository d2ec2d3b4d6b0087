"""ACDC: cardiac cine MR with manual labels at end-diastole and end-systole (Bernard 2018)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.datasets import acdc_files as files
from medseg_core.datasets.acdc_files import LV, PARTS, Volume
from medseg_core.datasets.preprocess import centre_of_mass, crop_or_pad, resample_labels, zscore
from medseg_core.datasets.report import Report, content_line
from medseg_core.datasets.samples import checked_index, checked_indices, on_grid, pair
from medseg_core.stacking import stack

LAYOUT = """
ROOT/[training/|testing/]
    patient001/
        Info.cfg                      ED, ES (frame numbers), Group, Height, Weight, NbFrame
        patient001_frame01.nii.gz     the ED volume, 3-D (x, y, slice)
        patient001_frame01_gt.nii.gz  its labels: 0 background, 1 RV, 2 myocardium, 3 LV
        patient001_frame12.nii.gz     the ES volume, and its _gt
    patient002/ ...
"""
WHERE = "https://www.creatis.insa-lyon.fr/Challenge/acdc/ (100 + 50 patients)"
LICENCE = "CC BY-NC-SA 4.0 (see the terms on the page above); cite Bernard et al., IEEE TMI 2018"


class ACDC:
    """Read ACDC from the folder in which its archive was unpacked.

    One sample is one SLICE of a labelled frame; ``group`` is the patient, and patients, not slices,
    are to be split (`split`, `splits.group_split`). Taught in the chapter `edpcnn`.

    Args:
        root: the folder that holds ``training/`` and/or ``testing/``, or the patients themselves.
        part: "training", "testing", or None for all there is.
        phases: which frames, of "ED" and "ES".
        lv_only: leave out slices without a left ventricle, as the paper of `edpcnn` does.

    ``reader[i]`` gives the slice as it was stored: ``image (1,1,H,W)`` float32 in the scanner's
    units, ``label (1,H,W)`` int64, ``spacing`` (mm), ``group (1,)`` the patient's number,
    ``phase_name``, ``centre (1,2)`` of the LV in pixels (NaN without one), and beside the phantom's
    keys ``slice (1,)`` its index in the volume, ``slice_spacing (1,)`` mm from slice to slice,
    ``pathology`` ("NOR", "MINF", "DCM", "HCM", "RV") and ``person`` (height_cm, weight_kg,
    n_frames). Rows run along the file's second axis, columns along its first.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        part: str | None = None,
        phases: Sequence[str] = ("ED", "ES"),
        lv_only: bool = False,
    ) -> None:
        if part is not None:
            checks.choice(part, "part", PARTS)
        if isinstance(phases, str) or not phases:
            raise ValueError(f"phases must be a sequence of 'ED' and 'ES', got {phases!r}")
        for phase in phases:
            checks.choice(phase, "phases", ("ED", "ES"))
        self.root, self.part = Path(root).expanduser(), part
        self.phases, self.lv_only = tuple(phases), lv_only
        self._index: list[tuple[Volume, int]] | None = None
        self._open: tuple[Volume, tuple] | None = None  # the volume read last

    def check(self, *, voxels: bool = False) -> Report:
        """Say what is there and what is not; never raises (`Report.require` does).

        Args:
            voxels: read every volume too, which finds damaged files and wrong label values early.
        """
        return self._scan(voxels)[1]

    def __len__(self) -> int:
        return len(self._slices())

    def __getitem__(self, index: int) -> dict:
        volume, at = self._slices()[checked_index(index, len(self))]
        image, label, spacing = self._read(volume)
        in_plane = (spacing[0], spacing[1])
        plane = torch.from_numpy(label[at].copy())[None]  # (1, H, W)
        return {
            "image": torch.from_numpy(image[at].copy())[None, None],  # (1, 1, H, W)
            "label": plane,
            "spacing": in_plane,
            "slice_spacing": torch.tensor([spacing[2]]),
            "group": torch.tensor([volume.patient]),
            "phase_name": [volume.phase],
            "slice": torch.tensor([at]),
            "centre": centre_of_mass(plane, LV),
            "pathology": [volume.info["Group"]],
            "person": [volume.info["person"]],
        }

    def load(
        self,
        indices: Iterable[int] | None = None,
        *,
        size: int | Sequence[int] | None = None,
        spacing: float | Sequence[float] | None = None,
        normalise: bool = True,
    ) -> dict:
        """Slices on one grid, stacked like a phantom; the paper has size=212, spacing=1.3672.

        Each slice is brought to zero mean and unit variance over its whole original field of view,
        then resampled and cut or padded (with 0, its mean) about its centre in one step. `restore`
        takes a label map back to the slice's own grid.

        Args:
            indices: which slices, in this order; None: all.
            size: pixels, or (rows, columns).
            spacing: mm, or (row, column); None keeps each slice's own, which then must agree.
            normalise: False keeps the scanner's units.
        """
        wanted = range(len(self)) if indices is None else indices
        wanted = checked_indices(wanted, len(self))
        samples = {}
        for i in sorted(set(wanted)):  # in the order of the files: each volume is read once
            sample = self[i]
            if normalise:
                sample["image"] = zscore(sample["image"])
            samples[i] = on_grid(sample, size, spacing, centre_value=LV)
        return stack([samples[i] for i in wanted])

    def restore(
        self, label: Tensor, index: int, *, spacing: float | Sequence[float] | None = None
    ) -> Tensor:
        """Take a label map from the grid of `load` back to the slice's own, for evaluation in mm.

        Args:
            label: ``(1,H,W)`` int64, e.g. a prediction for ``reader[index]``.
            index: of the slice.
            spacing: mm of ``label``, as given to `load`.

        Returns:
            ``(1,H,W)`` int64 with the size of ``reader[index]``.
        """
        volume, _ = self._slices()[checked_index(index, len(self))]
        x, y = files.header(volume.image).shape[:2]
        if spacing is None:
            return crop_or_pad(label, (y, x))
        mm_x, mm_y = (float(v) for v in files.header(volume.image).header.get_zooms()[:2])
        return resample_labels(label, pair(spacing, "spacing"), (mm_y, mm_x), size=(y, x))

    def split(self, every: int = 5) -> tuple[list[int], list[int]]:
        """Indices for training and validation: patients whose number ``every`` divides validate.

        The split of Baumgartner et al. 2017 that the paper of `edpcnn` takes over; it is meant for
        the training part.

        Raises:
            ValueError: one side would be empty.
        """
        sides: tuple[list[int], list[int]] = ([], [])
        for at, (volume, _) in enumerate(self._slices()):
            sides[volume.patient % every == 0].append(at)
        if not all(sides):
            patients = sorted({volume.patient for volume, _ in self._slices()})
            raise ValueError(f"every={every} leaves one side without a patient of {patients}")
        return sides

    def _slices(self) -> list[tuple[Volume, int]]:
        if self._index is None:
            volumes, report = self._scan()
            report.require()
            index = [(v, at) for v in volumes for at in range(files.header(v.image).shape[2])]
            if self.lv_only:
                index = [(v, at) for v, at in index if (self._read(v)[1][at] == LV).any()]
            if not index:
                raise ValueError(f"{self.root}: no slice has a left ventricle (lv_only=True)")
            self._index = index
        return self._index

    def _read(self, volume: Volume) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
        """Image and label as (slice, row, column) and the mm per (row, column, slice)."""
        if self._open is None or self._open[0] != volume:
            self._open = (volume, files.read(volume))
        return self._open[1]

    def _scan(self, voxels: bool = False) -> tuple[list[Volume], Report]:
        folders, missing, hint = files.patient_folders(self.root, self.part)
        volumes: list[Volume] = []
        for part, folder in folders:
            frames, problems = files.patient(folder, part)
            if voxels and not problems:
                problems = [p for p in map(files.voxel_problem, frames) if p]
            volumes += [frame for frame in frames if frame.phase in self.phases]
            missing += [f"{folder.relative_to(self.root)}: {problem}" for problem in problems]
        found = [
            f"{part or 'patients'}: {sum(p == part for p, _ in folders)} patients, "
            f"{sum(v.part == part for v in volumes)} labelled volumes"
            for part in dict.fromkeys(p for p, _ in folders)
        ]
        if missing and not folders and self.root.is_dir() and any(self.root.iterdir()):
            found = [content_line(self.root)]
        report = Report("ACDC", self.root, LAYOUT, WHERE, LICENCE, found, missing, hint)
        return volumes, report
