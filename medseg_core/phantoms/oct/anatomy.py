"""Geometry of the retinal OCT phantom: what is drawn per volume and per B-scan, and its surfaces.

Thicknesses are rows at a height of 128 and scale with H; lengths along x are columns at a width
of 64 and scale with W: an image of any size shows the same field of view. A volume is a square
field too, so that a length of W/4 columns is slices/4 slices.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medseg_core.phantoms._draw import Draw
from medseg_core.physics.shapes import coverage

LAYERS = ("RNFL", "GCIPL", "INL", "OPL", "ONL", "IS", "OS", "RPE")
SURFACES = (*("ILM", "RNFL-GCL", "IPL-INL", "INL-OPL", "OPL-ONL", "ELM", "IS-OS", "OS-RPE", "BM"),)
ONL, IS, OS, RPE = 4, 5, 6, 7  # places in LAYERS; the surface of the same number is its upper one
MEAN_PX = (13.0, 14.0, 12.0, 10.0, 20.0, 8.0, 5.0, 6.0)  # at H = 128
PIT_LAYERS = 4  # RNFL to OPL: the layers that the fovea pushes aside
PIT_DEPTH = 0.97


def draw_retina(draw: Draw, size: tuple[int, int], slices: int, *, thin: bool) -> dict:
    """Bruch's membrane ``bm (slices,W)`` and thickness ``(8,slices,W)`` of a volume, and its pit.

    ``thin`` leaves the retina 60 % of its thickness and lets it lie deeper: room for drusen and
    for a vertical offset per volume, as in a B-scan that is not cropped to the retina.
    """
    height, width = size
    share, level = (0.6, draw.uniform(0.15, 0.4)) if thin else (1.0, draw.uniform(0.15, 0.3))
    tilt, shrink_to = draw.uniform(-0.1, 0.1), draw.uniform(0.03, 0.09)
    x = torch.linspace(-0.5, 0.5, width)
    floor = tilt * height * x + 0.015 * height * draw.process(slices, width, 0.5)  # (slices, W)
    thickness = torch.stack(
        [
            share
            * mean
            * height
            / 128
            * math.exp(0.08 * draw.normal())
            * torch.exp(0.15 * draw.process(slices, width, 0.25) - 0.5 * 0.15**2)
            for mean in MEAN_PX
        ]
    )  # (8, slices, W)
    # Where a thick retina lies deep it would leave the image: it is made thinner until BM ends
    # 3 to 9 % of H above the lower border, and the ILM below 3 % of H. Both margins vary, so that
    # no surface lies at a known row.
    total = float(thickness.sum(0).mean())
    room = (1 - shrink_to - level) * height - 1 - float(floor.max())
    thickness = thickness * min(1.0, room / total)
    bm = level * height + float(thickness.sum(0).mean()) + floor
    thickness = thickness * min(1.0, float(((bm - 0.03 * height) / thickness.sum(0)).min()))

    has_pit = draw.uniform(0, 1) < 0.6
    radius, column = draw.uniform(6, 12) * width / 64, draw.uniform(0.3, 0.7) * (width - 1)
    row = draw.uniform(0.3, 0.7) * (slices - 1)
    across = (torch.arange(slices) - row) / (radius * slices / width)
    pit_depth = PIT_DEPTH * torch.exp(-0.5 * across**2) * float(has_pit)
    return {"bm": bm, "thickness": thickness, "pit": (column, radius), "pit_depth": pit_depth}


def draw_drusen(
    draw: Draw, size: tuple[int, int], slices: int
) -> list[list[tuple[float, float, float]]]:
    """Drusen of each slice of a volume, at most 8: (column, σ in columns, height in rows).

    A druse is round en face: σ 6–25 columns at W = 256, height 3–15 % of H at its middle.
    """
    height, width = size
    per_slice: list[list[tuple[float, float, float]]] = [[] for _ in range(slices)]
    rate = draw.uniform(1, 7)  # drusen that a B-scan meets on average
    for _ in range(math.ceil(rate * (slices + 2) / _reach(width, slices, 15))):
        sigma, tall = draw.uniform(6, 25) * width / 256, draw.uniform(0.03, 0.15) * height
        column, middle = draw.uniform(0, width - 1), draw.uniform(-1.5, slices + 0.5)
        across = max(sigma * slices / width, 0.5)
        for k in range(slices):
            here = tall * math.exp(-0.5 * ((k - middle) / across) ** 2)
            if here > 0.03 * height:
                per_slice[k].append((column, sigma, here))
    return [sorted(found, key=lambda d: -d[2])[:8] for found in per_slice]


def _reach(width: int, slices: int, sigma: float) -> float:
    """Number of slices in which a druse of σ ``sigma`` (at W = 256) stands above 3 % of H."""
    return max(2.4 * max(sigma / 256 * slices, 0.5), 1.0)


def draw_atrophy(draw: Draw, size: tuple[int, int], slices: int) -> Tensor:
    """Columns ``(slices,W)`` bool inside a smooth en-face blob: a thresholded Gaussian process."""
    width = size[1]
    share = draw.uniform(0.03, 0.2)
    row, column = draw.uniform(0.25, 0.75), draw.uniform(0.25, 0.75)
    z = (torch.arange(slices) + 0.5) / slices - row
    x = (torch.arange(width) + 0.5) / width - column
    field = draw.process(slices, width, 0.15) - 6 * (z[:, None] ** 2 + x**2)  # one main blob
    return field > torch.quantile(field.flatten(), 1 - share)


def draw_shadows(
    draw: Draw, size: tuple[int, int], slices: int, count: tuple[int, int], width: tuple[int, int]
) -> list[list[tuple[float, float, float]]]:
    """Vessel shadows of each slice: (column, width in columns, factor on the signal beneath).

    A vessel crosses the volume at a slant, so that its shadow is a line en face.
    """
    columns = size[1]
    vessels = []
    for _ in range(draw.integer(*count)):
        at, slant = draw.uniform(0, columns - 1), draw.uniform(-0.6, 0.6)
        vessels.append((at, slant, draw.uniform(*width), draw.uniform(0.1, 0.3)))
    return [
        [
            (at + slant * columns * ((k + 0.5) / slices - 0.5), wide, factor)
            for at, slant, wide, factor in vessels
        ]
        for k in range(slices)
    ]


def bump(params: dict) -> Tensor:
    """Height ``(W,)`` of the drusen above Bruch's membrane; overlapping ones merge smoothly."""
    x = torch.arange(params["size"][1], dtype=torch.float32)
    total = torch.zeros_like(x)
    for column, sigma, tall in params["drusen"]:
        total = total + (tall * torch.exp(-0.5 * ((x - column) / sigma) ** 2)) ** 4
    return total**0.25


