"""Directives that draw the cover from what is there: a new chapter appears by itself.

``{chapter-gallery}`` shows a card for each chapter of the table of contents (or, with the name of
a folder as its argument, for the pages of that folder), from ``chapter_facts`` and from
``book/_static/thumbnails/<slug>.webp``; ``gallery.js`` puts a search and filters above the former.
``{theme-map}`` shows the themes of ``book/themes.yml`` with their chapters, written or planned.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from chapter_facts import Page, fact_line, read_page, verdict_line
from docutils import nodes
from docutils.statemachine import StringList
from self_contained import toc_files
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class FromMarkdown(SphinxDirective):
    """A directive that writes MyST and lets the parser do the rest."""

    def parse(self, lines: list[str]) -> list[nodes.Node]:
        box = nodes.container()
        source = self.env.doc2path(self.env.docname)
        self.state.nested_parse(StringList(lines, source), self.content_offset, box)
        return box.children

    def pages(self, folders: list[str]) -> list[Page]:
        root = Path(self.env.srcdir)
        toc = root / self.config.external_toc_path
        self.env.note_dependency(str(toc))
        found = []
        for docname in toc_files(toc):
            if Path(docname).parent.name in folders:
                self.env.note_dependency(str(root / f"{docname}.ipynb"))
                found.append(read_page(root, docname))
        return sorted(found, key=lambda page: folders.index(page.theme))

    def themes(self) -> list[dict]:
        path = Path(self.env.srcdir) / "book" / "themes.yml"
        self.env.note_dependency(str(path))
        return yaml.safe_load(path.read_text(encoding="utf-8"))


class ChapterGallery(FromMarkdown):
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        folders = self.arguments or [theme["folder"] for theme in self.themes()]
        filtered = "" if self.arguments else " filtered"
        lines = ["::::{grid} 1 2 2 2", ":gutter: 3", f":class-container: gallery{filtered}", ""]
        for page in self.pages(folders):
            lines += [*self.card(page), ""]
        return self.parse([*lines, "::::"])

    def card(self, page: Page) -> list[str]:
        folder = Path(self.env.srcdir) / "book" / "_static" / "thumbnails"
        own = folder / f"{page.slug}.webp"
        picture = own if own.is_file() else folder / "placeholder.svg"
        self.env.note_dependency(str(own))
        return [
            f":::{{grid-item-card}} {page.title}",
            f":link: /{page.docname}",
            ":link-type: doc",
            f":link-alt: {page.title}",
            f":img-top: /book/_static/thumbnails/{picture.name}",
            f":img-alt: Picture from the chapter {page.title}",
            "",
            page.idea[:1].upper() + page.idea[1:],
            "",
            "+++",
            fact_line(page),
            "",
            verdict_line(page),
            ":::",
        ]


class ThemeMap(FromMarkdown):
    def run(self) -> list[nodes.Node]:
        themes = self.themes()
        pages = self.pages([theme["folder"] for theme in themes])
        lines = ["::::{grid} 1 2 3 3", ":gutter: 2", ":class-container: theme-map", ""]
        for theme in themes:
            own = [page for page in pages if page.theme == theme["folder"]]
            links = " · ".join(f"[{page.title.split(':')[0]}](/{page.docname})" for page in own)
            lines += [
                f":::{{grid-item-card}} {theme['title']}",
                f":class-card: {'written' if own else 'planned'}",
                theme["question"],
                "+++",
                links or "planned",
                ":::",
                "",
            ]
        return self.parse([*lines, "::::"])


def setup(app: Sphinx) -> dict:
    app.add_directive("chapter-gallery", ChapterGallery)
    app.add_directive("theme-map", ThemeMap)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
