"""Figures of the book: one palette, one style, images without ticks, maps with a labelled scale.

Every function returns a figure and does not show it: hand it to `show`, or make the call a cell's
last line. Those with `ax=` draw there instead. Images may be tensors or arrays of any shape that
holds one: (H, W), (1, H, W), (1, 1, H, W), or with three channels (3, H, W), (H, W, 3).

Importing it loads neither matplotlib nor Pillow.
"""

from medseg_book.page.plotting._look import (
    BASELINES,
    CYCLE,
    ERRORS,
    ON_IMAGE,
    PALETTE,
    PANEL,
    ROLES,
    WIDTH,
    style,
)
from medseg_book.page.plotting._pictures import errors, images, overlay
from medseg_book.page.plotting._png import show
from medseg_book.page.plotting._tables import Table, paper_table
from medseg_book.page.plotting._terrain import surfaces

__all__ = [
    "BASELINES",
    "CYCLE",
    "ERRORS",
    "ON_IMAGE",
    "PALETTE",
    "PANEL",
    "ROLES",
    "WIDTH",
    "Table",
    "errors",
    "images",
    "overlay",
    "paper_table",
    "show",
    "style",
    "surfaces",
]
