"""Figures of the book: one palette, one style, images without ticks, maps with a labelled scale.

Every function returns a figure and does not show it: hand it to `show`, or make the call a cell's
last line. Those with `ax=` draw there instead. Images may be tensors or arrays of any shape that
holds one: (H, W), (1, H, W), (1, 1, H, W), or with three channels (3, H, W), (H, W, 3).
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg_core import _display, checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every common form of colour blindness.
PALETTE = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "black": "#000000",
}
CYCLE = tuple(PALETTE[c] for c in ("blue", "orange", "green", "vermilion", "purple", "sky"))
# Over grey images, where dark blue and black would drown.
ON_IMAGE = tuple(PALETTE[c] for c in ("orange", "sky", "green", "yellow", "purple", "vermilion"))
ERRORS = {
    "true positive": PALETTE["green"],
    "false positive": PALETTE["vermilion"],
    "false negative": PALETTE["sky"],
    "wrong class": PALETTE["yellow"],
}
WIDTH = 7.0  # inches: 700 px of a page
PANEL = 2.4  # inches: the widest single image


def style() -> None:
    """Set the book's matplotlib style; every function here does so, call it before own figures."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "figure.dpi": 120,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.labelsize": 9,
            "legend.fontsize": 8.5,
            "legend.frameon": False,
            "axes.prop_cycle": cycler(color=CYCLE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.3,
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.6,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
        }
    )


def show(fig: Figure, *, dpi: int = 130, colours: int = 128) -> None:
    """Show a figure as a compact PNG, and close it.

    Noisy images make heavy PNG files, and a chapter's outputs have one megabyte in all: the picture
    is reduced to `colours` colours of its own choice, a third of the size that no eye tells apart.
    """
    import matplotlib.pyplot as plt
    from PIL import Image

    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi)
    plt.close(fig)
    picture = Image.open(buffer).convert("RGB")
    # Maximum coverage keeps thin coloured lines, which a median cut gives up for shades of grey.
    small, out = picture.quantize(colours, method=Image.Quantize.MAXCOVERAGE), io.BytesIO()
    small.save(out, format="png", optimize=True)
    size = f"<Figure of {picture.width} x {picture.height} pixels>"
    bundle = {"text/plain": size, "image/png": base64.b64encode(out.getvalue()).decode()}
    _display.show(bundle)


def images(
    images: Any,
    titles: Sequence[str] | None = None,
    *,
    cmap: str = "gray",
    vlim: tuple[float, float] | str | None = None,
    scale: str | None = None,
    columns: int = 4,
) -> Figure:
    """A grid of images.

    Parameters
    ----------
    images : list of images, or a batch (N, C, H, W) or (N, H, W).
    vlim : grey values shown as black and white: None for each image's own range, ``"shared"`` for
        the range of all, or (low, high).
    scale : label of a colour bar (quantity and unit). Its limits are shared; another `cmap` than
        grey needs it.
    columns : images in a row.
    """
    pictures = _pictures(images, "images")
    if scale is None and cmap not in ("gray", "gray_r"):
        raise ValueError(f"cmap={cmap!r} shows numbers as colours: label them with scale='...'")
    vlim = "shared" if vlim is None and scale is not None else vlim
    if vlim == "shared":
        vlim = min(map(np.nanmin, pictures)), max(map(np.nanmax, pictures))
    elif isinstance(vlim, str):
        raise ValueError(f"vlim must be None, 'shared' or (low, high), got {vlim!r}")
    fig, axes = _grid(pictures, titles, columns)
    for ax, picture in zip(axes, pictures, strict=True):
        low, high = vlim or (None, None)
        shown = ax.imshow(picture, cmap=cmap, vmin=low, vmax=high)
    if scale is not None:
        fig.colorbar(shown, ax=axes, label=scale, shrink=0.85, aspect=25, pad=0.02)
    return fig


