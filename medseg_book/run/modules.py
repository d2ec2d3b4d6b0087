"""The modules that a notebook runs: found in its code and read from their files, never imported.

A chapter's settings, loaders and arms stand in `medseg_core/papers/<slug>/experiment.py` (a second
part's in `<part>_experiment.py`), which belong to the chapter's code as its cells do.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from medseg_book.page.provenance import source_hash

EXPERIMENT = re.compile(r"medseg_core\.papers\.\w+\.(\w+_)?experiment")


def experiments(sources: Iterable[str]) -> dict[str, str]:
    """The experiment modules that code imports, each with the hash of its file."""
    found = (name for source in sources for name in _imported(source))
    return {name: file_hash(name) for name in found if EXPERIMENT.fullmatch(name)}


def settings(sources: Iterable[str]) -> list[str]:
    """The fields of the first class `Settings` in the code or in an experiment that it imports."""
    sources = list(sources)
    files = filter(None, map(file, experiments(sources)))
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
    package, *inner = module.split(".")
    path = Path(importlib.util.find_spec(package).origin).parent.joinpath(*inner)
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


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
