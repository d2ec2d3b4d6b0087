"""Rules of what a page may ask of its reader, for chapters in the new shape.

A chapter that does not open with its result yet is told the same as notes (see `check`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from medseg_book.page import found

from .. import measures, notebook
from ..catalogue import Chapter
from ._registry import FULL, rule

MOST = {
    "lines of the source": 900,
    "lines of code": 450,
    "open lines of code": 200,
    "open lines of code before the first picture": 20,
    "figures": 7,
    "tables": 3,
    "widgets": 3,
}
MOST_OPEN_LINES = 25  # in one cell
MOST_COLUMNS = 100  # more is cut at the right of a usual screen
MOST_WORDS = 60  # of an alternative text: who hears it cannot skim
FEWEST_QUESTIONS = 3


@rule("budget", *FULL, shape=True)
def _budget(c: Chapter) -> Iterator[str]:
    code = notebook.code_cells(c.code)
    seen = [cell for cell in c.outputs.cells if not measures.tagged(cell, "solution")]
    counts = {
        "lines of the source": len(c.source.read_text(encoding="utf-8").splitlines()),
        "lines of code": sum(map(measures.lines, code)),
        "open lines of code": sum(map(measures.open_lines, code)),
        "open lines of code before the first picture": measures.before_the_first_picture(c.outputs),
        "figures": sum(map(measures.images, seen)),
        "tables": sum(map(measures.tables, seen)),
        "widgets": sum(map(measures.widgets, seen)),
    }
    for what, most in MOST.items():
        if counts[what] > most:
            yield f"{counts[what]} {what}, at most {most}"


@rule("open-cells", *FULL, source=True, shape=True)
def _open_cells(c: Chapter) -> Iterator[str]:
    for index, cell in enumerate(c.code.cells):
        count = measures.open_lines(cell)
        if count > MOST_OPEN_LINES:
            yield f"{notebook.place(c.code, index)} has {count} open lines, at most 25: fold it"


@rule("fold-label", *FULL, source=True, shape=True)
def _fold_label(c: Chapter) -> Iterator[str]:
    """A fold says what is in it; how many lines that are the page counts, and whose source."""
    for index, cell in enumerate(c.code.cells):
        if not measures.tagged(cell, "hide-input", "hide-cell") or "sources.show(" in cell.source:
            continue
        label = cell.metadata.get("mystnb", {}).get("code_prompt_show", "")
        where = notebook.place(c.code, index)
        if not label:
            yield f'{where} is folded without a label: mystnb={{"code_prompt_show": "…"}}'
        elif re.search(r"\d+ lines?\b", label):
            yield f'{where} is folded as "{label}": the page counts the lines itself'


@rule("columns", *FULL, source=True, shape=True)
def _columns(c: Chapter) -> Iterator[str]:
    for index, cell in enumerate(c.code.cells):
        if cell.cell_type != "code":
            continue
        where = notebook.place(c.code, index)
        longest = max(map(len, cell.source.splitlines()), default=0)
        if longest > MOST_COLUMNS:
            yield f"{where} has a line of {longest} characters, at most {MOST_COLUMNS}"
        if count := len(re.findall(r"#\s*fmt:\s*(?:skip|off)", cell.source)):
            yield f"{where} has {count} `# fmt: skip`: let the formatter break the lines"


@rule("found", *FULL, source=True, shape=True)
def _found(c: Chapter) -> Iterator[str]:
    opening = c.code.cells[0].source if c.code.cells else ""
    box = found.BOX.search(opening)
    if not box:
        yield (
            'the first cell needs, under "At a glance", the box ":::{admonition} What we found" '
            'with ":class: found c1" (the claim whose effect matters most)'
        )
    elif named := found.headline(box["classes"]):
        record = notebook.payload(c.outputs, notebook.CLAIMS_MIME) or {"claims": []}
        if record["claims"] and named not in [claim["id"] for claim in record["claims"]]:
            yield f'the box "What we found" names {named}, which is no claim of the stored run'


@rule("captions", *FULL, shape=True)
def _captions(c: Chapter) -> Iterator[str]:
    for index, cell in enumerate(c.outputs.cells):
        lacking = measures.images(cell) - measures.captions(cell)
        if lacking > 0:
            where = notebook.place(c.outputs, index)
            yield f'{where} has a figure without words under it: plotting.show(..., caption="...")'
    lacking = sum(map(measures.widgets, c.outputs.cells)) - measures.captioned_widgets(c.outputs)
    if lacking > 0:
        yield f'{lacking} widgets have no words under them: widgets.frames(..., caption="...")'


@rule("alt-length", *FULL, shape=True)
def _alt_length(c: Chapter) -> Iterator[str]:
    for index, alt in measures.descriptions(c.outputs):
        if (count := len(alt.split())) > MOST_WORDS:
            where = notebook.place(c.outputs, index)
            yield f"{where} describes its picture in {count} words, at most {MOST_WORDS}"


@rule("first-widget", *FULL, shape=True)
def _first_widget(c: Chapter) -> Iterator[str]:
    for index, cell in enumerate(c.outputs.cells):
        if measures.widgets(cell):
            if (part := measures.part(c.outputs, index)) != "The method":
                yield f'the first widget stands in "{part}": one belongs into "The method"'
            return


@rule("self-test", *FULL, shape=True)
def _self_test(c: Chapter) -> Iterator[str]:
    count = measures.questions(c.outputs)
    if count < FEWEST_QUESTIONS:
        yield f"at least {FEWEST_QUESTIONS} questions (`exercises.quiz`) are needed, found {count}"
    for index, cell in enumerate(c.code.cells):
        if cell.cell_type == "code" and "exercises.quiz(" in cell.source:
            hidden = cell.metadata.get("jupyter", {}).get("source_hidden")
            if not (hidden and measures.tagged(cell, "remove-input")):
                where = notebook.place(c.code, index)
                yield (
                    f"{where} shows the answers of its questions: "
                    'tags=["remove-input"] jupyter={"source_hidden": true}'
                )
