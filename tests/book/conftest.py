"""The book's own extensions are importable here; the book is built once for all workers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))


def toc_pages():
    """Every page of the table of contents, read without the book's own code."""
    pages, todo = [], [yaml.safe_load((ROOT / "_toc.yml").read_text())]
    while todo:
        node = todo.pop(0)
        pages += [node[key] for key in ("root", "file") if key in node]
        todo += [child for value in node.values() if isinstance(value, list) for child in value]
    return pages


def pytest_generate_tests(metafunc):
    if "document" not in metafunc.fixturenames:
        return
    pages = toc_pages()
    if "opened" in metafunc.fixturenames:  # a page is opened once, by one of the workers
        pages = [pytest.param(page, marks=pytest.mark.xdist_group(page)) for page in pages]
    metafunc.parametrize("document", pages, scope="module")


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def site(worker_id, tmp_path_factory):
    """The folder of the built pages; where nothing changed, the build takes a few seconds."""
    (ROOT / "_build").mkdir(exist_ok=True)
    told = None  # where the workers of one run tell each other what the build has said
    if worker_id != "master":
        told = tmp_path_factory.getbasetemp().parent / "build.txt"
    with FileLock(ROOT / "_build" / "tests.lock"):
        said = told.read_text() if told and told.exists() else build()
        if told:
            told.write_text(said)
    assert not said, said
    return ROOT / "_build" / "html"


def build():
    """Build the book; what it has said if that failed, else nothing."""
    tool = Path(sys.executable).with_name("jupyter-book")
    command = [str(tool) if tool.exists() else "jupyter-book", "build", ".", "-W", "-n"]
    environment = {k: v for k, v in os.environ.items() if k != "MEDSEG_REPOSITORY_URL"}
    done = subprocess.run(
        [*command, "--keep-going"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if not done.returncode:
        return ""
    # Unchanged pages are read only once; the next build must warn again.
    shutil.rmtree(ROOT / "_build" / ".doctrees", ignore_errors=True)
    return f"the build failed:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium without network, one per worker: the only module with pages comes last.

    It may not outlive that module: its event loop would stop every kernel that starts after it.
    """
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium found; to enable the browser tests: apt install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    flags = (
        "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        " --disable-component-update --disable-sync"
    )
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=flags.split())
        yield chromium
        chromium.close()
