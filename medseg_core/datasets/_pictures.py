"""Grey pictures, however they were saved: 1 or 8 bits, with a palette, with R = G = B, with alpha.

Images and masks go through the same function, so that what is right for one is right for the other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
READ_ERRORS = (UnidentifiedImageError, OSError, SyntaxError, ValueError)


def shape(path: Path) -> tuple[int, int]:
    """Rows and columns of a picture, from its header.

    Raises:
        ValueError: no picture; named by its file.
    """
    try:
        with Image.open(path) as file:
            return file.height, file.width
    except READ_ERRORS as error:
        raise _unreadable(path, error) from error


def read_grey(path: Path) -> np.ndarray:
    """Grey values ``(H,W)`` uint8; a picture of 1 bit holds 0 and 255.

    Raises:
        ValueError: no picture, several of them in one file, more than 8 bits, colour, or pixels
            that are transparent to different degrees; named by its file.
    """
    try:
        with Image.open(path) as file:
            frames, mode = getattr(file, "n_frames", 1), file.mode
            if mode == "1":
                file = file.convert("L")
            elif mode in ("P", "PA") or "transparency" in file.info:
                file = file.convert("RGBA")
            pixels = np.asarray(file)
    except READ_ERRORS as error:
        raise _unreadable(path, error) from error
    if frames > 1:
        raise ValueError(f"{path.name} must hold one picture, got {frames}")
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ValueError(f"{path.name} must be an 8-bit image, got {pixels.dtype}{pixels.shape}")
    if pixels.ndim == 2:
        return pixels
    *colours, alpha = np.moveaxis(pixels, 2, 0)
    if mode == "RGB" and pixels.shape[2] == 3:
        colours = [*colours, alpha]
    elif (alpha != alpha.flat[0]).any():
        raise ValueError(f"{path.name} must be opaque, its alpha goes from {alpha.min()} on")
    if any((colour != colours[0]).any() for colour in colours[1:]):
        raise ValueError(f"{path.name} must be grey (R = G = B), got colour")
    return colours[0]


def _unreadable(path: Path, error: Exception) -> ValueError:
    kind = path.suffix[1:].upper() or "image"
    return ValueError(f"{path.name} cannot be read as {kind}: {error}")