def overlay(
    image: Any,
    label: Any = None,
    *,
    contours: Any = None,
    names: Mapping[int, str] | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 4,
    ax: Axes | None = None,
) -> Figure:
    """Labels as tinted, outlined regions and contours as lines over one image or a list of images.

    Parameters
    ----------
    label : label map (H, W) or mask; 0 and 255 are left clear. For a list of images, a list.
    contours : {name: points (P, 2)} or a sequence of points, (row, column); drawn closed. For a
        list of images, a list of these.
    names : {label: name} for the legend.
    ax : axes to draw one image in.
    """
    pictures = _pictures(image, "image")
    labels = [None] * len(pictures) if label is None else _pictures(label, "label")
    lines = [None] * len(pictures) if contours is None else contours
    if contours is not None and (len(pictures) == 1 and not _is_list(image)):
        lines = [contours]
    for name, found in (("label", labels), ("contours", lines)):
        if len(found) != len(pictures):
            raise ValueError(f"{name} must hold {len(pictures)} entries, got {len(found)}")
    fig, axes = _grid(pictures, titles, columns) if ax is None else _one(ax, pictures, titles)
    handles: dict[str, Any] = {}
    for a, picture, lab, line in zip(axes, pictures, labels, lines, strict=True):
        a.imshow(picture)
        if lab is not None:
            checks.same_shape(
                picture[..., :1].squeeze(-1) if picture.ndim == 3 else picture,
                lab,
                ("image", "label"),
            )
            present = {int(v): ON_IMAGE[(int(v) - 1) % len(ON_IMAGE)] for v in np.unique(lab)}
            present = {v: c for v, c in present.items() if v not in (0, 255)}
            for value, colour in present.items():
                _tint(a, lab == value, colour, outline=True)
            handles |= {names[v]: _patch(c) for v, c in present.items() if names and v in names}
        handles |= _draw_contours(a, line)
    _legend(fig, axes, handles, ax)
    return fig


def errors(
    image: Any,
    pred: Any,
    ref: Any,
    *,
    titles: Sequence[str] | None = None,
    columns: int = 4,
    ax: Axes | None = None,
) -> Figure:
    """Where a segmentation is right (green), too much (vermilion), too little (sky), mixed up.

    `pred` and `ref` are label maps or masks, for one image or a list; pixels of `ref` with the
    ignore label 255 are left clear. "Wrong class" (yellow) is one structure taken for another.
    """
    pictures = _pictures(image, "image")
    preds, refs = _pictures(pred, "pred"), _pictures(ref, "ref")
    for name, found in (("pred", preds), ("ref", refs)):
        if len(found) != len(pictures):
            raise ValueError(f"{name} must hold {len(pictures)} entries, got {len(found)}")
    fig, axes = _grid(pictures, titles, columns) if ax is None else _one(ax, pictures, titles)
    handles = {}
    for a, picture, p, r in zip(axes, pictures, preds, refs, strict=True):
        checks.same_shape(p, r, ("pred", "ref"))
        a.imshow(picture)
        p, r, valid = p.astype(int), r.astype(int), r != 255
        both = (p > 0) & (r > 0)
        regions = (both & (p == r), (p > 0) & (r == 0), (p == 0) & (r > 0), both & (p != r))
        for (name, colour), region in zip(ERRORS.items(), regions, strict=True):
            _tint(a, region & valid, colour, alpha=0.6)
            if name != "wrong class" or (region & valid).any():
                handles[name] = _patch(colour)
    _legend(fig, axes, handles, ax)
    return fig


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
    fig, axes = _figure(1, 1 + validated, (WIDTH if validated else 4.6, 2.7))
    for i, (name, item) in enumerate(data.items()):
        colour, text = CYCLE[i % len(CYCLE)], name or None
        if name in histories:
            _history(axes, item, colour, text)
            continue
        x, y = item if isinstance(item, tuple) else (None, item)
        y = np.atleast_2d(_array(y).astype(float))  # (S, T)
        x = np.arange(1, y.shape[1] + 1) if x is None else _array(x)
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


