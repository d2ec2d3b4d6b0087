"""Where the retina's floor is hard to see, and what the obvious rule makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medseg_core import checks


def steepest_borders(image: Tensor) -> Tensor:
    """ILM and BM as the steepest change of each column, after some smoothing: no learning.

    Args:
        image: (N, 1, H, W) B-scans.

    Returns:
        (N, 2, W) rows: where the column brightens most (ILM) and where it darkens most (BM).

    Taught in: selected-dimensions-oct.
    """
    checks.shape(image, "image", "N 1 H W")
    smooth = ndimage.gaussian_filter(image[:, 0].numpy(), (0, image.shape[2] / 50, 2))
    change = np.diff(smooth, axis=1)  # between row r and r + 1
    return torch.from_numpy(np.stack([change.argmax(1), change.argmin(1)], 1) + 0.5)


def faded_columns(data: Mapping[str, Any]) -> Tensor:
    """(N, W) bool: columns in which little light is left at BM.

    Those are columns under drusen (the gap between RPEDC and BM exceeds its median by 3 % of the
    height) and, where the phantom tells its ``params``, those in a vessel's shadow or in the band
    of low signal.

    Args:
        data: B-scans of the task "layers", as the phantom or a reader gives them.

    Taught in: selected-dimensions-oct.
    """
    gap = data["surfaces"][:, 2] - data["surfaces"][:, 1]
    out = gap - gap[data["valid"]].median() > 0.03 * data["image"].shape[2]
    for i, params in enumerate(data.get("params", [])):
        for column, wide, _ in [*params["shadows"], *filter(None, [params["band"]])]:
            out[i] |= (torch.arange(out.shape[1]) - column).abs() < wide / 2
    return out


def stretches(mask: Tensor) -> np.ndarray:
    """Lengths of the runs of True along the rows of a mask (N, W).

    Taught in: selected-dimensions-oct.
    """
    checks.shape(mask, "mask", "N W")
    # Each row is labelled by itself: what touches in the next row is another B-scan.
    runs = [np.bincount(ndimage.label(row)[0])[1:] for row in mask.numpy()]
    return np.concatenate([*runs, np.zeros(0, int)])
