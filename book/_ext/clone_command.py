"""``{clone}``: how to get the book, from the address in ``_config.yml`` (or MEDSEG_REPOSITORY_URL)."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def commands(url: str) -> str:
    return f"git clone {url}\ncd {url.rsplit('/', 1)[-1].removesuffix('.git')}"


class Clone(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        url = self.config.html_theme_options.get("repository_url")
        if url:
            return [nodes.literal_block("", commands(url), language="bash")]
        return [nodes.paragraph(text="In the folder of your copy of the repository:")]


def setup(app: Sphinx) -> dict:
    app.add_directive("clone", Clone)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
