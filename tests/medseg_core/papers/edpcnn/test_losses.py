"""The U-Net's loss per pixel, and the one through the smoothed programme."""

import math

import pytest
import torch
from torch import nn

from medseg_core.papers.edpcnn.marginal_loss import marginal_loss
from medseg_core.papers.edpcnn.pixel_loss import LOSSES, pixel_loss
from medseg_core.solvers.star_pattern import star_pattern, star_truth, warp

BATCH = {"image": torch.zeros(1, 1, 2, 2), "mask": torch.tensor([[[[True, False], [False] * 2]]])}


def test_pixel_losses_by_hand():
    undecided = nn.Identity()  # logits 0: every pixel has probability 1/2
    ce, with_dice = (pixel_loss(name)(undecided, BATCH).item() for name in LOSSES)
    assert ce == pytest.approx(math.log(2))
    assert with_dice - ce == pytest.approx(1 - 2 * 0.5 / (2 + 1), abs=1e-4)  # p has a sum of 2


def test_the_dice_part_does_not_fade_where_the_object_is_small():
    batch = {"image": torch.full((1, 1, 40, 40), -4.0), "mask": torch.zeros(1, 1, 40, 40) > 0}
    batch["mask"][0, 0, 3, 4] = True
    ce, with_dice = (pixel_loss(name)(nn.Identity(), batch).item() for name in LOSSES)
    assert ce < 0.05 and with_dice > 0.9


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="name"):
        pixel_loss("Dice")


def test_marginal_loss_is_small_on_the_true_edge_and_pulls_the_map_towards_it(bench):
    data = bench.parts.test
    points = star_pattern(data["centre"], 16, 12, 12.0)
    v_star = star_truth(data["mask"], points)[0]
    loss = marginal_loss(delta=2, gamma=1.0)
    sharp = loss(None, 20 * data["image"], points, v_star)["loss"]
    maps = torch.zeros_like(data["image"], requires_grad=True)
    flat = loss(None, maps, points, v_star)["loss"]
    assert sharp < 0.1 < flat
    flat.backward()
    better = loss(None, -maps.grad, points, v_star)["loss"]
    assert better < flat and warp(maps.grad, points).abs().sum() > 0
