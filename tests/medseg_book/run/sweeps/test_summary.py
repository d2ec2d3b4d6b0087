"""The summary of hand-made tables: loaded, averaged, drawn."""

import csv
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

from medseg_book.run.sweeps import figures, summary

BASE = {"slug": "tiny", "status": "done", "scale": "smoke", "device": "cpu", "date": "2026-01-01"}
BASE |= {"code_hash": "h", "error": "", "seconds": 10, "peak_memory_mb": 100}


def write(folder, rows):
    """`sweep.csv`; a row names what differs from the base, parameters as Python values."""
    full = []
    for i, row in enumerate(rows):
        row = {"point": f"p{i}", "seed": 0, **BASE, "notebook": f"p{i}.ipynb"} | row
        full.append({k: json.dumps(v) if "param." in k else v for k, v in row.items()})
    names = list(dict.fromkeys(name for row in full for name in row))
    with (folder / "sweep.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names, restval="")
        writer.writeheader()
        writer.writerows(full)
    return folder / "sweep.csv"


def grid(metrics, **parameters):
    """A run for each combination; `metrics(**values)` gives its numbers."""
    for values in itertools.product(*parameters.values()):
        row = dict(zip(parameters, values, strict=True))
        named = {k if k == "seed" else f"param.overrides.{k}": v for k, v in row.items()}
        yield named | {f"metrics.{k}": v for k, v in metrics(**row).items()}


def load(folder, rows):
    return summary.load(write(folder, rows))


def panels(sweep, x):
    return [ax for figure in figures.metrics(sweep, x) for ax in figure.axes]


def drawn(ax):
    """The curves of means: the lines that connect something."""
    return [line.get_xydata().tolist() for line in ax.lines if line.get_linestyle() == "-"]


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, expected",
    [
        ([10, 2], [10.0, 2.0]),
        ([0.001, 1], [0.001, 1.0]),
        ([[10], [160]], [10.0, 160.0]),  # a list of one number counts as the number
        ([[8, 16], [16]], ["[8, 16]", "16"]),
        ([True, False], ["true", "false"]),
        ([None, 3], ["null", "3"]),
        (["dice", "1e-3"], ["dice", "1e-3"]),
        ([{"a": 1}, {}], ['{"a": 1}', "{}"]),
    ],
)
def test_parameters_become_numbers_or_labels(tmp_path, given, expected):
    sweep = load(tmp_path, [{"param.x": value} for value in given])
    assert sweep["param.x"].tolist() == expected


def test_a_parameter_that_a_row_lacks_is_a_dash(tmp_path):
    sweep = load(tmp_path, [{"param.x": 1}, {}])
    assert sweep["param.x"].tolist() == ["1", "–"]


def test_values_stand_in_their_natural_order(tmp_path):
    sweep = load(tmp_path, [{"param.x": v} for v in ([16, 32], [8, 16], "b10", "b9", None)])
    assert summary.values(sweep["param.x"]) == ["[8, 16]", "[16, 32]", "b9", "b10", "null"]
    sweep = load(tmp_path, [{"param.x": v} for v in (10, 9, -1.5)])
    assert summary.values(sweep["param.x"]) == [-1.5, 9, 10]


def test_what_is_swept(tmp_path):
    rows = [
        {"param.seed": s, "seed": s, "param.overrides.lr": lr, "param.scale": "smoke"}
        for s in (0, 1)
        for lr in (0.1, 0.2)
    ]
    assert summary.swept(load(tmp_path, rows)) == ["param.overrides.lr"]


def test_means_by_hand(tmp_path):
    rows = list(grid(lambda n, seed: {"dice": n + seed}, n=[10, 2], seed=[0, 1, 2]))
    rows[0]["metrics.dice"] = "nan"
    rows[-1]["status"] = "failed"  # its number is none of a finished run
    table = summary.means(load(tmp_path, rows))
    assert table.header == ["n", "dice"]
    # 2, 3 and 11, 12: the standard deviation of two neighbours is 1 / sqrt 2
    assert table.rows == [["2", "2.50 ± 0.71 (2)"], ["10", "11.50 ± 0.71 (2)"]]


