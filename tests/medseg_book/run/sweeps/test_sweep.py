"""A sweep from the command line: what runs, what stays, what the table says."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from medseg_book.run.sweeps import command, sweep
from medseg_book.run.sweeps.grid import Point
from medseg_book.run.sweeps.point import Outcome
from medseg_book.run.sweeps.storage import Folder

from .conftest import CHAPTER, hidden, statuses, table

GRID = ["-g", "lr=0.1,0.5", "-g", "n_train=4,8", "--seeds", "0..10..10", "--scale", "smoke"]


def read_anew(path):
    """(lr, n_train, seed) and the claim's figure of a notebook, past all of our readers."""
    nb = nbformat.read(path, 4)
    (injected,) = [c for c in nb.cells if "injected-parameters" in c.metadata.get("tags", [])]
    given: dict = {}
    exec(injected.source, given)
    assert all(c.execution_count for c in nb.cells if c.cell_type == "code")
    data = nb.cells[-1].outputs[0]["data"]["application/vnd.medseg.claims+json"]
    over = given["overrides"]
    return (over["lr"], over["n_train"], given["seed"]), data["claims"][0]["mean"]


def times(folder):
    return {p.name: p.stat().st_mtime_ns for p in Path(folder).glob("*.ipynb")}


def test_a_sweep_and_all_that_follows(medseg, swept, tmp_path):
    first = medseg("sweep", "tiny", *GRID, "--workers", 2)
    assert first.exit_code == 0, first.output
    out = Path("runs/tiny/sweep-smoke")
    assert "8 done, in " in first.output and first.output.strip().endswith(f"{out}/sweep.csv")
    rows, seen = table(out), set()
    assert len(rows) == 8 and not hidden(out)
    for row in rows.values():
        (lr, n_train, seed), figure = read_anew(out / row["notebook"])
        seen.add((lr, n_train, seed))
        assert row["point"] == f"lr={lr},n_train={n_train},seed={seed}"
        assert json.loads(row["param.overrides.lr"]) == lr
        assert json.loads(row["param.overrides.n_train"]) == n_train
        assert int(row["seed"]) == json.loads(row["param.seed"]) == seed
        assert json.loads(row["param.scale"]) == row["scale"] == "smoke"
        assert float(row["claims.C1.mean"]) == figure == 10 * seed + 100 * lr + n_train
        assert float(row["metrics.dice"]) == figure / 7 and row["claims.C1.low"] == ""
        assert (row["status"], row["error"], row["peak_memory_mb"]) == ("done", "", "12.5")
    assert len(seen) == 8

    before, csv = times(out), (out / "sweep.csv").read_text()
    again = medseg("sweep", "tiny", *GRID, "--workers", 2)
    assert again.exit_code == 0 and "8 done already" in again.output
    assert times(out) == before and (out / "sweep.csv").read_text() == csv

    (out / "lr=0.1,n_train=8,seed=10.ipynb").unlink()
    assert medseg("sweep", "tiny", *GRID, "--workers", 2).exit_code == 0
    changed = {name for name, at in times(out).items() if at != before.get(name)}
    assert changed == {"lr=0.1,n_train=8,seed=10.ipynb"} and len(table(out)) == 8

    # Prose may change; code may not.
    before = times(out)
    swept.write(CHAPTER.replace("# A tiny chapter", "# Another title"))
    assert (
        "8 done already"
        in medseg("sweep", "tiny", *GRID, "--dry-run").output
        + medseg("sweep", "tiny", *GRID).output
    )
    assert times(out) == before
    swept.write(CHAPTER.replace("score / 7", "score / 8"))
    some = ["-g", "lr=0.1", "-g", "n_train=4", "--seeds", "0,10", "--scale", "smoke"]
    outdated = medseg("sweep", "tiny", *some, "--workers", 2)
    assert outdated.exit_code == 0 and "2 done with other code, which run again" in outdated.output
    changed = {name for name, at in times(out).items() if at != before[name]}
    assert changed == {"lr=0.1,n_train=4,seed=0.ipynb", "lr=0.1,n_train=4,seed=10.ipynb"}
    assert len({row["code_hash"] for row in table(out).values()}) == 2

    other = medseg("sweep", "tiny", *some, "-p", "extended", "true")
    assert other.exit_code == 2 and "with other parameters (extended)" in other.output
    assert "name another folder with --out" in other.output


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "nothing to sweep: give -g NAME=VALUE,VALUE or --seeds 0..4"),
        (["-g", "lr"], "-g takes NAME=VALUE,VALUE, got 'lr'"),
        (["-g", "=1"], "-g takes NAME=VALUE,VALUE, got '=1'"),
        (["-g", "lr=1", "-g", "lr=2"], "-g lr is given twice"),
        (["-g", "ln=1"], "unknown parameter or setting 'ln'; did you mean 'lr'?"),
        (["-g", "lr=1", "--scale", "smoek"], "unknown scale 'smoek'; did you mean 'smoke'?"),
        (["-g", "seed=a"], "seed takes int, got 'a'"),
        (["-g", "lr=1", "-p", "sede", "1"], "unknown parameter 'sede'"),
        (["--seeds", "4..0"], "goes from 4 down to 0"),
        (["--seeds", "1", "--workers", "2", "--slurm", "x"], "give one of --workers"),
        (["--seeds", "1", "--slurm", "no.yaml"], "--slurm no.yaml"),
        (["--seeds", "1", "--scheduler", "host:8786"], "takes an address such as tcp://host:8786"),
        (["--seeds", "1", "--time-limit", "0"], "time limit takes a number > 0, got 0.0"),
        (["--seeds", "1", "--memory-limit", "-1"], "memory limit takes a number > 0, got -1.0"),
        (["--seeds", "1", "--out", "tiny.txt/x"], "cannot make the folder"),
        (["--seeds", "1", "--out", "bad://x/y"], "cannot reach bad://x/y"),
    ],
)
def test_wrong_arguments_run_nothing(medseg, args, message, monkeypatch):
    Path("tiny.txt").touch()
    monkeypatch.setattr("medseg_book.run.sweeps.pool.here", lambda *a: pytest.fail("started"))
    done = medseg("sweep", "tiny", *args)
    assert done.exit_code == 2 and message in done.output, done.output
    assert "Traceback" not in done.output


