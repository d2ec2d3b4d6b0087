"""The list of rules, and how a function becomes one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..catalogue import KINDS, Chapter

FULL = ("chapter", "template")  # the kinds that have all the parts of a chapter

Check = Callable[[Chapter], Iterator[str]]


@dataclass(frozen=True)
class Rule:
    """A promise of the book: its name, the kinds of notebook that it binds, its function."""

    id: str
    kinds: tuple[str, ...]
    check: Check
    source: bool = False  # whether it looks at the source only, so that no run is needed
    shape: bool = False  # whether it binds chapters in the new shape alone; others get notes


RULES: list[Rule] = []


def rule(
    id: str, *kinds: str, source: bool = False, shape: bool = False
) -> Callable[[Check], Check]:
    """Register a rule for the named kinds of notebook (all, if none is named)."""

    def register(check: Check) -> Check:
        RULES.append(Rule(id, kinds or KINDS, check, source, shape))
        return check

    return register
