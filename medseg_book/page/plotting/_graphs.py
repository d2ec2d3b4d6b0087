"""Curves with bands over seeds, training histories and histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg_book.page.plotting._arrays import as_array
from medseg_book.page.plotting._axes import empty_figure
from medseg_book.page.plotting._look import CYCLE, WIDTH
from medseg_core import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def curves(
    data: Any,
    *,
    band: str | None = "range",
    xlabel: str = "updates",
    ylabel: str = "loss",
    log: bool = False,
) -> Figure:
    """Training histories, or any curves.

    Parameters
    ----------
    data : a training history or {name: history}: losses on the left (faint: each update; strong:
        their running mean), validation on the right (ring: the kept one). Or {name: y}, {name:
        (x, y)} with y (T,), or (S, T) for S seeds, drawn as mean and band.
    band : ``"range"`` (lowest to highest seed), ``"sd"`` (mean ± standard deviation) or None.
    log : logarithmic ordinate (of the losses).
    """
    checks.choice(band, "band", ("range", "sd", None))
    data = {"": data} if hasattr(data, "losses") else dict(data)
    if not data:
        raise ValueError("data must hold at least one curve, got none")
    histories = {name: h for name, h in data.items() if hasattr(h, "losses")}
    validated = any(h.validation for h in histories.values())
    fig, axes = empty_figure(1, 1 + validated, (WIDTH if validated else 4.6, 2.7))
    for i, (name, item) in enumerate(data.items()):
        colour, text = CYCLE[i % len(CYCLE)], name or None
        if name in histories:
            _history(axes, item, colour, text)
            continue
        x, y = item if isinstance(item, tuple) else (None, item)
        y = np.atleast_2d(as_array(y).astype(float))  # (S, T)
        x = np.arange(1, y.shape[1] + 1) if x is None else as_array(x)
        if y.ndim != 2 or x.shape != (y.shape[1],):
            raise ValueError(f"data[{name!r}]: x {x.shape} does not fit y {y.shape}")
        mean = y.mean(0)
        axes[0].plot(x, mean, color=colour, label=text)
        if band and len(y) > 1:
            sd = y.std(0, ddof=1)
            low, high = (y.min(0), y.max(0)) if band == "range" else (mean - sd, mean + sd)
            axes[0].fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes[0].set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
    if validated:
        axes[1].set(xlabel=xlabel, ylabel="validation score")
    if any(data):
        axes[-1].legend()
    return fig


def histograms(
    data: Mapping[str, Any],
    *,
    bins: int | Sequence[float] = 40,
    xlabel: str = "",
    ylabel: str = "density",
) -> Figure:
    """Histograms of {name: values} over the same bins, each of area one; NaN are left out."""
    if not data:
        raise ValueError("data must hold at least one set of values, got none")
    values = {name: as_array(v).astype(float).ravel() for name, v in data.items()}
    values = {name: v[np.isfinite(v)] for name, v in values.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins)
    fig, (ax,) = empty_figure(1, 1, (4.6, 2.7))
    for (name, v), colour in zip(values.items(), CYCLE * len(values), strict=False):
        # A filled and an outlined layer: overlapping sets stay legible.
        ax.hist(v, edges, density=True, histtype="stepfilled", color=colour, alpha=0.2)
        ax.hist(v, edges, density=True, histtype="step", color=colour, linewidth=1.4, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return fig


def _history(axes: Sequence[Axes], history: Any, colour: str, name: str | None) -> None:
    losses = np.asarray(history.losses, dtype=float)
    updates = np.arange(1, len(losses) + 1)
    width = max(1, len(losses) // 40)
    axes[0].plot(updates, losses, color=colour, alpha=0.25, linewidth=0.7)
    if len(losses) >= width:
        mean = np.convolve(losses, np.full(width, 1 / width), "valid")
        axes[0].plot(updates[width - 1 :], mean, color=colour, label=name)
    if history.validation:
        x, y = zip(*history.validation, strict=True)
        axes[1].plot(x, y, color=colour, label=name, marker=".", markersize=4)
        if history.best is not None:
            axes[1].plot(*history.best, "o", color=colour, markerfacecolor="none", markersize=9)
