import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from medseg_book.run import files
from medseg_book.run.errors import UsageError
from medseg_book.run.kernel import kernel_environment
from medseg_book.run.run import default_output, execute, prepare

SLOW = """
# %% tags=["parameters"]
overrides: dict = {}  # where the kernel writes its number

# %%
import os, pathlib, time
pathlib.Path(overrides["pid"]).write_text(str(os.getpid()))
time.sleep(120)
"""


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_run_leaves_one_whole_notebook_with_its_provenance(tiny, tmp_path, monkeypatch):
    # A kernel spec of that name which points elsewhere does no harm.
    spec = tmp_path / "share" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text('{"argv": ["/no/python"], "display_name": "P", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    out = tmp_path / "results {x}" / "out.ipynb"  # braces mean parameters to papermill
    out.parent.mkdir()
    seen = []
    result = execute(
        "tiny",
        out,
        {"scale": "smoke", "seed": 3, "overrides": {"a": 1}},
        root=tiny.root,
        progress=lambda *cell: seen.append(cell),
    )
    assert result.ok and result.output == str(out)
    assert list(out.parent.iterdir()) == [out]
    record = nbformat.read(out, 4).metadata["medseg"]
    assert (record["scale"], record["seed"], record["peak_memory_mb"]) == ("smoke", 3, 12.5)
    assert len(record["code_hash"]) == 64 and record["parameters"]["overrides"] == {"a": 1}
    assert result.claims["claims"][0]["values"] == [3.1]
    assert pickle.loads(pickle.dumps(result)).provenance == record
    assert seen[0][1:] == (4, "A tiny chapter") and seen[-1][0] == 3

    # The output of a run can be run again, with other parameters.
    again = execute(out, tmp_path / "again.ipynb", {"seed": 5})
    assert again.claims["claims"][0]["values"] == [5.1]
    assert again.provenance["code_hash"] == record["code_hash"]


def test_a_failure_is_shown_in_one_screen_and_keeps_an_earlier_output(tiny, tmp_path):
    tiny.write(
        """
# %% [markdown]
# # Fails

# %% tags=["parameters"]
seed: int = 0  # of all random numbers

# %% [markdown]
# ## Training
# ### The loop

# %%
def train(x):
    # one
    # two
    return {"a": 1}[x]


def deep(n):
    return deep(n - 1) if n else train("lost key")


deep(60)
"""
    )
    out = tmp_path / "out.ipynb"
    out.write_text("an earlier result")
    result = execute("tiny", out, {"seed": 1}, root=tiny.root)
    assert not result.ok and result.output == str(tmp_path / "out.failed.ipynb")
    assert out.read_text() == "an earlier result"
    assert "KeyError" in Path(result.output).read_text()
    assert not hidden(tmp_path)

    failure = result.failure
    assert (failure.cell, failure.n_cells, failure.heading) == (4, 4, "The loop")
    report = failure.report()
    assert len(report.splitlines()) <= 40 and all(len(x) <= 100 for x in report.splitlines())
    assert 'cell 4 of 4, under "The loop"' in report
    assert "KeyError: 'lost key'" in report
    assert '>    4 |     return {"a": 1}[x]' in report


def test_an_earlier_failure_is_forgotten_when_the_run_succeeds(tiny, tmp_path):
    (tmp_path / "out.failed.ipynb").write_text("old")
    assert execute("tiny", tmp_path / "out.ipynb", root=tiny.root).ok
    assert not (tmp_path / "out.failed.ipynb").exists()


def test_a_kernel_that_dies_is_a_failure_with_its_place(book, tmp_path):
    book.write("# %% [markdown]\n# ## Training\n\n# %%\nimport os\nos._exit(1)\n")
    result = execute("tiny", tmp_path / "out.ipynb", root=book.root)
    assert result.failure.ename == "DeadKernelError" and result.failure.heading == "Training"
    assert not hidden(tmp_path)


def test_wrong_arguments_are_refused_before_a_kernel_starts(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("medseg_book.run.run._papermill", lambda *a: pytest.fail("started"))

    def refused(message, what="tiny", out=tmp_path / "o.ipynb", **given):
        with pytest.raises(UsageError, match=message):
            execute(what, out, given, root=tiny.root)

    (tmp_path / "file").write_text("")
    refused("unknown chapter", "tinny")
    refused("unknown parameter 'sed'", sed=1)
    refused("unknown scale", scale="big")
    refused("there is no notebook", "no/such.ipynb")
    refused("does not exist", out=tmp_path / "missing" / "o.ipynb")
    refused("is not a folder", out=tmp_path / "file" / "o.ipynb")
    refused(r"a run's output is a notebook, \*.ipynb", out=tmp_path / "o.txt")
    source = tiny.root / "book/surfaces/tiny.py"
    nbformat.write(prepare(source).nb, copy := tmp_path / "copy.ipynb")
    refused("is the notebook that is to be run", copy, copy)


@pytest.mark.skipif(os.name == "nt", reason="folders have no write bit")
def test_a_read_only_folder_is_refused(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("the superuser writes anywhere")
    with pytest.raises(UsageError, match="cannot write into"):
        files.check_target(folder / "out.ipynb")


def test_default_output_says_what_ran(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared = prepare("tiny", {"scale": "smoke", "seed": 2}, root=tiny.root)
    out = default_output(prepared)
    assert out.parent == tmp_path / "runs/tiny" and out.name.startswith("smoke-seed2-2")


def test_a_url_gets_the_notebook_at_the_end(tiny, monkeypatch):
    from papermill.iorw import papermill_io

    sent = {}
    monkeypatch.setattr(papermill_io, "listdir", lambda url: [])
    monkeypatch.setattr(papermill_io, "write", lambda text, url: sent.update({url: text}))
    monkeypatch.setattr("medseg_book.run.run._papermill", _pretend)
    result = execute("tiny", "s3://bucket/out.ipynb", root=tiny.root)
    assert result.output == "s3://bucket/out.ipynb" and list(sent) == [result.output]
    assert "code_hash" in nbformat.reads(sent[result.output], 4).metadata["medseg"]


def test_a_place_that_cannot_be_reached_is_refused_before_a_kernel_starts(tiny, monkeypatch):
    from papermill.iorw import papermill_io

    def nobody(url):
        raise ConnectionError("nobody\nthere")

    monkeypatch.setattr(papermill_io, "listdir", nobody)
    monkeypatch.setattr("medseg_book.run.run._papermill", lambda *a: pytest.fail("started"))
    with pytest.raises(UsageError, match=r"reach s3://bucket/a \(ConnectionError: nobody there\)"):
        execute("tiny", "s3://bucket/a/out.ipynb", root=tiny.root)


SECRET = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN",
    "AZURE_STORAGE_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "HF_TOKEN", "JUPYTER_TOKEN",
    "CONDA_TOKEN", "WANDB_API_KEY", "https_proxy", "MY_PASSWORD", "SSH_AUTH_SOCK",
)  # fmt: skip
NEEDED = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_VISIBLE_DEVICES", "TORCH_HOME", "PYTORCH_CUDA_ALLOC_CONF",
    "MPLCONFIGDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH", "MEDSEG_DATA", "SYSTEMROOT",
)  # fmt: skip


def test_a_kernel_gets_what_its_libraries_need_and_no_key(tmp_path, monkeypatch):
    for name in (*SECRET, *NEEDED):
        monkeypatch.setenv(name, f"value of {name}")
    seen = kernel_environment(tmp_path)
    assert not set(SECRET) & set(seen)
    assert {name: seen.get(name) for name in NEEDED} == {n: f"value of {n}" for n in NEEDED}
    assert seen["IPYTHONDIR"].startswith(str(tmp_path))


def test_a_disk_that_is_full_ends_the_run_with_nothing_left(tiny, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    monkeypatch.setattr(files.os, "replace", full)
    monkeypatch.setattr("medseg_book.run.run._papermill", _pretend)
    (tmp_path / "out.ipynb").write_text("an earlier result")
    with pytest.raises(OSError, match="No space left on device"):
        execute("tiny", tmp_path / "out.ipynb", root=tiny.root)
    assert (tmp_path / "out.ipynb").read_text() == "an earlier result" and not hidden(tmp_path)


def _pretend(prepared, partial, *rest):
    nbformat.write(prepared.nb, partial)


def test_partial_files_of_dead_processes_are_removed_others_are_not(tmp_path):
    target = tmp_path / "out.ipynb"
    mine = files.partial_name(target)
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}-", "-99999999-"))
    elsewhere = mine.with_name(dead.name.replace(files._host(), "another.host"))
    other = files.partial_name(tmp_path / "out-2.ipynb")
    other = other.with_name(other.name.replace(f"-{os.getpid()}-", "-99999999-"))
    for path in (mine, dead, elsewhere, other):
        path.touch()
    assert files.clean_partials(target) == [dead]
    assert mine.exists() and elsewhere.exists() and other.exists()


def test_a_folder_is_cleared_of_what_dead_processes_left_of_any_file(tmp_path):
    mine = files.partial_name(tmp_path / "lr=0.1,seed=0.ipynb")
    table = files.partial_name(tmp_path / "sweep.csv")
    dead = [p.with_name(p.name.replace(f"-{os.getpid()}-", "-99999999-")) for p in (mine, table)]
    elsewhere = dead[0].with_name(dead[0].name.replace(files._host(), "another.host"))
    foreign = [tmp_path / name for name in (".notes.partial.txt", "sweep.csv", ".a-1-2.ipynb")]
    for path in (mine, *dead, elsewhere, *foreign):
        path.touch()
    assert sorted(files.clean_folder(tmp_path)) == sorted(dead)
    assert mine.exists() and elsewhere.exists() and all(path.exists() for path in foreign)
    assert files.clean_folder(tmp_path / "missing") == []


def test_write_whole_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    target = tmp_path / "out.ipynb"
    target.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        files.write_whole(target, "new")
    assert target.read_text() == "old" and not hidden(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_no_kernel_and_no_output(book, tmp_path, number):
    book.write(SLOW)
    out, pid = tmp_path / "out.ipynb", tmp_path / "pid"
    options = [f"--output={out}", "--set", f"pid={pid}"]
    runner = subprocess.Popen(
        [sys.executable, "-m", "medseg_book", f"--root={book.root}", "run", "tiny", *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: pid.exists() and pid.read_text())
    kernel = psutil.Process(int(pid.read_text()))
    runner.send_signal(number)
    _, errors = runner.communicate(timeout=30)
    code = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert runner.returncode == code
    wait_for(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE)
    assert not out.exists() and not (tmp_path / "out.failed.ipynb").exists()
    if number == signal.SIGKILL:
        assert len(hidden(tmp_path)) == 1
        assert files.clean_partials(out)
    else:
        assert "Traceback" not in errors
        assert "no output was written" in errors
    assert not hidden(tmp_path)


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
