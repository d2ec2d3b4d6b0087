"""Fill a chapter's box "What we found" from its stored run, before the page is parsed.

In the source the box is an admonition with the class `found` and, after it, the claim whose effect
matters most. What is in it is read where no run fills it, in JupyterLab:

    :::{admonition} What we found
    :class: found c1
    On the book's page this box is filled from the stored run. ...
    :::
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from sphinx.application import Sphinx

from medseg_book.page import found


def fill(notebook: dict, picture: str) -> None:
    """Replace what the box says; `picture` is an image's address, or empty."""
    record, alt = found.record(notebook), thumbnail_words(notebook)
    for cell in notebook["cells"]:
        if record is None or cell["cell_type"] != "markdown":
            continue
        source = "".join(cell["source"])
        if box := found.BOX.search(source):
            image = f"![{alt}]({picture})" if picture else ""
            lines = found.lines(record, found.headline(box["classes"]), image)
            whole = ["::::::{admonition} What we found", ":class: found", "", *lines, "::::::"]
            cell["source"] = source.replace(box[0], "\n".join(whole))


def thumbnail_words(notebook: dict) -> str:
    """The alternative text of the figure that became the thumbnail."""
    for cell in notebook["cells"]:
        if "thumbnail" in cell["metadata"].get("tags", []):
            alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
            return re.sub(r"[\[\]]", "", alt)
    return "Picture from this chapter"


def read(app: Sphinx, docname: str, content: list[str]) -> None:
    if not app.env.doc2path(docname).endswith(".ipynb") or "What we found" not in content[0]:
        return
    name = f"{Path(docname).name}.webp"
    thumbnail = Path(app.srcdir) / "book" / "_static" / "thumbnails" / name
    notebook = json.loads(content[0])
    fill(notebook, f"/book/_static/thumbnails/{name}" if thumbnail.is_file() else "")
    content[0] = json.dumps(notebook)


def setup(app: Sphinx) -> dict:
    app.connect("source-read", read)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
