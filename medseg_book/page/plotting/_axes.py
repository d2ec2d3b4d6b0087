"""Empty figures: axes of the book's style, in grids as wide as the page allows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medseg_book.page.plotting._look import PANEL, WIDTH, style
from medseg_core import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def empty_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    import matplotlib.pyplot as plt

    style()
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    plt.close(fig)  # else the notebook shows it a second time, and keeps it in memory
    return fig, list(axes.ravel())


def grid(
    pictures: Sequence[np.ndarray], titles: Sequence[str] | None, columns: int
) -> tuple[Figure, list[Axes]]:
    """Axes for pictures of about one shape, as wide as the page allows; titles are wrapped."""
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"titles must hold {len(pictures)} entries, got {len(titles)}")
    columns = min(int(checks.between(columns, "columns", 1, None)), len(pictures))
    rows = -(-len(pictures) // columns)
    width = min(PANEL, WIDTH / columns)
    aspect = max(p.shape[0] / p.shape[1] for p in pictures)
    heading = _wrap(titles, width)
    lines = max((t.count("\n") + 1 for t in heading), default=0)
    height = rows * (width * aspect + 0.17 * lines + 0.08)
    fig, axes = empty_figure(rows, columns, (width * columns, height))
    for ax in axes[len(pictures) :]:
        ax.remove()
    axes = axes[: len(pictures)]
    for i, ax in enumerate(axes):
        _bare(ax)
        if heading:
            ax.set_title(heading[i])
    return fig, axes


def given_axes(
    ax: Axes, pictures: Sequence[np.ndarray], titles: Sequence[str] | None
) -> tuple[Figure, list[Axes]]:
    if len(pictures) != 1:
        raise ValueError(f"ax takes one image, got {len(pictures)}")
    _bare(ax)
    if titles:
        ax.set_title(titles[0])
    return ax.figure, [ax]


def _bare(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _wrap(titles: Sequence[str] | None, width: float) -> list[str]:
    characters = max(8, int(width * 72 / 4.8))  # a character of 9 pt is about 4.8 pt wide
    return ["\n".join(textwrap.wrap(str(t), characters)) for t in titles or ()]
