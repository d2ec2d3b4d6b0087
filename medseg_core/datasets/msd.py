"""Medical Segmentation Decathlon: ten tasks in one layout, CT and MR (Simpson et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg_core.datasets import _decathlon, _pairs
from medseg_core.datasets._layout import Case
from medseg_core.datasets._volume_reader import VolumeReader


class MSD(VolumeReader):
    """Read a task of the Medical Segmentation Decathlon from the folder where it was unpacked.

    One sample is one volume, turned as `_volume_reader.VolumeReader` says. ``group`` is its number:
    the names say nothing of persons, of whom a task may hold two volumes (the left and the right
    hippocampus). A dataset.json of your own makes any volumes a task.

    ``reader[i]`` gives ``image (1,1,D,H,W)`` float32 in the file's units, ``unit`` ("HU", or "raw"
    for MR), ``label (1,D,H,W)`` int64, ``mask (1,1,D,H,W)`` bool, ``boxes (1,6)`` the tight box of
    the mask, or of all labels > 0 (zeros if empty), ``spacing`` mm per (slice, row, column),
    ``affine (1,4,4)`` of the file, ``group (1,)`` and ``id``; ``reader.labels`` are the task's.

    Args:
        root: the folder of a task, or one that holds several.
        task: which of several, or which table of labels where dataset.json lacks:
            "Task04_Hippocampus", "Hippocampus" or 4.
        binary: True adds ``mask``: all labels > 0 (liver with its tumours, both zones of the
            prostate, both parts of the hippocampus); labels such as (1,): those merged.
        channel: of 4-D images: a number, or a name of dataset.json ("T2").

    Taught in: bifseg-interactive.
    """

    name = "Medical Segmentation Decathlon"
    layout = f"""
ROOT/[Task04_Hippocampus/]
    dataset.json       modality {{"0": "MRI"}}, labels {{"0": "background", …}} and
                       training [{{"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}}]
    imagesTr/, labelsTr/    x.nii.gz, 3-D, or 4-D with the modalities last
or, without dataset.json: imagesTr/ and labelsTr/, or images/ and labels/, with equal names.
Tasks: {", ".join(task.name for task in _decathlon.TASKS)}
"""
    where = "http://medicaldecathlon.com"
    licence = "CC BY-SA 4.0; cite Simpson et al., arXiv:1902.09063"

    def __init__(
        self,
        root: str | Path,
        *,
        task: int | str | None = None,
        binary: bool | Sequence[int] = False,
        channel: int | str | None = None,
    ) -> None:
        super().__init__(root)
        self.task, self.binary, self.asked = task, binary, channel

    def find(self) -> tuple[list[Case], list[str], str]:
        found, missing, hint = _decathlon.find(self.root, self.task)
        if found is None:
            return [], missing, hint
        self.found, self.labels = found, found.labels
        self.unit = "HU" if "CT" in found.channels else "raw"
        self.channel = found.channel(self.asked, missing)
        if self.binary not in (True, False) and not found.holds(self.binary):
            missing.append(f"binary: {self.binary!r} are no labels of {found.task}: {found.labels}")
        return found.cases, missing, hint

    def header(self, case: Case) -> None:
        image, label = case.files["image"], case.files["label"]
        head, turned = _pairs.check_pair(image, label, ndim=3, channels=True)
        case.facts |= {"head": head, "turned": turned}
        self.found.check_channels(head, asked=self.channel is not None)

    def said(self, cases: Sequence[Case]) -> list[str]:
        return self.found.lines()
