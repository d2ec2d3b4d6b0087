"""What a reader found in the user's folder, said in one screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

LINES = 8  # of what was found and of what is missing; the rest is counted


@dataclass(frozen=True)
class Report:
    """The outcome of a reader's `.check()`: it never raises by itself, `.require()` does.

    Attributes:
        name: the data set.
        root: the folder that the user named.
        found: one line for each thing that is there.
        missing: one line for each thing that is absent or wrong; empty means that all is well.
        layout: the folders and files expected, as published.
        where: where the data set is published.
        licence: under which terms.
        hint: what the user probably wants to do, e.g. name another folder.
    """

    name: str
    root: Path
    layout: str
    where: str
    licence: str
    found: Sequence[str] = field(default_factory=tuple)
    missing: Sequence[str] = field(default_factory=tuple)
    hint: str = ""

    @property
    def ok(self) -> bool:
        """Whether the folder can be read."""
        return not self.missing

    def require(self) -> Report:
        """Return the report itself when all is well.

        Raises:
            ValueError: something is missing or wrong; the text is the report.
        """
        if not self.ok:
            raise ValueError(str(self))
        return self

    def __str__(self) -> str:
        verdict = "complete" if self.ok else "cannot be read"
        parts = [f"{self.name} in {str(self.root)!r}: {verdict}"]
        parts += [f"Try: {self.hint}"] if self.hint else []
        parts += _section("Missing or wrong", self.missing)
        parts += _section("Found", self.found)
        if not self.ok:
            parts += _section("Layout expected", self.layout.strip("\n").split("\n"), lines=None)
        parts += [f"Where from: {self.where}", f"Licence: {self.licence}"]
        return "\n".join(parts)


def _section(title: str, lines_of_text: Sequence[str], lines: int | None = LINES) -> list[str]:
    if not lines_of_text:
        return []
    shown = list(lines_of_text[:lines])
    rest = len(lines_of_text) - len(shown)
    return [f"{title}:", *(f"  {text}" for text in shown), *([f"  … and {rest} more"] * bool(rest))]


def folder_problem(root: Path) -> str:
    """Why ``root`` is no folder with something in it; "" when it is one."""
    if not root.exists():
        return "the folder does not exist"
    if not root.is_dir():
        return "this is a file, a folder is needed"
    if not any(not entry.name.startswith(".") for entry in root.iterdir()):
        return "the folder is empty"
    return ""


def content_line(root: Path) -> str:
    """The first entries of ``root`` on one line, for a folder of another layout."""
    names = sorted(p.name + "/" * p.is_dir() for p in root.iterdir() if not p.name.startswith("."))
    return ", ".join(names[:6]) + (f", … ({len(names)} entries)" if len(names) > 6 else "")
