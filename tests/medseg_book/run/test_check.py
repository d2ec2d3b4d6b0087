"""A chapter that fulfils every rule, then one breach at a time."""

import base64
import importlib.machinery

import nbformat
import pytest
from nbformat.v4 import new_output

from medseg_book.page import provenance
from medseg_book.run import cells, modules, notebook
from medseg_book.run import check as check_module
from medseg_book.run.catalogue import find_chapter
from medseg_book.run.check import check

SOURCE = """
# %% [markdown]
# # Tiny {cite:p}`knuth1974, known`
# :::{admonition} At a glance
# :::

# %% tags=["parameters"]
scale: str = "lesson"  # smoke | lesson | paper
seed: int = 0  # of all random numbers
device: str = "auto"  # auto | cpu | cuda
data_dir: str = None  # a folder
extended: bool = False  # more
overrides: dict = {}  # settings

# %% [markdown]
# ## The problem

# %% mystnb={"image": {"alt": "A dot"}} tags=["thumbnail"]
figure()

# %% [markdown]
# ## The method
# ## Training
# ## Evaluation
# ## Explore

# %%
widgets()

# %% [markdown]
# ## Claims

# %%
claims.report()

# %% [markdown]
# ## Exercises
# ### Exercise 1 (think)
# :::{dropdown} Solution
# So.
# :::
# ### Exercise 2 (code)

# %% tags=["hide-input"]
solution = 1

# %% [markdown]
# ### Exercise 3 (experiment)

# %% tags=["hide-cell"]
solution = 2

# %% [markdown]
# ## On real data
"""
STATE = "application/vnd.jupyter.widget-state+json"
WEBP = base64.b64encode(b"x" * 100).decode()


def stored(chapter):
    """What a lesson run of the source would leave."""
    nb = notebook.copy(chapter.code)
    for count, cell in enumerate(notebook.code_cells(nb), start=1):
        cell.execution_count = count
        if "figure()" in cell.source:
            cell.outputs = [new_output("display_data", {"image/png": WEBP})]
        elif "widgets()" in cell.source:
            views = [{cells.VIEW: {"model_id": id}} for id in ("a", "b")]
            cell.outputs = [new_output("display_data", view) for view in views]
        elif "report()" in cell.source:
            payload = {"claims": [{"id": "C1", "verdict": "holds"}], "core": {}}
            cell.outputs = [new_output("display_data", {notebook.CLAIMS_MIME: payload})]

    def model(name, **state):
        return {"model_name": name, "state": state}

    models = {
        "a": model("VBoxModel", children=["IPY_MODEL_s"]),
        "s": model("StackModel", children=["IPY_MODEL_i"]),
        "i": model("ImageModel", tooltip="A dot, moved"),
        "b": model("VBoxModel", children=["IPY_MODEL_t"]),
        "t": model("StackModel", children=[]),
    }
    nb.metadata["widgets"] = {STATE: {"state": models}}
    nb.metadata["medseg"] = {
        "code_hash": notebook.code_hash(nb),
        "cells": notebook.cell_hashes(nb),
        "papers": notebook.papers(nb),
        "scale": "lesson",
        "seed": 0,
        "device": "cpu",
        "extended": False,
    }
    return nb


@pytest.fixture
def chapter(book):
    book.write(SOURCE)
    (book.root / "_toc.yml").write_text(
        "root: book/index\nparts:\n  - chapters:\n      - file: book/surfaces/tiny\n"
    )
    (book.root / "book/references.bib").write_text("@book{knuth1974,\n}\n@misc{ known,\n}\n")
    thumbnail = book.root / "book/_static/thumbnails/tiny.webp"
    thumbnail.parent.mkdir(parents=True)
    thumbnail.touch()
    chapter = find_chapter(book.root, "tiny")
    nbformat.write(stored(chapter), chapter.stored)
    return find_chapter(book.root, "tiny")


def breaches(chapter):
    return check(find_chapter(chapter.root, "tiny")).problems


def test_a_chapter_that_fulfils_every_rule(chapter):
    assert breaches(chapter) == []


