"""Two things that the chapter's pictures share, drawn on matplotlib's axes that it hands over."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def draw_contour(axis: Any, points: Tensor, colour: str) -> None:
    """A closed contour (N,2) over an image. Taught in: edpcnn."""
    closed = torch.cat([points, points[:1]])
    axis.plot(closed[:, 1], closed[:, 0], color=colour)


def draw_warped(axis: Any, g: Tensor, v: Tensor, colour: str, title: str) -> None:
    """A warped map (N,M+1) with one answer per ray (N,), drawn where it says the border is.

    Taught in: edpcnn.
    """
    axis.imshow(g, aspect="auto")
    axis.plot(v - 0.5, range(len(v)), color=colour)
    axis.set(xlabel="sample i (radius)", ylabel="ray n (angle)", title=title)
    axis.grid(False)
