import nbformat
import pytest
from PIL import Image

from medseg_book.run import notebook
from medseg_book.run.catalogue import find_chapter
from medseg_book.run.check import check
from medseg_book.run.clean import clean
from medseg_book.run.errors import UsageError
from medseg_book.run.refresh import refresh, thumbnail

CELLS = """
# %% [markdown]
# # Tiny

# %% tags=["parameters"]
scale: str = "lesson"  # smoke | lesson | paper
device: str = "auto"  # auto | cpu

# %% tags=["thumbnail"] mystnb={"image": {"alt": "A square"}}
from IPython.display import display
from PIL import Image
import ipywidgets

display(Image.new("RGBA", (960, 480), (255, 0, 0, 0)))

# %%
import os

print(scale, device, os.getcwd() + "/book")
ipywidgets.IntSlider(3)
"""


def test_refresh_stores_the_source_with_its_outputs(book):
    book.write(CELLS)
    chapter = find_chapter(book.root, "tiny")
    result = refresh(chapter, scale="smoke")
    assert result.ok and result.output == str(chapter.stored)

    nb = chapter.outputs
    assert nb.cells[3].outputs[0].text == "smoke cpu book\n"
    assert len(nb.cells) == 4  # papermill's own cell is gone
    assert [cell.execution_count for cell in notebook.code_cells(nb)] == [1, 2, 3]
    assert nb.cells[3].outputs[1].execution_count == 3
    assert not any("papermill" in c.metadata or "execution" in c.metadata for c in nb.cells)
    kept = {"jupytext", "kernelspec", "language_info", "medseg", "widgets"}
    assert set(nb.metadata) == kept
    assert any(m["model_name"] == "IntSliderModel" for m in notebook.widget_models(nb).values())
    assert nb.metadata["medseg"]["code_hash"] == notebook.code_hash(chapter.code)

    picture = Image.open(chapter.thumbnail)
    assert picture.format == "WEBP" and picture.size == (480, 240)
    assert picture.convert("RGB").getpixel((5, 5)) == (255, 255, 255)  # transparent is white

    rules = {id for id, _ in check(find_chapter(book.root, "tiny")).problems}
    assert not rules & {"pair", "stale", "executed", "paths", "alt-text", "size"}
    # The source must not look older than its notebook to JupyterLab's jupytext.
    assert chapter.source.stat().st_mtime >= chapter.stored.stat().st_mtime

    again = [cell.id for cell in find_chapter(book.root, "tiny").code.cells]
    assert again == [cell.id for cell in nb.cells]


def test_a_failed_refresh_changes_nothing(book):
    book.write("# %%\nraise RuntimeError('no')\n")
    chapter = find_chapter(book.root, "tiny")
    chapter.stored.write_text("the last run")
    result = refresh(chapter)
    assert not result.ok and result.output.endswith("surfaces/tiny.failed.ipynb")
    assert chapter.stored.read_text() == "the last run"
    assert "RuntimeError" in chapter.stored.with_suffix(".failed.ipynb").read_text()


def test_clean_does_not_touch_the_run(book):
    book.write("# %%\n1\n")
    source = find_chapter(book.root, "tiny").code
    executed = notebook.copy(source)
    path = str(book.root / "data")
    executed.cells[0].outputs = [nbformat.v4.new_output("stream", text=path)]
    stored = clean(executed, source, book.root)
    assert stored.cells[0].outputs[0].text == "data"
    assert executed.cells[0].outputs[0].text == path
    assert source.cells[0].outputs == []


def test_thumbnail_needs_a_picture(book):
    book.write('# %% tags=["thumbnail"]\nprint(1)\n')
    nb = find_chapter(book.root, "tiny").code
    with pytest.raises(UsageError, match="shows no PNG"):
        thumbnail(nb)
    nb.cells[0].metadata["tags"] = []
    assert thumbnail(nb) is None
