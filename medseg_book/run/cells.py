"""What the rules look for in a notebook's cells and outputs, and in the book around it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from . import modules, notebook

FORBIDDEN = {"interact", "interact_manual", "interactive", "interactive_output", "observe", "Play"}
FOLDED = re.compile(r"\{dropdown\}|:class:.*\bdropdown\b|<details")
PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|Users|var/folders)/[^\s\"']*|\b[A-Z]:\\[\w.]+\\")
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
VIEW = "application/vnd.jupyter.widget-view+json"
# What only the last run or an editor wrote is no part of the source.
PAIRED = ("tags", "mystnb")


def twin(cell: NotebookNode) -> tuple[Any, ...]:
    """What the two files of a pair must agree on."""
    kept = {k: cell.metadata[k] for k in PAIRED if cell.metadata.get(k)}
    return cell.cell_type, cell.source.strip(), kept


def shorten(content: str) -> str:
    """The start of a text, on one line."""
    line = " ".join(content.split())
    return line if len(line) <= 80 else line[:77] + "..."


def forbidden_calls(source: str) -> list[str]:
    """Calls and imports that need a live kernel to show anything."""
    found = []
    for node in ast.walk(modules.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            found += [name] if name in FORBIDDEN else []
        elif isinstance(node, ast.ImportFrom) and (node.module or "") == "tqdm.notebook":
            found.append("tqdm.notebook")
        elif isinstance(node, (ast.Import, ast.Attribute)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [ast.unparse(node)] if isinstance(node, ast.Attribute) else []
            found += ["tqdm.notebook"] if "tqdm.notebook" in names else []
    return list(dict.fromkeys(found))


def exercises(nb: NotebookNode, pattern: re.Pattern[str]) -> list[tuple[str, bool]]:
    """(heading, whether a folded solution follows before the next heading) of each exercise."""
    found = []
    titles = notebook.headings(nb)
    for n, (start, level, title) in enumerate(titles):
        if level < 3 or not pattern.match(title):
            continue
        # Up to the next heading of this level or above, within the same cell or behind it.
        following = [t for t in titles[n + 1 :] if t[1] <= level]
        stop = following[0][0] if following else len(nb.cells)
        cells = nb.cells[start : max(stop, start + 1)]
        found.append((title, any(_folded(cell, title) for cell in cells)))
    return found


def _folded(cell: NotebookNode, title: str) -> bool:
    if "solution" in notebook.tags(cell):
        return True
    if cell.cell_type == "code":
        return bool({"hide-input", "hide-cell"} & set(notebook.tags(cell)))
    here = cell.source.split(title, 1)[-1]
    here = re.split(r"^#{2,4} ", here, maxsplit=1, flags=re.MULTILINE)[0]
    return bool(FOLDED.search(here))


def count_stacks(nb: NotebookNode) -> int:
    """Displayed widgets that hold a `Stack` somewhere below them."""
    models = notebook.widget_models(nb)
    shown = {
        output.data[VIEW]["model_id"]
        for _, output in notebook.outputs(nb)
        if VIEW in output.get("data", {})
    }
    return sum(
        any(models[id]["model_name"] == "StackModel" for id in _below(models, top)) for top in shown
    )


def _below(models: dict[str, Any], top: str) -> Iterator[str]:
    """`top` and its children, at any depth."""
    queue, seen = [top], set()
    while queue:
        id = queue.pop()
        if id in seen or id not in models:
            continue
        seen.add(id)
        yield id
        children = models[id]["state"].get("children", [])
        queue += [child.removeprefix("IPY_MODEL_") for child in children]


def readable(output: NotebookNode) -> Iterator[str]:
    """The texts of an output (pictures and widget state are none)."""
    yield output.get("text", "")
    yield "\n".join(output.get("traceback", []))
    for mime, content in output.get("data", {}).items():
        if isinstance(content, str) and (mime.startswith("text/") or mime == "image/svg+xml"):
            yield content
        elif mime.endswith("+json") and mime != VIEW:
            yield from _strings(content)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def absolute_path(content: str, root: Path) -> str | None:
    """The first path of this machine in a text."""
    if str(root) in content:
        return str(root)
    found = PATH.search(content)
    return found.group() if found else None


def toc_documents(root: Path) -> set[str]:
    """All documents that the table of contents names, without suffix."""
    import yaml

    path = root / "_toc.yml"
    toc = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {re.sub(r"\.(ipynb|md)$", "", name) for name in _files(toc)}


def _files(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("file", "root") and isinstance(value, str):
                yield value
            else:
                yield from _files(value)
    elif isinstance(node, list):
        for value in node:
            yield from _files(value)


def bibliography(root: Path) -> set[str]:
    """The keys of book/references.bib."""
    path = root / "book" / "references.bib"
    content = path.read_text(encoding="utf-8") if path.is_file() else ""
    return set(re.findall(r"^\s*@\w+\s*\{\s*([^,\s]+)", content, re.MULTILINE))


def cited(source: str) -> list[str]:
    """The keys in `{cite:p}` and its relatives."""
    return [key.strip() for found in CITATION.findall(source) for key in found.split(",")]
