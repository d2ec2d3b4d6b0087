import json

import nbformat
from nbformat.v4 import new_output

from medseg_book.run import ledger, notebook
from medseg_book.run.catalogue import find_chapter, find_chapters

STORED = [
    {"id": "C1", "text": "A | B", "verdict": "holds", "mean": 0.1, "low": 0.05, "high": 0.15}
    | {"n": 3, "unit": "seed", "bound": {"at_least": 0.05}, "null": 0, "paper": "0.2 vs 0.1"},
    {"id": "C2a", "text": "<b>", "verdict": "does not hold", "if_fails": "too small"},
    {"id": "C2b", "text": "b", "verdict": "holds"},
    {"id": "C2", "text": "C2a and C2b together", "verdict": "does not hold"}
    | {"parts": ["C2a", "C2b"]},
]


def store(book, slug, stored):
    book.write(f"# %% [markdown]\n# # The {slug}\n\n# %%\n1\n", slug)
    chapter = find_chapter(book.root, slug)
    nb = chapter.code
    payload = {"slug": slug, "scale": "lesson", "claims": stored}
    nb.cells[1].outputs = [new_output("display_data", {notebook.CLAIMS_MIME: payload})]
    nbformat.write(nb, chapter.stored)


def test_claims_are_read_and_counted(book):
    store(book, "tiny", STORED)
    book.write("# %% [markdown]\n# # New\n", "new")
    book.write("# %% [markdown]\n# # P\n", "p", "primers")
    found = {c.slug: c for c in ledger.read(find_chapters(book.root))}
    assert set(found) == {"tiny", "new"}  # a primer without claims is no gap
    assert found["tiny"].counts == {"holds": 1, "does not hold": 1}  # parts count in C2
    assert ledger.summary(found["tiny"].counts) == "does not hold: 1, holds: 1"
    assert ledger.summary(found["new"].counts) == "no claims yet"


def test_tables(book):
    store(book, "tiny", STORED)
    (tiny,) = ledger.read(find_chapters(book.root))
    lines = ledger.details(tiny).splitlines()
    assert lines[0] == "**[The tiny](surfaces/tiny.html)**"
    assert lines[2] == "| claim | paper | ours, lesson scale | verdict |"
    assert lines[4].startswith(r"| **C1** A \| B | 0.2 vs 0.1 | +0.100 [")
    assert lines[4].endswith("| ✓ holds |")
    assert r"\<b>" in lines[5] and "✗ does not hold" in lines[5]
    assert lines[-1] == "- **C2a** (does not hold): too small"
    assert ledger.overview([tiny]).splitlines()[-1] == "| **all** | **1** | **0** | **1** | **0** |"


def test_a_recorded_gpu_run_has_its_own_column(book):
    store(book, "tiny", STORED)
    results = book.root / "book" / "_results" / "tiny.json"
    results.parent.mkdir()
    results.write_text(json.dumps({"scale": "paper", "claims": [STORED[0]]}))
    (tiny,) = ledger.read(find_chapters(book.root))
    lines = ledger.details(tiny).splitlines()
    assert lines[2].endswith("| verdict | GPU, paper scale |")
    assert "| ✓ holds | ✓ holds; +0.100" in lines[4] and lines[5].endswith("| – |")


def test_the_digest_follows_the_claims(book):
    store(book, "tiny", STORED)
    before = ledger.digest(ledger.read(find_chapters(book.root)))
    assert before == ledger.digest(ledger.read(find_chapters(book.root)))
    store(book, "tiny", STORED[:1])
    assert before != ledger.digest(ledger.read(find_chapters(book.root)))


def test_no_chapter_has_results(book):
    book.write("# %% [markdown]\n# # New\n", "new")
    (new,) = ledger.read(find_chapters(book.root))
    assert ledger.details(new) == "**[New](surfaces/new.html)**: no results stored yet."
