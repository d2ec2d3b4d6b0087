"""Rows that need no training: what the centre, the solver and the star are worth by themselves."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from scipy import ndimage
from torch import Tensor

from medseg_core.papers.edpcnn.evaluation import disc, mean_dice, outline, scores
from medseg_core.papers.edpcnn.experiment import Bench, star, subset
from medseg_core.solvers.star_pattern import star_truth

BLURS_PX, DELTAS = (0.0, 0.7, 1.5, 2.5), (1, 2, 3, 5)


def rows(bench: Bench, n: int, seed: int) -> dict[str, dict[str, Tensor]]:
    """Scores of the test images: {row: `evaluation.scores`}.

    Args:
        bench: of the arms.
        n: training images of the seed that the mean disc may see.

    Taught in: edpcnn.
    """
    test = bench.parts.test
    masks = {
        "mean disc": mean_disc(subset(bench.parts.train, n, seed)["mask"], test["centre"]),
        "floor: DP on the image": floor(bench),
        "ceiling: true answers": ceiling(bench),
    }
    return {name: scores(found, test) for name, found in masks.items()}


def mean_disc(masks: Tensor, centres: Tensor) -> Tensor:
    """Discs of the masks' mean area at other objects' centres (N,2): (N,1,H,W)."""
    area = masks.sum((1, 2, 3)).float().mean()
    return disc(centres, (area / math.pi).sqrt(), masks.shape[-1])


def floor(bench: Bench) -> Tensor:
    """The solver on the smoothed image; blur and band have the best validation Dice."""
    _, validation, test = bench.parts

    def found(data: dict[str, Any], blur_px: float, delta: int) -> Tensor:
        blur = ndimage.gaussian_filter(data["image"], (0, 0, blur_px, blur_px))
        return bench.segment(torch.from_numpy(blur), data, delta)

    tried = {
        knobs: mean_dice(found(validation, *knobs), validation)
        for knobs in itertools.product(BLURS_PX, DELTAS)
    }
    return found(test, *max(tried, key=tried.get))


def ceiling(bench: Bench) -> Tensor:
    """The true answers' masks: what a star with so many rays can do."""
    s, test = bench.s, bench.parts.test
    v = star_truth(test["mask"], star(s, test["centre"]))[0].float()
    return outline(v, test["centre"], s.radius / s.n_points, s.size)
