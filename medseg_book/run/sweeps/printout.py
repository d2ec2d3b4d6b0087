"""What a sweep says: a bar while it runs, and at the end the slowest, the heaviest, the failed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from medseg_book.run.duration import duration

from .point import DONE, Outcome

SHOWN = 5  # of the slowest and the heaviest
IN_FULL = 3  # failures that are shown with cell and traceback


class Bar:
    """done, failed, running, remaining time; a line per point where the output is no terminal."""

    def __init__(self, total: int, slots: int, *, show: bool = True) -> None:
        self.total, self.slots, self.counts = total, max(1, slots), Counter()
        self.start = time.monotonic()
        self._bar, self._told = None, 0
        self._lines = show and not sys.stderr.isatty()
        if show and not self._lines:
            from tqdm import tqdm

            layout = "{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} [{elapsed}] {desc}"
            self._bar = tqdm(total=total, bar_format=layout)
            self._bar.set_description_str(self.state())

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def state(self) -> str:
        """`running 2, failed 1, about 3 min left`."""
        finished = sum(self.counts.values())
        left = self.total - finished
        parts = [f"running {min(self.slots, left)}"] if left else []
        if bad := finished - self.counts[DONE]:
            parts.append(f"failed {bad}")
        if finished and left:
            # Points side by side end in bunches: what one slot takes per point tells more.
            seconds = (time.monotonic() - self.start) / finished * left
            parts.append(f"about {duration(seconds)} left")
        return ", ".join(parts) or "done"

    def __call__(self, outcome: Outcome) -> None:
        self.counts[outcome.status] += 1
        if outcome.status != DONE and outcome.report and self._told < IN_FULL:
            self._told += 1  # the rest of them stand in the table, in one line each
            self._say(f"\n{outcome.name}: {outcome.status}\n{outcome.report}\n")
        if self._bar is not None:
            self._bar.set_description_str(self.state(), refresh=False)
            self._bar.update()
        elif self._lines:
            n = sum(self.counts.values())
            said = f": {outcome.error}" if outcome.error else ""
            line = f"{n}/{self.total} {outcome.name}: {outcome.status}{said}"
            self._say(f"{line}, {duration(outcome.seconds)} ({self.state()})")

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


def final(rows: Iterable[Mapping[str, Any]], seconds: float) -> str:
    """Counts by status, the slowest, the heaviest, and every point that is not done."""
    rows = list(rows)
    counts = Counter(row["status"] for row in rows)
    summary = ", ".join(f"{n} {status}" for status, n in counts.most_common())
    lines = [f"{summary or 'nothing to run'}, in {duration(seconds)}"]
    for title, key, unit in (("slowest", "seconds", "s"), ("heaviest", "peak_memory_mb", "MiB")):
        ranked = sorted(
            (r for r in rows if _number(r.get(key)) is not None), key=lambda r: -_number(r[key])
        )  # fmt: skip
        if len(ranked) > 1:
            shown = (f"{r['point']} {_number(r[key]):.0f} {unit}" for r in ranked[:SHOWN])
            lines.append(f"{title}: {', '.join(shown)}")
    lines += [f"{r['status']}: {r['point']}: {r['error']}" for r in rows if r["status"] != DONE]
    return "\n".join(lines)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
