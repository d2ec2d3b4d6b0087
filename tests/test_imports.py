"""Who may import whom (`BELOW`), read from every import of both packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEAVES = {"rng", "checks", "stacking"}
# What each part of the science may import of the others; its own modules are always allowed.
BELOW = {
    "papers": {"solvers", "models", "losses", "metrics", "physics", "training", "phantoms",
               "datasets"},
    "phantoms": {"physics"},
    "models": {"solvers"},
    "training": {"solvers", "losses", "metrics", "physics"},
    "datasets": set(),
    "solvers": set(),
    "losses": set(),
    "metrics": set(),
    "physics": set(),
    "rng": set(),
    "checks": set(),
    "stacking": set(),
}  # fmt: skip


def module_name(path, root):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def packages(root):
    """Every module of the two packages below `root`: name -> file."""
    paths = (p for name in ("medseg_core", "medseg_book") for p in (root / name).rglob("*.py"))
    return {module_name(path, root): path for path in paths}


def above(name):
    """`a.b.c` -> a.b.c, a.b, a."""
    parts = name.split(".")
    return {".".join(parts[:n]) for n in range(1, len(parts) + 1)}


def imported(path, name, known):
    """(module, whether only for type checking) of each import, those inside functions too.

    `from a import b` is the module a.b where there is one, and a otherwise.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            inner = [f"{base}.{alias.name}" for alias in node.names]
            found = [module if module in known else base for module in inner]
        else:
            continue
        for module in found:
            yield module, node in checking


def breaches(root):
    """What breaks a rule below `root`, one line each."""
    files = packages(root)
    known = set().union(*map(above, files))
    for name, path in sorted(files.items()):
        for module, _ in imported(path, name, known):
            if why := forbidden(name.split("."), module.split(".")):
                yield f"{name} imports {module}: {why}"


def forbidden(importer, module):
    """Why the module (as its parts) may not be imported, or None."""
    if importer[0] == "medseg_book":
        return None
    if module[0] == "medseg_book":
        return "the science knows nothing of the book's machine"
    layer = importer[1] if len(importer) > 1 else ""
    if module[0] != "medseg_core":
        allowed = {"torch", "numpy", *sys.stdlib_module_names}
        outside = layer in LEAVES and module[0] not in allowed
        return "a leaf imports torch and numpy only" if outside else None
    other = module[1] if len(module) > 1 else ""
    if not layer:  # the package itself, which hands out all its parts
        return None
    if not other:
        return "name the module that is meant"
    if layer == other == "papers":
        same = importer[2:3] == module[2:3]
        return None if same else "a paper never imports another paper"
    if layer == other or other in LEAVES:
        return None
    return None if other in BELOW[layer] else f"{layer} may not import {other}"


def circles(root):
    """Modules that import each other, directly or around; type checking aside."""
    files = packages(root)
    graph = {
        name: {m for m, checking in imported(path, name, files) if m in files and not checking}
        for name, path in files.items()
    }

    def reach(start):
        seen, todo = set(), [start]
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    return sorted(name for name in graph if name in reach(name))


def test_every_import_follows_the_rules():
    found = list(breaches(ROOT))
    assert not found, "\n".join(found)


def test_no_modules_import_each_other():
    assert circles(ROOT) == []


def test_every_part_of_the_science_has_its_rule():
    parts = {name.split(".")[1] for name in packages(ROOT) if name.startswith("medseg_core.")}
    assert parts == set(BELOW)


def test_pages_import_only_the_two_packages():
    """A chapter's own neighbours, the benchmarks or the tests are no library of it."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    folders |= {path.stem for path in (ROOT / "book").rglob("*.py")}
    sources = [p for p in (ROOT / "book").rglob("*.py") if not set(p.parts) & {"_ext", "_static"}]
    assert len(sources) > 5
    for path in sources:
        for module, _ in imported(path, "page", {}):
            top = module.split(".")[0]
            assert top in {"medseg_core", "medseg_book"} or top not in folders, f"{path}: {module}"


@pytest.fixture
def tree(tmp_path):
    """Writes modules below a root of their own: `tree("medseg_core.rng", "import torch")`."""

    def write(name, code):
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("name", "code", "why"),
    [
        ("medseg_core.models.a", "from medseg_book.page import bars", "the science knows nothing"),
        ("medseg_core.models.a", "def f():\n    import medseg_book", "the science knows nothing"),
        ("medseg_core.papers.a.x", "from medseg_core.papers.b import y", "another paper"),
        ("medseg_core.papers.a.x", "from ..b import y", "another paper"),
        ("medseg_core.papers.a.x", "from medseg_core.papers import b", "another paper"),
        ("medseg_core.datasets.a", "import medseg_core.physics.noise", "datasets may not import"),
        ("medseg_core.datasets.a", "from ..physics import noise", "datasets may not import"),
        ("medseg_core.solvers.a", "from medseg_core import models", "solvers may not import"),
        ("medseg_core.solvers.a", "import medseg_core", "name the module"),
        ("medseg_core.phantoms.a.b", "from ...training import fit", "phantoms may not import"),
        ("medseg_core.checks", "import scipy", "a leaf imports torch and numpy only"),
        ("medseg_core.rng", "def f():\n    from monai.utils import x", "a leaf imports torch"),
        ("medseg_core.checks", "from medseg_core.models import a", "checks may not import models"),
    ],
)
def test_a_forbidden_import_is_found(tree, name, code, why):
    for other in ("papers.b.y", "papers.b.__init__", "models.b"):
        tree(f"medseg_core.{other}", "")
    (found,) = breaches(tree(name, code))
    assert found.startswith(f"{name} imports ") and why in found


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("medseg_core.papers.a.x", "from . import y\nfrom medseg_core.papers.a.z import w"),
        ("medseg_core.papers.a.x", "from medseg_core.phantoms import cardiac\nimport scipy"),
        ("medseg_core.rng", "import math, zlib, numpy as np\nimport torch"),
        ("medseg_core.datasets.a", "from medseg_core import checks\nimport nibabel"),
        ("medseg_book.page.a", "import medseg_core.models.unet, matplotlib, medseg_book.run"),
    ],
)
def test_an_allowed_import_is_none(tree, name, code):
    for other in ("checks", "phantoms.cardiac", "models.unet"):
        tree(f"medseg_core.{other}", "")
    assert list(breaches(tree(name, code))) == []


def test_a_circle_is_found_and_one_of_types_is_none(tree):
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import a\n"
    tree("medseg_core.models.a", "from . import b")
    tree("medseg_core.models.b", "def f():\n    from .c import x")
    root = tree("medseg_core.models.c", typed)
    assert circles(root) == []
    tree("medseg_core.models.c", "from medseg_core.models.a import y")
    assert circles(root) == [f"medseg_core.models.{x}" for x in "abc"]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("medseg_core", {"torch", "monai", "numpy"}),
        ("medseg_core.solvers.star_dp", {"monai", "medseg_book", "papermill", "ipywidgets",
                                         "matplotlib", "IPython", "pandas"}),
        ("medseg_book.cli", {"torch", "monai", "numpy", "papermill", "distributed"}),
    ],
)  # fmt: skip
def test_what_an_import_does_not_load(module, absent):
    if module.startswith("medseg_book"):
        pytest.importorskip("click")  # of the extra [book]
    code = f"import sys, {module}; print(*({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
