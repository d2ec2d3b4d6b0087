"""IVUS challenge 2011, data set B: 435 frames with lumen and media (Balocco 2014)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from medseg_core import checks
from medseg_core.datasets.contours import contour_radii
from medseg_core.datasets.ivus2011_files import PARTS, Frame, find, read
from medseg_core.datasets.report import Report, content_line, folder_problem
from medseg_core.datasets.samples import checked_index, checked_indices, pair
from medseg_core.physics.deform import to_polar
from medseg_core.physics.shapes import polygon_mask, region_label
from medseg_core.stacking import stack

PIXEL_MM = 0.026

LAYOUT = """
ROOT/
    Training_Set/Data_set_B/DCM/frame_01_0001_003.png          384 × 384, 8-bit grey; 109 frames
    Training_Set/Data_set_B/LABELS/lum_frame_01_0001_003.txt   the lumen's contour: x, y per line
    Training_Set/Data_set_B/LABELS/med_frame_01_0001_003.txt   the media's
    Test_Set/Data_set_B/DCM/..., LABELS_obs1/..., LABELS_obs2_v2/...   326 frames, two observers
(other folders will do, as long as "train" or "test" occurs in the path)
"""
WHERE = "http://www.cvc.uab.es/IVUSchallenge2011 (on request to its organisers)"
LICENCE = (
    "on request, see the site; cite Balocco et al. 2014, doi 10.1016/j.compmedimag.2013.07.001"
)


class IVUS2011:
    """Read data set B of the IVUS challenge 2011, in polar and in Cartesian form.

    One sample is one frame; ``group`` is the patient. The polar form is unwrapped about the
    image's centre, where the catheter is. Taught in the chapter `ipm-surfaces`.

    Args:
        root: the folder that holds ``Training_Set/`` and/or ``Test_Set/``.
        part: "training", "test", or None for all there is.
        observer: 1 or 2: whose contours, where there are two (the test set).
        size: (radii, angles) of the polar form.
        radius_px: radius that follows the last row, in pixels; None: half the image's side.
        first_pixel: the contours' coordinate of the first pixel's centre. The site does not say;
            its tools are MATLAB's, which counts from 1.

    ``reader[i]`` gives the phantom's keys in polar form, rows = radii: ``image (1,1,H,W)`` in
    [0, 1], ``surfaces (1,2,W)``: lumen and media, rows, each ray's outermost crossing with the
    contour, the media never inside the lumen; ``valid (1,2,W)``: not beyond the last row; ``label
    (1,H,W)``: 0 blood, 1 wall, 2 outside; ``spacing``: mm per row and RADIANS per column. Beside
    them ``cartesian_image (1,1,h,w)``, ``mask (1,2,h,w)`` bool: inside lumen, inside media;
    ``cartesian_spacing`` (mm), ``centre (1,2)``: of the unwrapping, in pixels, ``group (1,)``,
    ``frame (1,)``, ``name`` and ``part``.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        part: str | None = None,
        observer: int = 1,
        size: Sequence[int] = (192, 360),
        radius_px: float | None = None,
        first_pixel: float = 1,
    ) -> None:
        if part is not None:
            checks.choice(part, "part", PARTS)
        checks.choice(observer, "observer", (1, 2))
        self.size = _checked_size(size)
        if radius_px is not None:
            checks.between(radius_px, "radius_px", 1, None)
        self.root, self.part = Path(root).expanduser(), part
        self.observer, self.radius_px = observer, radius_px
        self.first_pixel = float(checks.finite(first_pixel, "first_pixel"))
        self._index: list[Frame] | None = None

    def check(self, *, pixels: bool = False) -> Report:
        """Say what is there and what is not; never raises (`Report.require` does).

        Args:
            pixels: read every image and contour too, which finds damaged files early.
        """
        return self._scan(pixels)[1]

    def __len__(self) -> int:
        return len(self._frames())

    def __getitem__(self, index: int) -> dict:
        return self._sample(index, self.size)

    def load(
        self, indices: Iterable[int] | None = None, *, size: Sequence[int] | None = None
    ) -> dict:
        """Frames stacked like a phantom.

        Args:
            indices: which frames, in this order; None: all.
            size: (radii, angles) of the polar form; None: as the reader was made.
        """
        wanted = range(len(self)) if indices is None else indices
        size = self.size if size is None else _checked_size(size)
        return stack([self._sample(i, size) for i in checked_indices(wanted, len(self))])

    def split(self) -> tuple[list[int], list[int]]:
        """Indices of the challenge's training and test frames.

        Raises:
            ValueError: one side would be empty.
        """
        frames = self._frames()
        sides = tuple([at for at, f in enumerate(frames) if f.part == part] for part in PARTS)
        if not all(sides):
            raise ValueError(f"only {frames[0].part} frames were read, not both {PARTS}")
        return sides

    def _sample(self, index: int, size: tuple[int, int]) -> dict:
        frame = self._frames()[checked_index(index, len(self))]
        grey, contours = read(frame, self.first_pixel)
        shape, (n_radii, n_angles) = grey.shape, size
        centre = ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
        radius = min(shape) / 2 if self.radius_px is None else float(self.radius_px)
        image = torch.from_numpy(grey / np.float32(255))[None, None]  # (1, 1, h, w)
        at = torch.tensor([centre])
        radii = _radii(frame, contours, centre, n_angles)
        surfaces = torch.from_numpy(radii) * (n_radii / radius)
        mask = [polygon_mask(torch.from_numpy(points), shape) for points in contours]
        return {
            "image": to_polar(image, at, radius, n_radii, n_angles),
            "surfaces": surfaces.float()[None],
            "valid": (surfaces <= n_radii - 0.5)[None],
            "label": region_label(surfaces, n_radii)[None],
            "spacing": (PIXEL_MM * radius / n_radii, 2 * math.pi / n_angles),
            "cartesian_image": image,
            "mask": torch.stack(mask)[None],
            "cartesian_spacing": (PIXEL_MM, PIXEL_MM),
            "centre": at,
            "group": torch.tensor([frame.patient]),
            "frame": torch.tensor([frame.number]),
            "name": [frame.name],
            "part": [frame.part],
        }

    def _frames(self) -> list[Frame]:
        if self._index is None:
            frames, report = self._scan()
            report.require()
            self._index = frames
        return self._index

    def _scan(self, pixels: bool = False) -> tuple[list[Frame], Report]:
        frames: list[Frame] = []
        problem = folder_problem(self.root)
        missing, found = ([problem], []) if problem else ([], [content_line(self.root)])
        if not problem:
            frames = find(self.root, self.part, self.observer, missing)
        if frames:
            found = []
            for part, n in Counter(f.part for f in frames).items():
                mine = [f for f in frames if f.part == part]
                folders = {f.image.parent for f in mine}, {f.lumen.parent for f in mine}
                images, labels = (
                    ", ".join(sorted(str(p.relative_to(self.root)) for p in kind))
                    for kind in folders
                )
                patients = {f.patient for f in mine}
                found.append(f"{part}: {n} frames of {len(patients)} patients; {images}; {labels}")
        if pixels:
            missing += [text for text in map(self._problem, frames) if text]
        name = "IVUS challenge 2011, data set B"
        return frames, Report(name, self.root, LAYOUT, WHERE, LICENCE, found, missing)

    def _problem(self, frame: Frame) -> str:
        try:
            grey, contours = read(frame, self.first_pixel)
            _radii(frame, contours, ((grey.shape[0] - 1) / 2, (grey.shape[1] - 1) / 2), 16)
        except ValueError as error:
            return str(error)
        return ""


def _radii(
    frame: Frame, contours: Sequence[np.ndarray], centre: tuple[float, float], n_angles: int
) -> np.ndarray:
    """Radii of lumen and media, ``(2,n_angles)`` pixels; where they cross the lumen's counts."""
    radii = []
    for path, points in zip((frame.lumen, frame.media), contours, strict=True):
        try:
            radii.append(contour_radii(points, centre, n_angles))
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error
    return np.maximum.accumulate(radii, axis=0)


def _checked_size(size: Sequence[int]) -> tuple[int, int]:
    radii, angles = pair(size, "size")
    for n in (radii, angles):
        if isinstance(n, bool) or int(n) != n or n < 4:
            raise ValueError(f"size must be (radii, angles), integers of at least 4, got {size}")
    return int(radii), int(angles)
