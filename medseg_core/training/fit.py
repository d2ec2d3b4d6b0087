"""A training loop with a fixed budget of updates."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from medseg_core import checks

Batch = dict[str, Any]


@dataclass
class History:
    """What a training run did.

    Args:
        losses: one number per update.
        parts: the further entries of a loss that is a dict, each one number per update.
        validation: (updates done, score) pairs.
        best: the pair with the highest score, the earliest at a tie; None without one.
        updates: updates done.
        images: images seen, with repetition.
        seconds: that it took, validation included.
    """

    losses: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)
    validation: list[tuple[int, float]] = field(default_factory=list)
    best: tuple[int, float] | None = None
    updates: int = 0
    images: int = 0
    seconds: float = 0.0

    def record(self, losses: dict[str, Tensor], batch: Batch) -> None:
        """One more update on ``batch``, with the loss and its parts before it."""
        self.updates += 1
        self.images += next((len(v) for v in batch.values() if isinstance(v, Tensor)), 0)
        self.losses.append(float(losses["loss"].detach()))
        for name, part in losses.items():
            if name != "loss":
                self.parts.setdefault(name, []).append(float(part))

    def judge(self, score: float) -> bool:
        """Record a validation score; whether it is the best so far. NaN never is."""
        self.validation.append((self.updates, score))
        better = score > (-math.inf if self.best is None else self.best[1])
        if better:
            self.best = self.validation[-1]
        return better


def fit(
    model: nn.Module,
    batches: Iterable[Batch],
    loss_fn: Callable[[nn.Module, Batch], Tensor | dict[str, Tensor]],
    *,
    steps: int,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
    schedule: str | Callable[[float], float] | None = None,
    validate: Callable[[nn.Module], float] | None = None,
    validate_every: int = 50,
    keep: str = "best",
) -> History:
    """Train for ``steps`` updates, keep the best or the last weights, and say what was done.

    The budget counts UPDATES, never epochs, so that two arms can be given the same; images seen are
    counted by the first tensor of each batch.

    Args:
        model: the network; on return it is in eval mode.
        batches: dicts of tensors, at least ``steps`` of them; moved to the model's device.
        loss_fn: ``loss_fn(model, batch)`` gives a scalar, or a dict whose "loss" is minimised and
            whose other scalars are recorded.
        steps: updates.
        lr: learning rate of Adam.
        weight_decay: its L2 penalty.
        optimizer: another one, made from the parameters; it sets its own rate and decay.
        schedule: the rate's factor after the share t of all updates: None (1), "cosine"
            ((1 + cos πt)/2, zero after the last update), or a function of t.
        validate: ``validate(model)`` gives a score, LARGER IS BETTER; called in eval mode without
            gradients every ``validate_every`` updates and after the last one. NaN never wins.
        validate_every: updates between two validations.
        keep: "best" restores the weights of the highest score if there is a ``validate``; "last"
            does not.

    Raises:
        ValueError: an unknown option, or fewer batches than ``steps``.
        FloatingPointError: a loss that is NaN or infinite, with the update it came from.

    Taught in: edpcnn, ipm-surfaces, selected-dimensions-oct, max-margin-crf, bifseg-interactive.
    """
    checks.choice(keep, "keep", ("best", "last"))
    checks.between(steps, "steps", 1, None)
    checks.between(validate_every, "validate_every", 1, None)
    weights = model.parameters()
    opt = optimizer(weights) if optimizer else make_optimizer(weights, lr, weight_decay)
    rate = _scheduler(opt, schedule, steps)
    history, best_state, started = History(), None, time.perf_counter()
    device = next(model.parameters()).device
    model.train()
    for batch in itertools.islice(batches, steps):
        batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        out = loss_fn(model, batch)
        losses = out if isinstance(out, dict) else {"loss": out}
        _update(losses["loss"], opt, f"update {history.updates + 1} of {steps}")
        if rate is not None:
            rate.step()
        history.record(losses, batch)
        due = history.updates == steps or history.updates % validate_every == 0
        if validate is not None and due:
            better = history.judge(_validated(model, validate))
            if better and keep == "best":
                best_state = _state_on_cpu(model)
    if history.updates < steps:
        raise ValueError(f"batches ended after {history.updates} of steps={steps} updates")
    if best_state is not None:
        model.load_state_dict(best_state)
    model.eval()
    history.seconds = time.perf_counter() - started
    return history


def make_optimizer(
    parameters: Iterable[nn.Parameter], lr: float = 1e-3, weight_decay: float = 0.0
) -> Optimizer:
    """Adam (0.9, 0.999), in its fused form where that exists.

    The fused step is one call for all parameters: with a small network on a CPU the plain one
    costs a good part of an update.

    Taught in: edpcnn, max-margin-crf, bifseg-interactive.
    """
    parameters = list(parameters)
    fused = {p.device.type for p in parameters} <= {"cpu", "cuda"} or None
    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=fused)


def _scheduler(
    opt: Optimizer, schedule: str | Callable[[float], float] | None, steps: int
) -> LambdaLR | None:
    if schedule is None:
        return None
    if not callable(schedule):
        checks.choice(schedule, "schedule", (None, "cosine"))
    factor = schedule if callable(schedule) else lambda t: 0.5 * (1 + math.cos(math.pi * t))
    return LambdaLR(opt, lambda step: factor(min(step / steps, 1.0)))


def _update(loss: Tensor, opt: Optimizer, where: str) -> None:
    if not math.isfinite(value := float(loss.detach())):
        raise FloatingPointError(f"the loss is {value} at {where}")
    opt.zero_grad(set_to_none=True)
    loss.backward()
    opt.step()


def _validated(model: nn.Module, validate: Callable[[nn.Module], float]) -> float:
    model.eval()
    with torch.no_grad():
        score = float(validate(model))
    model.train()
    return score


def _state_on_cpu(model: nn.Module) -> dict[str, Any]:
    return copy.deepcopy({k: v.detach().cpu() for k, v in model.state_dict().items()})
