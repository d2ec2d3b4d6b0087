"""The look of every figure: colours, sizes and the matplotlib style."""

from __future__ import annotations

# Okabe and Ito's colours, told apart with every common form of colour blindness.
PALETTE = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "black": "#000000",
}
CYCLE = tuple(PALETTE[c] for c in ("blue", "orange", "green", "vermilion", "purple", "sky"))
# Over grey images, where dark blue and black would drown.
ON_IMAGE = tuple(PALETTE[c] for c in ("orange", "sky", "green", "yellow", "purple", "vermilion"))
ERRORS = {
    "true positive": PALETTE["green"],
    "false positive": PALETTE["vermilion"],
    "false negative": PALETTE["sky"],
    "wrong class": PALETTE["yellow"],
}
# One thing, one colour, through the whole book (book/guide/how-to-read-claims.md).
ROLES = {
    # over images: regions, contours and scribbles
    "object": PALETTE["orange"],
    "background": PALETTE["sky"],
    "truth": PALETTE["purple"],
    "result": PALETTE["yellow"],
    # in charts
    "method": PALETTE["blue"],
    "floor": "0.55",  # what needs no learning, and what no method can beat
}
BASELINES = tuple(PALETTE[c] for c in ("vermilion", "green", "purple", "orange", "sky"))
WIDTH = 7.0  # inches: 700 px of a page
PANEL = 2.4  # inches: the widest single image


def style() -> None:
    """Set the book's matplotlib style; every function here does so, call it before own figures."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "figure.dpi": 120,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.labelsize": 9,
            "legend.fontsize": 8.5,
            "legend.frameon": False,
            "axes.prop_cycle": cycler(color=CYCLE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.3,
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.6,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
        }
    )
