"""Rules of code and outputs that a page can bear."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from .. import cells, notebook
from ..catalogue import Chapter
from ._registry import rule

MOST_LINES = 40
MOST_BYTES = 1_000_000


@rule("cell-length", source=True)
def _cell_length(c: Chapter) -> Iterator[str]:
    for index, cell in enumerate(c.code.cells):
        lines = len(cell.source.splitlines())
        if cell.cell_type == "code" and lines > MOST_LINES:
            yield f"{notebook.place(c.code, index)} has {lines} lines, at most {MOST_LINES}"


@rule("static", source=True)
def _static(c: Chapter) -> Iterator[str]:
    for index, cell in enumerate(c.code.cells):
        if cell.cell_type == "code":
            for name in cells.forbidden_calls(cell.source):
                where = notebook.place(c.code, index)
                yield f"{where} uses {name}, which does nothing on the static page"


@rule("size")
def _size(c: Chapter) -> Iterator[str]:
    size = notebook.weight(c.outputs)
    if size > MOST_BYTES:
        heavy, index = max(
            (sum(len(json.dumps(o)) for o in cell.get("outputs", [])), i)
            for i, cell in enumerate(c.outputs.cells)
        )
        yield (
            f"the outputs weigh {size / 1e6:.2f} MB, at most {MOST_BYTES / 1e6:.0f} MB "
            f"(heaviest: {notebook.place(c.outputs, index)}, {heavy / 1e6:.2f} MB)"
        )


@rule("alt-text")
def _alt_text(c: Chapter) -> Iterator[str]:
    for index, cell in enumerate(c.outputs.cells):
        where = notebook.place(c.outputs, index)
        images = any(
            mime.startswith("image/")
            for output in cell.get("outputs", [])
            for mime in output.get("data", {})
        )
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if images and not alt.strip():
            yield f'{where} shows an image without text: mystnb={{"image": {{"alt": "..."}}}}'
        if cell.cell_type == "markdown" and re.search(r"!\[\s*\]\(", cell.source):
            yield f"{where} has a picture without text: ![what it shows](...)"
    silent = sum(
        model["model_name"] == "ImageModel" and not model["state"].get("tooltip")
        for model in notebook.widget_models(c.outputs).values()
    )
    if silent:
        yield f"{silent} widget images have no `tooltip`, which is their alternative text"


@rule("paths")
def _paths(c: Chapter) -> Iterator[str]:
    for index, output in notebook.outputs(c.outputs):
        for content in cells.readable(output):
            if found := cells.absolute_path(content, c.root):
                yield f"{notebook.place(c.outputs, index)} shows a path of this machine: {found}"
