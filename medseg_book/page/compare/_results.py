"""What the arms of a comparison measured, paired by seed and by case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg_core import checks

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Record:
    """One arm with one seed: metrics (a float, or one value per case), cost, and its extras."""

    arm: str
    seed: int
    metrics: dict[str, float | np.ndarray]
    updates: int
    images: int
    seconds: float
    extras: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """What ``run_arms`` measured; ``results + more`` joins two comparisons.

    Where a metric has one value per case, a run's value is the mean of its cases, NaN excluded.
    """

    records: list[Record] = field(default_factory=list)

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(r.arm for r in self.records))

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(m for r in self.records for m in r.metrics))

    def seeds(self, arm: str) -> list[int]:
        """Seeds that the arm was run with."""
        checks.choice(arm, "arm", self.arms)
        return [r.seed for r in self.records if r.arm == arm]

    def get(self, arm: str, seed: int) -> Record:
        """The record of one run."""
        checks.choice(seed, "seed", self.seeds(arm))
        return next(r for r in self.records if (r.arm, r.seed) == (arm, seed))

    def value(self, arm: str, seed: int, metric: str) -> float | np.ndarray:
        """What the arm returned: a float, or an array with one value per case."""
        record = self.get(arm, seed)
        return record.metrics[checks.choice(metric, "metric", list(record.metrics))]

    def per_seed(self, arm: str, metric: str) -> list[float]:
        """One value per seed: the mean over the cases."""
        return [_nanmean(self.value(arm, seed, metric)) for seed in self.seeds(arm)]

    def mean(self, arm: str, metric: str) -> float:
        """Mean over the seeds."""
        return _nanmean(self.per_seed(arm, metric))

    def excluded(self, arm: str, metric: str) -> int:
        """Number of NaN, over all seeds and cases."""
        return sum(int(np.isnan(self.value(arm, s, metric)).sum()) for s in self.seeds(arm))

    def difference(self, a: str, b: str, metric: str) -> list[float]:
        """Paired differences a − b, one per seed that both arms have.

        Cases are paired too: one that either arm has as NaN counts for neither.
        """
        return [_nanmean(d) for d in self._paired(a, b, metric)]

    def cases(self, a: str, b: str, metric: str) -> np.ndarray:
        """Paired differences a − b, one per case, averaged over the seeds that both arms have.

        A case that is NaN in all of them is left out.
        """
        rows = self._paired(a, b, metric)
        if any(np.ndim(row) == 0 for row in rows) or len({len(row) for row in rows}) > 1:
            raise ValueError(f"metric {metric!r} must have one value per case, the same cases")
        stack = np.stack(rows)  # (seeds, cases)
        mean = np.array([_nanmean(column) for column in stack.T])
        return mean[~np.isnan(mean)]

    def table(self, metrics: Iterable[str] | None = None, *, digits: int = 3) -> pd.DataFrame:
        """Arms × metrics as text: mean over the seeds ± their standard deviation.

        A number of values that were NaN, and so excluded, stands in brackets.
        """
        import pandas as pd

        metrics = self.metrics if metrics is None else list(metrics)
        rows = {}
        for arm in self.arms:
            runs = [r for r in self.records if r.arm == arm]
            row: dict[str, Any] = {}
            for metric in metrics:
                has = all(metric in r.metrics for r in runs)
                row[metric] = self._cell(arm, metric, digits) if has else "–"
            row["seeds"] = len(runs)
            for name in ("updates", "images"):
                row[name] = " / ".join(str(n) for n in sorted({getattr(r, name) for r in runs}))
            row["seconds"] = round(float(np.mean([r.seconds for r in runs])), 1)
            rows[arm] = row
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")

    def with_row(
        self,
        arm: str,
        make: Callable[[int], Mapping[str, Any]],
        *,
        seeds: Sequence[int] | None = None,
    ) -> Results:
        """These results and an arm that needs no training of its own.

        Args:
            arm: a new name.
            make: ``make(seed)`` returns the metrics, as an arm of ``run_arms`` does; "updates" and
                "images" are 0 where it names none, "extras" are kept.
            seeds: default: those of these results.

        Raises:
            ValueError: a name that is taken; no seed; a metric that is neither number nor vector.
        """
        if seeds is None:
            seeds = list(dict.fromkeys(r.seed for r in self.records))
        if not seeds:
            raise ValueError("seeds must not be empty")
        return self + Results([record_of(arm, int(seed), dict(make(seed)), 0.0) for seed in seeds])

    def same_budget(self, *arms: str) -> None:
        """Refuse arms that differ in updates or images for a seed that they share.

        Raises:
            ValueError: fewer than two arms, or unequal budgets, naming both runs.
        """
        if len(arms) < 2:
            raise ValueError(f"same_budget compares two arms or more, got {arms}")
        first, *others = ({seed: self.get(arm, seed) for seed in self.seeds(arm)} for arm in arms)
        for other in others:
            for seed in first.keys() & other.keys():
                if said := unequal(first[seed], other[seed]):
                    raise ValueError(said)

    def __add__(self, other: Results) -> Results:
        both = {(r.arm, r.seed) for r in self.records} & {(r.arm, r.seed) for r in other.records}
        if both:
            raise ValueError(f"both results hold (arm, seed) {sorted(both)}")
        return Results([*self.records, *other.records])

    def _paired(self, a: str, b: str, metric: str) -> list[float | np.ndarray]:
        common = [seed for seed in self.seeds(a) if seed in self.seeds(b)]
        if not common:
            raise ValueError(f"{a!r} and {b!r} share no seed: {self.seeds(a)} and {self.seeds(b)}")
        rows = []
        for seed in common:
            x, y = self.value(a, seed, metric), self.value(b, seed, metric)
            if np.shape(x) != np.shape(y):
                raise ValueError(
                    f"metric {metric!r} of {a!r} and {b!r} must have the same cases, "
                    f"got shapes {np.shape(x)} and {np.shape(y)}"
                )
            rows.append(x - y)
        return rows

    def _cell(self, arm: str, metric: str, digits: int) -> str:
        values = self.per_seed(arm, metric)
        text = f"{_nanmean(values):.{digits}f}"
        if len(values) > 1:
            text += f" ± {np.std(values, ddof=1):.{digits}f}"
        excluded = self.excluded(arm, metric)
        return f"{text} [{excluded} excluded]" if excluded else text


def record_of(arm: str, seed: int, out: dict[str, Any], seconds: float) -> Record:
    """A run's record from what its arm returned."""
    updates, images = int(out.pop("updates", 0)), int(out.pop("images", 0))
    extras = dict(out.pop("extras", {}))
    metrics = {key: _value(value, arm, key) for key, value in out.items()}
    return Record(arm, seed, metrics, updates, images, seconds, extras)


def unequal(a: Record, b: Record) -> str:
    """How the budgets of two runs differ, "" where they are equal."""
    if (a.updates, a.images) == (b.updates, b.images):
        return ""
    return (
        f"unequal budgets: {a.arm!r} (seed {a.seed}) made {a.updates} updates on {a.images} "
        f"images, {b.arm!r} (seed {b.seed}) {b.updates} on {b.images}"
    )


def _value(value: Any, arm: str, metric: str) -> float | np.ndarray:
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "bifu" or array.ndim > 1 or array.size == 0:
        raise ValueError(
            f"arm {arm!r}: metric {metric!r} must be a number or one number per case, got "
            f"{array.dtype} of shape {array.shape}; anything else belongs under 'extras'"
        )
    return float(array) if array.ndim == 0 else array.astype(np.float64)


def _nanmean(values: Any) -> float:
    array = np.asarray(values, dtype=np.float64)
    array = array[~np.isnan(array)]
    return float(array.mean()) if array.size else float("nan")
