"""Mends of the theme's HTML around and in a page: the sidebar, and the references' roles.

* Themes of chapters (``book/themes.yml``) fold in the sidebar; the one with the open page is open.
* The sidebar shows the short half of a title: "EDPCNN" of "EDPCNN: a network trained through ...".
* What opens a list of pages beneath a page has a name for screen readers.
* References are items of the list that docutils puts them into: its role for them is deprecated.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from bs4 import BeautifulSoup
from sphinx.application import Sphinx


def tidy_sidebar(html: str, themes: set[str]) -> BeautifulSoup:
    soup = BeautifulSoup(html, "html.parser")
    for link in soup.select("li > a"):
        title = link.get_text().strip()
        link.string = title.split(":")[0]
        for summary in link.parent.select(":scope > details > summary"):
            summary["aria-label"] = f"Pages under {link.string}"
    for caption in soup.select("p.caption"):
        if caption.get_text(strip=True) in themes:
            fold(soup, caption)
    return soup


def fold(soup: BeautifulSoup, caption) -> None:
    """Put a caption's list of pages under it, to be opened."""
    pages = caption.find_next_sibling("ul")
    details = soup.new_tag("details", attrs={"class": "theme"})
    if "current" in pages.get("class", []):
        details["open"] = ""
    summary = soup.new_tag("summary")
    summary.string = caption.get_text(strip=True)
    caption.replace_with(details)
    details.extend([summary, pages.extract()])


def mend(app: Sphinx, pagename, templatename, context, doctree) -> None:
    if "generate_toctree_html" in context:
        listed = Path(app.confdir) / "book" / "themes.yml"
        themes = {theme["title"] for theme in yaml.safe_load(listed.read_text(encoding="utf-8"))}
        theirs = context["generate_toctree_html"]
        context["generate_toctree_html"] = lambda *args, **options: tidy_sidebar(
            str(theirs(*args, **options)), themes
        )
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", mend, priority=900)  # after the theme's own functions
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
