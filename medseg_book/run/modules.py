"""The modules that a notebook runs: found in its code and read from their files, never imported.

A chapter's settings, loaders, arms and parts stand in `medseg_core/papers/<slug>/` (underscores for
hyphens): every file of the folder belongs to the chapter's code as its cells do.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from medseg_book.page.provenance import source_hash

PAPER = re.compile(r"medseg_core\.papers\.\w+")


def papers(sources: Iterable[str]) -> dict[str, str]:
    """All modules of the papers from which code imports, each with the hash of its file."""
    named = (PAPER.match(name) for source in sources for name in _imported(source))
    packages = sorted({match[0] for match in named if match})
    names = (
        f"{package}.{path.stem}"
        for package in packages
        for path in sorted(_place(package).glob("*.py"))
    )
    return {name: file_hash(name) for name in names}


def settings(sources: Iterable[str]) -> list[str]:
    """The fields of the first class `Settings` in the code or in a paper from which it imports."""
    sources = list(sources)
    files = filter(None, map(file, papers(sources)))
    for source in [*sources, *(path.read_text(encoding="utf-8") for path in files)]:
        for node in ast.walk(parse(source)):
            if isinstance(node, ast.ClassDef) and node.name == "Settings":
                return [a.target.id for a in node.body if isinstance(a, ast.AnnAssign)]
    return []


def changed(then: Mapping[str, str]) -> list[str]:
    """The modules whose code is no longer that of the hashes `then`."""
    return [name for name, hash in then.items() if file_hash(name) != hash]


def file_hash(module: str) -> str:
    """Hash of a module's code without comments and layout; "" where it has no readable file."""
    path = file(module)
    try:
        return _hash(path, path.stat().st_mtime_ns) if path else ""
    except (OSError, SyntaxError, ValueError):
        return ""


@cache
def _hash(path: Path, changed: int) -> str:
    """Fifty chapters name the same modules; `changed` is the time of the file that was read."""
    return source_hash(path)


def file(module: str) -> Path | None:
    """Where a module of the two packages stands."""
    path = _place(module)
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _place(module: str) -> Path:
    """A module's path without its ending, or a package's folder."""
    package, *inner = module.split(".")
    return Path(importlib.util.find_spec(package).origin).parent.joinpath(*inner)


def parse(source: str) -> ast.Module:
    """A cell's code without its magics; empty where it is no Python."""
    code = "\n".join(line for line in source.splitlines() if not re.match(r"\s*[%!]", line))
    try:
        return ast.parse(code)
    except SyntaxError:
        return ast.Module([], [])


def _imported(source: str) -> Iterable[str]:
    """Every dotted name that an import may mean: a module, or a name within one."""
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
