"""How well labels agree with the truth, and how ragged they are.

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


def border(labels: Tensor) -> float:
    """Cut pairs of vertical and horizontal neighbours in all images."""
    return float((labels.diff(dim=1) != 0).sum() + (labels.diff(dim=2) != 0).sum())


def near_border(target: Tensor, pixels: int) -> Tensor:
    """(N,H,W) bool: within so many pixels of the truth's border, inside or outside."""
    bands = [
        ndimage.binary_dilation(y, iterations=pixels) ^ ndimage.binary_erosion(y, iterations=pixels)
        for y in target.numpy()
    ]
    return torch.from_numpy(np.stack(bands))


def main_pieces(labels: Tensor) -> Tensor:
    """(N,H,W) bool: of each image the largest connected piece, its holes filled."""
    return torch.from_numpy(np.stack([_main_piece(x) for x in labels.numpy()]))


def _main_piece(labels: np.ndarray) -> np.ndarray:
    found, count = ndimage.label(labels)
    largest = 1 + np.argmax(np.bincount(found.ravel())[1:]) if count else 0
    return ndimage.binary_fill_holes((found == largest) & (labels > 0))