def test_a_dry_run_shows_the_points_and_touches_nothing(medseg, tmp_path):
    shown = medseg("sweep", "tiny", "-g", "lr=1,2", "--seeds", "0,1", "--dry-run", "--out", "out")
    assert shown.exit_code == 0 and "4 points in " in shown.output
    assert re.findall(r"^  (\S+)$", shown.output, re.M) == [
        "lr=1,seed=0", "lr=1,seed=1", "lr=2,seed=0", "lr=2,seed=1"
    ]  # fmt: skip
    assert not Path("out").exists()


class Client:
    """A Dask client whose futures are done one look after they were asked for."""

    def __init__(self, workers):
        self.workers, self.open, self.most, self.order = workers, set(), 0, []

    def nthreads(self):
        if not self.workers:
            raise OSError("nobody there")
        return dict.fromkeys(range(self.workers), 1)

    def submit(self, run_point, job, key, pure):
        assert key not in self.order and not pure
        self.order.append(key)
        self.open.add(key)
        self.most = max(self.most, len(self.open))
        return Future(self, job, key)


class Future:
    def __init__(self, client, job, key):
        self.client, self.job, self.key, self.cancelled = client, job, key, False

    def done(self):
        return True

    def result(self):
        if self.job.given["seed"] == 3:
            raise KeyError("Dask's own")
        return Outcome(self.job.name, "done")

    def release(self):
        self.client.open.discard(self.key)

    def cancel(self, force):
        self.cancelled = force
        self.client.open.discard(self.key)


@pytest.fixture
def plan(swept, tmp_path):
    (tmp_path / "out").mkdir()
    points = [Point(f"seed={i}", "tiny", {"seed": i}) for i in range(7)]
    source = swept.root / "book/surfaces/tiny.py"
    return sweep.plan(points, {"tiny": source}, Folder(tmp_path / "out"))


