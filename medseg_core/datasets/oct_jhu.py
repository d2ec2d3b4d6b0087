"""JHU retinal OCT: 35 macular volumes of healthy and MS eyes, nine surfaces by hand (He 2019)."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from medseg_core.datasets._bscans import bscan, on_bscan_grid
from medseg_core.datasets._delineation import SURFACES, read_delineation
from medseg_core.datasets._heyex_vol import read_bscan, read_header
from medseg_core.datasets._layout import Case, Reader

# He et al.'s split, as they publish it with their preprocessing; the others are the test set.
TRAIN = (*(f"hc{n:02d}" for n in range(9, 15)), *(f"ms{n:02d}" for n in range(13, 22)))
VALIDATION = ("hc09", "ms13", "ms14")  # the people of TRAIN whom they set aside to validate
NAME = r"(?:.*/)?(?P<id>(?i:hc|ms)\d{2})(?!\d)[^/]*"


class JHUOCT(Reader):
    """Read the JHU OCT data; one sample is one B-scan of a right eye with all nine surfaces.

    ``reader[i]`` gives ``image (1,1,H,W)`` in [0, 1] (reflectivity^¼), ``surfaces (1,9,W)`` rows,
    ``surface_names``, ``valid (1,W)``, ``label (1,H,W)``, ``top (1,W)`` (`_bscans`), ``spacing``
    mm, ``column_mm (1,)``, ``slice_spacing (1,)`` mm, ``slice (1,)``, ``group (1,)`` (100 is added
    for MS), ``ms (1,)``, ``patient``, ``eye``. ``crop_rows`` are cut out along the retina, which is
    found in the image alone; None keeps all. A column's width in mm depends on the eye: `load`
    without ``spacing`` gives the median. Taught in: ipm-surfaces.
    """

    name = "JHU OCT"
    layout = """
ROOT/, in any folders below it, hc01 to hc14 healthy and ms01 to ms21 with MS:
    vol/hc01_spectralis_macula_v1_s1_R.vol          Heidelberg raw export (HSF-OCT): 49 B-scans
    delineation/hc01_spectralis_macula_v1_s1_R.mat  control_pts: cells (49, surfaces) of (21, 2)
                                                    x, y counted from 1, some columns empty;
                                                    or bd_pts (1024, 49, 9): y in every column
"""
    where = "https://iacl.ece.jhu.edu, page Resources (OCT_Manual_Delineations-2018_June_29)"
    licence = "see the site; cite He et al., Data in Brief 2019, doi 10.1016/j.dib.2018.12.073"
    patterns = {"volume": rf"{NAME}\.vol", "delineation": rf"{NAME}\.mat"}
    strays, example = r".*\.(vol|mat)", "hc01_spectralis_macula_v1_s1_R.vol (or .mat)"
    noun, nothing, crop_rows = "volumes", f"no B-scan has all {len(SURFACES)} surfaces", 128

    def key(self, fields: dict[str, str]) -> str:
        return fields["id"].lower()

    def header(self, case: Case) -> None:
        volume = read_header(case.files["volume"])
        surfaces, complete = read_delineation(case.files["delineation"], volume)
        case.facts |= {"volume": volume, "surfaces": surfaces, "places": complete}

    def sample(self, case: Case, at: int) -> dict:
        volume, ms = case.facts["volume"], case.id.startswith("ms")
        image, surfaces = read_bscan(case.files["volume"], volume, at), case.facts["surfaces"][at]
        return bscan(image, surfaces, (volume.row_mm, volume.column_mm)) | {
            "surface_names": SURFACES,
            "column_mm": torch.tensor([volume.column_mm]),
            "slice_spacing": torch.tensor([volume.slice_mm]),
            "slice": torch.tensor([at]),
            "group": torch.tensor([case.number + 100 * ms]),
            "ms": torch.tensor([ms]),
            "patient": [case.id],
            "eye": [volume.eye],
        }

    def __getitem__(self, index: int) -> dict:
        return self.on_grid(super().__getitem__(index), None, None)

    def on_grid(self, sample: dict, size: Any, spacing: Any) -> dict:
        return on_bscan_grid(sample, size, spacing, rows=self.crop_rows)

    def alike(self, samples: list[dict]) -> list[dict]:
        width = statistics.median(sample["spacing"][1] for sample in samples)
        return [sample | {"spacing": (sample["spacing"][0], width)} for sample in samples]

    def split(self) -> tuple[list[int], list[int]]:
        """Indices for training and test: He et al.'s 15 (`TRAIN`) and 20 people."""
        return self.parted(lambda case: case.id not in TRAIN, ("training", "test"))
