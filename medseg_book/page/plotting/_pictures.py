"""Images, alone and under labels, contours and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg_book.page.plotting._arrays import as_pictures, is_list
from medseg_book.page.plotting._axes import given_axes, grid
from medseg_book.page.plotting._look import ERRORS, ON_IMAGE
from medseg_book.page.plotting._marks import add_legend, draw_contours, patch, tint
from medseg_core import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def images(
    images: Any,
    titles: Sequence[str] | None = None,
    *,
    cmap: str = "gray",
    vlim: tuple[float, float] | str | None = None,
    scale: str | None = None,
    columns: int = 4,
) -> Figure:
    """A grid of images.

    Args:
        images: list of images, or a batch (N, C, H, W) or (N, H, W).
        vlim: grey values shown as black and white: None for each image's own range, ``"shared"``
            for the range of all, or (low, high).
        scale: label of a colour bar (quantity and unit). Its limits are shared; another `cmap` than
            grey needs it.
        columns: images in a row.
    """
    pictures = as_pictures(images, "images")
    if scale is None and cmap not in ("gray", "gray_r"):
        raise ValueError(f"cmap={cmap!r} shows numbers as colours: label them with scale='...'")
    vlim = "shared" if vlim is None and scale is not None else vlim
    if vlim == "shared":
        vlim = min(map(np.nanmin, pictures)), max(map(np.nanmax, pictures))
    elif isinstance(vlim, str):
        raise ValueError(f"vlim must be None, 'shared' or (low, high), got {vlim!r}")
    fig, axes = grid(pictures, titles, columns)
    for ax, picture in zip(axes, pictures, strict=True):
        low, high = vlim or (None, None)
        shown = ax.imshow(picture, cmap=cmap, vmin=low, vmax=high)
    if scale is not None:
        fig.colorbar(shown, ax=axes, label=scale, shrink=0.85, aspect=25, pad=0.02)
    return fig


def overlay(
    image: Any,
    label: Any = None,
    *,
    contours: Any = None,
    names: Mapping[int, str] | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 4,
    ax: Axes | None = None,
) -> Figure:
    """Labels as tinted, outlined regions and contours as lines over one image or a list of images.

    Args:
        label: label map (H, W) or mask; 0 and 255 are left clear. For a list of images, a list.
        contours: {name: points (P, 2)} or a sequence of points, (row, column); drawn closed. For a
            list of images, a list of these.
        names: {label: name} for the legend.
        ax: axes to draw one image in.
    """
    pictures = as_pictures(image, "image")
    labels = [None] * len(pictures) if label is None else as_pictures(label, "label")
    lines = [None] * len(pictures) if contours is None else contours
    if contours is not None and (len(pictures) == 1 and not is_list(image)):
        lines = [contours]
    for name, found in (("label", labels), ("contours", lines)):
        if len(found) != len(pictures):
            raise ValueError(f"{name} must hold {len(pictures)} entries, got {len(found)}")
    fig, axes = grid(pictures, titles, columns) if ax is None else given_axes(ax, pictures, titles)
    handles: dict[str, Any] = {}
    for a, picture, lab, line in zip(axes, pictures, labels, lines, strict=True):
        a.imshow(picture)
        if lab is not None:
            checks.same_shape(
                picture[..., :1].squeeze(-1) if picture.ndim == 3 else picture,
                lab,
                ("image", "label"),
            )
            present = {int(v): ON_IMAGE[(int(v) - 1) % len(ON_IMAGE)] for v in np.unique(lab)}
            present = {v: c for v, c in present.items() if v not in (0, 255)}
            for value, colour in present.items():
                tint(a, lab == value, colour, outline=True)
            handles |= {names[v]: patch(c) for v, c in present.items() if names and v in names}
        handles |= draw_contours(a, line)
    add_legend(fig, handles, ax)
    return fig


def errors(
    image: Any,
    pred: Any,
    ref: Any,
    *,
    titles: Sequence[str] | None = None,
    columns: int = 4,
    ax: Axes | None = None,
) -> Figure:
    """Where a segmentation is right (green), too much (vermilion), too little (sky), mixed up.

    `pred` and `ref` are label maps or masks, for one image or a list; pixels of `ref` with the
    ignore label 255 are left clear. "Wrong class" (yellow) is one structure taken for another.
    """
    pictures = as_pictures(image, "image")
    preds, refs = as_pictures(pred, "pred"), as_pictures(ref, "ref")
    for name, found in (("pred", preds), ("ref", refs)):
        if len(found) != len(pictures):
            raise ValueError(f"{name} must hold {len(pictures)} entries, got {len(found)}")
    fig, axes = grid(pictures, titles, columns) if ax is None else given_axes(ax, pictures, titles)
    handles = {}
    for a, picture, p, r in zip(axes, pictures, preds, refs, strict=True):
        checks.same_shape(p, r, ("pred", "ref"))
        a.imshow(picture)
        p, r, valid = p.astype(int), r.astype(int), r != 255
        both = (p > 0) & (r > 0)
        regions = (both & (p == r), (p > 0) & (r == 0), (p == 0) & (r > 0), both & (p != r))
        for (name, colour), region in zip(ERRORS.items(), regions, strict=True):
            tint(a, region & valid, colour, alpha=0.6)
            if name != "wrong class" or (region & valid).any():
                handles[name] = patch(colour)
    add_legend(fig, handles, ax)
    return fig
