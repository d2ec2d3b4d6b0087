"""Surfaces that cross every column once, drawn over the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg_book.page.plotting._arrays import as_array, as_pictures, is_list
from medseg_book.page.plotting._axes import given_axes, grid
from medseg_book.page.plotting._look import ON_IMAGE
from medseg_book.page.plotting._marks import add_legend
from medseg_core import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def surfaces(
    image: Any,
    curves: Any,
    *,
    names: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 3,
    linewidth: float = 1.0,
    ax: Axes | None = None,
) -> Figure:
    """Surfaces (N, W), in rows, over one image or a list of images; NaN leaves a gap.

    Args:
        curves: (N, W), each surface in a colour of its own (they repeat after six), or
            {name: (N, W)}, all surfaces of one name in one colour. For a list of images, a list of
            these.
        names: of the surfaces, from top to bottom, for the legend.
        ax: axes to draw one image in.
    """
    pictures = as_pictures(image, "image")
    single = len(pictures) == 1 and not is_list(image)
    sets = [curves] if single else list(curves)
    if len(sets) != len(pictures):
        raise ValueError(f"curves must hold {len(pictures)} entries, got {len(sets)}")
    fig, axes = grid(pictures, titles, columns) if ax is None else given_axes(ax, pictures, titles)
    handles: dict[str, Any] = {}
    for a, picture, lines in zip(axes, pictures, sets, strict=True):
        height, width = picture.shape[:2]
        a.imshow(picture, aspect="equal")
        for label, rows, colour in _coloured(lines, names):
            if rows.shape[-1] != width:
                raise ValueError(f"curves must have {width} columns, got shape {rows.shape}")
            (line,) = a.plot(np.arange(width), rows, color=colour, linewidth=linewidth)
            if label is not None:
                handles.setdefault(label, line)
        a.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    add_legend(fig, handles, ax)
    return fig


def _coloured(lines: Any, names: Sequence[str] | None) -> list[tuple[str | None, Any, str]]:
    """(name or None, rows (W,), colour) of every line."""
    if isinstance(lines, Mapping):
        out = []
        for i, (name, rows) in enumerate(lines.items()):
            rows = as_array(rows)
            checks.shape(rows, f"curves[{name!r}]", "N W")
            out += [(str(name), row, ON_IMAGE[i % len(ON_IMAGE)]) for row in rows]
        return out
    rows = as_array(lines)
    checks.shape(rows, "curves", "N W")
    if names is not None and len(names) != len(rows):
        raise ValueError(f"names must hold {len(rows)} entries, got {len(names)}")
    labels = names or [None] * len(rows)
    colours = [ON_IMAGE[i % len(ON_IMAGE)] for i in range(len(rows))]
    return list(zip(labels, rows, colours, strict=True))
