"""8-bit grey images from files, however they were saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError


def read_grey(path: Path) -> np.ndarray:
    """Grey values ``(H,W)`` uint8 of an image that may be stored as R = G = B or with a palette.

    Raises:
        ValueError: no such image, more than 8 bits, or colour; named by its file.
    """
    kind = path.suffix[1:].upper() or "image"
    try:
        with Image.open(path) as file:
            pixels = np.asarray(file.convert("RGB") if file.mode == "P" else file)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path.name} cannot be read as {kind}: {error}") from error
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ValueError(f"{path.name} must be an 8-bit image, got {pixels.dtype}{pixels.shape}")
    if pixels.ndim == 3:
        if pixels.shape[2] < 3 or (pixels[..., :3] != pixels[..., :1]).any():
            raise ValueError(f"{path.name} must be grey (R = G = B), got colour")
        pixels = pixels[..., 0]
    return pixels
