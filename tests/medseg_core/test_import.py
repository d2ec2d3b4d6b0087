"""Importing the package is cheap, and its sub-modules appear when they are named."""

import subprocess
import sys
import time

import pytest


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_import_loads_neither_torch_nor_monai():
    code = "import sys, medseg_core; print(*(m for m in ('torch', 'monai') if m in sys.modules))"
    assert run(code) == ""


def test_claims_can_be_read_without_torch():
    code = "import sys; from medseg_core import claims; print('torch' in sys.modules)"
    assert run(code) == "False"


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


def test_sub_modules_load_when_named():
    code = "import medseg_core; print(medseg_core.checks.choice(1, 'x', [1]), medseg_core.rng)"
    assert run(code).startswith("1 <module 'medseg_core.rng'")


def test_sub_packages_are_lazy_too():
    assert "t_interval" in run("import medseg_core; print(dir(medseg_core.metrics.stats))")


def test_dir_lists_sub_modules_and_hides_private_ones():
    import medseg_core

    assert {"claims", "rng", "metrics", "__version__"} <= set(dir(medseg_core))
    assert "_lazy" not in set(dir(medseg_core)) - set(vars(medseg_core))


@pytest.mark.parametrize("name", ["no_such_module", "_no_such_module"])
def test_unknown_names_are_attribute_errors(name):
    import medseg_core

    with pytest.raises(AttributeError, match=name):
        getattr(medseg_core, name)


def test_a_sub_module_that_cannot_import_says_what_it_lacks(tmp_path, monkeypatch):
    package = tmp_path / "lazy_probe"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from medseg_core._lazy import attach\n__getattr__, __dir__ = attach(__name__)\n"
    )
    (package / "needy.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    import lazy_probe

    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        lazy_probe.needy  # noqa: B018


def test_packages_hand_out_what_their_modules_hold():
    import medseg_core
    from medseg_core.phantoms.cardiac import cardiac_sax

    assert medseg_core.phantoms.cardiac_sax is cardiac_sax
    assert {"cardiac", "cardiac_sax"} <= set(dir(medseg_core.phantoms))
    assert medseg_core.datasets.ACDC.__module__ == "medseg_core.datasets.acdc"
    assert medseg_core.physics.noise.blur.__name__ == "blur"
    with pytest.raises(AttributeError, match="no_such"):
        _ = medseg_core.phantoms.no_such
