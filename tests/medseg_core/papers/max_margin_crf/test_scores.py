"""Hand-drawn labels."""

import pytest
import torch

from medseg_core.papers.max_margin_crf import scores


def drawn(*rows):
    """Labels (1,H,W) from rows of text; # is 1."""
    return torch.tensor([[[int(c == "#") for c in row] for row in rows]])


def test_overlap_by_hand():
    labels = torch.cat([drawn("##..", "...."), drawn("....", "...."), drawn("#...", "....")])
    target = torch.cat([drawn(".##.", "...."), drawn("#...", "...."), drawn("....", "....")])
    found = scores.overlap(labels, target)
    assert found[:2].tolist() == pytest.approx([100 / 3, 0])
    assert found[2].isnan()  # an empty truth has no index
    assert scores.mean_overlap(labels, target) == pytest.approx(50 / 3)
    assert scores.mean_overlap(target[:2] > 0, target[:2]) == 100


def test_pieces_hang_together_by_edges():
    labels = torch.cat([drawn("#.#", ".#.", "..."), drawn("##.", ".#.", "...")])
    assert scores.pieces(labels) == 2  # three and one
    assert scores.pieces(0 * labels) == 0


def test_near_the_border_on_both_sides():
    target = drawn("........", "........", "........")
    target[:, :, :4] = 1  # the border runs between columns 3 and 4; the image's edge erodes too
    found = scores.near_border(target, 1)
    assert found.dtype == torch.bool and found[0, 1].tolist() == [
        True, False, False, True, True, False, False, False,
    ]  # fmt: skip