def test_no_worker_has_a_queue(plan, monkeypatch):
    """What Dask has put behind a point that kills its worker would be blamed for it."""
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0)
    client = Client(2)
    ended = {outcome.name: outcome.status for outcome in sweep.run(plan, client)}
    assert client.most == 2 and not client.open
    assert [key.rpartition("-")[0] for key in client.order] == [f"seed={i}" for i in range(7)]
    assert ended == {f"seed={i}": "lost" if i == 3 else "done" for i in range(7)}
    assert "KeyError" in plan.rows["seed=3"]["error"]
    assert set(table(plan.folder.place)) == set(ended)  # no notebook: the outcome gives the row


def test_who_stops_reading_cancels_the_rest(plan):
    client = Client(3)
    for _ in sweep.run(plan, client):
        break
    assert not client.open and len(client.order) == 3


def test_a_scheduler_that_goes_away_is_named(plan):
    with pytest.raises(sweep.UsageError, match="the Dask scheduler has gone"):
        list(sweep.run(plan, Client(0)))


def test_the_later_of_a_done_and_a_failed_notebook_counts(tmp_path):
    def put(name, date, **more):
        nb = nbformat.v4.new_notebook()
        record = {"slug": "tiny", "code_hash": "x", "date": f"2026-01-01T00:00:{date}+00:00"}
        nb.metadata["medseg"] = record | more
        nbformat.write(nb, tmp_path / name)

    failed = {"failed": "1", "ename": "ValueError"}
    put("a.ipynb", "01")
    put("a.failed.ipynb", "02", **failed)
    put("b.ipynb", "02")
    put("b.failed.ipynb", "01", **failed)
    put("c.failed.ipynb", "01", **failed)
    (tmp_path / "d.ipynb").write_text("{ half a note")
    (tmp_path / "e.ipynb").write_text("")
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "summary.ipynb")
    rows = sweep.stored_rows(Folder(tmp_path))
    assert {k: v["status"] for k, v in rows.items()} == {"a": "failed", "b": "done", "c": "failed"}


def test_all_notebooks_side_by_side(medseg, swept):
    swept.write(CHAPTER, "quick")
    swept.write(CHAPTER.replace('act, marks = overrides.get("act")', 'act, marks = "raise"'), "bad")
    swept.write("# %% [markdown]\n# # A page without scales\n", "page")
    done = medseg("run", "--all", "--scale", "smoke", "--workers", "2", "--out", "out")
    assert done.exit_code == 1, done.output
    assert statuses("out") == {"tiny": "done", "quick": "done", "bad": "failed"}
    assert "2 done, 1 failed, in " in done.output and "slowest: " in done.output
    assert "failed: bad: cell 4: ValueError: no, good" in done.output
    assert 'raise ValueError("no, good' in done.output  # the failing line, in one screen
    assert {p.name for p in Path("out").iterdir()} == {
        "tiny.ipynb", "quick.ipynb", "bad.failed.ipynb", "sweep.csv"
    }  # fmt: skip


def test_long_notebooks_come_first(swept, monkeypatch):
    from medseg_book.run.catalogue import find_chapters

    for slug, seconds in {"a": 5, "b": 300, "c": None, "d": 20}.items():
        source = swept.write(CHAPTER, slug)
        if seconds:
            nb = nbformat.v4.new_notebook(metadata={"medseg": {"seconds": seconds}})
            nbformat.write(nb, source.with_suffix(".ipynb"))
    seen = {}
    monkeypatch.setattr(
        command, "run", lambda points, chapters, out, options: seen.update(points=points, out=out)
    )
    command.run_all(find_chapters(swept.root), {"scale": "smoke"}, None, command.Options())
    assert [p.slug for p in seen["points"]][:3] == ["b", "d", "a"] and len(seen["points"]) == 5
    assert re.fullmatch(r"runs/all-smoke-\d{8}T\d{6}Z", seen["out"])
    assert all(p.given == {"scale": "smoke"} for p in seen["points"])


@pytest.mark.parametrize(
    "args, message",
    [
        (["run"], "name the chapter to run, or give --all"),
        (["run", "tiny", "--all"], "neither a chapter nor --output"),
        (["run", "--all", "-o", "x.ipynb"], "neither a chapter nor --output"),
        (["run", "tiny", "--workers", "2"], "belong to --all"),
        (["run", "tiny", "--out", "x"], "belong to --all"),
    ],
)
def test_run_refuses_what_does_not_go_together(medseg, args, message):
    done = medseg(*args)
    assert done.exit_code == 2 and message in done.output
