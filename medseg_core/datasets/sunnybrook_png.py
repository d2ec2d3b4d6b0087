"""Sunnybrook Cardiac Data as pairs of PNG images: short-axis cine MR with the LV's cavity."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from medseg_core.datasets._layout import Case, Reader
from medseg_core.datasets._pairs import Pair
from medseg_core.datasets.preprocess import centre_of_mass, scale_percentile

LV = 3  # ACDC's number, which the phantom has too
PHASES_PER_SLICE = 20  # of every cine in this data set; the first starts at the R wave
PATHOLOGY = {
    "HF-I": "heart failure with infarction",
    "HF-NI": "heart failure without infarction",
    "HYP": "hypertrophy",
    "N": "normal",
}
NAME = r"(?P<id>(?P<patient>SC-(?P<kind>HF-I|HF-NI|HYP|N)-\d+)-IM-\d+-(?P<at>\d+)(?:\.dcm)?\.png)"


class SunnybrookPNG(Reader):
    """Read pairs of PNG files of the Sunnybrook Cardiac Data; a sample is one slice at ED or ES.

    The conversion to PNG lost the pixel size: ``spacing`` counts pixels of the published images
    (``spacing_unit`` is "px"). Only the LV's cavity is annotated.

    ``reader[i]`` gives ``image (1,1,H,W)`` in [0, 1], ``label (1,H,W)`` with 3 for the LV,
    ``spacing``, ``spacing_unit``, ``group (1,)`` (plus 100 for HF-NI, 200 for HYP, 300 for N),
    ``phase_name``, ``centre (1,2)`` of the LV, ``slice (1,)``, ``patient`` and ``pathology``. Slice
    and phase come from the image's number: diastole is within 4 phases of the R wave. `load` maps
    each slice's percentiles 1 and 99 to 0 and 1, since fat makes a few pixels bright; size=64,
    spacing=2 keeps the middle 128 of 256 pixels, radii as the phantom's. Taught in: edpcnn.
    """

    name = "Sunnybrook Cardiac Data (PNG)"
    layout = """
ROOT/Train|Test/
    Images/.../SC-HF-I-01-IM-0001-0048.dcm.png  8-bit grey (or R = G = B)
    Labels/.../SC-HF-I-01-IM-0001-0048.dcm.png  the same name; 255 in the LV's cavity, else 0
"""
    where = "https://github.com/mshunshin/SegNetCMR, folder Data (PNG pairs)"
    licence = "CC0 1.0 (images, contours), MIT (conversion); cite Radau et al., MIDAS Journal 2009"
    patterns = {
        "image": rf"(?P<part>Train|Test)/Images/(?:.*/)?{NAME}",
        "label": rf"(?P<part>Train|Test)/Labels/(?:.*/)?{NAME}",
    }
    strays, example = r"(Train|Test)/(Images|Labels)/.*\.png", "SC-HF-I-01-IM-0001-0048.dcm.png"
    folders, noun, centre_of = "(Train|Test)/", "pairs", LV
    labels = {0: "all else", 255: "LV"}

    def read(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        pair: Pair = super().read(case)
        return pair.image / np.float32(255), np.where(pair.label > 0, LV, 0)

    def sample(self, case: Case, at: int) -> dict:
        image, label = map(torch.from_numpy, self.read(case))
        kind, number = list(PATHOLOGY).index(case.fields["kind"]), int(case.fields["at"])
        at, phase = divmod(number - 1, PHASES_PER_SLICE)
        return {
            "image": image[None, None],  # (1, 1, H, W)
            "label": label[None],  # (1, H, W)
            "spacing": (1.0, 1.0),
            "spacing_unit": "px",
            "group": torch.tensor([100 * kind + case.number]),
            "phase_name": ["ED" if min(phase, PHASES_PER_SLICE - phase) <= 4 else "ES"],
            "slice": torch.tensor([at]),
            "centre": centre_of_mass(label[None], LV),
            "patient": [case.fields["patient"]],
            "pathology": [PATHOLOGY[case.fields["kind"]]],
        }

    def on_grid(self, sample: dict, size: Any, spacing: Any) -> dict:
        out = super().on_grid(sample, size, spacing)
        return out | {"image": scale_percentile(out["image"], None, 1.0, 99.0)}
