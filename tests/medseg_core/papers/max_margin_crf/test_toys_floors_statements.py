"""The small pieces around the experiment: toy images, floors, the claims' words."""

import pytest
import torch

from medseg_core.papers.max_margin_crf import floors, toys
from medseg_core.papers.max_margin_crf.experiment import SETTINGS
from medseg_core.papers.max_margin_crf.statements import PRINTED, signed, span, statements


def test_the_ellipse_lies_in_the_middle_and_its_logits_know_it():
    toy = toys.noisy_ellipse(32, 0)
    assert toy.image.shape == toy.logits.shape == (1, 1, 32, 32) and toy.target.shape == (1, 32, 32)
    assert toy.target[0, 16, 16] == 1 and toy.target[0, 0].sum() == 0
    inside = toy.target[:, None].bool()
    for x in (toy.image, toy.logits):
        assert x[inside].mean() > x[~inside].mean() + 0.5
    assert not torch.equal(toy.logits, toys.noisy_ellipse(32, 1).logits)


def test_twelve_pixels_half_of_them_inside():
    toy = toys.twelve_pixels(0)
    assert toy.target.sum() == 6 and toy.image.shape == toy.logits.shape == (1, 1, 3, 4)
    again = toys.twelve_pixels(0)
    assert torch.equal(toy.logits, again.logits)


def test_every_labelling_comes_once():
    found = toys.every_labelling(2, 3)
    assert found.shape == (64, 2, 3)
    assert len(found.flatten(1).unique(dim=0)) == 64


def test_dark_pixels_of_the_fan_at_the_level_that_suits_best():
    image = torch.ones(1, 1, 24, 24)
    image[..., 6:18, 6:18] = -1.5
    target = (image[:, 0] < 0).long()
    seen = torch.ones_like(target).bool()
    level = floors.best_level(image, target, seen)
    found = floors.dark(image, seen, level)
    assert (found == target.bool()).float().mean() > 0.95
    seen[:, :12] = False
    assert not floors.dark(image, seen, level)[:, :12].any()


def test_the_fan_is_everything_where_a_scanner_names_none():
    mask = torch.zeros(3, 1, 4, 4)
    assert floors.fan({"mask": mask}, 2).all() and len(floors.fan({"mask": mask}, 2)) == 2
    sector = torch.eye(4).expand(3, 1, 4, 4)
    assert torch.equal(floors.fan({"mask": mask, "sector": sector})[0], torch.eye(4).bool())


def test_the_mean_shape_is_the_majority():
    target = torch.tensor([[[1, 1, 0]], [[1, 0, 0]], [[1, 1, 0]]])
    assert floors.mean_shape(target, 2).long().tolist() == [[[1, 1, 0]]] * 2


def test_the_claims_stand_with_their_margins():
    found = statements(SETTINGS["lesson"])
    margins = {"C1a": 1.0, "C1b": 0.0, "C2": 0.0, "C3": 5.0, "C5": 0.5}
    assert {id: x.at_least for id, x in found.items() if x.at_least is not None} == margins
    assert "12 images than with 66" in found["C5"].text
    assert "more than 1 pixel, in fewer than 50 rounds" in found["C4"].text
    assert {len(row) for row in PRINTED.values()} == {5}


@pytest.mark.parametrize(
    ("function", "values", "text"),
    [(span, [0.99, -0.5, 0.2], "−0.50 to 0.99"), (signed, [0.52, -0.04], "+0.5, −0.0")],
)
def test_numbers_in_words(function, values, text):
    assert function(values) == text
