"""What surrounds an abstract organ in its box: where neighbours lie, and how its edge shows.

Lengths are in the crop's own frame: −1 … 1 along each axis, whatever the number of voxels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medseg_core.phantoms._draw import Draw
from medseg_core.phantoms.abdomen import shapes

GAP = 0.12  # between the object and a neighbour of its own intensity that must not touch it
FADE = 0.15  # half the depth over which a vanished edge is smeared
WAVES = 24  # of the field that says where the edge shows


def grid(size: tuple[int, int, int]) -> Tensor:
    """Voxel centres ``(D,H,W,3)``; the crop's sides lie at −1 and 1."""
    axes = [(2 * torch.arange(n) + 1) / n - 1 for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def box_corners(margins: list[tuple[float, float]]) -> tuple[Tensor, Tensor]:
    """The object's tight box in the crop, from the margins per side as shares of the box's side."""
    low = torch.tensor([-1 + 2 * a / (1 + a + b) for a, b in margins])
    high = torch.tensor([1 - 2 * b / (1 + a + b) for a, b in margins])
    return low, high


class Placed:
    """An organ stretched so that its tight box fills the crop up to the margins."""

    def __init__(self, organ: dict, margins: list[tuple[float, float]]) -> None:
        self.organ = organ
        self.low, high = box_corners(margins)
        self.own_low, own_high = shapes.extent(organ)
        self.stretch = (own_high - self.own_low) / (high - self.low)

    def value(self, points: Tensor) -> Tensor:
        own = self.own_low + (points - self.low) * self.stretch
        return shapes.organ_value(own, self.organ)

    def distance(self, points: Tensor, step: float = 0.02) -> tuple[Tensor, Tensor]:
        """First-order distance f/|∇f| ``(...)`` and outward normal ``(...,3)``."""
        f = self.value(points)
        moved = [self.value(points + step * e) for e in torch.eye(3)]
        slope = torch.stack([(m - f) / step for m in moved], -1)
        steep = shapes.length(slope).clamp_min(1e-3)
        return f / steep, slope / steep[..., None]


def voxel_distance(f: Tensor) -> Tensor:
    """First-order distance f/|∇f| of a function on the grid, in voxels; good near its zeros."""
    steep = shapes.length(torch.stack(torch.gradient(f), -1))
    return f / steep.clamp_min(1e-3)


def crop_distance(mask: Tensor) -> Tensor:
    """Signed distance from the surface of a mask in the crop's units, negative inside."""
    step = [2 / n for n in mask.shape]
    out = ndimage.distance_transform_edt(~mask.numpy(), sampling=step)
    inner = ndimage.distance_transform_edt(mask.numpy(), sampling=step)
    # Distances are between voxel centres; the surface lies half a voxel nearer to both.
    half = 0.5 * float(np.mean(step))
    return torch.from_numpy(np.where(mask, half - inner, out - half)).float()


def draw_touching(draw: Draw, placed: Placed) -> dict:
    """A body that leans on the object where there is most room for it inside the crop."""
    points = 2 * torch.rand((3000, 3), generator=draw.gen) - 1
    d, normal = placed.distance(points)
    near = torch.nonzero(d.abs() < 0.08)[:, 0]
    points, normal = points[near] - d[near, None] * normal[near], normal[near]
    room = torch.zeros(len(points))
    free = torch.ones(len(points), dtype=torch.bool)
    for t in torch.arange(0.1, 1.0, 0.1).tolist():
        ahead = points + t * normal
        free = free & (ahead.abs().amax(1) < 1) & (placed.distance(ahead)[0] > 0.7 * t)
        room = torch.where(free, t, room)
    best = room.argsort(descending=True, stable=True)[: max(1, len(points) // 10)]
    at = int(best[draw.integer(0, len(best) - 1)])
    r = min(max(0.85 * float(room[at]), 0.3), 0.6)
    centre = points[at] + (r - draw.uniform(0.06, 0.1)) * normal[at]
    axes = [r * draw.uniform(0.85, 1.2) for _ in range(3)]
    return shapes.body(draw, centre.tolist(), axes, turn=math.pi, amplitude=0.05)


def draw_apart(draw: Draw, placed: Placed, others: list[Tensor], *, inside: bool) -> dict:
    """A body or a tube away from the object and from its other neighbours.

    ``inside`` keeps its centre well within the crop, so that it can be seen.
    """
    reach = 0.85 if inside else 1.1
    points = reach * (2 * torch.rand((25, 3), generator=draw.gen) - 1)
    room, _ = placed.distance(points)
    for other in others:
        room = torch.minimum(room, 0.5 * shapes.length(points - other))
    centre = points[int(room.argmax())]
    others.append(centre)
    r = draw.uniform(0.25, 0.55)
    if inside or draw.uniform(0, 1) < 0.6:
        axes = [r * draw.uniform(0.7, 1.4) for _ in range(3)]
        return shapes.body(draw, centre.tolist(), axes, turn=math.pi, amplitude=0.08)
    way, side = (torch.tensor(shapes.direction(draw)) for _ in "ab")
    line = [centre + t * way + 0.3 * t * t * side for t in (-0.8, -0.4, 0.0, 0.4, 0.8)]
    return shapes.tube([p.tolist() for p in line], [0.5 * r] * 5)


def draw_vessel(draw: Draw, reach: float, radius: float) -> dict:
    """A gently curved tube through a random point within ``reach`` of the centre."""
    middle = torch.tensor([draw.uniform(-reach, reach) for _ in range(3)])
    way, side = (torch.tensor(shapes.direction(draw)) for _ in "ab")
    line = [middle + 2 * t * way + 0.8 * t * t * side for t in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    return shapes.tube([p.tolist() for p in line], [radius] * 5)


def draw_waves(draw: Draw) -> list[tuple]:
    """Plane waves (wave vector, phase) whose sum is a smooth random field of any resolution."""
    waves = []
    for _ in range(WAVES):
        k = 2 * math.pi / draw.uniform(0.7, 1.6)
        waves.append(([k * v for v in shapes.direction(draw)], draw.uniform(0, 2 * math.pi)))
    return waves


def edge_strength(points: Tensor, near: Tensor, params: dict) -> tuple[Tensor, Tensor]:
    """How much of the contrast the edge shows, and where a lost edge seems to lie.

    Returns:
        ``strength (D,H,W)`` in [0, 1]: 0 on the share ``params["vanishing"]`` of the surface
        ``near (D,H,W)`` bool; ``side (D,H,W)``: +1 where the object seems to run on outwards, −1
        where its surroundings seem to run on into it.
    """
    g = torch.zeros(points.shape[:-1])
    for k, phase in params["edge_waves"]:
        g = g + torch.cos(points @ torch.tensor(k) + phase)
    share, outwards = params["vanishing"], params["outwards"]
    on_surface = g[near]
    low = on_surface.quantile(share * outwards)
    high = on_surface.quantile(1 - share * (1 - outwards))
    rise = params["edge_rise"] * on_surface.std()
    strength = (torch.minimum(g - low, high - g) / rise).clamp(0, 1)
    return strength, torch.where(g < (low + high) / 2, 1.0, -1.0)
