"""Deformation of images: the one place that turns (row, column) into `grid_sample`'s (x, y)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medseg_core import checks
from medseg_core.physics.noise import gaussian_field


def sample(x: Tensor, points: Tensor, *, mode: str = "bilinear", padding: str = "border") -> Tensor:
    """Values of an image at real-valued points.

    Args:
        x: ``(N,C,*S)``, 2 or 3 spatial axes.
        points: ``(N,*G,ndim)`` in pixels, axis order; G has as many axes as S.
        mode: "bilinear" or "nearest".
        padding: outside the image "border" repeats the edge, "zeros" gives 0.

    Returns:
        ``(N,C,*G)``, differentiable in ``x`` and, if bilinear, in ``points``.
    """
    checks.choice(mode, "mode", ("bilinear", "nearest"))
    checks.choice(padding, "padding", ("border", "zeros"))
    size = torch.tensor(x.shape[2:], device=points.device, dtype=points.dtype)
    # align_corners=True: −1 and +1 are the CENTRES of the first and last pixel.
    unit = 2 * points / (size - 1).clamp_min(1) - 1
    return F.grid_sample(x, unit.flip(-1), mode=mode, padding_mode=padding, align_corners=True)


def identity_grid(size: Sequence[int], like: Tensor | None = None) -> Tensor:
    """Pixel coordinates ``(*S, ndim)`` in axis order, on the device and dtype of ``like``."""
    kind = {} if like is None else {"device": like.device, "dtype": like.dtype}
    axes = [torch.arange(n, **({"dtype": torch.float32} | kind)) for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def warp(x: Tensor, disp: Tensor, *, mode: str = "bilinear", padding: str = "border") -> Tensor:
    """Warped image, warped(p) = x(p + disp(p)).

    Args:
        x: ``(N,C,*S)`` moving image.
        disp: ``(N,ndim,*S)`` displacement in pixels, axis order.
        mode: "bilinear", or "nearest" for label maps (given as float).
        padding: "border" or "zeros".
    """
    ndim = x.ndim - 2
    if disp.shape != (x.shape[0], ndim, *x.shape[2:]):
        raise ValueError(
            f"disp must be {(x.shape[0], ndim, *x.shape[2:])} for x of shape {tuple(x.shape)}, "
            f"got {tuple(disp.shape)}"
        )
    points = identity_grid(x.shape[2:], disp) + disp.movedim(1, -1)  # (N, *S, ndim)
    return sample(x, points, mode=mode, padding=padding)


def rigid_warp(x: Tensor, pose: Tensor, spacing: Sequence[float]) -> Tensor:
    """Image whose CONTENT is rotated about the image centre and then shifted.

    warped(p) = x(c + R(−a)·(p − c − t)), in millimetres, so that anisotropic pixels stay rigid.

    Args:
        x: ``(N,C,H,W)``.
        pose: ``(N,3)`` = (row shift in mm, column shift in mm, angle a in radians); the angle
            turns +column towards +row.
        spacing: mm per pixel (row, column).

    Returns:
        ``(N,C,H,W)``, edges repeated; differentiable in ``pose``.
    """
    checks.shape(pose, "pose", "N 3", N=x.shape[0])
    mm = torch.tensor(tuple(spacing), device=x.device, dtype=pose.dtype)
    centre = (torch.tensor(x.shape[2:], device=x.device, dtype=pose.dtype) - 1) / 2 * mm
    p = identity_grid(x.shape[2:], pose) * mm - centre - pose[:, None, None, :2]  # (N,H,W,2)
    cos, sin = torch.cos(pose[:, 2])[:, None, None], torch.sin(pose[:, 2])[:, None, None]
    row = cos * p[..., 0] - sin * p[..., 1]
    column = sin * p[..., 0] + cos * p[..., 1]
    return sample(x, (torch.stack([row, column], dim=-1) + centre) / mm)


def random_displacement(
    shape: Sequence[int],
    gen: torch.Generator,
    *,
    sigma_px: float,
    amplitude_px: float,
    diffeomorphic: bool = True,
) -> Tensor:
    """Smooth random displacement, optionally the exponential of a velocity field (no folding).

    Args:
        shape: spatial size, 2 or 3 axes.
        gen: generator of the field.
        sigma_px: smoothness (see ``physics.noise.gaussian_field``).
        amplitude_px: largest length of the (velocity) vectors, in pixels.
        diffeomorphic: integrate by scaling and squaring (Arsigny et al. 2006).

    Returns:
        ``(1,ndim,*S)`` displacement in pixels, axis order.
    """
    ndim = len(shape)
    field = torch.stack([gaussian_field(shape, gen, sigma_px=sigma_px) for _ in range(ndim)])[None]
    field = field * (amplitude_px / field.norm(dim=1).max().clamp_min(1e-12))
    if not diffeomorphic:
        return field
    steps = max(1, math.ceil(math.log2(max(amplitude_px, 1.0))) + 3)
    disp = field / 2**steps
    for _ in range(steps):  # d ← d∘(id + d) + d
        disp = disp + warp(disp, disp)
    return disp


def to_polar(x: Tensor, centre: Tensor, radius_px: float, n_radii: int, n_angles: int) -> Tensor:
    """Polar resampling: rows are radii i·radius_px/n_radii, columns are angles 2πj/n_angles.

    The direction of angle a is (sin a, cos a) in (row, column), as in
    ``skimage.transform.warp_polar``.

    Args:
        x: ``(N,C,H,W)``.
        centre: ``(N,2)`` (row, column) in pixels.
        radius_px: radius of the row that would follow the last one.
        n_radii: number of rows.
        n_angles: number of columns.

    Returns:
        ``(N,C,n_radii,n_angles)``; edges of the image are repeated.
    """
    checks.shape(centre, "centre", "N 2", N=x.shape[0])
    kind = {"device": x.device, "dtype": x.dtype}
    r = torch.arange(n_radii, **kind)[:, None] * (radius_px / n_radii)
    a = torch.arange(n_angles, **kind)[None] * (2 * math.pi / n_angles)
    offsets = torch.stack([r * torch.sin(a), r * torch.cos(a)], dim=-1)  # (n_radii, n_angles, 2)
    return sample(x, centre.to(**kind)[:, None, None] + offsets)


def from_polar(
    polar: Tensor,
    centre: Tensor,
    radius_px: float,
    size: Sequence[int],
    *,
    mode: str = "bilinear",
    fill: float = 0.0,
) -> Tensor:
    """Cartesian image from a polar one, the inverse of `to_polar` with its conventions.

    Row i of ``polar`` lies at radius i·radius_px/n_radii, column j at angle 2πj/n_angles; angles
    are periodic, so that nothing shows where the last column meets the first.

    Args:
        polar: ``(N,C,n_radii,n_angles)``.
        centre: ``(N,2)`` (row, column) in pixels of the Cartesian image.
        radius_px: radius of the row that would follow the last one, > 0.
        size: ``(H, W)`` of the result.
        mode: "bilinear", or "nearest" for label maps (given as float).
        fill: value beyond the last row, that is more than half a row outside it.

    Returns:
        ``(N,C,H,W)``, differentiable in ``polar`` (not in ``centre``).

    Raises:
        ValueError: a ``centre`` of another shape, ``radius_px`` not positive, an unknown mode.
    """
    checks.shape(polar, "polar", "N C n_radii n_angles")
    checks.shape(centre, "centre", "N 2", N=polar.shape[0])
    checks.positive(radius_px, "radius_px")
    n_radii, n_angles = polar.shape[2:]
    points = identity_grid(size, polar) - centre.detach().to(polar)[:, None, None]  # (N,H,W,2)
    row = points.norm(dim=-1) * (n_radii / radius_px)
    turn = torch.atan2(points[..., 0], points[..., 1]) / (2 * math.pi)
    column = torch.remainder(turn, 1) * n_angles  # in [0, n_angles]
    closed = torch.cat([polar, polar[..., :1]], dim=-1)  # the column after the last is the first
    image = sample(closed, torch.stack([row, column], dim=-1), mode=mode)
    return image.masked_fill((row > n_radii - 0.5)[:, None], fill)
