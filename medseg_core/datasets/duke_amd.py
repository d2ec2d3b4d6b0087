"""Duke's OCT volumes of eyes with and without AMD: ILM, RPEDC and BM by hand (Farsiu 2014)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from medseg_core.datasets._bscans import bscan, on_bscan_grid
from medseg_core.datasets._layer_maps import annotation, read_volume
from medseg_core.datasets._layout import Case, Reader
from medseg_core.datasets.splits import consecutive_split

# Volumes (AMD, Control) per part, after Liefers et al. 2019.
SPLIT = {"train": (159, 5), "validation": (10, 10), "test": (100, 100)}
FIRST_ROW = 1  # what layerMaps calls it; MATLAB counts from 1


class DukeAMD(Reader):
    """Read the Duke AMD data, one MATLAB file per eye; one sample is one annotated B-scan.

    ``reader[i]`` gives ``image (1,1,H,W)`` in [0, 1], ``surfaces (1,3,W)`` rows (RPEDC is the
    complex's upper border), ``surface_names``, ``valid (1,W)``: all three are annotated, ``label
    (1,H,W)``, ``top (1,W)`` (`_bscans`), ``spacing`` in pixels, whose size the files do not hold
    (``spacing_unit`` is "px"), ``slice (1,)``, ``group (1,)`` (10 000 is added for controls),
    ``amd (1,)``, ``age_years (1,)``, ``patient``. Taught in: selected-dimensions-oct.
    """

    name = "Duke AMD"
    layout = """
ROOT/, in any folder below it:
    Farsiu_Ophthalmology_2013_AMD_Subject_1001.mat, or AMD_1001.mat; Control likewise
        images     (512, 1000, 100): row, column, B-scan; 8-bit grey
        layerMaps  (100, 1000, 3): B-scan, column, surface (ILM, RPEDC, BM); rows counted from 1,
                   NaN outside the region that was annotated
        Age        years
"""
    where = "https://people.duke.edu/~sf59/RPEDC_Ophth_2013_dataset.htm (269 AMD, 115 normal eyes)"
    licence = "see the site; cite Farsiu et al., Ophthalmology 2014, 121(1):162-172"
    patterns = {
        "volume": r"(?:.*/)?(?:[^/]*_)?(?i:(?P<kind>AMD|Control)_(?:Subject_)?(?P<eye>\d+)\.mat)"
    }
    strays, example, noun = r".*\.mat", "AMD_1001.mat or Control_1001.mat", "volumes"
    nothing = "no B-scan has an annotated column"

    def key(self, fields: dict[str, str]) -> str:
        return f"{'AMD' if fields['kind'].upper() == 'AMD' else 'Control'}_{int(fields['eye'])}"

    def header(self, case: Case) -> None:
        case.facts["places"], case.facts["age"] = annotation(case.files["volume"])

    def read(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        return read_volume(case.files["volume"])

    def sample(self, case: Case, at: int) -> dict:
        images, layers = self.opened(case)
        amd = case.id.startswith("AMD")
        sample = bscan(images[at] / np.float32(255), layers[at].T - FIRST_ROW, (1.0, 1.0)) | {
            "surface_names": ("ILM", "RPEDC", "BM"),
            "spacing_unit": "px",
            "slice": torch.tensor([at]),
            "group": torch.tensor([case.number + 10_000 * (not amd)]),
            "amd": torch.tensor([amd]),
            "age_years": torch.tensor([case.facts["age"]]),
            "patient": [case.id],
        }
        return on_bscan_grid(sample, None, None)

    def on_grid(self, sample: dict, size: Any, spacing: Any, *, flatten: bool = False) -> dict:
        return on_bscan_grid(sample, size, spacing, flatten=flatten)

    def split(self, sizes: Mapping[str, Sequence[int]] = SPLIT) -> tuple[list[int], ...]:
        """Indices for training, validation and test: so many eyes (AMD, Control), by number."""
        if sizes.keys() != SPLIT.keys():
            raise ValueError(f"sizes must have the keys {list(SPLIT)}, got {list(sizes)}")
        eyes = [case.id for case, _ in self.index]
        parts = [dict(zip(("AMD", "Control"), sizes[part], strict=True)) for part in SPLIT]
        return tuple(consecutive_split(eyes, [eye.split("_")[0] for eye in eyes], parts))
