import csv
import io
import json

import nbformat
import pandas as pd
import pytest

from medseg_book.run.notebook import CLAIMS_MIME, RUN_MIME
from medseg_book.run.sweeps import table
from medseg_book.run.sweeps.point import Outcome

RECORD = {
    "slug": "tiny", "code_hash": "abc", "scale": "smoke", "seed": 3, "device": "cpu",
    "parameters": {"seed": 3, "data_dir": None, "overrides": {"lr": 1e-3, "loss": "dice, x"}},
    "seconds": 1.5, "peak_memory_mb": 12.5, "date": "2026-01-02T03:04:05+00:00",
}  # fmt: skip
CLAIMS = {
    "metrics": {"dice": 0.5},
    "claims": [
        {"id": "C2", "verdict": "holds", "mean": 0.1, "low": 0.05, "high": 0.15},
        {"id": "C1", "verdict": "noted", "mean": None},
    ],
}


def notebook(record=RECORD, **payloads):
    cells = [
        nbformat.v4.new_code_cell(
            "", outputs=[nbformat.v4.new_output("display_data", {mime: data})]
        )
        for mime, data in payloads.items()
    ]
    return nbformat.v4.new_notebook(cells=cells, metadata={"medseg": record} if record else {})


def test_the_row_of_a_notebook_made_by_hand():
    run = {"device_name": "Some GPU"}
    row = table.row("p", "p.ipynb", notebook(**{RUN_MIME: run, CLAIMS_MIME: CLAIMS}))
    assert row == {
        "point": "p", "slug": "tiny", "status": "done", "scale": "smoke", "seed": 3,
        "device": "Some GPU", "seconds": 1.5, "peak_memory_mb": 12.5,
        "date": "2026-01-02T03:04:05+00:00", "code_hash": "abc", "notebook": "p.ipynb",
        "error": "", "param.seed": "3", "param.data_dir": "null", "param.overrides.lr": "0.001",
        "param.overrides.loss": '"dice, x"', "metrics.dice": 0.5, "claims.C2.verdict": "holds",
        "claims.C2.mean": 0.1, "claims.C2.low": 0.05, "claims.C2.high": 0.15,
        "claims.C1.verdict": "noted", "claims.C1.mean": None, "claims.C1.low": None,
        "claims.C1.high": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "ename, status",
    [("ValueError", "failed"), ("TimeLimit", "time limit"), ("MemoryLimit", "memory limit")],
)
def test_the_row_of_a_failed_notebook(ename, status):
    record = RECORD | {"failed": "4", "ename": ename, "error": "cell 4: x"}
    row = table.row("p", "p.failed.ipynb", notebook(record))
    assert (row["status"], row["error"], row["device"]) == (status, "cell 4: x", "cpu")
    assert not [name for name in row if name.startswith(("metrics.", "claims."))]


def test_a_notebook_of_nobody_s_run_has_no_row():
    assert table.row("p", "p.ipynb", notebook(None)) is None
    assert table.row("p", "p.ipynb", notebook({"slug": "by hand"})) is None


def test_parameters_of_every_kind():
    assert table.parameter_columns({}) == {}
    assert table.parameter_columns({"seed": 1, "overrides": None}) == {"param.seed": "1"}
    columns = table.parameter_columns({"overrides": {"n": [1, 2], "on": True, "x": {"a": None}}})
    assert {k: json.loads(v) for k, v in columns.items()} == {
        "param.overrides.n": [1, 2], "param.overrides.on": True, "param.overrides.x": {"a": None}
    }  # fmt: skip


def test_columns_stand_by_kind_and_rows_by_name():
    a = {"point": "b", "status": "done", "metrics.dice": 1, "param.seed": "0"}
    b = {"point": "a", "status": "failed", "claims.C1.mean": 2, "param.lr": "1", "metrics.x": 3}
    text = table.write([a, b])
    header, first, second = csv.reader(io.StringIO(text))
    assert header == [
        "point", "slug", "status", "scale", "seed", "device", "seconds", "peak_memory_mb", "date",
        "code_hash", "notebook", "error", "param.lr", "param.seed", "metrics.x", "metrics.dice",
        "claims.C1.mean",
    ]  # fmt: skip
    assert (first[0], second[0]) == ("a", "b")
    assert table.write([b, a]) == text


def test_awkward_values_come_back_as_they_were():
    said = 'cell 1: "no", she said;\nünd möre, €'
    row = {"point": "p", "error": said, "param.x": json.dumps('a "b", c\nd'), "metrics.y": None}
    text = table.write([row])
    (back,) = table.parse(text)
    assert back["error"] == said and json.loads(back["param.x"]) == 'a "b", c\nd'
    assert back["metrics.y"] == "" and table.write([back]) == text
    frame = pd.read_csv(io.StringIO(text))
    assert frame["error"][0] == said and frame["metrics.y"].isna().all()


def test_an_empty_table_has_a_header_only():
    assert table.write([]).strip() == ",".join(table.FIRST) and table.parse(table.write([])) == []


def test_a_lost_point_keeps_its_parameters():
    outcome = Outcome("p", "lost", 1.26, error="died")
    row = table.lost(outcome, "tiny", {"seed": 4, "overrides": {"lr": 1}}, "abc")
    assert row["status"] == "lost" and row["notebook"] == "" and row["seconds"] == 1.3
    assert (row["seed"], row["param.seed"], row["param.overrides.lr"]) == (4, "4", "1")


@pytest.mark.parametrize(
    "file, point",
    [
        ("lr=0.1.ipynb", "lr=0.1"),
        ("lr=0.1.failed.ipynb", "lr=0.1"),
        ("sweep.csv", None),
        ("notes.txt", None),
    ],
)
def test_the_point_of_a_file(file, point):
    assert table.point_of(file) == point
