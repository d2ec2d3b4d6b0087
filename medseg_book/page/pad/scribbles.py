"""A pad for drawing scribbles on an image or a volume, beside a running kernel.

Draw, press Refine, see the corrected segmentation. It needs ipycanvas (``pip install
"medseg-core[live]"``); without it, or without a reader at the kernel, a cell shows a line of text.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg_book.page.pad.strokes import (
    BACKGROUND,
    NONE,
    OBJECT,
    Strokes,
    View,
    largest_slice,
    zooms,
)
from medseg_book.page.plotting._arrays import as_array
from medseg_book.page.plotting._look import PALETTE
from medseg_core import checks

if TYPE_CHECKING:
    import ipywidgets
    import torch

COLOURS = {OBJECT: PALETTE["orange"], BACKGROUND: PALETTE["sky"]}
CONTOUR, TRUTH = PALETTE["yellow"], PALETTE["purple"]
VIEWS = ("slices", "rows", "columns")  # what a volume's three axes count
CELL = "padding:0 0.8em 0 0;text-align:right"
HINT = "Open this chapter as a notebook and run this cell: it shows a pad for your scribbles there."
MISSING = 'Drawing needs ipycanvas: `pip install "medseg-core[live]"`, then restart Jupyter.'


class ScribblePad:
    """Scribbles by mouse or finger, and a segmentation that follows them.

    As the last line of a cell it shows the current contour over a slice, two brushes, Undo, Clear
    and a Refine button, which calls ``solve`` in the kernel. Strokes add up over slices and rounds;
    where they cross, the later one counts. An error of ``solve`` is shown, and the pad lives on.
    A batch run (papermill) shows a line of text instead, and calls nothing.

    Args:
        image: (H,W) or (D,H,W).
        labels: (*S) bool or integer, the segmentation to begin with; 0 and 255 are not outlined.
        solve: from scribbles (*S) int64 (1 object, 0 background, 255 none) to labels (*S) (axes of
            length 1 before them are dropped).
        truth: (*S) bool or integer; each round then prints its Dice coefficient.
        spacing: mm per pixel in axis order; None: isotropic.
        side: longest side of the picture on the page, in pixels.
        vlim: grey values shown as black and white; None: the 0.5 and 99.5 percentiles.

    Attributes:
        scribbles: (*S) int64, the map of what was drawn so far.
        labels: (*S) int64, the segmentation of the last round.
        history: one dict per round: strokes, voxels, dice (None without truth), seconds.

    Raises:
        ValueError: shapes that differ, NaN in the image.

    >>> pad = ScribblePad(image[0, 0], first[0], solve=lambda s: refine(image, s[None]).labels[0])
    """

    def __init__(
        self,
        image: Any,
        labels: Any,
        *,
        solve: Callable[[torch.Tensor], Any],
        truth: Any = None,
        spacing: Sequence[float] | None = None,
        side: int = 480,
        vlim: tuple[float, float] | None = None,
    ) -> None:
        self._image = checks.finite(as_array(image), "image").astype(float)
        size = self._image.shape
        checks.choice(len(size), "axes of image (H, W) or (D, H, W)", (2, 3))
        self._labels = _fitting(labels, size, "labels")
        self._truth = None if truth is None else _fitting(truth, size, "truth")
        spacing = checks.spacing(spacing, len(size))
        self._zoom = zooms(size, spacing, checks.between(side, "side", 32, None))
        self._vlim = vlim or tuple(np.percentile(self._image, (0.5, 99.5)))
        self._solve, self._strokes = solve, Strokes(size)
        self._box: ipywidgets.VBox | None = None
        self._first = self._dice()
        self.history: list[dict[str, Any]] = []

    @property
    def scribbles(self) -> torch.Tensor:
        import torch

        return torch.from_numpy(self._strokes.map())

    @property
    def labels(self) -> torch.Tensor:
        import torch

        return torch.from_numpy(self._labels.copy())

    def _ipython_display_(self) -> None:
        from IPython.display import Markdown, display

        if display.attended_shell() is None:
            display(Markdown(f"*{HINT}*"))
            return
        try:
            box = self.widget()
        except ImportError:
            display(Markdown(MISSING))
            return
        display(box)

    def widget(self) -> ipywidgets.VBox:
        """The pad as a widget, made once; ``_ipython_display_`` shows it.

        Raises:
            ImportError: without ipycanvas.
        """
        if self._box is None:
            self._box = self._build()
        return self._box

    def _build(self) -> ipywidgets.VBox:
        try:
            from medseg_book.page.pad.slice_canvas import SliceCanvas
        except ImportError as error:
            raise ImportError(MISSING) from error
        import ipywidgets as W

        size, volume = self._strokes.size, len(self._strokes.size) == 3
        pairs = [(1, 2), (0, 2), (0, 1)] if volume else [(0, 1)]
        height, width = (
            round(max(size[pair[i]] * self._zoom[pair[i]] for pair in pairs)) for i in (0, 1)
        )
        self._canvas = SliceCanvas(
            (height, width),
            brush=lambda: (self._thick.value, COLOURS[self._brush.value]),
            on_stroke=self._stroke,
            on_client=self._draw,
        )
        short = W.Layout(width="auto")
        self._axis = W.ToggleButtons(
            options=[(name, i) for i, name in enumerate(VIEWS)], style={"button_width": "90px"}
        )
        self._index = W.IntSlider(
            description="slice", layout=W.Layout(width=f"{max(width, 320)}px")
        )
        self._brush = W.ToggleButtons(
            options=[("object", OBJECT), ("background", BACKGROUND)],
            tooltips=["belongs to the object", "does not belong to it"],
            style={"button_width": "100px"},
        )
        self._thick = W.IntSlider(
            1, 1, 9, description="brush (px)", layout=W.Layout(width="240px"), step=2
        )
        self._refine = W.Button(description="Refine", button_style="primary", icon="magic")
        undo, clear = W.Button(description="Undo", icon="undo"), W.Button(description="Clear")
        for button in (self._refine, undo, clear):
            button.layout = short
        self._show_truth = W.Checkbox(
            False, description="show the truth", indent=False, layout=short
        )
        self._status, self._log = W.HTML(), W.HTML()

        self._refine.on_click(lambda _: self._run())
        undo.on_click(lambda _: self._change(self._strokes.undo))
        clear.on_click(lambda _: self._change(self._strokes.clear))
        self._axis.observe(lambda _: self._turn(), "value")
        self._index.observe(lambda _: self._draw(), "value")
        self._show_truth.observe(lambda _: self._draw(), "value")
        self._turn()
        self._say(self._score())
        rows = [W.HBox([self._brush, self._thick]), W.HTML(_legend(self._truth is not None))]
        if volume:
            rows = [W.HBox([self._axis]), self._index, *rows]
        actions = [self._refine, undo, clear]
        if self._truth is not None:
            actions.append(self._show_truth)
        box = W.VBox([*rows, self._canvas.widget, W.HBox(actions), self._status, self._log])
        box.add_class("medseg-scribble-pad")
        return box

    def _turn(self) -> None:
        """Look along another axis, at the slice with most of the object."""
        if len(self._strokes.size) == 3:
            axis = self._axis.value
            index = largest_slice(_object(self._labels), axis)
            self._index.max = self._strokes.size[axis] - 1
            self._index.value = index
            self._index.description = VIEWS[axis][:-1]
        self._draw()

    @property
    def _view(self) -> View:
        if len(self._strokes.size) == 2:
            return View(None, 0, self._zoom)
        axis = self._axis.value
        down, right = (z for a, z in enumerate(self._zoom) if a != axis)
        return View(axis, self._index.value, (down, right))

    def _draw(self) -> None:
        view, (low, high) = self._view, self._vlim
        grey = ((view.slice(self._image) - low) / max(high - low, 1e-12)).clip(0, 1)
        outlines = [(view.slice(_object(self._labels)), CONTOUR)]
        if self._truth is not None and self._show_truth.value:
            outlines.insert(0, (view.slice(_object(self._truth)), TRUTH))
        drawn = view.slice(self._strokes.map())
        marks = {colour: np.argwhere(drawn == label) for label, colour in COLOURS.items()}
        self._canvas.draw(view, grey, outlines, marks)

    def _stroke(self, pixels: np.ndarray) -> None:
        self._strokes.add(self._view.voxels(pixels), self._brush.value)
        self._say(self._counted())

    def _change(self, what: Callable[[], None]) -> None:
        what()
        self._draw()
        self._say(self._counted())

    def _run(self) -> None:
        self._refine.disabled = True
        self._say("Refining …")
        started = time.perf_counter()
        try:
            self._labels = _fitting(self._solve(self.scribbles), self._strokes.size, "labels")
        except Exception as error:
            self._say(f"{type(error).__name__}: {error}", error=True)
            return
        finally:
            self._refine.disabled = False
        drawn = int((self._strokes.map() != NONE).sum())
        row = {"strokes": len(self._strokes.items), "voxels": drawn, "dice": self._dice()}
        self.history.append(row | {"seconds": time.perf_counter() - started})
        self._draw()
        self._say(f"{self._score()} Refined in {self.history[-1]['seconds']:.1f} s.")
        self._log.value = _table(self._first, self.history)

    def _dice(self) -> float | None:
        if self._truth is None:
            return None
        import torch

        from medseg_core.metrics.overlap import dice

        truth = np.where(self._truth == NONE, NONE, _object(self._truth))
        pair = (torch.from_numpy(x.astype(np.int64))[None] for x in (_object(self._labels), truth))
        return dice(*pair, n_classes=2, empty="one").item()

    def _score(self) -> str:
        dice = self._dice()
        return "Draw, then press Refine." if dice is None else f"Dice {dice:.3f}."

    def _counted(self) -> str:
        n, drawn = len(self._strokes.items), int((self._strokes.map() != NONE).sum())
        unit = "pixels" if len(self._strokes.size) == 2 else "voxels"
        return f"{n} stroke{'s' * (n != 1)}, {drawn} {unit}."

    def _say(self, text: str, *, error: bool = False) -> None:
        style = f"color:{PALETTE['vermilion']};white-space:pre-wrap" if error else ""
        self._status.value = f'<span style="{style}" role="status">{html.escape(text)}</span>'


def _fitting(labels: Any, size: tuple[int, ...], name: str) -> np.ndarray:
    """Labels (*S) int64 from a tensor or an array with leading axes of length 1."""
    array = as_array(labels)
    extra = array.ndim - len(size)
    if extra < 0 or array.shape[extra:] != size or any(n != 1 for n in array.shape[:extra]):
        raise ValueError(f"{name} must have the shape {size} of the image, got {array.shape}")
    if array.dtype.kind not in "biu":
        raise ValueError(f"{name} must hold integers or bools, got {array.dtype}")
    return array.reshape(size).astype(np.int64)


def _object(labels: np.ndarray) -> np.ndarray:
    return (labels != 0) & (labels != NONE)


def _legend(truth: bool) -> str:
    entries = [("■", COLOURS[OBJECT], "object scribble")]
    entries += [("■", COLOURS[BACKGROUND], "background scribble"), ("━", CONTOUR, "segmentation")]
    if truth:
        entries.append(("━", TRUTH, "truth"))
    # On black, as over the image: yellow on a white page is hard to see.
    mark = '<span style="color:{};background:#222;padding:0 3px">{}</span> {}'
    return " &nbsp; ".join(mark.format(colour, sign, text) for sign, colour, text in entries)


def _table(first: float | None, history: list[dict[str, Any]]) -> str:
    """The rounds so far, the last one first; round 0 is the segmentation given."""
    start = {"strokes": 0, "voxels": 0, "dice": first, "seconds": None}
    rows = ""
    for n, h in reversed(list(enumerate([start, *history]))):
        score = "" if h["dice"] is None else f"{h['dice']:.3f}"
        seconds = "" if h["seconds"] is None else f"{h['seconds']:.1f}"
        cells = (n, h["strokes"], h["voxels"], score, seconds)
        rows += "<tr>" + "".join(f'<td style="{CELL}">{c}</td>' for c in cells) + "</tr>"
    heads = ("round", "strokes", "drawn", "Dice", "seconds")
    head = "".join(f'<th style="{CELL}">{h}</th>' for h in heads)
    return f'<table style="line-height:1.4"><tr>{head}</tr>{rows}</table>'
