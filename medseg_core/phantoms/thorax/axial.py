"""Computed tomography of the chest: the heart in its pericardium, and what lies around it.

One parameter set of 3-D ellipsoids (`anatomy`), cut here at an axial level. A sample is one slice
of one patient: row 0 is the patient's front, column 0 the right side. HU are Hounsfield units: air
−1000, water 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from medseg_core import rng
from medseg_core.phantoms._draw import Draw
from medseg_core.phantoms._series import series, sides
from medseg_core.phantoms.thorax.anatomy import (
    draw_chest,
    draw_heart,
    draw_waves,
    ellipsoid,
    muscle,
    sac,
    waves,
)
from medseg_core.physics.noise import blur, gaussian_field, ramp_field
from medseg_core.physics.shapes import coverage

FIELD_MM = 240.0  # side of the reconstructed field of view
WINDOW_HU = (-200.0, 400.0)  # black and white of the image


def thorax_ct(
    n: int, size: int | Sequence[int] = 96, seed: int = 0, *, start: int = 0, **options: Any
) -> dict:
    """Phantom of CT slices through the heart, samples start … start + n − 1 of ``seed``.

    The pericardium is a line of 1–2 mm, thinner than a pixel and broken in places, with fat on both
    sides of it, or lung, liver or chest wall outside.

    Args:
        n: number of slices, ≥ 1; each is a patient of its own.
        size: pixels of a side, or (H, W) of a square; 64 to 256.
        seed: ≥ 0; sample i depends on (seed, i) and the options, never on n or start.
        start: number of the first sample.
        **options: those of `thorax_ct_params`.

    Returns:
        ``image (N,1,H,W)`` in [0, 1]: −200 to 400 HU; ``mask (N,1,H,W)`` bool: inside the
        pericardium; ``spacing`` mm; ``group (N,)``: patient; ``params``: list of what was drawn;
        ``hidden["noise_free"] (N,1,H,W)``; ``hidden["line"] (N,1,H,W)``: the pericardium's share
        of each pixel.

    Raises:
        ValueError: an argument out of range.
        TypeError: a count that is no integer, an unknown option.

    Taught in: max-margin-crf.
    """
    draw, render = thorax_ct_params, render_thorax_ct
    return series("thorax_ct", draw, render, n, seed, start, size=size, **options)


def thorax_ct_params(
    seed: int,
    index: int,
    *,
    size: int | Sequence[int] = 96,
    contrast_agent: tuple[float, float] = (0.0, 1.0),
    level: tuple[float, float] = (0.1, 0.8),
) -> dict:
    """Everything that is drawn for sample ``index``; change an entry and render again.

    ``heart`` and ``chest`` hold ellipsoids in mm about the heart's centre, (z, y, x) with z
    upwards, y to the back and x to the patient's left: the whole chest, of which other outputs can
    be made; ``hu`` holds the tissues' values and ``z_mm`` the slice's height.

    Args:
        seed: ≥ 0.
        index: of the sample, ≥ 0.
        size: pixels of a side, or (H, W) of a square; 64 to 256.
        contrast_agent: least and greatest dose, in [0, 1]: 0 leaves blood as bright as muscle.
        level: least and greatest height of the slice, as a share of the pericardium's, 0 at its
            bottom and 1 at its top; beyond these, in [−0.5, 1.5], slices without pericardium come.

    Raises:
        ValueError: an argument out of range.
    """
    height, width = sides(size, 2, 64, 256)
    if height != width:
        raise ValueError(f"size must be one number or a square (H, W), got {size}")
    _check_range(contrast_agent, "contrast_agent", 0, 1)
    _check_range(level, "level", -0.5, 1.5)
    draw = Draw(rng.generator(seed, index, "thorax_ct.patient"))
    u = draw.uniform
    heart = draw_heart(draw)
    chest = draw_chest(draw, heart)
    at, dose, right = u(0, 1), u(0, 1), u(0.2, 1.0)
    at = level[0] + (level[1] - level[0]) * at
    dose = contrast_agent[0] + (contrast_agent[1] - contrast_agent[0]) * dose
    left_blood = 40 + dose * u(280, 380)
    return {
        "size": (height, width),
        "patient": index,
        "heart": heart,
        "chest": chest,
        "z_mm": heart["sac_bottom"] + at * (heart["sac_top"] - heart["sac_bottom"]),
        "view_mm": (u(-25, 25), u(-25, 25)),  # the view's centre from the heart's: y, x
        "dose": dose,
        "hu": {
            "air": -1000.0,
            "lung": u(-880, -780),
            "fat": u(-110, -85),
            "muscle": u(45, 60),
            "left_blood": left_blood,
            "right_blood": 40 + right * (left_blood - 40),
            "myocardium": 45 + dose * u(40, 70),
            "liver": u(50, 65) + dose * u(20, 50),
            "stomach": u(20, 60),
            "bone": u(180, 300),
            "rib": u(350, 600),
            "line": u(20, 45),
        },
        "line_mm": u(1.0, 2.0),
        "line_waves": draw_waves(draw, 40, 90),
        "line_gap": 1.1,  # SDs of its waves below which the line is not seen
        "thickness_mm": 3.0,
        "blur_mm": u(0.9, 1.3),
        "texture_hu": 8.0,
        "mixing": 0.12,  # of the agent in the right heart, SD as a share of its contrast
        "noise_hu": u(18, 34),
    }


def render_thorax_ct(params: dict, *, gen: torch.Generator) -> dict:
    """One sample (N = 1) from its parameters; ``gen`` draws texture and noise only."""
    height, width = params["size"]
    mm = FIELD_MM / height
    rows, columns = (
        (torch.arange(n) - (n - 1) / 2) * mm + centre
        for n, centre in zip((height, width), params["view_mm"], strict=True)
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    texture = gaussian_field((height, width), gen, sigma_px=4 / mm)
    mixing = gaussian_field((height, width), gen, sigma_px=8 / mm)

    # A slice is an average over its thickness, of three planes here: (3, planes, H, W).
    z = params["z_mm"] + torch.tensor([-1.0, 0.0, 1.0]) * params["thickness_mm"] / 3
    points = torch.stack(torch.broadcast_tensors(z[:, None, None], y, x))
    hu, line = (part.mean(0)[None, None] for part in _planes(params, points, mm, mixing))
    hu = blur(hu + params["texture_hu"] * texture, params["blur_mm"] / mm)
    noise = params["noise_hu"] * ramp_field((height, width), gen)
    return {
        "image": window(hu + noise),
        "mask": (sac(points[:, 1], params["heart"]) < 0)[None, None],
        "spacing": (mm, mm),
        "group": torch.tensor([params["patient"]]),
        "params": [params],
        "hidden": {"noise_free": window(hu), "line": line},
    }


def window(hu: Tensor) -> Tensor:
    """Brightness of Hounsfield units: 0 at −200, 1 at 400, clipped."""
    low, high = WINDOW_HU
    return ((hu - low) / (high - low)).clamp(0, 1)


def _planes(params: dict, points: Tensor, mm: float, mixing: Tensor) -> tuple[Tensor, Tensor]:
    """HU and the pericardium's share of every pixel ``(3,H,W)``, without blur and noise."""
    hu, d = params["hu"], sac(points, params["heart"])
    outside = _surroundings(params, points, d, mm)
    inside = _heart(params, points, mm, mixing)
    image = outside + coverage(d / mm) * (inside - outside)
    seen = ((waves(points, params["line_waves"]) + params["line_gap"]) / 0.5).clamp(0, 1)
    half = seen * params["line_mm"] / 2
    line = coverage((d - half) / mm) - coverage((d + half) / mm)
    return image + line * (hu["line"] - image), line


