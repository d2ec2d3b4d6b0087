"""How far surfaces lie from the truth, and whether they keep their order.

Shapes: surfaces (n,N,W) in rows; ``data`` holds the true ``surfaces`` and ``valid`` (n,N,W) bool.

Taught in: ipm-surfaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def masd(placed: Tensor, data: Mapping[str, Tensor]) -> Tensor:
    """Mean absolute surface distance (n,N), rows, in each image; NaN where nothing is known."""
    off = torch.where(data["valid"], (placed - data["surfaces"]).abs(), torch.nan)
    return off.nanmean(2)


def broken(surfaces: Tensor) -> Tensor:
    """Columns (n,W) in which the order is broken, by more than 1e-6 rows."""
    return (surfaces.diff(dim=1) < -1e-6).any(1)


def outside(surfaces: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Columns (n,W) with a gap outside [low, high], both (N-1,), by more than 1e-6 rows."""
    gaps = surfaces.diff(dim=1)
    return ((gaps < low[:, None] - 1e-6) | (gaps > high[:, None] + 1e-6)).any(1)


def score(placed: Tensor, data: Mapping[str, Tensor]) -> dict[str, Any]:
    """Per cell (image, surface) the MASD; its spread, and the share of columns out of order."""
    cells = masd(placed, data).flatten().double().numpy()
    return {
        "masd": cells,
        "sd": float(np.nanstd(cells)),
        "broken": float(broken(placed).float().mean()),
    }


def row(placed: Tensor, data: Mapping[str, Tensor]) -> dict[str, Any]:
    """The scores of surfaces that needed no training, and the surfaces as extras "placed"."""
    return score(placed, data) | {"extras": {"placed": placed}}
