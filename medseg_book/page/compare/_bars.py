"""Progress bars that never end up in a stored notebook.

A terminal gets plain tqdm on stderr, removed at the end. A notebook that a person works in gets ONE
text display per cell, rewritten in place and emptied at the end, however many bars the cell has.
Everything else (papermill, pipes, worker processes) gets nothing.
"""

from __future__ import annotations

import io
import sys
from typing import Any, ClassVar

from tqdm.std import tqdm

from medseg_book.page import display


def bar(total: int, desc: str = "") -> tqdm:
    """A tqdm bar of ``total`` updates, for use as a context manager; silent where none belongs."""
    if sys.stderr is not None and sys.stderr.isatty():
        return tqdm(total=total, desc=desc, leave=False, dynamic_ncols=True)
    if (shell := display.attended_shell()) is not None:
        return _CellBar(total=total, desc=desc, shell=shell)
    return tqdm(total=total, disable=True)


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
