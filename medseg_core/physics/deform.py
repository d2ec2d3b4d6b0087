"""Images read elsewhere: the one place that turns (row, column) into `grid_sample`'s (x, y)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medseg_core import checks


def sample(x: Tensor, points: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Values of an image at real-valued points; outside the image its edge is repeated.

    Args:
        x: ``(N,C,*S)``, 2 or 3 spatial axes.
        points: ``(N,*G,ndim)`` in pixels, axis order; G has as many axes as S.
        mode: "bilinear" or "nearest".

    Returns:
        ``(N,C,*G)``, differentiable in ``x`` and, if bilinear, in ``points``.

    Raises:
        ValueError: an unknown mode.
    """
    checks.choice(mode, "mode", ("bilinear", "nearest"))
    size = torch.tensor(x.shape[2:], device=points.device, dtype=points.dtype)
    # align_corners=True: −1 and +1 are the CENTRES of the first and last pixel.
    unit = 2 * points / (size - 1).clamp_min(1) - 1
    return F.grid_sample(x, unit.flip(-1), mode=mode, padding_mode="border", align_corners=True)


def identity_grid(size: Sequence[int], like: Tensor | None = None) -> Tensor:
    """Pixel coordinates ``(*S, ndim)`` in axis order, on the device and dtype of ``like``."""
    kind = {} if like is None else {"device": like.device, "dtype": like.dtype}
    axes = [torch.arange(n, **({"dtype": torch.float32} | kind)) for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def from_polar(
    polar: Tensor,
    centre: Tensor,
    radius_px: float,
    size: Sequence[int],
) -> Tensor:
    """Cartesian image from a polar one.

    Row i of ``polar`` lies at radius i·radius_px/n_radii, column j at angle 2πj/n_angles, in the
    direction (sin, cos) of (row, column) as in ``skimage.transform.warp_polar``. Angles are
    periodic, so that nothing shows where the last column meets the first.

    Args:
        polar: ``(N,C,n_radii,n_angles)``.
        centre: ``(N,2)`` (row, column) in pixels of the Cartesian image.
        radius_px: radius of the row that would follow the last one, > 0.
        size: ``(H, W)`` of the result.

    Returns:
        ``(N,C,H,W)``, 0 beyond the last row, that is more than half a row outside it;
        differentiable in ``polar`` (not in ``centre``).

    Raises:
        ValueError: a ``centre`` of another shape, ``radius_px`` not positive.
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
    image = sample(closed, torch.stack([row, column], dim=-1))
    return image.masked_fill((row > n_radii - 0.5)[:, None], 0)
