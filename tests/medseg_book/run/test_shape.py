"""The template keeps every rule of the new shape; then one breach at a time."""

import copy
from pathlib import Path

import pytest

from medseg_book.run import catalogue, measures, notebook
from medseg_book.run.check import check
from medseg_book.run.rules import RULES

ROOT = Path(__file__).resolve().parents[3]
MODEL = catalogue.find_chapter(ROOT, "chapter-template")


@pytest.fixture
def model(tmp_path):
    """The template as a chapter that a test may spoil: `(code, outputs)` are copies."""
    source = tmp_path / "book" / "guide" / "chapter-template.py"
    source.parent.mkdir(parents=True)
    source.write_bytes(MODEL.source.read_bytes())
    source.with_suffix(".ipynb").write_bytes(MODEL.stored.read_bytes())
    chapter = catalogue.Chapter("chapter-template", "guide", "template", source, tmp_path)
    chapter.__dict__["code"] = copy.deepcopy(MODEL.code)
    chapter.__dict__["outputs"] = copy.deepcopy(MODEL.outputs)
    return chapter


def breaches(chapter):
    names = ("exercises", "headings")
    rules = [rule for rule in RULES if rule.shape or rule.id in names]
    return [(rule.id, message) for rule in rules for message in rule.check(chapter)]


def cell(nb, words):
    return next(c for c in nb.cells if words in c.source)


def test_the_template_is_the_model(model):
    assert measures.in_new_shape(model)
    assert breaches(model) == []


def both(chapter, words):
    return cell(chapter.code, words), cell(chapter.outputs, words)


def edit(words, old, new):
    """A change of the source and of its twin."""

    def change(chapter):
        for found in both(chapter, words):
            assert old in found.source
            found.source = found.source.replace(old, new)

    return change


def tag(words, tags):
    def change(chapter):
        for found in both(chapter, words):
            found.metadata["tags"] = tags

    return change


def label(words, text):
    def change(chapter):
        cell(chapter.code, words).metadata["mystnb"]["code_prompt_show"] = text

    return change


def show_again(words, times):
    def change(chapter):
        outputs = cell(chapter.outputs, words).outputs
        outputs += times * outputs[-2:]

    return change


def drop(words, mime):
    def change(chapter):
        for output in cell(chapter.outputs, words).outputs:
            output.data.pop(mime, None)

    return change


def rename(*path):
    """The key of metadata at `path` loses what it holds, in source and twin."""

    def change(chapter):
        for found in both(chapter, path[0]):
            found.metadata.pop(path[1], None)

    return change


def widget_words(chapter):
    for found in notebook.widget_models(chapter.outputs).values():
        if measures.CAPTION in str(found["state"].get("value")):
            found["state"]["value"] = ""


def no_first_widget(chapter):
    cell(chapter.outputs, "def moved").outputs = []


def long_alt(chapter):
    image = cell(chapter.outputs, "figure, axes = plt").metadata["mystnb"]["image"]
    image["alt"] = "word " * 61


def long_file(chapter):
    chapter.source.write_text(chapter.source.read_text() + "#\n" * 901)


SLIDER, SCRATCH = "def moved", "def median_from_scratch"
BREACHES = [
    (long_file, "budget", "lines of the source, at most 900"),
    (edit(SCRATCH, "\n", "\n\n" * 76), "budget", "lines of code, at most 450"),
    (edit(SCRATCH, "\n", "\n" * 70), "budget", "open lines of code, at most 200"),
    (tag("class Settings", []), "budget", "before the first picture, at most 20"),
    (show_again("signal = signals", 7), "budget", "8 figures, at most 7"),
    (show_again("plotting.Table", 4), "budget", "tables, at most 3"),
    (show_again(SLIDER, 2), "budget", "widgets, at most 3"),
    (edit(SCRATCH, "\n", "\n" * 9), "open-cells", "open lines, at most 25"),
    (label(SLIDER, ""), "fold-label", "is folded without a label"),
    (label(SLIDER, "The slider, 20 lines"), "fold-label", "the page counts the lines itself"),
    (edit(SCRATCH, "Sort", "S" * 101), "columns", "characters, at most 100"),
    (edit(SCRATCH, "return", "return  # fmt: skip"), "columns", "has 1 `# fmt: skip`"),
    (edit("# A chapter", "found c2", "found c7"), "found", "names C7, which is no claim"),
    (drop("signal = signals", "text/html"), "captions", "a figure without words under it"),
    (widget_words, "captions", "2 widgets have no words under them"),
    (long_alt, "alt-length", "in 61 words, at most 60"),
    (no_first_widget, "first-widget", 'stands in "Explore"'),
    (drop("exercises.quiz(", "text/html"), "self-test", "are needed, found 0"),
    (tag("exercises.quiz(", []), "self-test", "shows the answers of its questions"),
    (rename("exercises.quiz(", "jupyter"), "self-test", "shows the answers"),
    (edit("### Exercise 2 (code)", "{dropdown} Hint", "{note}"), "attempts", "lacks a hint"),
    (edit("return ...", 'check("ex2"', 'check("ex1"'), "attempts", "lacks a starter cell"),
    (edit("def trimmed_mean", 'solution("ex2"', "print("), "attempts", "lacks cells tagged"),
    (tag("A tenth is less", []), "attempts", "cells of the solution come last"),
    (rename("def trimmed_mean", "jupyter"), "attempts", "outputs_hidden"),
    (edit("A tenth is less", "A tenth", "### A tenth"), "attempts", "a heading, which ends"),
    (edit("### Exercise 3", "(experiment)", "(code)"), "exercises", "no exercise to experiment"),
    (edit("# Self-test", "# Self-test", "# Test"), "headings", '"## Self-test" must stand once'),
]  # fmt: skip


@pytest.mark.parametrize("change, rule, words", BREACHES)
def test_a_page_that_breaks_a_rule(model, change, rule, words):
    change(model)
    found = breaches(model)
    assert any(id == rule and words in message for id, message in found), found


def test_a_page_in_the_old_shape_is_told_by_notes(model):
    for found in both(model, "# A chapter"):
        found.source = found.source.replace("What we found", "Results")
    assert not measures.in_new_shape(model)
    verdict = check(model)
    assert "found" not in {id for id, _ in verdict.problems}
    assert any(note.startswith("[found] for the new shape:") for note in verdict.notes)
