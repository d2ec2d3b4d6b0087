"""Rules of exercises: three kinds, each with all that an attempt needs and its solution hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nbformat import NotebookNode

from .. import cells, measures, notebook
from ..catalogue import Chapter
from ._registry import FULL, rule

EXERCISE = re.compile(r"Exercise\b", re.IGNORECASE)
KINDS = ("think", "code", "experiment")
HINT = re.compile(r"\{dropdown\} Hint\b")
CALL = r"exercises\.{}\(\s*[\"']{}[\"']"


@rule("exercises", *FULL, source=True)
def _exercises(c: Chapter) -> Iterator[str]:
    exercises = cells.exercises(c.code, EXERCISE)
    if len(exercises) < 3:
        yield (
            "at least three exercises are needed, each under a heading "
            f'"### Exercise 1 (think)", found {len(exercises)}'
        )
    for kind in KINDS:
        if exercises and not any(kind in title.lower() for title, _ in exercises):
            yield f'no exercise to {kind}: one heading must read "### Exercise ... ({kind})"'
    for title, folded in exercises:
        if not folded:
            yield (
                f'"{title}" has no folded solution: cells tagged `solution`, a {{dropdown}} '
                "directive, or a code cell tagged `hide-input` or `hide-cell`"
            )


@rule("attempts", *FULL, source=True, shape=True)
def _attempts(c: Chapter) -> Iterator[str]:
    """Question and hint, a starter that ends with the check, then the solution."""
    titles = notebook.headings(c.code)
    for n, (start, level, title) in enumerate(titles):
        number = re.match(r"Exercise (\d+)", title)
        if level != 3 or not number:
            continue
        stop = next((t[0] for t in titles[n + 1 :]), len(c.code.cells))
        lacking = _lacking(c.code.cells[start:stop], f"ex{number[1]}", title)
        if lacking:
            yield f'"{title}" lacks {", ".join(lacking)}'
    for index, cell in enumerate(c.code.cells):
        if measures.tagged(cell, "solution") and notebook.headings(NotebookNode(cells=[cell])):
            yield f"{notebook.place(c.code, index)} has a heading, which ends the solution's fold"


def _lacking(block: list[NotebookNode], name: str, title: str) -> list[str]:
    before = [cell for cell in block if not measures.tagged(cell, "solution")]
    solution = [cell for cell in block if measures.tagged(cell, "solution")]
    asked = block[0].source.split(title, 1)[-1] if block else ""
    found = []
    if not HINT.search(asked):
        found.append("a hint (a {dropdown} called Hint)")
    if not any(_calls("check", name, cell) for cell in before):
        found.append(f'a starter cell with exercises.check("{name}", ...)')
    if not any(_calls("solution", name, cell) for cell in solution):
        found.append(f'cells tagged `solution` with exercises.solution("{name}", ...)')
    if block[len(before) :] != solution:
        found.append("an order in which all cells of the solution come last")
    if not all(_hidden(cell) for cell in solution):
        found.append(
            'jupyter={"source_hidden": true} (code: also "outputs_hidden") at a solution\'s cell'
        )
    return found


def _calls(function: str, name: str, cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(re.search(CALL.format(function, name), cell.source))


def _hidden(cell: NotebookNode) -> bool:
    state = cell.metadata.get("jupyter", {})
    needed = ["source_hidden"] + ["outputs_hidden"] * (cell.cell_type == "code")
    return all(state.get(key) for key in needed)
