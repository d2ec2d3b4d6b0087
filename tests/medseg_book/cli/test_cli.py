import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from medseg_book.cli import main


@pytest.fixture
def medseg(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(main, ["--root", str(tiny.root), *args])


def test_run_prints_claims_time_memory_and_path(medseg, tmp_path):
    done = medseg("run", "tiny", "--scale", "smoke", "--set", "lr=1e-3", "--no-progress")
    assert done.exit_code == 0, done.output
    assert "✓ holds: A < B | C" in done.output
    assert "peak memory 12 MiB" in done.output
    path = done.output.splitlines()[-1]
    assert path.startswith("runs/tiny/smoke-seed0-") and (tmp_path / path).is_file()
    assert "A < B | C" in medseg("claims", path).output
    assert "lr" in (tmp_path / path).read_text()


def test_a_failing_chapter_is_exit_code_1(medseg, tiny):
    tiny.write("# %% [markdown]\n# ## Training\n\n# %%\nraise ValueError('overrides: unknown')\n")
    done = medseg("run", "tiny", "-o", "out.ipynb", "--no-progress")
    assert done.exit_code == 1
    assert 'failed in cell 2 of 2, under "Training"' in done.output
    assert "ValueError: overrides: unknown" in done.output
    assert done.output.splitlines()[-1] == "Notebook with the traceback: out.failed.ipynb"
    assert len(done.output.splitlines()) <= 40


@pytest.mark.parametrize(
    "args, message",
    [
        (["rum", "tiny"], "unknown command 'rum'; did you mean 'run'?"),
        (["run", "tinny"], "unknown chapter 'tinny'; did you mean 'tiny'?"),
        (["run", "tiny", "-p", "sed", "1"], "unknown parameter 'sed'; did you mean 'seed'?"),
        (["run", "tiny", "--scale", "smok"], "unknown scale 'smok'; did you mean 'smoke'?"),
        (["run", "tiny", "--set", "n_train"], "--set takes KEY=VALUE, got 'n_train'"),
        (["run", "tiny", "--seed", "1", "-p", "seed", "2"], "seed is given twice"),
        (["run", "tiny", "-p", "seed", "1", "-p", "seed", "2"], "'seed' is given twice"),
        (["run", "tiny", "-o", "no/such/out.ipynb"], "does not exist"),
        (["refresh"], "name the chapters to refresh, or give --all or --stale"),
        (["refresh", "tiny", "--scale", "big"], "unknown scale 'big'"),
        (["show", "x"], "unknown chapter 'x'"),
        (["claims", "x.ipynb"], "there is no notebook 'x.ipynb'"),
    ],
)
def test_wrong_arguments_are_exit_code_2(medseg, args, message, monkeypatch):
    monkeypatch.setattr("medseg_book.run.run._papermill", lambda *a: pytest.fail("started"))
    done = medseg(*args)
    assert done.exit_code == 2 and message in done.output, done.output
    assert "Traceback" not in done.output


def test_list_show_check_and_claims_before_the_first_run(medseg):
    assert "no outputs yet" in medseg("list").output
    shown = medseg("show", "tiny").output
    assert 'scale: str = "lesson"' in shown and "smoke | lesson | paper" in shown
    checked = medseg("check")
    assert checked.exit_code == 1 and "tiny.ipynb is missing" in checked.output
    assert "no claims stored yet" in medseg("claims").output


def test_refresh_then_list_shows_it(medseg, tiny):
    assert medseg("refresh", "--stale", "--no-progress").exit_code == 0
    listed = medseg("list").output
    assert "lesson in" in listed and "holds: 1" in listed and "outdated" not in listed
    source = tiny.root / "book/surfaces/tiny.py"
    source.write_text(source.read_text().replace('"n": 3', '"n": 4'))
    assert "outdated" in medseg("list").output
    assert "The code has changed since." in medseg("show", "tiny").output
    run = medseg("run", "tiny", "-o", "out.ipynb", "--no-progress")
    assert "tiny.ipynb differs from tiny.py, which is run" in run.output
    assert '"n": 4' in Path("out.ipynb").read_text().replace('\\"', '"')


def test_help_is_light():
    code = (
        "import sys; from medseg_book.cli import main\n"
        "heavy = {'torch', 'monai', 'papermill', 'numpy', 'dask'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("missing", "extra", "args"),
    [
        ("click", "book", "['--version']"),
        ("jupytext", "book", "['list']"),
        ("papermill", "book", "['show', 'tiny']"),
        ("distributed", "sweep", "['sweep', 'tiny', '--seeds', '0']"),
    ],
)
def test_a_missing_extra_is_named_in_one_line(tiny, tmp_path, missing, extra, args):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"  # as if it were not installed
        f"sys.argv = ['medseg', '--root', {str(tiny.root)!r}, *{args}]\n"
        "from medseg_book.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert (
        last == f"medseg: {missing} is not installed; pip install 'medseg-core[{extra}]' brings it"
    )


def test_a_mistake_of_ours_keeps_its_traceback():
    code = (
        "import sys; sys.modules['medseg_book.cli'] = None\n"
        "from medseg_book.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr
