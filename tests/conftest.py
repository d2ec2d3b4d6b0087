"""How the tests are shared out when several workers run them (`make test`)."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
# First what takes longest: the build of the site, and the chapters, which another worker runs
# meanwhile. Last the pages: they need the site, and a browser's event loop must not outlive them,
# since kernels that run in the same process need one of their own.
FIRST = ("book/test_built.py", "chapters", "medseg_book/run")
LAST = ("book/test_pages.py", "book/test_pages_frame.py")


def pytest_collection_modifyitems(items):
    """Keep a module's tests together, as its fixtures ask for, unless they name another group."""
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(_place(item)))
    items.sort(key=_turn)  # stable: within a module nothing changes


def _place(item):
    return item.path.relative_to(HERE).as_posix()


def _turn(item):
    for turn, start in enumerate((*FIRST, *LAST)):
        if _place(item).startswith(start):
            return turn if start in FIRST else turn + 1
    return len(FIRST)