def test_means_of_seeds_alone_have_a_row_per_metric(tmp_path):
    rows = grid(lambda seed: {"dice": 0.5 + seed, "same": 3}, seed=[0, 1, 2])
    table = summary.means(load(tmp_path, rows))
    assert table.header == ["metric", "3 runs"]
    assert table.rows == [["dice", "1.5 ± 1.0 (3)"], ["same", "3 (3)"]]


def test_verdicts_are_symbols_by_seed(tmp_path):
    words = {0: "within noise", 1: "holds", 2: "does not hold", 3: "not judged"}
    rows = [
        {"seed": s, "param.x": 1, "claims.C1.verdict": word, "claims.C1.mean": 1}
        for s, word in reversed(words.items())
    ]
    rows += [{"seed": 0, "param.x": 2, "claims.C1.verdict": ""}]
    rows += [{"seed": s, "param.x": 3, "claims.C1.verdict": "holds"} for s in range(11)]
    table = summary.verdicts(load(tmp_path, rows))
    assert table.header == ["x", "C1", "runs"]
    assert table.rows == [["1", "≈✓✗–", "4"], ["2", "–", "1"], ["3", "11✓", "11"]]


def test_what_failed_is_named_and_what_weighs(tmp_path):
    rows = [{"seconds": i, "peak_memory_mb": 1000 - i} for i in range(20)]
    rows[3] |= {"status": "failed", "error": "ValueError: <b> | `no`"}
    rows[4] |= {"status": "lost", "seconds": "", "peak_memory_mb": ""}
    sweep = load(tmp_path, rows)
    assert summary.counts(sweep).rows == [["done", "18"], ["failed", "1"], ["lost", "1"]]
    assert summary.unfinished(sweep).rows == [
        ["`p3`", "failed", "`ValueError: <b> | 'no'`"],
        ["`p4`", "lost", "–"],
    ]
    order = [19, 18, 17, 16, 15, 0, 1, 2, 3, 5]  # the slowest, then the heaviest
    assert [row[0] for row in summary.heaviest(sweep).rows] == [f"`p{i}`" for i in order]
    assert summary.heaviest(sweep).note.startswith("3.1 minutes")  # (190 - 4) / 60
    assert summary.unfinished(load(tmp_path, [{}])) is None


def test_long_tables_are_cut_and_say_so(tmp_path):
    sweep = load(tmp_path, [{"status": "failed", "error": "E"} for _ in range(50)])
    table = summary.unfinished(sweep)
    assert len(table.rows) == 40 and "first 40 of 50" in table.note


# --- the figures ----------------------------------------------------------------------------------


def test_the_line_is_the_mean_and_the_band_one_standard_deviation(tmp_path):
    rows = grid(lambda n, seed: {"dice": n + seed}, n=[1, 2, 4], seed=[0, 2])
    (ax,) = panels(load(tmp_path, rows), "param.overrides.n")
    assert drawn(ax) == [[[1, 2], [2, 3], [4, 5]]]
    (band,) = ax.collections
    at_4 = [y for x, y in band.get_paths()[0].vertices if x == 4]
    assert np.allclose([min(at_4), max(at_4)], [5 - 2**0.5, 5 + 2**0.5])
    dots = [line.get_xydata().tolist() for line in ax.lines if line.get_linestyle() == "None"]
    assert list(itertools.chain(*dots)) == [[1, 1], [1, 3], [2, 2], [2, 4], [4, 4], [4, 6]]
    assert (ax.get_xlabel(), ax.get_title(), ax.get_xscale()) == ("n", "dice", "linear")


@pytest.mark.parametrize(
    "values, scale",
    [([1, 31], "linear"), ([1, 32], "log"), ([0, 100], "linear"), ([-1, 99], "linear")],
)
def test_an_axis_is_logarithmic_beyond_one_and_a_half_decades(tmp_path, values, scale):
    rows = grid(lambda n: {"dice": 1}, n=values)
    (ax,) = panels(load(tmp_path, rows), "param.overrides.n")
    assert ax.get_xscale() == scale


