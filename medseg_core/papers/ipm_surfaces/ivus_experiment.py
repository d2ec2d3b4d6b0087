"""The second application: lumen and media of an artery in polar IVUS frames, and their scores.

Taught in: ipm-surfaces.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from medseg_core.datasets import IVUS2011
from medseg_core.metrics import overlap, surface
from medseg_core.papers.ipm_surfaces import experiment, scores
from medseg_core.papers.ipm_surfaces.experiment import Data, Settings, Task
from medseg_core.phantoms import ivus_polar
from medseg_core.physics.shapes import polygon_mask

NAMES = ("lumen", "media")


def load(s: Settings, seed: int, reader: IVUS2011 | None = None) -> tuple[Task, float]:
    """Frames for training, validation and test, and mm per row.

    Args:
        s: the settings.
        seed: of the phantom; real data are the same for every seed.
        reader: of the challenge's data set B, whose split is kept; None: the phantom.

    Raises:
        ValueError: a data set that leaves a part without a frame.
    """
    if reader is None:
        counts = experiment.checked_counts(s.ivus_counts)
        draw = partial(ivus_polar, size=s.ivus_size, seed=seed)
        starts = experiment.PARTS.values()
        parts = [draw(n, start=start) for n, start in zip(counts, starts, strict=True)]
    else:
        (train, test), (n_train, n_validation, n_test) = reader.split(), s.ivus_counts
        chosen = (train[:n_train], train[n_train : n_train + n_validation], test[:n_test])
        for name, part in zip(experiment.PARTS, chosen, strict=True):
            if not part:
                raise ValueError(f"the data set is too small: no frame is left for {name}")
        parts = [reader.load(part, size=s.ivus_size) for part in chosen]
    task = Task(*map(experiment.prepared, parts), s.ivus_steps, circular=True)
    return task, float(parts[2]["spacing"][0])


def disc(radii: Tensor, n_radii: int, pixels: int) -> Tensor:
    """Mask (n,1,P,P) of what lies within the radii (n,W), rows of a polar image of `n_radii`."""
    angle = 2 * torch.pi * torch.arange(radii.shape[1]) / radii.shape[1]
    scale = pixels / 2 / n_radii
    points = torch.stack([torch.sin(angle), torch.cos(angle)], 1) * radii[..., None] * scale
    masks = [polygon_mask(p + (pixels - 1) / 2, (pixels, pixels)) for p in points]
    return torch.stack(masks).bool().reshape(len(radii), 1, pixels, pixels)


def score(placed: Tensor, data: Data, *, mm_per_row: float, pixels: int) -> dict[str, Any]:
    """The retina's scores and the challenge's, of both contours on Cartesian masks.

    Args:
        placed: (n,2,W) radii, rows.
        data: the frames, with the true ``surfaces``.
        mm_per_row: of the polar form.
        pixels: side P of the masks.

    Returns:
        Beside `scores.score`, for "lumen" and "media" one value per frame: "lumen Dice",
        "lumen Jaccard", "lumen HD" (Hausdorff distance, mm), "lumen PAD" (difference of the areas
        as a share of the true one).
    """
    n_radii = data["image"].shape[2]
    mm = mm_per_row * n_radii * 2 / pixels
    found = {}
    for k, name in enumerate(NAMES):
        mask, truth = (disc(x[:, k], n_radii, pixels) for x in (placed, data["surfaces"]))
        area, true_area = (m.sum((1, 2, 3)).double() for m in (mask, truth))
        found |= {
            f"{name} Dice": overlap.dice(mask, truth)[:, 0],
            f"{name} Jaccard": overlap.jaccard(mask, truth)[:, 0],
            f"{name} HD": surface.surface_distance(mask, truth, spacing=(mm, mm), kind="hd"),
            f"{name} PAD": (area - true_area).abs() / true_area,
        }
    challenge = {key: value.double().numpy() for key, value in found.items()}
    return scores.score(placed, data) | challenge
