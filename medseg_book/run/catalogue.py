"""Where the chapters stand: one jupytext pair `book/<theme>/<slug>.py` + `.ipynb` each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat

from . import notebook
from .errors import UsageError, unknown

KINDS = ("chapter", "primer", "page", "template")


@dataclass(frozen=True)
class Chapter:
    """One notebook of the book: `source` (.py) is edited, `stored` (.ipynb) is its last run."""

    slug: str
    theme: str
    kind: str
    source: Path
    root: Path

    @property
    def stored(self) -> Path:
        return self.source.with_suffix(".ipynb")

    @property
    def document(self) -> str:
        """The page's name below `book/`, as the table of contents writes it."""
        return self.source.relative_to(self.root / "book").with_suffix("").as_posix()

    @property
    def thumbnail(self) -> Path:
        return self.root / "book" / "_static" / "thumbnails" / f"{self.slug}.webp"

    @cached_property
    def code(self) -> nbformat.NotebookNode:
        """The notebook without outputs, from the source."""
        return notebook.read_source(self.source)

    @cached_property
    def outputs(self) -> nbformat.NotebookNode | None:
        """The stored notebook, None where there is none yet."""
        return notebook.read_stored(self.stored) if self.stored.is_file() else None

    @cached_property
    def title(self) -> str:
        for cell in self.code.cells:
            if cell.cell_type == "markdown" and (
                found := re.search(r"^# +(.+)$", cell.source, re.MULTILINE)
            ):
                return re.sub(r"\s*\{cite:?\w*\}`[^`]*`", "", found.group(1)).strip()
        return self.slug


def find_root(start: Path | None = None) -> Path:
    """The folder with `_toc.yml` and `book/`: at or above `start`, else above the package."""
    start = Path(start or Path.cwd()).resolve()
    package = Path(__file__).resolve().parents[2]
    for folder in (start, *start.parents, package):
        if (folder / "_toc.yml").is_file() and (folder / "book").is_dir():
            return folder
    if (package / "book").is_dir():
        return package
    raise UsageError(
        f"no book found: neither {start} nor a folder above it holds _toc.yml and book/; "
        "go to the clone of the book, or name it with --root"
    )


def find_chapters(root: Path) -> list[Chapter]:
    """Every notebook of the book, in the order of their paths. Duplicate slugs are refused."""
    root = Path(root).resolve()
    if not (root / "book").is_dir():
        raise UsageError(f"root {str(root)!r} holds no folder book/")
    chapters: dict[str, Chapter] = {}
    for source in sorted((root / "book").rglob("*.py")):
        folders = source.relative_to(root / "book").parts[:-1]
        if any(part[0] in "._" for part in (*folders, source.name)) or not _is_notebook(source):
            continue
        theme = folders[0] if folders else ""
        chapter = Chapter(source.stem, theme, _kind(theme, source.stem), source, root)
        if other := chapters.get(chapter.slug):
            raise UsageError(
                f"two notebooks are called {chapter.slug!r}: "
                f"{other.source.relative_to(root)} and {source.relative_to(root)}"
            )
        chapters[chapter.slug] = chapter
    return list(chapters.values())


def find_chapter(root: Path, slug: str) -> Chapter:
    """The chapter of that slug; an unknown one is refused with the nearest and all choices."""
    chapters = {chapter.slug: chapter for chapter in find_chapters(root)}
    if slug not in chapters:
        raise unknown("chapter", slug, chapters)
    return chapters[slug]


def select(root: Path, slugs: Iterable[str] = ()) -> list[Chapter]:
    """The named chapters, or all of them."""
    return [find_chapter(root, slug) for slug in slugs] or find_chapters(root)


def _kind(theme: str, slug: str) -> str:
    if slug == "chapter-template":
        return "template"
    return {"": "page", "guide": "page", "primers": "primer"}.get(theme, "chapter")


def _is_notebook(source: Path) -> bool:
    """A percent script opens with jupytext's header; other Python files are not ours."""
    with source.open(encoding="utf-8") as lines:
        return lines.readline().strip() == "# ---" and lines.readline().strip() == "# jupyter:"
