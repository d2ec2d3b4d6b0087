"""What the chapter claims, in words, with margins fixed before the first training run.

Source: the claims of Larsson, Alvén and Kahl 2017, section 3, and our own controls.

Taught in: max-margin-crf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from medseg_core.papers.max_margin_crf.experiment import Settings

# Mean Jaccard (%) as printed: horses, ultrasound, CT axial, CT coronal, CT sagittal.
PRINTED = {
    "CNN only": ("79.97", "82.28", "81.40", "77.11", "75.96"),
    "piecewise": ("81.62", "85.79", "81.84", "77.12", "75.83"),
    "joint": ("84.54", "86.20", "82.10", "77.71", "76.34"),
}


class Statement(NamedTuple):
    """A claim's text, the least that must be measured, and the paper's own figures."""

    text: str
    at_least: float | None = None
    paper: str = ""


def statements(s: Settings) -> dict[str, Statement]:
    """The chapter's claims by their ids."""
    return {
        "C1a": Statement("joint beats CNN only by at least 1 point", 1.0, "86.20 vs 82.28"),
        "C1b": Statement(
            "and joint beats CNN longer + piecewise, so the gain is due to the objective and not "
            "to more training",
            0.0,
        ),
        "C2": Statement("joint is at least as good as piecewise", 0.0, "86.20 vs 85.79"),
        "C3": Statement(
            "γ of the whole training set, solved to tolerance, falls by at least 5 per cent from "
            "the first epoch of joint training to the last",
            5.0,
            "falls (its Fig. 3)",
        ),
        "C4": Statement(
            f"Algorithm 1 ends on every batch with no constraint violated by more than {s.eps:g} "
            f"pixel, in fewer than {s.max_rounds} rounds"
        ),
        "C5": Statement(
            f"what joint training gains over CNN longer is larger with {s.n_small} images than "
            f"with {s.n_large}, by at least 0.5 points",
            0.5,
            "“especially suitable” for little data; no such comparison",
        ),
        "C6": Statement(
            "absolute Jaccard on the paper's three data sets (five columns), with features learnt "
            "on ImageNet",
            paper="84.54 (horses), 86.20 (ultrasound), 76.34 to 82.10 (CT)",
        ),
        "C7": Statement(
            "γ after the last epoch of joint training over γ of the pre-trained network, by seed"
        ),
    }


def span(values: Sequence[float]) -> str:
    """The smallest and the largest of them: "0.82 to 0.99"."""
    return " to ".join(f"{x:.2f}".replace("-", "−") for x in (min(values), max(values)))


def signed(differences: Sequence[float]) -> str:
    """Differences with their signs: "+0.5, −0.1"."""
    return ", ".join(f"{x:+.1f}".replace("-", "−") for x in differences)