def shadow_weight(params: dict) -> tuple[Tensor, Tensor]:
    """Factor ``(W,)`` on the signal beneath the vessels, and how much each column is shadowed."""
    x = torch.arange(params["size"][1], dtype=torch.float32)
    factor, weight = torch.ones_like(x), torch.zeros_like(x)
    for column, wide, f in params["shadows"]:
        inside = coverage((x - column).abs() - wide / 2, max(1.0, 0.2 * wide))
        factor = factor * (1 - inside * (1 - f))
        weight = torch.maximum(weight, inside)
    return factor, weight


def bscan_surfaces(params: dict) -> tuple[Tensor, Tensor]:
    """The nine surfaces ``(9,W)`` of a B-scan (sub-pixel rows, ordered) and the RPE's lower border.

    Built upwards from Bruch's membrane. The fovea takes away (1 − 0.97·exp(−x²/2r²)) of the four
    inner layers. Drusen lift the RPE off the membrane; the layers RNFL to ONL above them thin out,
    by 60 % at most, and what that does not yield lifts the ILM.
    """
    x = torch.arange(params["size"][1], dtype=torch.float32)
    column, radius = params["pit"]
    thickness = params["thickness"].clone()
    keep = 1 - params["pit_depth"] * torch.exp(-0.5 * ((x - column) / radius) ** 2)
    thickness[:PIT_LAYERS] *= keep
    lift = bump(params)
    above = thickness[: ONL + 1].sum(0)
    yields = 0.6 * above * torch.tanh(lift / (0.6 * above))
    thickness[: ONL + 1] *= 1 - yields / above
    lower = params["bm"] - lift  # of the RPE
    upper = lower - thickness.flip(0).cumsum(0).flip(0)  # (8, W)
    return torch.cat([upper, params["bm"][None]]), lower
