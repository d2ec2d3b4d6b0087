"""Where the IVUS challenge's files lie and how they are read; the reader is `ivus2011`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg_core.datasets.grey import read_grey

PARTS = ("training", "test")
KINDS = ("image", "lumen", "media")
NAME = re.compile(r"frame_(?P<patient>\d+)_(?P<frame>\d+)_\d+")
CONTOUR = re.compile(rf"(?P<kind>lum|med)_(?P<name>{NAME.pattern})")
IMAGES = (".png", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Frame:
    """One frame and its two contours."""

    part: str
    name: str
    image: Path
    lumen: Path
    media: Path

    @property
    def patient(self) -> int:
        return int(NAME.fullmatch(self.name)["patient"])

    @property
    def number(self) -> int:
        return int(NAME.fullmatch(self.name)["frame"])


def find(root: Path, part: str | None, observer: int, missing: list[str]) -> list[Frame]:
    """The complete frames of data set B below ``root``; what is odd goes to ``missing``."""
    files: dict[tuple[str, str], dict[str, Path]] = {}
    for path in sorted(root.rglob("[!.]*")):
        kind, name = _kind(path)
        at = path.relative_to(root)
        if not kind or not _wanted(at, kind, observer):
            continue
        home = _part(at, root)
        if not home:
            missing.append(f"{at}: neither train nor test in its path")
        elif part in (None, home):
            there = files.setdefault((home, name), {})
            if kind in there:
                first = there[kind].relative_to(root)
                missing.append(f"{home}: {kind} of {name} is there twice: {first} and {at}")
            there.setdefault(kind, path)
    frames = []
    for (home, name), there in files.items():
        absent = [kind for kind in KINDS if kind not in there]
        if absent:
            missing.append(f"{home}: {name} has no {' and no '.join(absent)}")
        else:
            frames.append(Frame(home, name, *(there[kind] for kind in KINDS)))
    if not files and not missing:
        which = f" of the part {part}" if part else ""
        missing.append(f"no frame{which}: no file is named like lum_frame_01_0001_003.txt")
    return sorted(frames, key=lambda f: (PARTS.index(f.part), f.patient, f.number, f.name))


def read(frame: Frame, first_pixel: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Grey values ``(h,w)`` and the contours of lumen and media, ``(P,2)`` rows and columns.

    Raises:
        ValueError: a file that is no image or no list of points, or a point outside the image.
    """
    grey = read_grey(frame.image)
    contours = []
    for path in (frame.lumen, frame.media):
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            fields = [re.split(r"[\s,;]+", line.strip(" \t,;")) for line in lines if line.strip()]
            rows = [[float(field) for field in line] for line in fields]
        except (ValueError, OSError) as error:
            raise ValueError(f"{path.name} cannot be read as x, y per line: {error}") from error
        if len(rows) < 3 or any(len(row) != 2 for row in rows):
            raise ValueError(f"{path.name} must hold at least 3 lines of two numbers x, y")
        points = np.array(rows)[:, ::-1] - first_pixel  # x, y → row, column
        inside = (points >= -1) & (points <= grey.shape)  # NaN compares false
        if not inside.all():
            at = int(np.argwhere(~inside)[0, 0])
            raise ValueError(
                f"{path.name}: point {at} is x, y = {rows[at]}, outside the image of "
                f"{grey.shape[0]} × {grey.shape[1]} pixels"
            )
        contours.append(points)
    return grey, contours


def _kind(path: Path) -> tuple[str, str]:
    """One of KINDS and the frame's name; ("", "") for any other file."""
    contour = CONTOUR.fullmatch(path.stem)
    if contour and path.suffix.lower() == ".txt":
        return {"lum": "lumen", "med": "media"}[contour["kind"]], contour["name"]
    if NAME.fullmatch(path.stem) and path.suffix.lower() in IMAGES:
        return "image", path.stem
    return "", ""


def _wanted(path: Path, kind: str, observer: int) -> bool:
    """Not of data set A, and by the observer asked for where there are several."""
    folders = [folder.lower() for folder in path.parts[:-1]]
    if any(re.search(r"set[_ -]?a$", folder) for folder in folders):
        return False
    observers = [m for m in (re.search(r"obs\D*(\d)", folder) for folder in folders) if m]
    return kind == "image" or not observers or int(observers[-1][1]) == observer


def _part(path: Path, root: Path) -> str:
    """One of PARTS, as the innermost folder that tells says; "" if none does."""
    for folder in (*reversed(path.parts[:-1]), root.resolve().name):
        for part, word in zip(PARTS, ("train", "test"), strict=True):
            if re.search(rf"(?<![a-z]){word}", folder.lower()):
                return part
    return ""
