"""Whatever holds images, as a list of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_array(x: Any) -> np.ndarray:
    """A tensor on any device, an array or numbers as an array."""
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)


def as_pictures(x: Any, name: str) -> list[np.ndarray]:
    """A list of images, or a batch, as arrays (H, W) or (H, W, 3)."""
    items = list(x) if isinstance(x, (list, tuple)) else _split(x)
    if not items:
        raise ValueError(f"{name} must hold at least one image, got none")
    return [_picture(item, name) for item in items]


def is_list(x: Any) -> bool:
    return isinstance(x, (list, tuple)) or len(_split(x)) > 1


def _split(x: Any) -> list[Any]:
    x = as_array(x)
    if x.ndim == 4 or (x.ndim == 3 and 3 not in (x.shape[0], x.shape[2]) and x.shape[0] > 1):
        return list(x)  # (N, C, H, W) or (N, H, W)
    return [x]


def _picture(x: Any, name: str) -> np.ndarray:
    x = as_array(x)
    shape = x.shape
    while x.ndim > 2 and x.shape[0] == 1:
        x = x[0]
    if np.iscomplexobj(x):
        raise TypeError(f"{name} must be real, got complex: show magnitude and phase")
    if x.ndim == 3 and x.shape[0] == 3:
        x = x.transpose(1, 2, 0)  # (3, H, W) -> (H, W, 3)
    if not (x.ndim == 2 or (x.ndim == 3 and x.shape[2] == 3)):
        raise ValueError(f"{name} must hold one image (H, W) or (3, H, W), got shape {shape}")
    if x.ndim == 3 and x.dtype.kind == "f":
        x = x.clip(0, 1)
    return x
