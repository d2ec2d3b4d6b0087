"""Organs of the abdomen and elsewhere, in 3-D.

`organ_in_context` makes what an interactive method sees: the crop of a user's box around one
abstract organ, among others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medseg_core import checks, rng
from medseg_core.phantoms._draw import Draw
from medseg_core.phantoms._series import series, sides
from medseg_core.phantoms.abdomen import shapes
from medseg_core.phantoms.abdomen import surroundings as context
from medseg_core.physics.noise import bias_field, blur, gaussian_field, rician
from medseg_core.physics.shapes import coverage, mask_to_boxes

KINDS = shapes.KINDS
MODALITY = ("mr", "mr", "mr", "ct", "ct")
POLARITY = (1, 1, 1, -1, -1)  # object brighter or darker than its surroundings
GRAIN_PX = (2.0, 1.2, 0.8, 1.0, 1.5)  # of the object's texture, voxels at 40
CONTRAST = {"mr": (0.2, 0.28), "ct": (0.13, 0.2)}
NOISE = {"mr": 0.05, "ct": 0.06}
ALIKE = {"mr": 0.2, "ct": 0.5}  # share of the neighbours that look like the object
FIELD_MM = 60.0  # the crop's side
MARGIN = 0.15  # of the box's side, at most, on each side


def organ_in_context(
    n: int, size: int | Sequence[int] = 40, seed: int = 0, *, start: int = 0, **options: Any
) -> dict:
    """Phantom of box crops around one organ, samples start … start + n − 1 of ``seed``.

    The task is "the object in the box". Kinds are families of shape: 0 an atrium with veins, 1 a
    walnut, 2 a curved tube (MR: Rician noise, brighter than their surroundings), 3 a large lobe,
    4 a bean (CT: Gaussian noise, darker). Neighbours share the object's intensity, one of them
    touches it, and its edge vanishes on 10–25 % of its surface.

    Args:
        n: number of crops, ≥ 1.
        size: ``(D, H, W)``, each at least 16; one number gives all three.
        seed: ≥ 0; sample i depends on (seed, i) and the options, never on n or start.
        start: number of the first sample.
        **options: those of `organ_in_context_params`.

    Returns:
        ``image (N,1,D,H,W)`` in [0, 1]; ``mask (N,1,D,H,W)`` bool; ``kind (N,)``; ``boxes (N,6)``
        int64, half-open: the tight box, 0–15 % of its side away from each side of the crop;
        ``spacing`` in mm; ``group (N,)``; ``params``: list of what was drawn;
        ``hidden["noise_free"] (N,1,D,H,W)``; ``hidden["strength"] (N,1,D,H,W)``: the share of the
        contrast that an edge shows there; ``hidden["distractors"] (N,D,H,W)``: 0 none, i the i-th
        of ``params["distractors"]``, 1 the touching one.

    Raises:
        ValueError: an argument out of range.
        TypeError: a count that is no integer, an unknown option.

    Taught in: bifseg-interactive.
    """
    draw, render = organ_in_context_params, render_organ_in_context
    return series("organ_in_context", draw, render, n, seed, start, size=size, **options)


def organ_in_context_params(
    seed: int,
    index: int,
    *,
    size: int | Sequence[int] = 40,
    kind: int | Sequence[int] = (0, 1, 2, 3, 4),
    contrast: float = 1.0,
    n_distractors: int | tuple[int, int] = (6, 10),
    touching: bool = True,
) -> dict:
    """Everything that is drawn for sample ``index``; change an entry and render again.

    The anatomy is drawn in the crop's own frame and does not depend on ``size``, ``contrast`` or
    ``touching``.

    Args:
        seed: ≥ 0.
        index: of the sample, ≥ 0.
        size: ``(D, H, W)``, each at least 16; one number gives all three.
        kind: one kind, or several that alternate: sample i has ``kind[i % len(kind)]``.
        contrast: in [0, 2]; scales the contrast between object and surroundings. Above 1 it also
            fills in the vanished edges and draws apart the intensities of object and neighbours;
            at 2 every edge shows.
        n_distractors: least and greatest number of other organs; one number is both.
        touching: the first of them leans on the object; otherwise a gap is left.

    Raises:
        ValueError: an argument out of range.
    """
    size = sides(size, 3, 16)
    checks.between(contrast, "contrast", 0, 2)
    kinds = (kind,) if isinstance(kind, int) else tuple(kind)
    if not kinds:
        raise ValueError("kind must be 0 … 4 or several of them, got none")
    for k in kinds:
        checks.choice(k, "kind", range(len(KINDS)))
    limits = (n_distractors,) * 2 if isinstance(n_distractors, int) else tuple(n_distractors)
    if len(limits) != 2 or not 0 <= limits[0] <= limits[1] <= 30:
        raise ValueError(f"n_distractors must be (lo, hi), 0 ≤ lo ≤ hi ≤ 30, got {n_distractors}")

    k = kinds[index % len(kinds)]
    draw = Draw(rng.generator(seed, index, "organ_in_context.anatomy"))
    u = draw.uniform
    organ = shapes.draw_organ(draw, k, turn=math.radians(30))
    margins = [(u(0, MARGIN), u(0, MARGIN)) for _ in range(3)]
    placed = context.Placed(organ, margins)
    background, strength = u(0.4, 0.5), u(*CONTRAST[MODALITY[k]])
    params = {
        "size": size,
        "patient": index,
        "kind": k,
        "modality": MODALITY[k],
        "organ": organ,
        "margins": margins,
        "contrast": contrast,
        "background": background if POLARITY[k] > 0 else 1 - background,
        "object_contrast": POLARITY[k] * strength,
        "zone": u(-0.06, 0.06) if k == 1 else 0.0,  # of the walnut's core
        "vanishing": u(0.10, 0.25),  # share of the surface without an edge
        "outwards": u(0.3, 0.7),  # share of that where the object seems to run on
        "edge_rise": 0.8,
        "edge_waves": context.draw_waves(draw),
        "touching": touching,
        "alike": 0.0,  # 0: lookalikes have the object's mean; 1: the background's
        "texture": 0.045,
        "background_texture": 0.04,
        "noise": NOISE[MODALITY[k]],
        "bias": 0.2,
        "blur_px": 0.7,
    }
    params["distractors"] = _draw_distractors(draw, placed, draw.integer(*limits), k)
    params["vessels"] = [
        {"part": context.draw_vessel(draw, 1.0, u(0.035, 0.07)), "contrast": u(0.12, 0.25)}
        for _ in range(draw.integer(2, 4))
    ]
    inner = [context.draw_vessel(draw, 0.6, u(0.03, 0.06)) for _ in range(draw.integer(2, 4))]
    params["inner_vessels"] = inner if k == 3 else []
    return params


def _draw_distractors(draw: Draw, placed: context.Placed, count: int, kind: int) -> list[dict]:
    """The touching lookalike, another one, and others; ``level`` None means the object's mean,
    otherwise it is the difference from the background."""
    found, centres = [], []
    for i in range(count):
        if i == 0:
            part = context.draw_touching(draw, placed)
            centres.append(torch.tensor(part["centre"]))
        else:
            part = context.draw_apart(draw, placed, centres, inside=i == 1)
        # Most organs stand out from the tissue between them in the same direction.
        level = draw.uniform(0.08, 0.25) * POLARITY[kind]
        level = level if draw.uniform(0, 1) < 0.75 else -level
        alike = draw.uniform(0, 1) < ALIKE[MODALITY[kind]] or i < 2
        found.append({"part": part, "level": None if alike else level})
    return found


def render_organ_in_context(params: dict, *, gen: torch.Generator) -> dict:
    """One sample (N = 1) from its parameters; ``gen`` draws texture, shading and noise only."""
    size = params["size"]
    points = context.grid(size)
    f = context.Placed(params["organ"], params["margins"]).value(points)
    f = torch.where(_largest(f < 0), f, f.abs())  # a thin appendage may break off on a coarse grid
    voxels = context.voxel_distance(f)
    mask = f < 0
    distance = context.crop_distance(mask)

    def texture(grain: float, amplitude: float) -> Tensor:
        stretch = [s / 40 for s in size]
        return amplitude * gaussian_field(size, gen, sigma_px=grain, anisotropy=stretch)

    own = texture(GRAIN_PX[params["kind"]], params["texture"])
    around = params["background"] + texture(3.0, params["background_texture"])
    gain = params["contrast"]
    delta = gain * params["object_contrast"]
    inside = params["background"] + delta + own + _zone(points, params)
    for part in params["inner_vessels"]:
        inside = inside + 0.4 * delta * _cover(points, part)
    mean = float(inside[mask].mean())

    alike = min(1.0, max(params["alike"], gain - 1))
    lookalike = mean + alike * (params["background"] - mean) + own - own.mean()
    outside, label = _surroundings(params, points, distance, around, lookalike)
    near = distance.abs() < 1.5 / min(size)  # the outermost voxels on both sides
    strength, side = context.edge_strength(points, near, params)
    strength = (strength + max(0.0, gain - 1)).clamp_max(1)
    smeared = (0.5 - (distance - side * context.FADE) / context.FADE).clamp(0, 1)
    share = strength * coverage(voxels) + (1 - strength) * smeared
    clean = outside + share * (inside - outside)
    clean = blur(clean[None, None], params["blur_px"])
    clean = (clean * bias_field(size, gen, params["bias"])).clamp(0, 1)
    if params["modality"] == "mr":
        noisy = rician(clean, params["noise"], gen)
    else:
        noisy = clean + params["noise"] * torch.randn(clean.shape, generator=gen)
    label = label.masked_fill(mask, 0)
    return {
        "image": noisy.clamp(0, 1),
        "mask": mask[None, None],
        "kind": torch.tensor([params["kind"]]),
        "boxes": mask_to_boxes(mask),
        "spacing": tuple(FIELD_MM / s for s in size),
        "group": torch.tensor([params["patient"]]),
        "params": [params],
        "hidden": {
            "noise_free": clean,
            "strength": strength[None, None],
            "distractors": label[None],
        },
    }


def _surroundings(
    params: dict, points: Tensor, distance: Tensor, around: Tensor, lookalike: Tensor
) -> tuple[Tensor, Tensor]:
    """Other organs and vessels painted over the background, and the organs' labels."""
    size, outside = params["size"], around
    label = torch.zeros(size, dtype=torch.int64)
    for vessel in params["vessels"]:
        cover = _cover(points, vessel["part"])
        outside = outside + cover * (around + vessel["contrast"] - outside)
    # The touching one comes last: nothing may hide where it leans on the object.
    for i, organ in reversed(list(enumerate(params["distractors"], start=1))):
        f = shapes.value(points, organ["part"])
        if organ["level"] is None and not (i == 1 and params["touching"]):
            f = torch.maximum(f, context.GAP - distance)
        cover = coverage(context.voxel_distance(f))
        value = lookalike if organ["level"] is None else around + organ["level"]
        outside = outside + cover * (value - outside)
        label = torch.where(f < 0, i, label)
    return outside, label


def _cover(points: Tensor, part: dict) -> Tensor:
    return coverage(context.voxel_distance(shapes.value(points, part)))


def _zone(points: Tensor, params: dict) -> Tensor:
    """Difference of the walnut's core from its rind."""
    return params["zone"] * torch.exp(-0.5 * (points.square().sum(-1) / 0.25).square())


def _largest(mask: Tensor) -> Tensor:
    """Its largest connected component (faces)."""
    label, count = ndimage.label(mask.numpy())
    if count < 2:
        return mask
    return torch.from_numpy(label == 1 + np.bincount(label.ravel())[1:].argmax())
