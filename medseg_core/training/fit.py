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
from torch.optim import Optimizer, lr_scheduler

from medseg_book.page import bars
from medseg_core import checks

OPTIMIZERS = ("adam", "sgd", "rmsprop")
# Factors of the rate after the share t of all updates.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda t: 0.5 * (1 + math.cos(math.pi * t)),
    "linear": lambda t: 1 - t,
    "poly": lambda t: (1 - t) ** 0.9,
}


@dataclass
class History:
    """What a training run did.

    ``losses``: one number per update; ``parts``: the further entries of a loss that is a dict, each
    one number per update; ``validation``: (updates done, score) pairs; ``best``: the pair that was
    kept, or None; ``images``: images seen, with repetition; ``stopped``: ``"steps"`` or ``"time"``.
    """

    losses: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)
    validation: list[tuple[int, float]] = field(default_factory=list)
    best: tuple[int, float] | None = None
    updates: int = 0
    images: int = 0
    seconds: float = 0.0
    stopped: str = "steps"


def fit(
    model: nn.Module,
    batches: Iterable[dict[str, Any]],
    loss_fn: Callable[[nn.Module, dict[str, Any]], Tensor | dict[str, Tensor]],
    *,
    steps: int,
    lr: float = 1e-3,
    optimizer: str | Callable[[Iterable[nn.Parameter]], Optimizer] = "adam",
    weight_decay: float = 0.0,
    schedule: str | Callable[[float], float] | None = None,
    validate: Callable[[nn.Module], float] | None = None,
    validate_every: int = 50,
    keep: str = "best",
    max_seconds: float | None = None,
    progress: bool = True,
) -> History:
    """Train for ``steps`` updates, keep the best or the last weights, and say what was done.

    The budget counts UPDATES, never epochs, so that two arms can be given the same; images seen are
    counted by the first tensor of each batch. Taught in ``edpcnn``.

    Args:
        model: the network; on return it is in eval mode.
        batches: dicts of tensors, at least ``steps`` of them; moved to the model's device.
        loss_fn: ``loss_fn(model, batch)`` gives a scalar, or a dict whose "loss" is minimised and
            whose other scalars are recorded.
        steps: updates.
        lr: learning rate.
        optimizer: "adam" (0.9, 0.999), "sgd" (momentum 0.9), "rmsprop", or a function of the
            parameters, which then sets its own rate and decay.
        weight_decay: L2 penalty of the named optimisers.
        schedule: None; "cosine", "linear", "poly" (power 0.9), all down to zero after the last
            update; "plateau" (a tenth after five validations without a better score); or a function
            that gives the rate's factor after the share t of all updates.
        validate: ``validate(model)`` gives a score, LARGER IS BETTER; called in eval mode without
            gradients every ``validate_every`` updates and after the last one. NaN never wins.
        validate_every: updates between two validations.
        keep: "best" restores the weights of the highest score (the earliest, at a tie) if there is
            a ``validate``; "last" does not.
        max_seconds: stop after this time; the result then depends on the machine.
        progress: show a bar where a person looks on.

    Raises:
        ValueError: an unknown option, or fewer batches than ``steps``.
        FloatingPointError: a loss that is NaN or infinite, with the update it came from.
    """
    checks.choice(keep, "keep", ("best", "last"))
    if not callable(schedule):
        checks.choice(schedule, "schedule", (None, *SCHEDULES, "plateau"))
    if steps < 1 or validate_every < 1:
        raise ValueError(
            f"steps and validate_every must be at least 1, got {steps} and {validate_every}"
        )
    if schedule == "plateau" and validate is None:
        raise ValueError('schedule="plateau" needs validate')
    opt = make_optimizer(model.parameters(), optimizer, lr=lr, weight_decay=weight_decay)
    scheduler: Any = None
    if schedule == "plateau":
        scheduler = lr_scheduler.ReduceLROnPlateau(opt, mode="max", factor=0.1, patience=5)
    elif schedule is not None:
        factor = schedule if callable(schedule) else SCHEDULES[schedule]
        scheduler = lr_scheduler.LambdaLR(opt, lambda step: factor(min(step / steps, 1.0)))

    history, best_state, started = History(), None, time.perf_counter()
    device = next(model.parameters()).device
    model.train()
    with bars.bar(steps, "training", show=progress) as bar:
        for batch in itertools.islice(batches, steps):
            batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
            out = loss_fn(model, batch)
            losses = out if isinstance(out, dict) else {"loss": out}
            loss = losses["loss"]
            value = float(loss.detach())
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the loss is {value} at update {history.updates + 1} of {steps}"
                )
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            if scheduler is not None and schedule != "plateau":
                scheduler.step()

            history.updates += 1
            history.images += next((len(v) for v in batch.values() if isinstance(v, Tensor)), 0)
            history.losses.append(value)
            for name, part in losses.items():
                if name != "loss":
                    history.parts.setdefault(name, []).append(float(part))
            out_of_time = max_seconds is not None and time.perf_counter() - started > max_seconds
            last = history.updates == steps or out_of_time
            if validate is not None and (last or history.updates % validate_every == 0):
                score = _validate(model, validate)
                history.validation.append((history.updates, score))
                if score > (-math.inf if history.best is None else history.best[1]):
                    history.best = (history.updates, score)
                    if keep == "best":
                        best_state = _state_on_cpu(model)
                if schedule == "plateau":
                    scheduler.step(score)
            bar.set_postfix(_shown(history), refresh=False)
            bar.update()
            if out_of_time:
                history.stopped = "time" if history.updates < steps else "steps"
                break
    if history.updates < steps and history.stopped == "steps":
        raise ValueError(f"batches ended after {history.updates} of steps={steps} updates")
    if best_state is not None:
        model.load_state_dict(best_state)
    model.eval()
    history.seconds = time.perf_counter() - started
    return history


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    optimizer: str | Callable[[Iterable[nn.Parameter]], Optimizer] = "adam",
    *,
    lr: float,
    weight_decay: float = 0.0,
) -> Optimizer:
    """The optimiser of a name (see ``fit``); Adam and SGD in their fused form, where it exists.

    The fused step is one call for all parameters: with a small network on a CPU the plain one
    costs a good part of an update.
    """
    if callable(optimizer):
        return optimizer(parameters)
    checks.choice(optimizer, "optimizer", OPTIMIZERS)
    parameters = list(parameters)
    options: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
    fused = {p.device.type for p in parameters} <= {"cpu", "cuda"} or None
    if optimizer == "adam":
        return torch.optim.Adam(parameters, fused=fused, **options)
    if optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=0.9, fused=fused, **options)
    return torch.optim.RMSprop(parameters, **options)


def _validate(model: nn.Module, validate: Callable[[nn.Module], float]) -> float:
    model.eval()
    with torch.no_grad():
        score = float(validate(model))
    model.train()
    return score


def _state_on_cpu(model: nn.Module) -> dict[str, Any]:
    return copy.deepcopy({k: v.detach().cpu() for k, v in model.state_dict().items()})


def _shown(history: History) -> dict[str, str]:
    shown = {"loss": f"{history.losses[-1]:.3g}"}
    if history.validation:
        shown["validation"] = f"{history.validation[-1][1]:.3g}"
    return shown
