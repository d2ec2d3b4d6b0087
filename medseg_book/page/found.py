"""The box "What we found" at the top of a chapter, written from a stored record of claims.

It stands before any code, so no cell can print it: the book fills it when the page is built
(book/_ext/found_box.py), and a notebook shows what its author wrote instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from medseg_book.page import claims
from medseg_book.page import claims_table as table
from medseg_book.page.claims_table import Claim, escape, whole
from medseg_book.page.verdict import FAILS, HOLDS, NOISE

BOX = re.compile(
    r"^(?P<fence>:{3,})\{admonition\} What we found\n:class:(?P<classes>.*\bfound\b.*)\n"
    r"(?:.*\n)*?(?P=fence)$",
    re.MULTILINE,
)


def record(notebook: Mapping[str, Any]) -> dict[str, Any] | None:
    """The claims that the notebook's last run has stored; None without any."""
    stored = None
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            stored = output.get("data", {}).get(claims.MIME, stored)
    return stored if stored and stored["claims"] else None


def headline(classes: str) -> str:
    """The claim that a box names among its classes, as "C2"; empty where it names none."""
    named = re.search(r"\bc(\d+[a-z]?)\b", classes)
    return f"C{named[1]}" if named else ""


def lines(record: Mapping[str, Any], headline: str, image: str) -> list[str]:
    """The box's Markdown: a picture, one effect with its interval, the verdicts, the weakest point.

    Args:
        record: the claims of a run, as `claims.payload` gives them.
        headline: id of the claim whose effect matters most; empty for the first that was judged.
        image: the picture in Markdown.

    Raises:
        ValueError: a headline that is no claim of the record.
    """
    known = [
        Claim(**{f.name: c[f.name] for f in fields(Claim) if f.name in c}) for c in record["claims"]
    ]
    main = _main(known, headline)
    words = [_effect(main), _verdicts(known, record), _weakest(known, main)]
    text = [line for word in words if word for line in (word, "")]
    if not image:
        return text
    cell = ":::{grid-item}"
    return [
        "::::{grid} 1 1 2 2",
        ":gutter: 2",
        "",
        cell,
        image,
        ":::",
        "",
        cell,
        *text,
        ":::",
        "",
        "::::",
    ]


def _main(known: Sequence[Claim], headline: str) -> Claim | None:
    """The claim whose effect the box shows."""
    chosen = [c for c in known if c.id == headline or (not headline and c.low is not None)]
    if headline and not chosen:
        raise ValueError(f"headline {headline!r} is no claim of this run: {[c.id for c in known]}")
    return chosen[0] if chosen else None


def _effect(main: Claim | None) -> str:
    if main is None:
        return ""
    interval = " (in brackets the 95 % interval)" if main.low is not None else ""
    return f"**The effect.** {_claim(main)}{interval}."


def _verdicts(known: Sequence[Claim], record: Mapping[str, Any]) -> str:
    named = []
    for verdict in (FAILS, NOISE):
        ids = [c.id for c in whole(known) if c.verdict == verdict]
        named += [f"{verdict}: {', '.join(ids)}"] if ids else []
    line = "; ".join(named)
    rest = f" {line[0].upper()}{line[1:]}." if line else ""
    return f"**The verdicts.** {table.summary(known, record)}{rest}"


def _weakest(known: Sequence[Claim], main: Claim | None) -> str:
    """What fails comes first; where all holds, the claim that is nearest to its bound."""
    single = [c for c in known if not c.parts]
    for verdict in (FAILS, NOISE):
        for c in single:
            if c.verdict == verdict:
                said = f"{c.id}, the effect above" if c is main else _claim(c)
                reason = f" {escape(c.if_fails)}" if c.if_fails else ""
                return f"**The weakest point** ({verdict}). {said}.{reason}"
    measured = [c for c in single if c.verdict == HOLDS and c.low is not None]
    nearest = min(measured, key=_ease, default=None)
    if nearest is None or nearest is main:
        return ""
    return f"**The weakest point** (it holds, by the least). {_claim(nearest)}."


def _ease(c: Claim) -> float:
    """How far the mean is from the nearest bound, in half widths of its interval."""
    bounds = np.atleast_1d(next(iter(c.bound.values())))
    return np.abs(c.mean - bounds).min() / max(c.high - c.low, 1e-12)


def _claim(c: Claim) -> str:
    return f"{c.id}: {escape(c.text).rstrip('.')}. Measured: {escape(table.measured(c))}"
