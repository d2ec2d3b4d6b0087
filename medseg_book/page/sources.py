"""The package's own code on a chapter's page: what is shown is what runs."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable

from medseg_book.page import display


def show(*objects: Callable | type) -> None:
    """Show the source of functions, methods or classes, each under its full name.

    A chapter shows the real solver behind its from-scratch version this way; the cell is tagged
    ``hide-output``, so that a click opens it.

    Raises:
        TypeError: an object without Python source (a builtin, a compiled function).

    Taught in: all chapters.
    """
    if not objects:
        raise TypeError("show needs at least one function, method or class, got none")
    for thing in objects:
        code = textwrap.dedent(inspect.getsource(thing)).rstrip()
        title = f"{thing.__module__}.{thing.__qualname__}"
        display.show(
            {
                "text/plain": f"# {title}\n{code}",
                # Four back-quotes: a docstring may hold three.
                "text/markdown": f"`{title}`\n\n````python\n{code}\n````",
            }
        )
