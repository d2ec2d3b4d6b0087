import json

import numpy as np
import pytest

from medseg_book.page import claims, display, exercises
from medseg_book.page.exercises import _attempts


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    exercises.reset()
    claims.reset()
    monkeypatch.chdir(tmp_path)
    yield
    exercises.reset()
    claims.reset()


@pytest.fixture
def said(capsys):
    """The line that a check or a solution prints."""
    return lambda: capsys.readouterr().out.strip()


# attempt, answer, within, words of the verdict
JUDGED = [
    (0.30, 0.31, 0.02, "✓ Exercise 2: right."),
    (0.1 + 0.2, 0.3, None, "✓"),  # equal but for rounding
    (0.30, 0.31, None, "✗ Exercise 2: too low by about 0.01."),
    (0.40, 0.3, 0.05, "too high by about 0.1; up to 0.05 is allowed"),
    (0.35, 0.3, 0.05, "✓"),  # the edge itself is allowed
    (3, 3.0, None, "✓"),
    (np.float32(0.5), 0.5, None, "✓"),
    (np.array([1, 2]), [1, 2], None, "✓"),
    ([1.0, 2.0, 9.0], [1, 2, 3], None, "1 of 3 values are off, the furthest, at [2], by about 6"),
    (np.zeros((2, 3)), np.ones((3, 2)), None, "has the shape (2, 3), the answer has (3, 2)"),
    ([[1], [1, 2]], [1, 2], None, "differ in length"),
    (float("nan"), 1.0, 0.1, "holds NaN or infinity"),
    (True, True, None, "✓"),
    (np.bool_(False), True, None, "that is not the answer"),
    (1, True, None, "your value is a number, and True or False is asked for"),
    ([True, False], [True, True], None, "1 of 2 values differ"),
    (" Median", "median", None, "✓"),
    ("mean", "median", None, "that is not the answer"),
    ("mean", 3, None, "your value is text, and a number is asked for"),
    (None, 3, None, "the value is None; does your function return something?"),
    ({"a": 1}, 3, None, "something else"),
    (lambda: 1 / 0, 3, None, "your code stopped with ZeroDivisionError: division by zero."),
    (lambda: 3, 3, None, "✓"),
]


@pytest.mark.parametrize("attempt, answer, within, words", JUDGED)
def test_an_attempt_after_the_solution(said, attempt, answer, within, words):
    exercises.solution("ex2", answer)
    said()
    exercises.check("ex2", attempt, within=within)
    line = said()
    assert words in line and "\n" not in line


def test_tensors(said):
    torch = pytest.importorskip("torch")
    exercises.solution("ex1", torch.tensor([1.0, 2.0], requires_grad=True))
    assert "[1. 2.]" in said()
    exercises.check("ex1", torch.tensor([1.0, 2.5]))
    assert "1 of 2 values are off" in said()


def not_written():
    raise NotImplementedError


@pytest.mark.parametrize(
    "attempt", [..., NotImplemented, [1, ...], not_written, lambda: ..., lambda: ... - 1]
)
@pytest.mark.parametrize("known", [True, False])
def test_an_open_starter_is_no_attempt(said, attempt, known):
    if known:
        exercises.solution("ex3", 1.0)
        said()
    exercises.check("ex3", attempt, within=0.1)
    assert said().startswith("○ Exercise 3: not attempted yet.")
    exercises.solution("ex3", 1.0)
    assert "Yours" not in said()


def test_run_all_judges_at_the_solution(said):
    exercises.check("ex1", 2, within=0.5)
    assert "your value is kept" in said()
    exercises.solution("ex1", 1)
    assert said().splitlines()[1] == (
        "Yours: ✗ Exercise 1: too high by about 1; up to 0.5 is allowed."
    )


def test_another_run_forgets(said):
    exercises.solution("ex1", 1)
    exercises.reset()
    said()
    exercises.check("ex1", 1)
    assert "kept" in said()


@pytest.mark.parametrize("name", ["2", "ex", "ex2b", 2])
def test_an_author_who_misspells_a_name_is_told(name):
    with pytest.raises(ValueError, match='like "ex2"'):
        exercises.check(name, 1)
    with pytest.raises(ValueError, match='like "ex2"'):
        exercises.solution(name, 1)


def test_refuses_what_cannot_be_an_answer():
    with pytest.raises(ValueError, match="got 2000"):
        exercises.solution("ex1", np.zeros(2000))
    with pytest.raises(ValueError):
        exercises.solution("ex1", float("nan"))
    with pytest.raises(ValueError, match="within"):
        exercises.check("ex1", 1, within=-0.1)


def stored(root, **record):
    """A book whose stored notebook knows the answer to exercise 1."""
    run = {**claims.CONTEXT, "slug": "tiny", "claims": [], **record}
    cells = [
        {"metadata": {"tags": ["parameters"]},
         "source": ["level: float = 1.0  # the level\n", "data_dir: str = None  # a folder"]},
        {"metadata": {}, "source": [], "outputs": [
            {"data": {exercises.MIME: {"name": "ex1", "answer": 0.25}}},
            {"data": {exercises.MIME: {"name": "ex2", "answer": 7}}},
            {"data": {claims.MIME: run}},
        ]},
    ]  # fmt: skip
    (root / "book" / "theme").mkdir(parents=True)
    (root / "_toc.yml").touch()
    (root / "book" / "theme" / "tiny.ipynb").write_text(json.dumps({"cells": cells}))


def test_before_the_solution_the_books_run_tells(said, tmp_path):
    stored(tmp_path)
    claims.reset(slug="tiny")
    exercises.check("ex1", 0.5, within=0.01)
    line = said()
    assert "too high by about 0.2" in line and "stored in the book" in line


@pytest.mark.parametrize(
    "now, variables",
    [
        ({"seed": 1}, {}),
        ({"scale": "smoke"}, {}),
        ({"device": "cuda"}, {}),
        ({"overrides": {"n": 3}}, {}),
        ({}, {"level": 2.0}),
        ({}, {"data_dir": "mine"}),
    ],
)
def test_not_the_run_of_other_parameters(said, tmp_path, monkeypatch, now, variables):
    stored(tmp_path)
    names = {"level": 1.0, "data_dir": None, **variables}
    monkeypatch.setattr(display, "variables", lambda: names)
    claims.reset(slug="tiny", **now)
    exercises.check("ex1", 0.5, within=0.01)
    assert "your value is kept" in said()


def test_the_answer_is_stored_as_data(monkeypatch):
    shown = []
    monkeypatch.setattr(_attempts.display, "show", shown.append)
    exercises.solution("ex4", np.float32(0.5))
    assert shown == [
        {"text/plain": "The answer to exercise 4: 0.5.",
         exercises.MIME: {"name": "ex4", "answer": 0.5}}
    ]  # fmt: skip
