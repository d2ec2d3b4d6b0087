"""Copies to work on: brought once, never overwritten with somebody's work in them."""

import json

import nbformat
import pytest
from click.testing import CliRunner

from medseg_book import cli
from medseg_book.run import notebook, work
from medseg_book.run.catalogue import find_chapter


@pytest.fixture
def chapter(book):
    book.write("# %% [markdown]\n# # Tiny\n\n# %%\n1\n")
    return publish(book)


def publish(book, text="one"):
    """Store the chapter's notebook, as a refresh or `git pull` would."""
    chapter = find_chapter(book.root, "tiny")
    nb = chapter.code
    nb.cells[1].outputs = [nbformat.v4.new_output("stream", text=text)]
    nbformat.write(nb, chapter.stored)
    return find_chapter(book.root, "tiny")


def change(chapter):
    mine = work.path(chapter)
    mine.write_text(mine.read_text().replace('"1"', '"2"'))


def said(chapter):
    return notebook.read_stored(work.path(chapter)).cells[1].outputs[0].text


def test_a_copy_has_the_outputs_and_no_twin(chapter):
    assert work.bring([chapter]) == []
    nb = notebook.read_stored(work.path(chapter))
    assert work.path(chapter) == chapter.root / "work/surfaces/tiny.ipynb"
    assert nb.cells[1].outputs[0].text == "one" and "jupytext" not in nb.metadata
    assert "jupytext" in notebook.read_stored(chapter.stored).metadata  # the book's has one


def test_a_closed_heading_hides_each_solution(book):
    solved = '\n# %% tags=["solution"]\n2\n\n# %% [markdown] tags=["solution"]\n# So.\n'
    asked = "\n# %% [markdown]\n# ### Exercise\n"
    book.write(f"# %% [markdown]\n# # Tiny\n\n# %%\n1\n{asked}{solved}{asked}{solved}")
    chapter = publish(book)
    work.bring([chapter])
    cells = notebook.read_stored(work.path(chapter)).cells
    closed = [i for i, c in enumerate(cells) if c.metadata.get("jp-MarkdownHeadingCollapsed")]
    assert closed == [3, 7] and {cells[i].source for i in closed} == {"#### Solution"}
    assert [c.source for c in cells[4:6]] == ["2", "So."]
    assert work.bring([chapter]) == []  # the heading is no change of the student's


def test_untouched_copies_follow_the_book_and_others_stay(book, chapter):
    work.bring([chapter])
    chapter = publish(book, "two")
    assert work.bring([chapter]) == [] and said(chapter) == "two"
    change(chapter)
    before = work.path(chapter).read_bytes()
    assert work.bring([chapter]) == []  # the book has not moved on
    chapter = publish(book, "three")
    assert work.bring([chapter]) == [chapter]
    assert work.path(chapter).read_bytes() == before


def test_a_reset_keeps_what_was_done(chapter):
    work.bring([chapter])
    assert work.reset(chapter) is None  # nothing to keep
    names = []
    for _ in range(2):
        change(chapter)
        mine = work.path(chapter).read_bytes()
        kept = work.reset(chapter)
        assert kept.read_bytes() == mine and said(chapter) == "one"
        names.append(kept.name)
    assert names == ["tiny-mine.ipynb", "tiny-mine1.ipynb"]


@pytest.mark.parametrize("ledger", [None, "", "{", "{}"])
def test_without_a_record_every_copy_is_somebody_s_work(book, chapter, ledger):
    work.bring([chapter])
    path = book.root / "work" / work.LEDGER
    path.unlink() if ledger is None else path.write_text(ledger)
    before = work.path(chapter).read_bytes()
    assert work.bring([publish(book, "two")]) == [chapter]
    assert work.path(chapter).read_bytes() == before
    assert work.reset(chapter).read_bytes() == before


def test_a_chapter_without_a_stored_run_is_left_out(book):
    book.write("# %%\n1\n", "new")
    assert work.bring([find_chapter(book.root, "new")]) == []
    assert not (book.root / "work").exists()


def test_the_commands(book, chapter):
    def medseg(*arguments):
        return CliRunner().invoke(cli.main, ["--root", str(book.root), *arguments])

    done = medseg("work")
    assert done.exit_code == 0 and "work/" in done.output and said(chapter) == "one"
    change(chapter)
    publish(book, "two")
    assert "medseg reset tiny" in medseg("work").output
    done = medseg("reset", "tiny")
    assert done.exit_code == 0 and "tiny-mine.ipynb" in done.output and said(chapter) == "two"
    assert json.loads((book.root / "work" / work.LEDGER).read_text()).keys() == {"surfaces/tiny"}
    assert medseg("reset", "tinny").exit_code == 2 and medseg("reset").exit_code == 2
