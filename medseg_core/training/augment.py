"""Random changes of training images, with everything that must change along."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.physics import deform
from medseg_core.training.augment_map import (
    SpatialMap,
    bspline_displacement,
    quarter_turns,
    rotation,
)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """A random version of a batch, ``augment(batch, gen)``; everything is off by default.

    Geometry is drawn once per sample and applied in one resampling to every tensor of the batch
    that has the spatial axes of ``batch["image"]``: real-valued ones by linear interpolation, bool
    and integer ones (masks, labels) by the nearest pixel. ``points`` and ``boxes`` move with
    them. Only ``image`` changes its intensities. Everything else passes as it is. Content that
    leaves the image is lost; what comes in repeats the image's edge, but integer maps get
    ``fill`` there, so that a loss can leave it out.

    Made for ``training.samplers.batches(..., augment=)``. Taught in ``bifseg-interactive``.

    Args:
        flip: mirror each of these spatial axes with probability ½; True: all of them.
        rot90: quarter turns among these spatial axes, all equally likely; True: all of them. Their
            sizes (and spacings) must be equal.
        rotate_deg: largest angle: uniform in ± this about the centre, in 3-D about each axis (one
            number, or one for each axis).
        scale: (lo, hi) of the zoom, log-uniform; above 1 enlarges.
        shift: largest shift in pixels along each axis, uniform in ± this.
        elastic: (spacing, amplitude) in pixels of a random free-form deformation: cubic B-splines
            on a coarse grid; the amplitude at most 0.4 × spacing, so that nothing folds.
        gamma: (lo, hi) of the exponent, log-uniform, between the channel's minimum and maximum.
        contrast: (lo, hi) of the factor about the channel's mean, log-uniform; nothing is clipped.
        noise: largest standard deviation of white noise, uniform in 0..this, in the image's units.
        invert: probability of inverting the intensities between the channel's minimum and maximum.
        spacing: mm per pixel, so that rotations of anisotropic images stay rigid; None: isotropic.
        fill: of integer maps outside the old image (of ``instances``: 0); None repeats the edge.

    Gamma and contrast are drawn for each channel on its own (colour jitter of an RGB image),
    inversion and the noise level for each sample. They follow one another as inversion, gamma,
    contrast, noise, after the geometry.

    A batch holds ``image`` (N,C,*S), 2-D or 3-D; ``points`` (N,P,ndim) or a list of N (P,ndim), in
    pixels, axis order (NaN = unknown stays NaN); ``boxes`` (N,2·ndim), (N,B,2·ndim) or a list of N
    (B,2·ndim), half-open, each replaced by the box around its moved corners, clipped to the image
    (integer boxes grow to integers); maps (N,*S) or (N,K,*S).

    Raises:
        ValueError: an option out of range or that does not fit the image, a batch without image.
        TypeError: an image of integers.

    >>> augment = Augment(flip=True, rotate_deg=15, scale=(0.85, 1.15), invert=0.3)
    >>> batch = {"image": torch.rand(2, 1, 32, 32), "mask": torch.rand(2, 1, 32, 32) > 0.5}
    >>> augment(batch, torch.Generator().manual_seed(0))["mask"].dtype
    torch.bool
    """

    flip: bool | Sequence[int] = False
    rot90: bool | Sequence[int] = False
    rotate_deg: float | Sequence[float] = 0.0
    scale: tuple[float, float] | None = None
    shift: float = 0.0
    elastic: tuple[float, float] | None = None
    gamma: tuple[float, float] | None = None
    contrast: tuple[float, float] | None = None
    noise: float = 0.0
    invert: float = 0.0
    spacing: Sequence[float] | None = None
    fill: int | None = 255

    def __post_init__(self) -> None:
        for name in ("scale", "gamma", "contrast"):
            limits = getattr(self, name)
            if limits is not None and not (len(limits) == 2 and 0 < limits[0] <= limits[1]):
                raise ValueError(f"{name} must be (lo, hi) with 0 < lo <= hi, got {limits}")
        for name in ("rotate_deg", "shift", "noise"):
            checks.finite(checks.between(getattr(self, name), name, 0, None), name)
        checks.between(self.invert, "invert", 0, 1)
        if self.elastic is not None:
            step, amplitude = self.elastic
            if not (step >= 1 and 0 <= amplitude <= 0.4 * step):
                raise ValueError(
                    "elastic must be (spacing, amplitude) with spacing >= 1 pixel and 0 <= "
                    f"amplitude <= 0.4 x spacing (no folds), got {self.elastic}"
                )
        if self.spacing is not None and not all(0 < s < math.inf for s in self.spacing):
            raise ValueError(f"spacing must be positive, got {self.spacing}")

    def __call__(self, batch: dict[str, Any], gen: torch.Generator) -> dict[str, Any]:
        if "image" not in batch:
            raise ValueError(f"batch must hold 'image', got {sorted(batch)}")
        image = batch["image"]
        checks.choice(image.ndim, "axes of image (N, C, *S)", (4, 5))
        if not image.is_floating_point():
            raise TypeError(f"image must hold real numbers, got {image.dtype}")
        out = dict(batch)
        moves = self._draw(len(image), tuple(image.shape[2:]), gen)
        if moves is not None:
            out |= self._move(batch, moves.to(image.device))
        out["image"] = self._intensity(out["image"], gen)
        return out

    def _draw(self, n: int, size: tuple[int, ...], gen: torch.Generator) -> SpatialMap | None:
        ndim = len(size)
        if self.spacing is not None and len(self.spacing) != ndim:
            raise ValueError(f"spacing must have {ndim} numbers, got {self.spacing}")
        mm = torch.tensor(self.spacing or (1.0,) * ndim, dtype=torch.float32)
        linear = torch.eye(ndim).repeat(n, 1, 1)
        flips, turns = (self._axes(name, ndim) for name in ("flip", "rot90"))
        if flips:
            mirrored = torch.zeros(n, ndim)
            mirrored[:, flips] = _uniform((n, len(flips)), 0, 1, gen).round()
            linear = torch.diag_embed(1 - 2 * mirrored)
        if turns:
            if len({(size[a], float(mm[a])) for a in turns}) > 1:
                raise ValueError(
                    f"rot90 needs axes of one size and spacing, got axes {turns} of an image of "
                    f"size {size} and spacing {tuple(mm.tolist())}"
                )
            linear = quarter_turns(n, ndim, turns, gen) @ linear
        if _on(self.rotate_deg):
            limit = torch.tensor(self.rotate_deg, dtype=torch.float32).deg2rad()
            about = 1 if ndim == 2 else 3
            if limit.numel() not in (1, about):
                takes = "one number" if ndim == 2 else "one number or three"
                raise ValueError(f"rotate_deg must be {takes} in {ndim}-D, got {self.rotate_deg}")
            turn = rotation(limit * _uniform((n, about), -1, 1, gen))
            linear = (turn * mm / mm[:, None]) @ linear  # rigid in mm: pixels → mm → pixels
        if self.scale is not None:
            linear = linear * _log_uniform((n, 1, 1), self.scale, gen)
        shift = torch.zeros(n, ndim)
        if self.shift:
            shift = _uniform((n, ndim), -self.shift, self.shift, gen)
        disp = None
        if self.elastic is not None:
            disp = bspline_displacement(size, n, *self.elastic, gen)
        on = flips or turns or _on(self.rotate_deg) or self.scale is not None or self.shift
        return SpatialMap(size, linear, shift, disp) if on or disp is not None else None

    def _axes(self, name: str, ndim: int) -> list[int]:
        value = getattr(self, name)
        axes = list(range(ndim)) if value is True else list(value or ())
        if any(not 0 <= a < ndim for a in axes) or len(set(axes)) < len(axes):
            raise ValueError(f"{name} must name spatial axes among 0..{ndim - 1}, got {value}")
        return axes

    def _move(self, batch: dict[str, Any], moves: SpatialMap) -> dict[str, Any]:
        size, ndim, n = moves.size, len(moves.size), len(moves.shift)
        sources = moves.sources()
        limit = torch.tensor(size).to(sources)
        outside = ((sources < -0.5) | (sources > limit - 0.5)).any(-1)  # (N, *S)
        out = {}
        for key, value in batch.items():
            if key in ("points", "boxes"):
                out[key] = _on_ragged(value, moves, key)
            elif (
                isinstance(value, Tensor)
                and value.ndim in (ndim + 1, ndim + 2)
                and value.shape[0] == n
                and tuple(value.shape[-ndim:]) == size
            ):
                out[key] = self._resample(key, value, sources, outside)
        return out

    def _resample(self, key: str, value: Tensor, sources: Tensor, outside: Tensor) -> Tensor:
        channels = value.ndim == sources.ndim  # (N, K, *S), else (N, *S)
        x = value if channels else value[:, None]
        if value.is_floating_point():
            y = deform.sample(x, sources.to(x.dtype))
        else:
            y = deform.sample(x.to(sources.dtype), sources, mode="nearest").to(x.dtype)
            if x.dtype != torch.bool and self.fill is not None:
                y = y.masked_fill(outside[:, None], 0 if key == "instances" else self.fill)
        return y if channels else y[:, 0]

    def _intensity(self, x: Tensor, gen: torch.Generator) -> Tensor:
        ndim = x.ndim - 2
        space, ones = tuple(range(2, x.ndim)), (1,) * ndim
        each, every = (len(x), 1, *ones), (*x.shape[:2], *ones)
        if self.invert or self.gamma is not None:
            low, high = x.amin(space, keepdim=True), x.amax(space, keepdim=True)
        if self.invert:
            chosen = _uniform(each, 0, 1, gen).to(x.device) < self.invert
            x = torch.where(chosen, low + high - x, x)
        if self.gamma is not None:
            span = (high - low).clamp_min(1e-12)
            exponent = _log_uniform(every, self.gamma, gen).to(x)
            x = low + span * ((x - low) / span).clamp(0, 1) ** exponent
        if self.contrast is not None:
            mean = x.mean(space, keepdim=True)
            x = mean + _log_uniform(every, self.contrast, gen).to(x) * (x - mean)
        if self.noise:
            sd = _uniform(each, 0, self.noise, gen).to(x)
            x = x + sd * torch.randn(x.shape, generator=gen, device=gen.device).to(x)
        return x


def _on_ragged(value: Any, moves: SpatialMap, key: str) -> Any:
    """Points or boxes of a batch: a tensor, or a list with one tensor per sample."""
    if isinstance(value, Tensor):
        return _on_tensor(value, moves, key)
    if len(value) != len(moves.shift):
        raise ValueError(f"{key} must hold {len(moves.shift)} tensors, got {len(value)}")
    return [_on_tensor(v[None], moves.one(i), key)[0] for i, v in enumerate(value)]


def _on_tensor(value: Tensor, moves: SpatialMap, key: str) -> Tensor:
    ndim = len(moves.size)
    width = ndim if key == "points" else 2 * ndim
    single = key == "boxes" and value.ndim == 2  # (N, 2·ndim): one box per sample
    x = (value[:, None] if single else value).to(moves.shift)
    checks.shape(x, key, f"N P {width}", N=len(moves.shift))
    if key == "points":
        return moves.push(x).to(value.dtype if value.is_floating_point() else x.dtype)
    y = moves.push_boxes(x)
    if not value.is_floating_point():
        y = torch.cat(((y[..., :ndim] + 1e-3).floor(), (y[..., ndim:] - 1e-3).ceil()), -1)
    y = y.to(value.dtype)
    return y[:, 0] if single else y


def _on(value: float | Sequence[float]) -> bool:
    return any(value) if isinstance(value, Sequence) else bool(value)


def _uniform(shape: tuple[int, ...], lo: float, hi: float, gen: torch.Generator) -> Tensor:
    """Drawn on the generator's device, returned on the CPU."""
    return lo + (hi - lo) * torch.rand(shape, generator=gen, device=gen.device).cpu()


def _log_uniform(shape: tuple[int, ...], limits: Sequence[float], gen: torch.Generator) -> Tensor:
    return _uniform(shape, math.log(limits[0]), math.log(limits[1]), gen).exp()
