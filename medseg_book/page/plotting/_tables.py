"""Tables, first of all the paper's numbers beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg_book.page.plotting._arrays import as_array


class Table:
    """A table that a notebook shows as markdown and a terminal as text."""

    def __init__(
        self, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = ""
    ) -> None:
        self.header, self.rows, self.note = list(header), [list(r) for r in rows], note

    def markdown(self) -> str:
        align = [":--"] + ["--:"] * (len(self.header) - 1)
        cells = [[c.replace("|", "\\|") for c in row] for row in (self.header, *self.rows)]
        cells.insert(1, align)
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        return "\n".join(lines) + (f"\n\n{self.note}" if self.note else "")

    def __repr__(self) -> str:
        table = [self.header, *self.rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in table]
        return "\n".join(line.rstrip() for line in lines) + (f"\n{self.note}" if self.note else "")

    def _repr_markdown_(self) -> str:
        return self.markdown()


def paper_table(
    results: Any,
    paper: Mapping[str, Mapping[str, Any]],
    *,
    digits: int = 3,
    note: str | None = None,
) -> Table:
    """The paper's numbers and this run's in separate columns, one row per method.

    Args:
        results: {method: {metric: values}}, values one number or one per seed (shown as mean ± SD),
            or the `Results` of `compare.run_arms`.
        paper: {method: {metric: number or text}}, as printed in the paper. Only the metrics named
            here are shown; a method that one side lacks has a dash there.
    """
    ours = _as_dict(results, {m for row in paper.values() for m in row})
    metrics = list(dict.fromkeys(m for row in paper.values() for m in row))
    if not metrics:
        raise ValueError("paper must name at least one metric, got none")
    header = ["method"] + [f"{m}, {who}" for m in metrics for who in ("paper", "ours")]
    rows = []
    for method in dict.fromkeys([*paper, *ours]):
        theirs, mine = paper.get(method, {}), ours.get(method, {})
        cells = [
            cell
            for m in metrics
            for cell in (_printed(theirs.get(m)), _number(mine.get(m), digits))
        ]
        rows.append([method, *cells])
    if note is None:
        n = max((np.size(v) for row in ours.values() for v in row.values()), default=0)
        spread = f", mean ± SD over {n} seeds" if n > 1 else ""
        note = f"Paper: as printed, on its own data. Ours: this run, on its own data{spread}."
    return Table(header, rows, note)


def _as_dict(results: Any, metrics: set[str]) -> dict[str, dict[str, Any]]:
    if isinstance(results, Mapping):
        return {arm: dict(row) for arm, row in results.items()}
    return {
        arm: {m: results.per_seed(arm, m) for m in results.metrics if m in metrics}
        for arm in results.arms
    }


def _printed(value: Any) -> str:
    return "–" if value is None else str(value)  # the paper's own digits


def _number(value: Any, digits: int) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    values = np.atleast_1d(as_array(value)).astype(float)
    mean = f"{values.mean():.{digits}f}"
    return f"{mean} ± {values.std(ddof=1):.{digits}f}" if values.size > 1 else mean
