"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST = 6  # items that are listed


@dataclass(frozen=True)
class Finding:
    """What was found about one part of a machine.

    Attributes:
        level: "ok"; "slow": it works, with a limit that `detail` names; "missing": it does not.
        what: the part, in a word or two.
        detail: what is there.
        remedy: what to do about it; "" when there is nothing to do.
        needed: whether a missing thing keeps chapters from running; tests, the book's build, real
            data and sweeps may lack what a chapter on its phantom does without.
    """

    level: Literal["ok", "slow", "missing"]
    what: str
    detail: str
    remedy: str = ""
    needed: bool = True


def listed(items: list[str]) -> str:
    """The first items on one line, the rest counted."""
    rest = len(items) - MOST
    return ", ".join(items[:MOST]) + (f" and {rest} more" if rest > 0 else "")
