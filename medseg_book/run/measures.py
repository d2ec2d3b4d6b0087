"""What a page asks of its reader, counted: open code, pictures, tables, captions, questions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nbformat import NotebookNode

from medseg_book.page import found

from . import cells, notebook
from .catalogue import Chapter

FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell", "solution"}
CAPTION, QUESTION = 'class="medseg-caption', 'class="medseg-question"'
TABLE = re.compile(r"^\|(?: *:?-+:? *\|)+ *$|<table", re.MULTILINE)


def in_new_shape(chapter: Chapter) -> bool:
    """Whether the page opens with its result; those that do not are still to be reshaped."""
    return any(found.BOX.search(c.source) for c in chapter.code.cells if c.cell_type == "markdown")


def tagged(cell: NotebookNode, *names: str) -> bool:
    return bool(set(names) & set(notebook.tags(cell)))


def lines(cell: NotebookNode) -> int:
    return len(cell.source.splitlines())


def open_lines(cell: NotebookNode) -> int:
    """Lines of code that stand open on the page."""
    return 0 if cell.cell_type != "code" or tagged(cell, *FOLDED) else lines(cell)


def images(cell: NotebookNode) -> int:
    """Pictures that the cell shows (a widget's frames are none)."""
    return sum(
        any(mime.startswith("image/") for mime in output.get("data", {}))
        for output in cell.get("outputs", [])
    )


def widgets(cell: NotebookNode) -> int:
    return sum(cells.VIEW in output.get("data", {}) for output in cell.get("outputs", []))


def captions(cell: NotebookNode) -> int:
    """Captions of pictures; those of widgets are part of them."""
    return _html(cell).count(CAPTION)


def captioned_widgets(nb: NotebookNode) -> int:
    models = notebook.widget_models(nb).values()
    return sum(CAPTION in str(model["state"].get("value", "")) for model in models)


def questions(nb: NotebookNode) -> int:
    return sum(_html(cell).count(QUESTION) for cell in nb.cells)


def tables(cell: NotebookNode) -> int:
    """Tables in prose or among the outputs; that of the claims is counted nowhere."""
    texts = [cell.source] if cell.cell_type == "markdown" else []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if notebook.CLAIMS_MIME not in data:
            texts.append(data.get("text/markdown") or data.get("text/html") or "")
    return sum(len(TABLE.findall(text)) for text in texts)


def before_the_first_picture(nb: NotebookNode) -> int:
    """Open lines of code that a reader passes until the first picture or widget."""
    count = 0
    for cell in nb.cells:
        count += open_lines(cell)
        if images(cell) or widgets(cell):
            break
    return count


def part(nb: NotebookNode, index: int) -> str:
    """The part (a heading of level 2) in which a cell stands."""
    above = [title for at, level, title in notebook.headings(nb) if at <= index and level == 2]
    return above[-1] if above else ""


def descriptions(nb: NotebookNode) -> Iterator[tuple[int, str]]:
    """Alternative texts of figures, each with the index of its cell."""
    for index, cell in enumerate(nb.cells):
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if alt:
            yield index, alt


def _html(cell: NotebookNode) -> str:
    return "".join(o.get("data", {}).get("text/html", "") for o in cell.get("outputs", []))
