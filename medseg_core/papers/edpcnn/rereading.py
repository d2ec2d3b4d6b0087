"""What else can be read off a trained U-Net's maps: in the star's disc, and through the solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from medseg_core.papers.edpcnn.evaluation import component, disc, scores
from medseg_core.papers.edpcnn.experiment import Bench

Extras = Mapping[str, Any]  # of `experiment.unet_arm`


def rereadings(alone: Extras, for_dp: Extras, bench: Bench) -> dict[str, dict[str, Tensor]]:
    """Scores of the test images: {row: `evaluation.scores`}.

    Args:
        alone: extras of the U-Net that was tuned by itself; its pixels outside of the star's disc
            are out of the race.
        for_dp: extras of the one that was tuned through the solver; one row for each feed.

    Taught in: edpcnn.
    """
    s, test = bench.s, bench.parts.test
    inside = (alone["test"] > 0) & disc(test["centre"], s.radius, s.size)
    rows = {"U-Net in the star's disc": scores(component(inside, test["centre"]), test)}
    for feed, (_, maps) in for_dp["through_dp"].items():
        rows[f"U-Net + DP on {feed}"] = scores(bench.segment(maps, test), test)
    return rows


def best_feed(for_dp: Sequence[Extras]) -> str:
    """The feed with the best mean validation Dice through the solver, over the seeds.

    Taught in: edpcnn.
    """
    feeds = for_dp[0]["through_dp"]
    means = {feed: np.mean([x["through_dp"][feed][0] for x in for_dp]) for feed in feeds}
    return max(means, key=means.get)
