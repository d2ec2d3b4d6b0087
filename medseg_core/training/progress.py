"""Progress bars that never end up in a stored notebook.

A terminal gets plain tqdm on stderr, removed at the end. A notebook that a person works in gets ONE
text display per cell, rewritten in place and emptied at the end, however many bars the cell has.
Everything else (papermill, pipes, worker processes) gets nothing.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from tqdm.std import tqdm

_quiet = False


def bar(total: int, desc: str = "", *, show: bool = True) -> tqdm:
    """A tqdm bar of ``total`` updates, for use as a context manager; silent where none belongs."""
    if show and not _quiet:
        if sys.stderr is not None and sys.stderr.isatty():
            return tqdm(total=total, desc=desc, leave=False, dynamic_ncols=True)
        if (shell := _attended_shell()) is not None:
            return _CellBar(total=total, desc=desc, shell=shell)
    return tqdm(total=total, disable=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence every bar made inside (worker processes)."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before


def _attended_shell() -> Any:
    """IPython's shell when a person's front-end sent the cell, else None.

    JupyterLab and VS Code allow input from the keyboard with every cell they send; papermill and
    nbclient do not. That is the only difference a kernel can see.
    """
    if "IPython" not in sys.modules:
        return None
    shell = sys.modules["IPython"].get_ipython()
    attended = getattr(getattr(shell, "kernel", None), "_allow_stdin", False)
    return shell if attended else None


class _CellBar(tqdm):
    """tqdm that writes into the one display of its cell instead of a stream."""

    _cell: int | None = None
    _display: Any = None

    def __init__(self, *, shell: Any, **options: Any) -> None:
        if _CellBar._cell != shell.execution_count or _CellBar._display is None:
            from IPython.display import DisplayHandle

            _CellBar._cell, _CellBar._display = shell.execution_count, DisplayHandle()
            _CellBar._display.display({"text/plain": ""}, raw=True)
        _CellBar._open: list[_CellBar] = getattr(_CellBar, "_open", [])
        _CellBar._open.append(self)
        super().__init__(ncols=88, leave=False, gui=False, file=sys.stderr, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        lines = [tqdm.format_meter(**b.format_dict) for b in _CellBar._open if hasattr(b, "n")]
        _CellBar._display.update({"text/plain": "\n".join(lines)}, raw=True)

    def close(self) -> None:
        if self in _CellBar._open:
            _CellBar._open.remove(self)
            self.display()
        self.disable = True  # nothing left for tqdm's own closing to print
        with contextlib.suppress(KeyError):
            self._decr_instances(self)
