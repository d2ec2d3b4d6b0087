"""Rules of the parts of a chapter."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .. import cells, measures, notebook
from ..catalogue import Chapter
from ..parameters import STANDARD
from ._registry import FULL, rule

HEADINGS = (
    "The problem",
    "The method",
    "Training",
    "Evaluation",
    "Explore",
    "Claims",
    "Self-test",
    "Exercises",
    "On real data",
    "To take away",
)
OLD_HEADINGS = tuple(title for title in HEADINGS if title not in ("Self-test", "To take away"))


@rule("headings", *FULL, source=True)
def _headings(c: Chapter) -> Iterator[str]:
    headings = HEADINGS if measures.in_new_shape(c) else OLD_HEADINGS
    second = [title for _, level, title in notebook.headings(c.code) if level == 2]
    known = [title for title in second if title in headings]
    for title in headings:
        if known.count(title) != 1:
            count = known.count(title)
            yield f'the heading "## {title}" must stand once, found {count} times'
    if len(known) == len(headings) and tuple(known) != headings:
        yield f"the headings must come in this order: {', '.join(headings)}"
    for title in second:
        if title not in headings:
            yield f'"## {title}" is no heading of a chapter; use ### inside a part'


@rule("glance", *FULL, source=True)
def _glance(c: Chapter) -> Iterator[str]:
    first = c.code.cells[0].source if c.code.cells else ""
    if not first.startswith("# ") or "At a glance" not in first:
        yield 'the first cell must open with the title "# ..." and hold a box "At a glance"'


@rule("parameters", *FULL, "primer", source=True)
def _parameters(c: Chapter) -> Iterator[str]:
    tagged = [cell for cell in c.code.cells if "parameters" in notebook.tags(cell)]
    if len(tagged) != 1:
        yield f"one cell must be tagged `parameters`, found {len(tagged)}"
        return
    found = notebook.parameters(c.code)
    for name, default in STANDARD.items():
        if name not in found:
            yield f"the parameter {name!r} is missing"
        elif ast.literal_eval(found[name]["default"]) != default:
            yield f"the default of {name!r} must be {default!r}, got {found[name]['default']}"
    for name, about in found.items():
        if about["inferred_type_name"] == "None":
            yield f"the parameter {name!r} needs an annotation, e.g. {name}: int = 3"
        if not about["help"]:
            yield f"the parameter {name!r} needs a comment on its line, which is its help text"


@rule("claims", *FULL)
def _claims(c: Chapter) -> Iterator[str]:
    payload = notebook.payload(c.outputs, notebook.CLAIMS_MIME)
    if not payload or not payload.get("claims"):
        yield "no claims are stored; `claims.report()` must run with at least one claim"


@rule("widgets", *FULL)
def _widgets(c: Chapter) -> Iterator[str]:
    count = cells.count_stacks(c.outputs)
    if count < 2:
        yield f"at least two static widgets (`widgets.frames`) are needed, found {count}"


@rule("thumbnail", *FULL)
def _thumbnail(c: Chapter) -> Iterator[str]:
    tagged = [cell for cell in c.code.cells if "thumbnail" in notebook.tags(cell)]
    if len(tagged) != 1:
        yield f"one cell must be tagged `thumbnail`, found {len(tagged)}"
    if not c.thumbnail.is_file():
        yield f"{c.thumbnail.relative_to(c.root).as_posix()} is missing"
