"""Ctrl-C, SIGTERM and SIGKILL in the middle of a sweep, and a cluster started by hand."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from .conftest import children, gone, hidden, statuses, wait_for

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="POSIX signals"),
    pytest.mark.xdist_group("timing"),  # never two of these beside each other
]

POINTS = ["-g", "wait=0,0.1,30,31,0.2", "--workers", 2, "--out", "out"]


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_sweep_that_is_told_to_stop_ends_cleanly(start, medseg, number, code):
    sweep = start("sweep", "tiny", *POINTS)
    # Both quick points are done, both workers are at a slow one.
    wait_for(lambda: Path("out").is_dir() and len(list(Path("out").glob("wait=0*.ipynb"))) == 2)
    wait_for(lambda: len(hidden("out")) == 2)
    processes = children(sweep.pid)
    assert len(processes) >= 4  # two workers, two kernels
    if number == signal.SIGINT:
        os.killpg(sweep.pid, number)  # as a terminal does
    else:
        sweep.send_signal(number)  # as a batch system does
    said, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == code, said
    assert "Traceback" not in said and "Error" not in said
    assert "stopped: 2 of 5 points are done; the same command does the rest" in said
    wait_for(lambda: gone(processes))
    assert not hidden("out")
    assert statuses("out") == {"wait=0": "done", "wait=0.1": "done"}
    at = Path("out/wait=0.ipynb").stat().st_mtime_ns
    if number == signal.SIGINT:
        rest = medseg("sweep", "tiny", *POINTS[:1], "wait=0,0.1,0.2", *POINTS[2:])
        assert rest.exit_code == 0 and "2 done already" in rest.output
        assert Path("out/wait=0.ipynb").stat().st_mtime_ns == at and len(statuses("out")) == 3


def test_a_sweep_that_is_killed_leaves_nothing_that_is_half(start, medseg):
    sweep = start("sweep", "tiny", *POINTS)
    wait_for(lambda: Path("out").is_dir() and len(list(Path("out").glob("wait=0*.ipynb"))) == 2)
    wait_for(lambda: len(hidden("out")) == 2)
    processes = children(sweep.pid)
    sweep.kill()
    sweep.wait()
    wait_for(lambda: gone(processes))  # workers and kernels end by themselves
    assert len(hidden("out")) == 2
    rest = medseg("sweep", "tiny", "-g", "wait=0,0.1,0.2", "--out", "out")
    assert rest.exit_code == 0 and "2 done already" in rest.output
    assert not hidden("out") and len(statuses("out")) == 3


def guide_commands():
    """The commands of the guide's section on a Dask cluster, as a reader would type them."""
    guide = Path(__file__).parents[4] / "book/guide/sweeps.md"
    return re.findall(r"^(?:\w+=\S+ )*dask .*$", guide.read_text(encoding="utf-8"), re.M)


def test_a_cluster_started_by_hand_and_one_worker_killed(start, swept, tmp_path):
    scheduler, *workers = guide_commands()
    running = []

    def begin(command):
        variables = dict(re.findall(r"(\w+)=(\S+) ", command.split("dask ")[0]))
        words = re.sub(r"(\w+=\S+ )*dask ", "", command).replace("node1", "127.0.0.1").split()
        words = [port if word == "8786" else word for word in words]
        words = [re.sub(":8786$", f":{port}", word) for word in words]
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words],
            env={**os.environ, **variables}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        running.append(psutil.Process(process.pid))
        return process

    port = str(free_port())
    try:
        begin(scheduler)
        first, *_ = [begin(workers[0]) for _ in range(2)]
        address = f"tcp://127.0.0.1:{port}"
        seeds = ["--seeds", "0..5", "--set", "wait=1", "--out", tmp_path / "out"]
        sweep = start("sweep", "tiny", *seeds, "--scheduler", address)
        wait_for(lambda: len(list((tmp_path / "out").glob("*.ipynb"))) >= 2)
        for process in [psutil.Process(first.pid), *children(first.pid)]:
            process.kill()
        said, _ = sweep.communicate(timeout=120)
        assert sweep.returncode == 0, said
        assert set(statuses("out").values()) == {"done"} and len(statuses("out")) == 6
        assert "6 done" in said and not hidden("out")
    finally:
        for process in running:
            for one in [*children(process.pid), process]:
                if one.is_running():
                    one.kill()


def test_nobody_answers(medseg, monkeypatch):
    monkeypatch.setattr("medseg_book.run.sweeps.pool.CONNECT_SECONDS", 1)
    address = f"tcp://127.0.0.1:{free_port()}"
    said = medseg("sweep", "tiny", "--seeds", "0", "--scheduler", address)
    assert said.exit_code == 2 and f"no Dask scheduler answers at {address}" in said.output
    assert "Traceback" not in said.output


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
