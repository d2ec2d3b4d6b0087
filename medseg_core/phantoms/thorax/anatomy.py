"""The chest of the CT phantom: 3-D ellipsoids in mm and the pericardial sac that joins some.

Points hold (z, y, x) along their first axis, in mm about the heart's centre: z upwards, y to the
back, x to the patient's left.
An *ellipsoid* is a dict of numbers: ``centre``, semi-``axes`` and ``frame``, three unit vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medseg_core.phantoms._draw import Draw

Vector = Sequence[float]
UPRIGHT = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
SMOOTH_MM = 8.0  # of the union that makes the sac
# Chambers of a heart of usual size: centre, semi-axes, direction of the first axis.
CHAMBERS = {
    "la": ((16, 30, 4), (20, 18, 30), (1, 0, 0)),
    "ra": ((2, 8, -34), (28, 24, 20), (1, 0, 0)),
    "rv": ((-12, -22, 2), (40, 24, 20), (-0.3, -0.3, 0.9)),
    "lv": ((-10, 2, 30), (40, 22, 22), (-0.4, -0.55, 0.73)),
    "aorta": ((44, -4, -4), (50, 15, 15), (1, 0, 0)),
    "trunk": ((40, -22, 14), (36, 13, 14), (1, 0, 0.3)),
}
ROOT = ((28, -8, 3), (30, 26, 28), (1, 0, 0))  # the part of the great vessels in the sac


def ellipsoid(points: Tensor, e: dict) -> Tensor:
    """Distance in mm (first order, negative inside) of ``points (3,*S)`` from an ellipsoid."""
    shape = (3, *[1] * (points.ndim - 1))
    centre, axes = torch.tensor(e["centre"]).view(shape), torch.tensor(e["axes"]).view(shape)
    q = torch.tensordot(torch.tensor(e["frame"]), points - centre, 1) / axes
    # The tiny numbers give the centre, where q = 0, its distance: minus the shortest axis.
    tiny = 1e-6 / min(e["axes"])
    k0, k1 = _length(q) + 1e-6, _length(q / axes) + tiny
    return k0 * (k0 - 1) / k1


def _length(q: Tensor) -> Tensor:
    z, y, x = q  # many times faster than `norm` along the first axis
    return (z * z + y * y + x * x).sqrt()


def waves(points: Tensor, field: list[dict]) -> Tensor:
    """Smooth random function of mean 0 and variance 1: a sum of plane waves."""
    k = torch.tensor([wave["k"] for wave in field])
    phase = torch.tensor([wave["phase"] for wave in field])
    angle = torch.tensordot(k, points, 1) + phase.view(-1, *[1] * (points.ndim - 1))
    return torch.sin(angle).sum(0) * math.sqrt(2 / len(field))


def sac(points: Tensor, heart: dict) -> Tensor:
    """Distance in mm from the pericardium: chambers with their fat, joined smoothly, then waved."""
    parts = [
        ellipsoid(points, e) - e["wall"] - fat
        for e, fat in zip(heart["sac_parts"], heart["sac_fat"], strict=True)
    ]
    joined = -SMOOTH_MM * torch.logsumexp(-torch.stack(parts) / SMOOTH_MM, 0)
    return joined + heart["sac_waves_mm"] * waves(points, heart["sac_waves"])


def muscle(points: Tensor, heart: dict) -> Tensor:
    """Distance in mm from the outside of the chambers' and vessels' walls."""
    return torch.stack([ellipsoid(points, e) - e["wall"] for e in heart["chambers"].values()]).amin(
        0
    )


def draw_heart(draw: Draw) -> dict:
    """Chambers, great vessels and the sac around them, with the vessels in its fat."""
    u = draw.uniform
    scale, yaw, pitch = u(0.85, 1.15), math.radians(u(-20, 20)), math.radians(u(-12, 12))
    turn = _rotation(yaw, pitch)

    def part(centre: Vector, axes: Vector, along: Vector, wall: float) -> dict:
        moved = [scale * (c + u(-4, 4)) for c in centre]
        return {
            "centre": (turn @ torch.tensor(moved)).tolist(),
            "axes": [scale * a * u(0.88, 1.12) for a in axes],
            "frame": (torch.tensor(_frame(along)) @ turn.T).tolist(),
            "wall": wall,
        }

    wall = {name: u(1.5, 2.5) for name in CHAMBERS} | {"rv": u(2.5, 4), "lv": scale * u(8, 12)}
    chambers = {name: part(*shape, wall[name]) for name, shape in CHAMBERS.items()}
    inside = [chambers[name] for name in ("la", "ra", "rv", "lv")]
    heart = {
        "chambers": chambers,
        "sac_parts": [*inside, part(*ROOT, 0.0)],
        "sac_fat": [u(-2, 4), u(0, 10), u(1, 12), u(-1, 9), u(-1, 6)],
        "sac_waves": draw_waves(draw, 50, 110),
        "sac_waves_mm": u(1.0, 2.0),
    }
    grid = _grid(-96, 104, 8)
    inside = sac(grid, heart)
    heights = grid[0, inside < 0]
    heart["sac_bottom"], heart["sac_top"] = float(heights.min()) - 4, float(heights.max()) + 4
    # Vessels need fat to lie in.
    deep = (inside > -9) & (inside < -2.5) & (muscle(grid, heart) > 1)
    heart["coronaries"] = [
        _tube(draw, centre, u(1.2, 2.3), u(5, 14)) for centre in _some(draw, grid[:, deep].T, 45)
    ]
    outer = (inside > 2.5) & (inside < 9)
    heart["neighbours"] = [
        _tube(draw, centre, u(0.9, 2.2), u(4, 12)) for centre in _some(draw, grid[:, outer].T, 45)
    ]
    return heart


def draw_chest(draw: Draw, heart: dict) -> dict:
    """All around the heart: cage, lungs' vessels, spine, ribs, great vessels, liver and stomach."""
    u = draw.uniform
    midline, front_gap = u(-28, -12), u(-2, 9)
    cage_axes = [240.0, u(85, 102), u(118, 140)]
    cage = _upright([0.0, 30.0, midline], cage_axes)
    grid = _grid(-70, 80, 10)
    grid = grid[:, sac(grid, heart) < 0]
    for _ in range(4):  # the cage moves until the heart has the gap wanted to its wall
        cage["centre"][1] -= float(ellipsoid(grid, cage).max()) + front_gap
    centre, back = cage["centre"][1], cage["centre"][1] + cage_axes[1]
    spine = back - u(26, 34)  # its front
    bottom = heart["sac_bottom"]
    wall, skin = u(20, 30), u(8, 28)
    body_axes = [600.0, cage_axes[1] + wall + skin, cage_axes[2] + wall + skin]
    return {
        "cage": cage,
        "wall_mm": wall,
        "body": _upright([0.0, centre + 8, midline], body_axes),
        "mediastinum": _upright([0.0, centre, midline], [260.0, cage_axes[1] + 14, u(24, 32)]),
        "mediastinum_waves_mm": u(2, 6),
        "pad_mm": (u(2, 8), u(3, 8)),  # fat between sac and lung: mean and waves
        "pad_waves": draw_waves(draw, 50, 110),
        "domes": [
            _upright(
                [bottom - u(20, 48), centre - 5, midline - u(55, 65)], [u(66, 78), 82.0, 66.0]
            ),
            _upright([bottom - u(20, 40), -15 + u(-8, 8), u(-12, 6)], [u(36, 52), 56.0, 62.0]),
            _upright([bottom - u(35, 65), centre, midline + u(62, 74)], [u(66, 78), 80.0, 62.0]),
        ],
        "spine": _upright([0.0, spine + 15, midline], [400.0, u(15, 19), u(19, 23)]),
        "canal": _upright([0.0, spine + u(36, 40), midline], [400.0, 8.0, 9.0]),
        "sternum": _upright([10.0, centre - cage_axes[1] - 4, midline], [130.0, 5.0, u(16, 22)]),
        "ribs": _ribs(draw, cage),
        "descending": _upright(
            [0.0, spine - u(4, 12), midline + u(16, 28)], [400.0, u(9.5, 13), u(9.5, 13)]
        ),
        "oesophagus": _upright([0.0, spine - u(8, 16), midline + u(0, 8)], [400.0, 5.0, u(7, 10)]),
        "cava": [
            _upright([70.0, -10 + u(-4, 4), -34 + u(-4, 4)], [56.0, 9.0, 9.0]),
            _upright([bottom - 18, 18 + u(-4, 4), -30 + u(-4, 4)], [36.0, 12.0, 13.0]),
        ],
        "pulmonary": [
            _upright([16 + u(-10, 10), 36 + u(-6, 6), side * 52.0], [u(5, 7), u(5, 7), 36.0])
            for side in (-1, 1, -1, 1)
        ],
        "lung_vessels": [
            _tube(draw, c, u(0.8, 2.6), u(8, 22)) for c in _some(draw, _grid(-80, 80, 9).T, 120)
        ],
    }


