"""Questions to test oneself: plain HTML that needs neither a kernel nor a script.

Each possible answer is a fold whose inside says whether it is right, and why: a reader commits to
an answer by opening it. Browsers make such folds work by mouse, touch, keyboard and screen reader,
on the built page, from the disk and in JupyterLab.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from medseg_book.page import display


def quiz(questions: Mapping[str, Sequence[tuple[bool, str, str]]]) -> None:
    """Show questions with possible answers, each of which tells whether it is right, and why.

    Formulas stand between dollars, code between back-quotes.

    >>> exercises.quiz({"One outlier doubles. What moves?": [
    ...     (True, "the mean", "Every value counts by its size."),
    ...     (False, "the median", "It stays: the value lies on the same side as before.")]})

    Args:
        questions: {question: [(whether it is right, answer, why), ...]}.

    Raises:
        ValueError: no questions; one with fewer than two answers, without a right one or without a
            wrong one; an answer that does not say why.

    Taught in: all chapters.
    """
    if not questions:
        raise ValueError("questions must hold at least one question, got none")
    html, text = [], []
    for number, (question, answers) in enumerate(questions.items(), start=1):
        if {right for right, _, _ in answers} != {True, False}:
            raise ValueError(f"{question!r} needs a right and a wrong answer, got {answers!r}")
        if not all(why.strip() for _, _, why in answers):
            raise ValueError(f"{question!r} has an answer that does not say why")
        html += [_html(number, question, answers)]
        text += [f"{number}. {question}", *(f"   - {answer}" for _, answer, _ in answers)]
    page = f'<div class="medseg-quiz mathjax_process">{"".join(html)}</div>'
    display.show({"text/plain": "\n".join(text), "text/html": page})


def _html(number: int, question: str, answers: Sequence[tuple[bool, str, str]]) -> str:
    folds = "".join(
        f'<details class="medseg-answer {"right" if right else "wrong"}">'
        f"<summary><b>{letter}.</b> {display.html(answer)}</summary>"
        f"<p><strong>{'✓ Right.' if right else '✗ No.'}</strong> {display.html(why)}</p></details>"
        for letter, (right, answer, why) in zip(ascii_uppercase, answers, strict=False)
    )
    asked = f"<p><strong>Question {number}.</strong> {display.html(question)}</p>"
    return (
        f'<div class="medseg-question" role="group" aria-label="Question {number}">'
        f"{asked}{folds}</div>"
    )
