import json
import os

import nbformat
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_output

from medseg_book import cli
from medseg_book.run import modules, notebook, refresh, status
from medseg_book.run.catalogue import find_chapter, find_chapters
from medseg_book.run.check import check

CLAIMS = [
    {"id": "C1", "text": "a", "verdict": "holds"},
    {"id": "C2a", "text": "b", "verdict": "holds"},
    {"id": "C2", "text": "b and more", "verdict": "does not hold", "parts": ["C2a"]},
    {"id": "C3", "text": "c", "verdict": "paper scale only"},
    {"id": "C4", "text": "d", "verdict": "noted"},
]
VERSIONS = {"torch": "2.0", "medseg_core": "1", "python": "3"}
PAGE = """
# %% [markdown]
# # Status

# %%
from IPython.display import display
from medseg_book.run import status
from medseg_book.run.catalogue import find_chapters, find_root

chapters = find_chapters(find_root())
display({"text/plain": "", status.STATUS_MIME: {"digest": status.digest(chapters)}}, raw=True)
"""


def store(book, slug="tiny", theme="surfaces", *, core=(), claims=CLAIMS, **record):
    """A notebook as its run would leave it."""
    book.write(f"# %% [markdown]\n# # The {slug}\n\n# %%\n1\n", slug, theme)
    chapter = find_chapter(book.root, slug)
    nb = chapter.code
    payload = {"claims": claims, "core": dict(core), "seconds": 80.0}
    if claims:
        nb.cells[1].outputs = [new_output("display_data", {notebook.CLAIMS_MIME: payload})]
    nb.metadata["medseg"] = {
        "code_hash": notebook.code_hash(nb),
        "scale": "lesson",
        "device": "cpu",
        "seconds": 90.4,
        "peak_memory_mb": 811.2,
        "date": "2026-01-02T23:00:00+00:00",
        "versions": VERSIONS,
        **record,
    }
    nbformat.write(nb, chapter.stored)
    return chapter


def rows(book):
    return status.read(find_chapters(book.root))


def cells(table, slug):
    """A row by the table's header."""
    (row,) = [row for row in table.rows if row[0].startswith(f"[{slug}]")]
    return dict(zip(table.header, row, strict=True))


def test_a_row_says_how_the_notebook_was_run(book):
    store(book)
    table = status.table(rows(book))
    weight = os.path.getsize(find_chapter(book.root, "tiny").stored)
    assert table.rows[0][0] == "**Surfaces**"
    row = cells(table, "tiny")
    assert row.pop("notebook") == '[tiny](surfaces/tiny.html "The tiny")'
    assert float(row.pop("kB")) <= weight / 1000
    assert row == {
        "state": "fresh",
        "✓": "1",  # C2a counts through C2
        "✗": "1",
        "≈": "0",
        "–": "2",
        "run": "lesson, cpu",
        "time": "90 s",
        "MiB": "811",
        "date": "2026-01-02",
    }
    assert table.note == "All runs with torch 2.0, medseg_core 1, python 3."


def test_the_weight_is_that_of_the_outputs(book):
    chapter = store(book)
    before = rows(book)[0].weight
    nb = notebook.read_stored(chapter.stored)
    nb.cells[1].outputs.append(new_output("stream", text="x" * 5000))
    nbformat.write(nb, chapter.stored)
    assert 5000 < rows(book)[0].weight - before < 5100


def test_stale_and_unrun_notebooks_are_told(book):
    store(book, "old", code_hash="0")
    book.write("# %% [markdown]\n# # New\n", "new")
    book.write("# %%\n1\n", "bare")
    chapter = find_chapter(book.root, "bare")
    nbformat.write(chapter.code, chapter.stored)  # converted, never run
    table = status.table(rows(book))
    assert cells(table, "old")["state"] == "stale"
    assert cells(table, "bare")["state"] == "no run"
    new = cells(table, "new")
    assert new["state"] == "no run" and new["time"] == new["MiB"] == new["run"] == new["✓"] == "–"
    assert status.headline(rows(book)).startswith(
        "**3 notebooks, 0 fresh.** All runs together took 2"
    )


def test_a_changed_module_is_marked(book):
    store(book, core={"medseg_core.gone": "0"})
    store(book, "other")
    table = status.table(rows(book))
    assert cells(table, "tiny")["state"] == "fresh °"
    assert cells(table, "other")["state"] == "fresh"
    assert "° The package has changed since that run" in table.note


def test_the_headline_names_oldest_and_latest(book):
    store(book, "a", seconds=60, date="2026-01-03T00:00:00+00:00")
    store(book, "b", seconds=120, date="2025-12-31T00:00:00+00:00")
    assert status.headline(rows(book)) == (
        "**2 notebooks, 2 fresh.** All runs together took 3 minutes.  \n"
        "Oldest run: b, 2025-12-31; latest: a, 2026-01-03."
    )


