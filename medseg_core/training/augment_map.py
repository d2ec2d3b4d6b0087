"""The map behind a random deformation of images: where each pixel comes from, and points go to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medseg_core.physics import deform


@dataclass(frozen=True)
class SpatialMap:
    r"""Content moves affinely about the image centre c, then elastically; one map per sample.

    A point q of the input lands at the p that solves :math:`p + u(p) = c + F(q - c) + t`; pixel p
    of the output shows the input at :math:`c + F^{-1}(p + u(p) - t - c)`. Pixels, axis order.

    Args:
        size: *S, spatial size of the image.
        linear: F, (N,ndim,ndim).
        shift: t, (N,ndim).
        disp: u, (N,ndim,*S), or None.
    """

    size: tuple[int, ...]
    linear: Tensor
    shift: Tensor
    disp: Tensor | None = None

    def to(self, device: torch.device) -> SpatialMap:
        return self._each(lambda x: x.to(device))

    def one(self, i: int) -> SpatialMap:
        """The map of sample i alone."""
        return self._each(lambda x: x[i : i + 1])

    def _each(self, f: Callable[[Tensor], Tensor]) -> SpatialMap:
        disp = None if self.disp is None else f(self.disp)
        return SpatialMap(self.size, f(self.linear), f(self.shift), disp)

    @property
    def centre(self) -> Tensor:
        return (torch.tensor(self.size).to(self.shift) - 1) / 2

    def sources(self) -> Tensor:
        """Where the pixels of the output come from: (N,*S,ndim)."""
        n, ndim = self.shift.shape
        p = deform.identity_grid(self.size, self.shift).expand(n, *self.size, ndim)
        if self.disp is not None:
            p = p + self.disp.movedim(1, -1)
        p = (p - self.centre).reshape(n, -1, ndim) - self.shift[:, None]  # (N, pixels, ndim)
        p = p @ torch.linalg.inv(self.linear).mT + self.centre
        return p.reshape(n, *self.size, ndim)

    def push(self, points: Tensor) -> Tensor:
        """Where points (N,P,ndim) of the input land; NaN stays NaN."""
        goal = (points - self.centre) @ self.linear.mT + self.shift[:, None] + self.centre
        if self.disp is None or not points.numel():
            return goal
        p = goal
        ones = (1,) * (len(self.size) - 1)
        for _ in range(40):  # p ← goal − u(p), a contraction where u does not fold the image
            at = p.reshape(*p.shape[:2], *ones, -1)  # (N, P, 1[, 1], ndim)
            u = deform.sample(self.disp, at.nan_to_num(0.0))  # (N, ndim, P, 1[, 1])
            p = goal - u.reshape(*u.shape[:3]).mT
        return p

    def push_boxes(self, boxes: Tensor) -> Tensor:
        """Boxes around the moved corners of boxes (N,B,2·ndim), clipped to the image.

        Half-open boxes [r0, r1) reach from r0 − ½ to r1 − ½ in the coordinates of pixel centres.
        """
        ndim = len(self.size)
        low, high = boxes[..., :ndim] - 0.5, boxes[..., ndim:] - 0.5
        picks = torch.tensor(list(itertools.product((False, True), repeat=ndim)))
        corners = torch.where(picks.to(boxes.device), high[..., None, :], low[..., None, :])
        moved = self.push(corners.flatten(1, 2)).unflatten(1, corners.shape[1:3]) + 0.5
        edges = torch.cat((moved.amin(2), moved.amax(2)), -1)  # (N, B, 2·ndim)
        limit = torch.tensor(self.size * 2).to(edges)
        return edges.clamp_min(0).minimum(limit)


def rotation(angles: Tensor) -> Tensor:
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


def quarter_turns(n: int, ndim: int, axes: Sequence[int], gen: torch.Generator) -> Tensor:
    """n rotations (n,ndim,ndim) that carry the grid of ``axes`` to itself, all equally likely.

    Two axes have 4 of them, three axes 24: the permutations with signs and determinant +1.
    """
    out = torch.eye(ndim).repeat(n, 1, 1)
    for i in range(n):
        order = torch.randperm(len(axes), generator=gen, device=gen.device).cpu()
        signs = 1.0 - 2.0 * torch.randint(2, (len(axes),), generator=gen, device=gen.device).cpu()
        turn = torch.eye(len(axes))[order] * signs
        turn[0] *= torch.linalg.det(turn).round()
        index = torch.tensor(list(axes))
        out[i, index[:, None], index] = turn
    return out


def bspline_displacement(
    size: Sequence[int], n: int, spacing_px: float, amplitude_px: float, gen: torch.Generator
) -> Tensor:
    """Random free-form deformations (n,ndim,*S) in pixels, from a coarse grid of control points.

    Each control point moves uniformly within ± amplitude along each axis; cubic B-splines between
    (Rueckert et al. 1999), so that no displacement exceeds the amplitude. Up to 0.4 times the
    spacing the map has no folds (Choi and Lee 2000).
    """
    ndim = len(size)
    weights = [_cubic_bspline(s, spacing_px) for s in size]
    shape = (n, ndim, *(w.shape[1] for w in weights))
    u = amplitude_px * (2 * torch.rand(shape, generator=gen, device=gen.device).cpu() - 1)
    for axis, w in enumerate(weights):
        u = torch.tensordot(u, w, dims=([2 + axis], [1])).movedim(-1, 2 + axis)
    return u.contiguous()


def _cubic_bspline(size: int, spacing: float) -> Tensor:
    """Weights (size, G) of G control points at (g − 1)·spacing for the pixels 0..size−1."""
    g = torch.arange(math.floor((size - 1) / spacing) + 4) - 1
    t = (torch.arange(size)[:, None] / spacing - g).abs()
    near, far = 2 / 3 - t**2 + t**3 / 2, (2 - t).clamp_min(0) ** 3 / 6
    return torch.where(t < 1, near, far)