# What is changed in the source (and run again), the rule, words of its message.
SOURCES = [
    ("## Training", "## Trainings", "headings", '"## Training" must stand once, found 0'),
    (
        "# ## Training\n# ## Evaluation",
        "# ## Evaluation\n# ## Training",
        "headings",
        "in this order",
    ),
    ("At a glance", "In short", "glance", "At a glance"),
    ('tags=["parameters"]', "", "parameters", "tagged `parameters`, found 0"),
    ("seed: int = 0", "seed: int = 1", "parameters", "default of 'seed' must be 0, got 1"),
    ("seed: int = 0", "seed = 0", "parameters", "'seed' needs an annotation"),
    ("  # of all random numbers", "", "parameters", "'seed' needs a comment"),
    ("extended: bool = False  # more\n", "", "parameters", "'extended' is missing"),
    ("### Exercise 2 (code)", "### Another", "exercises", "found 2"),
    ("Exercise 2 (code)", "Exercise 2 (think)", "exercises", "no exercise to code"),
    ("{dropdown}", "{note}", "exercises", '"Exercise 1 (think)" has no folded solution'),
    ('tags=["hide-cell"]', "", "exercises", '"Exercise 3 (experiment)" has no folded'),
    (' tags=["thumbnail"]', "", "thumbnail", "tagged `thumbnail`, found 0"),
    ("solution = 1", "x = 1\n" * 41, "cell-length", "has 41 lines, at most 40"),
    ("solution = 1", "W.Play()", "static", 'cell 10 ("Exercise 2 (code)") uses Play'),
    ("solution = 1", "s.observe(f)", "static", "uses observe"),
    ("solution = 1", "from tqdm.notebook import tqdm", "static", "uses tqdm.notebook"),
    ("solution = 1", "%time\ninteract(f)", "static", "uses interact"),
    ("known`", "unknown`", "citations", "'unknown' is cited"),
    ('"alt": "A dot"', '"alt": " "', "alt-text", 'cell 4 ("The problem") shows an image'),
    ("# ## The problem", "# ## The problem\n# ![](a.png)", "alt-text", "a picture without text"),
]


@pytest.mark.parametrize("old, new, rule, message", SOURCES)
def test_a_source_that_breaks_a_rule(chapter, old, new, rule, message):
    source = chapter.source.read_text()
    assert old in source
    chapter.source.write_text(source.replace(old, new))
    changed = find_chapter(chapter.root, "tiny")
    nbformat.write(stored(changed), changed.stored)
    found = breaches(chapter)
    assert any(id == rule and message in said for id, said in found), found
    assert {id for id, _ in found} == {rule}


def output(nb, index, *outputs):
    nb.cells[index].outputs = list(outputs)


def models(nb):
    return nb.metadata["widgets"][STATE]["state"]


OUTPUTS = [
    (lambda nb: nb.cells.pop(), "pair", "stands only in tiny.py"),
    (lambda nb: nb.cells[5].metadata.update(tags=["x"]), "pair", 'cell 6 ("Explore") differs'),
    (lambda nb: nb.metadata.pop("medseg"), "stale", "does not say which code"),
    (lambda nb: nb.cells[3].update(execution_count=None), "executed", "cell 4"),
    (
        lambda nb: output(nb, 5, new_output("error", ename="E", evalue="no", traceback=[])),
        "executed",
        "stopped with E: no",
    ),
    (
        lambda nb: output(nb, 1, new_output("stream", name="stderr", text="UserWarning: old")),
        "executed",
        "writes to stderr: UserWarning: old",
    ),
    (
        lambda nb: nb.metadata["medseg"].update(scale="smoke"),
        "lesson",
        "must come from scale = 'lesson', got 'smoke'",
    ),
    (lambda nb: nb.metadata["medseg"].update(device="cuda"), "lesson", "device = 'cpu'"),
    (lambda nb: output(nb, 7), "claims", "no claims are stored"),
    (lambda nb: models(nb)["t"].update(model_name="BoxModel"), "widgets", "found 1"),
    (lambda nb: models(nb)["i"]["state"].clear(), "alt-text", "1 widget images have no `tooltip`"),
    (
        lambda nb: output(nb, 1, new_output("stream", text="x" * 1_000_001)),
        "size",
        "weigh 1.00 MB, at most 1 MB",
    ),
    (
        lambda nb: output(nb, 1, new_output("stream", text="in /home/ann/data")),
        "paths",
        "a path of this machine: /home/ann/data",
    ),
    (
        lambda nb: output(nb, 1, new_output("display_data", {"text/html": r"C:\Users\a"})),
        "paths",
        "C:",
    ),
]


@pytest.mark.parametrize("change, rule, message", OUTPUTS)
def test_outputs_that_break_a_rule(chapter, change, rule, message):
    nb = chapter.outputs
    change(nb)
    nbformat.write(nb, chapter.stored)
    found = breaches(chapter)
    assert any(id == rule and message in said for id, said in found), found


def test_stale_outputs_name_the_first_changed_cell(chapter):
    source = chapter.source.read_text().replace("solution = 1", "solution = 3")
    chapter.source.write_text(source)
    found = dict(breaches(chapter))
    assert "outputs of tiny.ipynb are older" in found["stale"]
    assert 'first change is at cell 10 ("Exercise 2 (code)")' in found["stale"]
    assert 'cell 10 ("Exercise 2 (code)") differs' in found["pair"]
    # A pair brought in step without running it is still stale.
    nb = chapter.outputs
    nb.cells[9].source = "solution = 3"
    nbformat.write(nb, chapter.stored)
    assert [id for id, _ in breaches(chapter)] == ["stale"]


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """The experiment module of a paper, in a package of that name which is never imported."""
    folder = tmp_path / "site" / "medseg_core" / "papers" / "tiny"
    folder.mkdir(parents=True)
    (folder.parents[1] / "__init__.py").touch()
    path = folder / "experiment.py"
    path.write_text("class Settings:\n    lr: float = 0.1\n\nraise RuntimeError('imported')\n")
    spec = importlib.machinery.ModuleSpec(
        "medseg_core", None, origin=str(folder.parents[1] / "__init__.py")
    )
    monkeypatch.setattr(modules.importlib.util, "find_spec", lambda name: spec)
    return path