def test_themes_stand_in_the_order_of_the_map(book):
    for slug, theme in (("g", "guide"), ("p", "primers"), ("a", "alpha"), ("b", "beta")):
        store(book, slug, theme)
    store(book, "n", "not-on-the-map")
    themes = [{"folder": "beta", "title": "Second B"}, {"folder": "alpha", "title": "First A"}]
    (book.root / "book/themes.yml").write_text(json.dumps(themes))
    assert [(row.slug, row.group) for row in rows(book)] == [
        ("b", "Second B"),
        ("a", "First A"),
        ("n", "Not on the map"),
        ("p", "Primers"),
        ("g", "Guide"),
    ]


def test_versions_that_differ_have_a_column(book):
    store(book, "a")
    store(book, "b", versions={**VERSIONS, "torch": "2.1"})
    store(book, "c", versions={})
    table = status.table(rows(book))
    assert table.header[-1] == "torch" and "python" not in table.header
    assert [cells(table, slug)["torch"] for slug in "abc"] == ["2.0", "2.1", "–"]
    assert table.note == "All runs with medseg_core 1, python 3."


def test_gpu_runs_stand_beside_the_cpu(book):
    store(book, "a")
    store(book, "b")
    assert status.gpu_table(rows(book)) is None
    folder = book.root / "book/_results"
    folder.mkdir()
    for slug, scale in (("a", "lesson"), ("b", "paper")):
        run = {"scale": scale, "seconds": 20.0, "claims": []}
        (folder / f"{slug}.json").write_text(json.dumps(run))
    table = status.gpu_table(rows(book))
    assert [row[1:] for row in table.rows] == [
        ["lesson", "80 s", "lesson", "20 s", "4.0"],
        ["lesson", "80 s", "paper", "20 s", "–"],
    ]


def test_an_empty_book(book):
    assert status.headline([]) == "**0 notebooks, 0 fresh.**"
    assert status.table([]).rows == [] and rows(book) == []


def test_the_digest_follows_the_runs_but_not_the_package(book):
    store(book)
    before = status.digest(find_chapters(book.root))
    assert before == status.digest(find_chapters(book.root))
    store(book, date="2026-01-03T00:00:00+00:00")
    after = status.digest(find_chapters(book.root))
    assert after != before
    chapter = find_chapter(book.root, "tiny")
    chapter.source.write_text(chapter.source.read_text().replace("\n1\n", "\n2\n"))
    stale = status.digest(find_chapters(book.root))
    assert stale != after  # the page would still call it fresh


def test_a_changed_module_asks_for_no_new_page(book, monkeypatch):
    store(book)
    before = status.digest(find_chapters(book.root))
    monkeypatch.setattr(modules, "changed", lambda then: ["medseg_core.rng"])
    assert rows(book)[0].moved
    assert status.digest(find_chapters(book.root)) == before


def problems(book, slug):
    return [
        message
        for rule, message in check(find_chapter(book.root, slug)).problems
        if rule == "current"
    ]


@pytest.fixture
def two_pages(book):
    """A chapter and the two pages that are made from it, as `medseg refresh --all` makes them."""
    ledger = PAGE.replace("status.digest(chapters)", "status.digest(status.read(chapters))")
    ledger = ledger.replace("status", "ledger").replace("STATUS", "LEDGER")
    book.write("# %% [markdown]\n# # The tiny\n\n# %%\n1\n")
    book.write(PAGE, "status", "")
    book.write(ledger, "ledger", "")
    done = CliRunner().invoke(
        cli.main, ["--root", str(book.root), "refresh", "--all", "--no-progress"]
    )
    assert done.exit_code == 0, done.output
    assert [line.split(":")[0] for line in done.output.splitlines()] == ["tiny", "ledger", "status"]
    return book


def test_the_page_notices_new_runs_and_no_page_waits_for_the_other(two_pages):
    book = two_pages
    assert problems(book, "status") == problems(book, "ledger") == []
    # A new run of the ledger is no news to this page, nor this page's to the ledger.
    for slug in ("status", "ledger"):
        assert refresh.refresh(find_chapter(book.root, slug)).ok
        assert problems(book, "status") == problems(book, "ledger") == []
    store(book)
    assert problems(book, "status") == [
        "the stored runs have changed since its last run: medseg refresh status"
    ]
    assert problems(book, "ledger") == [
        "the claims have changed since its last run: medseg refresh ledger"
    ]
    assert problems(book, "tiny") == []
