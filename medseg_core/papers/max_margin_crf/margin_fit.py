"""Algorithm 1: the few labellings that decide the max-margin programme, found by exact cuts.

The programme (Larsson, Alvén and Kahl 2017, equation 8; `margin_qp`) has a row for every labelling
of every image. A round cuts each image for the labelling that breaks its row most under the present
w, adds those, and solves again; the optimum over all rows is reached when none is broken.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from medseg_core.papers.max_margin_crf.margin_qp import (
    MarginQP,
    Optimum,
    optimality,
    solve_margin_qp,
)
from medseg_core.papers.max_margin_crf.margin_sets import ImageConstraints, unpack


@dataclass(frozen=True)
class Round:
    """One pass over the images: a cut of each, and the optimum at its end."""

    largest_violation: float  # pixels, each image under the w of its cut
    added: tuple[tuple[int, int], ...]  # (image, index in its set) of each new labelling
    n_constraints: int  # K after the pass
    w: Tensor  # (3,) after the pass
    gamma: float  # after the pass
    seconds_cut: float
    seconds_qp: float


@dataclass(frozen=True)
class Fit:
    """An optimum of the programme over the labellings found so far. float64, on the CPU.

    Row k belongs to image ``image[k]``; rows of an image stand together, in the order of its set.
    It keeps what it needs of the sets, which may grow or be emptied afterwards.
    """

    w: Tensor  # (3,)
    xi: Tensor  # (N,) slack in pixels
    gamma: float
    multipliers: Tensor  # (K,) λ_k ≥ 0 of the rows; those of one image sum to C/N at most
    image: Tensor  # (K,) int64
    packed: tuple[np.ndarray, ...] = field(repr=False)  # per image (K_n, ⌈HW/8⌉) bits
    target: np.ndarray = field(repr=False)  # (N,H,W) bool
    qp: MarginQP = field(repr=False)  # rows, Δ, N, C
    optimum: Optimum = field(repr=False)  # with the multipliers of ξ ≥ 0 and of w₂, w₃ ≥ 0
    rounds: int = 0  # that added labellings
    converged: bool = False
    largest_violation: float = math.nan  # pixels, of w, over every labelling of every image
    trace: tuple[Round, ...] = field(default=(), repr=False)  # rounds + 1, the last one only checks

    def labels(self, image: int) -> np.ndarray:
        """``(K_n,H,W)`` bool, the labellings of one image in the order of its rows."""
        return unpack(self.packed[image], self.target.shape[1:])

    def optimality(self) -> dict[str, float]:
        """Distances from the conditions of optimality, as `margin_qp.optimality`."""
        return optimality(self.qp, self.optimum)


class Programme:
    """The rows of the images' sets under one set of logits ``(N,H,W)``; both grow together."""

    def __init__(
        self, images: Sequence[ImageConstraints], logits: np.ndarray, C: float, margin: float
    ) -> None:
        self.images, self.logits, self.C, self.margin = images, logits, C, margin
        found = [x.rows(a) for x, a in zip(images, logits, strict=True)]
        self.rows = [list(row) for row, _ in found]
        self.deltas = [list(margin * delta) for _, delta in found]
        self.qp: MarginQP | None = None
        self.optimum: Optimum | None = None

    def solve(self) -> Optimum:
        counts = [len(rows) for rows in self.rows]
        rows = np.array([row for rows in self.rows for row in rows]).reshape(-1, 3)
        deltas = np.array([delta for deltas in self.deltas for delta in deltas])
        image = np.repeat(np.arange(len(counts)), counts)
        self.qp = MarginQP(rows, deltas, image, len(counts), self.C)
        self.optimum = solve_margin_qp(self.qp)
        return self.optimum

    def search(
        self, n: int, w: np.ndarray, xi: np.ndarray, augment: bool
    ) -> tuple[np.ndarray, np.ndarray, float, float]:
        """The labelling that breaks its row most: labels, r, Δ and by how much."""
        labels, _ = self.images[n].cut(self.logits[n], w, self.margin if augment else 0.0)
        row, delta = self.images[n].row(labels, self.logits[n])
        delta *= self.margin
        return labels, row, delta, float(row @ w + delta - xi[n])

    def add(self, n: int, labels: np.ndarray, row: np.ndarray, delta: float) -> int | None:
        """Its index in the image's set; None for the truth and for a duplicate, which change S not.

        A labelling that is there cannot break its row: ξ is exact.
        """
        index = self.images[n].add(labels)
        if index is not None:
            self.rows[n].append(row)
            self.deltas[n].append(delta)
        return index

    def fit(self) -> Fit:
        """The last optimum with all that belongs to it."""
        best = self.optimum
        return Fit(
            w=torch.from_numpy(best.w),
            xi=torch.from_numpy(best.xi),
            gamma=best.gamma,
            multipliers=torch.from_numpy(best.energy),
            image=torch.from_numpy(self.qp.image),
            packed=tuple(x.packed() for x in self.images),
            target=np.stack([x.target for x in self.images]),
            qp=self.qp,
            optimum=best,
        )


def algorithm_1(
    programme: Programme,
    w0: np.ndarray,
    *,
    eps: float,
    max_rounds: int,
    augment: bool = True,
    each_image: bool = False,
) -> Fit:
    """Add the most violating labellings until none breaks its row by more than `eps` pixels.

    w0 is where an empty programme is first searched; it never counts as an answer. Solves once per
    round, or with `each_image` after every labelling, as the pseudo-code has it.
    """
    w, xi, trace = w0, np.zeros(len(programme.images)), []
    seconds = {"cut": 0.0, "qp": 0.0}

    def solve() -> tuple[np.ndarray, np.ndarray]:
        start = time.perf_counter()
        best = programme.solve()
        seconds["qp"] += time.perf_counter() - start
        return best.w, best.xi

    if any(programme.rows):
        w, xi = solve()
    while True:
        seconds = {"cut": 0.0, "qp": 0.0}
        guess = programme.optimum is None  # w is w0: ξ is not yet the programme's
        added, largest = [], -math.inf
        for n in range(len(programme.images)):
            start = time.perf_counter()
            labels, row, delta, violation = programme.search(n, w, xi, augment)
            seconds["cut"] += time.perf_counter() - start
            largest = max(largest, violation)
            if len(trace) < max_rounds and (guess or violation > eps):
                index = programme.add(n, labels, row, delta)
                if index is not None:
                    added.append((n, index))
                    if each_image:
                        w, xi = solve()
        if programme.optimum is None or (added and not each_image):
            w, xi = solve()
        best, k = programme.optimum, len(programme.qp.rows)
        trace.append(
            Round(
                largest, tuple(added), k, torch.from_numpy(best.w), best.gamma,
                seconds["cut"], seconds["qp"],
            )
        )  # fmt: skip
        if not (added or guess):
            break
    return replace(
        programme.fit(),
        rounds=len(trace) - 1,
        converged=largest <= eps,
        largest_violation=largest,
        trace=tuple(trace),
    )
