"""What the cards of the cover say is what the notebooks say."""

import json
from collections import Counter

import chapter_facts
import pytest


def notebook(*markdown, claims=()):
    report = {
        "scale": "lesson",
        "claims": [{"id": str(i), "verdict": v} for i, v in enumerate(claims)],
    }
    cells = [{"cell_type": "markdown", "metadata": {}, "source": [text]} for text in markdown]
    output = {"output_type": "display_data", "data": {chapter_facts.CLAIMS: report}}
    return {"cells": [*cells, {"cell_type": "code", "source": [], "outputs": [output]}]}


def read(folder, *markdown, claims=()):
    (folder / "x.ipynb").write_text(json.dumps(notebook(*markdown, claims=claims)))
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


@pytest.mark.parametrize(
    ("words", "minutes"),
    [
        ("`smoke` half a minute, `lesson` about four minutes on two cores", 4),
        ("`lesson` about\n  five minutes", 5),
        ("`lesson` 3 minutes, `paper` hours", 3),
        ("`smoke` two minutes", None),
        ("`lesson` seconds, `paper` five minutes", None),
    ],
)
def test_a_card_reads_the_minutes_of_the_lesson(tmp_path, words, minutes):
    assert read(tmp_path, f"# T\n\n- **Time:** {words}.").minutes == minutes


def test_the_box_goes_before_the_table(tmp_path):
    (tmp_path / "book").mkdir()
    table = tmp_path / "book" / "cards.yml"
    table.write_text("x: {images: CT, level: advanced}\n")
    page = read(tmp_path, "# T\n")
    assert (page.images, page.level) == ("CT", "advanced")
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


def test_levels_in_the_table_are_those_that_the_filter_orders(root):
    import yaml

    table = yaml.safe_load((root / "book" / "cards.yml").read_text())
    assert {card["level"] for card in table.values()} <= set(chapter_facts.LEVELS)
    script = (root / "book" / "_static" / "gallery.js").read_text()
    assert str(list(chapter_facts.LEVELS)).replace("'", '"') in script
