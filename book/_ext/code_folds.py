"""Every cell's code stands in a fold that says what is in it: "Set-up: settings, 56 lines".

MyST-NB folds the cells tagged ``hide-input``, ``hide-output`` or ``hide-cell``, and labels them
alike. Here a fold names itself: by the cell's own words (``code_prompt_show`` in its metadata
``mystnb``), by the functions whose source it shows, else as "Code"; and it counts its lines. Code
that the author left open gets a fold as well, an open one, so that the reader's switch
(``code-switch.js``) has one thing to open and close.
"""

from __future__ import annotations

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxTranslator

MOST_NAMES = 3


class Fold(nodes.Element):
    """A part of a cell under a label. Attributes: ``label``, ``code`` (the switch moves it), ``open``."""


def count_lines(part: nodes.Node) -> int:
    return sum(len(block.astext().rstrip("\n").splitlines()) for block in code_blocks(part))


def code_blocks(part: nodes.Node) -> list[nodes.literal_block]:
    """The blocks that somebody wrote: what a cell printed is not code."""
    blocks = part.findall(nodes.literal_block)
    return [b for b in blocks if "python" in b.get("language", "")]


def shown_names(part: nodes.Node) -> list[str]:
    """Names of the objects whose source an output shows: `sources.show` writes each above its code."""
    titles = [
        block.parent[block.parent.index(block) - 1].astext()
        for block in code_blocks(part)
        if block.parent.index(block)
    ]
    return [title.rsplit(".", 1)[-1] for title in titles if title.replace(".", "").isidentifier()]


def label(prompt: str, parts: list[nodes.Node]) -> str:
    """The words on a fold with these parts of a cell; without a prompt of its own, derived ones."""
    lines = sum(map(count_lines, parts))
    names = [name for part in parts for name in shown_names(part)]
    if not prompt and names:
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        prompt = f"Source of {', '.join(names[:MOST_NAMES])}{more}"
    prompt = prompt or ("Code" if lines else "Output")
    return prompt + (f", {lines} line{'s' * (lines != 1)}" if lines else "")


class FoldCells(SphinxPostTransform):
    """Right after MyST-NB's own transform (199), whose folds are replaced."""

    default_priority = 200
    formats = ("html",)

    def run(self, **kwargs) -> None:
        for cell in list(self.document.findall(nodes.container)):
            if cell.get("nb_element") == "cell_code":
                self.fold(cell)

    def fold(self, cell: nodes.container) -> None:
        default = self.env.mystnb_config.code_prompt_show
        prompt = cell.get("prompt_show", default)
        prompt = "" if prompt == default else prompt
        hidden = [child for child in cell if isinstance(child, HideCodeCellNode)]
        open_code = [child for child in cell if child.get("nb_element") == "cell_code_source"]
        if hidden:  # input and output of a cell lie under one label
            parts = [part for fold in hidden for part in fold]
            new = Fold("", *parts, label=label(prompt, parts), code=any(map(count_lines, parts)))
            cell.replace(hidden[0], new)
            for rest in hidden[1:]:
                cell.remove(rest)
        for code in open_code:
            new = Fold("", label=label("", [code]), code=True, open=True)
            cell.replace(code, new)
            new.append(code)


def visit_fold(self: SphinxTranslator, node: Fold) -> None:
    kind = "fold" + " code" * node["code"] + " as-open" * bool(node.get("open"))
    is_open = " open" * bool(node.get("open"))
    self.body.append(f'<details class="{kind}"{is_open}>\n')
    self.body.append(f"<summary>{self.encode(node['label'])}</summary>\n")


def depart_fold(self: SphinxTranslator, node: Fold) -> None:
    self.body.append("</details>\n")


def setup(app: Sphinx) -> dict:
    app.add_node(Fold, html=(visit_fold, depart_fold))
    app.add_post_transform(FoldCells)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