def _heart(params: dict, points: Tensor, mm: float, mixing: Tensor) -> Tensor:
    """What lies in the sac: fat, vessels, walls and blood."""
    heart, hu = params["heart"], params["hu"]
    image = torch.full(points.shape[1:], hu["fat"])
    _paint_small(image, points, heart["coronaries"], hu["left_blood"], mm)
    swirl = params["mixing"] * (hu["right_blood"] - 40) * mixing
    blood = dict.fromkeys(("la", "lv", "aorta"), hu["left_blood"])
    blood |= dict.fromkeys(("ra", "rv", "trunk"), hu["right_blood"] + swirl)
    image = _paint(image, muscle(points, heart), hu["myocardium"], mm)
    for name in ("la", "ra", "rv", "trunk", "aorta"):
        image = _paint(image, ellipsoid(points, heart["chambers"][name]), blood[name], mm)
    lv = heart["chambers"]["lv"]
    image = _paint(image, ellipsoid(points, lv) - lv["wall"], hu["myocardium"], mm)
    return _paint(image, ellipsoid(points, lv), blood["lv"], mm)


def _surroundings(params: dict, points: Tensor, d: Tensor, mm: float) -> Tensor:
    """What lies outside the sac, painted from the skin inwards."""
    chest, hu = params["chest"], params["hu"]
    cage = ellipsoid(points, chest["cage"])
    image = torch.full(points.shape[1:], hu["air"])

    def paint(distance: Tensor, value: float | Tensor) -> None:
        nonlocal image
        image = _paint(image, distance, value, mm)

    paint(ellipsoid(points, chest["body"]), hu["fat"])
    paint(cage - chest["wall_mm"], hu["muscle"])
    _paint_small(image, points, chest["ribs"], hu["rib"], mm)
    paint(ellipsoid(points, chest["sternum"]), hu["bone"])
    paint(cage, hu["lung"])
    _paint_small(image, points, chest["lung_vessels"], hu["right_blood"], mm, within=cage)
    mean, change = chest["pad_mm"]
    pad = (mean + change * waves(points, chest["pad_waves"])).clamp_min(0)
    slab = ellipsoid(points, chest["mediastinum"])
    slab = slab + chest["mediastinum_waves_mm"] * waves(points, chest["pad_waves"])
    mediastinum = torch.minimum(slab, d - pad)
    paint(torch.maximum(mediastinum, cage), hu["fat"])
    for e, name in zip(chest["domes"], ("liver", "liver", "stomach"), strict=True):
        paint(torch.maximum(ellipsoid(points, e), cage), hu[name])
    for vein in chest["pulmonary"]:
        paint(ellipsoid(points, vein), hu["left_blood"])
    paint(ellipsoid(points, chest["oesophagus"]), hu["muscle"])
    paint(ellipsoid(points, chest["spine"]), hu["bone"])
    paint(ellipsoid(points, chest["canal"]), hu["muscle"] - 20)
    paint(ellipsoid(points, chest["descending"]), hu["left_blood"])
    for vein in chest["cava"]:
        paint(ellipsoid(points, vein), hu["right_blood"])
    for name, blood in (("trunk", hu["right_blood"]), ("aorta", hu["left_blood"])):
        paint(ellipsoid(points, params["heart"]["chambers"][name]), blood)
    others = params["heart"]["neighbours"]
    _paint_small(image, points, others, hu["left_blood"], mm, within=mediastinum)
    return image


