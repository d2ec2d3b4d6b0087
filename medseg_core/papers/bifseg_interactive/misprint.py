"""Cuts with capacities of another formula, such as the one that the slides print.

Taught in: bifseg-interactive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from medseg_core.papers.bifseg_interactive.crf import crf_unary
from medseg_core.papers.bifseg_interactive.experiment import Data
from medseg_core.papers.bifseg_interactive.methods import Case
from medseg_core.papers.bifseg_interactive.sessions import overlap
from medseg_core.solvers.graphcut import binary_mrf_map, offsets

Link = Callable[[Tensor, Tensor, float], Tensor]


def links(image: Tensor, link: Link, connectivity: int) -> Tensor:
    """Capacities (1,O,D,H,W) of an image (1,1,D,H,W): ``link(grey here, grey there, distance)``."""
    out = []
    for step in offsets(connectivity).tolist():
        there = torch.roll(image[:, 0], [-k for k in step], (1, 2, 3))  # past the edge: ignored
        out.append(link(image[:, 0], there, float(np.linalg.norm(step))))
    return torch.stack(out, 1)


def mean_dice(
    link: Link, lam: float, cases: Sequence[Case], data: Data, connectivity: int
) -> float:
    """Mean Dice of the cut with λ times these capacities, before any scribble."""
    found = []
    for case, truth in zip(cases, data["mask"][:, 0], strict=True):
        capacities = lam * links(case.image, link, connectivity)
        labels = binary_mrf_map(crf_unary(case.prob), capacities, connectivity)[0]
        found.append(float(overlap(labels, truth)))
    return float(np.mean(found))
