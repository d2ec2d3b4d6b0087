"""Sliders that work in the built book: every picture is rendered once and stored in the page.

`frames` needs no kernel afterwards; `live` needs one and shows a hint where there is none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg_book.page import _frames, display

if TYPE_CHECKING:
    import ipywidgets

MAX_FRAMES = 60
MAX_BYTES = 400_000
PAGE_PX = 700


def frames(
    render: Callable[..., Any],
    *,
    start: Mapping[str, Any] | None = None,
    alt: str = "",
    caption: str = "",
    labels: Mapping[str, str] | None = None,
    width: int | None = None,
    target_bytes: int = 200_000,
    **axes: Sequence[Any] | Mapping[str, Any],
) -> ipywidgets.VBox:
    """Sliders over pictures that are rendered beforehand, one for each combination of the values.

    >>> widgets.frames(lambda delta, n: draw(delta, n), delta=[1, 2, 5], n=[12, 25, 50],
    ...                start={"delta": 2}, labels={"delta": "band δ"}, alt="Contour and path")

    Args:
        render: called as `render(**values)`; returns a matplotlib figure (closed afterwards), a PIL
            image or an array (H, W), (H, W, 3): uint8, or floats and bools from 0 to 1. All
            pictures have one size. A figure's texts stay legible at up to 7 inches' width.
        axes: values of each slider, in order, or {label: value}. The first axis is the outer one.
        start: value (or label) that a slider shows first; otherwise its first.
        alt: what the picture shows, for readers who cannot see it; the sliders' values are added.
        caption: stands under the picture: what is drawn, and what to see in it.
        labels: text beside a slider; otherwise the axis's name.
        width: width on the page in pixels; otherwise 100 per inch of a figure, and small arrays are
            enlarged. A narrow page shrinks it.
        target_bytes: resolution, grey levels and quality are lowered until all pictures together
            weigh no more than this, as far as that goes.

    Raises:
        ValueError: for more than 60 pictures, more than 400 kB in all at the lowest quality,
            pictures of different sizes, an axis without values, a `start` that is not on its axis.
        TypeError: if `render` returns something else.
    """
    axes = {name: _options(name, values) for name, values in axes.items()}
    if not axes:
        raise ValueError("frames needs at least one axis, such as delta=[1, 2, 5]; got none")
    counts = [len(options) for options in axes.values()]
    if math.prod(counts) > MAX_FRAMES:
        product = " x ".join(f"{name}: {n}" for name, n in zip(axes, counts, strict=True))
        raise ValueError(
            f"frames takes at most {MAX_FRAMES} pictures, got {math.prod(counts)} ({product})"
        )
    first = {name: _start(name, options, start or {}) for name, options in axes.items()}
    for what, given in (("start", start), ("labels", labels)):
        unknown = set(given or {}) - set(axes)
        if unknown:
            raise ValueError(f"{what} names {sorted(unknown)}, the axes are {list(axes)}")
    texts = {name: (labels or {}).get(name, name.replace("_", " ")) for name in axes}

    combinations = list(itertools.product(*(options.items() for options in axes.values())))
    pictures, tooltips, dpi = [], [], None
    for combination in combinations:
        values = dict(zip(axes, (value for _, value in combination), strict=True))
        result = render(**values)
        if hasattr(result, "savefig"):
            dpi = dpi or _frames.finest_dpi(result, target_bytes / len(combinations))
            width = width or round(100 * result.get_figwidth())
        picture = _frames.as_image(result, dpi or _frames.DPIS[0])
        if pictures and picture.size != pictures[0].size:
            raise ValueError(
                f"render must return pictures of one size, got {pictures[0].size} and "
                f"{picture.size} at {values}"
            )
        pictures.append(picture)
        at = ", ".join(
            f"{text} {label}" for text, (label, _) in zip(texts.values(), combination, strict=True)
        )
        tooltips.append(f"{alt}; {at}" if alt else at)
    encoded = _frames.encode(pictures, target_bytes, MAX_BYTES)
    width = width or min(PAGE_PX, picture.width)
    return _linked(encoded, tooltips, axes, texts, first, width, caption)


def live(render: Callable[..., Any], **controls: Any) -> Any:
    """Free controls that call `render(**values)` at each change: only beside a running kernel.

    `controls` are those of `ipywidgets.interact`: (low, high, step), lists, booleans or widgets;
    `render` returns what it may return for `frames`, or None if it displays by itself.

    The stored notebook must not keep dead controls: where no reader sits at a front end, `render`
    is not called, no widget is made, and a line of text says how to get the controls.
    """
    if display.attended_shell() is None:
        return _Hint()
    import IPython.display
    import ipywidgets as W

    made = W.interactive.widget_from_abbrev  # the abbreviations of `interact`
    widgets = {name: made(c) if not isinstance(c, W.Widget) else c for name, c in controls.items()}
    unknown = [name for name, widget in widgets.items() if widget is None]
    if unknown:
        raise ValueError(f"live cannot make a control of {unknown[0]}={controls[unknown[0]]!r}")
    for name, widget in widgets.items():
        widget.description = widget.description or name.replace("_", " ")
        if hasattr(widget, "continuous_update"):
            widget.continuous_update = False  # else every pixel of a drag is rendered

    def show(**values: Any) -> None:
        result = render(**values)
        if result is not None:
            IPython.display.display(_frames.as_image(result))

    return W.VBox([*widgets.values(), W.interactive_output(show, widgets)])


class _Hint:
    text = "Open this chapter as a notebook and run this cell: it shows free controls there."

    def __repr__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return f"*{self.text}*"


def _options(name: str, values: Any) -> dict[str, Any]:
    if isinstance(values, Mapping):
        options = {str(label): value for label, value in values.items()}
    else:
        values = list(values)
        options = {label_of(value): value for value in values}
        if len(options) != len(values):
            raise ValueError(f"{name} must hold values that differ, got {values}")
    if not options:
        raise ValueError(f"{name} must hold at least one value, got none")
    return options


def label_of(value: Any) -> str:
    """How a slider shows a value: `0.30000000000000004` as `0.3`, `True` as `yes`."""
    if value is None:
        return "none"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}".replace("-", "−")
    if isinstance(value, (int, np.integer)):
        return f"{value:,}".replace(",", "\u202f").replace("-", "−")
    if isinstance(value, (tuple, list)):
        return " × ".join(map(label_of, value))
    return str(value)


def _start(name: str, options: dict[str, Any], start: Mapping[str, Any]) -> int:
    """Index of the first value shown."""
    if name not in start:
        return 0
    for i, (label, value) in enumerate(options.items()):
        if start[name] is value or start[name] == label or np.array_equal(start[name], value):
            return i
    raise ValueError(f"start: {name}={start[name]!r} is none of {list(options.values())}")


def _linked(
    encoded: Sequence[bytes],
    tooltips: Sequence[str],
    axes: Mapping[str, Mapping[str, Any]],
    texts: Mapping[str, str],
    first: Mapping[str, int],
    width: int,
    caption: str,
) -> ipywidgets.VBox:
    """Sliders linked in the browser to nested stacks, the first axis outermost."""
    import ipywidgets as W
    import traitlets

    column = f"{max(map(len, texts.values())) * 0.62 + 0.8:.1f}em"
    sliders = [
        W.SelectionSlider(
            options=list(options),
            index=first[name],
            description=texts[name],
            continuous_update=True,
            style={"description_width": column},
            layout=W.Layout(width="auto", max_width=f"{max(width, 480)}px"),
        )
        for name, options in axes.items()
    ]
    # One layout for all pictures: each model costs over a kilobyte of the stored notebook.
    shape = W.Layout(width=f"{width}px", max_width="100%", height="auto")
    level: list[Any] = [
        W.Image(value=value, format="webp", tooltip=tooltip, layout=shape)
        for value, tooltip in zip(encoded, tooltips, strict=True)
    ]
    for image in level:
        # The front end shows a tooltip only where a description is empty, and fails to draw a
        # widget that has none at all, as images do.
        image.add_traits(description=traitlets.Unicode("").tag(sync=True))
    # Innermost axis first: each run of len(options) children becomes one stack.
    for slider in reversed(sliders):
        n = len(slider.options)
        children = [level[i : i + n] for i in range(0, len(level), n)]
        around = W.Layout()
        level = [W.Stack(c, selected_index=slider.index, layout=around) for c in children]
        for stack in level:
            W.jslink((slider, "index"), (stack, "selected_index"))
    words = [W.HTMLMath(display.caption(caption))] if caption else []
    box = W.VBox([*sliders, *level, *words], layout=W.Layout(max_width="100%"))
    box.add_class("medseg-frames")
    return box
