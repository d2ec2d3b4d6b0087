"""Where a star's centre goes: anywhere on the object in training, off its place in a test."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medseg_core import checks, rng
from medseg_core.papers.edpcnn.evaluation import mean_dice, pixel


def random_centres(mask: Tensor, gen: torch.Generator, move: bool = True) -> tuple[Tensor, Tensor]:
    """Centres that lie anywhere on the objects, and angles of the stars in [−π, π).

    Source: Nguyen and Ray 2019, section 3.3; uniform over the pixels as in the published code.

    Args:
        mask: (B,1,H,W), on the CPU, none empty.
        gen: draws the pixels, then the angles.
        move: False keeps each centre at its object's centre of mass.

    Returns:
        (B,2) (row, column) in pixels, and (B,).

    Taught in: edpcnn.
    """
    at = torch.multinomial(mask.flatten(1).float(), 1, generator=gen)[:, 0]
    centre = torch.stack([at // mask.shape[-1], at % mask.shape[-1]], dim=1).float()
    if not move:
        centre = torch.stack([torch.nonzero(m[0]).float().mean(0) for m in mask])
    return centre, (2 * torch.rand(len(mask), generator=gen) - 1) * math.pi


def jittered_centres(data: dict[str, Any], level: float, seed: int) -> Tensor:
    """Centres moved by a truncated normal vector no longer than level × the object's radius.

    The radius is the shortest distance from the centre to the object's border; each coordinate has
    half the bound as its standard deviation. Source: Nguyen and Ray 2019, Figure 5.

    Args:
        data: "mask" and "centre".
        level: in 0 … 1, so that no centre leaves its object.
        seed: of the displacements.

    Raises:
        ValueError: a level outside of that.

    Taught in: edpcnn.
    """
    checks.between(level, "level", 0, 1)
    random = rng.numpy_rng(seed, stream="jitter")
    centres = data["centre"].clone()
    for i, mask in enumerate(data["mask"][:, 0].numpy()):
        bound = level * ndimage.distance_transform_edt(mask)[pixel(centres[i])]
        while bound > 0:
            step = random.normal(0, bound / 2, 2)
            if np.hypot(*step) <= bound:
                centres[i] += torch.tensor(step, dtype=torch.float32)
                break
    return centres


def dice_off_centre(
    segment: Callable[..., Tensor],
    maps: Tensor,
    data: dict[str, Any],
    levels: Sequence[float],
    n_draws: int,
) -> list[float]:
    """Mean Dice of ``segment(maps, data, centre=...)`` under `jittered_centres` of each level.

    Args:
        n_draws: displacements of each image, over which the mean is taken; level 0 needs one.

    Taught in: edpcnn.
    """

    def dice(level: float) -> float:
        centres = [jittered_centres(data, level, k) for k in range(n_draws if level else 1)]
        return float(np.mean([mean_dice(segment(maps, data, centre=c), data) for c in centres]))

    return [dice(level) for level in levels]
