"""What the cards of the cover say is what the notebooks say."""

import json
from collections import Counter

import chapter_facts
import pytest
import yaml
from self_contained import toc_files


def notebook(*markdown, claims=(), run=None):
    report = {
        "scale": "lesson",
        "claims": [{"id": str(i), "verdict": v} for i, v in enumerate(claims)],
    }
    cells = [{"cell_type": "markdown", "metadata": {}, "source": [text]} for text in markdown]
    output = {"output_type": "display_data", "data": {chapter_facts.CLAIMS: report}}
    cells.append({"cell_type": "code", "source": [], "outputs": [output]})
    return {"cells": cells, "metadata": {"medseg": run} if run else {}}


def read(folder, *markdown, **rest):
    (folder / "x.ipynb").write_text(json.dumps(notebook(*markdown, **rest)))
    return chapter_facts.read_page(folder, "x")


@pytest.mark.parametrize(
    ("text", "idea"),
    [
        ("# T\n\n- **Idea.** A map {cite:p}`x2019` and [a](b) path.\n", "A map and a path."),
        ("# T\n\n| **The idea** | A map. |\n", "A map."),
        ("# T\n\n- **Idea:** a map\n  and a path.\n- **Before:** no.\n:::\n", "a map and a path."),
        ("# T\n\n:::{note}\n:::\n\nFirst words.\n\nMore.", "First words."),
        ("# T\n", ""),
    ],
)
def test_a_card_reads_title_and_idea(tmp_path, text, idea):
    page = read(tmp_path, text)
    assert (page.title, page.idea) == ("T", idea)


@pytest.mark.parametrize(("scale", "minutes"), [("lesson", 3), ("smoke", None)])
def test_the_minutes_are_those_of_the_stored_lesson(tmp_path, scale, minutes):
    assert read(tmp_path, "# T", run={"scale": scale, "seconds": 125.0}).minutes == minutes
    assert read(tmp_path, "# T").minutes is None


def test_a_card_reads_images_and_level(tmp_path):
    page = read(tmp_path, "# T\n\n- **Images:** cardiac MR. **Level:** introductory.\n")
    assert (page.images, page.level) == ("cardiac MR", "introductory")
    line = chapter_facts.fact_line(page)
    assert "[cardiac MR]{.fact-images} · [introductory]{.fact-level}" in line


def test_a_card_counts_judged_claims_only(tmp_path):
    claims = ["holds", "holds", "within noise", "does not hold", "paper scale only", "noted"]
    page = read(tmp_path, "# T", claims=claims)
    assert page.verdicts == Counter(claims)
    words = [part.split("]")[0] for part in chapter_facts.verdict_line(page).split("[")[1:]]
    assert words == ["✓ 2 hold", "✗ 1 fails", "≈ 1 undecided"]
    assert chapter_facts.verdict_line(chapter_facts.Page("x", "T")) == ""


def test_a_card_counts_parts_through_their_claim(tmp_path):
    content = notebook("# T", claims=["holds", "within noise", "within noise"])
    content["cells"][-1]["outputs"][0]["data"][chapter_facts.CLAIMS]["claims"][2]["parts"] = "01"
    (tmp_path / "x.ipynb").write_text(json.dumps(content))
    assert chapter_facts.read_page(tmp_path, "x").verdicts == Counter(["within noise"])


def test_every_chapter_says_its_images_and_a_level_that_the_filter_orders(root):
    themes = yaml.safe_load((root / "book" / "themes.yml").read_text())
    folders = [theme["folder"] for theme in themes]
    docnames = toc_files(root / "_toc.yml")
    pages = [
        chapter_facts.read_page(root, name) for name in docnames if name.split("/")[-2] in folders
    ]
    assert pages and all(page.images for page in pages)
    assert {page.level for page in pages} <= set(chapter_facts.LEVELS)
    script = (root / "book" / "_static" / "gallery.js").read_text()
    assert str(list(chapter_facts.LEVELS)).replace("'", '"') in script
