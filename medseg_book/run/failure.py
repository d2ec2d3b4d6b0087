"""A failed cell in one screen: where, what, the lines around it, the last frames."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field

from nbformat import NotebookNode

from .notebook import heading_above

WIDTH = 100
LONGEST_LINE = 300
DEEPEST = 4  # frames that are shown
SCREEN = 36  # lines of the report; the caller adds where the notebook lies
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
IN_CELL = re.compile(r"^\s*(?:Cell )?In\s?\[(\d+)\], line (\d+)")
IN_FILE = re.compile(r"^File (.+?):(\d+)(?:, in (.*))?$")
ARROW = re.compile(r"^-+> (\d+) ?(.*)$")


@dataclass(frozen=True)
class Failure:
    """Why a chapter stopped. `cell` counts from 1 in the chapter's source; `line` may be None."""

    slug: str
    cell: int
    n_cells: int
    heading: str
    ename: str
    evalue: str
    source: str = ""
    line: int | None = None
    frames: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        return self.report()

    @property
    def summary(self) -> str:
        """The failure in one line of a table."""
        text = " ".join(f"cell {self.cell}: {self.ename}: {ANSI.sub('', self.evalue)}".split())
        return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 1]}…"

    def report(self) -> str:
        """The report, at most `SCREEN` lines of `WIDTH` characters."""
        where = f"{self.slug} failed in cell {self.cell} of {self.n_cells}"
        where += f', under "{self.heading}"' if self.heading else ""
        message = _wrap(f"{self.ename}: {ANSI.sub('', self.evalue)}", most=20)
        reach = 3 if len(message) <= 12 else 1  # a long message was written to be read
        parts = [[where], message, self._around(reach), self._frames()]
        lines = [line for part in parts if part for line in (*part, "")]
        return "\n".join(line[:WIDTH] for line in lines[:SCREEN]).rstrip()

    def _around(self, reach: int) -> list[str]:
        source = self.source.splitlines()
        if not source:
            return []
        line = self.line if self.line and self.line <= len(source) else None
        first = max(1, line - reach) if line else 1
        last = min(len(source), line + reach) if line else min(len(source), 2 * reach + 1)
        return [
            f"{'>' if i == line else ' '} {i:4d} | {source[i - 1]}" for i in range(first, last + 1)
        ]

    def _frames(self) -> list[str]:
        return [
            text for where, code in self.frames[-DEEPEST:] for text in (f"  {where}", code) if text
        ]


def from_error(
    nb: NotebookNode,
    slug: str,
    index: int,
    ename: str,
    evalue: str,
    traceback: list[str] | None = None,
    count: int | None = None,
) -> Failure:
    """The failure of cell `index` (from 0) of the source notebook `nb`.

    `traceback` is IPython's, `count` the cell's execution count, which the traceback names.
    """
    line, frames = parse_traceback(traceback or [], count)
    source = nb.cells[index].source if index < len(nb.cells) else ""
    heading = heading_above(nb, index)
    return Failure(slug, index + 1, len(nb.cells), heading, ename, evalue, source, line, frames)


def parse_traceback(
    traceback: list[str], count: int | None
) -> tuple[int | None, list[tuple[str, str]]]:
    """(failing line of the cell, [(where, code line), ...]) from IPython's coloured traceback."""
    line, frames = None, []
    for text in ANSI.sub("", "\n".join(traceback)).splitlines():
        if found := IN_CELL.match(text):
            frames.append((f"cell In[{found[1]}], line {found[2]}", ""))
            if count is None or int(found[1]) == count:
                line = int(found[2])
        elif found := IN_FILE.match(text):
            path = re.sub(r"^.*[/\\](?:site-packages|lib/python[\d.]+)[/\\]", "", found[1].strip())
            inside = f", in {found[3].split('(')[0]}" if found[3] else ""
            frames.append((f"{path}, line {found[2]}{inside}", ""))
        elif (found := ARROW.match(text)) and frames and not frames[-1][1]:
            frames[-1] = (frames[-1][0], f"      {found[2].strip()}")
    return line, frames


def _wrap(text: str, most: int) -> list[str]:
    lines = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()))
        lines += textwrap.wrap(line, WIDTH - 2, subsequent_indent=indent) or [""]
    if len(lines) > most:
        half = most // 2
        lines = [*lines[:half], "[...]", *lines[-half + 1 :]]
    return [f"  {line}" for line in lines]
