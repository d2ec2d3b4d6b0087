"""Rules of the pair and its last run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .. import cells, notebook
from ..catalogue import Chapter
from ._registry import FULL, rule


@rule("pair")
def _pair(c: Chapter) -> Iterator[str]:
    source, stored = c.code.cells, notebook.copy(c.outputs).cells
    for index in range(max(len(source), len(stored))):
        if index >= min(len(source), len(stored)):
            which = c.source if index < len(source) else c.stored
            nb = c.code if index < len(source) else c.outputs
            yield f"{notebook.place(nb, index)} stands only in {which.name}"
            return
        if cells.twin(source[index]) != cells.twin(stored[index]):
            where = notebook.place(c.code, index)
            yield f"{where} differs between {c.source.name} and {c.stored.name}"
            return


@rule("jupytext")
def _jupytext(c: Chapter) -> Iterator[str]:
    """JupyterLab refuses to open a pair whose .ipynb is the newer file, unless Jupytext finds no
    difference; after `git pull` it often is. A stored cell's metadata stand in alphabetical order.
    """
    import jupytext

    source, stored = (jupytext.writes(jupytext.read(p), "py:percent") for p in (c.source, c.stored))
    for ours, theirs in zip(source.splitlines(), stored.splitlines(), strict=False):
        if ours != theirs:
            yield f"Jupytext reads {theirs!r} in {c.stored.name}, {ours!r} in {c.source.name}"
            return


@rule("stale")
def _stale(c: Chapter) -> Iterator[str]:
    record = c.outputs.metadata.get("medseg", {})
    if "code_hash" not in record:
        yield f"{c.stored.name} does not say which code its outputs belong to"
    elif record["code_hash"] != notebook.code_hash(c.code):
        where = [f"{name} has changed" for name in _changed_files(c, record)]
        changed = notebook.first_changed(notebook.cell_hashes(c.code), record.get("cells", []))
        numbers = [i for i, cell in enumerate(c.code.cells) if cell.cell_type == "code"]
        if changed is not None and "cells" in record:
            at = notebook.place(c.code, numbers[changed]) if changed < len(numbers) else "the end"
            where.append(f"the first change is at {at}")
        yield "; ".join([f"the outputs of {c.stored.name} are older than its code", *where])


def _changed_files(c: Chapter, record: Mapping[str, Any]) -> list[str]:
    """The modules of the paper, as files, whose code is not what the record says."""
    now, then = notebook.papers(c.code), record.get("papers", {})
    names = [name for name in {**now, **then} if now.get(name) != then.get(name)]
    return [f"{name.replace('.', '/')}.py" for name in names]


@rule("executed")
def _executed(c: Chapter) -> Iterator[str]:
    for index, cell in enumerate(c.outputs.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        where = notebook.place(c.outputs, index)
        if cell.execution_count is None:
            yield f"{where} was not run"
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{where} stopped with {output.ename}: {output.evalue}"
            elif output.output_type == "stream" and output.name == "stderr":
                yield f"{where} writes to stderr: {cells.shorten(output.text)}"


@rule("lesson", *FULL, "primer")
def _lesson(c: Chapter) -> Iterator[str]:
    record = c.outputs.metadata.get("medseg", {})
    expected = {"scale": "lesson", "seed": 0, "device": "cpu", "extended": False}
    run = notebook.payload(c.outputs, notebook.RUN_MIME) or record
    for name, value in expected.items():
        if run.get(name) != value:
            yield f"stored outputs must come from {name} = {value!r}, got {run.get(name)!r}"
    if run.get("overrides"):
        yield f"stored outputs must come without overrides, got {run['overrides']!r}"
