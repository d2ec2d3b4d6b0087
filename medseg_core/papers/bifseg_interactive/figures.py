"""Slices with outlines and scribbles, drawn on axes of matplotlib that are handed in.

Taught in: bifseg-interactive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NAMES = {
    "truth": "truth",
    "result": "result",
    "object": "scribble on the object",
    "background": "scribble on the background",
}


@dataclass(frozen=True)
class Pen:
    """Draws with one colour for each role.

    Args:
        ink: {"truth", "result" (outlines), "object", "background" (scribbles): colour}.
    """

    ink: Mapping[str, str]

    def slice(
        self,
        axis: Any,
        picture: Tensor,
        title: str = "",
        *,
        truth: Tensor | None = None,
        result: Tensor | None = None,
        strokes: Tensor | None = None,
    ) -> None:
        """A picture (H,W) from 0 to 1 with outlines of masks and with scribbles, all (H,W)."""
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
        for name, mask in (("truth", truth), ("result", result)):
            if mask is not None and 0 < (mask > 0).sum() < mask.numel():
                axis.contour(mask > 0, [0.5], colors=[self.ink[name]], linewidths=1.5)
        for label, name in ((0, "background"), (1, "object")):
            if strokes is not None and (strokes == label).any():
                rows, columns = torch.nonzero(strokes == label).T
                axis.scatter(columns, rows, s=7, color=self.ink[name], marker="s", linewidths=0)
        axis.set_title(title)
        axis.axis("off")

    def weights(self, axis: Any, w: Tensor, strokes: Tensor, title: str = "weights") -> None:
        """A weight map (H,W): black is left out, grey counts once; the scribbles count ω."""
        self.slice(axis, 0.8 * (w > 0), title, strokes=strokes)

    def legend(self, figure: Any, *roles: str, columns: int = 4) -> None:
        """Names of roles (and of labelled curves) below the panels."""
        axis = figure.axes[0]
        marks = {True: {"marker": "s", "linestyle": "none", "markersize": 4}, False: {}}
        for role in roles:
            look = marks[role in ("object", "background")]
            axis.plot(
                [], [], color=self.ink[role], label=NAMES[role], scalex=False, scaley=False, **look
            )
        figure.legend(loc="outside lower center", ncols=columns)


def largest_slice(mask: Tensor) -> int:
    """Index of the slice (first axis) of (D,H,W) with most voxels."""
    return int(mask.sum((1, 2)).argmax())
