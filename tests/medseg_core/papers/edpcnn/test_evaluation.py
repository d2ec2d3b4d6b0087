import math

import pytest
import torch

from medseg_core.papers.edpcnn.evaluation import (
    component,
    disc,
    mean_dice,
    outline,
    scores,
    share_broken,
)


def masks(*rows):
    return torch.tensor([[list(map(int, row)) for row in rows]], dtype=torch.bool)[None]


TWO = masks("11000", "11000", "00011", "00011", "00011")  # 4 pixels and 6, no edge in common


@pytest.mark.parametrize(
    ("centre", "pixels"),
    [
        ((0.4, 0.6), 4),  # on the smaller one
        ((3.0, 4.0), 6),
        ((0.0, 4.0), 6),  # on neither: the largest
    ],
)
def test_component_at_the_centre_else_the_largest(centre, pixels):
    kept = component(TWO, torch.tensor([centre]))
    assert kept.dtype == torch.bool and kept.sum() == pixels
    assert not (kept & ~TWO).any()


def test_component_hangs_together_by_edges():
    corner = masks("100", "010", "011")
    kept = component(corner, torch.tensor([[0.0, 0.0]]))
    assert torch.equal(kept, masks("100", "000", "000"))


def test_component_of_an_empty_mask_is_empty_and_each_image_has_its_own_centre():
    both = torch.cat([TWO, torch.zeros_like(TWO), TWO])
    kept = component(both, torch.tensor([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]]))
    assert kept.sum((1, 2, 3)).tolist() == [4, 0, 6]


def test_component_needs_one_centre_per_mask():
    with pytest.raises(ValueError, match="zip"):
        component(TWO, torch.zeros(2, 2))


def test_disc_by_hand():
    found = disc(torch.tensor([[1.0, 1.0], [0.0, 2.5]]), 1.0, 4)
    assert found.shape == (2, 1, 4, 4)
    assert torch.equal(found[:1], masks("0100", "1110", "0100", "0000"))
    assert torch.equal(found[1:], masks("0011", "0000", "0000", "0000"))


def test_scores_by_hand():
    truth = torch.zeros(3, 1, 9, 9, dtype=torch.bool)
    truth[:, :, 2:6, 2:6] = True
    predicted = truth.clone()
    predicted[1] = truth[1].roll(1, -1)  # a column to the right: 12 of 16 pixels in common
    predicted[2] = False
    data = {"mask": truth, "spacing": (2.0, 2.0)}
    found = scores(predicted, data)
    assert found["dice"].tolist() == pytest.approx([1.0, 0.75, 0.0])
    assert found["hd"].tolist()[:2] == pytest.approx([0.0, 2.0])  # one pixel of 2 mm
    assert 0 < found["assd"][1] < 2 and found["assd"][0] == 0
    assert math.isnan(found["assd"][2]) and math.isnan(found["hd"][2])
    assert mean_dice(predicted, data) == pytest.approx((1 + 0.75) / 3)


def test_outline_of_equal_answers_is_a_disc():
    centre = torch.tensor([[10.0, 11.0]])
    found = outline(torch.full((1, 40), 6.5), centre, 1.0, 21)  # radius (6.5 − ½)·1
    assert found.shape == (1, 1, 21, 21) and found.dtype == torch.bool
    assert (found ^ disc(centre, 6, 21)).sum() <= 8  # pixels whose centre lies on the circle


def test_share_broken_looks_at_the_last_and_the_first_ray():
    answers = {0: [4, 9, 6], 1: [4, 5, 7], 2: [7, 5, 4]}
    assert share_broken(lambda g, delta: answers[g], range(3), 2) == pytest.approx(2 / 3)
