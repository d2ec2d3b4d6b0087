"""A progress bar by cells: chapter, elapsed time, the heading that is running."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nbformat import NotebookNode

from .notebook import heading_above

Report = Callable[[int], None]


@contextmanager
def reporter(
    progress: bool | Callable[[int, int, str], None], slug: str, nb: NotebookNode
) -> Iterator[Report]:
    """A function to call with the index of each cell that starts."""
    total = len(nb.cells)
    if callable(progress):
        yield lambda index: progress(index, total, heading_above(nb, index))
    elif not progress:
        yield lambda index: None
    elif sys.stderr.isatty():
        with _bar(slug, nb) as report:
            yield report
    else:
        yield _lines(slug, nb)


@contextmanager
def _bar(slug: str, nb: NotebookNode) -> Iterator[Report]:
    from tqdm import tqdm

    layout = slug + " {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} cells [{elapsed}] {desc}"
    finished = threading.Event()
    with tqdm(total=len(nb.cells), bar_format=layout, leave=True) as bar:

        def tick() -> None:  # the clock goes on while one cell trains for minutes
            while not finished.wait(1):
                bar.refresh()

        def report(index: int) -> None:
            bar.set_description_str(heading_above(nb, index)[:40], refresh=False)
            bar.n = index
            bar.refresh()

        ticker = threading.Thread(target=tick, daemon=True)
        ticker.start()
        try:
            yield report
            bar.n = len(nb.cells)
        finally:
            finished.set()
            ticker.join()
            bar.refresh()


def _lines(slug: str, nb: NotebookNode) -> Report:
    """For a log file: one line per heading."""
    start, last = time.monotonic(), ""

    def report(index: int) -> None:
        nonlocal last
        heading = heading_above(nb, index)
        if heading != last:
            seconds = time.monotonic() - start
            line = f"{slug}: cell {index + 1}/{len(nb.cells)}, {seconds:.0f} s: {heading}"
            print(line, file=sys.stderr, flush=True)
            last = heading

    return report
