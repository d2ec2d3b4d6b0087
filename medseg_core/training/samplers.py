"""Where training batches come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from medseg_core.rng import generator


def batches(
    data: dict[str, Any],
    size: int,
    *,
    steps: int,
    seed: int,
    augment: Callable[[dict[str, Tensor], torch.Generator], dict[str, Tensor]] | None = None,
    rows: Callable[[int, torch.Generator], Tensor] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """``steps`` batches of exactly ``size`` samples, in reshuffled passes over the data.

    Each sample comes once per pass; a batch may straddle two passes, so fewer samples than
    ``size`` are fine. The order depends on ``seed`` alone (stream ``"order"``), hence every arm of
    a comparison sees the same images in the same order.

    Args:
        data: the tensors ``(n, ...)`` of a phantom or reader. What is no tensor (``params``,
            ``spacing``, ``hidden``) is left out: training must not read it.
        size: samples per batch.
        steps: number of batches.
        seed: of the order.
        augment: ``augment(batch, gen)`` gives the batch to use; a random stream per step.
        rows: ``rows(size, gen)`` gives the rows (size,) of the next batch in place of the passes;
            called when the batch is asked for, so that it may learn from the steps before
            (``LossHistorySampler.draw``).

    Yields:
        The chosen rows of every tensor, and ``"index"`` (size,): their rows in ``data``.

    Raises:
        ValueError: no tensor, no sample, tensors of different length, or a size or steps below 1.

    Taught in: all chapters.
    """
    tensors = {k: v for k, v in data.items() if isinstance(v, Tensor)}
    lengths = {k: len(v) if v.ndim else 0 for k, v in tensors.items()}
    n = next(iter(lengths.values()), 0)
    if n == 0 or len(set(lengths.values())) > 1:
        raise ValueError(f"data must hold tensors of one length n >= 1, got lengths {lengths}")
    if size < 1 or steps < 1:
        raise ValueError(f"size and steps must be at least 1, got {size} and {steps}")

    def draw() -> Iterator[dict[str, Tensor]]:
        gen = generator(seed, stream="order")
        order = (
            passes(n, size, steps, gen) if rows is None else (rows(size, gen) for _ in range(steps))
        )
        for step, index in enumerate(order):
            batch = {k: v[index.to(v.device)] for k, v in tensors.items()}
            batch["index"] = index
            if augment is not None:
                batch = augment(batch, generator(seed, step, stream="augment"))
            yield batch

    return draw()


def passes(n: int, size: int, steps: int, gen: torch.Generator) -> Iterator[Tensor]:
    """``steps`` index vectors (size,) cut from one long row of random permutations of 0..n-1."""
    rest = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(rest) < size:
            rest = torch.cat((rest, torch.randperm(n, generator=gen)))
        yield rest[:size]
        rest = rest[size:]
