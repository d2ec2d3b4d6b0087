import pytest

from medseg_book.page import display, exercises

GOOD = {"What is $a<b$?": [(True, "`x`", "So it is."), (False, "<y>", "It is not.")]}


@pytest.fixture
def page(monkeypatch):
    shown = []
    monkeypatch.setattr(display, "show", shown.append)
    exercises.quiz(GOOD)
    return shown[0]


def test_every_answer_is_a_fold_with_its_reason(page):
    html = page["text/html"]
    assert html.count("<details") == 2 and " open" not in html
    right = html.index('class="medseg-answer right"')
    wrong = html.index('class="medseg-answer wrong"')
    assert right < html.index("So it is.") < wrong < html.index("It is not.")
    assert "✓ Right." in html[right:wrong] and "✗ No." in html[wrong:]
    assert "<script" not in html and "http" not in html


def test_text_is_text(page):
    html = page["text/html"]
    assert "$a&lt;b$" in html and "<code>x</code>" in html and "&lt;y&gt;" in html


def test_the_plain_text_gives_nothing_away(page):
    assert "So it is" not in page["text/plain"] and "`x`" in page["text/plain"]


@pytest.mark.parametrize(
    "questions, message",
    [
        ({}, "at least one question"),
        ({"?": [(True, "a", "w")]}, "right and a wrong"),
        ({"?": [(False, "a", "w"), (False, "b", "w")]}, "right and a wrong"),
        ({"?": [(True, "a", "w"), (False, "b", " ")]}, "does not say why"),
    ],
)
def test_refuses(questions, message):
    with pytest.raises(ValueError, match=message):
        exercises.quiz(questions)
