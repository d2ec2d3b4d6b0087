"""Output that a notebook shows and stores, and that a plain Python session prints."""

from __future__ import annotations

import html as _html
import re
import sys
from typing import Any


def in_notebook() -> bool:
    """Whether a Jupyter kernel or IPython runs this code."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def show(bundle: dict[str, Any]) -> None:
    """Display a bundle {MIME type: content}; outside of a notebook print its `text/plain`."""
    if in_notebook():
        from IPython.display import display

        display(bundle, raw=True)
    else:
        print(bundle["text/plain"])


def variables() -> dict[str, Any]:
    """The variables of the notebook that runs, by name; none outside of one."""
    return sys.modules["IPython"].get_ipython().user_ns if in_notebook() else {}


def html(text: str) -> str:
    """A line of prose as HTML: `code` between back-quotes; formulas ($...$) are left to MathJax."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _html.escape(" ".join(text.split()), False))


def caption(text: str) -> str:
    """What stands under a picture, as HTML that the page and JupyterLab typeset alike."""
    return f'<p class="medseg-caption mathjax_process">{html(text)}</p>'


def attended_shell() -> Any:
    """IPython's shell when a reader's front end sent the running cell, else None.

    JupyterLab, Notebook, VS Code and Colab allow the kernel to ask for input with every cell they
    send; papermill, nbclient and other batch runs do not. That is the only difference that a kernel
    can see.
    """
    if not in_notebook():
        return None
    shell = sys.modules["IPython"].get_ipython()
    kernel = getattr(shell, "kernel", None)
    request = kernel.get_parent() if kernel is not None else {}
    return shell if (request.get("content") or {}).get("allow_stdin") else None


def cell() -> tuple[int, Any] | None:
    """The notebook cell that runs now: (execution count, its identity); None elsewhere.

    The identity is the front end's cell id where it sends one, else the cell's source.
    """
    if not in_notebook():
        return None
    shell = sys.modules["IPython"].get_ipython()
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    identity = (parent.get("metadata") or {}).get("cellId")
    return shell.execution_count, identity or (shell.user_ns.get("In") or [""])[-1]
