"""The pad's buttons and sliders; what they do, the pad itself knows."""

from __future__ import annotations

import ipywidgets as W

from medseg_book.page.pad.strokes import BACKGROUND, OBJECT
from medseg_book.page.plotting import ROLES

AXES = ("slices", "rows", "columns")  # what a volume's three axes count
COLOURS = {OBJECT: ROLES["object"], BACKGROUND: ROLES["background"]}
CONTOUR, TRUTH = ROLES["result"], ROLES["truth"]


class Controls:
    """Everything around the canvas.

    Args:
        width: of the slider over the slices, in pixels; at least 320.
    """

    def __init__(self, width: int) -> None:
        short = W.Layout(width="auto")
        self.axis = W.ToggleButtons(
            options=[(name, i) for i, name in enumerate(AXES)], style={"button_width": "90px"}
        )
        self.index = W.IntSlider(layout=W.Layout(width=f"{max(width, 320)}px"))
        self.label = W.ToggleButtons(
            options=[("object", OBJECT), ("background", BACKGROUND)],
            tooltips=["belongs to the object", "does not belong to it"],
            style={"button_width": "100px"},
        )
        self.thickness = W.IntSlider(
            1, 1, 9, step=2, description="brush (px)", layout=W.Layout(width="240px")
        )
        self.refine = W.Button(
            description="Refine", button_style="primary", icon="magic", layout=short
        )
        self.undo = W.Button(description="Undo", icon="undo", layout=short)
        self.clear = W.Button(description="Clear", layout=short)
        self.show_truth = W.Checkbox(
            False, description="show the truth", indent=False, layout=short
        )
        self.status, self.log = W.HTML(), W.HTML()

    def brush(self) -> tuple[int, str]:
        """Width in pixels of the slice, and colour."""
        return self.thickness.value, COLOURS[self.label.value]

    def look_along(self, axis: int, n_slices: int) -> None:
        """Let the slider count the slices across another axis."""
        self.index.max = n_slices - 1
        self.index.description = AXES[axis][:-1]

    def around(self, canvas: W.Widget) -> W.VBox:
        """The pad: the canvas between its controls."""
        box = W.VBox(
            [
                W.HBox([self.axis]),
                self.index,
                W.HBox([self.label, self.thickness]),
                W.HTML(_legend()),
                canvas,
                W.HBox([self.refine, self.undo, self.clear, self.show_truth]),
                self.status,
                self.log,
            ]
        )
        box.add_class("medseg-scribble-pad")
        return box


def _legend() -> str:
    entries = [
        ("■", COLOURS[OBJECT], "object scribble"),
        ("■", COLOURS[BACKGROUND], "background scribble"),
        ("━", CONTOUR, "segmentation"),
        ("━", TRUTH, "truth"),
    ]
    # On black, as over the image: yellow on a white page is hard to see.
    mark = '<span style="color:{};background:#222;padding:0 3px">{}</span> {}'
    return " &nbsp; ".join(mark.format(colour, sign, text) for sign, colour, text in entries)
