"""IVUS challenge 2011, data set B: 435 frames with lumen and media (Balocco 2014)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch

from medseg_core.datasets._grids import checked_indices
from medseg_core.datasets._layout import Case, Reader
from medseg_core.datasets._pictures import read_grey
from medseg_core.datasets._polar import polar_sample
from medseg_core.datasets._text import read_points
from medseg_core.stacking import stack

PARTS, SIZE = ("training", "test"), (192, 360)
PIXEL_MM = 0.026
FIRST_PIXEL = 1  # the contours' coordinate of its centre: the site's tools are MATLAB's
SET_B = r"(?!(?:.*/)?[^/]*[Ss]et[_ -]?[Aa]/)"
FIRST_OBSERVER = r"(?!.*[Oo][Bb][Ss][^\d/]*[02-9][^/]*/)"
NAME = r"(?:.*/)?{}(?P<id>frame_(?P<vessel>\d+)_(?P<frame>\d+)_\d+)"


class IVUS2011(Reader):
    """Read data set B of the IVUS challenge 2011, one frame per sample; the first observer's.

    ``reader[i]`` gives the frame in polar form, as `_polar.polar_sample` says: ``image``,
    ``surfaces`` (lumen and media, in rows), ``valid``, ``label`` (0 blood, 1 wall, 2 outside),
    ``spacing`` (mm per row, RADIANS per column); and ``cartesian_image``, ``mask`` (inside lumen,
    inside media), ``cartesian_spacing``, ``centre``; ``group (1,)`` the patient, ``frame (1,)``,
    ``name``, ``part``. Taught in: ipm-surfaces.
    """

    name = "IVUS challenge 2011, data set B"
    layout = """
ROOT/
    Training_Set/Data_set_B/DCM/frame_01_0001_003.png          384 × 384, 8-bit grey; 109 frames
    Training_Set/Data_set_B/LABELS/lum_frame_01_0001_003.txt   the lumen's contour: x, y per line
    Training_Set/Data_set_B/LABELS/med_frame_01_0001_003.txt   the media's
    Test_Set/Data_set_B/DCM/..., LABELS_obs1/..., LABELS_obs2_v2/...   326 frames, two observers
(other folders will do, as long as "train" or "test" occurs in the path)
"""
    where = "http://www.cvc.uab.es/IVUSchallenge2011 (on request to its organisers)"
    licence = "on request; cite Balocco et al. 2014, doi 10.1016/j.compmedimag.2013.07.001"
    patterns = {
        "image": rf"{SET_B}{NAME.format('')}\.(?:png|bmp|tiff?)",
        "lumen": rf"{SET_B}{FIRST_OBSERVER}{NAME.format('lum_')}\.txt",
        "media": rf"{SET_B}{FIRST_OBSERVER}{NAME.format('med_')}\.txt",
    }
    noun, example = "frames", "frame_01_0001_003.png or lum_frame_01_0001_003.txt"

    def part_of(self, path: str, fields: dict[str, str]) -> str:
        for folder in (*reversed(path.split("/")[:-1]), self.root.resolve().name):
            for part, word in zip(PARTS, ("train", "test"), strict=True):
                if re.search(rf"(?<![a-z]){word}", folder.lower()):
                    return part
        raise ValueError(f"{path}: neither train nor test in its path")

    def read(self, case: Case, size: Sequence[int] = SIZE) -> dict:
        grey, paths = read_grey(case.files["image"]), (case.files["lumen"], case.files["media"])
        contours = {path.name: read_points(path, grey.shape, FIRST_PIXEL) for path in paths}
        return polar_sample(grey, contours, size, PIXEL_MM)

    def sample(self, case: Case, at: int, size: Sequence[int] = SIZE) -> dict:
        return self.read(case, size) | {
            "group": torch.tensor([int(case.fields["vessel"])]),
            "frame": torch.tensor([int(case.fields["frame"])]),
            "name": [case.id],
            "part": [case.part],
        }

    def load(self, indices: Iterable[int] | None = None, *, size: Sequence[int] = SIZE) -> dict:
        """Frames stacked like a phantom; ``size``: (radii, angles) of the polar form."""
        wanted = checked_indices(indices, len(self))
        return stack([self.sample(*self.index[i], size) for i in wanted])

    def split(self) -> tuple[list[int], list[int]]:
        """Indices of the challenge's training and test frames."""
        return self.parted(lambda case: PARTS.index(case.part), PARTS)
