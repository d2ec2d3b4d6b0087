"""ACDC: cardiac cine MR with manual labels at end-diastole and end-systole (Bernard 2018)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from medseg_core.datasets import _text
from medseg_core.datasets._layout import Case, Reader
from medseg_core.datasets.preprocess import centre_of_mass, zscore


class ACDC(Reader):
    """Read ACDC from the folder in which its archive was unpacked; one sample is one SLICE.

    ``reader[i]`` gives ``image (1,1,H,W)`` in the scanner's units, ``label (1,H,W)``, ``spacing``
    and ``slice_spacing (1,)`` mm, ``group (1,)`` the patient, ``phase_name``, ``slice (1,)``,
    ``centre (1,2)`` of the LV (NaN without one), ``pathology`` and ``person``. Rows run along the
    file's second axis. `load` brings each slice to zero mean and unit variance over its field of
    view first; the paper has size=212, spacing=1.3672. With ``lv_only``, as in that paper, slices
    without a left ventricle are left out. Taught in: edpcnn.
    """

    name = "ACDC"
    layout = """
ROOT/[training/|testing/]patient001/
    Info.cfg                      ED, ES (frame numbers), Group, Height, Weight, NbFrame
    patient001_frame01.nii.gz     the ED volume, 3-D (x, y, slice); the ES volume likewise
    patient001_frame01_gt.nii.gz  its labels: 0 background, 1 RV, 2 myocardium, 3 LV
"""
    where = "https://www.creatis.insa-lyon.fr/Challenge/acdc/ (100 + 50 patients)"
    licence = "CC BY-NC-SA 4.0 (see the terms on the page above); cite Bernard et al., TMI 2018"
    labels, ndim = {0: "background", 1: "RV", 2: "myocardium", 3: "LV"}, 3
    patterns = {"folder": r"(?:(?P<part>training|testing)/)?(?P<id>(?P<patient>patient\d{3}))/"}
    choices, noun = {"part": ("training", "testing")}, "labelled volumes"
    example, nothing, centre_of = "patient001/", "no slice has a left ventricle (lv_only=True)", 3

    def __init__(self, root: str | Path, *, part: str | None = None, lv_only: bool = False) -> None:
        super().__init__(root, part=part)
        self.lv_only = lv_only

    def expand(self, case: Case) -> Iterable[Case | str]:
        info = _text.key_values(case.files["folder"] / "Info.cfg")
        frames = [_text.frame(info, phase, "Info.cfg") for phase in ("ED", "ES")]
        if frames[0] == frames[1]:
            raise ValueError(f"Info.cfg names the same frame {frames[0]} for ED and ES")
        for phase, frame in zip(("ED", "ES"), frames, strict=True):
            stem = f"{case.id}_frame{frame:02d}"
            yield from case.pair(stem, f"{stem}_gt", (".nii.gz", ".nii"), phase=phase, info=info)

    def places(self, case: Case) -> Iterable[int]:
        slices = range(case.facts["head"].shape[2])
        return [z for z in slices if not self.lv_only or (self.opened(case).label[z] == 3).any()]

    def sample(self, case: Case, at: int) -> dict:
        pair, info = self.opened(case), case.facts["info"]
        label = torch.from_numpy(pair.label[at].copy())[None]  # (1, H, W)
        about = {"height_cm": "Height", "weight_kg": "Weight", "n_frames": "NbFrame"}
        return {
            "image": torch.from_numpy(pair.image[at].copy())[None, None],  # (1, 1, H, W)
            "label": label,
            "spacing": pair.spacing[1:],
            "slice_spacing": torch.tensor([pair.spacing[0]]),
            "group": torch.tensor([case.number]),
            "phase_name": [case.facts["phase"]],
            "slice": torch.tensor([at]),
            "centre": centre_of_mass(label, self.centre_of),
            "pathology": [info.get("Group", "")],
            "person": [{key: _text.number(info.get(name)) for key, name in about.items()}],
        }

    def on_grid(self, sample: dict, size: Any, spacing: Any) -> dict:
        return super().on_grid(sample | {"image": zscore(sample["image"])}, size, spacing)

    def split(self) -> tuple[list[int], list[int]]:
        """Training and validation: Baumgartner et al.'s, in which patients 5, 10, … validate."""
        return self.parted(lambda case: case.number % 5 == 0, ("training", "validation"))
