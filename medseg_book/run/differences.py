"""What differs between the claims of two runs of a chapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg_book.page.claims import CONTEXT
from medseg_book.page.claims_table import order

MEASURED = ("verdict", "mean", "low", "high", "values", "n", "detail", "baseline")


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """One line per claim and entry, or figure, that differs between two stored payloads.

    Seconds, memory and code are not compared; of timing claims only what was claimed is, and of
    figures only those that both have.
    """
    found = [
        f"{key}: {a.get(key)!r} and {b.get(key)!r}" for key in CONTEXT if a.get(key) != b.get(key)
    ]
    left, right = ({c["id"]: _comparable(c) for c in x.get("claims", [])} for x in (a, b))
    for id in sorted({*left, *right}, key=order):
        if id not in left or id not in right:
            found.append(f"{id}: only in the {'first' if id in left else 'second'}")
            continue
        one, two = left[id], right[id]
        keys = [k for k in {**one, **two} if one.get(k) != two.get(k)]
        found += [f"{id} {key}: {one.get(key)!r} and {two.get(key)!r}" for key in keys]
    figures = [x.get("metrics") or {} for x in (a, b)]
    for name in sorted(figures[0].keys() & figures[1].keys()):
        one, two = (x[name] for x in figures)
        if one != two:
            found.append(f"metric {name!r}: {one!r} and {two!r}")
    return found


def _comparable(claim: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in claim.items() if not (claim.get("timing") and k in MEASURED)}
