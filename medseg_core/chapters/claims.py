"""Every claim of every chapter, read from the stored notebooks: the ledger's data."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from medseg_core import _claims_table as table
from medseg_core._verdict import FAILS, HOLDS, NOISE, NOTED, PAPER, UNJUDGED

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
    gpu: dict[str, dict[str, Any]] | None = None

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
            found.append(
                Claims(
                    chapter.slug,
                    chapter.title,
                    chapter.document,
                    chapter.theme,
                    payload.get("claims", []),
                    payload.get("scale"),
                    _recorded(chapter),
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
    """Claims by verdict; one that only sums up its parts is not counted twice."""
    return Counter(claim["verdict"] for claim in claims if not claim.get("parts"))


def summary(counts: Mapping[str, int]) -> str:
    """`1 does not hold, 2 within noise, 3 holds`, in the verdicts' order."""
    named = [f"{counts[word]} {word}" for word in VERDICTS if counts.get(word)]
    return ", ".join(named) or "no claims yet"


def digest(chapters: Iterable[Claims]) -> str:
    """Hash of all stored claims, by which the ledger knows whether it is up to date."""
    content = {c.slug: [c.title, c.claims, c.gpu] for c in chapters}
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _recorded(chapter: Chapter) -> dict[str, dict[str, Any]] | None:
    """Claims of a GPU run, by id: the claims payload kept as `book/_results/<slug>.json`."""
    path = chapter.root / "book" / "_results" / f"{chapter.slug}.json"
    if not path.is_file():
        return None
    payload = json.loads(path.read_text(encoding="utf-8"))
    return {claim["id"]: claim for claim in payload.get("claims", [])}
