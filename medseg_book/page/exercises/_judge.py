"""How near an attempt is to the answer, in a phrase that helps."""

from __future__ import annotations

from typing import Any

import numpy as np

ROUNDING = 1e-12  # of the answer: two ways to add up the same numbers are both right


def plain(value: Any) -> Any:
    """A number, bool, text, or nested list of these; what an array or tensor holds."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def is_open(value: Any) -> bool:
    """Whether somebody still has to write something: `...` or NotImplemented, at any depth."""
    value = plain(value)
    return any(map(is_open, value)) if isinstance(value, list) else value in (..., NotImplemented)


def judge(attempt: Any, answer: Any, within: float | None) -> tuple[bool, str]:
    """Whether the attempt is right, and what is wrong with it."""
    if attempt is None:
        return False, "the value is None; does your function return something?"
    try:
        given, known = np.asarray(plain(attempt)), np.asarray(answer)
    except ValueError:
        return False, "the rows of your value differ in length"
    kinds = _kind(given), _kind(known)
    if kinds[0] != kinds[1]:
        return False, f"your value is {kinds[0]}, and {kinds[1]} is asked for"
    if given.shape != known.shape:
        return False, f"your value has the shape {given.shape}, the answer has {known.shape}"
    if kinds[1] == "text":
        given, known = (np.char.lower(np.char.strip(a)) for a in (given, known))
    if kinds[1] != "a number":
        return _alike(given == known)
    return _near(given.astype(float), known.astype(float), within or 0.0)


def _kind(array: np.ndarray) -> str:
    kinds = {"b": "True or False", "U": "text", "i": "a number", "u": "a number", "f": "a number"}
    return kinds.get(array.dtype.kind, "something else")


def _alike(same: np.ndarray) -> tuple[bool, str]:
    if same.ndim:
        return bool(same.all()), f"{(~same).sum()} of {same.size} values differ"
    return bool(same), "that is not the answer"


def _near(given: np.ndarray, known: np.ndarray, within: float) -> tuple[bool, str]:
    if not np.isfinite(given).all():
        return False, "your value holds NaN or infinity"
    off = given - known
    wrong = np.abs(off) > within + ROUNDING * np.abs(known)
    if not wrong.any():
        return True, ""
    far = _about(np.abs(off).max())
    allowed = f"; up to {within:g} is allowed" if within else ""
    if not off.ndim:
        return False, f"too {'high' if off > 0 else 'low'} by about {far}{allowed}"
    place = ", ".join(map(str, np.unravel_index(np.abs(off).argmax(), off.shape)))
    count = f"{wrong.sum()} of {wrong.size} values are off"
    return False, f"{count}, the furthest, at [{place}], by about {far}{allowed}"


def _about(distance: float) -> str:
    """One digit: a hint at the size of the error, which does not give the answer away."""
    return f"{float(f'{distance:.1g}'):g}"
