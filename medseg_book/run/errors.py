"""What the reader got wrong, said by name and with the choices."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(ValueError):
    """A wrong argument of the runner, found before any kernel starts."""


def unknown(kind: str, value: object, choices: Iterable[str]) -> UsageError:
    """The error for an unknown name: what it got, the nearest choice, all choices.

    >>> print(unknown("scale", "leson", ["smoke", "lesson", "paper"]))
    unknown scale 'leson'; did you mean 'lesson'? (choices: smoke, lesson, paper)
    """
    choices = list(choices)
    near = get_close_matches(str(value), choices, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UsageError(f"unknown {kind} {value!r}{hint} (choices: {', '.join(choices) or 'none'})")
