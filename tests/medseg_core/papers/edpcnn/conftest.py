"""Bright discs of different sizes on a dark ground: a bench on which everything can be known."""

import dataclasses

import pytest
import torch

from medseg_core.papers.edpcnn import experiment
from medseg_core.papers.edpcnn.evaluation import disc, outline
from medseg_core.solvers import star_dp
from medseg_core.solvers.star_pattern import smooth_indices, warp

SETTINGS = dataclasses.replace(
    experiment.SETTINGS["smoke"],
    **{"size": 32, "radius": 12.0, "n_points": 12, "n_lines": 16, "widths": (4, 8)},
    **{"f_width": 4, "batch": 2, "steps": 2, "validate_every": 1, "smooth": 3},
)


def discs(*radii):
    centre = torch.tensor([[16.0, 15.0 + i % 2] for i in range(len(radii))])
    mask = disc(centre, torch.tensor(radii)[:, None, None, None], 32)
    return {"image": mask.float(), "mask": mask, "centre": centre, "spacing": (1.0, 1.0)}


def segment(maps, data, delta=2, centre=None):
    centre = data["centre"] if centre is None else centre
    v = star_dp.circular_dp(warp(maps, experiment.star(SETTINGS, centre)), delta)
    return outline(smooth_indices(v, 3), centre, 1.0, 32)


@pytest.fixture
def bench():
    parts = experiment.Parts(discs(4.0, 5.0, 6.0, 7.0), discs(5.0, 8.0), discs(4.0, 6.0, 8.0))
    return experiment.Bench(SETTINGS, parts, segment, torch.device("cpu"))
