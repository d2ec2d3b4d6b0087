"""What the book adds to a chapter before it is parsed: folded solutions, and the box of results."""

import dataclasses

import found_box
import pytest
import solutions

from medseg_book.page import claims
from medseg_book.page.claims_table import Claim

BOX = ":::{admonition} What we found\n:class: found c1\n\nSee **Claims**.\n:::"


def cell(source, *tags, kind="markdown", **more):
    return {"cell_type": kind, "metadata": {"tags": list(tags)}, "source": source, **more}


def sources(notebook):
    return [c["source"] for c in notebook["cells"]]


def test_consecutive_solutions_share_one_fold():
    cells = [cell("a"), cell("s", "solution"), cell("t", "x", "solution"), cell("b"),
             cell("u", "solution")]  # fmt: skip
    notebook = {"cells": cells}
    solutions.fold(notebook)
    begin, end = solutions.OPEN, solutions.CLOSE
    assert sources(notebook) == ["a", begin, "s", "t", end, "b", begin, "u", end]
    ids = [c["id"] for c in notebook["cells"] if "id" in c]
    assert len(set(ids)) == 4


def test_without_solutions_nothing_changes():
    notebook = {"cells": [cell("a"), cell("b", "hide-input")]}
    solutions.fold(notebook)
    assert sources(notebook) == ["a", "b"]


@pytest.fixture
def notebook():
    known = Claim(
        "C1", "It is so.", "holds", 0.2, 0.1, 0.3, 3, "seed", bound={"at_least": 0.1}, null=0.0
    )
    record = {**claims.CONTEXT, "claims": [dataclasses.asdict(known)]}
    outputs = [{"data": {claims.MIME: record}}]
    figure = cell("f()", "thumbnail", kind="code", outputs=[])
    figure["metadata"]["mystnb"] = {"image": {"alt": "A [dot]"}}
    opening = cell(f"# Title\n\n{BOX}\n\nMore.")
    return {"cells": [opening, figure, cell("r()", kind="code", outputs=outputs)]}


def test_the_box_is_filled_from_the_stored_run(notebook):
    found_box.fill(notebook, "/x.webp")
    text = notebook["cells"][0]["source"]
    assert text.startswith("# Title") and text.endswith("More.")
    assert "**The effect.** C1: It is so. Measured: +0.20" in text
    assert "![A dot](/x.webp)" in text and "See **Claims**" not in text


def test_without_a_picture_there_is_none(notebook):
    found_box.fill(notebook, "")
    assert "![" not in notebook["cells"][0]["source"]


def test_without_a_run_the_authors_words_stay(notebook):
    notebook["cells"].pop()
    found_box.fill(notebook, "/x.webp")
    assert BOX in notebook["cells"][0]["source"]
