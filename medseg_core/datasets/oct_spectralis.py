"""B-scans of a Heidelberg Spectralis with the surfaces that the device itself drew."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from medseg_core.datasets._bscans import bscan, on_bscan_grid
from medseg_core.datasets._layers_npz import Layers, read_layers
from medseg_core.datasets._layout import Case, Reader
from medseg_core.datasets._pictures import read_grey

CIRCULAR = 2  # scan_pattern of a circle around the optic nerve: its columns are periodic
NAME = r"(?P<id>(?P<scan>(?P<patient>[^/]+?)(?:_\d+)?)_(?P<number>\d+))"


class SpectralisExport(Reader):
    """Read exported B-scans of a Heidelberg Spectralis with the device's own surfaces.

    The surfaces (ILM, RNFL and BM, where the device found them) are automatic: real curves to try a
    method on, no reference standard.

    ``reader[i]`` gives a whole B-scan: ``image (1,1,H,W)`` in [0, 1] (grey value / 255),
    ``surfaces (1,L,W)`` rows, from the top one down, ``surface_names``, ``valid (1,L,W)``: where
    the device drew that surface, ``label (1,H,W)``, ``top (1,W)`` zeros (`_bscans`), ``spacing``
    mm (row, column), ``slice (1,)``, ``group (1,)``: the patients' places in their names' order,
    ``circular (1,)`` bool: a circle around the optic nerve, ``patient`` and ``scan``.
    Taught in: ipm-surfaces, selected-dimensions-oct.
    """

    name = "Spectralis export"
    layout = """
ROOT/
    PATIENT_2_0.png         B-scan 0 of scan 2, 8-bit grey: reflectivity^(1/4)
    PATIENT_2_0_layers.npz  layers (L, W): rows, NaN where the device found none; names (L,);
                            scale_mm (column, slice, row); scan_pattern
"""
    where = "an export of your device; samples: https://github.com/halirutan/spectralis-raw-data"
    licence = "your own; samples: MIT, cite the repository. The surfaces are automatic, not truth"
    patterns = {"image": rf"{NAME}\.png", "layers": rf"{NAME}_layers\.npz"}
    strays, example = r"[^/]+(?<!_slo)\.png|[^/]+_layers\.npz", "PATIENT_2_0.png"
    noun, read_on_check = "B-scans", None  # they are few

    def read(self, case: Case) -> tuple[np.ndarray, Layers]:
        image = read_grey(case.files["image"]) / np.float32(255)
        return image, read_layers(case.files["layers"], image.shape)

    def sample(self, case: Case, at: int) -> dict:
        image, layers = self.read(case)
        people = sorted({case.fields["patient"] for case, _ in self.index})
        spacing = (layers.scale_mm[2], layers.scale_mm[0])
        sample = bscan(image, layers.rows, spacing, per_surface=True) | {
            "surface_names": layers.names,
            "slice": torch.tensor([int(case.fields["number"])]),
            "group": torch.tensor([people.index(case.fields["patient"])]),
            "circular": torch.tensor([layers.scan_pattern == CIRCULAR]),
            "patient": [case.fields["patient"]],
            "scan": [case.fields["scan"]],
        }
        return on_bscan_grid(sample, None, None)

    def on_grid(self, sample: dict, size: Any, spacing: Any, *, flatten: bool = True) -> dict:
        return on_bscan_grid(sample, size, spacing, flatten=flatten)
