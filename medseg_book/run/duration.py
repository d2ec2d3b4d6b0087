"""A time in words."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """`45 s`, `12.3 min`, `3.2 h`; None is an unknown time."""
    if seconds is None:
        return "unknown time"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
