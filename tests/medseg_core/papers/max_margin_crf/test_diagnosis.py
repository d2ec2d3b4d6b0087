"""Answers that are known beforehand: drawn labels, logits that are the truth."""

import math

import pytest
import torch

from medseg_core.papers.max_margin_crf import diagnosis, experiment
from medseg_core.papers.max_margin_crf.crf import MaxMarginCRF
from medseg_core.papers.max_margin_crf.experiment import Bench, Parts, Settings
from medseg_core.papers.max_margin_crf.scores import mean_overlap

TINY = Settings(
    size=32, n_train=3, n_small=2, n_large=4, n_validation=2, n_test=2, grid=(0.0, 5.0, 1.0, 9.0)
)


@pytest.fixture(scope="module")
def bench():
    parts = Parts(*map(experiment.prepared, experiment.load("ultrasound", TINY, 0)))
    return Bench(TINY, parts, torch.device("cpu"))


def logits(part, noise, seed=0):
    gen = torch.Generator().manual_seed(seed)
    truth = part["target"][:, None]
    return 2.0 * truth - 1 + noise * torch.randn(truth.shape, generator=gen)


def test_the_worst_violation_of_no_weights_is_the_whole_image():
    image, target = torch.randn(1, 1, 3, 4), torch.tensor([[[0, 0, 0, 0], [0, 1, 1, 0], [0] * 4]])
    crf, a = MaxMarginCRF.from_images(image, target), torch.randn(1, 1, 3, 4)
    blind = crf.solve(a)  # empty sets: w = 0 and ξ = 0, and the complement differs everywhere
    assert diagnosis.worst_violation(crf, a, blind) == 12
    assert diagnosis.worst_violation(crf, a, crf.fit(a, eps=1e-3)) <= 1e-3


def test_flips_by_hand():
    before = torch.tensor([[[1, 0, 0, 0]], [[0, 0, 1, 1]]])
    after = torch.tensor([[[1, 1, 1, 0]], [[0, 0, 1, 0]]])
    target = torch.tensor([[[1, 1, 0, 0]], [[0, 0, 1, 0]]])
    changed, right = diagnosis.flips(before, after, target)
    assert changed == 1.5 and right == pytest.approx(2 / 3)
    assert math.isnan(diagnosis.flips(before, before, target)[1])


def test_the_ceiling_is_the_best_of_every_second_weight(bench):
    test = bench.parts.test
    a = logits(test, 1.0)
    crf, truth = experiment.crf_of(test, TINY), test["target"]
    pairs = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]
    best = max(mean_overlap(crf.infer(a, (1.0, *pair)), truth) for pair in pairs)
    found = diagnosis.ceiling(a, bench)
    assert found == best - mean_overlap(a[:, 0] > 0, truth) and found > 5
    assert diagnosis.ceiling(logits(test, 0.0), bench) == 0  # nothing is left to gain


def test_wrong_pixels_near_the_border():
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[:, 2:6, 2:6] = 1
    labels = target.clone()
    labels[0, 1, 3] = labels[0, 7, 7] = 1  # one pixel from the border, and far away
    assert diagnosis.share_near_border(labels, target, 1) == 0.5


def test_contrast_follows_the_edge_in_both_directions():
    target = torch.zeros(1, 6, 8, dtype=torch.long)
    target[:, :3] = 1  # border between rows: 8 pairs
    image = 4.0 * target[:, None]
    across, within = diagnosis.contrast_at_border(image, target)
    assert within == 1 and across < 0.1
    turned = diagnosis.contrast_at_border(image.transpose(2, 3), target.transpose(1, 2))
    assert turned == pytest.approx((across, within))


def test_cuts_compares_each_seed_with_its_own_threshold(bench):
    truth = bench.parts.test["target"]
    a = [logits(bench.parts.test, 0.0), logits(bench.parts.test, 1.0)]
    found = diagnosis.cuts(a, [truth, truth], bench)
    wrong = float(((a[1][:, 0] > 0) != truth.bool()).sum())
    assert found.flipped == wrong / (2 * len(truth)) and found.right == 1
    assert found.pieces > 2  # the noise's islands
    assert found.ceiling == pytest.approx(diagnosis.ceiling(a[1], bench) / 2)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_left_out_shows(bench):
    train, test = logits(bench.parts.train, 1.0)[:3], logits(bench.parts.test, 1.0, seed=1)
    found = diagnosis.left_out(train, test, bench)
    whole, blind, free, flat = found.values()
    assert whole.violation <= TINY.eps < blind.violation
    assert free.fit.gamma == pytest.approx(0, abs=1e-6) and free.violation == 32**2
    assert float(flat.fit.w[2]) == 0 and flat.violation <= TINY.eps
    assert whole.jaccard > free.jaccard
