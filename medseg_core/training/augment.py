"""Random changes of training images, with everything that must change along."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.physics import deform


@dataclass(frozen=True, kw_only=True)
class Augment:
    """A random version of a batch, ``augment(batch, gen)``; everything is off by default.

    Geometry is drawn once per sample and applied in one resampling to every tensor of the batch
    that has the spatial axes of ``batch["image"]``: real-valued ones by linear interpolation, masks
    (bool) and labels (integers) by the nearest pixel. Only ``image`` changes its intensities.
    Everything else passes as it is. What comes in from outside repeats the image's edge, but labels
    get 255 there, so that a loss leaves it out.

    Gamma is drawn for each channel on its own (colour jitter of an RGB image), inversion for each
    sample; they follow one another as inversion, gamma, after the geometry. Made for
    ``training.samplers.batches(..., augment=)``.

    Args:
        flip: mirror each spatial axis with probability ½.
        rotate_deg: largest angle: uniform in ± this about the centre, in 3-D about each axis.
        scale: (lo, hi) of the zoom, log-uniform; above 1 enlarges.
        gamma: (lo, hi) of the exponent, log-uniform, between the channel's minimum and maximum.
        invert: probability of inverting the intensities between the channel's minimum and maximum.

    A batch holds ``image`` (N,C,*S), 2-D or 3-D, and maps (N,*S) or (N,K,*S).

    Raises:
        ValueError: an option out of range, a batch without image.
        TypeError: an image of integers.

    Taught in: bifseg-interactive.

    >>> augment = Augment(flip=True, rotate_deg=15, scale=(0.85, 1.15), invert=0.3)
    >>> batch = {"image": torch.rand(2, 1, 32, 32), "mask": torch.rand(2, 1, 32, 32) > 0.5}
    >>> augment(batch, torch.Generator().manual_seed(0))["mask"].dtype
    torch.bool
    """

    flip: bool = False
    rotate_deg: float = 0.0
    scale: tuple[float, float] | None = None
    gamma: tuple[float, float] | None = None
    invert: float = 0.0

    def __post_init__(self) -> None:
        for name in ("scale", "gamma"):
            limits = getattr(self, name)
            if limits is not None and not (len(limits) == 2 and 0 < limits[0] <= limits[1]):
                raise ValueError(f"{name} must be (lo, hi) with 0 < lo <= hi, got {limits}")
        checks.finite(checks.between(self.rotate_deg, "rotate_deg", 0, None), "rotate_deg")
        checks.between(self.invert, "invert", 0, 1)

    def __call__(self, batch: dict[str, Any], gen: torch.Generator) -> dict[str, Any]:
        if "image" not in batch:
            raise ValueError(f"batch must hold 'image', got {sorted(batch)}")
        image = checks.floating(batch["image"], "image")
        checks.choice(image.ndim, "axes of image (N, C, *S)", (4, 5))
        out = dict(batch)
        if self.flip or self.rotate_deg or self.scale is not None:
            linear = self._draw(len(image), image.ndim - 2, gen).to(image.device)
            out |= _moved(batch, linear, tuple(image.shape[2:]))
        out["image"] = self._intensity(out["image"], gen)
        return out

    def _draw(self, n: int, ndim: int, gen: torch.Generator) -> Tensor:
        """Linear maps (N,ndim,ndim): content moves about the image's centre from q to F q."""
        linear = torch.eye(ndim).repeat(n, 1, 1)
        if self.flip:
            mirrored = _uniform((n, ndim), 0, 1, gen).round()
            linear = torch.diag_embed(1 - 2 * mirrored)
        if self.rotate_deg:
            limit = torch.tensor(self.rotate_deg, dtype=torch.float32).deg2rad()
            linear = _rotation(limit * _uniform((n, 1 if ndim == 2 else 3), -1, 1, gen)) @ linear
        if self.scale is not None:
            linear = linear * _log_uniform((n, 1, 1), self.scale, gen)
        return linear

    def _intensity(self, x: Tensor, gen: torch.Generator) -> Tensor:
        if not self.invert and self.gamma is None:
            return x
        space, ones = tuple(range(2, x.ndim)), (1,) * (x.ndim - 2)
        low, high = x.amin(space, keepdim=True), x.amax(space, keepdim=True)
        if self.invert:
            chosen = _uniform((len(x), 1, *ones), 0, 1, gen).to(x.device) < self.invert
            x = torch.where(chosen, low + high - x, x)
        if self.gamma is not None:
            span = (high - low).clamp_min(1e-12)
            exponent = _log_uniform((*x.shape[:2], *ones), self.gamma, gen).to(x)
            x = low + span * ((x - low) / span).clamp(0, 1) ** exponent
        return x


def _moved(batch: dict[str, Any], linear: Tensor, size: tuple[int, ...]) -> dict[str, Tensor]:
    """The tensors of the batch that have the image's spatial axes, resampled."""
    n, ndim = len(linear), len(size)
    centre = (torch.tensor(size).to(linear) - 1) / 2
    p = deform.identity_grid(size, linear).expand(n, *size, ndim)
    p = (p - centre).reshape(n, -1, ndim)  # (N, pixels, ndim)
    sources = (p @ torch.linalg.inv(linear).mT + centre).reshape(n, *size, ndim)
    outside = ((sources < -0.5) | (sources > torch.tensor(size).to(linear) - 0.5)).any(-1)
    return {
        key: _resampled(value, sources, outside)
        for key, value in batch.items()
        if isinstance(value, Tensor)
        and value.ndim in (ndim + 1, ndim + 2)
        and value.shape[0] == n
        and tuple(value.shape[-ndim:]) == size
    }


def _resampled(value: Tensor, sources: Tensor, outside: Tensor) -> Tensor:
    """A map (N,K,*S) or (N,*S) read at ``sources (N,*S,ndim)``."""
    channels = value.ndim == sources.ndim
    x = value if channels else value[:, None]
    if value.is_floating_point():
        y = deform.sample(x, sources.to(x.dtype))
    else:
        y = deform.sample(x.to(sources.dtype), sources, mode="nearest").to(x.dtype)
        if x.dtype != torch.bool:
            y = y.masked_fill(outside[:, None], 255)
    return y if channels else y[:, 0]


def _rotation(angles: Tensor) -> Tensor:
    """Rotation matrices from angles in radians: (N,1) -> (N,2,2), or (N,3) -> (N,3,3).

    In 2-D an angle turns +column towards +row. In 3-D angle k turns about axis k, the last axis
    first; about the slice axis it is the rotation of 2-D.
    """
    n, ndim = len(angles), 2 if angles.shape[1] == 1 else 3
    out = torch.eye(ndim).expand(n, ndim, ndim)
    planes = {2: [(0, 1)], 3: [(1, 2), (0, 2), (0, 1)]}[ndim]
    for k, (a, b) in enumerate(planes):
        turn = torch.eye(ndim).repeat(n, 1, 1)
        cos, sin = angles[:, k].cos(), angles[:, k].sin()
        turn[:, a, a], turn[:, b, b] = cos, cos
        turn[:, a, b], turn[:, b, a] = sin, -sin
        out = out @ turn
    return out


def _uniform(shape: tuple[int, ...], lo: float, hi: float, gen: torch.Generator) -> Tensor:
    """Drawn on the generator's device, returned on the CPU."""
    return lo + (hi - lo) * torch.rand(shape, generator=gen, device=gen.device).cpu()


def _log_uniform(
    shape: tuple[int, ...], limits: tuple[float, float], gen: torch.Generator
) -> Tensor:
    return _uniform(shape, math.log(limits[0]), math.log(limits[1]), gen).exp()
