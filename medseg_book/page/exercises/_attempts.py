"""An attempt meets the answer, whichever of the two cells is run first."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from medseg_book.page import display
from medseg_book.page.exercises import _stored
from medseg_book.page.exercises._judge import is_open, judge, plain
from medseg_core import checks

MIME = _stored.MIME
MOST_VALUES = 1000  # of an answer: it is stored in the notebook

_answers: dict[str, Any] = {}
_attempts: dict[str, tuple[Any, float | None]] = {}


def reset() -> None:
    """Forget answers and attempts: another run of the chapter has other answers."""
    _answers.clear()
    _attempts.clear()


def check(name: str, attempt: Any, *, within: float | None = None) -> None:
    """Say in one line whether an attempt is right, and never stop the notebook for it.

    The answer is the one that the solution's cell found in this run. Before that cell has run,
    it is the one in the book's stored notebook, if the parameters are the same; failing that, the
    attempt is kept until the solution's cell runs, which then judges it.

    Args:
        name: "ex2" for exercise 2.
        attempt: a number, bool, text, list, array or tensor; or a function without arguments that
            gives one, so that an unfinished starter can be called safely. `...`, NotImplemented
            and NotImplementedError mean that nobody has tried yet.
        within: how far a number may be from the answer; otherwise it must be equal.

    Raises:
        ValueError: a malformed name, or `within` negative (mistakes of the chapter's author).

    Taught in: all chapters.
    """
    title = _title(name)
    if within is not None:
        checks.between(within, "within", 0, None)
    value, trouble = _value(attempt)
    if trouble:
        return print(f"✗ {title}: your code stopped with {trouble}.")
    if is_open(value):
        _attempts.pop(name, None)
        return print(f"○ {title}: not attempted yet. Write your part above and run this cell.")
    _attempts[name] = value, within
    if name in _answers:
        return print(_verdict(name, value, _answers[name], within))
    answer = _stored.answer(name)
    if answer is not None:
        line = _verdict(name, value, answer, within)
        return print(f"{line} (Compared with the run that is stored in the book.)")
    return print(f"○ {title}: your value is kept. The cells of the solution judge it: run them.")


def solution(name: str, value: Any) -> None:
    """Make known the answer that the solution's cell has found, and judge an earlier attempt.

    Raises:
        ValueError: a malformed name; an answer with NaN, or with more than 1000 values.
        TypeError: an answer that is no number, bool, text or list of these.

    Taught in: all chapters.
    """
    title, answer = _title(name), plain(value)
    size = np.asarray(answer).size
    if size > MOST_VALUES:
        raise ValueError(f"value may hold {MOST_VALUES} values, got {size}: take a summary")
    _answers[name] = json.loads(json.dumps(answer, allow_nan=False))
    line = f"The answer to {title.lower()}: {_shown(answer)}."
    if name in _attempts:
        attempt, within = _attempts[name]
        line += f"\nYours: {_verdict(name, attempt, _answers[name], within)}"
    display.show({"text/plain": line, MIME: {"name": name, "answer": _answers[name]}})


def _title(name: str) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"ex\d+", name):
        raise ValueError(f'name must look like "ex2", got {name!r}')
    return f"Exercise {name[2:]}"


def _value(attempt: Any) -> tuple[Any, str]:
    """The attempt's value, and what stopped it."""
    if not callable(attempt) or attempt in (..., NotImplemented):
        return attempt, ""
    try:
        return attempt(), ""
    except NotImplementedError:
        return ..., ""
    except Exception as error:  # a reader's slip must not stop the chapter
        if "ellipsis" in str(error):  # they calculate with a `...` that is still there
            return ..., ""
        return None, f"{type(error).__name__}: {error}"


def _verdict(name: str, attempt: Any, answer: Any, within: float | None) -> str:
    right, phrase = judge(attempt, answer, within)
    return f"✓ {_title(name)}: right." if right else f"✗ {_title(name)}: {phrase}."


def _shown(answer: Any) -> str:
    if isinstance(answer, float):
        return f"{answer:.4g}"
    array = np.asarray(answer)
    return f"{array.size} values" if array.size > 8 else np.array2string(array, precision=4)
