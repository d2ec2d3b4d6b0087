"""Intervals and tests for results that vary over seeds, folds, cases or patients."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from medseg_core import checks, rng

N_DRAWS = 2000  # resamples of a bootstrap


class Interval(NamedTuple):
    """An estimate and the limits of its interval."""

    mean: float
    low: float
    high: float


class PairedTest(NamedTuple):
    """A test's statistic, its two-sided p value, and the number of pairs."""

    statistic: float
    p: float
    n: int


def t_interval(values: ArrayLike, *, ci: float = 0.95) -> Interval:
    r"""Student's interval of a mean, $\bar x \pm t_{n-1} s/\sqrt n$.

    For a few independent repetitions (seeds, folds) whose values scatter about normally.

    Args:
        values: (n,) numbers, n >= 2.
        ci: share of such intervals that cover the true mean.

    Raises:
        ValueError: if there are fewer than two values, or one is NaN or infinite.

    Taught in: all chapters.
    """
    from scipy import stats

    x = _vector(values, "values", at_least=2)
    _check_ci(ci)
    mean, scale = float(x.mean()), x.std(ddof=1) / np.sqrt(len(x))
    if scale == 0:  # where scipy's is NaN
        return Interval(mean, mean, mean)
    low, high = stats.t.interval(ci, len(x) - 1, loc=mean, scale=scale)
    return Interval(mean, float(low), float(high))


def bootstrap_ci(
    values: ArrayLike,
    *,
    unit: str | ArrayLike = "case",
    ci: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of a mean (Efron and Tibshirani 1993, chapter 13).

    From 2000 resamples, the same ones for every call with as many units.

    Args:
        values: (N,) numbers, one per case.
        unit: what is drawn with replacement. A name such as `"case"`: each value by itself.
            An array (N,) of patients, slides, ...: the values of one of them stay together,
            because images of one patient are no independent evidence.
        ci: share of the resampled means between the limits.

    Raises:
        ValueError: if there are no values, one is NaN or infinite, or `unit` has another length.

    Taught in: all chapters.
    """
    x = _vector(values, "values", at_least=1)
    _check_ci(ci)
    index = _units(unit if not isinstance(unit, str) else None, len(x), "unit")
    total = np.bincount(index, weights=x)  # (units,)
    count = np.bincount(index)  # (units,)
    draw = rng.numpy_rng(0, stream="bootstrap")
    drawn = draw.integers(len(count), size=(N_DRAWS, len(count)))  # (n, units)
    # Kept relative to the mean: constant values then give an interval of width exactly 0.
    mean = float(x.mean())
    spread = (total - mean * count)[drawn].sum(1) / count[drawn].sum(1)  # (n,)
    if np.ptp(x) == 0:
        spread = np.zeros(1)
    low, high = np.quantile(spread, [(1 - ci) / 2, (1 + ci) / 2])
    return Interval(mean, float(mean + low), float(mean + high))


def paired_test(
    a: ArrayLike, b: ArrayLike, kind: Literal["wilcoxon", "t"] = "wilcoxon"
) -> PairedTest:
    """Two-sided test of "no difference" between paired results.

    `"wilcoxon"`: signed ranks (Wilcoxon 1945), needs no normal differences; equal pairs are left
    out. `"t"`: Student's paired test. Pairs that are all equal give p = 1.

    Args:
        a, b: (N,) results on the same cases.
        kind: which test.

    Raises:
        ValueError: if the lengths differ, there are fewer than two pairs, or one is not finite.

    Taught in: selected-dimensions-oct.
    """
    from scipy import stats

    checks.choice(kind, "kind", ("wilcoxon", "t"))
    x, y = _vector(a, "a", at_least=2), _vector(b, "b", at_least=2)
    checks.same_shape(x, y, ("a", "b"))
    if np.array_equal(x, y):
        return PairedTest(0.0, 1.0, len(x))
    result = stats.wilcoxon(x, y) if kind == "wilcoxon" else stats.ttest_rel(x, y)
    return PairedTest(float(result.statistic), float(result.pvalue), len(x))


def _vector(values: ArrayLike, name: str, at_least: int) -> np.ndarray:
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) < at_least:
        raise ValueError(
            f"{name} must be a list of {at_least} or more numbers, got shape {x.shape}"
        )
    return checks.finite(x, name)


def _check_ci(ci: float) -> None:
    if not 0 < ci < 1:
        raise ValueError(f"ci must lie between 0 and 1, got {ci!r}")


def _units(groups: Any, n: int, name: str) -> np.ndarray:
    """(n,) number of the unit that each value belongs to, 0, 1, ..."""
    if groups is None:
        return np.arange(n)
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise ValueError(f"{name} must have one entry per value ({n}), got shape {groups.shape}")
    return np.unique(groups, return_inverse=True)[1].reshape(n)
