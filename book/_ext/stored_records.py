"""Pass over the data that chapters store in their outputs beside what they show.

A chapter keeps its run's settings and its claims as JSON (``application/vnd.medseg.*+json``) in
the same output as the table that readers see. MyST-NB renders every part of an output before it
chooses one, and would warn that it does not know these.
"""

from __future__ import annotations

from myst_nb.core.render import MimeRenderPlugin, load_mime_renders
from sphinx.application import Sphinx


class StoredRecord(MimeRenderPlugin):
    @staticmethod
    def handle_mime(renderer, data, inline):
        return [] if data.mime_type.startswith("application/vnd.medseg.") else None


def setup(app: Sphinx) -> dict:
    # Renderers are declared as entry points of installed packages, which a folder of the book is
    # not; the list of those found is cached, and can be extended.
    load_mime_renders().append(StoredRecord)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
