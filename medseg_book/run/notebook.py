"""Notebooks as data: reading a pair, hashes of the code, headings, parameters, stored payloads."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from medseg_book.page import claims, scales

from . import modules

RUN_MIME, CLAIMS_MIME = scales.MIME, claims.MIME
INJECTED = "injected-parameters"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def read_source(path: Path) -> NotebookNode:
    """The percent script as a notebook without outputs; cell ids follow from the sources."""
    import jupytext

    nb = jupytext.read(path, fmt="py:percent")
    nb.metadata["kernelspec"] = dict(KERNELSPEC)
    nb.nbformat, nb.nbformat_minor = 4, 5
    seen: set[str] = set()
    for cell in nb.cells:
        # The same source gives the same id, so that a diff shows the cells that changed.
        digest, n = _sha(cell.cell_type + cell.source)[:8], 0
        while (name := digest if n == 0 else f"{digest}-{n}") in seen:
            n += 1
        seen.add(name)
        cell["id"] = name
    return nb


def read_stored(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def copy(nb: NotebookNode) -> NotebookNode:
    """A deep copy, without the cell that an earlier papermill run has injected."""
    twin = deepcopy(nb)
    twin.cells = [cell for cell in twin.cells if INJECTED not in tags(cell)]
    return twin


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The code cells that the author wrote (papermill's injected parameters are not)."""
    return [c for c in nb.cells if c.cell_type == "code" and INJECTED not in tags(c)]


def cell_hashes(nb: NotebookNode) -> list[str]:
    """A short hash for each code cell, to name the cell that changed."""
    return [_sha(cell.source.strip())[:12] for cell in code_cells(nb)]


def code_hash(nb: NotebookNode) -> str:
    """sha256 over the code cells' sources, stripped, and the modules of their papers.

    Prose may change, outputs stay valid.
    """
    sources = [cell.source.strip() for cell in code_cells(nb)]
    return _sha("\x00".join([*sources, *modules.papers(sources).values()]))


def papers(nb: NotebookNode) -> dict[str, str]:
    """The modules of the papers from which the notebook imports, each with its code's hash."""
    return modules.papers(cell.source for cell in code_cells(nb))


def first_changed(now: list[str], then: list[str]) -> int | None:
    """Index of the first code cell whose hash differs, None if none does."""
    for i in range(max(len(now), len(then))):
        if now[i : i + 1] != then[i : i + 1]:
            return i
    return None


def headings(nb: NotebookNode) -> list[tuple[int, int, str]]:
    """All markdown headings as (cell index, level, text)."""
    found = []
    for index, cell in enumerate(nb.cells):
        if cell.cell_type == "markdown":
            prose = re.sub(r"^(```|~~~).*?^\1", "", cell.source, flags=re.MULTILINE | re.DOTALL)
            for hashes, text in re.findall(r"^(#{1,6}) +(.+?)\s*$", prose, re.MULTILINE):
                found.append((index, len(hashes), text))
    return found


def heading_above(nb: NotebookNode, index: int) -> str:
    """The last heading at or above cell `index`; empty where there is none."""
    above = [text for at, _, text in headings(nb) if at <= index]
    return above[-1] if above else ""


def place(nb: NotebookNode, index: int) -> str:
    """How messages name a cell: number (from 1) and heading."""
    heading = heading_above(nb, index)
    return f"cell {index + 1}" + (f' ("{heading}")' if heading else "")


def parameters(nb: NotebookNode) -> dict[str, dict[str, str]]:
    """name -> {inferred_type_name, default, help} of the cell tagged `parameters`."""
    import papermill

    if not any("parameters" in tags(cell) for cell in nb.cells):
        return {}
    return papermill.inspect_notebook(nb)


def settings(nb: NotebookNode) -> list[str]:
    """Names of the chapter's settings: the fields of its class `Settings`; none without one."""
    return modules.settings(cell.source for cell in code_cells(nb))


def outputs(nb: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    """Every output with the index of its cell."""
    for index, cell in enumerate(nb.cells):
        for output in cell.get("outputs", []):
            yield index, output


def payload(nb: NotebookNode | None, mime: str) -> dict[str, Any] | None:
    """The last output of that MIME type (`RUN_MIME`, `CLAIMS_MIME`), None where there is none."""
    found = None
    for _, output in outputs(nb) if nb is not None else ():
        found = output.get("data", {}).get(mime, found)
    return found


def weight(nb: NotebookNode) -> int:
    """Bytes of a notebook's outputs and of its widgets' state."""
    found = [output for _, output in outputs(nb)]
    return len(json.dumps([found, nb.metadata.get("widgets", {})]))


def widget_models(nb: NotebookNode) -> dict[str, dict[str, Any]]:
    """Stored widget state: model id -> model."""
    state = nb.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    return state.get("state", {})


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
