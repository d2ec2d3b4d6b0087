"""A sweep's table as a reader wants it: loaded, counted, averaged, and drawn in a notebook."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg_book.page.claims_table import SYMBOLS
from medseg_book.page.plotting import Table

from .point import DONE

if TYPE_CHECKING:
    import pandas as pd

TEMPLATE = Path(__file__).with_name("_summary_notebook.py")
NOTHING = "–"
MOST_ROWS = 40
SHOWN = 5  # of the slowest and the heaviest
NUMBERS = re.compile(r"seed|seconds|peak_memory_mb|metrics\..*|claims\..*\.(mean|low|high)")


def write(folder_csv: Path, out: Path, *, title: str) -> None:
    """Draw the summary notebook `out` of the table `folder_csv`, which lies beside it or near.

    The notebook names the table relative to its own folder, so that both can be moved together.

    Raises:
        RuntimeError: with the failing cell and its traceback.
    """
    from medseg_book.run.run import execute

    folder_csv, out = Path(folder_csv).resolve(), Path(out).resolve()
    table = Path(os.path.relpath(folder_csv, out.parent)).as_posix()
    result = execute(TEMPLATE, out, {"table": table, "title": title}, cwd=out.parent)
    if not result.ok:
        raise RuntimeError(f"the summary of {folder_csv.name} failed:\n{result.failure.report()}")


def load(path: str | Path) -> pd.DataFrame:
    """`sweep.csv` with numbers as numbers; what else parameters hold becomes a label.

    A column of parameters is numeric if all its values are; a list with one number counts as that
    number. Else each value is a text: words as they are, the rest as JSON.
    """
    import pandas as pd

    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    columns = {}
    for name in raw:
        if name.startswith("param."):
            columns[name] = _parameter(raw[name])
        elif NUMBERS.fullmatch(name):
            columns[name] = pd.to_numeric(raw[name], errors="coerce").astype(float)
        else:
            columns[name] = raw[name]
    return pd.DataFrame(columns)


def swept(sweep: pd.DataFrame) -> list[str]:
    """The columns of parameters with more than one value; seeds repeat, they are not swept."""
    names = [name for name in sweep if name.startswith("param.") and name != "param.seed"]
    return [name for name in names if sweep[name].nunique() > 1]


def metrics(sweep: pd.DataFrame) -> list[str]:
    """The columns of metrics in which a finished point has a number."""
    names = [name for name in sweep if name.startswith("metrics.")]
    return [name for name in names if np.isfinite(done(sweep)[name]).any()]


def claims(sweep: pd.DataFrame) -> list[str]:
    """The ids of all claims."""
    found = (re.fullmatch(r"claims\.(.+)\.verdict", name) for name in sweep)
    return [match[1] for match in found if match]


def done(sweep: pd.DataFrame) -> pd.DataFrame:
    """The points that have finished."""
    return sweep[sweep["status"] == DONE]


def label(column: str) -> str:
    """`param.overrides.n_train` and `metrics.dice` as a figure calls them."""
    return re.sub(r"^(param\.(overrides\.)?|metrics\.)", "", column)


def values(column: pd.Series) -> list[Any]:
    """The different values of a parameter, in order: numbers by size, words as one would read."""
    return sorted(column.unique(), key=_natural)


def text(value: Any) -> str:
    """A parameter's value on an axis or in a legend."""
    return value if isinstance(value, str) else f"{value:g}"


# --- tables --------------------------------------------------------------------------------------


def counts(sweep: pd.DataFrame) -> Table:
    """How many points ended how."""
    found = sweep["status"].value_counts()
    return Table(["status", "points"], [[name, str(n)] for name, n in found.items()])


def unfinished(sweep: pd.DataFrame) -> Table | None:
    """What has not finished, and why; None where everything has."""
    rows = sweep[sweep["status"] != DONE]
    if rows.empty:
        return None
    body = [
        [_code(row["point"]), row["status"], _code(row["error"]) or NOTHING]
        for _, row in rows.iterrows()
    ]
    return _short(Table(["point", "status", "error"], body))


def heaviest(sweep: pd.DataFrame) -> Table:
    """The slowest points, and those with the highest memory."""
    slow = sweep.nlargest(SHOWN, "seconds")
    heavy = sweep.nlargest(SHOWN, "peak_memory_mb")
    rows = sweep.loc[[*slow.index, *heavy.index.difference(slow.index, sort=False)]]
    body = [
        [_code(row["point"]), _number(row["seconds"], ".1f"), _number(row["peak_memory_mb"], ".0f")]
        for _, row in rows.iterrows()
    ]
    total = f"{sweep['seconds'].sum() / 60:.1f} minutes in all, one after the other."
    return Table(["slowest and heaviest points", "seconds", "peak MiB"], body, total)


