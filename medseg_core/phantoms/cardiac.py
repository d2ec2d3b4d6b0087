"""Short-axis cardiac MR: left ventricle, myocardium, right ventricle and what surrounds them.

A sample is one slice of one patient in one phase; patient p owns the samples 2p (end-diastole)
and 2p + 1 (end-systole). Lengths in the comments are pixels at a size of 96 and scale with it.
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
from medseg_core.physics.noise import bias_field, blur, gaussian_field, rician
from medseg_core.physics.shapes import coverage

BACKGROUND, RV, MYOCARDIUM, LV = 0, 1, 2, 3  # the label table of ACDC
MM_AT_96 = 1.5


def cardiac_sax(
    n: int, size: int | Sequence[int] = 96, seed: int = 0, *, start: int = 0, **options: Any
) -> dict:
    """Phantom of short-axis cardiac MR slices, samples start … start + n − 1 of ``seed``.

    Args:
        n: number of images, ≥ 1.
        size: side in pixels, or ``(H, W)``; at least 32.
        seed: ≥ 0; sample i depends on (seed, i) alone, never on n or start.
        start: number of the first sample.
        **options: those of `cardiac_sax_params`.

    Returns:
        ``image (N,1,H,W)`` in [0, 1]; ``label (N,H,W)``: 0 background, 1 RV, 2 myocardium, 3 LV;
        ``centre (N,2)``: centre of mass of the LV; ``phase_name``: list of "ED"/"ES";
        ``spacing`` (mm); ``group (N,)``: patient; ``params``: list of what was drawn;
        ``hidden["noise_free"] (N,1,H,W)``.

    Raises:
        ValueError: an argument out of range.
        TypeError: a count that is no integer, an unknown option.

    Taught in: edpcnn.
    """
    draw, render = cardiac_sax_params, render_cardiac_sax
    return series("cardiac_sax", draw, render, n, seed, start, size=size, **options)


def cardiac_sax_params(
    seed: int,
    index: int,
    *,
    size: int | Sequence[int] = 96,
    distractors: bool = True,
    papillary: bool = True,
    snr: float = 20.0,
    bias: float = 0.2,
) -> dict:
    """Everything that is drawn for sample ``index``; change an entry and render again.

    Args:
        seed: ≥ 0.
        index: of the sample, ≥ 0; end-diastole and end-systole alternate.
        size: side in pixels, or ``(H, W)``; at least 32.
        distractors: blood-like vessels and organs outside the heart.
        papillary: papillary muscles inside the LV; the truth counts them as blood, as ACDC does.
        snr: blood signal over the σ of the Rician noise.
        bias: strength of the coil shading.

    Raises:
        ValueError: an argument out of range.
    """
    height, width = sides(size, 2, 32)
    checks.between(snr, "snr", 1e-3, None)
    checks.between(bias, "bias", 0, 0.999)

    patient = index // 2
    uniform = Draw(rng.generator(seed, patient, "cardiac_sax.patient")).uniform

    scale = min(height, width) / 96
    depth = uniform(0, 1)  # 0: the base, 1: the apex
    systole = index % 2 == 1
    # Base to apex the ventricle tapers from 18 to 6; patients differ by a tenth.
    radius = min(18.0, max(6.0, (17.5 - 11.0 * depth) * uniform(0.9, 1.1)))
    wall = uniform(3, 5)
    blood = uniform(0.62, 0.88)
    params = {
        "size": (height, width),
        "patient": patient,
        "phase_name": "ES" if systole else "ED",
        "depth": depth,
        "centre": (
            (height - 1) / 2 + scale * uniform(-10, 10),
            (width - 1) / 2 + scale * uniform(-10, 10),
        ),
        "radius_px": scale * radius * (0.65 if systole else 1.0),
        "wall_px": scale * wall * (1.4 if systole else 1.0),
        "outline": [(k, uniform(0, 0.08), uniform(0, 2 * math.pi)) for k in (2, 3, 4)],
        "septum_angle": math.pi + uniform(-0.6, 0.6),  # the RV lies to the left in the image
        # The RV: an ellipse behind the septum, cut by the LV's epicardium; it ends above the apex.
        "rv_reach": uniform(0.9, 1.25)
        * (0.75 if systole else 1.0)
        * (1.0 if depth < 0.85 else 0.4),
        "rv_width": uniform(0.9, 1.15),
        "rv_wall_px": scale * 1.5,
        "blood": blood,
        "rv_blood": blood * uniform(0.9, 1.05),
        "muscle": blood - uniform(0.18, 0.4),
        "fat": uniform(0.7, 0.95),
        "lung": uniform(0.03, 0.1),
        "tissue": uniform(0.25, 0.5),
        "body": [uniform(0.52, 0.62), uniform(0.6, 0.72), uniform(-0.06, 0.06)],
        "papillary": [],
        "decoys": [],
        "snr": snr,
        "bias": bias,
        "texture": 0.08,
        "blur_px": 0.8 * scale,
    }
    n_papillary, n_decoys = 2 + int(uniform(0, 2)), 1 + int(uniform(0, 3))
    for k in range(n_papillary):
        angle = 2 * math.pi * (k + uniform(0.2, 0.8)) / n_papillary
        size_ratio, touches = uniform(0.15, 0.25), uniform(0, 1) < 0.5
        reach = (1 - 0.6 * size_ratio) if touches else uniform(0.45, 0.65)
        if papillary:
            params["papillary"].append((angle, reach, size_ratio))
    for _ in range(n_decoys):
        # A little off the heart: where liver vessels, stomach and aorta lie.
        angle, gap, r = uniform(0, 2 * math.pi), uniform(1, 14), uniform(3, 9)
        ringed, level_ratio = uniform(0, 1) < 0.5, uniform(0.92, 1.05)
        if distractors:
            params["decoys"].append((angle, scale * gap, scale * r, ringed, blood * level_ratio))
    return params


def _polar(size: tuple[int, int], centre: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Distance (pixels) and angle (0 along +column, towards +row) of every pixel centre."""
    row = torch.arange(size[0], dtype=torch.float32)[:, None] - centre[0]
    column = torch.arange(size[1], dtype=torch.float32)[None] - centre[1]
    return torch.hypot(row, column), torch.atan2(row, column)


