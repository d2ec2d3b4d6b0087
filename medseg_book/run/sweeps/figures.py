"""The figures of a sweep's summary: metrics and claims against what was swept."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg_book.page.plotting import CYCLE, WIDTH, style

from .summary import claims as claim_ids
from .summary import done, label, swept, text, values
from .summary import metrics as metric_names

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 12
DECADES = 1.5  # values that span more are drawn on a logarithmic axis
MARKERS = "os^DvP"  # one per colour, so that neither has to be told by colour alone
ARM, QUANTITY = "", "quantity."  # columns of a table by arm; what is an arm needs no name
Panel = tuple[str, "pd.DataFrame", str]  # title, runs, column
Draw = Callable[["Axes", "pd.DataFrame", str, "_Abscissa", int], None]


def metrics(sweep: pd.DataFrame, x: str | None) -> Iterator[Figure]:
    """Each metric against the swept parameter `x`: every run, mean and standard deviation.

    Metrics such as "Dice, U-Net" and "Dice, EDPCNN" share a panel, with a colour per arm. A second
    swept parameter takes the colour instead; one with more values than there are colours gets a
    figure per metric, with a panel per value. Over further ones the mean is taken. Without `x`
    (only seeds, or one point) a strip per metric.
    """
    names, runs, other = metric_names(sweep), done(sweep), _other(sweep, x)
    if not names:
        return
    if other is None and (arms := _by_arm(runs, names)) is not None:
        panels = [(name.removeprefix(QUANTITY), arms, name) for name in _quantities(arms)]
        yield _figure(panels, arms, x or ARM, ARM if x else None, _spread)
        return
    if other is None or len(values(runs[other])) <= len(CYCLE):
        panels = [(label(name), runs, name) for name in names]
        yield _figure(panels, runs, x, other, _spread)
        return
    for name in names[:MOST_PANELS]:
        panels = [
            (f"{label(other)} = {text(value)}", runs[runs[other] == value], name)
            for value in values(runs[other])
        ]
        yield _figure(panels, runs, x, None, _spread, ylabel=label(name))


def claims(sweep: pd.DataFrame, x: str | None) -> Iterator[Figure]:
    """Each claim's figure with its interval, one per run, side by side at each value of `x`."""
    runs, other = done(sweep), _other(sweep, x)
    ids = [id for id in claim_ids(sweep) if np.isfinite(runs[f"claims.{id}.mean"]).any()]
    if other is not None and len(values(runs[other])) > len(CYCLE):
        other = None
    if ids:
        yield _figure([(id, runs, f"claims.{id}") for id in ids], runs, x, other, _intervals)


def left_out(sweep: pd.DataFrame, x: str | None) -> str:
    """What the figures against `x` do not show, in a sentence; empty where they show all."""
    runs = done(sweep)
    further = [label(name) for name in swept(runs) if name != x][1:]
    said = [f"The mean also goes over {', '.join(further)}."] if further else []
    drawn = metric_names(sweep)
    if _other(sweep, x) is None and (arms := _by_arm(runs, drawn)) is not None:
        drawn = _quantities(arms)
    for what, n in (("metrics", len(drawn)), ("claims", len(claim_ids(sweep)))):
        if n > MOST_PANELS:
            said.append(f"The first {MOST_PANELS} of {n} {what} are drawn.")
    return " ".join(said)


def _other(sweep: pd.DataFrame, x: str | None) -> str | None:
    """The second swept parameter."""
    return next((name for name in swept(done(sweep)) if name != x), None) if x else None


def _by_arm(runs: pd.DataFrame, names: list[str]) -> pd.DataFrame | None:
    """The runs once per arm, a column per quantity; None where the metrics' names have no arms."""
    import pandas as pd

    split = {name: label(name).split(", ", 1) for name in names}
    arms = dict.fromkeys(parts[-1] for parts in split.values())
    if any(len(parts) < 2 for parts in split.values()) or not 2 <= len(arms) <= len(CYCLE):
        return None
    kept = [name for name in runs if name.startswith("param.") or name == "seed"]
    tables = []
    for arm in arms:
        own = {QUANTITY + q: runs[name] for name, (q, of) in split.items() if of == arm}
        tables.append(runs[kept].assign(**own, **{ARM: arm}))
    return pd.concat(tables, ignore_index=True)


def _quantities(arms: pd.DataFrame) -> list[str]:
    return [name for name in arms if name.startswith(QUANTITY)]


