"""Limits of a run: broken ones are named, met ones do nothing."""

import os
import subprocess
import sys
import time

import nbformat
import psutil
import pytest

from medseg_book.run import limits
from medseg_book.run.errors import UsageError
from medseg_book.run.limits import Limits, Watchdog, memory_mb
from medseg_book.run.run import execute

pytestmark = pytest.mark.xdist_group("timing")  # never beside another of these

HANGS = """
# %% [markdown]
# ## Training

# %%
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid}")
time.sleep(300)
"""


@pytest.mark.parametrize("value", [0, -1, float("nan"), 0.0])
def test_a_limit_is_positive(value):
    with pytest.raises(UsageError, match="time limit takes a number > 0, got"):
        Limits(seconds=value)
    with pytest.raises(UsageError, match="memory limit takes a number > 0, got"):
        Limits(memory_mb=value)


def test_a_run_over_its_time_fails_with_all_that_it_started(book, tmp_path):
    book.write(HANGS)
    out = tmp_path / "out.ipynb"
    result = execute("tiny", out, root=book.root, cwd=tmp_path, limits=Limits(seconds=8))
    assert result.failure.ename == "TimeLimit" and result.failure.heading == "Training"
    assert result.failure.cell == 2 and "the limit is 8 s" in result.failure.evalue
    record = nbformat.read(result.output, 4).metadata["medseg"]
    assert record["failed"] == "2" and record["error"] == result.failure.summary
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"
    assert not out.exists() and not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_limits_that_are_kept_change_nothing(tiny, tmp_path):
    result = execute("tiny", tmp_path / "out.ipynb", root=tiny.root, limits=Limits(600, 100_000))
    assert result.ok and "failed" not in result.provenance


@pytest.fixture
def process():
    """A process that takes 100 MiB, and a child of it that takes 60 more."""
    hoard = "hoard = bytearray(b'x') * (%d * 2**20); print(len(hoard), flush=True); "
    child = hoard % 60 + "input()"
    code = "import subprocess, sys; " + hoard % 100
    code += f"subprocess.run([sys.executable, '-c', {child!r}])"
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout.readline() and parent.stdout.readline()  # both have taken it
    yield psutil.Process(parent.pid)
    for one in [*psutil.Process(parent.pid).children(), parent]:
        one.kill()
    parent.communicate()


def test_memory_counts_children(process):
    assert 160 <= memory_mb(process) < 230  # two interpreters are on top of it
    (child,) = process.children()
    assert 60 <= memory_mb(child) < 100


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells what is shared")
def test_shared_memory_is_counted_once():
    code = """
import mmap, os, sys
shared = mmap.mmap(-1, 80 * 2**20)
shared.write(bytes(80 * 2**20))
if os.fork() == 0:
    shared.seek(0); sum(shared.read(80 * 2**20)[::4096])
print(os.getpid(), flush=True); sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout.readline() and parent.stdout.readline()
    assert 80 <= memory_mb(psutil.Process(parent.pid)) < 140
    parent.communicate()


def test_a_watchdog_kills_and_says_why(process, monkeypatch):
    monkeypatch.setattr(limits, "POLL_SECONDS", 0.01)
    child = process.children()[0]
    with Watchdog(Limits(memory_mb=50)) as watchdog:
        watchdog.watch(child.pid)
        end = time.monotonic() + 30
        while watchdog.broken is None:
            assert time.monotonic() < end
            time.sleep(0.01)
    name, said = watchdog.broken
    assert name == "MemoryLimit" and said.endswith("MiB: the limit is 50 MiB")
    child.wait(timeout=30)


def test_a_watchdog_without_limits_watches_nothing():
    with Watchdog(Limits()) as watchdog:
        watchdog.watch(os.getpid())
        assert watchdog._thread is None
    assert watchdog.broken is None


def test_a_process_that_is_gone_breaks_no_limit():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    with Watchdog(Limits(1e-9, 1e-9)) as watchdog:
        watchdog.watch(done.pid)
        watchdog._thread.join(30)
    assert watchdog.broken is None
