"""Checks of the arguments that solvers on a grid of pixels share."""

from __future__ import annotations

import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.solvers.grid_cut import OFFSETS


def checked_image(image: Tensor, name: str) -> tuple[int, ...]:
    """The size *S of an image ``(N,1,*S)`` with pixels, two or three axes, all values finite."""
    checks.floating(image, name)
    size = checks.shape(image, name, "N 1 *S")["S"]
    if len(size) not in (2, 3) or 0 in size:
        raise ValueError(
            f"{name} must be (N,1,H,W) or (N,1,D,H,W) with at least one pixel along each axis, "
            f"got {tuple(image.shape)}"
        )
    checks.finite(image, name)
    return size


def checked_connectivity(connectivity: int | None, ndim: int, default: tuple[int, int]) -> int:
    """The neighbourhood, one that fits `ndim`; None: `default` for the plane and for space."""
    if connectivity is None:
        return default[ndim - 2]
    fitting = [c for c, steps in OFFSETS.items() if len(steps[0]) == ndim]
    return checks.choice(connectivity, "connectivity", fitting)


def checked_prob(prob: Tensor, image: Tensor) -> Tensor:
    """Probabilities of the object ``(N,1,*S)``, in [0,1], of the image's shape."""
    checked_image(prob, "prob")
    checks.same_shape(prob, image, ("prob", "image"))
    return checks.between(prob, "prob", 0, 1)


def checked_scribbles(scribbles: Tensor, image: Tensor, name: str = "scribbles") -> Tensor:
    """Integers ``(N,*S)``: 1 object, 0 background, 255 none; for an image ``(N,1,*S)``."""
    whole = isinstance(scribbles, Tensor) and not scribbles.is_floating_point()
    if not whole or scribbles.dtype == torch.bool:
        kind = getattr(scribbles, "dtype", type(scribbles))
        raise TypeError(f"{name} must be an integer tensor of 1, 0 and 255, got {kind}")
    checks.shape(scribbles, name, "N *S", N=image.shape[0], S=image.shape[2:])
    known = (scribbles == 0) | (scribbles == 1) | (scribbles == 255)
    if not bool(known.all()):
        place = [int(i) for i in (~known).nonzero()[0]]
        raise ValueError(
            f"{name} must be 1 (object), 0 (background) or 255 (none), "
            f"got {int(scribbles[tuple(place)])} at index {place}"
        )
    return scribbles
