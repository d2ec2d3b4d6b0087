"""What is drawn over an image, and the legend that names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg_book.page.plotting._arrays import as_array
from medseg_book.page.plotting._look import ON_IMAGE
from medseg_core import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def tint(
    ax: Axes, region: np.ndarray, colour: str, *, alpha: float = 0.3, outline: bool = False
) -> None:
    from matplotlib.colors import to_rgba

    if not region.any():
        return
    rgba = np.zeros((*region.shape, 4))
    rgba[region] = to_rgba(colour, alpha)
    ax.imshow(rgba)
    if outline:
        # Padded, so that a region at the image's border is outlined there too.
        rows, columns = (np.arange(-1, n + 1) for n in region.shape)
        ax.contour(columns, rows, np.pad(region, 1), [0.5], colors=[colour], linewidths=1.3)
        ax.set(xlim=(-0.5, region.shape[1] - 0.5), ylim=(region.shape[0] - 0.5, -0.5))


def draw_contours(ax: Axes, contours: Any) -> dict[str, Any]:
    if contours is None:
        return {}
    named = isinstance(contours, Mapping)
    if not named and np.ndim(as_array(contours[0])) == 1:  # the points of a single contour
        contours = [contours]
    handles = {}
    for i, item in enumerate(contours.items() if named else enumerate(contours)):
        points = as_array(item[1])
        checks.shape(points, "contours", "P 2")
        closed = np.concatenate([points, points[:1]])
        (line,) = ax.plot(closed[:, 1], closed[:, 0], color=ON_IMAGE[i % len(ON_IMAGE)])
        if named:
            handles[str(item[0])] = line
    return handles


def patch(colour: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, alpha=0.8, linewidth=0)


def add_legend(fig: Figure, handles: Mapping[str, Any], ax: Axes | None) -> None:
    """Below the grid; nothing where the caller owns the axes (its figure has room for one only)."""
    if not handles or ax is not None:
        return
    fits = max(1, int(fig.get_figwidth() / (0.45 + 0.075 * max(map(len, handles)))))
    columns = min(len(handles), fits)
    rows = -(-len(handles) // columns)
    fig.set_figheight(fig.get_figheight() + 0.2 * rows + 0.05)
    fig.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=columns,
        handlelength=1.2,
        columnspacing=1.2,
    )
