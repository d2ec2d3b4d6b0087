"""What every stored notebook of the book must fulfil: one function per rule.

A rule takes a chapter and yields one message per breach. `check` runs them; each is named, so that
a message says which promise is broken. Rules marked `source` need no stored run.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nbformat import NotebookNode

from . import cells as text
from . import notebook
from .catalogue import KINDS, Chapter
from .parameters import STANDARD

HEADINGS = (
    "The problem",
    "The method",
    "Training",
    "Evaluation",
    "Explore",
    "Claims",
    "Exercises",
    "On real data",
)
FULL = ("chapter", "template")
MOST_LINES = 40
MOST_BYTES = 1_000_000
EXERCISE = re.compile(r"Exercise\b", re.IGNORECASE)
EXERCISE_KINDS = ("think", "code", "experiment")

Check = Callable[[Chapter], Iterator[str]]


@dataclass(frozen=True)
class Rule:
    id: str
    kinds: tuple[str, ...]
    check: Check
    source: bool = False  # whether it looks at the source only, so that no run is needed


RULES: list[Rule] = []


def rule(id: str, *kinds: str, source: bool = False) -> Callable[[Check], Check]:
    """Register a rule for the named kinds of notebook (all, if none is named)."""

    def register(check: Check) -> Check:
        RULES.append(Rule(id, kinds or KINDS, check, source))
        return check

    return register


# --- the pair and its last run ---------------------------------------------------------------


@rule("pair")
def _pair(c: Chapter) -> Iterator[str]:
    source, stored = c.code.cells, notebook.copy(c.outputs).cells
    for index in range(max(len(source), len(stored))):
        if index >= min(len(source), len(stored)):
            which = c.source if index < len(source) else c.stored
            nb = c.code if index < len(source) else c.outputs
            yield f"{notebook.place(nb, index)} stands only in {which.name}"
            return
        if text.twin(source[index]) != text.twin(stored[index]):
            where = notebook.place(c.code, index)
            yield f"{where} differs between {c.source.name} and {c.stored.name}"
            return


@rule("stale")
def _stale(c: Chapter) -> Iterator[str]:
    record = c.outputs.metadata.get("medseg", {})
    if "code_hash" not in record:
        yield f"{c.stored.name} does not say which code its outputs belong to"
    elif record["code_hash"] != notebook.code_hash(c.code):
        changed = notebook.first_changed(notebook.cell_hashes(c.code), record.get("cells", []))
        cells = [i for i, cell in enumerate(c.code.cells) if cell.cell_type == "code"]
        where = ""
        if changed is not None and "cells" in record:
            at = notebook.place(c.code, cells[changed]) if changed < len(cells) else "the end"
            where = f"; the first change is at {at}"
        yield f"the outputs of {c.stored.name} are older than its code{where}"


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
                yield f"{where} writes to stderr: {text.shorten(output.text)}"


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


# --- the parts of a chapter ------------------------------------------------------------------


@rule("headings", *FULL, source=True)
def _headings(c: Chapter) -> Iterator[str]:
    second = [title for _, level, title in notebook.headings(c.code) if level == 2]
    known = [title for title in second if title in HEADINGS]
    for title in HEADINGS:
        if known.count(title) != 1:
            count = known.count(title)
            yield f'the heading "## {title}" must stand once, found {count} times'
    if len(known) == len(HEADINGS) and tuple(known) != HEADINGS:
        yield f"the headings must come in this order: {', '.join(HEADINGS)}"
    for title in second:
        if title not in HEADINGS:
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
    count = text.count_stacks(c.outputs)
    if count < 2:
        yield f"at least two static widgets (`widgets.frames`) are needed, found {count}"


@rule("exercises", *FULL, source=True)
def _exercises(c: Chapter) -> Iterator[str]:
    exercises = text.exercises(c.code, EXERCISE)
    if len(exercises) < 3:
        yield (
            "at least three exercises are needed, each under a heading "
            f'"### Exercise 1 (think)", found {len(exercises)}'
        )
    for kind in EXERCISE_KINDS:
        if exercises and not any(kind in title.lower() for title, _ in exercises):
            yield f'no exercise to {kind}: one heading must read "### Exercise ... ({kind})"'
    for title, folded in exercises:
        if not folded:
            yield (
                f'"{title}" has no folded solution: a {{dropdown}} directive, '
                "or a code cell tagged `hide-input` or `hide-cell`"
            )


@rule("thumbnail", *FULL)
def _thumbnail(c: Chapter) -> Iterator[str]:
    tagged = [cell for cell in c.code.cells if "thumbnail" in notebook.tags(cell)]
    if len(tagged) != 1:
        yield f"one cell must be tagged `thumbnail`, found {len(tagged)}"
    if not c.thumbnail.is_file():
        yield f"{c.thumbnail.relative_to(c.root).as_posix()} is missing"


# --- code and outputs that a page can bear ---------------------------------------------------


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
            for name in text.forbidden_calls(cell.source):
                where = notebook.place(c.code, index)
                yield f"{where} uses {name}, which does nothing on the static page"


def weight(nb: NotebookNode) -> int:
    """Bytes of a notebook's outputs and of its widgets' state."""
    outputs = [output for _, output in notebook.outputs(nb)]
    return len(json.dumps([outputs, nb.metadata.get("widgets", {})]))


@rule("size")
def _size(c: Chapter) -> Iterator[str]:
    size = weight(c.outputs)
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
        for content in text.readable(output):
            if found := text.absolute_path(content, c.root):
                yield f"{notebook.place(c.outputs, index)} shows a path of this machine: {found}"


# --- its place in the book -------------------------------------------------------------------


@rule("toc", source=True)
def _toc(c: Chapter) -> Iterator[str]:
    documents = text.toc_documents(c.root)
    if not {c.document, f"book/{c.document}"} & documents:
        yield f"_toc.yml does not name {c.document}"


@rule("citations", source=True)
def _citations(c: Chapter) -> Iterator[str]:
    known = text.bibliography(c.root)
    for cell in c.code.cells:
        if cell.cell_type == "markdown":
            for key in text.cited(cell.source):
                if key not in known:
                    yield f"{key!r} is cited, but is not in references.bib"


@rule("current", "page")
def _current(c: Chapter) -> Iterator[str]:
    """A page made from the other notebooks must show the present ones."""
    from . import ledger as claims
    from . import status
    from .catalogue import find_chapters

    made_from = (
        (claims.LEDGER_MIME, "the claims", lambda found: claims.digest(claims.read(found))),
        (status.STATUS_MIME, "the stored runs", status.digest),
    )
    for mime, what, digest in made_from:
        stored = notebook.payload(c.outputs, mime)
        if stored and stored["digest"] != digest(find_chapters(c.root)):
            yield f"{what} have changed since its last run: medseg refresh {c.slug}"
