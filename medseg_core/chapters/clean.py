"""A run's notebook made fit to be stored: the source's twin, plus outputs that say something."""

from __future__ import annotations

import re
from pathlib import Path

from nbformat import NotebookNode

from . import notebook

# What a terminal bar leaves behind: "fit:  40%|####      | 4/10 [00:01<00:02, 3.1it/s]"
BAR = re.compile(r"^.*(\d+%\|.*\|.*\[.*\]|\d+(it|\w+) \[\d\d:\d\d, .*\]).*$")


def clean(executed: NotebookNode, source: NotebookNode, root: Path) -> NotebookNode:
    """The cells of `source` with the outputs of `executed`; widget state is kept.

    papermill's marks, timings, progress bars and this machine's paths go.
    """
    ran = [cell for cell in executed.cells if notebook.INJECTED not in notebook.tags(cell)]
    nb = notebook.copy(source)
    for cell, done in zip(nb.cells, ran, strict=True):
        if cell.cell_type == "code":
            cell.outputs = [o for o in map(_clean_output, done.outputs) if o is not None]
            _renumber(cell, None)
    count = 0
    for cell, done in zip(nb.cells, ran, strict=True):
        if cell.cell_type == "code" and done.execution_count is not None:
            count += 1  # papermill's injected cell took a number of its own
            _renumber(cell, count)
    _strip_paths(nb, root)
    if "widgets" in executed.metadata:
        nb.metadata["widgets"] = executed.metadata["widgets"]
    nb.metadata["language_info"] = {"name": "python"}
    return nb


def _clean_output(output: NotebookNode) -> NotebookNode | None:
    output = NotebookNode(output)
    if output.output_type == "stream":
        # A carriage return overwrites the line: only what a terminal would still show is kept.
        lines = [line.rstrip("\r").split("\r")[-1] for line in output.text.split("\n")]
        barless = [line for line in lines if not BAR.match(line)]
        output.text = "\n".join(barless).replace("\x1b[A", "")
        if not output.text.strip():
            return None
    return output


def _renumber(cell: NotebookNode, count: int | None) -> None:
    cell.execution_count = count
    for output in cell.outputs:
        if output.output_type == "execute_result":
            output["execution_count"] = count


def _strip_paths(nb: NotebookNode, root: Path) -> None:
    """Paths below the book's root become relative, the home folder becomes ~."""

    def strip(text: str) -> str:
        return text.replace(f"{root}/", "").replace(str(root), ".").replace(str(Path.home()), "~")

    for _, output in notebook.outputs(nb):
        if "text" in output:
            output.text = strip(output.text)
        for mime, content in output.get("data", {}).items():
            if mime.startswith("text/") and isinstance(content, str):
                output.data[mime] = strip(content)