def _outline(angle: Tensor, radius: float, orders: Sequence[tuple]) -> Tensor:
    """Radius of the star-shaped outline R·(1 + Σ cₖ cos(k·a + φₖ)) at each angle."""
    return radius * (1 + sum(c * torch.cos(k * angle + phi) for k, c, phi in orders))


def _ellipse(size: tuple[int, int], centre: Sequence[float], axes: Sequence[float]) -> Tensor:
    """Approximate signed distance to an axis-parallel ellipse, (|x/a| − 1)·min(a)."""
    row = (torch.arange(size[0], dtype=torch.float32)[:, None] - centre[0]) / axes[0]
    column = (torch.arange(size[1], dtype=torch.float32)[None] - centre[1]) / axes[1]
    return (torch.hypot(row, column) - 1) * min(axes)


def signed_distances(params: dict) -> dict[str, Tensor]:
    """Approximate signed distances ``(H,W)`` (pixels, negative inside) of the parts of the heart.

    Keys: "lv" (blood pool with papillary muscles), "epi" (LV with its wall), "rv" (blood),
    "rv_wall" (RV with its wall).
    """
    size, centre = params["size"], params["centre"]
    distance, angle = _polar(size, centre)
    inner = _outline(angle, params["radius_px"], params["outline"])
    lv, epi = distance - inner, distance - inner - params["wall_px"]
    outer = params["radius_px"] + params["wall_px"]
    reach = outer * params["rv_reach"]
    a = params["septum_angle"]
    rv_centre = (centre[0] + 0.75 * outer * math.sin(a), centre[1] + 0.75 * outer * math.cos(a))
    rv_distance, rv_angle = _polar(size, rv_centre)
    # An ellipse turned by the septum's angle: long along the septum, `reach` away from it.
    along, across = outer * params["rv_width"], reach
    x = rv_distance * torch.cos(rv_angle - a) / across
    y = rv_distance * torch.sin(rv_angle - a) / along
    free_wall = (torch.hypot(x, y) - 1) * min(along, across)
    rv = torch.maximum(free_wall, -epi)
    return {"lv": lv, "epi": epi, "rv": rv, "rv_wall": free_wall - params["rv_wall_px"]}