def test_labels_that_would_touch_are_left_out(tmp_path):
    rows = grid(lambda n: {"dice": 1}, n=[10, 20, 40, 80, 160])
    (ax,) = panels(load(tmp_path, rows), "param.overrides.n")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["10", "", "40", "80", "160"]


def test_categories_stand_side_by_side_without_a_line(tmp_path):
    rows = grid(lambda w, seed: {"dice": seed}, w=[[16, 32], [8, 16]], seed=[0, 1])
    (ax,) = panels(load(tmp_path, rows), "param.overrides.w")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["[8, 16]", "[16, 32]"]
    assert drawn(ax) == []
    assert {round(x) for line in ax.lines for x in line.get_xdata()} == {0, 1}


def test_a_second_parameter_is_the_colour(tmp_path):
    rows = grid(lambda n, lr: {"dice": n * lr}, n=[1, 2], lr=[3, 5])
    sweep = load(tmp_path, rows)
    (figure,) = figures.metrics(sweep, "param.overrides.n")
    assert drawn(figure.axes[0]) == [[[1, 3], [2, 6]], [[1, 5], [2, 10]]]
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "lr"
    assert [entry.get_text() for entry in legend.get_texts()] == ["3", "5"]
    assert len({line.get_marker() for line in figure.axes[0].lines}) == 2


def test_many_values_of_a_second_parameter_are_panels(tmp_path):
    rows = grid(lambda n, lr: {"dice": n * lr, "hd": 1}, n=[1, 2], lr=range(7))
    sweep = load(tmp_path, rows)
    dice, hd = figures.metrics(sweep, "param.overrides.n")
    assert [ax.get_title() for ax in dice.axes] == [f"lr = {i}" for i in range(7)]
    assert drawn(dice.axes[3]) == [[[1, 3], [2, 6]]]
    assert (
        dice.axes[0].get_ylabel() == "dice" and dice.axes[0].get_ylim() == dice.axes[6].get_ylim()
    )
    assert len(hd.axes) == 7


def test_a_third_parameter_is_averaged_and_said(tmp_path):
    rows = grid(lambda a, b, c: {"dice": c}, a=[1, 2], b=[1, 2], c=[1, 3])
    sweep = load(tmp_path, rows)
    (ax,) = panels(sweep, "param.overrides.a")
    assert drawn(ax) == [[[1, 2], [2, 2]]] * 2
    assert figures.left_out(sweep, "param.overrides.a") == "The mean also goes over c."
    assert figures.left_out(sweep, "param.overrides.c") == "The mean also goes over b."


def test_at_most_twelve_metrics_are_drawn(tmp_path):
    rows = grid(lambda n: {f"m{i}": 1 for i in range(13)}, n=[1, 2])
    sweep = load(tmp_path, rows)
    assert len(panels(sweep, "param.overrides.n")) == 12
    assert "first 12 of 13 metrics" in figures.left_out(sweep, "param.overrides.n")
    rows = grid(lambda n: {f"m{i}, {arm}": 1 for i in range(12) for arm in "ab"}, n=[1, 2])
    assert figures.left_out(load(tmp_path, rows), "param.overrides.n") == ""


def test_seeds_alone_are_a_strip(tmp_path):
    rows = grid(lambda seed: {"dice": seed}, seed=[2, 0, 1])
    (ax,) = panels(load(tmp_path, rows), None)
    dots = ax.lines[0].get_xydata()
    assert dots[:, 1].tolist() == [0, 1, 2] and (np.diff(dots[:, 0]) > 0).all()
    assert ax.get_xlabel() == "runs, by seed"


ARMS = ("U-Net", "U-Net + DP")


