"""What inference through the solver costs, beside the U-Net's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_core.papers.edpcnn.evaluation import component
from medseg_core.papers.edpcnn.experiment import Bench, network


def slower(state: dict[str, Tensor], bench: Bench) -> Callable[[], float]:
    """A stopwatch: each call measures the relative extra time of one batch, 0 for none.

    The same weights once with warp, solver, smoothing and fill, once with the component rule.

    Args:
        state: weights of `experiment.network`.

    Taught in: edpcnn.
    """
    s, test, device = bench.s, bench.parts.test, bench.device
    model = network(s).to(device).eval()
    model.load_state_dict(state)
    batch = {k: v[: s.batch] for k, v in test.items() if torch.is_tensor(v)}
    images, centre = batch["image"].to(device), batch["centre"]

    def measured() -> float:
        with_solver = seconds(lambda: bench.segment(model(images), batch), device)
        return (
            with_solver / seconds(lambda: component((model(images) > 0).cpu(), centre), device) - 1
        )

    return measured


@torch.no_grad()
def seconds(action: Callable[[], Any], device: torch.device, repeats: int = 5) -> float:
    """Median wall time of an action that has been warmed up once; waits for a GPU's work."""
    action()
    timings = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        timings.append(time.perf_counter() - started)
    return float(np.median(timings))
