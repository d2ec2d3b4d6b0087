"""Kill runs and sweeps at random moments; what they leave must be whole, and must go on.

python benchmarks/kill.py [--rounds 100] [--seed 0]

Runs and sweeps of a tiny chapter take turns. In each round one process gets SIGKILL: the command
itself, all of its processes at once, or one of its workers or kernels. Then every notebook of the
folder must be complete, every row of the table must agree with its notebook, and no process may be
left. At the end the same commands, left alone, must finish everything.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil

POINTS = 6
STATUSES = {"done", "failed", "lost"}
CHAPTER = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% tags=["parameters"]
scale: str = "smoke"
seed: int = 0
overrides: dict = {}

# %%
import time

time.sleep(0.3)

# %%
text = "x" * 200_000  # a notebook that is not written in an instant
print(text)

# %%
from IPython.display import display

claim = {"id": "C1", "text": "t", "verdict": "not judged", "mean": 7 * seed, "values": [7 * seed]}
payload = {"slug": "tiny", "scale": scale, "seed": seed, "device": "cpu", "extended": False,
           "overrides": {}, "claims": [claim], "metrics": {}, "core": {}}
display({"application/vnd.medseg.claims+json": payload, "text/plain": "claims"}, raw=True)
"""


class Command:
    """`medseg run` or `medseg sweep` of the tiny chapter, as a process of its own session."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder / name
        self.folder.mkdir(exist_ok=True)
        args = {
            "run": ["-o", self.folder / "run.ipynb", "--seed", "5"],
            "sweep": ["--seeds", f"0..{POINTS - 1}", "--workers", "2", "--out", self.folder],
        }[name]
        self.args = [name, "tiny", *map(str, args), "--no-progress"]
        self.book, self.log = folder / "book-of-one", folder / "log.txt"

    def start(self):
        """The process, and the mark by which all that it starts is found again."""
        mark = uuid.uuid4().hex
        code = (
            "from medseg_book.run.sweeps import command\n"
            "command._summarise = lambda *a: None\n"  # a notebook as any other, and slow
            "from medseg_book.cli import main; main()"
        )
        with self.log.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", code, "--root", str(self.book), *self.args],
                env={
                    **os.environ,
                    "MEDSEG_KILL_MARK": mark,
                    "TMPDIR": str(self.folder.parent / "tmp"),
                },
                start_new_session=True,
                stdout=log,
                stderr=log,
            )
        return process, mark

    def finish(self):
        """Left alone; how long it takes."""
        start = time.monotonic()
        process, _ = self.start()
        code = process.wait(timeout=300)
        assert code == 0, f"{self.name}: exit code {code}\n{self.log.read_text()}"
        return time.monotonic() - start

    def clear(self):
        for path in self.folder.iterdir():
            path.unlink()


def marked(mark):
    """All living processes that a command has started, orphans too."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("MEDSEG_KILL_MARK") == mark and process.status() != "zombie":
                found.append(process)
    return found


def role(process, main):
    words = " ".join(process.cmdline())
    if process.pid == main:
        return "command"
    return "kernel" if "ipykernel" in words else "worker" if "spawn_main" in words else "helper"


def strike(process, mark, rng):
    """Kill what the dice choose; who it was."""
    aim = rng.choice(["command", "all", "worker", "kernel"])
    living = marked(mark)
    with suppress(psutil.Error):
        if aim == "all":
            for one in living:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            return "all"
        hit = [one for one in living if role(one, process.pid) == aim]
        if not hit:  # none at that moment
            aim, hit = "command", [psutil.Process(process.pid)]
        rng.choice(hit).kill()
    return aim


def one_round(command, seconds, rng):
    """(moment, victim) of one kill; everything that must hold afterwards is checked."""
    process, mark = command.start()
    moment = rng.uniform(0, 1.1 * seconds)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=moment)
    victim = "nobody, it was done" if process.poll() is not None else strike(process, mark, rng)
    process.wait(timeout=300)
    end = time.monotonic() + 60
    while left := marked(mark):
        assert time.monotonic() < end, f"left running: {[p.cmdline() for p in left]}"
        time.sleep(0.1)
    return moment, victim


def whole(path):
    """The record of a notebook; an error if anything of it is missing."""
    nb = nbformat.read(path, as_version=4)
    nbformat.validate(nb)
    record = nb.metadata["medseg"]
    assert len(record["code_hash"]) == 64 and record["date"], path
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    if path.name.endswith(".failed.ipynb"):
        assert record["failed"] and record["error"], path
        return record | {"figure": ""}
    assert "failed" not in record and len(code) == 5, path  # 4 and the injected one
    assert all(cell.execution_count for cell in code), path
    assert code[-2].outputs[0].text == "x" * 200_000 + "\n", path
    data = code[-1].outputs[0].data["application/vnd.medseg.claims+json"]
    assert data["seed"] == record["seed"], path
    return record | {"figure": str(data["claims"][0]["mean"])}


def check(command):
    """Names of the complete notebooks in the folder; an error for whatever is not whole."""
    paths = [path for path in command.folder.glob("*.ipynb") if not path.name.startswith(".")]
    records = {path.name: whole(path) for path in paths}
    table = command.folder / "sweep.csv"
    if table.exists():
        header, *rows = csv.reader(table.read_text().splitlines())
        for fields in rows:
            assert len(fields) == len(header), fields
            row = dict(zip(header, fields, strict=True))
            assert row["status"] in STATUSES and row["point"] and row["code_hash"], row
            record = records.get(row["notebook"])
            if record is None:
                # A failed point has been done since, and the command died before it could say so.
                assert row["status"] != "done", row
                continue
            assert json.loads(row["param.seed"]) == record["seed"] == int(row["seed"]), row
            assert row["date"] == record["date"] or row["status"] != "lost", row
            if row["date"] == record["date"]:  # else: has been run once more
                assert row.get("claims.C1.mean", "") == record["figure"], row
    return [name for name, record in records.items() if "failed" not in record]


def main(rounds, seed):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        source = folder / "book-of-one" / "book" / "theme" / "tiny.py"
        source.parent.mkdir(parents=True)
        source.write_text(CHAPTER)
        (folder / "book-of-one" / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
        commands = [Command("run", folder), Command("sweep", folder)]
        needed = {"run": 1, "sweep": POINTS}
        seconds = {command.name: command.finish() for command in commands}
        print("left alone: " + ", ".join(f"{n} {t:.1f} s" for n, t in seconds.items()), flush=True)
        for command in commands:
            command.clear()
        print("| round | command | killed | after, s | whole notebooks |\n|---|---|---|---|---|")
        for i in range(rounds):
            command = commands[i % 2]
            moment, victim = one_round(command, seconds[command.name], rng)
            n = len(check(command))
            print(f"| {i + 1} | {command.name} | {victim} | {moment:.2f} | {n} |", flush=True)
            if n == needed[command.name]:
                command.clear()
        for command in commands:
            command.finish()
            assert len(check(command)) == needed[command.name]
            hidden = [path.name for path in command.folder.iterdir() if path.name[0] == "."]
            assert not hidden, hidden
        left = [path.name for path in (folder / "tmp").glob("medseg-run-*")]
        assert not left, left
        print(f"\n{rounds} kills: nothing half-written, no process left, all completed at the end")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    main(options.rounds, options.seed)
