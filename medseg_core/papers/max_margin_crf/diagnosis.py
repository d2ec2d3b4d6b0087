"""What a cut changes and could change at best, and how far Algorithm 1 is from its optimum.

Most of it is asked with the test truth in hand, so none of it is an arm. Labels are (N,H,W),
logits (N,1,H,W), images (N,C,H,W).

Taught in: max-margin-crf.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from medseg_core.papers.max_margin_crf.constraints import pair_weights
from medseg_core.papers.max_margin_crf.crf import MaxMarginCRF
from medseg_core.papers.max_margin_crf.cutting_planes import Fit
from medseg_core.papers.max_margin_crf.experiment import Bench, crf_of, tolerance
from medseg_core.papers.max_margin_crf.scores import mean_overlap, near_border, pieces
from medseg_core.solvers.graphcut import offsets
from medseg_core.solvers.grid_cut import pair_slices


def worst_violation(crf: MaxMarginCRF, logits: Tensor, fit: Fit) -> float:
    """Pixels by which the worst of all labellings breaks the fit; Algorithm 1 is not asked.

    Taught in: max-margin-crf.
    """
    row, delta = crf.rows(crf.most_violated(logits, fit.w), logits)
    return float((row @ fit.w + delta - fit.xi).max())


class Cuts(NamedTuple):
    """What the cuts of an arm change, a mean over its seeds."""

    pieces: float  # of the threshold's labels, per image
    flipped: float  # pixels per image that the cut changes
    right: float  # the share of them that is right then
    ceiling: float  # points that the best weights could add
    near: float  # share of the threshold's wrong pixels within 2 pixels of the true border


def cuts(logits: Sequence[Tensor], labels: Sequence[Tensor], bench: Bench) -> Cuts:
    """How an arm's cuts differ from the thresholds of the same logits, a tensor per seed each.

    Taught in: max-margin-crf.
    """
    truth = bench.parts.test["target"]
    plain = [(a[:, 0] > 0).long() for a in logits]
    changed = flips(torch.cat(plain), torch.cat(list(labels)), truth.repeat(len(plain), 1, 1))
    return Cuts(
        float(np.mean([pieces(y) for y in plain])),
        *changed,
        float(np.mean([ceiling(a, bench) for a in logits])),
        float(np.mean([share_near_border(y, truth, 2) for y in plain])),
    )


def flips(before: Tensor, after: Tensor, target: Tensor) -> tuple[float, float]:
    """Pixels per image that changed, and the share of them that is right now (NaN: none changed).

    Taught in: max-margin-crf.
    """
    changed = before.bool() != after.bool()
    right = changed & (after.bool() == target.bool())
    return float(changed.sum()) / len(before), float(right.sum() / changed.sum())


def ceiling(logits: Tensor, bench: Bench) -> float:
    """Points of test Jaccard that the best weights could add to the threshold of these logits.

    The weights are every second of the settings' grid, chosen on the test truth: a ceiling for
    any CRF of this form. Negative where every cut harms.

    Taught in: max-margin-crf.
    """
    s, target = bench.s, bench.parts.test["target"]
    crf = crf_of(bench.parts.test, s)
    scores = [
        mean_overlap(crf.infer(logits, torch.tensor([1.0, w2, w3])), target)
        for w2, w3 in itertools.product(s.grid[::2], repeat=2)
    ]
    return max(scores) - mean_overlap(logits[:, 0] > 0, target)


def share_near_border(labels: Tensor, target: Tensor, pixels: int) -> float:
    """Share of the wrong pixels that lie within so many pixels of the true border.

    Taught in: max-margin-crf.
    """
    wrong = labels.bool() != target.bool()
    return float((wrong & near_border(target, pixels)).sum() / wrong.sum())


def contrast_at_border(image: Tensor, target: Tensor) -> tuple[float, float]:
    """Mean e of the pairs across the true border, and of the pairs within the object.

    Taught in: max-margin-crf.
    """
    e = torch.stack([torch.from_numpy(pair_weights(x, connectivity=4)[1]) for x in image])
    across, within = [], []
    for direction, step in enumerate(offsets(4).tolist()):
        here, there = ((slice(None), *part) for part in pair_slices(step))
        pairs, one, other = e[:, direction][here], target[here], target[there]
        across.append(pairs[one != other])
        within.append(pairs[(one == 1) & (other == 1)])
    return float(torch.cat(across).mean()), float(torch.cat(within).mean())


class Ablation(NamedTuple):
    """Algorithm 1 without one of its parts."""

    fit: Fit
    violation: float  # pixels, of the worst of all labellings under the full margin
    jaccard: float  # of the test images, per cent


def left_out(train: Tensor, test: Tensor, bench: Bench) -> dict[str, Ablation]:
    """Algorithm 1 on the logits of the training images, whole and without each of three parts.

    Taught in: max-margin-crf.
    """
    s, parts, _ = bench
    judge = crf_of(parts.test, s)
    found = {}
    for what, contrast, change in (
        ("as it should be", True, {}),
        ("searched without Δ", True, {"augment": False}),
        ("no margin, Δ = 0", True, {"margin": 0.0}),
        ("no contrast, w₃ = 0", False, {}),
    ):
        crf = crf_of(parts.train, s, len(train), contrast=contrast)
        fit = crf.fit(train, **tolerance(s), **change)
        score = mean_overlap(judge.infer(test, fit.w), parts.test["target"])
        found[what] = Ablation(fit, worst_violation(crf, train, fit), score)
    return found