def _paint(image: Tensor, distance: Tensor, value: float | Tensor, mm: float) -> Tensor:
    return image + coverage(distance / mm) * (value - image)


def _paint_small(
    image: Tensor,
    points: Tensor,
    parts: Sequence[dict],
    value: float,
    mm: float,
    within: Tensor | None = None,
) -> None:
    """Paint many small ellipsoids in place: each on the pixels around it, most on none at all."""
    first, last = points[:, 0, 0, 0].tolist(), points[:, -1, -1, -1].tolist()
    for e in parts:
        reach = max(e["axes"]) + mm
        z, y, x = e["centre"]
        if not first[0] - reach < z < last[0] + reach:
            continue
        y0, x0 = (max(int((c - reach - lo) / mm), 0) for c, lo in ((y, first[1]), (x, first[2])))
        y1, x1 = (
            max(int((c + reach - lo) / mm) + 2, 0) for c, lo in ((y, first[1]), (x, first[2]))
        )
        at = (slice(None), slice(y0, y1), slice(x0, x1))
        if image[at].numel():
            distance = ellipsoid(points[(slice(None), *at)], e)
            if within is not None:
                distance = torch.maximum(distance, within[at])
            image[at] = _paint(image[at], distance, value, mm)


def _check_range(pair: tuple[float, float], name: str, lo: float, hi: float) -> None:
    least, most = pair
    if not lo <= least <= most <= hi:
        raise ValueError(f"{name} must be (least, greatest) in [{lo:g}, {hi:g}], got {pair}")
