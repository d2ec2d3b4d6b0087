"""What the methods are tuned to, and the search for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medseg_core import checks
from medseg_core.papers.bifseg_interactive.crf import Cut
from medseg_core.papers.bifseg_interactive.refine import FineTuning


@dataclass(frozen=True)
class Knobs:
    """λ and σ of a method's graph cut; the rate and the weights of its fine-tuning."""

    lam: float = 1.0
    sigma: float = 0.1
    lr: float = 3e-3
    finetune: str = "last"  # or "all"

    def cut(self, connectivity: int) -> Cut:
        """The graph cut with these knobs."""
        return Cut(self.lam, self.sigma, connectivity)

    def tuning(self, rounds: int, steps: int) -> FineTuning:
        """The fine-tuning with these knobs."""
        return FineTuning(rounds, steps, self.lr, self.finetune)


@dataclass(frozen=True)
class Walk:
    """What `search` found.

    Args:
        best: the knobs with the highest score, the first of them at a tie.
        scores: {knobs: score} of all that were tried, in that order.
        grids: {knob: its values}.
    """

    best: Knobs
    scores: dict[Knobs, float]
    grids: Mapping[str, Sequence[Any]]

    @property
    def at_an_end(self) -> list[str]:
        """Knobs that chose the first or the last value of a grid of three or more."""
        chosen = {name: getattr(self.best, name) for name in self.grids}
        return [
            name
            for name, grid in self.grids.items()
            if len(grid) > 2 and chosen[name] in (grid[0], grid[-1])
        ]

    def __str__(self) -> str:
        values = {name: getattr(self.best, name) for name in self.grids}
        listed = ", ".join(
            f"{name} {v if isinstance(v, str) else f'{v:g}'}" for name, v in values.items()
        )
        ends = f" (an end of the grid: {', '.join(self.at_an_end)})" if self.at_an_end else ""
        return f"{listed}: Dice {self.scores[self.best]:.3f}, {len(self.scores)} tried{ends}"


def search(
    score: Callable[[Knobs], float], grids: Mapping[str, Sequence[Any]], start: Knobs
) -> Walk:
    """The knobs of the highest score: a coarse grid, then a walk to better neighbours.

    Every third value of each grid is tried, in all combinations. From the best of these the walk
    goes on, knob after knob, to a neighbouring value of a higher score, until none has one. It ends
    in the optimum where the score rises towards it along each knob.

    Args:
        score: larger is better; called once for each choice of knobs.
        grids: {knob: its values in order}.
        start: gives the knobs that have no grid.

    Raises:
        ValueError: no grid, a grid without values or with one twice, a knob that does not exist, a
            score that is NaN.

    Taught in: bifseg-interactive.
    """
    if not grids:
        raise ValueError("grids must hold at least one knob, got none")
    for name, grid in grids.items():
        checks.choice(name, "knob", list(vars(start)))
        if not grid or len(set(grid)) < len(grid):
            raise ValueError(f"the grid of {name} must hold different values, got {grid}")
    scores: dict[Knobs, float] = {}

    def rate(knobs: Knobs) -> float:
        if knobs not in scores:
            scores[knobs] = checks.between(score(knobs), f"the score of {knobs}", None, None)
        return scores[knobs]

    coarse = itertools.product(*(grid[1::3] or grid for grid in grids.values()))
    trials = [replace(start, **dict(zip(grids, values, strict=True))) for values in coarse]
    best = max(trials, key=rate)
    moved = True
    while moved:
        moved = False
        for name, grid in grids.items():
            at = grid.index(getattr(best, name))
            for value in (*grid[max(0, at - 1) : at], *grid[at + 1 : at + 2]):
                trial = replace(best, **{name: value})
                if rate(trial) > rate(best):
                    best, moved = trial, True
    return Walk(best, scores, grids)
