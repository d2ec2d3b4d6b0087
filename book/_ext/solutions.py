"""Fold a chapter's solutions away: consecutive cells tagged `solution` share one fold.

MyST-NB forgets the tags of prose, so the notebook's text gets two cells more before it is parsed:
one that opens the fold, and one that closes it. A printed book (LaTeX) shows what is inside.
"""

from __future__ import annotations

import json

from sphinx.application import Sphinx

TAG = "solution"
OPEN = '<details class="solution">\n<summary>Solution</summary>\n'
CLOSE = "</details>\n"


def fold(notebook: dict) -> None:
    """Put each run of solution cells between the two tags of a fold."""
    cells, inside = [], False
    for cell in notebook["cells"]:
        is_solution = TAG in cell["metadata"].get("tags", [])
        if is_solution != inside:
            cells.append(prose(OPEN if is_solution else CLOSE, len(cells)))
        cells.append(cell)
        inside = is_solution
    notebook["cells"] = [*cells, prose(CLOSE, len(cells))] if inside else cells


def prose(source: str, place: int) -> dict:
    """A cell; `place` makes its id its own."""
    return {"cell_type": "markdown", "id": f"fold-{place}", "metadata": {}, "source": source}


def read(app: Sphinx, docname: str, content: list[str]) -> None:
    if app.env.doc2path(docname).endswith(".ipynb") and f'"{TAG}"' in content[0]:
        notebook = json.loads(content[0])
        fold(notebook)
        content[0] = json.dumps(notebook)


def setup(app: Sphinx) -> dict:
    app.connect("source-read", read)
    app.add_css_file("chapter-parts.css")  # captions, questions, solutions, "What we found"
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
