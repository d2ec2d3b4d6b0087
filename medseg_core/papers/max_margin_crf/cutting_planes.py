"""Algorithm 1: the few labellings that decide the max-margin programme, found by exact cuts.

The programme (Larsson, Alvén and Kahl 2017, equation 8; `qp`) has a row for every labelling of
every image. A round cuts each image for the labelling that breaks its row most under the present w,
adds those, and solves again; the optimum over all rows is reached when none is broken.

Taught in: max-margin-crf.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medseg_core.papers.max_margin_crf.constraints import ImageConstraints, unpack
from medseg_core.papers.max_margin_crf.qp import MarginQP, Optimum, solve_margin_qp


class Violator(NamedTuple):
    """The labelling of an image that breaks its row most."""

    labels: np.ndarray  # (H,W) bool
    row: np.ndarray  # (3,) r
    delta: float  # Δ times the margin
    violation: float  # pixels, r·w + Δ − ξ


class Solution(NamedTuple):
    """A programme over the labellings found so far, and its optimum."""

    qp: MarginQP
    optimum: Optimum


@dataclass(frozen=True)
class Round:
    """One pass over the images: a cut of each, and the optimum at its end."""

    added: tuple[tuple[int, int], ...]  # (image, index in its set) of each new labelling
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


class Programme:
    """The rows of the images' sets under one set of logits ``(N,H,W)``; both grow together.

    Args:
        images: one per image, with the labellings to start from.
        logits: float64 ``(N,H,W)``.
        C: the price of slack.
        margin: factor of Δ.
    """

    def __init__(
        self, images: Sequence[ImageConstraints], logits: np.ndarray, C: float, margin: float
    ) -> None:
        self.images, self.logits, self.C, self.margin = images, logits, C, margin
        self.seconds_cut = self.seconds_qp = 0.0  # spent so far
        found = [x.rows(a) for x, a in zip(images, logits, strict=True)]
        self.rows = [list(row) for row, _ in found]
        self.deltas = [list(margin * delta) for _, delta in found]

    def solve(self) -> Solution:
        """The optimum over the present rows."""
        start = time.perf_counter()
        counts = [len(rows) for rows in self.rows]
        rows = np.array([row for rows in self.rows for row in rows]).reshape(-1, 3)
        deltas = np.array([delta for deltas in self.deltas for delta in deltas])
        image = np.repeat(np.arange(len(counts)), counts)
        qp = MarginQP(rows, deltas, image, len(counts), self.C)
        solution = Solution(qp, solve_margin_qp(qp))
        self.seconds_qp += time.perf_counter() - start
        return solution

    def search(self, n: int, w0: np.ndarray, found: Solution | None, augment: bool) -> Violator:
        """The labelling of image n that breaks its row most; without `augment` the cheapest.

        Under the optimum that was found, or before there is one under `w0` without slack.
        """
        start = time.perf_counter()
        w, slack = (found.optimum.w, found.optimum.xi[n]) if found else (w0, 0.0)
        labels = self.images[n].cut(self.logits[n], w, self.margin if augment else 0.0)
        row, delta = self.images[n].row(labels, self.logits[n])
        delta *= self.margin
        self.seconds_cut += time.perf_counter() - start
        return Violator(labels, row, delta, float(row @ w + delta - slack))

    def add(self, n: int, found: Violator) -> int | None:
        """Its index in the set of image n; None for the truth and for a duplicate, left out.

        A labelling that is there cannot break its row: ξ is exact.
        """
        index = self.images[n].add(found.labels)
        if index is not None:
            self.rows[n].append(found.row)
            self.deltas[n].append(found.delta)
        return index

    def fit(self, solution: Solution, **course: Any) -> Fit:
        """The present optimum with all that belongs to it; `course`: the last fields of `Fit`."""
        qp, best = solution
        return Fit(
            w=torch.from_numpy(best.w),
            xi=torch.from_numpy(best.xi),
            gamma=best.gamma,
            multipliers=torch.from_numpy(best.energy),
            image=torch.from_numpy(qp.image),
            packed=tuple(x.packed() for x in self.images),
            target=np.stack([x.target for x in self.images]),
            qp=qp,
            optimum=best,
            **course,
        )


def algorithm_1(
    programme: Programme,
    w0: np.ndarray,
    *,
    eps: float,
    max_rounds: int,
    augment: bool,
    each_image: bool,
) -> Fit:
    """Add the most violating labellings until none breaks its row by more than `eps` pixels.

    Args:
        programme: its images' sets grow.
        w0: ``(3,)`` under which an empty programme is first searched; never an answer.
        eps: tolerance in pixels.
        max_rounds: most rounds that add labellings.
        augment: whether a search counts Δ.
        each_image: solve after every labelling, as the pseudo-code has it, or once per round.

    Source: Larsson, Alvén and Kahl 2017, Algorithm 1, after Szummer et al. 2008.

    Taught in: max-margin-crf.
    """
    trace: list[Round] = []
    found = programme.solve() if any(programme.rows) else None
    while True:
        cut, qp = programme.seconds_cut, programme.seconds_qp
        guess = found is None  # w is w0: ξ is not yet the programme's
        added, largest = [], -math.inf
        for n in range(len(programme.images)):
            worst = programme.search(n, w0, found, augment)
            largest = max(largest, worst.violation)
            wanted = guess or worst.violation > eps
            index = programme.add(n, worst) if wanted and len(trace) < max_rounds else None
            if index is not None:
                added.append((n, index))
                found = programme.solve() if each_image else found
        if found is None or (added and not each_image):
            found = programme.solve()
        trace.append(
            Round(
                tuple(added),
                torch.from_numpy(found.optimum.w),
                found.optimum.gamma,
                seconds_cut=programme.seconds_cut - cut,
                seconds_qp=programme.seconds_qp - qp,
            )
        )
        if not (added or guess):
            break
    return programme.fit(
        found,
        rounds=len(trace) - 1,
        converged=largest <= eps,
        largest_violation=largest,
        trace=tuple(trace),
    )
