"""The points of a sweep: every combination of the swept values, each with a name of its own."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nbformat

from medseg_book.run import notebook
from medseg_book.run.errors import UsageError, unknown
from medseg_book.run.parameters import merge_overrides, parse_value

LONGEST_NAME = 120  # with what is added to it (.failed.ipynb, a partial's marks) below 255 bytes


@dataclass(frozen=True)
class Point:
    """One run of a sweep: the chapter, the parameters given to it, the name of its notebook."""

    name: str
    slug: str
    given: dict[str, Any]


def parse_values(text: str, name: str) -> list[Any]:
    """The values of `-g name=v1,v2`: commas outside of brackets and quotes separate.

    >>> parse_values("10,20", "n_train"), parse_values("[10, 20],[40]", "n_train")
    ([10, 20], [[10, 20], [40]])
    """
    pieces, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[{(":
            depth += 1
        elif char in "]})":
            depth -= 1
        elif char == "," and depth == 0:
            pieces.append("")
            continue
        pieces[-1] += char
    if quote or depth:
        raise UsageError(f"-g {name}: quotes and brackets of {text!r} do not match")
    if any(not piece.strip() for piece in pieces):
        raise UsageError(f"-g {name} takes values separated by commas, got {text!r}")
    return [parse_value(piece.strip(), name) for piece in pieces]


def parse_seeds(text: str) -> list[int]:
    """`0..4` is 0, 1, 2, 3, 4; `0..40..10` is 0, 10, ..., 40; `3,7` is 3 and 7."""
    seeds: list[int] = []
    for piece in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:\.\.(\d+)(?:\.\.(\d+))?)?\s*", piece)
        if not found or int(found[3] or 1) == 0:
            raise UsageError(f"--seeds takes 0..4, 0..40..10 or 0,3,7, got {text!r}")
        first, last, step = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
        if last < first:
            raise UsageError(f"--seeds: {piece!r} goes from {first} down to {last}")
        seeds += range(first, last + 1, step)
    return seeds


def expand(
    slug: str,
    nb: nbformat.NotebookNode,
    grid: Mapping[str, Sequence[Any]],
    seeds: Sequence[int] = (),
    fixed: Mapping[str, Any] | None = None,
) -> list[Point]:
    """All combinations of the grid's values and the seeds, beside the `fixed` parameters.

    A name that is no parameter of the notebook `nb` is one of its settings, and goes into
    `overrides`.

    Raises:
        UsageError: for a name that is neither, a value given twice, a name that is fixed and swept.
    """
    fixed, declared = dict(fixed or {}), notebook.parameters(nb)
    swept = {**grid, **({"seed": seeds} if seeds else {})}
    if seeds and "seed" in grid:
        raise UsageError("seed is swept twice: by -g seed=... and by --seeds")
    for name, values in swept.items():
        if name not in declared:
            check_setting(name, nb)
        taken = fixed if name in declared else fixed.get("overrides") or {}
        if name in taken:
            raise UsageError(f"{name} is swept and fixed (to {taken[name]!r})")
        keys = [_text(value) for value in values]
        if twice := next((k for k in keys if keys.count(k) > 1), None):
            raise UsageError(f"{name} takes different values, got {twice} twice")
    points = []
    for values in itertools.product(*swept.values()):
        chosen = dict(zip(swept, values, strict=True))
        given = fixed | {k: v for k, v in chosen.items() if k in declared}
        given = merge_overrides(given, [(k, v) for k, v in chosen.items() if k not in declared])
        points.append(Point(point_name(chosen), slug, given))
    return points


def check_setting(name: str, nb: nbformat.NotebookNode) -> None:
    """Refuse a name that is no field of the chapter's `Settings`, as far as its source tells."""
    fields = notebook.settings(nb)
    if fields and name not in fields:
        raise unknown("parameter or setting", name, [*notebook.parameters(nb), *fields])


def point_name(values: Mapping[str, Any]) -> str:
    """`n_train=10,seed=0`: a file name for a combination; what cannot stand in one is hashed."""
    plain = ",".join(f"{k}={_text(v)}" for k, v in values.items()) or "default"
    bare = re.sub(r'["\s\[\](){}]', "", plain)  # a dash for "[" would make [10] read as -10
    name = re.sub(r"[^A-Za-z0-9=,._+-]+", "-", bare)
    if name == plain and len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(plain.encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9].strip('-')}-{digest}"


def _text(value: Any) -> str:
    """JSON; a plain word that is none stays as it is, so that no two values read the same."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._+-]+", value):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, default=str)
