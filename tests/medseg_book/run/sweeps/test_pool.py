"""Where points run: what a kernel sees of its machine, what SLURM would be told."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import dask.config
import pytest

from medseg_book.run.errors import UsageError
from medseg_book.run.sweeps import pool, slurm
from medseg_book.run.sweeps.point import cores, thread_limits

from .conftest import PARAMETERS, statuses

WITNESS = """
# %%
import json, os, pathlib, time
names = ("IPYTHONDIR", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
seen = {name: os.environ.get(name) for name in names} | {"cwd": os.getcwd(), "pid": os.getpid()}
folder = pathlib.Path(overrides["marks"])
pathlib.Path("dropped.txt").touch()
(folder / f"{seed}.part").write_text(json.dumps(seen))
(folder / f"{seed}.part").rename(folder / f"{seed}.json")
end = time.monotonic() + 60
while len(list(folder.glob("*.json"))) < 2 and time.monotonic() < end:
    time.sleep(0.05)  # so that both run at once
"""


def test_kernels_side_by_side_share_nothing(medseg, swept, tmp_path, monkeypatch):
    swept.write(PARAMETERS + WITNESS)
    monkeypatch.setattr(pool, "cores", lambda: 7)
    monkeypatch.setattr(pool, "gpus", lambda device: ["0", "1"])
    marks = tmp_path / "marks"
    marks.mkdir()
    done = medseg("sweep", "tiny", "--seeds", "0,1", "--set", f"marks={marks}", "--out", "out")
    assert done.exit_code == 0, done.output
    assert statuses("out") == {"seed=0": "done", "seed=1": "done"}
    one, two = (json.loads((marks / f"{seed}.json").read_text()) for seed in (0, 1))
    for name in ("IPYTHONDIR", "cwd", "pid"):
        assert one[name] != two[name], name
    assert {one["CUDA_VISIBLE_DEVICES"], two["CUDA_VISIBLE_DEVICES"]} == {"0", "1"}
    for seen in (one, two):
        assert seen["OMP_NUM_THREADS"] == seen["MKL_NUM_THREADS"] == "3"
        assert not Path(seen["cwd"]).exists() and not Path(seen["IPYTHONDIR"]).exists()
    assert not list(tmp_path.rglob("dropped.txt"))


@pytest.mark.parametrize(
    "device, devices, n_cores, workers",
    [
        ("auto", [], 1, 1),
        ("auto", [], 2, 1),
        ("cpu", [], 9, 4),
        ("auto", ["0", "1", "2"], 2, 3),
        ("cuda:1", [], 16, 1),
        ("mps", [], 8, 1),
    ],
)
def test_workers_by_default(monkeypatch, device, devices, n_cores, workers):
    monkeypatch.setattr(pool, "cores", lambda: n_cores)
    assert pool.default_workers(device, devices) == workers


def test_gpus_that_can_be_shared_out(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert pool.gpus("auto") == pool.gpus("cuda") == ["0", "1", "2"]
    assert pool.gpus("cpu") == pool.gpus("cuda:1") == pool.gpus("mps") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5ebe9d61")
    assert pool.gpus("auto") == ["2", "GPU-5ebe9d61"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pool.gpus("auto") == []


def test_threads_are_never_zero():
    assert set(thread_limits(0).values()) == {"1"} and thread_limits(4)["OMP_NUM_THREADS"] == "4"
    assert 1 <= cores() <= (os.cpu_count() or 1)


SLURM = """
jobs: 3
cores: 4
memory: 16GB
walltime: 02:00:00
queue: gpu
account: lab
log-directory: logs
job-extra-directives: ["--gres=gpu:1"]
job-script-prologue: ["source .venv/bin/activate"]
"""


def test_the_job_script_is_shown_without_slurm(medseg, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no sbatch, whatever this machine has
    Path("cluster.yaml").write_text(SLURM)
    shown = medseg("sweep", "tiny", "--seeds", "0..4", "--slurm", "cluster.yaml", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "5 points in " in shown.output
    script = shown.output[shown.output.index("#!") :].splitlines()
    for line in (
        "#SBATCH -p gpu",
        "#SBATCH -A lab",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH -t 02:00:00",
        "#SBATCH --gres=gpu:1",
        "export OMP_NUM_THREADS=4",
        "source .venv/bin/activate",
    ):
        assert line in script, line
    (memory,) = [line for line in script if line.startswith("#SBATCH --mem=")]
    assert memory.removeprefix("#SBATCH --mem=") in ("15G", "16G", "15259M")  # 16 GB in GiB
    (worker,) = [line for line in script if " tcp://" in line]
    assert "--nthreads 1 " in worker and "--memory-limit 0" in worker
    assert script.index("source .venv/bin/activate") < script.index(worker)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_dask_jobqueue_does_not_take_ctrl_c(tmp_path):
    """Its import sets handlers that end the process with exit code 0."""
    code = (
        "import signal; from medseg_book.run.sweeps import slurm\n"
        "before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]\n"
        "slurm.script('cluster.yaml')\n"
        "assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]"
    )
    (tmp_path / "cluster.yaml").write_text("memory: 1GB\n")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_a_slurm_time_stays_a_time(tmp_path):
    """YAML 1.1 reads 02:00:00 as a number in base 60."""
    path = tmp_path / "cluster.yaml"
    for time in ("02:00:00", "12:30:00", "1-00:00:00", '"0:30:00"', "90"):
        path.write_text(f"memory: 1GB\nwalltime: {time}\n")
        assert f"#SBATCH -t {time.strip(chr(34))}\n" in slurm.script(path)


def test_the_settings_that_the_guide_shows_are_taken(tmp_path):
    guide = Path(__file__).parents[4] / "book/guide/sweeps.md"
    (text,) = re.findall(r"```yaml\n(.*?)```", guide.read_text(encoding="utf-8"), re.S)
    path = tmp_path / "cluster.yaml"
    path.write_text(text.replace("slurm-logs", str(tmp_path)).replace("# interface: ib0", ""))
    shown = slurm.script(path)
    assert "--nthreads 1 " in shown and "#SBATCH --cpus-per-task=4\n" in shown
    assert {"jobs", "memory", "interface"} <= set(re.findall(r"^(?:# )?([\w-]+): ", text, re.M))


def test_a_site_has_settings_of_its_own(tmp_path):
    """Those in Dask's own configuration hold where the file says nothing."""
    path = tmp_path / "cluster.yaml"
    path.write_text("memory: 1GB\nscheduler-options: {port: 0}\n")
    site = {"jobqueue.slurm.account": "lab", "jobqueue.slurm.job-script-prologue": ["module load"]}
    slurm._jobqueue()
    with dask.config.set(site):
        shown = slurm.script(path)
        assert "#SBATCH -A lab\n" in shown
        assert shown.index("export OMP_NUM_THREADS=1\n") < shown.index("module load\n")
    assert "#SBATCH -A" not in slurm.script(path)  # and what the file says ends with the sweep
    assert dask.config.get("jobqueue.slurm.memory") is None


@pytest.mark.parametrize(
    "text, message",
    [
        ("memory: 1GB\nqeue: gpu\n", "unknown setting in .* 'qeue'; did you mean 'queue'"),
        ("memory: 1GB\nprocesses: 4\n", "unknown setting in .* 'processes'"),
        ("jobs: 3\n", "cluster.yaml: You must specify .* memory"),
        ("memory: 1GB\njobs: 0\n", "jobs takes a whole number > 0, got 0"),
        ("memory: 1GB\njobs: many\n", "jobs takes a whole number > 0, got 'many'"),
        ("memory: 1GB\ncores: true\n", "cores takes a whole number > 0, got True"),
        ("memory: 1GB\njob-extra-directives: --gres=gpu:1\n", "directives takes a list of lines"),
        ("memory: 1GB\nscheduler-options: x\n", "scheduler-options takes names and values"),
        ("memory: 1GB\ninterface: ib77\n", "cluster.yaml: .*'ib77' is not .* interface.*'lo'"),
        ("memory: lots\n", "cluster.yaml: Could not interpret 'lots'"),
        ("", "takes lines `name: value`, got None"),
        ("- a\n", r"takes lines `name: value`, got \['a'\]"),
        ("a: [\n", "--slurm"),
    ],
)
def test_wrong_slurm_settings_are_refused_by_name(tmp_path, text, message):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        slurm.script(path)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number, error", [("SIGINT", KeyboardInterrupt), ("SIGTERM", SystemExit)])
def test_a_signal_waits_until_the_workers_stand(number, error):
    ask = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"

    def blocked():
        command = [sys.executable, "-c", ask]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    before = signal.signal(signal.SIGTERM, lambda *a: sys.exit(143))
    try:
        stood = []
        with pytest.raises(error), pool._undisturbed():
            os.kill(os.getpid(), getattr(signal, number))
            stood.append(blocked())  # what starts now does not hear Ctrl-C either
        assert stood == ["True"] and blocked() == "False"
    finally:
        signal.signal(signal.SIGTERM, before)