def best_median_worst(
    scores: Any,
    render: Callable[[int, Axes], Any],
    *,
    name: str = "Dice",
    higher_is_better: bool = True,
    size: tuple[int, int] = (1, 1),
    legend: Mapping[str, str] | None = None,
) -> Figure:
    """The best, the median and the worst case side by side, chosen by the scores, not by hand.

    `render(index, ax)` draws one case; `scores` (N,), of which NaN take no part (their number is
    in the title of the worst); `size` (H, W) of the images, for their aspect; `legend` {text:
    colour}, such as `plotting.ERRORS`.
    """
    values = _array(scores).astype(float).ravel()
    order = np.argsort(-values if higher_is_better else values, kind="stable")  # NaN last
    order = order[: int((~np.isnan(values)).sum())]
    if not len(order):
        raise ValueError(f"scores must hold a number, got {values.size} values, all NaN")
    chosen = {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}
    fig, axes = _grid([np.zeros(size)] * 3, None, 3)
    for ax, (what, index) in zip(axes, chosen.items(), strict=True):
        render(int(index), ax)
        ax.set_title(f"{what}: {name} {values[index]:.3g} (case {index})")
    missing = values.size - len(order)
    if missing:
        axes[-1].set_title(axes[-1].get_title() + f"\n{missing} of {values.size} without a score")
    _legend(fig, axes, {text: _patch(colour) for text, colour in (legend or {}).items()}, None)
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
    values = {name: _array(v).astype(float).ravel() for name, v in data.items()}
    values = {name: v[np.isfinite(v)] for name, v in values.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins)
    fig, (ax,) = _figure(1, 1, (4.6, 2.7))
    for (name, v), colour in zip(values.items(), CYCLE * len(values), strict=False):
        # A filled and an outlined layer: overlapping sets stay legible.
        ax.hist(v, edges, density=True, histtype="stepfilled", color=colour, alpha=0.2)
        ax.hist(v, edges, density=True, histtype="step", color=colour, linewidth=1.4, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return fig


class Table:
    """A table that a notebook shows as markdown and a terminal as text."""

    def __init__(
        self, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = ""
    ) -> None:
        self.header, self.rows, self.note = list(header), [list(r) for r in rows], note

    def markdown(self) -> str:
        align = [":--"] + ["--:"] * (len(self.header) - 1)
        cells = [[c.replace("|", "\\|") for c in row] for row in (self.header, *self.rows)]
        cells.insert(1, align)
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        return "\n".join(lines) + (f"\n\n{self.note}" if self.note else "")

    def __repr__(self) -> str:
        table = [self.header, *self.rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in table]
        return "\n".join(line.rstrip() for line in lines) + (f"\n{self.note}" if self.note else "")

    def _repr_markdown_(self) -> str:
        return self.markdown()


def paper_table(
    results: Any,
    paper: Mapping[str, Mapping[str, Any]],
    *,
    digits: int = 3,
    note: str | None = None,
) -> Table:
    """The paper's numbers and this run's in separate columns, one row per method.

    Parameters
    ----------
    results : {method: {metric: values}}, values one number or one per seed (shown as mean ± SD), or
        the `Results` of `training.run_arms`.
    paper : {method: {metric: number or text}}, as printed in the paper. Only the metrics named
        here are shown; a method that one side lacks has a dash there.
    """
    ours = _as_dict(results, {m for row in paper.values() for m in row})
    metrics = list(dict.fromkeys(m for row in paper.values() for m in row))
    if not metrics:
        raise ValueError("paper must name at least one metric, got none")
    header = ["method"] + [f"{m}, {who}" for m in metrics for who in ("paper", "ours")]
    rows = []
    for method in dict.fromkeys([*paper, *ours]):
        theirs, mine = paper.get(method, {}), ours.get(method, {})
        cells = [
            cell
            for m in metrics
            for cell in (_printed(theirs.get(m)), _number(mine.get(m), digits))
        ]
        rows.append([method, *cells])
    if note is None:
        n = max((np.size(v) for row in ours.values() for v in row.values()), default=0)
        spread = f", mean ± SD over {n} seeds" if n > 1 else ""
        note = f"Paper: as printed, on its own data. Ours: this run, on its own data{spread}."
    return Table(header, rows, note)


def _as_dict(results: Any, metrics: set[str]) -> dict[str, dict[str, Any]]:
    if isinstance(results, Mapping):
        return {arm: dict(row) for arm, row in results.items()}
    return {
        arm: {m: results.per_seed(arm, m) for m in results.metrics if m in metrics}
        for arm in results.arms
    }


def _printed(value: Any) -> str:
    return "–" if value is None else str(value)  # the paper's own digits


def _number(value: Any, digits: int) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    values = np.atleast_1d(_array(value)).astype(float)
    mean = f"{values.mean():.{digits}f}"
    return f"{mean} ± {values.std(ddof=1):.{digits}f}" if values.size > 1 else mean


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


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    import matplotlib.pyplot as plt

    style()
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    plt.close(fig)  # else the notebook shows it a second time, and keeps it in memory
    return fig, list(axes.ravel())


def _grid(
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
    fig, axes = _figure(rows, columns, (width * columns, height))
    for ax in axes[len(pictures) :]:
        ax.remove()
    axes = axes[: len(pictures)]
    for i, ax in enumerate(axes):
        _bare(ax)
        if heading:
            ax.set_title(heading[i])
    return fig, axes


def _one(
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


def _tint(
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


def _draw_contours(ax: Axes, contours: Any) -> dict[str, Any]:
    if contours is None:
        return {}
    named = isinstance(contours, Mapping)
    if not named and np.ndim(_array(contours[0])) == 1:  # the points of a single contour
        contours = [contours]
    handles = {}
    for i, item in enumerate(contours.items() if named else enumerate(contours)):
        points = _array(item[1])
        checks.shape(points, "contours", "P 2")
        closed = np.concatenate([points, points[:1]])
        (line,) = ax.plot(closed[:, 1], closed[:, 0], color=ON_IMAGE[i % len(ON_IMAGE)])
        if named:
            handles[str(item[0])] = line
    return handles


def _patch(colour: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, alpha=0.8, linewidth=0)


def _legend(fig: Figure, axes: Sequence[Axes], handles: Mapping[str, Any], ax: Axes | None) -> None:
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


def _is_list(x: Any) -> bool:
    return isinstance(x, (list, tuple)) or len(_split(x)) > 1


def _pictures(x: Any, name: str) -> list[np.ndarray]:
    """A list of images, or a batch, as arrays (H, W) or (H, W, 3)."""
    items = list(x) if isinstance(x, (list, tuple)) else _split(x)
    if not items:
        raise ValueError(f"{name} must hold at least one image, got none")
    return [_picture(item, name) for item in items]


def _split(x: Any) -> list[Any]:
    x = _array(x)
    if x.ndim == 4 or (x.ndim == 3 and 3 not in (x.shape[0], x.shape[2]) and x.shape[0] > 1):
        return list(x)  # (N, C, H, W) or (N, H, W)
    return [x]


def _picture(x: Any, name: str) -> np.ndarray:
    x = _array(x)
    shape = x.shape
    while x.ndim > 2 and x.shape[0] == 1:
        x = x[0]
    if np.iscomplexobj(x):
        raise TypeError(f"{name} must be real, got complex: show magnitude and phase")
    if x.ndim == 3 and x.shape[0] == 3:
        x = x.transpose(1, 2, 0)  # (3, H, W) -> (H, W, 3)
    if not (x.ndim == 2 or (x.ndim == 3 and x.shape[2] == 3)):
        raise ValueError(f"{name} must hold one image (H, W) or (3, H, W), got shape {shape}")
    if x.ndim == 3 and x.dtype.kind == "f":
        x = x.clip(0, 1)
    return x


def _array(x: Any) -> np.ndarray:
    """A tensor on any device, an array or numbers as an array."""
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)
