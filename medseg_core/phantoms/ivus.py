"""Intravascular ultrasound in polar form: blood, the vessel's wall and what lies outside it.

Row i is the radius i·spacing[0] from the catheter, column j the angle 2πj/W, periodic. A sample is
one frame of one patient. Lengths in the comments are pixels at 96 rows and scale with them; echoes
are amplitudes in dB below the brightest one. Taught in the chapter `ipm-surfaces`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medseg_core import checks, rng
from medseg_core.physics.noise import blur, gaussian_field, rician, speckle
from medseg_core.physics.shapes import coverage
from medseg_core.stacking import stack

BLOOD, WALL, OUTSIDE = 0, 1, 2  # regions of `label`, one more below each surface
SURFACES = ("lumen", "media")
DEPTH_MM = 5.0  # radius of the field of view
DYNAMIC_RANGE_DB = 50.0
# How many frames show each of them.
SHARE = {"guide_wire": 0.8, "calcification": 0.5, "side_branch": 0.35}


def ivus_polar(
    n: int,
    size: Sequence[int] = (96, 128),
    seed: int = 0,
    *,
    start: int = 0,
    guide_wire: bool = True,
    calcification: bool = True,
    side_branch: bool = True,
) -> dict:
    """Phantom of polar IVUS frames, samples start … start + n − 1 of ``seed``.

    The image is log-compressed, I = 1 + 20·log₁₀(echo)/50 dB, clipped to [0, 1].

    Args:
        n: number of frames, ≥ 1.
        size: ``(H, W)`` = (radii, angles), each at least 32.
        seed: ≥ 0; sample i depends on (seed, i) alone, never on n or start.
        guide_wire: most frames have a wire in the lumen, bright, with a shadow of 8–15° behind it.
        calcification: half of them have 20–60° of calcium: bright at the lumen, blank behind.
        side_branch: a third have a branch of 15–30°, whose blood leaves no edge at the lumen.

    Returns:
        ``image (N,1,H,W)`` in [0, 1]; ``surfaces (N,2,W)``: lumen and media, sub-pixel rows;
        ``label (N,H,W)``: 0 blood (with the catheter), 1 wall, 2 outside; ``spacing``: mm per row
        and RADIANS per column; ``group (N,)``: patient; ``params``: list of what was drawn;
        ``hidden["noise_free"] (N,1,H,W)``.

        The truth is the vessel's: it runs on through shadows and across the mouth of a branch.

    Raises:
        ValueError: an argument out of range.
    """
    checks.between(n, "n", 1, math.inf)
    checks.between(start, "start", 0, math.inf)
    options = {
        "size": size,
        "guide_wire": guide_wire,
        "calcification": calcification,
        "side_branch": side_branch,
    }
    samples = []
    for index in range(start, start + n):
        params = ivus_polar_params(seed, index, **options)
        samples.append(render_ivus_polar(params, gen=rng.generator(seed, index, "ivus_polar.noise")))
    return stack(samples)


def ivus_polar_params(
    seed: int,
    index: int,
    *,
    size: Sequence[int] = (96, 128),
    guide_wire: bool = True,
    calcification: bool = True,
    side_branch: bool = True,
) -> dict:
    """Everything that is drawn for sample ``index``; change an entry and render again.

    Angles are radians in the vessel's frame; ``rotation`` turns all of them at once. A wire,
    calcification or branch that is absent is None.
    """
    height, width = size
    checks.between(min(height, width), "size", 32, math.inf)
    gen = rng.generator(seed, index, "ivus_polar.patient")

    def uniform(lo: float, hi: float) -> float:
        return lo + (hi - lo) * float(torch.rand((), generator=gen))

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
        "blood_db": tissue - uniform(8, 14),
        "wall_db": tissue,
        "intima_db": tissue + uniform(1, 5),
        # The media is an echo-lucent band in front of the bright adventitia.
        "media_db": tissue - uniform(3, 7),
        "media_px": scale * uniform(1.5, 3),
        "adventitia_db": tissue + uniform(6, 10),
        "adventitia_px": scale * uniform(4, 9),
        "outside_db": tissue + uniform(-3, 3),
        "patches_db": 3.0,  # σ of the adventitia's and the intima's changes along the angle
        "texture_db": 2.5,  # σ of the tissue's own texture
        "attenuation_db": uniform(3, 9),  # over the whole depth
        "gain_db": uniform(-4, 4),
        "blur_px": 0.8 * scale,
        "speckle": 1.0,
        "grain_px": 0.8 * scale,
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
    height, width = params["size"]
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
    a = torch.arange(width) * (2 * math.pi / width) - params["rotation"]

    def sector(part: dict) -> Tensor:
        """1 in the sector of `part`, 0 outside, with edges of 3°: ``(W,)``."""
        apart = torch.remainder(a - part["angle"] + math.pi, 2 * math.pi) - math.pi
        return coverage(apart.abs() - part["half_width"], width=math.radians(3))

    def patches(sigma: float) -> Tensor:
        return params["patches_db"] * gaussian_field((width,), gen, sigma_px=sigma, periodic=(0,))

    # Echoes in dB, painted from the outside in.
    texture = gaussian_field((height, width), gen, sigma_px=2.5 * scale, periodic=(1,))
    canvas = params["outside_db"] + 1.5 * params["texture_db"] * texture

    def paint(sd: Tensor, level: Tensor | float) -> None:
        alpha = coverage(sd)
        canvas.mul_(1 - alpha).add_(alpha * level)

    depth = ((r - media) / params["adventitia_px"]).clamp(0, 1)  # the adventitia fades outwards
    bright = params["adventitia_db"] + patches(width / 24) + params["texture_db"] * texture
    paint(r - media - params["adventitia_px"], bright + depth * (canvas - bright))
    paint(r - media, params["media_db"] + params["texture_db"] * texture / 2)
    band = torch.minimum(torch.full_like(media, params["media_px"]), 0.35 * (media - lumen))
    paint(r - (media - band), params["wall_db"] + params["texture_db"] * texture)
    intima = params["intima_db"] + patches(width / 24)
    paint(r - lumen - 1.5 * scale, intima)
    swirl = gaussian_field((height, width), gen, sigma_px=6 * scale, periodic=(1,))
    blood = params["blood_db"] + 1.5 * swirl
    paint(r - lumen, blood)

    if params["branch"]:
        end = r - media - params["branch"]["length_px"]
        opening = sector(params["branch"]) * coverage(end, width=4 * scale)
        canvas = canvas + opening * (r > lumen - 1) * (blood - canvas)
    if params["calcium"]:
        part = params["calcium"]
        top = lumen + part["place"] * (media - lumen - band)
        there = sector(part)
        canvas = canvas + there * coverage(top - r) * (part["shadow_db"] * (r > top) - 0.0)
        shell = coverage((r - top - part["thickness_px"] / 2).abs() - part["thickness_px"] / 2)
        canvas = canvas + there * shell * (-2.0 - canvas)
    if params["wire"]:
        part = params["wire"]
        place = params["catheter_px"] + part["place"] * (lumen - params["catheter_px"])
        there = sector(part)
        canvas = canvas + there * coverage(place - r) * part["shadow_db"]
        canvas = canvas + there * coverage((r - place).abs() - scale) * (-3.0 - canvas)

    canvas = canvas + params["gain_db"] - params["attenuation_db"] * r / height
    echo = 10 ** (canvas / 20)
    # Along the beam: the pulse's length. (W,1,H) lines, so that no angle mixes with another.
    echo = blur(echo.T[:, None], params["blur_px"])[:, 0].T
    from_catheter = r - params["catheter_px"]
    ring = 10 ** (params["ring_db"] / 20) * torch.exp(-from_catheter.clamp_min(0) / (1.5 * scale))
    echo = (echo + ring) * coverage(-from_catheter)  # the catheter itself is dark
    noisy = speckle(
        echo,
        gen,
        law="rayleigh",
        strength=params["speckle"],
        grain_px=params["grain_px"],
        periodic=(1,),
    )
    noisy = rician(noisy, 10 ** (params["floor_db"] / 20), gen)

    label = (r >= lumen).long() + (r >= media).long()
    return {
        "image": compress(noisy)[None, None],
        "surfaces": exact.float()[None],
        "label": label[None],
        "spacing": (DEPTH_MM / height, 2 * math.pi / width),
        "group": torch.tensor([params["patient"]]),
        "params": [params],
        "hidden": {"noise_free": compress(echo)[None, None]},
    }


def compress(echo: Tensor) -> Tensor:
    """Brightness of an echo amplitude: 1 at amplitude 1, 0 at 50 dB below, linear in dB."""
    db = 20 * torch.log10(echo.clamp_min(1e-6))
    return (1 + db / DYNAMIC_RANGE_DB).clamp(0, 1)