def _ribs(draw: Draw, cage: dict) -> list[dict]:
    """Pieces of ribs on the cage's wall: each row of them falls towards the front."""
    _, b, c = cage["axes"]
    _, y, x = cage["centre"]
    first, step = draw.uniform(0, 26), draw.uniform(24, 28)
    ribs = []
    for row in range(-4, 5):
        for k in range(20):
            a = 2 * math.pi * (k + 0.5) / 20  # 0: the patient's left, a quarter: the back
            height = first + step * row + 22 * math.sin(a)
            place = [height, y + (b + 8) * math.sin(a), x + (c + 8) * math.cos(a)]
            along = (8.0, b * math.cos(a), -c * math.sin(a))
            frame = _frame(along)
            ribs.append({"centre": place, "axes": [24.0, 4.0, 6.0], "frame": frame})
    return ribs


def draw_waves(draw: Draw, shortest: float, longest: float) -> list[dict]:
    """Seven plane waves in random directions, with lengths in mm."""
    found = []
    for _ in range(7):
        k = torch.tensor(_direction(draw)) * 2 * math.pi / draw.uniform(shortest, longest)
        found.append({"k": k.tolist(), "phase": draw.uniform(0, 2 * math.pi)})
    return found


def _direction(draw: Draw) -> list[float]:
    return _unit([draw.normal() for _ in range(3)])


