"""What goes wrong in a sweep or a run: said by name, and everything else unharmed."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest

from medseg_book.run import notebook
from medseg_book.run.sweeps.point import Job, run_point

from .conftest import hidden, statuses, table

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="POSIX signals"),
    pytest.mark.xdist_group("timing"),  # never two of these beside each other
]


def test_every_failure_is_named_and_the_others_are_done(medseg, tmp_path):
    """In one sweep: chapters that raise, hang, grow and die, and points that kill their worker."""
    marks = tmp_path / "marks"
    marks.mkdir()
    acts = ["assassin", "slow", "raise", "heavy", "child", "die", "orphan", "fine", "good", "well"]
    done = medseg(
        "sweep", "tiny", "-g", f"act={','.join(acts)}", "--set", f"marks={marks}",
        "--workers", 2, "--time-limit", 15, "--memory-limit", 500, "--out", "out",
    )  # fmt: skip
    assert done.exit_code == 1, done.output
    assert {point.removeprefix("act="): status for point, status in statuses("out").items()} == {
        "assassin": "lost", "slow": "time limit", "raise": "failed", "heavy": "memory limit",
        "child": "memory limit", "die": "failed", "orphan": "done", "fine": "done",
        "good": "done", "well": "done",
    }  # fmt: skip
    rows = table("out")
    for act, said in {
        "assassin": "the workers that ran it died (out of memory, or killed from outside)",
        "slow": "cell 4: TimeLimit: stopped after 15 s: the limit is 15 s",
        "raise": 'cell 4: ValueError: no, good; "quoted" and a second line',
        "heavy": "the limit is 500 MiB",
        "child": "the limit is 500 MiB",
        "die": "cell 4: DeadKernelError: the kernel died",
    }.items():
        row = rows[f"act={act}"]
        assert said in row["error"] and "\n" not in row["error"]
        assert f"{row['status']}: act={act}: {row['error']}" in done.output
        if act != "assassin":
            nb = nbformat.read(Path("out") / f"act={act}.failed.ipynb", 4)
            assert nb.metadata["medseg"]["failed"] == "4"
    assert "ValueError: no, good" in Path("out/act=raise.failed.ipynb").read_text()
    assert "4 done" in done.output and not hidden("out")

    # What has failed runs again; what is done does not.
    some = ["-g", "act=raise,fine,good", "--set", f"marks={marks}", "--out", "out"]
    again = medseg("sweep", "tiny", *some)
    assert again.exit_code == 1 and "2 done already" in again.output
    assert "1/1 act=raise: failed" in again.output
    assert len(table("out")) == 9  # the lost point has left no notebook to read its row from


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one MiB at `disk`, and a way to make it read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if (
        sys.platform != "linux"
        or os.geteuid()
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    with (folder / "ballast").open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)):
                pass
        except OSError:
            return


def test_a_full_disk(medseg, small_disk):
    out = small_disk / "out"
    out.mkdir()
    assert medseg("sweep", "tiny", "--seeds", "0", "--out", out).exit_code == 0
    stored = (out / "seed=0.ipynb").read_bytes(), (out / "sweep.csv").read_bytes()
    fill(small_disk)
    full = medseg("sweep", "tiny", "--seeds", "0..2", "--out", out, "--workers", 2)
    assert full.exit_code == 1 and "1 done already" in full.output
    assert "2/2" in full.output and full.output.count("No space left on device") >= 2
    assert ((out / "seed=0.ipynb").read_bytes(), (out / "sweep.csv").read_bytes()) == stored
    assert not hidden(out) and "Traceback" not in full.output

    run = medseg("run", "tiny", "-o", out / "run.ipynb", "--no-progress")
    assert run.exit_code == 1 and "No space left on device" in run.output
    assert len(run.output.strip().splitlines()) == 1 and not hidden(out)

    (small_disk / "ballast").unlink()
    assert medseg("sweep", "tiny", "--seeds", "0..2", "--out", out, "--workers", 2).exit_code == 0
    assert set(statuses(out).values()) == {"done"} and len(statuses(out)) == 3


def test_a_read_only_folder(medseg, small_disk, monkeypatch):
    monkeypatch.setattr("medseg_book.run.run._papermill", lambda *a: pytest.fail("started"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for args in (["sweep", "tiny", "--seeds", "0", "--out", small_disk],
                 ["sweep", "tiny", "--seeds", "0", "--out", small_disk / "new"],
                 ["run", "tiny", "-o", small_disk / "run.ipynb"]):  # fmt: skip
        done = medseg(*args)
        assert done.exit_code == 2 and "Read-only file system" in done.output, done.output
        assert str(small_disk) in done.output and "Traceback" not in done.output


def test_a_folder_without_the_right_to_write(medseg, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("the superuser writes anywhere")
    done = medseg("sweep", "tiny", "--seeds", "0", "--out", folder)
    assert done.exit_code == 2 and "cannot write into" in done.output


def test_a_full_temporary_folder(medseg, swept, small_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    fill(small_disk)
    run = medseg("run", "tiny", "-o", tmp_path / "run.ipynb", "--no-progress")
    assert run.exit_code == 1 and "No space left on device" in run.output, run.output
    assert len(run.output.strip().splitlines()) == 1
    source = swept.root / "book/surfaces/tiny.py"
    code = notebook.code_hash(notebook.read_source(source))
    outcome = run_point(Job("p", "tiny", str(source), code, {}, str(tmp_path / "p.ipynb")))
    assert outcome.status == "failed" and "No space left on device" in outcome.error
    assert not hidden(tmp_path) and not list(tmp_path.glob("*.ipynb"))
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_a_worker_with_other_code_runs_nothing(swept, tmp_path):
    source = str(swept.root / "book/surfaces/tiny.py")
    outcome = run_point(Job("p", "tiny", source, "older", {}, str(tmp_path / "p.ipynb")))
    assert outcome.status == "failed" and "not the code that the sweep was started with" in (
        outcome.error
    )
    assert not list(tmp_path.glob("*.ipynb"))
