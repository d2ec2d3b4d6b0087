"""The heart of `ultrasound_bmode`: what is drawn of it, and where its parts lie.

Places are (row, column from the image's middle) in pixels at size 96. In the heart's own frame u
runs from the ventricle's centre to its base and v to the right of it; φ is the angle of the
ellipse, 0 at the base, ±π at the apex, positive to the right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medseg_core.phantoms._draw import Draw

ARC_DEG = (15.0, 50.0)  # of one drop-out
TOP, BOTTOM = 14.0, 80.0  # rows between which the ventricle lies
NARROW = math.tan(math.radians(36))  # every sector holds a ventricle that fits in this one


class Heart(NamedTuple):
    """Where a point lies, all of one shape: negative distances are inside."""

    phi: Tensor
    normal_row: Tensor  # of the ventricle's outline
    normal_column: Tensor
    ventricle: Tensor  # signed distance from its outline, without the valve
    atrium: Tensor
    valve: Tensor  # beyond the line that closes the ventricle
    along_valve: Tensor  # −1 and 1 at its two hinges


def draw_heart(gen: torch.Generator) -> dict:
    """Shape, place and echoes of a heart that fits in the narrowest sector."""
    uniform = Draw(gen).uniform
    while True:  # three of four fit
        axes = (uniform(20, 32), uniform(10, 18))
        tilt = math.radians(uniform(-25, 25))
        centre = (uniform(39, 55), uniform(-8, 8))
        params = {
            "centre": centre,
            "axes": axes,  # semi-axes, along and across
            "tilt": tilt,  # positive: the base lies to the right of the apex
            "outline": [(k, uniform(0, 0.16 / k), uniform(0, 2 * math.pi)) for k in range(2, 6)],
            "base": uniform(0.65, 0.85) * axes[0],  # u of the valve's hinges
            "valve_bow": uniform(-3, 3),  # positive: towards the atrium
        }
        if _fits(params):
            break
    hinge = params["axes"][1] * math.sqrt(1 - (params["base"] / params["axes"][0]) ** 2)
    across = hinge * uniform(1.1, 1.6)
    along = across * uniform(0.85, 1.3)
    wall = uniform(-26, -20)
    cavity = wall - uniform(18, 24)
    missing = uniform(0.2, 0.6)  # share of the leaflet
    n_gaps = 1 + (uniform(0, 1) < 0.4)
    side = 1 if uniform(0, 1) < 0.65 else -1
    params |= {
        "hinge": hinge,
        "atrium_axes": (along, across),
        # The valve's line cuts the atrium where it is as wide as the ventricle's mouth.
        "atrium_u": params["base"] + along * math.sqrt(1 - (hinge / across) ** 2),
        "wall_px": uniform(4, 7),
        "apex_share": uniform(0.6, 0.9),  # thickness of the wall at the apex
        "leaflet_px": uniform(1, 2),
        "leaflet_gaps": spread(
            [uniform(-0.6, 0.6) for _ in range(n_gaps)], [2 * missing / n_gaps] * n_gaps, -1, 1, 0.1
        ),
        "papillary": [
            (sign * math.radians(uniform(70, 125)), uniform(0.72, 0.85), uniform(1.6, 2.8))
            for sign in (side, -side)
        ][: 1 + (uniform(0, 1) < 0.35)],
        "cavity_db": cavity,
        "wall_db": wall,
        "tissue_db": wall + uniform(-5, 0),
        "fade_db": uniform(3, 10),  # fainter 20 px away from the heart
        "papillary_db": wall - uniform(0, 3),
        "leaflet_db": wall + uniform(3, 8),
        "pericardium_db": wall + uniform(5, 10),
        "pericardium_phi": side * math.radians(uniform(40, 110)),  # where it is brightest
        "specular_db": uniform(1.5, 4),  # louder across the beam, fainter along it
        "patch_db": uniform(1.5, 3),  # σ of the tissue's slow changes
        "fine_db": 1.5,  # σ of its finer ones
        "swirl_db": 1.0,  # σ of the blood's slow changes
        # A round dark lumen beside the heart: φ, gap and radius.
        "vessels": [(-side * math.radians(uniform(40, 120)), uniform(2, 6), uniform(4, 7))][
            : int(uniform(0, 1) < 0.6)
        ],
    }
    return params


def _fits(params: dict) -> bool:
    phi = torch.linspace(-math.pi, math.pi, 91)
    u, v = outline(params, phi)
    row, column = from_heart(params, torch.minimum(u, torch.tensor(params["base"])), v)
    inside = (row > TOP) & (row < BOTTOM) & (column.abs() < NARROW * row - 1)
    return bool(inside.all())


def outline(params: dict, phi: Tensor, grow: float = 1.0) -> tuple[Tensor, Tensor]:
    """(u, v) of the ventricle's outline at the angles ``phi``, scaled about its centre."""
    a, b = params["axes"]
    f = grow * _relative(params["outline"], phi)
    return a * f * torch.cos(phi), b * f * torch.sin(phi)


def _relative(orders: Sequence[tuple], phi: Tensor) -> Tensor:
    return 1 + sum(c * torch.cos(k * phi + shift) for k, c, shift in orders)