def _tube(draw: Draw, centre: Tensor, radius: float, half_length: float) -> dict:
    frame = _frame(_direction(draw))
    return {"centre": centre.tolist(), "axes": [half_length, radius, radius], "frame": frame}


def _some(draw: Draw, places: Tensor, n: int) -> list[Tensor]:
    """At most ``n`` of the places, at random, each moved by up to 2 mm."""
    if not len(places):
        return []
    chosen = [places[draw.integer(0, len(places) - 1)] for _ in range(n)]
    return [place + torch.tensor([draw.uniform(-2, 2) for _ in range(3)]) for place in chosen]


def _upright(centre: Vector, axes: Vector) -> dict:
    return {"centre": list(centre), "axes": list(axes), "frame": UPRIGHT}


def _grid(lo: float, hi: float, step: float) -> Tensor:
    line = torch.arange(lo, hi + 1e-6, step)
    return torch.stack(torch.meshgrid(line, line, line, indexing="ij")).reshape(3, -1)  # (3, P)


def _frame(along: Vector) -> list[list[float]]:
    """Orthonormal rows, the first along a direction."""
    first = _unit(along)
    other = [0.0, 0.0, 0.0]
    other[min(range(3), key=lambda axis: abs(first[axis]))] = 1.0
    second = _unit(_cross(first, other))
    return [first, second, _cross(first, second)]


def _unit(v: Vector) -> list[float]:
    length = math.hypot(*v)
    return [c / length for c in v]


def _cross(a: Vector, b: Vector) -> list[float]:
    return [a[i - 2] * b[i - 1] - a[i - 1] * b[i - 2] for i in range(3)]


def _rotation(yaw: float, pitch: float) -> Tensor:
    """About z, then about x; acts on columns (z, y, x)."""
    c, s = math.cos(yaw), math.sin(yaw)
    about_z = torch.tensor([[1.0, 0, 0], [0, c, -s], [0, s, c]])
    c, s = math.cos(pitch), math.sin(pitch)
    about_x = torch.tensor([[c, -s, 0.0], [s, c, 0], [0, 0, 1]])
    return about_x @ about_z
