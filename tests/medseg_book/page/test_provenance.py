import importlib
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import medseg_core
from medseg_book.page import claims, provenance, scales


def test_versions_are_those_of_the_loaded_packages():
    found = provenance.versions()
    assert list(found) == ["python", "torch", "numpy", "monai", "medseg_core"]
    assert found["numpy"] == np.__version__
    assert found["medseg_core"] == medseg_core.__version__
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_device_name_is_never_empty():
    assert provenance.device_name(torch.device("cpu"))


def test_peak_memory_grows_with_what_is_used_and_is_this_process_alone():
    code = """
from medseg_book.page import provenance
before = provenance.peak_memory_mb()
block = bytearray(64 * 2**20)
block[::4096] = b"x" * len(block[::4096])
print(before, provenance.peak_memory_mb())
"""
    held = np.ones(2**26)  # 512 MiB in this process, none of the other's business
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    before, after = map(float, out.stdout.split())
    assert after - before >= 60
    if sys.platform == "linux":
        assert after < 400
    assert provenance.peak_memory_mb() > 400
    assert held[0] == 1


CODE = """
def f(x: int = 3) -> str:
    return f"{x!r:>{x}} # no comment" + 'a'
"""


@pytest.fixture
def hashed(tmp_path):
    def of(code):
        path = tmp_path / "module.py"
        path.write_text(code, encoding="utf-8")
        return provenance.source_hash(path)

    return of


@pytest.mark.parametrize(
    "code",
    [
        '"""A docstring."""\n' + CODE,
        CODE.replace("-> str:", '-> str:\n    """Another."""'),
        CODE + "\n# a comment\n",
        CODE.replace("'a'", '"a"').replace("x: int = 3", "x : int=3"),
    ],
)
def test_hash_ignores_docstrings_comments_and_layout(hashed, code):
    assert hashed(code) == hashed(CODE)


@pytest.mark.parametrize("old_new", [("'a'", "'b'"), ("= 3", "= 4"), ("f(x", "g(x"), ("!r", "!s")])
def test_hash_sees_a_changed_program(hashed, old_new):
    assert hashed(CODE.replace(*old_new)) != hashed(CODE)


def test_hash_does_not_depend_on_the_python_version(hashed):
    # Made once with Python 3.11; the other versions' test runs compare.
    assert hashed(CODE) == "2ccad3aeafb47dc7"


def test_core_hashes_are_those_of_the_loaded_modules():
    found = provenance.core_hashes()
    assert list(found) == sorted(found)
    assert found["medseg_book.page.provenance"] == provenance.source_hash(provenance.__file__)
    assert all(name.split(".")[0] in ("medseg_core", "medseg_book") for name in found)


@dataclass(frozen=True)
class Settings:
    steps: int = 1


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """A module of the package that is loaded from a file of its own."""
    name = "medseg_core.made_up"
    path = tmp_path / "made_up.py"
    path.write_text(CODE, encoding="utf-8")
    monkeypatch.setattr(medseg_core, "__path__", [*medseg_core.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    yield module, path
    del sys.modules[name], medseg_core.made_up
    provenance._seen.pop(name, None)


def test_core_hashes_are_of_the_code_that_was_loaded(loaded):
    module, path = loaded
    first = provenance.core_hashes()[module.__name__]
    assert first == provenance.source_hash(path)
    path.write_text(CODE.replace("= 3", "= 4"), encoding="utf-8")
    assert provenance.core_hashes()[module.__name__] == first
    importlib.reload(module)
    second = provenance.source_hash(path)
    assert provenance.core_hashes()[module.__name__] == second != first
    path.unlink()
    assert provenance.core_hashes()[module.__name__] == second


@pytest.mark.parametrize("content", [None, "def f(:"])
def test_a_module_without_readable_source_is_named_without_a_hash(loaded, content):
    module, path = loaded
    path.unlink() if content is None else path.write_text(content, encoding="utf-8")
    assert provenance.core_hashes()[module.__name__] == ""


def test_a_run_records_the_code_that_it_began_with(loaded):
    module, path = loaded
    then = provenance.source_hash(path)
    table = dict.fromkeys(scales.SCALES, Settings())
    scales.begin("demo", table, scale="smoke", seed=0, device="cpu", overrides=None)
    path.unlink()
    assert claims.payload()["core"][module.__name__] == then
