"""A slice on an ipycanvas: the picture, outlines over it, and the strokes of a mouse or finger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import numpy as np
from ipycanvas import MultiCanvas, hold_canvas
from numpy.typing import NDArray

from medseg_book.page.pad.strokes import View, outline, paint


class SliceCanvas:
    """Draws what it is given; hands every finished stroke to ``on_stroke(pixels (P,2))``.

    Args:
        size: (height, width) of the canvas in its own pixels.
        brush: gives the width of the brush in pixels of the slice and its colour.
        on_stroke: called with a stroke's pixels when the button is released or the mouse leaves.
        on_client: called when a page connects and has nothing drawn yet.
    """

    def __init__(
        self,
        size: tuple[int, int],
        brush: Callable[[], tuple[int, str]],
        on_stroke: Callable[[NDArray], None],
        on_client: Callable[[], None],
    ) -> None:
        height, width = size
        self.widget = MultiCanvas(3, width=width, height=height)
        self.widget.layout = ipywidgets.Layout(width=f"{width}px", height=f"{height}px")
        self.widget.add_class("medseg-pad")
        self.picture, self.lines, self.marks = (self.widget[i] for i in range(3))
        self._brush, self._on_stroke = brush, on_stroke
        self._view, self._shape = View(0, 0, 1.0), (0, 0)
        self._places: list[tuple[float, float]] = []  # (row, column) of the stroke under way
        top = self.marks  # the layer that gets the events
        top.on_mouse_down(self._down)
        top.on_mouse_move(self._move)
        top.on_mouse_up(self._up)
        top.on_mouse_out(self._up)
        top.on_touch_start(lambda touches: self._down(*touches[0]))
        top.on_touch_move(lambda touches: self._move(*touches[0]))
        top.on_touch_end(lambda touches: self._up())
        top.on_touch_cancel(lambda touches: self._up())
        self.widget.on_client_ready(on_client)

    def draw(
        self,
        view: View,
        grey: NDArray,
        outlines: Sequence[tuple[NDArray, str]],
        marks: Mapping[str, NDArray],
    ) -> None:
        """Show a slice ``grey`` (H,W) in [0,1] under outlines (mask, colour) and marked pixels."""
        self._view, self._shape, self._places = view, grey.shape, []
        rgba = np.full((*grey.shape, 4), 255, np.uint8)
        rgba[..., :3] = np.rint(255 * grey)[..., None]
        with hold_canvas():
            for layer in (self.picture, self.lines, self.marks):
                layer.clear()
            self.picture.save()
            self.picture.image_smoothing_enabled = False  # pixels stay square
            self.picture.scale(view.zoom, view.zoom)
            self.picture.put_image_data(rgba, 0, 0)
            self.picture.restore()
            self.lines.line_width, self.lines.line_cap = 2, "round"
            for mask, colour in outlines:
                edges = outline(mask) * view.zoom
                if len(edges):
                    self.lines.stroke_style = colour
                    self.lines.stroke_line_segments(edges[..., ::-1])  # (row, column) → (x, y)
            for colour, pixels in marks.items():
                self._mark(pixels, colour)

    def _mark(self, pixels: NDArray, colour: str) -> None:
        if len(pixels):
            zoom = self._view.zoom
            self.marks.fill_style = colour
            self.marks.fill_rects(pixels[:, 1] * zoom, pixels[:, 0] * zoom, zoom, zoom)

    def _down(self, x: float, y: float) -> None:
        place = self._view.pixel(x, y)
        # A view that is smaller than the canvas leaves a margin without image.
        if all(-0.5 <= p < s - 0.5 for p, s in zip(place, self._shape, strict=True)):
            self._places = [place]
            self._follow()

    def _move(self, x: float, y: float) -> None:
        if self._places:
            self._places.append(self._view.pixel(x, y))
            self._follow()

    def _follow(self) -> None:
        width, colour = self._brush()
        self._mark(paint(self._places[-2:], width, self._shape), colour)

    def _up(self, *place: float) -> None:
        if self._places:
            pixels = paint(self._places, self._brush()[0], self._shape)
            self._places = []
            self._on_stroke(pixels)
