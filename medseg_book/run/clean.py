"""A run's notebook made fit to be stored: the source's twin, plus outputs that say something."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from nbformat import NotebookNode

from . import notebook


def clean(executed: NotebookNode, source: NotebookNode, root: Path) -> NotebookNode:
    """The cells of `source` with the outputs of `executed`; widget state is kept.

    papermill's marks and timings and this machine's paths go.
    """
    ran = [cell for cell in executed.cells if notebook.INJECTED not in notebook.tags(cell)]
    nb = notebook.copy(source)
    count = 0
    for cell, done in zip(nb.cells, ran, strict=True):
        if cell.cell_type == "code":
            cell.outputs = deepcopy(done.outputs)
            if done.execution_count is not None:
                count += 1  # papermill's injected cell took a number of its own
                _renumber(cell, count)
    _strip_paths(nb, root)
    if "widgets" in executed.metadata:
        nb.metadata["widgets"] = executed.metadata["widgets"]
    nb.metadata["language_info"] = {"name": "python"}
    return nb


def _renumber(cell: NotebookNode, count: int) -> None:
    cell.execution_count = count
    for output in cell.outputs:
        if output.output_type == "execute_result":
            output["execution_count"] = count


def _strip_paths(nb: NotebookNode, root: Path) -> None:
    """Paths below the book's root become relative, the home folder becomes ~."""

    def strip(text: str) -> str:
        return text.replace(f"{root}/", "").replace(f"{Path.home()}/", "~/")

    for _, output in notebook.outputs(nb):
        if "text" in output:
            output.text = strip(output.text)
        for mime, content in output.get("data", {}).items():
            if mime.startswith("text/") and isinstance(content, str):
                output.data[mime] = strip(content)
