"""Text files of data sets; a byte order mark, which editors on Windows leave, is no content."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark."""
    return path.read_text(encoding="utf-8-sig", errors="replace")


def key_values(path: Path, *, needed: bool = True) -> dict[str, str]:
    """The lines "key: value" of a file; other lines do not count.

    Args:
        path: of the file.
        needed: False gives no lines where there is no such file.

    Raises:
        ValueError: there is no such file.
    """
    if not path.is_file():
        if not needed:
            return {}
        raise ValueError(f"{path.name} is missing")
    pairs = (line.split(":", 1) for line in read_text(path).splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def number(text: str | None) -> float | None:
    """A number from a text; None where there is none."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def frame(info: dict[str, str], key: str, name: str) -> int:
    """The number of a frame of a cine, counted from 1, from the lines of the file ``name``.

    Raises:
        ValueError: none, or one beyond NbFrame, where the file says how many there are.
    """
    if not re.fullmatch(r"[1-9]\d*", info.get(key, "")):
        raise ValueError(f"{name} must hold {key}: a frame number, got {info.get(key)!r}")
    most = number(info.get("NbFrame"))
    if most is not None and int(info[key]) > most:
        raise ValueError(f"{name} names frame {info[key]} for {key}, and NbFrame: {most:g}")
    return int(info[key])


def read_points(path: Path, shape: tuple[int, int], first_pixel: float) -> np.ndarray:
    """Corners ``(P,2)`` (row, column), P ≥ 3, of a contour given as x, y per line.

    Args:
        shape: of the image that the points must lie in.
        first_pixel: the file's coordinate of the first pixel's centre.

    Raises:
        ValueError: lines that are not two numbers, fewer than three, a point outside the image.
    """
    try:
        lines = read_text(path).splitlines()
        fields = [re.split(r"[\s,;]+", line.strip(" \t,;")) for line in lines if line.strip()]
        rows = [[float(field) for field in line] for line in fields]
    except (ValueError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as x, y per line: {error}") from error
    if len(rows) < 3 or any(len(row) != 2 for row in rows):
        raise ValueError(f"{path.name} must hold at least 3 lines of two numbers x, y")
    points = np.array(rows)[:, ::-1] - first_pixel  # x, y → row, column
    inside = (points >= -1) & (points <= shape)  # NaN compares false
    if not inside.all():
        at = int(np.argwhere(~inside)[0, 0])
        raise ValueError(
            f"{path.name}: point {at} is x, y = {rows[at]}, outside the image of "
            f"{shape[0]} × {shape[1]} pixels"
        )
    return points
