"""A tiny book in a temporary folder."""

import signal
import textwrap
from pathlib import Path

import pytest

# A shell's background job is started deaf to Ctrl-C, and so would be all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

HEADER = """\
# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---
"""

PARAMETERS = """
# %% [markdown]
# # A tiny chapter

# %% tags=["parameters"]
scale: str = "lesson"  # smoke | lesson | paper
seed: int = 0  # of all random numbers
device: str = "auto"  # auto | cpu | cuda
data_dir: str = None  # a folder
extended: bool = False  # more
overrides: dict = {}  # settings
"""

CLAIMS = """
# %% [markdown]
# ## Claims

# %%
from IPython.display import display

claim = {"id": "C1", "text": "A < B | C", "verdict": "holds", "mean": 0.1, "low": 0.05,
         "high": 0.15, "n": 3, "unit": "seed", "values": [0.1 + seed], "bound": {"at_least": 0.05}}
payload = {"slug": "tiny", "scale": scale, "seed": seed, "device": "cpu", "extended": extended,
           "overrides": overrides, "claims": [claim], "seconds": 1, "peak_memory_mb": 12.5,
           "core": {}}
display({"application/vnd.medseg.claims+json": payload, "text/plain": "claims"}, raw=True)
"""


class Book:
    """A root with `_toc.yml`, `book/` and the chapters that a test writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "book").mkdir(parents=True)
        (root / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")

    def write(self, cells: str, slug: str = "tiny", theme: str = "surfaces") -> Path:
        source = self.root / "book" / theme / f"{slug}.py"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(HEADER + textwrap.dedent(cells))
        return source


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Book(tmp_path / "clone")


@pytest.fixture
def tiny(book):
    """The book with one chapter that runs."""
    book.write(PARAMETERS + CLAIMS)
    return book