def from_heart(params: dict, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of points in the heart's frame."""
    cos, sin = math.cos(params["tilt"]), math.sin(params["tilt"])
    return params["centre"][0] + u * cos - v * sin, params["centre"][1] + u * sin + v * cos


def wall_range(params: dict) -> tuple[float, float]:
    """Angles between which the ventricle has a wall, from hinge to hinge over the apex."""
    at_hinge = math.acos(params["base"] / params["axes"][0])
    return at_hinge, 2 * math.pi - at_hinge


def draw_dropouts(params: dict, share: float, gen: torch.Generator) -> list[tuple]:
    """Arcs (first, last angle) that together make ``share`` of the wall: 1 to 3 while that fits.

    Most lie where the beam runs along the wall: at its sides, the right one first.
    """
    lo, hi = wall_range(params)
    total = share * (hi - lo)
    shortest, longest = (math.radians(d) for d in ARC_DEG)
    n_drawn = int(torch.randint(1, 4, (), generator=gen))
    draw = torch.rand(64, 4, generator=gen)
    n = max(1, math.ceil(total / longest - 1e-9), min(n_drawn, int(total / shortest)))
    if total == 0:
        return []
    # Lengths between the limits that sum to the total, as unequal as the draw says.
    even = total / n
    room = min(even - min(shortest, even), max(longest, even) - even)
    uneven = draw[:n, 0] - draw[:n, 0].mean()
    lengths = even + room * uneven / uneven.abs().max().clamp_min(0.5)
    centres = []
    for where, wobble in draw[:n, 1:3].tolist():
        side = 1.6 if where < 0.55 else 2 * math.pi - 1.6 if where < 0.85 else None
        at = lo + (hi - lo) * wobble if side is None else side + 1.6 * (wobble - 0.5)
        centres.append(at)
    gap = min(0.15, (hi - lo - total) / (n + 1))
    return spread(centres, lengths.tolist(), lo, hi, gap)


def spread(
    centres: Sequence[float], lengths: Sequence[float], lo: float, hi: float, gap: float
) -> list[tuple[float, float]]:
    """Intervals of the given lengths in [lo, hi], ``gap`` apart or more, near their centres.

    Those that overlap push each other on; the order of the centres is kept.
    """
    pairs = sorted(zip(centres, lengths, strict=True))
    first, least = [], lo
    for centre, length in pairs:
        first.append(max(centre - length / 2, least))
        least = first[-1] + length + gap
    most = hi
    for k in range(len(pairs) - 1, -1, -1):
        first[k] = min(first[k], most - pairs[k][1])
        most = first[k] - gap
    return [(x, x + length) for x, (_, length) in zip(first, pairs, strict=True)]


def locate(params: dict, row: Tensor, column: Tensor) -> Heart:
    """Where the points lie in the heart; distances are exact to first order near each outline."""
    cos, sin = math.cos(params["tilt"]), math.sin(params["tilt"])
    down, right = row - params["centre"][0], column - params["centre"][1]
    u, v = down * cos + right * sin, right * cos - down * sin
    a, b = params["axes"]
    phi = torch.atan2(v / b, u / a)
    ventricle, (nu, nv) = _distance(u, v, a, b, _relative(params["outline"], phi))
    atrium, _ = _distance(u - params["atrium_u"], v, *params["atrium_axes"], torch.ones_like(u))
    along = v / params["hinge"]
    bow = params["valve_bow"] * (1 - along**2).clamp_min(0)
    return Heart(
        phi=phi,
        normal_row=nu * cos - nv * sin,
        normal_column=nu * sin + nv * cos,
        ventricle=ventricle,
        atrium=atrium,
        valve=u - params["base"] - bow,
        along_valve=along,
    )


def _distance(u: Tensor, v: Tensor, a: float, b: float, f: Tensor) -> tuple[Tensor, tuple]:
    """Distance (ρ − f)/|∇ρ| from ρ = f, ρ = √(u²/a² + v²/b²), and the unit vector ∇ρ/|∇ρ|."""
    rho = torch.hypot(u / a, v / b).clamp_min(1e-6)
    steep = torch.hypot(u / a**2, v / b**2).clamp_min(1e-6)
    return (rho - f) * rho / steep, (u / a**2 / steep, v / b**2 / steep)


def regions(params: dict, row: Tensor, column: Tensor) -> Tensor:
    """Truth at the points, int64: 0 outside, 1 the ventricle, 2 its wall, 3 the atrium."""
    at = locate(params, row, column)
    above = at.valve < 0
    label = torch.zeros(row.shape, dtype=torch.int64)
    label[(at.ventricle < wall_thickness(params, at.phi)) & above] = 2
    label[(at.atrium < 0) & ~above] = 3
    label[(at.ventricle < 0) & above] = 1
    return label


def wall_thickness(params: dict, phi: Tensor) -> Tensor:
    thin = ((-torch.cos(phi)) ** 3).clamp_min(0)  # towards the apex
    return params["wall_px"] * (1 - (1 - params["apex_share"]) * thin)
