"""Intravascular ultrasound in polar form: blood, the vessel's wall and what lies outside it.

Row i is the radius i·spacing[0] from the catheter, column j the angle 2πj/W, periodic. A sample is
one frame of one patient. Lengths in the comments are pixels at 96 rows and scale with them; echoes
are amplitudes in dB below the brightest one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_core import rng
from medseg_core.phantoms._draw import Draw
from medseg_core.phantoms._series import series, sides
from medseg_core.physics.noise import RAYLEIGH_SD, blur, gaussian_field, rician, speckle
from medseg_core.physics.shapes import coverage, region_label

BLOOD, WALL, OUTSIDE = 0, 1, 2  # regions of `label`, one more below each surface
SURFACES = ("lumen", "media")
DEPTH_MM = 5.0  # radius of the field of view
DYNAMIC_RANGE_DB = 50.0
# How many frames show each of them.
SHARE = {"guide_wire": 0.8, "calcification": 0.5, "side_branch": 0.4}


def ivus_polar(
    n: int, size: int | Sequence[int] = (96, 128), seed: int = 0, *, start: int = 0, **options: Any
) -> dict:
    """Phantom of polar IVUS frames, samples start … start + n − 1 of ``seed``.

    The image is log-compressed, I = 1 + 20·log₁₀(echo)/50 dB, clipped to [0, 1].

    Args:
        n: number of frames, ≥ 1.
        size: ``(H, W)`` = (radii, angles), each at least 32; one number gives both.
        seed: ≥ 0; sample i depends on (seed, i) alone, never on n or start.
        start: number of the first sample.
        **options: those of `ivus_polar_params`.

    Returns:
        ``image (N,1,H,W)`` in [0, 1]; ``surfaces (N,2,W)``: lumen and media, sub-pixel rows;
        ``label (N,H,W)``: 0 blood (with the catheter), 1 wall, 2 outside; ``spacing``: mm per row
        and RADIANS per column; ``group (N,)``: patient; ``params``: list of what was drawn;
        ``hidden["noise_free"] (N,1,H,W)``.

        The truth is the vessel's: it runs on through shadows and across the mouth of a branch.

    Raises:
        ValueError: an argument out of range.
        TypeError: a count that is no integer, an unknown option.

    Taught in: ipm-surfaces.
    """
    draw, render = ivus_polar_params, render_ivus_polar
    return series("ivus_polar", draw, render, n, seed, start, size=size, **options)


def ivus_polar_params(
    seed: int,
    index: int,
    *,
    size: int | Sequence[int] = (96, 128),
    guide_wire: bool = True,
    calcification: bool = True,
    side_branch: bool = True,
) -> dict:
    """Everything that is drawn for sample ``index``; change an entry and render again.

    Angles are radians in the vessel's frame; ``rotation`` turns all of them at once. A wire,
    calcification or branch that is absent is None.

    Args:
        seed: ≥ 0.
        index: of the sample, ≥ 0.
        size: ``(H, W)`` = (radii, angles), each at least 32; one number gives both.
        guide_wire: most frames have a wire in the lumen, bright, with a shadow of 8–15° behind it.
        calcification: half of them have 20–60° of calcium: bright at the lumen, blank behind.
        side_branch: a third have a branch of 15–30°, whose blood leaves no edge at the lumen.

    Raises:
        ValueError: an argument out of range.
    """
    height, width = sides(size, 2, 32)
    uniform = Draw(rng.generator(seed, index, "ivus_polar.patient")).uniform

    def angle() -> float:
        return uniform(0, 2 * math.pi)

    scale = height / 96
    lumen, wall = uniform(0.25, 0.45), uniform(0.08, 0.20)  # of H, means over the angle
    # As eccentric as it can be with the catheter clear of the wall and the media in view.
    reach = min(0.2, 0.85 * lumen - 0.14, 0.92 - 1.15 * lumen - 1.4 * wall)
    tissue = uniform(-20, -14)
    params = {
        "size": (height, width),
        "patient": index,
        "rotation": angle(),
        "lumen_px": lumen * height,
        # Orders (k, amplitude, phase) of the outline: an ellipse and a little more.
        "outline": [(k, uniform(0, c), angle()) for k, c in ((2, 0.10), (3, 0.03), (4, 0.02))],
        "wall_px": wall * height,
        # Plaque makes one side of the wall thicker than the other.
        "wall_outline": [(k, uniform(0, c), angle()) for k, c in ((1, 0.30), (2, 0.10))],
        "offset_px": reach * height * math.sqrt(uniform(0, 1)),
        "offset_angle": angle(),
        "catheter_px": scale * uniform(5, 7),
        "ring_db": uniform(-8, -2),  # the catheter's ring-down
        "blood_db": tissue - uniform(5, 12),
        "wall_db": tissue,
        "intima_db": tissue + uniform(1, 5),
        # The media is an echo-lucent band in front of the bright adventitia.
        "media_db": tissue - uniform(2, 6),
        "media_px": scale * uniform(1.5, 3),
        "adventitia_db": tissue + uniform(5, 9),
        "adventitia_px": scale * uniform(6, 14),
        "outside_db": tissue + uniform(-3, 3),
        "patches_db": 3.0,  # σ of the adventitia's and the intima's changes along the angle
        "texture_db": 2.5,  # σ of the tissue's own texture
        "swirl_db": 1.5,  # σ of the blood's slow changes
        "attenuation_db": uniform(3, 9),  # over the whole depth
        "gain_db": uniform(-4, 4),
        "blur_px": 0.8 * scale,
        "speckle": RAYLEIGH_SD,  # fully developed
        "grain_px": (0.7 * scale, 0.9 * width / 128),  # along the beam, across it
        "floor_db": -48.0,  # the receiver's noise
        "wire": None,
        "calcium": None,
        "branch": None,
    }
    # Drawn whether they are shown or not, so that an option changes nothing else.
    shown = {name: uniform(0, 1) < share for name, share in SHARE.items()}
    wire = {
        "angle": angle(),
        "half_width": math.radians(uniform(8, 15)) / 2,
        "place": uniform(0.3, 0.95),  # between the catheter and the lumen
        "shadow_db": uniform(-30, -18),
    }
    calcium = {
        "angle": angle(),
        "half_width": math.radians(uniform(20, 60)) / 2,
        "place": uniform(0.0, 0.3),  # between the lumen and the media
        "thickness_px": scale * uniform(2, 3.5),
        "shadow_db": uniform(-30, -20),
    }
    half = math.radians(uniform(15, 30)) / 2
    clear = calcium["half_width"] + half + math.radians(15)  # calcium does not lie in the mouth
    branch = {
        "angle": calcium["angle"] + uniform(clear, 2 * math.pi - clear),
        "half_width": half,
        "length_px": scale * uniform(10, 40),  # beyond the media
    }
    if guide_wire and shown["guide_wire"]:
        params["wire"] = wire
    if calcification and shown["calcification"]:
        params["calcium"] = calcium
    if side_branch and shown["side_branch"]:
        params["branch"] = branch
    return params


def vessel_surfaces(params: dict) -> Tensor:
    """Radii of lumen and media as the catheter sees them: ``(2,W)`` float64, in rows.

    Both are star-shaped outlines R·(1 + Σ cₖ cos(k·a + φₖ)) about the vessel's centre, looked at
    from a point beside it: each outline is moved, and its radius interpolated at the columns.
    """
    width = params["size"][1]
    a = np.linspace(0, 2 * np.pi, 16 * width, endpoint=False)

    def outline(mean: float, orders: Sequence[tuple]) -> np.ndarray:
        return mean * (1 + sum(c * np.cos(k * a + phi) for k, c, phi in orders))

    lumen = outline(params["lumen_px"], params["outline"])
    wall = outline(params["wall_px"], params["wall_outline"])
    away, towards = params["offset_px"], params["offset_angle"]
    columns = 2 * np.pi * np.arange(width) / width - params["rotation"]
    radii = []
    for r in (lumen, lumen + wall):
        row = r * np.sin(a) + away * np.sin(towards)
        column = r * np.cos(a) + away * np.cos(towards)
        seen = np.interp(columns, np.arctan2(row, column), np.hypot(row, column), period=2 * np.pi)
        radii.append(seen)
    return torch.from_numpy(np.stack(radii))


def render_ivus_polar(params: dict, *, gen: torch.Generator) -> dict:
    """One sample (N = 1) from its parameters; ``gen`` draws texture, speckle and noise only."""
    height, width = params["size"]
    scale = height / 96
    exact = vessel_surfaces(params)
    lumen, media = exact.float()
    r = torch.arange(height, dtype=torch.float32)[:, None]

    level, blood = _tissues(params, r, lumen, media, gen)
    level = _artefacts(params, r, lumen, media, level, blood)
    level = level + params["gain_db"] - params["attenuation_db"] * r / height
    # Along the beam: the pulse's length. (W,1,H) lines, so that no angle mixes with another.
    echo = blur((10 ** (level / 20)).T[:, None], params["blur_px"])[:, 0].T
    beyond = r - params["catheter_px"]
    ring = 10 ** (params["ring_db"] / 20) * torch.exp(-beyond.clamp_min(0) / (1.5 * scale))
    echo = (echo + ring) * coverage(-beyond)  # the catheter itself is dark
    kind = {"law": "rayleigh", "strength": params["speckle"], "grain_px": params["grain_px"]}
    noisy = speckle(echo[None, None], gen, periodic=(1,), **kind)
    noisy = rician(noisy, 10 ** (params["floor_db"] / 20), gen)

    return {
        "image": compress(noisy),
        "surfaces": exact.float()[None],
        "label": region_label(exact.float(), height)[None],
        "spacing": (DEPTH_MM / height, 2 * math.pi / width),
        "group": torch.tensor([params["patient"]]),
        "params": [params],
        "hidden": {"noise_free": compress(echo)[None, None]},
    }


def _tissues(
    params: dict, r: Tensor, lumen: Tensor, media: Tensor, gen: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Echoes in dB of the tissues, painted from the outside in, and of blood alone: ``(H,W)``."""
    height, width = params["size"]
    scale = height / 96

    def field(sigma: float) -> Tensor:
        return gaussian_field((height, width), gen, sigma_px=sigma, periodic=(1,))

    def along_angle() -> Tensor:
        return gaussian_field((width,), gen, sigma_px=width / 24, periodic=(0,))

    texture = params["texture_db"] * field(2.5 * scale)
    blood = params["blood_db"] + params["swirl_db"] * field(6 * scale)
    adventitia = params["adventitia_db"] + params["patches_db"] * along_angle() + texture
    intima = params["intima_db"] + params["patches_db"] * along_angle()
    band = _media_band(params, lumen, media)
    outside = params["outside_db"] + 1.5 * texture
    faded = ((r - media) / params["adventitia_px"]).clamp(0, 1) ** 2  # it fades outwards
    level = adventitia + faded * (outside - adventitia)
    for surface, inside in (
        (media, params["media_db"] + texture / 2),
        (media - band, params["wall_db"] + texture),
        (lumen + 1.5 * scale, intima),
        (lumen, blood),
    ):
        level = level + coverage(r - surface) * (inside - level)
    return level, blood


