"""`medseg doctor`: what this machine has for the book, what is slow, what is missing."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .errors import UsageError
from .probes.finding import Finding

__all__ = ["Finding", "Report", "examine", "plain"]

WIDTH = 100
LEVEL, WHAT = 9, 17  # the first two columns of the terminal's table


@dataclass
class Report:
    """All findings, in the order of the probes."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is missing that a chapter needs."""
        return not any(f.level == "missing" and f.needed for f in self.findings)


def examine(root: Path | None, data_dir: Path | None = None) -> Report:
    """Look at everything; a probe that fails is one finding more, and the others go on.

    Args:
        root: the book's, as of `catalogue.find_root`; None leaves out what needs it, the tested
            versions and the memory that the chapters took.
        data_dir: a folder of real data; None takes the one that MEDSEG_DATA names.

    Raises:
        UsageError: `data_dir` is no folder.
    """
    from .probes import devices, machine, packages, places

    if data_dir is not None and not Path(data_dir).expanduser().is_dir():
        raise UsageError(f"data folder {str(data_dir)!r} does not exist or is no folder")
    named = data_dir or os.environ.get("MEDSEG_DATA")
    folder = Path(named).expanduser() if named else None
    probes: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("packages", lambda: packages.probe(root)),
        ("machine", lambda: machine.probe(root)),
        ("devices", devices.probe),
        ("folders", places.probe),
        ("data", lambda: places.data(folder)),
    ]
    return Report([finding for what, probe in probes for finding in _soft(what, probe)])


def plain(report: Report) -> str:
    """The report for a terminal: one line for each finding, its remedy below it."""
    lines = []
    for finding in report.findings:
        first = f"{finding.level:<{LEVEL}}{finding.what:<{WHAT}} "
        lines += _wrapped(finding.detail, first)
        if finding.remedy:
            lines += _wrapped(finding.remedy, " " * (LEVEL + WHAT + 1) + "-> ")
    missing = [f for f in report.findings if f.level == "missing"]
    needed = [f.what for f in missing if f.needed]
    verdict = "Chapters can run here."
    if needed:
        verdict = f"Missing, and needed by chapters: {', '.join(needed)}."
    optional = [f.what for f in missing if not f.needed]
    if optional:
        verdict += f" Missing, but not needed to run them: {', '.join(optional)}."
    return "\n".join([*lines, "", *textwrap.wrap(verdict, WIDTH)])


def _wrapped(text: str, first: str) -> list[str]:
    indent = " " * (LEVEL + WHAT + 1)
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=indent + "   " * first.isspace(),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _soft(what: str, probe: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return probe()
    except Exception as error:  # whatever a strange machine may do: the others still tell
        reason = str(error).replace(str(Path.home()), "~").split("\n")[0]
        detail = f"could not be examined ({type(error).__name__}: {reason})"
        return [Finding("slow", what, detail)]
