"""The chapter's drawings, on axes that the caller has made: images with borders, and charts.

`colours` gives every border ("ILM", ...), "truth", and every network its colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_core.papers.selected_dimensions_oct.lab import clearest_atrophy, streaks_apart
from medseg_core.papers.selected_dimensions_oct.scores import boundary_mae

Colours = Mapping[str, str]
Data = Mapping[str, Any]


def legend(figure: Any, colours: Colours, names: Sequence[str]) -> None:
    """One legend below all panels; the truth is dotted."""
    axis, dots = figure.axes[0], {"truth": ":"}
    lines = [axis.plot([], [], dots.get(n, "-"), color=colours[n])[0] for n in names]
    look = {"ncols": len(names), "handlelength": 1.4, "columnspacing": 1.2}
    figure.legend(lines, names, loc="outside lower center", **look)


def scan(
    axis: Any,
    image: Tensor,
    colours: Colours,
    rows: Mapping[str, Tensor] | None = None,
    truth: Tensor | None = None,
) -> None:
    """An image and the rows (W,) of borders, by name; NaN leaves a gap. The truth (K,W) is dotted.

    Taught in: selected-dimensions-oct.
    """
    picture = image.detach().cpu().squeeze()
    axis.imshow(picture, cmap="gray", interpolation="bilinear", aspect="equal")
    for name, row in (rows or {}).items():
        axis.plot(row, color=colours[name], linewidth=1.3)
    for row in truth if truth is not None else ():
        axis.plot(row, ":", color=colours["truth"], linewidth=1.5)
    height, width = picture.shape
    axis.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axis.grid(False)


def marked(data: Data, i: int, rows: Tensor | None = None) -> dict[str, Tensor]:
    """The borders of B-scan i by name, the annotated ones or ``rows`` (K,W), where it is annotated.

    Taught in: selected-dimensions-oct.
    """
    rows = data["surfaces"][i] if rows is None else rows
    hidden = rows.masked_fill(~data["valid"][i], torch.nan)
    return dict(zip(data["surface_names"], hidden, strict=True))


def problem(axes: Any, test: Data, i: int, naive: Tensor, ga_test: Data, colours: Colours) -> None:
    """B-scan i as annotated, and with the steepest change; the clearest atrophy with its label.

    Taught in: selected-dimensions-oct.
    """
    scan(axes[0], test["image"][i], colours, marked(test, i))
    scan(axes[1], test["image"][i], colours, {"ILM": naive[i, 0], "BM": naive[i, 1]})
    j = clearest_atrophy(ga_test)
    scan(axes[2], ga_test["image"][j], colours)
    height, width = ga_test["image"].shape[2:]
    label = {"where": ga_test["columns"][j], "step": "mid", "color": colours["truth"]}
    axes[2].fill_between(range(width), height * 0.93, height - 0.5, linewidth=0, **label)
    for column in streaks_apart(ga_test, j)[:1]:
        place = min(max(column, 0.2 * width), 0.8 * width), 0.1 * height
        look = {"arrowprops": {"arrowstyle": "->", "color": "white"}, "color": "white"}
        axes[2].annotate("decoy", (column, 0.72 * height), place, ha="center", va="center", **look)
    for axis, title in zip(axes, ("annotated", "steepest change", "atrophy"), strict=True):
        axis.set_title(title)


def stairs(axis: Any, data: Data, i: int, level: int, reach: int, colours: Colours) -> None:
    """RPEDC as one number for each 2^level columns, and the columns that reach the middle one.

    Taught in: selected-dimensions-oct.
    """
    wide, width = 2**level, data["image"].shape[3]
    row = marked(data, i)["RPEDC"]
    steps = torch.nanmean(row.view(-1, wide), 1).repeat_interleave(wide)
    middle = (width // 2 // wide + 0.5) * wide - 0.5
    scan(axis, data["image"][i], colours, truth=row[None])
    axis.step(range(width), steps, where="mid", color=colours["RPEDC"], linewidth=1.8)
    axis.axvspan(middle - reach / 2, middle + reach / 2, color="white", alpha=0.18, linewidth=0)
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_title(
        f"one number per {wide} column{'s' * (wide > 1)}: {(row - steps).abs().nanmean():.1f} px "
        f"off\nit sees {min(reach, width)} of {width} columns"
    )


def triangle(axis: Any, levels: int, colours: Colours) -> None:
    """The network: a map of W / 2^level and height H / 2^step is a box, on a log scale.

    `colours` needs "encoder", "funnels", "decoder", and "base 1", "base 2" for their paths.

    Taught in: selected-dimensions-oct.
    """

    def box(x: float, level: int, step: int, part: str) -> None:
        wide, tall = (0.06 + 0.06 * (levels - k) for k in (level, step))
        (x0, x1), (y0, y1) = (x - wide, x + wide), (-level - tall, -level + tall)
        axis.fill([x0, x1, x1, x0], [y0, y0, y1, y1], color=colours[part], zorder=2)

    def arrow(start: tuple[float, float], end: tuple[float, float], part: str) -> None:
        look = {"arrowstyle": "->", "color": colours[part], "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", end, start, arrowprops=look, zorder=3)

    out = levels + 1.2  # where the decoder stands
    for level in range(levels + 1):
        half = 0.06 + 0.06 * (levels - level)
        box(out, level, levels, "decoder")
        part = "funnels" if level < levels else "encoder"
        arrow((levels + half, -level), (out - half, -level), part)
        for step in range(level, levels + 1):  # from the square map on the height is halved
            box(step, level, step, "encoder" if step == level else "funnels")
            if step < levels:
                arrow((step + half, -level), (step + 1 - half, -level), "funnels")
        if level < levels:
            arrow((level + half, -level - half), (level + 1, -level - 1 + half), "encoder")
            arrow((out, -level - 0.9), (out, -level - 0.1), "decoder")
    band = {"linewidth": 14, "alpha": 0.35, "zorder": 0}
    band |= {"solid_capstyle": "round", "solid_joinstyle": "round"}
    axis.plot((0, levels), (0, 0), color=colours["base 1"], **band)
    around = (0, levels, out, out), (0, -levels, -levels, 0)
    axis.plot(*around, color=colours["base 2"], **band)
    axis.set(xlim=(-0.6, levels + 1.8), ylim=(-levels - 0.5, 0.6), xlabel="height", ylabel="width")
    axis.set_xticks(range(levels + 1), ["$H$", *(f"$H/2^{k}$" for k in range(1, levels)), "1"])
    widths = ["$W$", *(f"$W/2^{k}$" for k in range(1, levels + 1))]
    axis.set_yticks([-k for k in range(levels + 1)], widths)
    axis.grid(False)


def curves(axis: Any, records: Data, colours: Colours) -> None:
    """Validation scores over the updates, {arm: its record with the extra "history"}.

    Taught in: selected-dimensions-oct.
    """
    for arm, record in records.items():
        axis.plot(*np.array(record.extras["history"].validation).T, marker=".", color=colours[arm])
    axis.set_xlabel("updates")


def ratios(axis: Any, errors: Mapping[str, Any], labels: Sequence[str], colours: Colours) -> None:
    """{arm: (cells, seeds)}: dots of the baselines over "proposed", bars from seed to seed.

    Taught in: selected-dimensions-oct.
    """
    y = np.arange(len(labels))
    for arm, shift in (("base 1", -0.15), ("base 2", 0.15)):
        ratio = errors[arm] / errors["proposed"]
        axis.plot(ratio.mean(1), y + shift, "o", color=colours[arm])
        axis.hlines(y + shift, ratio.min(1), ratio.max(1), color=colours[arm])
    axis.axvline(1, color=colours["proposed"])
    axis.set_yticks(y, labels)
    axis.set(xlabel="error / the proposed's", ylim=(len(y) - 0.5, -0.5))


def lit_and_faded(axis: Any, values: Mapping[str, tuple[float, float]], colours: Colours) -> None:
    """{arm: (error where lit, where faded)}: an open and a filled dot for each network.

    Taught in: selected-dimensions-oct.
    """
    for n, (arm, (lit, faded)) in enumerate(values.items()):
        axis.plot((lit, faded), (n, n), color=colours[arm])
        axis.plot(lit, n, "o", markerfacecolor="white", color=colours[arm])
        axis.plot(faded, n, "o", color=colours[arm])
    most = max(map(max, values.values()))
    axis.set(xlabel="error (px)", yticks=[], ylim=(len(values) - 0.5, -0.5), xlim=(0, 1.15 * most))


def cases(axes: Any, test: Data, preds: Mapping[str, Tensor], colours: Colours) -> None:
    """Best, median and worst B-scan of the first network, and below the error of all on BM.

    Taught in: selected-dimensions-oct.
    """
    first = next(iter(preds.values()))
    per_image = torch.nanmean(boundary_mae(first, test["surfaces"], test["valid"]), 1)
    order = per_image.argsort()
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    for axis, below, (what, i) in zip(*axes, chosen.items(), strict=True):
        truth = torch.stack([*marked(test, i).values()])
        scan(axis, test["image"][i], colours, marked(test, i, first[i]), truth)
        eye = "AMD" if test["amd"][i] else "control"
        axis.set_title(f"{what}: {per_image[i]:.2f} px ({eye})")
        for arm, pred in preds.items():
            below.plot(pred[i, 2] - truth[2], color=colours[arm], linewidth=1.2)
        height, width = test["image"].shape[2:]
        limit = 0.16 * height
        below.set(xlabel="column", xlim=(-0.5, width - 0.5), ylim=(limit, -limit))
    axes[1, 0].set_ylabel("error of BM (px)")


def en_face(axes: Any, ga_test: Data, found: Mapping[str, Tensor], dice: Data) -> Any:
    """Best, median and worst volume of the first network: reference, true place, probabilities.

    Args:
        found: {arm: (N, W) probabilities}.
        dice: {arm: (volumes,)}, NaN without atrophy.

    Returns:
        The last picture, for a colour bar.

    Taught in: selected-dimensions-oct.
    """
    first = np.asarray(next(iter(dice.values())))
    order = [int(k) for k in np.argsort(-first) if not np.isnan(first[k])]
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    volumes = ga_test["group"].unique()
    maps = {"reference": ga_test["columns"], "true place": ga_test["hidden"]["columns_clean"]}
    for line, (what, k) in zip(axes, chosen.items(), strict=True):
        for axis, (name, picture) in zip(line, {**maps, **found}.items(), strict=True):
            picture = picture[ga_test["group"] == volumes[k]].float()
            shown = axis.imshow(picture, cmap="cividis", vmin=0, vmax=1, aspect="auto")
            score = f": {dice[name][k]:.2f}" if name in dice else ""
            axis.set(title=f"{name}{score}", xticks=[], yticks=[])
            axis.grid(False)
        line[0].set_ylabel(what)
    return shown


def field(axes: Any, influence: Tensor, found: Tensor, colours: Colours) -> None:
    """The influence (H,W) of every pixel on BM, BM's rows (W,), and the sum over the rows.

    `colours` needs "BM", and "here" for the network.

    Taught in: selected-dimensions-oct.
    """
    scan(axes[0], (influence / influence.max()).sqrt(), colours, {"BM": found})
    axes[0].set_title("influence on BM")
    axes[1].plot(influence.sum(0) / influence.sum(), color=colours["here"], linewidth=1.2)
    axes[1].set(title="share of influence", xlabel="column", yscale="log", ylim=(1e-5, 1))


def druse(axes: Any, sample: Data, found: Mapping[str, Tensor], colours: Colours) -> None:
    """One B-scan with the rows (W,) of BM of each network, and their errors.

    Taught in: selected-dimensions-oct.
    """
    truth = sample["surfaces"][0, 2]
    scan(axes[0], sample["image"], colours, found, truth[None])
    axes[0].set_title("BM")
    for arm, row in found.items():
        axes[1].plot(row - truth, color=colours[arm], linewidth=1.2)
    limit = 0.12 * sample["image"].shape[2]
    axes[1].set(title="error of BM (px)", xlabel="column", ylim=(limit, -limit))


def beside_device(axes: Any, real: Data, found: Mapping[str, Tensor], colours: Colours) -> None:
    """Real B-scans with the borders found {name: (N,W)} that the device draws too, and its own.

    Taught in: selected-dimensions-oct.
    """
    known = torch.where(real["valid"], real["surfaces"], torch.nan).unbind(1)
    device = {n: row for n, row in zip(real["surface_names"], known, strict=True) if n in found}
    for k, axis in enumerate(axes):
        own = torch.stack([rows[k] for rows in device.values()])
        scan(axis, real["image"][k], colours, {n: found[n][k] for n in device}, own)
        off = {n: (found[n][k] - rows[k]).abs().nanmean() for n, rows in device.items()}
        told = ", ".join(f"{name} {x:.1f} px" for name, x in off.items())
        axis.set_title(f"{real['scan'][k]}:\n{told}")