def _media_band(params: dict, lumen: Tensor, media: Tensor) -> Tensor:
    """Thickness of the media ``(W,)``: the drawn one, at most a third of a thin wall."""
    return torch.minimum(torch.full_like(media, params["media_px"]), 0.35 * (media - lumen))


def _artefacts(
    params: dict, r: Tensor, lumen: Tensor, media: Tensor, level: Tensor, blood: Tensor
) -> Tensor:
    """Side branch, calcium and guide wire over the tissues' echoes, ``(H,W)`` in dB."""
    height, width = params["size"]
    scale = height / 96
    angle = torch.arange(width) * (2 * math.pi / width) - params["rotation"]

    def sector(part: dict) -> Tensor:
        """1 in the sector of `part`, 0 outside, with edges of 3°: ``(W,)``."""
        apart = torch.remainder(angle - part["angle"] + math.pi, 2 * math.pi) - math.pi
        return coverage(apart.abs() - part["half_width"], width=math.radians(3))

    if part := params["branch"]:
        end = coverage(r - media - part["length_px"], width=4 * scale)
        level = level + sector(part) * end * (r > lumen - 1) * (blood - level)
    if part := params["calcium"]:
        top = lumen + part["place"] * (media - lumen - _media_band(params, lumen, media))
        half = part["thickness_px"] / 2
        level = level + sector(part) * coverage(top - r) * part["shadow_db"]
        level = level + sector(part) * coverage((r - top - half).abs() - half) * (-2 - level)
    if part := params["wire"]:
        place = params["catheter_px"] + part["place"] * (lumen - params["catheter_px"])
        level = level + sector(part) * coverage(place - r) * part["shadow_db"]
        level = level + sector(part) * coverage((r - place).abs() - scale) * (-3 - level)
    return level


def compress(echo: Tensor) -> Tensor:
    """Brightness of an echo amplitude: 1 at amplitude 1, 0 at 50 dB below, linear in dB."""
    db = 20 * torch.log10(echo.clamp_min(1e-6))
    return (1 + db / DYNAMIC_RANGE_DB).clamp(0, 1)
