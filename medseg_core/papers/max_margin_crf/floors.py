"""What scores without any learning of networks: dark pixels, and the mean shape.

Labels and targets are (N,H,W).

Taught in: max-margin-crf.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg_core.papers.max_margin_crf.scores import overlap

WINDOW = 7  # pixels of the mean that takes the speckle out


def best_level(image: Tensor, target: Tensor, seen: Tensor) -> float:
    """The threshold below which dark pixels agree best with the truth, of 81 from −2 to 2.

    Args:
        image: (N,1,H,W) of mean 0 and deviation 1.
        target: 0 or 1.
        seen: (N,H,W) bool, the fan that the scanner shows.

    Taught in: max-margin-crf.
    """
    levels = torch.linspace(-2, 2, 81)
    return float(max(levels, key=lambda t: overlap(dark(image, seen, t), target).nanmean()))


def dark(image: Tensor, seen: Tensor, level: float | Tensor) -> Tensor:
    """Pixels of the fan that are darker than the level in the smoothed image.

    Taught in: max-margin-crf.
    """
    around = F.pad(image, (WINDOW // 2,) * 4, mode="replicate")
    return (F.avg_pool2d(around, WINDOW, 1)[:, 0] < level) & seen


def fan(loaded: Mapping[str, Any], n: int | None = None) -> Tensor:
    """(N,H,W) bool: where the first n images of a part show anything; everywhere if unknown."""
    return loaded.get("sector", torch.ones_like(loaded["mask"]))[:n, 0].bool()


def mean_shape(target: Tensor, n: int) -> Tensor:
    """Pixels that are inside in most of the training images, for n images.

    Taught in: max-margin-crf.
    """
    return (target.float().mean(0) > 0.5).expand(n, -1, -1)
