"""How loud the tissues of `ultrasound_bmode` echo, painted from the background to the front."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medseg_core.phantoms.ultrasound.anatomy import (
    Heart,
    from_heart,
    locate,
    outline,
    wall_thickness,
)
from medseg_core.physics.shapes import coverage


def echoes(params: dict, row: Tensor, column: Tensor, angle: Tensor, texture: dict) -> Tensor:
    """Echo in dB ``(R,A)`` at the points (row, column) of beams in the directions ``angle``.

    ``texture``: standard normal fields (R,A), "coarse" and "fine".
    """
    at = locate(params, row, column)
    cavity = params["cavity_db"] + params["swirl_db"] * texture["coarse"]
    patchy = params["patch_db"] * texture["coarse"] + params["fine_db"] * texture["fine"]
    # A wall across the beam sends the echo back, one along it sends it away.
    cosine = at.normal_row * torch.cos(angle) + at.normal_column * torch.sin(angle)
    wall = params["wall_db"] + params["specular_db"] * (2 * cosine**2 - 1) + patchy / 2

    level = _surroundings(params, at, row, column, angle, cavity, patchy)
    level = _walls(params, at, level, wall, cavity)
    inside = coverage(at.ventricle) * coverage(at.valve)
    level = torch.lerp(level, cavity, coverage(at.atrium) * coverage(-at.valve))
    level = torch.lerp(level, cavity, inside)
    return _muscle_and_leaflets(params, at, row, column, level, inside)


def shown_wall(params: dict, phi: Tensor) -> Tensor:
    """1 where the wall echoes, 0 in a drop-out, with edges of 4°."""
    turn = torch.remainder(phi, 2 * math.pi)
    shown = torch.ones_like(phi)
    for lo, hi in params["dropouts"]:
        outside = (turn - (lo + hi) / 2).abs() - (hi - lo) / 2
        shown = shown * (1 - coverage(outside, width=math.radians(4)))
    return shown


def _surroundings(
    params: dict,
    at: Heart,
    row: Tensor,
    column: Tensor,
    angle: Tensor,
    cavity: Tensor,
    patchy: Tensor,
) -> Tensor:
    """Lung around the heart, and in it what is as dark as a cavity: a rib's shadow, a vessel."""
    outer = at.ventricle - wall_thickness(params, at.phi)
    away = (torch.minimum(outer, at.atrium) / 20).clamp(0, 1)
    level = params["tissue_db"] - params["fade_db"] * away + patchy
    reach = torch.hypot(row - params["apex"][0], column - params["apex"][1])
    for place, half_width, begin in params["ribs"]:
        beside = (angle - place * params["half_angle"]).abs() - half_width
        dark = coverage(beside, width=math.radians(3)) * coverage(begin - reach, width=4)
        level = torch.lerp(level, cavity, dark)
    for phi, gap, radius in params["vessels"]:
        u, v = outline(params, torch.tensor(phi))
        further = 1 + (params["wall_px"] + gap + radius) / torch.hypot(u, v)
        centre = from_heart(params, further * u, further * v)
        beyond = torch.hypot(row - centre[0], column - centre[1]) - radius
        level = torch.lerp(level, cavity, coverage(beyond))
    return level


def _walls(params: dict, at: Heart, level: Tensor, wall: Tensor, cavity: Tensor) -> Tensor:
    """The bright line of the pericardium, the atrium's thin wall and the ventricle's."""
    thick = wall_thickness(params, at.phi)
    above = coverage(at.valve - 2, width=2)
    bright = (0.5 + 0.5 * torch.cos(at.phi - params["pericardium_phi"])) ** 2
    line = coverage((at.ventricle - thick - 1).abs() - 0.8) * bright * above
    level = level + line * (params["pericardium_db"] - level)
    level = torch.lerp(level, wall - 1, coverage(at.atrium - 2.5) * coverage(-at.valve))
    # A drop-out takes the echo at the inner border; towards the outer one it comes back.
    shown = torch.maximum(shown_wall(params, at.phi), (at.ventricle / thick).clamp(0, 1))
    return torch.lerp(
        level, torch.lerp(cavity, wall, shown), coverage(at.ventricle - thick) * above
    )


def _muscle_and_leaflets(
    params: dict, at: Heart, row: Tensor, column: Tensor, level: Tensor, inside: Tensor
) -> Tensor:
    for phi, share, radius in params["papillary"]:
        centre = from_heart(params, *outline(params, torch.tensor(phi), share))
        muscle = coverage(torch.hypot(row - centre[0], column - centre[1]) - radius) * inside
        level = level + muscle * (params["papillary_db"] - level)
    leaflet = coverage(at.valve.abs() - params["leaflet_px"] / 2)
    leaflet = leaflet * coverage(at.along_valve.abs() - 1, width=0.1)
    for lo, hi in params["leaflet_gaps"]:
        beside = (at.along_valve - (lo + hi) / 2).abs() - (hi - lo) / 2
        leaflet = leaflet * (1 - coverage(beside, width=0.15))
    return level + leaflet * (params["leaflet_db"] - level)
