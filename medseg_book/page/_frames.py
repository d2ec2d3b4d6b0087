"""Pictures for sliders: what a chapter drew, as small files of even quality."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# Best first: step of the grey and colour levels of a lossless picture (an error of at most half a
# step of 255), quality of a lossy one. Each frame takes the smaller.
QUALITIES = ((4, 85), (8, 70), (12, 55), (16, 40))
DPIS = (150, 125, 100)  # of a figure; 100 per inch are shown, more is sharper on dense screens


def as_image(result: Any, dpi: int = DPIS[0]) -> Image.Image:
    """What `render` returned as an RGB image; figures are closed."""
    from PIL import Image

    if hasattr(result, "savefig"):
        import matplotlib.pyplot as plt

        picture = _draw(result, dpi)
        plt.close(result)
        return picture
    if isinstance(result, Image.Image):
        return result.convert("RGB")
    array = result.detach().cpu().numpy() if hasattr(result, "detach") else result
    if not isinstance(array, np.ndarray):
        raise TypeError(
            "render must return a matplotlib figure, a PIL image or an array, "
            f"got {type(result).__name__}"
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"render must return an array (H, W) or (H, W, 3), got {array.shape}")
    if array.dtype != np.uint8:
        if not np.isfinite(array).all():
            raise ValueError("render must return finite values, got NaN or infinity")
        array = np.rint(255 * array.astype(float).clip(0, 1)).astype(np.uint8)
    image = Image.fromarray(array).convert("RGB")
    times = max(1, math.ceil(320 / image.width))  # small images keep their pixels square
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def finest_dpi(figure: Any, target: float) -> int:
    """The finest resolution at which this figure weighs no more than `target` bytes."""
    fits = (d for d in DPIS if len(_smallest(_draw(figure, d), *QUALITIES[1])) <= target)
    return next(fits, DPIS[-1])


def encode(pictures: Sequence[Image.Image], target: int, limit: int) -> list[bytes]:
    """All pictures as WebP, as good as `target` bytes in all allow; never more than `limit`."""
    for step, quality in QUALITIES:
        encoded = [_smallest(picture, step, quality) for picture in pictures]
        if sum(map(len, encoded)) <= target:
            return encoded
    total = sum(map(len, encoded))
    if total > limit:
        raise ValueError(
            f"frames takes at most {limit // 1000} kB of pictures, got {total // 1000} kB in "
            f"{len(pictures)} pictures of {pictures[0].width} x {pictures[0].height} pixels: "
            "draw fewer or smaller ones"
        )
    return encoded


def _draw(figure: Any, dpi: int) -> Image.Image:
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return Image.open(buffer).convert("RGB")


def _smallest(picture: Image.Image, step: int, quality: int) -> bytes:
    """WebP: drawings are smaller (and sharper) lossless with fewer levels, photographs lossy."""
    # Counted from white, which stays white; a palette would mix thin coloured lines with grey.
    rounded = picture.point([max(0, 255 - step * round((255 - v) / step)) for v in range(256)] * 3)
    return min(_webp(rounded, lossless=True), _webp(picture, quality=quality), key=len)


def _webp(picture: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="webp", method=4, **options)
    return buffer.getvalue()
