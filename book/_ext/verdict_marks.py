"""Give verdicts in tables a shape and a colour: ✓ holds, ✗ does not hold, ≈ undecided.

The notebooks write words with a symbol, which read well everywhere; here, cells of tables that
begin with such a symbol get the class by which ``book.css`` draws them.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

CLASSES = {"✓ ": "verdict-holds", "✗ ": "verdict-fails", "≈ ": "verdict-open"}


class MarkVerdicts(SphinxPostTransform):
    """After MyST-NB has chosen which form of an output is shown."""

    default_priority = 250
    formats = ("html",)

    def run(self, **kwargs) -> None:
        for entry in self.document.findall(nodes.entry):
            for text in list(entry.findall(nodes.Text)):
                if kind := CLASSES.get(text[:2]):
                    text.parent.replace(text, nodes.inline("", text, classes=["verdict", kind]))


def setup(app: Sphinx) -> dict:
    app.add_post_transform(MarkVerdicts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
