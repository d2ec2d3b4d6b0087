"""The answer in the book's stored notebook, where that belongs to the run at hand."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medseg_book.page import claims, display

MIME = "application/vnd.medseg.answer+json"


def answer(name: str) -> Any:
    """The stored answer; None where there is none, or where it is one of other parameters."""
    notebook = _notebook(claims.context()["slug"])
    if notebook is None or not _same_run(notebook):
        return None
    found = [p["answer"] for p in _payloads(notebook, MIME) if p["name"] == name]
    return found[-1] if found else None


def _notebook(slug: str) -> dict[str, Any] | None:
    """The chapter as the book stores it: in `book/`, at or above this folder or the package."""
    here, package = Path.cwd(), Path(__file__).resolve().parents[3]
    for folder in (here, *here.parents, package):
        if slug and (folder / "_toc.yml").is_file():
            for path in (folder / "book").rglob(f"{slug}.ipynb"):
                return json.loads(path.read_text(encoding="utf-8"))
    return None


def _same_run(notebook: Mapping[str, Any]) -> bool:
    """Same scale, seed, device and overrides, and the chapter's own parameters untouched."""
    records, now = list(_payloads(notebook, claims.MIME)), claims.context()
    if not records or any(records[-1].get(key) != value for key, value in now.items()):
        return False
    variables = display.variables()
    return all(
        name == "device" or variables.get(name, default) == default
        for name, default in _defaults(notebook)
    )


def _payloads(notebook: Mapping[str, Any], mime: str) -> Iterator[dict[str, Any]]:
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if mime in output.get("data", {}):
                yield output["data"][mime]


def _defaults(notebook: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and value of each parameter: the stored run took those that its cell names."""
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            for node in ast.parse("".join(cell["source"])).body:
                if isinstance(node, ast.AnnAssign):
                    yield node.target.id, ast.literal_eval(node.value)
