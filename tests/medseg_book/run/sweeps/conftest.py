"""A tiny chapter that can fail in every way, and its sweeps through the command line."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from medseg_book.cli import main
from medseg_book.run.sweeps import command

from ...conftest import PARAMETERS

SETTINGS = """
# %%
from dataclasses import dataclass

@dataclass(frozen=True)
class Settings:
    lr: float = 0.1
    n_train: int = 4
    act: str = ""  # what goes wrong
    wait: float = 0.0  # seconds
    marks: str = ""  # a folder to leave traces in
"""

ACT = """
# %%
import os, pathlib, signal, subprocess, sys, time

act, marks = overrides.get("act"), pathlib.Path(overrides.get("marks") or ".")
time.sleep(overrides.get("wait", 0))
if act == "raise":
    raise ValueError("no, good; \\"quoted\\"\\nand a second line")
if act == "slow":
    time.sleep(300)
if act == "heavy":
    hoard = bytearray(os.urandom(1)) * (600 * 2**20); time.sleep(300)
if act == "child":
    code = "import time; hoard = bytearray(b'x') * (600 * 2**20); time.sleep(300)"
    subprocess.run([sys.executable, "-c", code])
if act == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if act == "orphan" and not (marks / "orphaned").exists():
    (marks / "orphaned").touch()
    os.kill(os.getppid(), signal.SIGKILL); time.sleep(300)
if act == "assassin":
    os.kill(os.getppid(), signal.SIGKILL); time.sleep(300)
if act == "environment":
    print(dict(os.environ)); raise RuntimeError(str(dict(os.environ)))
"""

RESULT = """
# %% [markdown]
# ## Claims

# %%
from IPython.display import display

score = 10 * seed + 100 * overrides.get("lr", 0.1) + overrides.get("n_train", 4)
claim = {"id": "C1", "text": "A < B", "verdict": "not judged", "mean": score, "low": None,
         "high": score + 1, "n": 1, "unit": "seed", "values": [score], "bound": {"at_least": 0}}
payload = {"slug": "tiny", "scale": scale, "seed": seed, "device": "cpu", "claims": [claim],
           "extended": extended, "overrides": overrides, "core": {},
           "metrics": {"dice": score / 7}, "seconds": 1, "peak_memory_mb": 12.5}
display({"application/vnd.medseg.claims+json": payload, "text/plain": "claims"}, raw=True)
"""

CHAPTER = PARAMETERS + SETTINGS + ACT + RESULT
# The command without the summary's notebook, which has tests of its own.
COMMAND = """
from medseg_book.run.sweeps import command
command._summarise = lambda *a: None
from medseg_book.cli import main
main()
"""


@pytest.fixture
def swept(book, tmp_path, monkeypatch):
    """The book with that chapter; the current folder is the temporary one."""
    book.write(CHAPTER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "_summarise", lambda *a: None)
    return book


@pytest.fixture
def medseg(swept):
    """`medseg` in this process; what it returns has `.output` and `.exit_code`."""
    return lambda *args: CliRunner().invoke(main, ["--root", str(swept.root), *map(str, args)])


@pytest.fixture
def start(swept):
    """`medseg` as a process of its own session, like one started in a terminal of its own."""
    started = []

    def begin(*args, **env):
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "--root", str(swept.root), *map(str, args)],
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **env},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        for one in [*children(process.pid), process]:
            if one.pid != os.getpid() and psutil.pid_exists(one.pid):
                one.kill()
        process.wait()


def children(pid):
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def gone(processes):
    """Whether none of them runs any more."""
    return not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def table(folder):
    """point -> row, read with nothing of ours."""
    with (Path(folder) / "sweep.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["point"] for row in rows}) == len(rows)
    return {row["point"]: row for row in rows}


def statuses(folder):
    return {point: row["status"] for point, row in table(folder).items()}


def hidden(folder):
    return [path.name for path in Path(folder).iterdir() if path.name.startswith(".")]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
