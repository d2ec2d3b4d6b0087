"""Importing the package is cheap, and its sub-modules appear when they are named."""

import subprocess
import sys
import time

import pytest

import medseg_core


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_import_loads_neither_torch_nor_monai():
    code = "import sys, medseg_core; print(*(m for m in ('torch', 'monai') if m in sys.modules))"
    assert run(code) == ""


def test_import_is_quick():
    code = (
        "import time; t = time.perf_counter(); import medseg_core; print(time.perf_counter() - t)"
    )
    seconds = []
    for _ in range(3):
        seconds.append(float(run(code)))
        if seconds[-1] < 0.3:
            break
        time.sleep(0.5)
    assert min(seconds) < 0.3


def test_checks_work_without_torch():
    code = "import sys; from medseg_core import checks; checks.choice(1, 'x', [1]); {}"
    assert run(code.format("print('torch' in sys.modules)")) == "False"


def test_packages_load_when_named():
    code = "import medseg_core; print(medseg_core.solvers.__name__, medseg_core.rng.__name__)"
    assert run(code) == "medseg_core.solvers medseg_core.rng"


def test_dir_lists_what_there_is():
    assert {"checks", "rng", "metrics", "papers"} <= set(dir(medseg_core))


@pytest.mark.parametrize("name", ["no_such_module", "_no_such_module"])
def test_unknown_names_are_attribute_errors(name):
    with pytest.raises(AttributeError, match=name):
        getattr(medseg_core, name)


def test_generators_and_readers_have_one_address():
    from medseg_core import datasets, phantoms
    from medseg_core.phantoms.cardiac import cardiac_sax

    assert phantoms.cardiac_sax is cardiac_sax
    assert "cardiac_sax" in dir(phantoms) and "ACDC" in dir(datasets)
    assert datasets.ACDC.__module__ == "medseg_core.datasets.acdc"
    for package in (phantoms, datasets):
        with pytest.raises(AttributeError, match="no_such"):
            _ = package.no_such