IMPORTS = [
    "import medseg_core.papers.tiny.experiment as e",
    "from medseg_core.papers.tiny import experiment",
    "from medseg_core.papers.tiny.experiment import Settings",
    "%time\nfrom medseg_core.papers.tiny import (\n    net,\n    experiment as e,\n)",
]


@pytest.mark.parametrize("line", IMPORTS)
def test_an_experiment_that_has_changed_makes_the_outputs_stale(chapter, experiment, line):
    chapter.source.write_text(chapter.source.read_text().replace("solution = 1", line))
    changed = find_chapter(chapter.root, "tiny")
    nbformat.write(stored(changed), changed.stored)
    assert breaches(chapter) == []
    experiment.write_text("# a comment\n" + experiment.read_text())
    assert breaches(chapter) == []
    experiment.write_text(experiment.read_text().replace("0.1", "0.2"))
    assert breaches(chapter) == [
        (
            "stale",
            "the outputs of tiny.ipynb are older than its code; "
            "medseg_core/papers/tiny/experiment.py has changed",
        )
    ]
    experiment.unlink()
    assert [rule for rule, _ in breaches(chapter)] == ["stale"]


def test_prose_may_change_without_a_new_run(chapter):
    for path in (chapter.source, chapter.stored):
        path.write_text(path.read_text().replace("So.", "Thus."))
    assert breaches(chapter) == []


def test_what_stands_around_a_chapter(chapter):
    (chapter.root / "_toc.yml").write_text("root: book/index\n")
    chapter.thumbnail.unlink()
    (chapter.root / "book/references.bib").unlink()
    found = breaches(chapter)
    assert [id for id, _ in found] == ["thumbnail", "toc", "citations", "citations"]


def test_a_chapter_without_outputs_is_judged_by_its_source(book):
    book.write(SOURCE.replace("## Explore", "## Play"))
    problems = check(find_chapter(book.root, "tiny")).problems
    assert problems[0] == ("pair", "tiny.ipynb is missing: medseg refresh tiny")
    assert {id for id, _ in problems[1:]} == {"headings", "toc", "citations"}


def test_pages_have_fewer_rules(book):
    book.write("# %% [markdown]\n# # Page\n", "page", "guide")
    chapter = find_chapter(book.root, "page")
    nbformat.write(stored(chapter), chapter.stored)
    assert {id for id, _ in check(find_chapter(book.root, "page")).problems} == {"toc"}


def test_changed_modules_are_a_note(chapter):
    nb = chapter.outputs
    core = {"medseg_book.run.errors": "0", "medseg_core.gone": "0"}
    nb.cells[7].outputs[0].data[notebook.CLAIMS_MIME]["core"] = core
    nbformat.write(nb, chapter.stored)
    verdict = check(find_chapter(chapter.root, "tiny"))
    said = "changed since its last run: medseg_book.run.errors, medseg_core.gone"
    assert verdict.ok and verdict.notes[-1] == said
    same = {"medseg_book.run.check": provenance.source_hash(check_module.__file__)}
    nb.cells[7].outputs[0].data[notebook.CLAIMS_MIME]["core"] = same
    nbformat.write(nb, chapter.stored)
    notes = check(find_chapter(chapter.root, "tiny")).notes
    assert not any(note.startswith("changed") for note in notes)


def test_pictures_are_not_searched_for_paths():
    picture = new_output("display_data", {"image/png": "AAA/tmp/AAA"})
    assert not any("tmp" in content for content in cells.readable(picture))


@pytest.mark.parametrize(
    "content, found",
    [
        ("see /tmp/x/y.png now", "/tmp/x/y.png"),
        ("https://host/home/page", None),
        ("a/home/b and ../tmp/x", None),
        (r"$X:\mathbb{R}$", None),
        ("below /srv/clone/book", "/srv/clone"),
    ],
)
def test_absolute_paths(content, found, tmp_path):
    root = type(tmp_path)("/srv/clone")
    assert cells.absolute_path(content, root) == found


def test_a_pair_that_jupytext_calls_different(chapter):
    """In the order that nbformat stores, a pair opens whichever file is the newer one."""
    path = chapter.source
    text = path.read_text()
    tags, alt = 'tags=["thumbnail"]', 'mystnb={"image": {"alt": "A dot"}}'
    turned = text.replace(f"{alt} {tags}", f"{tags} {alt}")
    assert turned != text
    path.write_text(turned)
    (message,) = [message for rule, message in breaches(chapter) if rule == "jupytext"]
    assert "thumbnail" in message