class _Abscissa:
    """Where runs stand: on a numeric axis, or side by side in categories."""

    def __init__(self, runs: pd.DataFrame, x: str | None, n_series: int, *, grouped: bool) -> None:
        self.x, self.n_series = x, n_series
        self.values = values(runs[x]) if x is not None else [""]
        self.numeric = x is not None and runs[x].dtype != object and not grouped
        low, high = (self.values[0], self.values[-1]) if self.numeric else (0, 0)
        self.log = low > 0 and np.log10(high / low) > DECADES

    def groups(self, runs: pd.DataFrame, series: int) -> Iterator[tuple[np.ndarray, Any]]:
        """The runs at each value, by seed, and where each of them is drawn."""
        width = 0.7 / self.n_series  # of one series within its category
        for i, value in enumerate(self.values):
            group = runs if self.x is None else runs[runs[self.x] == value]
            if group.empty:
                continue
            group = group.sort_values("seed")
            if self.numeric:
                yield np.full(len(group), value), group
            else:
                centre = i + width * (series - (self.n_series - 1) / 2)
                apart = np.arange(len(group)) - (len(group) - 1) / 2
                yield centre + apart * min(0.12, 0.8 * width / len(group)), group

    def dress(self, ax: Axes) -> None:
        """Scale, ticks and label."""
        ax.set_xlabel("runs, by seed" if self.x is None else label(self.x))
        if self.x is None:
            ax.set_xticks([])
        if self.log:
            ax.set_xscale("log")
            ax.minorticks_off()
        if self.numeric:
            if len(self.values) <= 8:
                ax.set_xticks(self.values, self._apart())
            return
        names = [text(value) for value in self.values]
        names = [name if len(name) <= 16 else name[:15] + "…" for name in names]
        crowded = sum(map(len, names)) > 20
        turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        if self.x is not None:
            ax.set_xticks(range(len(names)), names, **turned)
        ax.set_xlim(-0.6, len(names) - 0.4)
        ax.grid(False, axis="x")

    def _apart(self) -> list[str]:
        """The values as labels, without those that would touch the one before."""
        places = np.log(self.values) if self.log else np.array(self.values)
        share = (places - places[0]) / max(places[-1] - places[0], 1e-300)
        names, free = [], -1.0
        for place, value in zip(share, self.values, strict=True):
            name = text(value)
            names.append(name if place >= free else "")
            if names[-1]:
                free = place + 0.03 + 0.03 * len(name)  # of a panel's width
        return names


def _spread(ax: Axes, runs: pd.DataFrame, column: str, at: _Abscissa, series: int) -> None:
    """Every run as a dot; mean and standard deviation as a line with a band, or as bars."""
    look = {"color": CYCLE[series], "marker": MARKERS[series]}
    middles = []
    for places, group in at.groups(runs[np.isfinite(runs[column])], series):
        y = group[column]
        ax.plot(places, y, linestyle="", markersize=3, alpha=0.5, markeredgewidth=0, **look)
        middles.append((places.mean(), y.mean(), y.std()))  # NaN for a single run
    if not middles:
        return
    x, mean, sd = np.array(middles).T
    if at.numeric and len(x) > 1:
        ax.plot(x, mean, markersize=4.5, **look)
        ax.fill_between(x, mean - sd, mean + sd, color=CYCLE[series], alpha=0.2, linewidth=0)
    else:
        ax.errorbar(
            x,
            mean,
            np.nan_to_num(sd),
            linestyle="",
            markersize=5,
            capsize=3,
            elinewidth=1.2,
            **look,
        )


def _intervals(ax: Axes, runs: pd.DataFrame, column: str, at: _Abscissa, series: int) -> None:
    """A claim's mean with its interval (where it has one), run by run."""
    mean, low, high = (f"{column}.{key}" for key in ("mean", "low", "high"))
    for places, group in at.groups(runs[np.isfinite(runs[mean])], series):
        reach = np.abs([group[mean] - group[low], group[high] - group[mean]])
        ax.errorbar(
            places,
            group[mean],
            np.nan_to_num(reach),
            color=CYCLE[series],
            marker=MARKERS[series],
            linestyle="",
            markersize=4,
            elinewidth=1.2,
        )
    bottom, top = ax.get_ylim()
    if bottom < 0 < top:  # mostly: no effect
        ax.axhline(0, color="black", linewidth=0.8)


def _figure(
    panels: list[Panel],
    runs: pd.DataFrame,
    x: str | None,
    colour: str | None,
    draw: Draw,
    *,
    ylabel: str = "",
) -> Figure:
    """At most twelve panels in rows of three, with one legend for the colours."""
    import matplotlib.pyplot as plt

    style()
    panels = panels[:MOST_PANELS]
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    size = (max(4.0, WIDTH * columns / 3), 2.2 * rows + 0.3)
    # Panels of one metric share its scale; several metrics have nothing to share.
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=bool(ylabel))
    plt.close(fig)
    groups = [None] if colour is None else values(runs[colour])
    abscissa = _Abscissa(runs, x, len(groups), grouped=draw is _intervals)
    for ax, (title, subset, column) in zip(axes.flat, panels, strict=False):
        for i, value in enumerate(groups):
            own = subset if colour is None else subset[subset[colour] == value]
            draw(ax, own, column, abscissa, i)
        if not ax.has_data():
            ax.text(0.5, 0.5, "no values", transform=ax.transAxes, ha="center", va="center")
        ax.set_title(textwrap.fill(title, 36))
        abscissa.dress(ax)
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    if colour is not None:
        _legend(fig, label(colour), [text(value) for value in groups])
    return fig


def _legend(fig: Figure, title: str, names: list[str]) -> None:
    """Below the panels, in a strip of its own."""
    from matplotlib.lines import Line2D

    looks = zip(CYCLE, MARKERS, names, strict=False)
    handles = [Line2D([], [], color=c, marker=m, markersize=4.5, label=n) for c, m, n in looks]
    fits = max(1, int(fig.get_figwidth() / (0.6 + 0.075 * max(map(len, names)))))
    ncols = min(len(names), fits)
    fig.set_figheight(fig.get_figheight() + 0.2 * -(-len(names) // ncols) + 0.25)
    fig.legend(handles=handles, title=title or None, loc="outside lower center", ncols=ncols)
