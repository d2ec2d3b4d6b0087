"""Choosing a setting of each arm by validation, the same way for every arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medseg_book.page.compare._arms import Arm, run_arms
from medseg_book.page.compare._results import Record, Results
from medseg_book.page.plotting import Table

Score = Callable[[Record], float]


def best_validation(record: Record) -> float:
    """Best validation score of the run's ``History`` (its extra "history"); −∞ without one."""
    best = record.extras["history"].best
    return -math.inf if best is None else best[1]


@dataclass(frozen=True)
class Tuned:
    """What ``tuned`` tried; ``trials`` holds one arm per entry of ``tried``, in its order."""

    trials: Results
    tried: list[tuple[str, Any]]  # (arm, value)
    score: Score

    @property
    def scores(self) -> dict[str, dict[Any, float]]:
        """{arm: {value: score}}."""
        found: dict[str, dict[Any, float]] = {}
        for (arm, value), record in zip(self.tried, self.trials.records, strict=True):
            found.setdefault(arm, {})[value] = float(self.score(record))
        return found

    @property
    def chosen(self) -> dict[str, Any]:
        """{arm: value of the highest score}, the first at a tie; NaN never wins."""
        return {arm: max(found, key=_of(found)) for arm, found in self.scores.items()}

    @property
    def results(self) -> Results:
        """Each arm's chosen trial under the arm's own name: the run of this seed."""
        chosen, records = self.chosen, self.trials.records
        return Results(
            [
                replace(record, arm=arm)
                for (arm, value), record in zip(self.tried, records, strict=True)
                if chosen[arm] == value
            ]
        )

    @property
    def at_an_end(self) -> list[str]:
        """Arms that chose the first or the last value of a grid of three or more."""
        scores, chosen = self.scores, self.chosen
        grids = {arm: list(found) for arm, found in scores.items() if len(found) > 2}
        return [arm for arm, grid in grids.items() if chosen[arm] in (grid[0], grid[-1])]

    def rescored(self, score: Score) -> Tuned:
        """The same trials, judged by another score."""
        return replace(self, score=score)

    def table(self, digits: int = 3) -> Table:
        """One row per arm, one column per value, the chosen one bold."""
        scores, chosen = self.scores, self.chosen
        columns = list(dict.fromkeys(value for _, value in self.tried))
        rows = []
        for arm, found in scores.items():
            cells = [f"{found[v]:.{digits}f}" if v in found else "–" for v in columns]
            pairs = zip(columns, cells, strict=True)
            rows.append([arm, *(f"**{c}**" if chosen[arm] == v else c for v, c in pairs)])
        ends = ", ".join(self.at_an_end)
        note = f"At an end of its grid: {ends}." if ends else ""
        return Table(["validation", *map(_text, columns)], rows, note)


def tuned(
    makers: Mapping[str, Callable[[Any], Arm]],
    grid: Sequence[Any] | Mapping[str, Sequence[Any]],
    seed: int,
    *,
    score: Score = best_validation,
    workers: int = 1,
    budget: str | None = None,
) -> Tuned:
    """Try every value of a grid with every arm, on one seed, and choose by a validation score.

    All arms are tuned with the same care: a trial is a whole run on the same budget, and the chosen
    one counts as this seed's run (``Tuned.results``).

    Args:
        makers: name -> function of a grid value that gives an arm for ``run_arms``.
        grid: hashable values for all arms, or {arm: values}.
        seed: the seed on which every trial is run.
        score: of a record, larger is better; default: its best validation score.
        workers, budget: as in ``run_arms``.

    Raises:
        ValueError: no arm, or an arm without a value or with one twice.
        RuntimeError: a trial failed; names the arm, its value and the seed.

    Taught in: edpcnn, ipm-surfaces, max-margin-crf, selected-dimensions-oct.
    """
    grids = {arm: list(grid[arm] if isinstance(grid, Mapping) else grid) for arm in makers}
    for arm, values in grids.items():
        if not values or len(set(values)) < len(values):
            raise ValueError(f"grid must hold different values for {arm!r}, got {values}")
    tried = [(arm, value) for arm, values in grids.items() for value in values]
    trials = {f"{arm}, {_text(value)}": makers[arm](value) for arm, value in tried}
    if len(trials) < len(tried):
        raise ValueError(f"grid holds values that look the same: {grids}")
    return Tuned(run_arms(trials, [seed], workers=workers, budget=budget), tried, score)


def _of(found: Mapping[Any, float]) -> Callable[[Any], float]:
    return lambda value: -math.inf if math.isnan(found[value]) else found[value]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, (tuple, list)):
        return " ".join(map(_text, value))
    return str(value)
