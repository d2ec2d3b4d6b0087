import pytest

from medseg_book.run.catalogue import find_chapter, find_chapters, find_root, select
from medseg_book.run.errors import UsageError, unknown


def test_kinds_follow_from_the_folders(book):
    cells = "# %% [markdown]\n# # T\n"
    for slug, theme in [
        ("a", "segmentation"),
        ("p", "primers"),
        ("pictures", "guide"),
        ("chapter-template", "guide"),
        ("ledger", ""),
    ]:
        book.write(cells, slug, theme)
    kinds = {c.slug: c.kind for c in find_chapters(book.root)}
    assert kinds == {
        "a": "chapter",
        "p": "primer",
        "pictures": "page",
        "chapter-template": "template",
        "ledger": "page",
    }


def test_other_python_files_are_no_chapters(book):
    book.write("# %%\n1\n")
    (book.root / "book" / "surfaces" / "helper.py").write_text("x = 1\n")
    book.write("# %%\n1\n", "hook", "_ext")
    book.write("# %%\n1\n", "tiny-checkpoint", "surfaces/.ipynb_checkpoints")
    assert [c.slug for c in find_chapters(book.root)] == ["tiny"]


def test_a_chapter_knows_its_files(book):
    book.write("# %% [markdown]\n# Text\n#\n# # The title {cite:p}`a`\n")
    chapter = find_chapter(book.root, "tiny")
    assert chapter.document == "surfaces/tiny"
    assert chapter.title == "The title"
    assert chapter.outputs is None
    assert chapter.thumbnail == book.root / "book/_static/thumbnails/tiny.webp"


def test_unknown_slug_is_named_with_the_choices(tiny):
    with pytest.raises(UsageError, match=r"unknown chapter 'tinny'; did you mean 'tiny'\?.*tiny"):
        select(tiny.root, ["tinny"])


def test_the_same_slug_twice_is_refused(tiny):
    tiny.write("# %%\n1\n", theme="segmentation")
    with pytest.raises(UsageError, match="two notebooks are called 'tiny'"):
        find_chapters(tiny.root)


def test_root_is_found_from_below_and_from_elsewhere(tiny, tmp_path):
    assert find_root(tiny.root / "book" / "surfaces") == tiny.root
    assert (find_root(tmp_path) / "book").is_dir()  # from elsewhere: the clone of this package
    with pytest.raises(UsageError, match="no folder book/"):
        find_chapters(tmp_path)


def test_unknown_without_a_near_match():
    assert str(unknown("scale", 7, ["smoke"])) == "unknown scale 7 (choices: smoke)"
