"""Directives that draw the cover from what is there: a new chapter appears by itself.

``{chapter-gallery}`` shows a card for each chapter of the table of contents (or, with the name of
a folder as its argument, for the pages of that folder): title, idea and verdicts are read from
the stored notebook, the picture from ``book/_static/thumbnails/<slug>.webp``.
``{theme-map}`` shows the themes of ``book/themes.yml`` with their chapters, written or planned.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from self_contained import toc_files
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

CLAIMS = "application/vnd.medseg.claims+json"
# The words after "**Idea:**" in the box at the top, with their continuation lines.
IDEA = re.compile(
    r"^[\s>|*-]*\*\*(?:the )?idea[^*]*\*\*[\s:|.]*(.+(?:\n(?!\s*[-*|:#]).+)*)", re.I | re.M
)
PARAGRAPH = re.compile(r"^(?![#:`({>|\-*+!\s])(.+(?:\n.+)*)", re.M)


@dataclass
class Page:
    """What a card says about a notebook."""

    docname: str
    title: str
    idea: str = ""
    verdicts: Counter = field(default_factory=Counter)
    scale: str = ""

    @property
    def theme(self) -> str:
        return Path(self.docname).parent.name

    @property
    def slug(self) -> str:
        return Path(self.docname).name


def plain(markdown: str) -> str:
    """The words of a line of MyST in one line, without citations, links and table edges."""
    text = re.sub(r"\s*\{cite:\w+\}`[^`]*`", "", markdown)
    text = re.sub(r"\{[\w:]+\}`([^`<]*)(?:<[^`]*)?`", r"\1", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(text.split()).strip(" |")


def read_page(root: Path, docname: str) -> Page:
    """Read title, idea and claims from the stored notebook (or the Markdown page)."""
    notebook = root / f"{docname}.ipynb"
    if not notebook.is_file():
        prose = [(root / f"{docname}.md").read_text(encoding="utf-8")]
        cells = []
    else:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        prose = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    opening = "\n\n".join(prose[:4])
    title = re.search(r"^# +(.+)$", opening, re.M)
    idea = IDEA.search(opening) or PARAGRAPH.search(opening)
    page = Page(
        docname,
        title=plain(title[1]) if title else Path(docname).name,
        idea=plain(idea[1]) if idea else "",
    )
    for cell in cells:
        for output in cell.get("outputs", []):
            if report := output.get("data", {}).get(CLAIMS):
                page.scale = report.get("scale", "")
                # As in chapter and ledger: parts count through the claim that they make up.
                parts = {part for claim in report["claims"] for part in claim.get("parts", ())}
                whole = [claim for claim in report["claims"] if claim.get("id") not in parts]
                page.verdicts = Counter(claim["verdict"] for claim in whole)
    return page


def verdict_line(page: Page) -> str:
    """For example "4 of 6 judged claims hold"; empty where nothing was judged."""
    judged = sum(page.verdicts[v] for v in ("holds", "does not hold", "within noise"))
    if not judged:
        return ""
    holds = page.verdicts["holds"]
    return f"{holds} of {judged} judged claims {'holds' if holds == 1 else 'hold'}"


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
        lines = ["::::{grid} 1 2 2 2", ":gutter: 3", ":class-container: gallery", ""]
        for page in self.pages(folders):
            lines += [*self.card(page), ""]
        return self.parse([*lines, "::::"])

    def card(self, page: Page) -> list[str]:
        folder = Path(self.env.srcdir) / "book" / "_static" / "thumbnails"
        own = folder / f"{page.slug}.webp"
        picture = own if own.is_file() else folder / "placeholder.svg"
        self.env.note_dependency(str(own))
        foot = " · ".join(filter(None, [page.theme.replace("-", " "), verdict_line(page)]))
        return [
            f":::{{grid-item-card}} {page.title}",
            f":link: /{page.docname}",
            ":link-type: doc",
            f":img-top: /book/_static/thumbnails/{picture.name}",
            f":img-alt: Picture from the chapter {page.title}",
            "",
            page.idea[:1].upper() + page.idea[1:],
            "",
            "+++",
            foot,
            ":::",
        ]


class ThemeMap(FromMarkdown):
    def run(self) -> list[nodes.Node]:
        themes = self.themes()
        pages = self.pages([theme["folder"] for theme in themes])
        lines = ["::::{grid} 1 2 3 3", ":gutter: 2", ":class-container: theme-map", ""]
        for theme in themes:
            own = [page for page in pages if page.theme == theme["folder"]]
            links = " · ".join(f"[{page.title}](/{page.docname})" for page in own)
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
