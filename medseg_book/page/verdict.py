"""From measured numbers to a verdict: what `claims.check` decides, without its list of claims."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from medseg_core import checks

HOLDS, FAILS, NOISE = "holds", "does not hold", "within noise"
PAPER, UNJUDGED, NOTED = "paper scale only", "not judged", "noted"
MINIMUM = 3  # fewer independent values give no interval worth the name


class Outcome(NamedTuple):
    """What the numbers say; the fields are those of a claim."""

    verdict: str
    mean: float | None
    low: float | None
    high: float | None
    values: list[float]
    bound: dict[str, Any]
    null: float | None
    detail: str


def decide(
    measured: Any,
    *,
    at_least: float | None,
    at_most: float | None,
    between: tuple[float, float] | None,
    null: float | None,
    unit: str,
    groups: Any,
    ci: float,
) -> Outcome:
    """Judge numbers as `claims.check` describes."""
    checks.choice(unit, "unit", ("seed", "case", "fold"))
    lo, hi, bound = _bound(at_least, at_most, between)
    null = _null(null, at_least, at_most, between)
    if unit == "case":
        values, owners, detail = _per_case(measured, groups)
        independent = len(values) if owners is None else len(np.unique(owners))
    elif groups is not None:
        raise ValueError('groups needs unit="case"')
    else:
        values, owners, detail = _per_repetition(measured, unit), None, ""
        independent = len(values)
    mean = float(values.mean()) if len(values) else None
    low = high = None
    if independent < MINIMUM:
        verdict = UNJUDGED
        number = ("no", "one", "two")[independent]
        noun = "value" if owners is None else "group"
        detail = join(f"{number} {noun}{'s' if independent == 2 else ''}", detail)
    else:
        from medseg_core.metrics import stats

        if unit == "case":
            # The resampling has a fixed seed: same values, same verdict.
            clusters = "case" if owners is None else owners
            interval = stats.bootstrap_ci(values, unit=clusters, ci=ci)
        else:
            interval = stats.t_interval(values, ci=ci)
        low, high = interval.low, interval.high
        verdict = _judge(mean, low, high, lo, hi, null)
        detail = join(f"{independent} groups" if owners is not None else "", detail)
    tidied = [tidy(v) for v in values]
    return Outcome(verdict, tidy(mean), tidy(low), tidy(high), tidied, bound, null, detail)


def _bound(
    at_least: float | None, at_most: float | None, between: tuple[float, float] | None
) -> tuple[float, float, dict[str, Any]]:
    given = {"at_least": at_least, "at_most": at_most, "between": between}
    given = {key: value for key, value in given.items() if value is not None}
    if len(given) != 1:
        raise ValueError(
            f"give one of at_least, at_most, between; got {', '.join(given) or 'none'}"
        )
    name, value = next(iter(given.items()))
    checks.finite(value, name)
    if name == "at_least":
        return float(value), np.inf, {name: float(value)}
    if name == "at_most":
        return -np.inf, float(value), {name: float(value)}
    lo, hi = map(float, value)
    if not lo < hi:
        raise ValueError(f"between must be (low, high) with low < high, got {value!r}")
    return lo, hi, {name: [lo, hi]}


def _null(
    null: float | None,
    at_least: float | None,
    at_most: float | None,
    between: tuple[float, float] | None,
) -> float | None:
    if between is not None:
        if null is not None:
            raise ValueError("null does not go with between: the interval must lie between")
        return None
    bound = at_least if at_least is not None else at_most
    if null is None:
        margin = at_least > 0 if at_least is not None else at_most < 0
        return 0.0 if margin else float(bound)
    checks.finite(null, "null")
    if (null > bound) if at_least is not None else (null < bound):
        raise ValueError(f"null must not be stricter than the bound {bound:g}, got {null:g}")
    return float(null)


def _judge(mean: float, low: float, high: float, lo: float, hi: float, null: float | None) -> str:
    # Twelve digits: 0.85 - 0.8 must meet a bound of 0.05.
    mean, low, high = (float(f"{v:.12g}") for v in (mean, low, high))
    if lo <= mean <= hi:
        if null is None:
            beyond = lo <= low and high <= hi
        else:
            edge, sign = (low, 1) if hi == np.inf else (high, -1)
            distance = sign * (edge - null)
            beyond = distance > 0 or (distance == 0 and null != 0)
        return HOLDS if beyond else NOISE
    return FAILS if high < lo or low > hi else NOISE


def _per_repetition(measured: Any, unit: str) -> np.ndarray:
    array = _array(measured)
    if array.ndim > 1:
        raise ValueError(
            f"measured must be one number per {unit}, got shape {array.shape}; "
            'numbers per case take unit="case"'
        )
    array = np.atleast_1d(array)
    if not len(array):
        raise ValueError("measured must have values, got none")
    return checks.finite(array, "measured")


def _per_case(measured: Any, groups: Any) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Values per case (seeds averaged), their groups, and what was left out."""
    array = np.atleast_2d(_array(measured))  # (seeds, cases)
    if array.ndim > 2 or not array.size:
        raise ValueError(f"measured must be (cases,) or (seeds, cases), got shape {array.shape}")
    checks.finite(np.where(np.isnan(array), 0.0, array), "measured")
    there = ~np.isnan(array)
    kept = there.any(0)  # (cases,)
    means = np.where(there, array, 0.0).sum(0)[kept] / there.sum(0)[kept]
    seeds, cases = array.shape
    details = [
        f"mean of {seeds} seeds" if seeds > 1 else "",
        f"{cases - kept.sum()} of {cases} cases undefined, left out" if not kept.all() else "",
        f"{(~there[:, kept]).sum()} undefined in some seeds" if not there[:, kept].all() else "",
    ]
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != (cases,):
            raise ValueError(f"groups must have one entry per case ({cases}), got {groups.shape}")
        groups = groups[kept]
    return means, groups, join(*details)


def _array(measured: Any) -> np.ndarray:
    """Numbers, lists, arrays or tensors (on any device), also nested, as float64."""
    if hasattr(measured, "detach"):
        measured = measured.detach().cpu()
    elif isinstance(measured, (list, tuple)):
        rows = [_array(m) for m in measured]
        if len({row.shape for row in rows}) > 1:
            shapes = ", ".join(str(len(np.atleast_1d(row))) for row in rows)
            raise ValueError(f"measured must have as many cases in each seed, got {shapes}")
        measured = rows
    try:
        return np.asarray(measured, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"measured must be numbers, got {measured!r}") from None


def join(*phrases: str) -> str:
    return "; ".join(phrase for phrase in phrases if phrase)


def tidy(value: float | None) -> float | None:
    """Six significant digits, which is what a comparison can use; whole numbers as they are."""
    if value is None or float(value).is_integer():
        return None if value is None else float(value)
    return float(f"{value:.6g}")
