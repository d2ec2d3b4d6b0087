"""Rules of a notebook's place in the book."""

from __future__ import annotations

from collections.abc import Iterator

from .. import cells, ledger, notebook, status
from ..catalogue import Chapter, find_chapters
from ._registry import rule


@rule("toc", source=True)
def _toc(c: Chapter) -> Iterator[str]:
    documents = cells.toc_documents(c.root)
    if not {c.document, f"book/{c.document}"} & documents:
        yield f"_toc.yml does not name {c.document}"


@rule("citations", source=True)
def _citations(c: Chapter) -> Iterator[str]:
    known = cells.bibliography(c.root)
    for cell in c.code.cells:
        if cell.cell_type == "markdown":
            for key in cells.cited(cell.source):
                if key not in known:
                    yield f"{key!r} is cited, but is not in references.bib"


@rule("current", "page")
def _current(c: Chapter) -> Iterator[str]:
    """A page made from the other notebooks must show the present ones."""
    made_from = (
        (ledger.LEDGER_MIME, "the claims", lambda found: ledger.digest(ledger.read(found))),
        (status.STATUS_MIME, "the stored runs", status.digest),
    )
    for mime, what, digest in made_from:
        stored = notebook.payload(c.outputs, mime)
        if stored and stored["digest"] != digest(find_chapters(c.root)):
            yield f"{what} have changed since its last run: medseg refresh {c.slug}"