def test_the_arms_of_a_metric_share_a_panel(tmp_path):
    def numbers(n):
        return {f"{what}, {arm}": n * k for what in ("Dice", "HD") for k, arm in enumerate(ARMS)}

    sweep = load(tmp_path, grid(numbers, n=[1, 2]))
    (figure,) = figures.metrics(sweep, "param.overrides.n")
    assert [ax.get_title() for ax in figure.axes] == ["Dice", "HD"]
    assert drawn(figure.axes[0]) == [[[1, 0], [2, 0]], [[1, 1], [2, 2]]]
    assert [entry.get_text() for entry in figure.legends[0].get_texts()] == list(ARMS)
    # Without a swept parameter the arms stand side by side.
    ax, _ = panels(load(tmp_path, grid(lambda seed: numbers(seed), seed=[1, 2])), None)
    assert [entry.get_text() for entry in ax.get_xticklabels()] == list(ARMS)
    dots = [dot for line in ax.lines if line.get_markersize() == 3 for dot in line.get_xydata()]
    assert [y for x, y in dots if x > 0.5] == [1, 2]
    # A second parameter needs the colours.
    rows = grid(lambda n, lr: numbers(n), n=[1, 2], lr=[1, 2])
    assert len(panels(load(tmp_path, rows), "param.overrides.n")) == 4


@pytest.mark.parametrize(
    "names", [["Dice, a", "HD"], [f"Dice, {i}" for i in range(7)], ["Dice, a", "HD, a"]]
)
def test_metrics_without_few_arms_have_a_panel_each(tmp_path, names):
    rows = grid(lambda n: dict.fromkeys(names, 1), n=[1, 2])
    titles = [ax.get_title() for ax in panels(load(tmp_path, rows), "param.overrides.n")]
    assert titles == names


def test_a_claim_is_drawn_with_its_interval(tmp_path):
    rows = [
        {"param.x": x, "seed": s, "claims.C1.verdict": "holds", "claims.C1.mean": x}
        | ({"claims.C1.low": x - 0.5, "claims.C1.high": x + 2} if s else {})
        for x in (1, 2)
        for s in (0, 1)
    ]
    (figure,) = figures.claims(load(tmp_path, rows), "param.x")
    (ax,) = figure.axes
    bars = [path.tolist() for line in ax.collections for path in line.get_segments()]
    heights = sorted([low[1], high[1]] for low, high in bars)
    assert heights == [[0.5, 3], [1, 1], [1.5, 4], [2, 2]]  # without an interval: a point
    assert ax.get_title() == "C1"


def test_nothing_to_draw(tmp_path):
    claim = {"verdict": "noted", "mean": "", "low": "", "high": ""}
    claim = {f"claims.C1.{key}": value for key, value in claim.items()}
    sweep = load(tmp_path, [{"param.x": x, "metrics.dice": "nan", **claim} for x in (1, 2)])
    assert list(figures.metrics(sweep, "param.x")) == list(figures.claims(sweep, "param.x")) == []
    assert summary.means(sweep) is None
    assert summary.verdicts(sweep).rows == [["1", "–", "1"], ["2", "–", "1"]]


def test_a_metric_that_a_setting_lacks(tmp_path):
    rows = list(grid(lambda n, lr: {"dice": n}, n=[1, 2], lr=range(7)))
    for row in rows:
        if row["param.overrides.lr"] == 3:
            row["metrics.dice"] = float("inf") if row["param.overrides.n"] == 1 else ""
    axes = panels(load(tmp_path, rows), "param.overrides.n")
    assert [t.get_text() for t in axes[3].texts] == ["no values"] and not axes[2].texts


# --- the notebook ---------------------------------------------------------------------------------


def draw(folder, rows, name="summary.ipynb"):
    summary.write(write(folder, rows), folder / name, title="My *sweep*")
    nb = nbformat.read(folder / name, as_version=4)
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type in ("error", "stream")], outputs
    pictures = sum("image/png" in o.get("data", {}) for o in outputs)
    return pictures, "\n\n".join(o.data.get("text/markdown", "") for o in outputs)


