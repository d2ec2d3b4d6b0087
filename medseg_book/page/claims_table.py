"""The table of claims, in Markdown and in plain text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medseg_book.page.verdict import FAILS, HOLDS, NOISE, NOTED, PAPER, UNJUDGED, join

SYMBOLS = {HOLDS: "✓", FAILS: "✗", NOISE: "≈", PAPER: "–", UNJUDGED: "–", NOTED: "–"}


@dataclass(frozen=True)
class Claim:
    """One judged claim. `values` are what the mean and the interval were taken of."""

    id: str
    text: str
    verdict: str
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = ""
    values: list[float] = field(default_factory=list)
    bound: dict[str, Any] | None = None
    null: float | None = None
    paper: str = ""
    baseline: str = ""
    detail: str = ""
    if_fails: str = ""
    timing: bool = False
    parts: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"{self.id} {verdict(self)}: {measured(self)}"


def markdown(claims: Sequence[Claim], context: Mapping[str, Any]) -> str:
    """A pipe table with the likely reasons of what fails underneath."""
    rows = [
        (
            f"**{c.id}** {escape(c.text)}",
            escape(c.paper) or "–",
            escape(measured(c)),
            escape(verdict(c)),
        )
        for c in claims
    ]
    head = ("claim", "paper", "measured", "verdict")
    lines = [f"| {' | '.join(row)} |" for row in (head, ("---",) * 4, *rows)]
    reasons = [
        f"- **{c.id}** ({c.verdict}): {escape(c.if_fails)}" for c in claims if _has_reason(c)
    ]
    if reasons:
        lines += ["", "Likely reasons:", "", *reasons]
    return "\n".join([*(lines if rows else []), "", escape(summary(claims, context))]).strip()


def plain(claims: Sequence[Claim], context: Mapping[str, Any]) -> str:
    """The same as text: two or three lines per claim."""
    lines = []
    for c in claims:
        lines += [f"{c.id:<5}{verdict(c)}: {c.text}"]
        lines += [f"     measured {measured(c)}; paper {c.paper or '–'}"]
        lines += [f"     likely reason: {c.if_fails}"] if _has_reason(c) else []
    return "\n".join([*lines, summary(claims, context)])


def verdict(claim: Claim) -> str:
    """Symbol and word; "not judged" with its reason."""
    word = claim.verdict
    if word == UNJUDGED and claim.detail:
        word += f" ({claim.detail.split('; ')[0]})"
    return f"{SYMBOLS[claim.verdict]} {word}"


def measured(claim: Claim) -> str:
    """Mean, interval, number of values, bound, baseline, and what there is to say about them."""
    detail = claim.detail
    if claim.verdict == UNJUDGED:  # its first phrase stands beside the verdict
        detail = "; ".join(detail.split("; ")[1:])
    return join(*_numbers(claim), _needs(claim), detail) or "–"


def _numbers(claim: Claim) -> list[str]:
    known = [v for v in (claim.mean, claim.low, claim.high) if v is not None]
    if not known:
        return []
    places = _places(known)
    # A sign where 0 means "no effect"; a level has none.
    plus = claim.bound is not None and (claim.null == 0 or min(known) < 0)
    mean, *limits = (_number(v, places, plus) for v in known)
    interval = f" [{', '.join(limits)}]" if limits else ""
    unit = "repeat" if claim.timing and claim.unit == "seed" else claim.unit
    count = f", {claim.n} {unit}{'s' if claim.n != 1 else ''}" if unit else ""
    return [mean + interval + count]


def _needs(claim: Claim) -> str:
    phrases = []
    for name, bound in (claim.bound or {}).items():
        if name == "between":
            phrases.append(f"needs {_number(bound[0])} to {_number(bound[1])}")
        else:
            phrases.append(f"needs {'≥' if name == 'at_least' else '≤'} {_number(bound)}")
    phrases += [f"baseline {claim.baseline}"] if claim.baseline else []
    phrases += ["depends on the machine"] if claim.timing and not claim.parts else []
    return join(*phrases)


def _has_reason(claim: Claim) -> bool:
    return claim.verdict in (FAILS, NOISE) and bool(claim.if_fails)


def _places(values: Sequence[float]) -> int | None:
    """Decimals that show two digits of the interval's half width, or three of a lone value."""
    half = (values[2] - values[1]) / 2 if len(values) == 3 else 0.0
    size = half if half > 0 else max(abs(v) for v in values) / 10
    if size == 0:
        return 0
    if not 1e-6 < size < 1e6:
        return None  # powers of ten read better
    return int(np.clip(1 - np.floor(np.log10(size)), 0, 7))


def _number(value: float, places: int | None = None, plus: bool = False) -> str:
    sign = "+" if plus else ""
    text = f"{value:{sign}.4g}" if places is None else f"{value:{sign}.{places}f}"
    return text.replace("-", "−")


def whole(claims: Sequence[Claim]) -> list[Claim]:
    """The claims without their parts, which count through what they make up."""
    return [c for c in claims if c.id[-1].isdecimal()]


def summary(claims: Sequence[Claim], context: Mapping[str, Any]) -> str:
    """How many of the judged claims hold, and in which run."""
    judged = [c for c in whole(claims) if c.verdict in (HOLDS, FAILS, NOISE)]
    count = sum(c.verdict == HOLDS for c in judged)
    where = f"{context['scale']} scale, seed {context['seed']}, {context['device']}"
    where += ", extended" if context["extended"] else ""
    where += f", changed: {', '.join(context['overrides'])}" if context["overrides"] else ""
    if not claims:
        return f"No claim was checked ({where})."
    if not judged:
        return f"No claim is judged ({where})."
    verb = "claim holds" if len(judged) == 1 else "claims hold"
    return f"{count} of {len(judged)} judged {verb} ({where})."


def escape(text: str) -> str:
    """Keep text in its table cell: one line, no bars, no accidental HTML tag."""
    text = " ".join(text.split()).replace("|", "\\|")
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", text)


def order(id: str) -> tuple[int, str]:
    """Sorts ids by number, a whole (C3) after its parts (C3a, C3b)."""
    number, letter = re.fullmatch(r"C(\d+)([a-z]?)", id).groups()
    return int(number), letter or "~"
