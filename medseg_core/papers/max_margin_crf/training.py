"""Training a pre-trained network on, by the margin (Algorithm 2) or by likelihood (the control).

What an update does is an `Objective`'s step; the chapter writes the margin's.

Source: Larsson, Alvén and Kahl 2017, Algorithm 2.

Taught in: max-margin-crf.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medseg_core import rng
from medseg_core.papers.max_margin_crf.crf import MaxMarginCRF
from medseg_core.papers.max_margin_crf.experiment import (
    Arm,
    Bench,
    Settings,
    crf_of,
    log_likelihood,
    logits_of,
    predict,
    restored,
    tolerance,
)
from medseg_core.papers.max_margin_crf.gradient import hinge_subgradient
from medseg_core.papers.max_margin_crf.scores import mean_overlap
from medseg_core.training.fit import make_optimizer


class Batch(NamedTuple):
    """What a step may use."""

    image: Tensor  # (B,1,H,W)
    target: Tensor  # (B,H,W)
    crf: MaxMarginCRF  # of these images; what it finds stays in the sets of the whole
    w: Tensor  # (3,) learnt after the epoch before


class BatchFit(NamedTuple):
    """How Algorithm 1 went on one batch."""

    rounds: int
    violation: float  # of the worst labelling at its end, pixels
    converged: bool
    w1: float


Step = Callable[[nn.Module, Optimizer, Batch], "BatchFit | None"]


class Objective(NamedTuple):
    """What trains the network."""

    step: Step
    contrast: bool = True  # False holds w₃ at 0


@dataclass(frozen=True)
class Epoch:
    """The network after an epoch, and the CRF learnt on it from all training images."""

    gamma: float  # γ of all training images, pixels
    stale: float  # γ over the labellings that the batches met: a lower bound, 0 without any
    w: Tensor  # (3,)
    cut: float  # validation Jaccard of network and cut, per cent
    threshold: float  # and of the network alone
    test: Tensor  # logits of the test images


@dataclass
class Training:
    """What `train_on` did; ``epochs[0]`` is the network that it started from."""

    epochs: list[Epoch]
    fits: list[BatchFit] = field(default_factory=list)
    updates: int = 0
    images: int = 0

    @property
    def best_with_cut(self) -> Epoch:
        """After training, the earliest epoch with the best validation Jaccard."""
        return max(self.epochs[1:], key=lambda epoch: epoch.cut)

    @property
    def best_without_cut(self) -> Epoch:
        """The same, where the network alone is judged."""
        return max(self.epochs[1:], key=lambda epoch: epoch.threshold)

    @property
    def later(self) -> float:
        """Validation Jaccard with the cut, mean of the later half: the best of many is noise."""
        half = self.epochs[len(self.epochs) // 2 :]
        return float(np.mean([epoch.cut for epoch in half]))


def update(optimizer: Optimizer, loss: Tensor) -> None:
    """One step down."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def likelihood_step(model: nn.Module, optimizer: Optimizer, batch: Batch) -> None:
    """One update of the control."""
    device = next(model.parameters()).device
    seen = {"image": batch.image.to(device), "target": batch.target.to(device)}
    update(optimizer, log_likelihood(model, seen))


def subgradient_step(model: nn.Module, optimizer: Optimizer, batch: Batch) -> None:
    """Ablation: one violator per image under the last epoch's w, in place of the QP's mixture."""
    a = logits_of(model, batch.image)
    direction = hinge_subgradient(a.detach(), batch.crf, batch.w)
    update(optimizer, (a * direction.to(a)).sum() / a[0].numel())


def n_epochs(n: int, s: Settings) -> int:
    """As many epochs as give every size of the training set about the same number of updates."""
    of_all, of_n = math.ceil(s.n_train / s.batch), math.ceil(n / s.batch)
    return max(1, round(s.epochs * of_all / of_n))


def epoch_batches(n: int, epoch: int, seed: int, s: Settings) -> tuple[Tensor, ...]:
    """Indices of the epoch's batches, each image once; the last batch may be smaller."""
    order = torch.randperm(n, generator=rng.generator(seed, epoch, stream="order"))
    return order.split(s.batch)


def train_on(
    start: nn.Module, objective: Objective, rate: float, n: int, seed: int, bench: Bench
) -> Training:
    """Train a copy of ``start`` on the first n training images.

    After each epoch the CRF is learnt anew on all of them, from the labellings of its batches, and
    network and CRF are judged on the validation images. The rate rises over the first epoch, since
    Adam's first steps are large.

    Taught in: max-margin-crf.
    """
    rng.seed_all(seed)
    s, parts, _ = bench
    model = copy.deepcopy(start)
    optimizer = make_optimizer(model.parameters(), lr=rate)
    train = crf_of(parts.train, s, n, contrast=objective.contrast)
    judge = crf_of(parts.validation, s)
    done = Training([_epoch(model, train, judge, bench)])
    for epoch in range(1, n_epochs(n, s) + 1):
        model.train()
        train.reset()
        order = epoch_batches(n, epoch, seed, s)
        for batch in _batches(order, train, done.epochs[-1].w, bench):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (done.updates + 1) / len(order))
            fitted = objective.step(model, optimizer, batch)
            done.fits += [] if fitted is None else [fitted]
            done.updates += 1
            done.images += len(batch.image)
        done.epochs.append(_epoch(model, train, judge, bench))
    return done


def _batches(
    order: tuple[Tensor, ...], train: MaxMarginCRF, w: Tensor, bench: Bench
) -> Iterator[Batch]:
    data = bench.parts.train
    for index in order:
        yield Batch(data["image"][index], data["target"][index], train.subset(index), w)


def _epoch(model: nn.Module, train: MaxMarginCRF, judge: MaxMarginCRF, bench: Bench) -> Epoch:
    """Learn the CRF of the training images on the present network, and judge both."""
    s, parts, _ = bench
    a = predict(model, parts.train["image"][: len(train)], s)
    stale = train.solve(a).gamma
    fitted = train.fit(a, **tolerance(s))
    v, truth = predict(model, parts.validation["image"], s), parts.validation["target"]
    return Epoch(
        gamma=fitted.gamma,
        stale=stale,
        w=fitted.w,
        cut=mean_overlap(judge.infer(v, fitted.w), truth),
        threshold=mean_overlap(v[:, 0] > 0, truth),
        test=predict(model, parts.test["image"], s),
    )


def continued(
    objective: Objective, rate: float, n: int, start: Callable[[int], nn.Module], bench: Bench
) -> Arm:
    """Arm: `train_on` from ``start(seed)``.

    Returns:
        A function of the seed: updates, images, and as the extra "training" a `Training`.
    """

    def arm(seed: int) -> dict[str, Any]:
        done = train_on(start(seed), objective, rate, n, seed, bench)
        return {"updates": done.updates, "images": done.images, "extras": {"training": done}}

    return arm


def maker(
    objective: Objective, n: int, states: Mapping[int, Mapping[str, Tensor]], bench: Bench
) -> Callable[[float], Arm]:
    """What makes an arm of a learning rate: `continued` from each seed's pre-trained weights."""

    def start(seed: int) -> nn.Module:
        return restored(states[seed], bench)

    return lambda rate: continued(objective, rate, n, start, bench)