def test_the_notebook_of_a_sweep(tmp_path):
    rows = list(
        grid(lambda n, lr, seed: {"dice": n[0] + seed}, n=[[1], [20], [40]], lr=[1, 2], seed=[0, 1])
    )
    for row in rows:
        row |= {"claims.C1.verdict": "holds", "claims.C1.mean": 1, "claims.C1.low": 0}
        row |= {"claims.C1.high": ""}
    rows[0] |= {"status": "time limit", "error": "TimeLimit: 5 s"}
    pictures, text = draw(tmp_path, rows)
    assert pictures == 4  # metrics and claims against n and against lr
    assert text.startswith("# My *sweep*")
    assert "| done | 11 |" in text and "| `p0` | time limit | `TimeLimit: 5 s` |" in text
    assert "| 20 | 1 | 20.50 ± 0.71 (2) |" in text and "| 20 | 1 | ✓✓ | 2 |" in text
    assert str(tmp_path) not in (tmp_path / "summary.ipynb").read_text()

    # The lines at its end run as they stand, with pandas alone, and give the same mean.
    lines = text.split("```python\n")[1].split("\n```")[0].splitlines()
    assert len(lines) == 5
    script = "\n".join([*lines, "print(curve['mean'].to_dict())"])
    run = [sys.executable, "-c", script]
    said = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert eval(said) == {1.0: pytest.approx(5 / 3), 20.0: 20.5, 40.0: 40.5}


DEGENERATE = {
    "no metrics": ([{"param.x": x} for x in (1, 2)], 0),
    "one point": ([{"param.x": 1, "metrics.dice": 0.5}], 1),
    "all failed": ([{"param.x": x, "status": "failed", "metrics.dice": ""} for x in (1, 2)], 0),
    "odd values": (
        [{"param.x": x, "metrics.dice": 1} for x in ([1, 2], {"a": None}, None, True, "t|u")],
        1,
    ),
    "not a number": ([{"param.x": x, "metrics.dice": m} for x, m in ((1, "nan"), (2, "inf"))], 0),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_tables_have_a_summary(tmp_path, name):
    rows, expected = DEGENERATE[name]
    pictures, text = draw(tmp_path, rows)
    assert pictures == expected
    assert ("*No finished point has a metric.*" in text) == (expected == 0)
    lines = text.split("```python\n")[1].split("\n```")[0]
    if name != "all failed":  # nothing to plot
        subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, check=True)


def test_the_lines_for_plain_numbers_are_plain(tmp_path):
    rows = grid(lambda n: {"dice": n}, n=[1, 2])
    sweep = load(tmp_path, rows)
    lines = summary.recipe(sweep, tmp_path / "sweep.csv").splitlines()
    assert lines[1] == f'sweep = pd.read_csv("{tmp_path}/sweep.csv")'
    assert lines[3].startswith('curve = done.groupby("param.overrides.n")["metrics.dice"]')


def test_the_lines_of_the_guide_run_on_a_table(tmp_path, monkeypatch):
    page = Path(__file__).resolve().parents[4] / "book/guide/sweep-results.md"
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S))
    rows = [
        {"param.overrides.n_train": [n], "param.overrides.lr": lr, "seed": seed}
        | {"metrics.Dice, EDPCNN": n + seed}
        for n, lr, seed in itertools.product((10, 160), (0.1, 0.2), (0, 1))
    ]
    write(tmp_path, [*rows, rows[0] | {"status": "failed"}])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names = {}
    exec(code, names)
    plt.close("all")  # the reader's figures
    assert names["by"]["mean"].to_dict() == {10: 10.5, 160: 160.5}
    assert names["by"]["count"].tolist() == [4, 4]


def test_the_notebook_names_the_table_relative_to_itself(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    assert draw(tmp_path, [{"metrics.dice": 1}], "elsewhere/s.ipynb")[0] == 1
    assert '"../sweep.csv"' in (tmp_path / "elsewhere/s.ipynb").read_text().replace("\\", "")


def test_a_table_that_is_none_is_an_error_with_its_reason(tmp_path):
    (tmp_path / "sweep.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RuntimeError, match=r"summary of sweep.csv failed:(.|\n)*status"):
        summary.write(tmp_path / "sweep.csv", tmp_path / "s.ipynb", title="")
    assert not (tmp_path / "s.ipynb").exists()
