"""Ultrasound of the heart from its apex: the two-chamber view as a scanner shows it.

The probe stands at the top of the image; the left ventricle lies below it, apex first, and below
that, behind the mitral valve, the left atrium. The picture is made as in a scanner: echoes beam by
beam, speckle, log-compression, scan conversion. Lengths are pixels at size 96 (1.6 mm), whatever
the size; echoes are amplitudes in dB below white.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from medseg_core import checks, rng
from medseg_core.phantoms._draw import Draw
from medseg_core.phantoms._series import series, sides
from medseg_core.phantoms.ultrasound.anatomy import draw_dropouts, draw_heart, regions
from medseg_core.phantoms.ultrasound.echoes import echoes
from medseg_core.physics.acoustics import log_compress, scan_convert, speckle_envelope
from medseg_core.physics.deform import identity_grid
from medseg_core.physics.noise import gaussian_field, rician

VENTRICLE, WALL, ATRIUM = 1, 2, 3  # of hidden["label"]
FIELD_MM = 153.6  # height of the image: a pixel at size 96 is 1.6 mm
N_RADII, N_BEAMS = 192, 144  # of the polar image, whatever the size


def ultrasound_bmode(
    n: int, size: int | Sequence[int] = 96, seed: int = 0, *, start: int = 0, **options: Any
) -> dict:
    """Phantom of apical two-chamber B-mode images, samples start … start + n − 1 of ``seed``.

    Args:
        n: number of images, ≥ 1; each is of another patient.
        size: ``(H, W)``, at least 32; one number gives both. The field of view is that of the
            height, so that a wider image shows more of a wide sector.
        seed: ≥ 0; sample i depends on (seed, i) alone, never on n or start.
        start: number of the first sample.
        **options: those of `ultrasound_bmode_params`.

    Returns:
        ``image (N,1,H,W)`` in [0, 1], 0 outside the sector; ``mask (N,1,H,W)`` bool: the left
        ventricle's cavity, papillary muscles included, closed by the valve's line even where no
        leaflet is seen; ``sector (N,1,H,W)`` bool; ``spacing`` in mm; ``group (N,)``: patient;
        ``params``: list of what was drawn; ``hidden``: ``label (N,H,W)`` (1 ventricle, 2 its wall,
        3 atrium), ``noise_free (N,1,H,W)`` and ``polar (N,1,R,A)``, the picture before scan
        conversion.

    Raises:
        ValueError: an argument out of range.
        TypeError: a count that is no integer, an unknown option.

    Taught in: max-margin-crf.
    """
    draw, render = ultrasound_bmode_params, render_ultrasound_bmode
    return series("ultrasound_bmode", draw, render, n, seed, start, size=size, **options)


def ultrasound_bmode_params(
    seed: int,
    index: int,
    *,
    size: int | Sequence[int] = 96,
    dropout: float = 0.3,
    speckle: float = 0.5,
) -> dict:
    """Everything that is drawn for sample ``index``; change an entry and render again.

    Heart, scanner and drop-outs have streams of their own: an option changes nothing else, and the
    sector tells nothing about the heart in it.

    Args:
        seed: ≥ 0.
        index: of the sample, ≥ 0.
        size: ``(H, W)``, at least 32; one number gives both.
        dropout: share in [0, 1] of the angle of the ventricle's wall, from hinge to hinge of the
            valve, whose inner border echoes no more than blood.
        speckle: share in [0, 1] of diffuse echo: 0 no speckle, 1 fully developed (Rayleigh).

    Raises:
        ValueError: an argument out of range.
    """
    height, width = sides(size, 2, 32)
    checks.between(dropout, "dropout", 0, 1)
    checks.between(speckle, "speckle", 0, 1)
    params = {"size": (height, width), "patient": index}
    params |= draw_heart(rng.generator(seed, index, "ultrasound_bmode.heart"))
    gen = rng.generator(seed, index, "ultrasound_bmode.dropout")
    params["dropouts"] = draw_dropouts(params, dropout, gen)
    params |= _draw_scanner(rng.generator(seed, index, "ultrasound_bmode.scanner"))
    return params | {"speckle": float(speckle)}


def _draw_scanner(gen: torch.Generator) -> dict:
    uniform = Draw(gen).uniform
    apex = (uniform(-4, 4), uniform(-4, 4))
    half_angle = math.radians(uniform(35, 42))
    return {
        "apex": apex,  # (row, column from the image's middle)
        "half_angle": half_angle,
        "depth": uniform(87, 93) - apex[0],
        "dynamic_range_db": uniform(50, 60),
        "gain_db": uniform(-4, 4),
        "tgc": uniform(-0.2, 0.2),  # amplitude 1 − tgc at the probe, 1 + tgc at full depth
        "attenuation_db": uniform(0, 5),  # what the scanner's correction leaves
        "haze_db": uniform(-30, -20),  # reverberation at the probe
        "haze_px": uniform(5, 10),  # it falls to 1/e
        "floor_db": -56.0,  # the receiver's noise
        "axial_px": 1.5,  # width of the point spread at half its height
        "lateral_px": (2.0, 4.0),  # at the probe, at full depth
        # A rib's shadow near one edge of the sector: place as a share of the half angle, half its
        # width, and the distance at which it begins.
        "ribs": [
            (
                (1 if uniform(0, 1) < 0.5 else -1) * uniform(0.75, 1.0),
                math.radians(uniform(3, 6)),
                uniform(8, 30),
            )
        ],
    }


def beams(params: dict) -> tuple[Tensor, Tensor]:
    """Radii ``(R,)``, in pixels at size 96, and angles ``(A,)`` of the polar image."""
    half = params["half_angle"]
    radii = torch.linspace(3.0, params["depth"], N_RADII)
    return radii, torch.linspace(-half, half, N_BEAMS)


def render_ultrasound_bmode(params: dict, *, gen: torch.Generator) -> dict:
    """One sample (N = 1) from its parameters; ``gen`` draws texture, speckle and noise only."""
    radii, angles = beams(params)
    r, a = radii[:, None], angles[None]
    row = params["apex"][0] + r * torch.cos(a)  # (R,A), in pixels at size 96
    column = params["apex"][1] + r * torch.sin(a)
    texture = {
        name: _texture(sigma, params, gen) for name, sigma in (("coarse", 8.0), ("fine", 2.5))
    }
    level = echoes(params, row, column, a, texture)
    depth = r / params["depth"]
    gain = 10 ** ((params["gain_db"] - params["attenuation_db"] * depth) / 20)
    haze = 10 ** (params["haze_db"] / 20) * torch.exp(-(r - 3.0) / params["haze_px"])
    echo = (10 ** (level / 20) + haze) * gain * (1 + params["tgc"] * (2 * depth - 1))

    sigma = 1 / math.sqrt(8 * math.log(2))  # of a Gaussian whose width at half height is 1
    near, far = params["lateral_px"]
    step = float(radii[1] - radii[0])
    lateral = (near + (far - near) * depth) / (r * float(angles[1] - angles[0]))
    spread = {"axial_px": params["axial_px"] * sigma / step, "lateral_px": lateral[:, 0] * sigma}
    envelope = speckle_envelope(echo[None, None], gen, **spread, share=params["speckle"])
    polar = log_compress(
        rician(envelope, 10 ** (params["floor_db"] / 20), gen), params["dynamic_range_db"]
    )
    clean = speckle_envelope(echo[None, None], gen, **spread, share=0.0)

    height, width = params["size"]
    scale = height / 96

    def converted(x: Tensor) -> Tensor:
        # Pixel p of the image has its centre at (p + ½)/scale − ½ in pixels at size 96.
        apex = (
            (params["apex"][0] + 0.5) * scale - 0.5,
            params["apex"][1] * scale + (width - 1) / 2,
        )
        return scan_convert(x, radii, angles, (height, width), 1 / scale, apex=apex)

    pixel = identity_grid((height, width))
    label = regions(
        params, (pixel[..., 0] + 0.5) / scale - 0.5, (pixel[..., 1] - (width - 1) / 2) / scale
    )
    sector = converted(torch.ones_like(polar)) > 0.5
    label = label[None] * sector[:, 0]
    return {
        "image": converted(polar),
        "mask": (label == VENTRICLE)[:, None],
        "sector": sector,
        "spacing": (FIELD_MM / height, FIELD_MM / height),
        "group": torch.tensor([params["patient"]]),
        "params": [params],
        "hidden": {
            "label": label,
            "noise_free": converted(log_compress(clean, params["dynamic_range_db"])),
            "polar": polar,
        },
    }


def _texture(sigma: float, params: dict, gen: torch.Generator) -> Tensor:
    """Standard normal field (R,A), smooth over ``sigma`` pixels along and across the beams."""
    rows = sigma * N_RADII / params["depth"]
    # Seen from the probe a patch of one size spans fewer beams with depth: take half way down.
    columns = sigma / (0.5 * params["depth"]) * N_BEAMS / (2 * params["half_angle"])
    return gaussian_field((N_RADII, N_BEAMS), gen, sigma_px=1.0, anisotropy=(rows, columns))