def render_cardiac_sax(params: dict, *, gen: torch.Generator) -> dict:
    """One sample (N = 1) from its parameters; ``gen`` draws texture, shading and noise only."""
    size, centre = params["size"], params["centre"]
    parts = signed_distances(params)
    canvas = torch.full(size, 0.02)

    def paint(sd: Tensor, value: float) -> None:
        alpha = coverage(sd)
        canvas.mul_(1 - alpha).add_(alpha * value)

    half = (size[0] / 2, size[1] / 2)
    height, width, shift = params["body"]
    body_centre = (half[0] - 0.5, half[1] - 0.5 + shift * size[1])
    body = _ellipse(size, body_centre, (height * size[0], width * size[1]))
    scale = min(size) / 96
    paint(body, params["fat"])
    paint(body + 4 * scale, params["tissue"])
    for side, row_axis in ((-0.43, 0.36), (0.47, 0.4)):  # the lungs, left and right of the heart
        lung_centre = (half[0], half[1] + side * size[1])
        paint(_ellipse(size, lung_centre, (row_axis * size[0], 0.17 * size[1])), params["lung"])
    paint(parts["epi"] - 2.5 * scale, params["fat"] * 0.8)  # a thin epicardial fat pad

    outer = params["radius_px"] + params["wall_px"]
    for angle, gap, r, ringed, value in params["decoys"]:
        reach = outer * (1.9 if math.cos(angle - params["septum_angle"]) > 0.5 else 1.0) + r + gap
        where = (centre[0] + reach * math.sin(angle), centre[1] + reach * math.cos(angle))
        disc = _polar(size, where)[0] - r
        if ringed:
            paint(disc - 0.35 * r, params["muscle"])
        paint(disc, value)

    paint(parts["rv_wall"], params["muscle"])
    paint(parts["rv"], params["rv_blood"])
    paint(parts["epi"], params["muscle"])
    paint(parts["lv"], params["blood"])
    for angle, reach, ratio in params["papillary"]:
        d = reach * params["radius_px"]
        where = (centre[0] + d * math.sin(angle), centre[1] + d * math.cos(angle))
        muscle = _polar(size, where)[0] - ratio * params["radius_px"]
        paint(torch.maximum(muscle, parts["lv"]), params["muscle"])

    texture = params["texture"] * gaussian_field(size, gen, sigma_px=2 * scale)
    outside_heart = coverage(-torch.minimum(parts["epi"], parts["rv_wall"]))
    clean = blur(
        (canvas * (1 + outside_heart * texture)).clamp_min(0)[None, None], params["blur_px"]
    )
    shaded = clean * bias_field(size, gen, params["bias"])
    image = rician(shaded, params["blood"] / params["snr"], gen).clamp(0, 1)

    label = torch.zeros(size, dtype=torch.int64)
    label[parts["rv"] < 0] = RV
    label[parts["epi"] < 0] = MYOCARDIUM
    label[parts["lv"] < 0] = LV
    mm = MM_AT_96 / scale
    return {
        "image": image.float(),
        "label": label[None],
        "centre": torch.nonzero(label == LV).float().mean(0, keepdim=True),
        "phase_name": [params["phase_name"]],
        "spacing": (mm, mm),
        "group": torch.tensor([params["patient"]]),
        "params": [params],
        "hidden": {"noise_free": clean.float()},
    }
