"""How well labels agree with the truth, and where they do not.

All labels and truths are (N,H,W), 0 or 1.

Taught in: max-margin-crf.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medseg_core.metrics.overlap import jaccard


def overlap(labels: Tensor, target: Tensor) -> Tensor:
    """Jaccard index (N,) in per cent: shared pixels over pixels that either calls inside.

    NaN where the truth is empty. Taught in: max-margin-crf.
    """
    return 100 * jaccard(labels[:, None].bool(), target[:, None].bool())[:, 0]


def mean_overlap(labels: Tensor, target: Tensor) -> float:
    """Mean Jaccard index in per cent over the images that have one."""
    return float(overlap(labels, target).nanmean())


def pieces(labels: Tensor) -> float:
    """Connected pieces per image (4-neighbourhood); 1 is right."""
    return float(np.mean([ndimage.label(x)[1] for x in labels.numpy()]))


def near_border(target: Tensor, pixels: int) -> Tensor:
    """(N,H,W) bool: within so many pixels of the truth's border, inside or outside."""
    bands = [
        ndimage.binary_dilation(y, iterations=pixels) ^ ndimage.binary_erosion(y, iterations=pixels)
        for y in target.numpy()
    ]
    return torch.from_numpy(np.stack(bands))
