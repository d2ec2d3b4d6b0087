"""Every claim of every chapter, read from the stored notebooks: the ledger's data."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from medseg_book.page import claims_table as table
from medseg_book.page.verdict import FAILS, HOLDS, NOISE, NOTED, PAPER, UNJUDGED

from . import notebook
from .catalogue import Chapter

LEDGER_MIME = "application/vnd.medseg.ledger+json"
# Worst news first: a claim that fails is as much a result as one that holds.
VERDICTS = (FAILS, NOISE, HOLDS, PAPER, UNJUDGED, NOTED)


@dataclass(frozen=True)
class Claims:
    """One chapter's claims as stored; `gpu` are those of a recorded GPU run, where there is one."""

    slug: str
    title: str
    document: str
    theme: str
    claims: list[dict[str, Any]]
    scale: str | None = None
    gpu: dict[str, dict[str, Any]] = field(default_factory=dict)  # by id
    gpu_scale: str = ""

    @property
    def counts(self) -> Counter[str]:
        return counts(self.claims)


def read(chapters: Iterable[Chapter]) -> list[Claims]:
    """The claims of the book's chapters (templates and pages make none)."""
    found = []
    for chapter in chapters:
        if chapter.kind not in ("chapter", "primer"):
            continue
        payload = notebook.payload(chapter.outputs, notebook.CLAIMS_MIME) or {}
        if payload or chapter.kind == "chapter":
            gpu = recorded(chapter)
            found.append(
                Claims(
                    chapter.slug,
                    chapter.title,
                    chapter.document,
                    chapter.theme,
                    payload.get("claims", []),
                    payload.get("scale"),
                    {claim["id"]: claim for claim in gpu.get("claims", [])},
                    gpu.get("scale", ""),
                )
            )
    return found


def measured(claim: Mapping[str, Any]) -> str:
    """Our figure with its interval, its repetitions and the bound, as the chapter shows it."""
    return table.measured(as_claim(claim))


def verdict(claim: Mapping[str, Any]) -> str:
    """The verdict with its symbol: never by colour or symbol alone."""
    return table.verdict(as_claim(claim))


def plain(payload: Mapping[str, Any]) -> str:
    """A stored payload as text for a terminal."""
    return table.plain([as_claim(claim) for claim in payload["claims"]], payload)


def as_claim(stored: Mapping[str, Any]) -> table.Claim:
    """A stored claim as the object that the chapter had."""
    return table.Claim(**{f.name: stored[f.name] for f in fields(table.Claim) if f.name in stored})


def counts(claims: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Claims by verdict; parts count through the claim that they make up, as in its chapter."""
    claims = list(claims)
    parts = {part for claim in claims for part in claim.get("parts", ())}
    return Counter(claim["verdict"] for claim in claims if claim["id"] not in parts)


def summary(counts: Mapping[str, int]) -> str:
    """`does not hold: 1, within noise: 2, holds: 3`."""
    named = [f"{word}: {counts[word]}" for word in VERDICTS if counts.get(word)]
    return ", ".join(named) or "no claims yet"


def overview(chapters: Iterable[Claims]) -> str:
    """One row per chapter and column per verdict, as a Markdown table."""
    rows = [("chapter", *(f"{table.SYMBOLS[word]} {word}" for word in VERDICTS[:4]))]
    rows.append(("---", *["---:"] * 4))
    total: Counter[str] = Counter()
    for chapter in chapters:
        if chapter.claims:
            total += chapter.counts
            rows.append((_link(chapter), *(str(chapter.counts[word]) for word in VERDICTS[:4])))
    rows.append(("**all**", *(f"**{total[word]}**" for word in VERDICTS[:4])))
    return _pipe(rows)


def details(chapter: Claims) -> str:
    """A chapter's claims as a Markdown table: the paper's figure, ours, the verdict.

    A column for a GPU run stands only where the results of one are kept.
    """
    title = f"**{_link(chapter)}**"
    if not chapter.claims:
        return f"{title}: no results stored yet."
    gpu = [(f"GPU, {chapter.gpu_scale} scale",)] if chapter.gpu else []
    rows = [("claim", "paper", f"ours, {chapter.scale} scale", "verdict", *sum(gpu, ()))]
    rows.append(("---",) * len(rows[0]))
    for claim in map(as_claim, chapter.claims):
        row = [f"**{claim.id}** {claim.text}", claim.paper or "–", table.measured(claim)]
        row.append(table.verdict(claim))
        if gpu:
            other = chapter.gpu.get(claim.id)
            row.append(f"{verdict(other)}; {measured(other)}" if other else "–")
        rows.append(tuple(row))
    reasons = [
        f"- **{c.id}** ({c.verdict}): {c.if_fails}"
        for c in map(as_claim, chapter.claims)
        if c.verdict in (FAILS, NOISE) and c.if_fails
    ]
    return "\n".join([title, "", _pipe(rows), "", *reasons])


def _link(chapter: Claims) -> str:
    # Outputs are not resolved by Sphinx, so the link names the built page.
    return f"[{chapter.title}]({chapter.document}.html)"


def _pipe(rows: Iterable[Iterable[str]]) -> str:
    """A pipe table; what a cell holds stays in its cell, and is no HTML."""

    def cell(content: str) -> str:
        content = " ".join(content.split()).replace("|", "\\|")
        return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", content)

    return "\n".join(f"| {' | '.join(map(cell, row))} |" for row in rows)


def digest(chapters: Iterable[Claims]) -> str:
    """Hash of all stored claims, by which the ledger knows whether it is up to date."""
    content = {c.slug: [c.title, c.claims, c.gpu] for c in chapters}
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recorded(chapter: Chapter) -> dict[str, Any]:
    """The claims payload of a GPU run, where one is kept as `book/_results/<slug>.json`."""
    path = chapter.root / "book" / "_results" / f"{chapter.slug}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
