"""Brightness of the retinal OCT phantom: what each tissue sends back, how the optics smear it."""

from __future__ import annotations

import torch
from torch import Tensor

from medseg_core.phantoms._draw import Draw
from medseg_core.phantoms.oct import anatomy
from medseg_core.phantoms.oct.anatomy import IS, ONL, OS, RPE
from medseg_core.physics.noise import blur, gaussian_field
from medseg_core.physics.shapes import coverage


def draw_reflectivity(draw: Draw) -> dict[str, float]:
    """Relative brightness of each tissue, vitreous to choroid.

    Two borders are nearly invisible, and step the same way as the clear one beside them: GCIPL to
    INL (down, below the RNFL's step down) and ONL to IS (up, above the step up to the OS).
    """
    gcipl, onl = draw.uniform(0.38, 0.48), draw.uniform(0.15, 0.2)
    return {
        "vitreous": draw.uniform(0.0, 0.04),
        "RNFL": gcipl * draw.uniform(1.5, 1.9),
        "GCIPL": gcipl,
        "INL": gcipl * (1 - draw.uniform(0.06, 0.095)),
        "OPL": gcipl * draw.uniform(1.25, 1.5),
        "ONL": onl,
        "IS": onl * (1 + draw.uniform(0.06, 0.095)),
        "OS": draw.uniform(0.5, 0.65),
        "RPE": draw.uniform(0.95, 1.1),
        "drusen": draw.uniform(0.3, 0.4),
        "choroid": draw.uniform(0.55, 0.75),
    }


def back_scatter(params: dict, surfaces: Tensor, rpe_lower: Tensor, gen: torch.Generator) -> Tensor:
    """Noise-free back-scattered signal ``(H,W)`` before the point spread and the detector."""
    height, width = params["size"]
    row = torch.arange(height, dtype=torch.float32)[:, None]
    level = params["reflectivity"]
    atrophy = torch.zeros(width)
    if params["pathology"] == "ga":
        # Its borders are no knife cuts.
        atrophy = params["atrophy_degree"] * blur(params["atrophy"].float()[None, None], 0.7)[0, 0]

    bright = [torch.full((width,), level[name]) for name in ("vitreous", *anatomy.LAYERS)]
    for layer in (IS, OS, RPE):  # photoreceptors and RPE are lost, in the end as dark as the ONL
        bright[1 + layer] = torch.lerp(bright[1 + layer], bright[1 + ONL], 0.9 * atrophy)
    borders = torch.cat([surfaces[:-1], rpe_lower[None], surfaces[-1:]])  # (10, W)
    bright += [torch.full((width,), level["drusen"])]
    below = [coverage(s - row) for s in borders]  # share of the pixel that lies below each border
    signal = bright[0] * (1 - below[0])
    for value, upper, lower in zip(bright[1:], below[:-1], below[1:], strict=True):
        signal = signal + value * (upper - lower)

    # Light is scattered on its way down; the choroid, full of vessels, swallows what is left,
    # unless the RPE above it is gone.
    ilm, bm = surfaces[0], surfaces[-1]
    texture = 1 + params["texture"] * gaussian_field(
        (height, width), gen, sigma_px=height / 64, anisotropy=(0.5, 2.0)
    )
    blotches = 1 + params["blotches"] * gaussian_field((height, width), gen, sigma_px=height / 40)
    streaks = torch.zeros(width)
    for column, gain in params["streaks"]:
        streaks[column] = gain - 1
    reach = params["choroid_px"] * (1 + 1.5 * torch.maximum(atrophy, streaks))
    choroid = level["choroid"] * (1 + torch.maximum(atrophy, streaks)) * blotches.clamp_min(0)
    choroid = choroid * torch.exp(-(row - bm).clamp_min(0) / reach)
    signal = signal * texture + choroid * below[-1]
    depth = (row - ilm).clamp_min(0) / (bm - ilm).mean()
    signal = signal * torch.exp(-params["attenuation"] * depth.clamp_max(1.5))

    factor, shadowed = anatomy.shadow_weight(params)
    vessel = coverage((surfaces[0] + surfaces[1]) / 2 - row)  # vessels lie in the RNFL
    signal = signal * (1 - vessel * (1 - factor))
    if params["pathology"] == "drusen" and params["bm_fade"] > 0:
        # Large drusen and vessels leave no light for the membrane: the signal ends before it.
        upper, lift = surfaces[-2], anatomy.bump(params)
        hidden = torch.maximum((lift / (0.06 * height)).clamp_max(1), shadowed)
        ramp = ((row - upper) / (0.7 * (bm - upper))).clamp(0, 1)
        signal = signal * (1 - params["bm_fade"] * hidden * ramp)
    if params["band"] is not None:
        column, wide, low = params["band"]
        x = torch.arange(width, dtype=torch.float32)
        inside = coverage((x - column).abs() - wide / 2, 0.2 * wide)
        signal = signal * (1 - inside * (1 - low))
    return signal


def point_spread(signal: Tensor, sigma_px: float) -> Tensor:
    """``(H,W)`` to ``(1,1,H,W)``, blurred along depth alone: the columns are a scanned beam's."""
    return blur(signal.T[:, None], sigma_px)[:, 0].T[None, None].contiguous()  # lines (W, 1, H)
