"""Progress bars that never end up in a stored notebook.

A terminal gets plain tqdm on stderr, removed at the end. A notebook that a person works in gets ONE
text display per cell, rewritten in place and emptied at the end, however many bars the cell has.
Everything else (papermill, pipes, worker processes) gets nothing.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

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

    monitor_interval = 0  # no refreshing from a second thread
    open_bars: ClassVar[list[_CellBar]] = []
    cell: ClassVar[int | None] = None
    screen: ClassVar[Any] = None

    def __init__(self, *, shell: Any, **options: Any) -> None:
        if _CellBar.cell != shell.execution_count:
            from IPython.display import DisplayHandle

            _CellBar.cell, _CellBar.screen = shell.execution_count, DisplayHandle()
            _CellBar.screen.display({"text/plain": ""}, raw=True)
            _CellBar.open_bars.clear()
        super().__init__(ncols=88, file=io.StringIO(), **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self not in _CellBar.open_bars:
            _CellBar.open_bars.append(self)
        _show(_CellBar.open_bars)

    def close(self) -> None:
        super().close()
        if self in _CellBar.open_bars:
            _CellBar.open_bars.remove(self)
            _show(_CellBar.open_bars)


def _show(bars: list[_CellBar]) -> None:
    text = "\n".join(str(bar) for bar in bars)
    _CellBar.screen.update({"text/plain": text}, raw=True)
