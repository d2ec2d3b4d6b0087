"""What each arm of the chapter's table reports for one seed: labels of the test images.

An outcome is a dict as an arm of a comparison returns it: "jaccard" (one value per test image),
"updates" and "images" of the whole training, and "extras": "labels" (N,H,W) and more.

Taught in: max-margin-crf.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medseg_core.papers.max_margin_crf.experiment import Bench, crf_of, predict, restored
from medseg_core.papers.max_margin_crf.scores import mean_overlap, overlap
from medseg_core.papers.max_margin_crf.training import Epoch, Training
from medseg_core.training.fit import History

Outcome = dict[str, Any]


def every_arm(
    pretrained: Mapping[str, Any], margin: Training, control: Training, bench: Bench, by_hand: bool
) -> dict[str, Outcome]:
    """All arms of the table in its order, from one seed's runs.

    Args:
        pretrained: the extras of `pretraining`: "state" and "history".
        margin, control: what both objectives made of that network.
        bench: what all arms share.
        by_hand: also the weights tried out by hand, which take many cuts.

    Taught in: max-margin-crf.
    """
    history = pretrained["history"]
    found = from_pretrained(margin.epochs[0], history, bench)
    if by_hand:
        found |= hand_tuned(restored(pretrained["state"], bench), history, bench)
    found |= {"joint": from_margin(margin, history, bench)}
    return found | from_control(control, history, bench)


def from_pretrained(start: Epoch, history: History, bench: Bench) -> dict[str, Outcome]:
    """The arms that leave the network as it is: the threshold, and the CRF learnt on it.

    Args:
        start: epoch 0 of a `Training`.
        history: of the pre-training.
        bench: what all arms share.
    """
    budget = (history.updates, history.images)
    return {
        "CNN only": _by_threshold(start, budget, bench),
        "piecewise": _by_cut(start, budget, bench),
    }


def hand_tuned(model: nn.Module, history: History, bench: Bench) -> dict[str, Outcome]:
    """The reader's first idea: a CRF whose weights are tried out on the validation images."""
    s, parts, _ = bench
    w = tuned_potts(predict(model, parts.validation["image"], s), bench)
    labels = crf_of(parts.test, s).infer(predict(model, parts.test["image"], s), w)
    budget = (history.updates, history.images)
    return {"hand-tuned Potts": _outcome(labels, budget, bench, w=w)}


def tuned_potts(logits: Tensor, bench: Bench) -> Tensor:
    """w = (1, w₂, w₃) of the grid with the best validation Jaccard, the first at a tie."""
    s, data = bench.s, bench.parts.validation
    crf = crf_of(data, s)
    weights = [torch.tensor([1.0, *pair]) for pair in itertools.product(s.grid, repeat=2)]
    return max(weights, key=lambda w: mean_overlap(crf.infer(logits, w), data["target"]))


def from_control(done: Training, history: History, bench: Bench) -> dict[str, Outcome]:
    """The two arms that were trained on by likelihood, each with the epoch that suits it best."""
    budget = _sum(history, done)
    return {
        "CNN longer": _by_threshold(done.best_without_cut, budget, bench),
        "CNN longer + piecewise": _by_cut(done.best_with_cut, budget, bench, training=done),
    }


def from_margin(done: Training, history: History, bench: Bench) -> Outcome:
    """The arm that was trained on by the margin: the cut of its best epoch."""
    return _by_cut(done.best_with_cut, _sum(history, done), bench, training=done)


def _sum(history: History, done: Training) -> tuple[int, int]:
    return history.updates + done.updates, history.images + done.images


def _by_threshold(epoch: Epoch, budget: tuple[int, int], bench: Bench) -> Outcome:
    return _outcome(epoch.test[:, 0] > 0, budget, bench, logits=epoch.test)


def _by_cut(epoch: Epoch, budget: tuple[int, int], bench: Bench, **extras: Any) -> Outcome:
    labels = crf_of(bench.parts.test, bench.s).infer(epoch.test, epoch.w)
    return _outcome(labels, budget, bench, logits=epoch.test, w=epoch.w, **extras)


def _outcome(labels: Tensor, budget: tuple[int, int], bench: Bench, **extras: Any) -> Outcome:
    updates, images = budget
    return {
        "jaccard": overlap(labels, bench.parts.test["target"]),
        "updates": updates,
        "images": images,
        "extras": {"labels": labels} | extras,
    }
