"""CAMUS: two- and four-chamber echocardiography with labels at ED and ES (Leclerc 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from medseg_core import checks
from medseg_core.datasets import _fan, _text
from medseg_core.datasets._layout import Case, Reader
from medseg_core.datasets._pairs import read_pair

LV = 1
FRAME = r"(?:[^/]+/)?(?P<patient>patient\d{4})/(?P<id>(?P=patient)_(?P<view>.CH)_(?P<phase>E[DS]))"


class CAMUS(Reader):
    """Read CAMUS from the folder in which its archive was unpacked; one sample is one frame.

    ``reader[i]`` gives ``image (1,1,H,W)`` in [0, 1], ``label (1,H,W)``, ``mask (1,1,H,W)``: the
    LV's cavity, ``sector (1,1,H,W)``: what the probe sees, ``spacing`` mm, ``group (1,)`` the
    patient, ``view_name``, ``phase_name``, ``quality`` ("Good", "Medium", "Poor" or "") and
    ``info``, all lines of that file. ``phase=None`` is both. The probe is put on top: ``rows`` is
    the file's axis that runs away from it ("y", "-y", "x" or "-x"), and `check` looks whether the
    first image's fan narrows upwards. Taught in: max-margin-crf.
    """

    name = "CAMUS"
    layout = """
ROOT/[training/|database_nifti/]patient0001/
    patient0001_2CH_ED.nii.gz       the image, 2-D (x, y), grey values 0 … 255; ES, 4CH likewise
    patient0001_2CH_ED_gt.nii.gz    0 background, 1 LV cavity, 2 myocardium, 3 left atrium
    Info_2CH.cfg                    ImageQuality: Good, Age: 56, … (need not be there)
older releases: .mhd with .raw instead of .nii.gz (read by SimpleITK)
"""
    where = "https://www.creatis.insa-lyon.fr/Challenge/camus/ (500 patients)"
    licence = "see the terms on the page above; cite Leclerc et al., IEEE TMI 2019, 38(9):2198-2210"
    patterns = {"image": rf"{FRAME}\.(nii|nii\.gz|mhd)", "label": rf"{FRAME}_gt\.(nii|nii\.gz|mhd)"}
    folders, example = r"(?:[^/]+/)?patient\d{4}/", "patient0001/patient0001_2CH_ED.nii.gz"
    labels = {0: "background", LV: "LV cavity", 2: "myocardium", 3: "left atrium"}
    choices = {"view": ("2CH", "4CH"), "phase": ("ED", "ES")}
    values, noun = (0, 255), "labelled frames"
    read_on_check, unlabelled_are_left_out = 1, True

    def __init__(
        self, root: str | Path, *, view: str = "2CH", phase: str | None = None, rows: str = "y"
    ) -> None:
        super().__init__(root, view=view, phase=phase)
        self.rows = checks.choice(rows, "rows", tuple(_fan.ROWS))
        self.turned = _fan.ROWS[rows]

    def verify(self, case: Case) -> None:
        super().verify(case)
        stored = read_pair(**case.files, labels=self.labels, ndim=2)
        _fan.check_upright(stored.image, self.rows, case.files["image"].name)

    def sample(self, case: Case, at: int) -> dict:
        pair, cfg = self.read(case), f"Info_{case.fields['view']}.cfg"
        info = _text.key_values(case.files["image"].with_name(cfg), needed=False)
        sector = torch.from_numpy(_fan.sector(pair.image))[None, None]
        label = torch.from_numpy(pair.label)[None]  # (1, H, W)
        return {
            "image": torch.from_numpy(pair.image / 255)[None, None],  # (1, 1, H, W)
            "label": label,
            "mask": (label == LV)[:, None],
            "sector": sector,
            "spacing": pair.spacing,
            "group": torch.tensor([case.number]),
            "view_name": [case.fields["view"]],
            "phase_name": [case.fields["phase"]],
            "quality": [info.get("ImageQuality", "")],
            "info": [info],
        }

    def on_grid(self, sample: dict, size: Any, spacing: Any) -> dict:
        out = super().on_grid(sample, size, spacing)
        return out | {"mask": (out["label"] == LV)[:, None]}