def means(sweep: pd.DataFrame) -> Table | None:
    """Each metric at each setting: mean ± standard deviation over the runs, and their number."""
    names, by = metrics(sweep), swept(sweep)
    if not names:
        return None
    note = "Mean ± standard deviation over the runs; in brackets the runs that have the number."
    settings = _settings(done(sweep), by)
    if not by:  # one setting: a row per metric, which may be many
        body = [[label(name), _mean(settings[0][1][name])] for name in names]
        return Table(["metric", f"{len(settings[0][1])} runs"], body, note)
    body = [[*setting, *(_mean(runs[name]) for name in names)] for setting, runs in settings]
    return _short(Table([label(name) for name in (*by, *names)], body, note))


def verdicts(sweep: pd.DataFrame) -> Table | None:
    """Each claim at each setting: one symbol per run, in the order of the seeds."""
    ids, by = claims(sweep), swept(sweep)
    if not ids or done(sweep).empty:
        return None
    body = []
    for setting, runs in _settings(done(sweep), by):
        runs = runs.sort_values("seed")
        seen = [[SYMBOLS.get(v, "?") for v in runs[f"claims.{id}.verdict"] if v] for id in ids]
        body.append([*setting, *(_symbols(symbols) for symbols in seen), str(len(runs))])
    note = "✓ holds, ✗ does not hold, ≈ within noise, – not judged; one symbol per run, by seed."
    return _short(Table([*(label(name) for name in by), *ids, "runs"], body, note))


def recipe(sweep: pd.DataFrame, table: str | Path) -> str:
    """Five lines of Python that plot this very table, to start from."""
    import pandas as pd

    y = next(iter(metrics(sweep)), "seconds")
    numeric = [name for name in swept(sweep) if sweep[name].dtype != object]
    x = next(iter([*numeric, *swept(sweep)]), "seed")
    number = ""
    raw = pd.read_csv(table, usecols=[x])[x]
    if numeric and not pd.api.types.is_numeric_dtype(raw):  # lists of one number
        number = f', converters={{"{x}": lambda text: float(text.strip("[]"))}}'
    return "\n".join(
        [
            "import pandas as pd",
            f'sweep = pd.read_csv("{table}"{number})',
            f'done = sweep[sweep["status"] == "{DONE}"]',
            f'curve = done.groupby("{x}")["{y}"].agg(["mean", "std"])',
            f'curve["mean"].plot(yerr=curve["std"], marker="o", ylabel="{label(y)}")',
        ]
    )


def _parameter(column: pd.Series) -> pd.Series:
    import pandas as pd

    found = [_value(content) for content in column]
    if all(isinstance(value, float) for value in found):
        return pd.Series(found, column.index, dtype=float)
    return pd.Series([text(value) for value in found], column.index, dtype=object)


def _value(content: str) -> float | str:
    """JSON as a number or a label."""
    if not content:
        return NOTHING
    try:
        value = json.loads(content)
    except json.JSONDecodeError:  # a table that somebody has edited
        return content
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value):
        return float(value)
    return value if isinstance(value, str) else json.dumps(value)


def _natural(value: Any) -> list[tuple[int, float, str]]:
    """Sort key by which `8` comes before `16` and `[8, 16]` before `[16, 32]`."""
    pieces = re.split(r"(\d+(?:\.\d+)?)", text(value) if isinstance(value, str) else repr(value))
    if not isinstance(value, str):
        return [(0, float(value), "")]
    return [(0, float(p), "") if i % 2 else (1, 0.0, p) for i, p in enumerate(pieces) if p]


def _settings(runs: pd.DataFrame, by: list[str]) -> list[tuple[list[str], pd.DataFrame]]:
    """The runs of each combination of swept values, in their order."""
    if not by:
        return [([], runs)]
    groups = sorted(runs.groupby(by), key=lambda item: [_natural(value) for value in item[0]])
    return [([text(value) for value in key], group) for key, group in groups]


def _mean(column: pd.Series) -> str:
    column = column[np.isfinite(column)]
    if column.empty:
        return NOTHING
    mean, sd = column.mean(), column.std()
    if not 1e-6 < sd < 1e6:  # one run, or no spread
        return f"{mean:.4g} ({len(column)})"
    places = max(0, 1 - int(np.floor(np.log10(sd))))  # two digits of the spread
    return f"{mean:.{places}f} ± {sd:.{places}f} ({len(column)})"


def _symbols(symbols: list[str]) -> str:
    """Up to ten side by side; more are counted."""
    if len(symbols) <= 10:
        return "".join(symbols) or NOTHING
    return " ".join(f"{symbols.count(s)}{s}" for s in dict.fromkeys(symbols))


def _code(content: str) -> str:
    """As it is, for Markdown: nothing in it is markup."""
    return "`" + content.replace("`", "'") + "`" if content else ""


def _number(value: float, form: str) -> str:
    return NOTHING if not np.isfinite(value) else f"{value:{form}}"


def _short(table: Table) -> Table:
    """The first rows, and how many there are."""
    n = len(table.rows)
    if n > MOST_ROWS:
        note = f"The first {MOST_ROWS} of {n} rows; all are in the table."
        return Table(table.header, table.rows[:MOST_ROWS], f"{table.note}\n\n{note}".strip())
    return table
