"""The modules of a notebook, found without importing them."""

import hashlib
import sys

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from medseg_book.page.provenance import source_hash
from medseg_book.run import modules, notebook

CELL = "class Settings:\n    steps: int = 3\n    lr: float = 0.1\n\n    def f(self): ..."
FROM = "from medseg_core.papers.{0} import experiment"


@pytest.fixture
def papers(tmp_path, monkeypatch):
    """Writes experiment modules: `papers("a", "x: int")`."""

    def write(slug, code):
        path = tmp_path / slug / "experiment.py"
        path.parent.mkdir()
        path.write_text(code)
        return path

    monkeypatch.setattr(modules, "file", lambda name: _file(tmp_path, name))
    return write


def _file(root, name):
    path = root / name.split(".")[2] / "experiment.py"
    return path if path.is_file() else None


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


def test_the_hash_of_the_code_holds_its_experiments(papers):
    path = papers("one", "x = 1\n")
    cells = ["a = 1", FROM.format("one"), FROM.format("one")]
    text = "\x00".join([*cells, source_hash(path)])
    assert notebook.code_hash(nb(*cells)) == hashlib.sha256(text.encode()).hexdigest()
    plain = hashlib.sha256(b"a = 1").hexdigest()
    assert notebook.code_hash(nb(" a = 1\n")) == plain  # as before there were experiments


def test_what_is_no_experiment_is_left_out(papers):
    papers("one", "")
    for line in (
        "from medseg_core.papers.one import net",
        "import medseg_core.papers.one.experiment_2",
        "from .one import experiment",
        "'from medseg_core.papers.one import experiment'",
    ):
        assert notebook.experiments(nb(line)) == {}, line


def test_an_experiment_that_cannot_be_read_is_no_traceback(papers):
    papers("broken", "def f(:\n")
    assert notebook.experiments(nb(FROM.format("broken"), FROM.format("gone"))) == {
        "medseg_core.papers.broken.experiment": "",
        "medseg_core.papers.gone.experiment": "",
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
