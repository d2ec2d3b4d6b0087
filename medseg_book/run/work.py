"""Copies of the chapters that a student may change: `work/<theme>/<slug>.ipynb`, not under git.

The pair in `book/` belongs to the book: a run or an edit there would show in `git status`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from . import files, measures, notebook
from .catalogue import Chapter

FOLDER, LEDGER = "work", ".copies.json"


def path(chapter: Chapter) -> Path:
    """Where the copy stands."""
    return chapter.root / FOLDER / f"{chapter.document}.ipynb"


def bring(chapters: Iterable[Chapter]) -> list[Chapter]:
    """Copy what is not there yet, and what has changed in the book but not here.

    Returns:
        The chapters whose copy has been worked on since, while the book's has moved on.
    """
    behind = []
    for chapter in chapters:
        if chapter.outputs is None:
            continue
        target, then = path(chapter), _recorded(chapter.root).get(chapter.document)
        if not target.is_file() or (then and _hash(target) == then["copy"]):
            _copy(chapter)
        elif not then or _hash(chapter.stored) != then["book"]:
            behind.append(chapter)
    return behind


def reset(chapter: Chapter) -> Path | None:
    """Put the book's notebook back; returns where a copy that was worked on is kept."""
    target, kept = path(chapter), None
    then = _recorded(chapter.root).get(chapter.document)
    if target.is_file() and not (then and _hash(target) == then["copy"]):
        kept = _free(target)
        target.replace(kept)
    _copy(chapter)
    return kept


def _copy(chapter: Chapter) -> None:
    nb, target = notebook.copy(chapter.outputs), path(chapter)
    nb.metadata.pop("jupytext", None)  # a copy has no twin to be kept in step with
    nb.cells = list(_with_solutions_folded(nb.cells))
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(target, nbformat.writes(nb) + "\n")
    record = {"book": _hash(chapter.stored), "copy": _hash(target)}
    recorded = _recorded(chapter.root) | {chapter.document: record}
    files.write_whole(chapter.root / FOLDER / LEDGER, json.dumps(recorded, indent=1) + "\n")


def _with_solutions_folded(cells: Iterable[NotebookNode]) -> Iterator[NotebookNode]:
    """A closed heading above each solution: hidden outputs and prose would show after a run."""
    inside = False
    for cell in cells:
        now = measures.tagged(cell, "solution")
        if now and not inside:
            yield new_markdown_cell("#### Solution", metadata={"jp-MarkdownHeadingCollapsed": True})
        inside = now
        yield cell


def _free(target: Path) -> Path:
    """`edpcnn-mine.ipynb`, or the first number after it that is not taken."""
    names = (f"{target.stem}-mine{n or ''}.ipynb" for n in range(1000))
    return next(p for p in map(target.with_name, names) if not p.exists())


def _recorded(root: Path) -> dict[str, dict[str, str]]:
    """What was copied when, by the document's name; nothing where it cannot be read."""
    try:
        return json.loads((root / FOLDER / LEDGER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
