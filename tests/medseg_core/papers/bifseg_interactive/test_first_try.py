"""The chapter's first pictures: the best cut by grey values, and the toy image."""

import dataclasses
import itertools

import torch

from medseg_core import rng
from medseg_core.papers.bifseg_interactive.crf import Cut
from medseg_core.papers.bifseg_interactive.experiment import SETTINGS
from medseg_core.papers.bifseg_interactive.first_try import best_grey_cut, toy_image
from medseg_core.papers.bifseg_interactive.seed_models import boykov_jolly
from medseg_core.papers.bifseg_interactive.sessions import overlap
from medseg_core.papers.bifseg_interactive.weight_map import uncertainty_weights

NONE = 255


def test_no_setting_of_the_grid_is_better():
    truth = torch.zeros(6, 8, 8, dtype=torch.bool)
    truth[1:5, 2:6, 2:6] = True
    noise = torch.randn(truth.shape, generator=rng.generator(0))
    image = (0.3 + 0.3 * truth + 0.15 * noise).clamp(0, 1)[None, None]
    strokes = torch.full((1, 6, 8, 8), NONE)
    strokes[0, 3, 3, 2:6], strokes[0, 3, 7, 1:7] = 1, 0
    s = dataclasses.replace(SETTINGS["smoke"], lams=(0.0, 0.01, 0.1, 0.3, 1.0), sigmas=(0.1, 0.3))
    labels, cut = best_grey_cut(image, strokes, truth, s)
    grid = itertools.product((0.01, 0.3), (0.1, 0.3))  # every other λ; both σ, which are few
    scores = [overlap(boykov_jolly(image, strokes, Cut(*c, 6)), truth) for c in grid]
    assert overlap(labels, truth) == max(scores) > min(scores)
    assert torch.equal(labels, boykov_jolly(image, strokes, cut))


def test_the_toy_network_calls_both_bright_things_object():
    image, prob, marks = toy_image(rng.generator(0, stream="tiny"))
    assert image.shape == prob.shape == (1, 1, 40, 56) and marks.shape == (1, 40, 56)
    assert (prob[0, 0][marks[0] != NONE] > 0.7).all() and prob[0, 0, 2, 2] < 0.3
    assert set(marks.unique().tolist()) == {0, 1, NONE}
    # The stroke on the neighbour puts it in doubt at the published reach, the organ not.
    weights = uncertainty_weights(prob, image, marks)[0]
    assert (weights[17:23, 38] == 0).all() and weights[20, 12] == 1
    again = toy_image(rng.generator(0, stream="tiny"))
    assert all(map(torch.equal, (image, prob, marks), again))
