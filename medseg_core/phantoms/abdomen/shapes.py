"""Shapes of abstract organs as implicit functions: negative inside, about a distance near zero.

A *part* is a dict of numbers: a **body** (an ellipsoid whose radius is perturbed by spherical
harmonics) or a **tube** (a polyline with a radius at each vertex). An *organ* joins parts smoothly,
as metaballs do, and may cut parts out and be bent. Five families of organs are drawn here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medseg_core.phantoms._draw import Draw

KINDS = ("atrium", "walnut", "tube", "lobe", "bean")


def value(points: Tensor, part: dict) -> Tensor:
    """Implicit function ``(...)`` of one part at ``points (...,3)``."""
    return _tube(points, part) if "points" in part else _body(points, part)


def organ_value(points: Tensor, organ: dict) -> Tensor:
    """Implicit function ``(...)`` of an organ at ``points (...,3)`` of its own frame."""
    p = points @ torch.tensor(organ["rotation"]).T
    # Bending moves the middle of the long axis sideways: a straight organ becomes a crescent.
    p = torch.stack([p[..., 0], p[..., 1] - organ["bend"] * p[..., 0].square(), p[..., 2]], -1)
    joined = torch.stack([value(p, part) for part in organ["parts"]])
    k = organ["smooth"]
    f = -k * torch.logsumexp(-joined / k, 0) if len(joined) > 1 else joined[0]
    for part in organ["cuts"]:
        f = k * torch.logsumexp(torch.stack([f, -value(p, part)]) / k, 0)
    return f


def extent(organ: dict) -> tuple[Tensor, Tensor]:
    """Lower and upper corner ``(3,)`` of the organ's tight box in its own frame.

    Per axis the smallest value of each plane is a profile whose zeros are the box's sides; between
    the planes of a lattice of n³ points they are interpolated.
    """
    n = 40
    line = torch.linspace(-1.9, 1.9, n)
    lattice = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1)
    f = organ_value(lattice, organ)
    low, high = [], []
    for axis in range(3):
        profile = f.amin([a for a in range(3) if a != axis])  # (n,)
        inside = torch.nonzero(profile < 0)[:, 0]
        first, last = int(inside[0]), int(inside[-1])
        low.append(_zero(line, profile, first, max(first - 1, 0)))
        high.append(_zero(line, profile, last, min(last + 1, n - 1)))
    return torch.tensor(low), torch.tensor(high)


def _zero(line: Tensor, profile: Tensor, inside: int, outside: int) -> float:
    a, b = float(profile[inside]), float(profile[outside])
    share = -a / (b - a) if b > 0 else 0.0
    return float(line[inside] + share * (line[outside] - line[inside]))


def _body(points: Tensor, part: dict) -> Tensor:
    """|y| − 1 − Σ a·P_l(ŷ·v) for y = R(p − c)/axes, times the smallest semi-axis.

    A Legendre polynomial of the angle to a fixed axis v is a spherical harmonic of degree l, and
    those with random axes span them all (the addition theorem).
    """
    centre, axes = torch.tensor(part["centre"]), torch.tensor(part["axes"])
    y = (points - centre) @ torch.tensor(part["rotation"]).T / axes
    r = length(y)
    radius = torch.ones_like(r)
    if part["waves"]:
        unit = y / r.clamp_min(1e-6)[..., None]
        for degree, axis, amplitude in part["waves"]:
            radius = radius + amplitude * legendre(degree, unit @ torch.tensor(axis))
    if part.get("furrow"):
        # A groove along a meridian: the angle out of its plane is small there.
        depth, width = part["furrow"]
        side = (y[..., 1] > 0) * y[..., 1] / r.clamp_min(1e-6)
        radius = radius - depth * side * torch.exp(-0.5 * (y[..., 0] / width).square())
    return (r - radius) * min(part["axes"])


def length(v: Tensor) -> Tensor:
    """Norm ``(...)`` of ``v (...,3)``; faster than a reduction over so short an axis."""
    x, y, z = v.unbind(-1)
    return (x * x + y * y + z * z).sqrt()


def legendre(degree: int, x: Tensor) -> Tensor:
    """Legendre polynomial P_degree(x) by (l+1)·P_{l+1} = (2l+1)·x·P_l − l·P_{l−1}."""
    before, now = torch.ones_like(x), x
    if degree == 0:
        return before
    for k in range(1, degree):
        before, now = now, ((2 * k + 1) * x * now - k * before) / (k + 1)
    return now


def _tube(points: Tensor, part: dict) -> Tensor:
    """Distance to a polyline minus its radius, linear along each segment."""
    vertices, radii = torch.tensor(part["points"]), part["radii"]
    best = torch.full(points.shape[:-1], math.inf)
    for k in range(len(radii) - 1):
        step = vertices[k + 1] - vertices[k]
        t = ((points - vertices[k]) @ step / (step @ step)).clamp(0, 1)
        d = length(points - vertices[k] - t[..., None] * step)
        best = torch.minimum(best, d - radii[k] - t * (radii[k + 1] - radii[k]))
    return best


def body(
    draw: Draw,
    centre: Sequence[float],
    axes: Sequence[float],
    *,
    turn: float = 0.0,
    amplitude: float = 0.06,
    degrees: Sequence[int] = (2, 3, 4),
) -> dict:
    """Draw a body: three axes per degree, amplitudes falling as 2/degree, turned by ± ``turn``."""
    waves = [
        (k, direction(draw), amplitude * 2 / k * draw.uniform(-1, 1))
        for k in degrees
        for _ in "xyz"
    ]
    return {
        "centre": [float(c) for c in centre],
        "axes": [float(a) for a in axes],
        "rotation": rotation([draw.uniform(-turn, turn) for _ in range(3)]),
        "waves": waves,
    }


def tube(points: Sequence[Sequence[float]], radii: Sequence[float]) -> dict:
    return {
        "points": [[float(x) for x in p] for p in points],
        "radii": [float(r) for r in radii],
    }


def direction(draw: Draw) -> list[float]:
    v = torch.tensor([draw.normal() for _ in range(3)])
    return (v / v.norm().clamp_min(1e-6)).tolist()


def rotation(angles: Sequence[float]) -> list[list[float]]:
    """Rotation matrix: turns about the three axes, one after the other."""
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (a for a in range(3) if a != axis)
        turn = torch.eye(3)
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return matrix.tolist()


def draw_organ(draw: Draw, kind: int, turn: float) -> dict:
    """Draw an organ of family ``kind`` (see `KINDS`), about two units long, at the origin."""
    shape = (_atrium, _walnut, _hippocampus, _lobe, _bean)[kind](draw)
    angles = [draw.uniform(-turn, turn) for _ in range(3)]
    return {"smooth": 0.06, "bend": 0.0, "cuts": [], "rotation": rotation(angles)} | shape


def _atrium(draw: Draw) -> dict:
    """An ellipsoid with four or five veins and an ear: thin, tapering appendages."""
    u = draw.uniform
    main = body(draw, (0, 0, 0), (u(0.55, 0.7), u(0.5, 0.62), u(0.6, 0.75)), amplitude=0.08)
    parts = [main]
    for k in range(draw.integer(4, 5)):
        # Veins leave in pairs on both sides of the back; the ear leaves in front.
        side = 1 if k % 2 else -1
        way = torch.tensor([u(-0.9, 0.9), u(0.2, 0.9) if k < 4 else -1.0, side * u(0.6, 1.2)])
        way = way / way.norm()
        mid = way * 0.75 + 0.12 * torch.tensor(direction(draw))
        end = way * u(0.95, 1.25) + 0.15 * torch.tensor(direction(draw))
        r = u(0.13, 0.2)
        parts.append(tube([(way * 0.3).tolist(), mid.tolist(), end.tolist()], [r, r, 0.75 * r]))
    return {"parts": parts}


def _walnut(draw: Draw) -> dict:
    """A compact, wrinkled body, wider than high, with a furrow behind."""
    u = draw.uniform
    main = body(
        draw,
        (0, 0, 0),
        (u(0.85, 1.0), u(0.65, 0.8), u(0.75, 0.95)),
        amplitude=0.1,
        degrees=(3, 5, 6, 7),
    )
    main["furrow"] = (u(0.15, 0.35), u(0.2, 0.35))
    return {"parts": [main]}


def _hippocampus(draw: Draw) -> dict:
    """A curved tube, thick at the head, thin at the tail."""
    u = draw.uniform
    arc, radius, rise = u(2.2, 3.4), u(0.7, 0.9), u(-0.9, 0.9)
    start = u(-0.3, 0.3)
    head, tail = u(0.33, 0.42), u(0.17, 0.25)
    points, radii = [], []
    for k in range(9):
        t = k / 8
        a = start + arc * (t - 0.5)
        points.append((radius * math.sin(a), 0.9 * radius * math.cos(a), rise * (t - 0.5)))
        bump = 0.05 * draw.uniform(-1, 1)
        radii.append(head + (tail - head) * min(1.0, 1.4 * t) + bump)
    return {"parts": [tube(points, radii)]}


def _lobe(draw: Draw) -> dict:
    """A large wedge: a thick lobe and a thin one, hollowed from below."""
    u = draw.uniform
    thick = (u(0.42, 0.52), u(0.8, 0.95), u(0.55, 0.75))
    right = body(draw, (-0.55, u(0.05, 0.2), 0), thick, amplitude=0.08)
    thin = (u(0.8, 0.95), u(0.22, 0.3), u(0.35, 0.5))
    left = body(draw, (u(0.2, 0.35), u(-0.6, -0.45), u(-0.25, 0.25)), thin, turn=0.3)
    below = (u(0.3, 0.45), u(0.5, 0.65), u(-0.2, 0.2))
    hollow = body(draw, below, (0.7, 0.8, 1.1), turn=0.3, amplitude=0.04)
    return {"parts": [right, left], "cuts": [hollow], "smooth": 0.06}


def _bean(draw: Draw) -> dict:
    """A crescent with a notch in its hollow side."""
    u = draw.uniform
    main = body(draw, (0, 0, 0), (1.0, u(0.32, 0.42), u(0.5, 0.65)), amplitude=0.06)
    notch = body(draw, (u(-0.25, 0.25), 0.45, u(-0.2, 0.2)), (0.28, 0.25, 0.5), turn=0.4)
    return {"parts": [main], "cuts": [notch], "bend": u(0.6, 0.95), "smooth": 0.05}
