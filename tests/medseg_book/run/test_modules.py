"""The modules of a notebook, found without importing them."""

import hashlib
import importlib.machinery
import sys

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from medseg_book.page.provenance import source_hash
from medseg_book.run import modules, notebook

CELL = "class Settings:\n    steps: int = 3\n    lr: float = 0.1\n\n    def f(self): ..."
FROM = "from medseg_core.papers.{0} import experiment"


@pytest.fixture
def papers(tmp_path, monkeypatch):
    """Writes modules of papers: `papers("one", "x: int")`, `papers("one", "", "net")`."""

    def write(slug, code, module="experiment"):
        path = tmp_path / "papers" / slug / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        return path

    spec = importlib.machinery.ModuleSpec("medseg_core", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(modules.importlib.util, "find_spec", lambda name: spec)
    return write


def nb(*sources):
    return new_notebook(cells=[new_code_cell(source) for source in sources])


def test_settings_come_from_a_cell_or_from_the_experiment(papers):
    papers("one", "class Settings:\n    n: int = 1\n")
    papers("none", "def load(): ...\n")
    assert notebook.settings(nb("1", CELL)) == ["steps", "lr"]
    assert notebook.settings(nb("!ls", FROM.format("one"))) == ["n"]
    assert notebook.settings(nb(FROM.format("none"), FROM.format("one"))) == ["n"]
    assert notebook.settings(nb(FROM.format("one"), CELL)) == ["steps", "lr"]
    assert notebook.settings(nb(FROM.format("none"), FROM.format("gone"))) == []
    assert notebook.settings(nb("no python here")) == []


def test_the_hash_of_the_code_holds_every_module_of_its_paper(papers):
    paths = [papers("one", "x = 1\n"), papers("one", "y = 1\n", "net")]
    papers("two", "")
    cells = ["a = 1", FROM.format("one"), "from medseg_core.papers.one.net import y"]
    text = "\x00".join([*cells, *map(source_hash, paths)])
    assert notebook.code_hash(nb(*cells)) == hashlib.sha256(text.encode()).hexdigest()
    plain = hashlib.sha256(b"a = 1").hexdigest()
    assert notebook.code_hash(nb(" a = 1\n")) == plain


@pytest.mark.parametrize(
    "line", ["from .papers.one import net", "'import medseg_core.papers.one.net'", "import numpy"]
)
def test_what_is_of_no_paper_is_left_out(papers, line):
    papers("one", "")
    assert notebook.papers(nb(line)) == {}


def test_a_module_that_cannot_be_read_is_no_traceback(papers):
    papers("broken", "def f(:\n")
    assert notebook.papers(nb(FROM.format("broken"), FROM.format("gone"))) == {
        "medseg_core.papers.broken.experiment": ""
    }
    assert notebook.settings(nb(FROM.format("broken"))) == []


def test_modules_of_the_packages_are_found_without_importing_them():
    name = "medseg_core.papers.max_margin_crf"
    before = set(sys.modules)
    assert modules.file(name).name == "__init__.py"
    assert modules.file("medseg_core.solvers.star_dp").name == "star_dp.py"
    assert modules.file("medseg_core.gone") is None
    assert not {m for m in set(sys.modules) - before if m.startswith(name)}


def test_what_has_changed_since():
    now = modules.file_hash("medseg_book.run.errors")
    then = {"medseg_book.run.errors": now, "medseg_book.run.run": "0", "medseg_core.gone": "1"}
    assert modules.changed(then) == ["medseg_book.run.run", "medseg_core.gone"]
