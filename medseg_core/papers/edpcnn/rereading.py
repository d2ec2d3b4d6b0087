"""What else can be read off a trained U-Net's maps: in the star's disc, and through the solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from medseg_core.papers.edpcnn.evaluation import component, disc, scores
from medseg_core.papers.edpcnn.experiment import Bench

Extras = Mapping[str, Any]  # of an arm of `experiment`


def best_through_dp(extras: Extras) -> float:
    """The best validation Dice through the solver, of the best feed.

    An arm without feeds is trained through the solver, and was validated so.

    Taught in: edpcnn.
    """
    if "through_dp" not in extras:
        return extras["history"].best[1]
    return max(dice for dice, _ in extras["through_dp"].values())


def rows(
    n: int, seeds: Sequence[int], extras: Mapping[tuple[str, int], Extras], own: str, bench: Bench
) -> tuple[dict[str, dict[int, dict[str, Tensor]]], str]:
    """Scores of the test images, and the row whose feed the validation images prefer.

    Args:
        n: training images, which the names of arms and rows end with.
        extras: of every arm and seed. Of "U-Net", tuned by itself, pixels outside of the star's
            disc are out of the race; each feed of ``own``, the U-Net that was tuned through the
            solver, makes a row.
        bench: of the arms.

    Returns:
        {row: {seed: `evaluation.scores`}}, and the name of one of its rows.

    Taught in: edpcnn.
    """
    s, test = bench.s, bench.parts.test
    found, validation = {}, {}
    for seed in seeds:
        maps = extras[f"U-Net ({n})", seed]["test"]
        inside = (maps > 0) & disc(test["centre"], s.radius, s.size)
        row = scores(component(inside, test["centre"]), test)
        found.setdefault(f"U-Net in the star's disc ({n})", {})[seed] = row
        for feed, (dice, maps) in extras[f"{own} ({n})", seed]["through_dp"].items():
            name = f"U-Net + DP on {feed} ({n})"
            found.setdefault(name, {})[seed] = scores(bench.segment(maps, test), test)
            validation.setdefault(name, []).append(dice)
    return found, max(validation, key=lambda name: np.mean(validation[name]))
