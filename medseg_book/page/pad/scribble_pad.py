"""A pad for drawing scribbles on a volume, beside a running kernel.

Draw, press Refine, see the corrected segmentation. It needs ipycanvas (``pip install
"medseg-core[live]"``); without it, or without a reader at the kernel, a cell shows a line of text.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from medseg_book.page import display
from medseg_book.page.pad import controls
from medseg_book.page.pad.strokes import NONE, Strokes, View, largest_slice, zoom_of
from medseg_book.page.plotting import PALETTE
from medseg_core import checks
from medseg_core.metrics.overlap import dice

if TYPE_CHECKING:
    import ipywidgets

CELL = "padding:0 0.8em 0 0;text-align:right"
HINT = "Open this chapter as a notebook and run this cell: it shows a pad for your scribbles there."
MISSING = 'Drawing needs ipycanvas: `pip install "medseg-core[live]"`, then restart Jupyter.'


class ScribblePad:
    """Scribbles by mouse or finger, and a segmentation that follows them.

    As the last line of a cell it shows the current contour over a slice, two brushes, Undo, Clear
    and a Refine button, which calls ``solve`` in the kernel and prints the Dice coefficient.
    Strokes add up over slices and rounds; where they cross, the later one counts. An error of
    ``solve`` is shown, and the pad lives on. A batch run (papermill) shows a line of text instead,
    and calls nothing.

    >>> ScribblePad(image, first, solve=lambda s: refine(image, s).labels, truth=truth)

    Args:
        image: (D,H,W).
        labels: (D,H,W), the segmentation to begin with; everything but 0 is the object.
        solve: from scribbles (D,H,W) int64 (1 object, 0 background, 255 none) to labels (D,H,W).
        truth: (D,H,W) bool.

    Attributes:
        strokes: what was drawn so far; ``strokes.map()`` are the scribbles.
        labels: (D,H,W) bool, the segmentation of the last round.
        rounds: one dict per round, the first of them before any scribble: strokes, voxels, dice,
            seconds.

    Raises:
        ValueError: shapes that differ, NaN in the image.

    Taught in: bifseg-interactive.
    """

    def __init__(
        self, image: Tensor, labels: Tensor, *, solve: Callable[[Tensor], Tensor], truth: Tensor
    ) -> None:
        checks.shape(image, "image", "D H W")
        checks.same_shape(image, labels, ("image", "labels"))
        checks.same_shape(image, truth, ("image", "truth"))
        grey = checks.finite(image, "image").double().numpy()
        low, high = np.percentile(grey, (0.5, 99.5))
        self._grey = ((grey - low) / max(high - low, 1e-12)).clip(0, 1)
        self._truth, self._solve = truth.bool(), solve
        self._zoom = zoom_of(grey.shape)
        self._box: ipywidgets.VBox | None = None
        self.labels = labels.bool()
        self.strokes = Strokes(grey.shape)
        self.rounds: list[dict[str, Any]] = []
        self._record(0.0)

    def _ipython_display_(self) -> None:
        import IPython.display

        if display.attended_shell() is None:
            IPython.display.display(IPython.display.Markdown(f"*{HINT}*"))
            return
        try:
            shown: Any = self.widget()
        except ImportError:
            shown = IPython.display.Markdown(MISSING)
        IPython.display.display(shown)

    def widget(self) -> ipywidgets.VBox:
        """The pad as a widget, made once; a cell that ends with the pad shows it.

        Raises:
            ImportError: without ipycanvas.
        """
        if self._box is None:
            try:
                from medseg_book.page.pad.slice_canvas import SliceCanvas
            except ImportError as error:
                raise ImportError(MISSING) from error

            depth, height, width = (round(n * self._zoom) for n in self.strokes.size)
            self._controls = controls.Controls(max(height, width))
            self._canvas = SliceCanvas(
                (max(depth, height), max(height, width)),
                brush=self._controls.brush,
                on_stroke=self._add_stroke,
                on_client=self._draw,
            )
            self._connect()
            self._turn()
            self._say(f"Dice {self.rounds[0]['dice']:.3f}.")
            self._box = self._controls.around(self._canvas.widget)
        return self._box

    def _connect(self) -> None:
        c = self._controls
        c.refine.on_click(lambda _: self._refine())
        c.undo.on_click(lambda _: self._change(self.strokes.undo))
        c.clear.on_click(lambda _: self._change(self.strokes.clear))
        c.axis.observe(lambda _: self._turn(), "value")
        c.index.observe(lambda _: self._draw(), "value")
        c.show_truth.observe(lambda _: self._draw(), "value")

    def _turn(self) -> None:
        """Look along another axis, at the slice with most of the object."""
        axis = self._controls.axis.value
        self._controls.look_along(axis, self.strokes.size[axis])
        self._controls.index.value = largest_slice(self.labels.numpy(), axis)
        self._draw()

    def _view(self) -> View:
        return View(self._controls.axis.value, self._controls.index.value, self._zoom)

    def _draw(self) -> None:
        view = self._view()
        outlines = [(view.slice(self.labels.numpy()), controls.CONTOUR)]
        if self._controls.show_truth.value:
            outlines.insert(0, (view.slice(self._truth.numpy()), controls.TRUTH))
        drawn = view.slice(self.strokes.map())
        marks = {colour: np.argwhere(drawn == label) for label, colour in controls.COLOURS.items()}
        self._canvas.draw(view, view.slice(self._grey), outlines, marks)

    def _add_stroke(self, pixels: np.ndarray) -> None:
        self.strokes.add(self._view().voxels(pixels), self._controls.label.value)
        self._count()

    def _change(self, what: Callable[[], None]) -> None:
        what()
        self._draw()
        self._count()

    def _refine(self) -> None:
        self._controls.refine.disabled = True
        self._say("Refining …")
        started = time.perf_counter()
        try:
            found = self._solve(torch.from_numpy(self.strokes.map()))
            checks.same_shape(found, self._truth, ("solve's labels", "truth"))
        except Exception as error:
            self._say(f"{type(error).__name__}: {error}", error=True)
            return
        finally:
            self._controls.refine.disabled = False
        self.labels = found.bool()
        self._record(time.perf_counter() - started)
        self._draw()
        last = self.rounds[-1]
        self._say(f"Dice {last['dice']:.3f}. Refined in {last['seconds']:.1f} s.")
        self._controls.log.value = _table(self.rounds)

    def _record(self, seconds: float) -> None:
        pair = (self.labels[None, None], self._truth[None, None])
        row = {"strokes": len(self.strokes.items), "voxels": self._drawn()}
        self.rounds.append(row | {"dice": dice(*pair, empty="one").item(), "seconds": seconds})

    def _drawn(self) -> int:
        return int((self.strokes.map() != NONE).sum())

    def _count(self) -> None:
        n = len(self.strokes.items)
        self._say(f"{n} stroke{'s' * (n != 1)}, {self._drawn()} voxels.")

    def _say(self, text: str, *, error: bool = False) -> None:
        style = f"color:{PALETTE['vermilion']};white-space:pre-wrap" if error else ""
        escaped = html.escape(text)
        self._controls.status.value = f'<span style="{style}" role="status">{escaped}</span>'


def _table(rounds: list[dict[str, Any]]) -> str:
    """The rounds so far, the last one first."""
    rows = ""
    for n, r in reversed(list(enumerate(rounds))):
        seconds = f"{r['seconds']:.1f}" if n else ""
        cells = (n, r["strokes"], r["voxels"], f"{r['dice']:.3f}", seconds)
        rows += "<tr>" + "".join(f'<td style="{CELL}">{c}</td>' for c in cells) + "</tr>"
    heads = ("round", "strokes", "drawn", "Dice", "seconds")
    head = "".join(f'<th style="{CELL}">{h}</th>' for h in heads)
    return f'<table style="line-height:1.4"><tr>{head}</tr>{rows}</table>'
