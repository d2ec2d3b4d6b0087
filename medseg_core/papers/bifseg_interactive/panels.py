"""The chapter's figures, drawn on axes of matplotlib that are handed in.

Taught in: bifseg-interactive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_core.papers.bifseg_interactive.experiment import UNSEEN, Data
from medseg_core.papers.bifseg_interactive.figures import Pen, largest_slice
from medseg_core.papers.bifseg_interactive.leak import Scene
from medseg_core.papers.bifseg_interactive.refine import Refined
from medseg_core.papers.bifseg_interactive.seed_models import histogram_prob
from medseg_core.papers.bifseg_interactive.sessions import Moment, overlap
from medseg_core.papers.bifseg_interactive.weight_map import Doubt, uncertainty_weights

ALL = ("truth", "result", "object", "background")  # roles of a legend


def kinds(pen: Pen, figure: Any, axes: Any, data: Mapping[str, Data], names: Sequence[str]) -> None:
    """One slice of each kind of organ."""
    for kind, axis in enumerate(axes):
        d = data["unseen" if kind in UNSEEN else "train"]
        i = int((d["kind"] == kind).nonzero()[0]) if (d["kind"] == kind).any() else 0
        z = largest_slice(d["mask"][i, 0])
        title = f"{names[kind]}\n({'unseen' if kind in UNSEEN else 'trains'})"
        pen.slice(axis, d["image"][i, 0, z], title, truth=d["mask"][i, 0, z])
    pen.legend(figure, "truth")


def grey_cut(
    pen: Pen, figure: Any, axes: Any, image: Tensor, truth: Tensor, strokes: Tensor, labels: Tensor
) -> None:
    """Two strokes in their slices, P by grey values, and the cut, in the slice of the first."""
    p_grey = histogram_prob(image, strokes)[0, 0]
    on, beside = (largest_slice(strokes[0] == label) for label in (1, 0))
    for axis, z, title in (
        (axes[0], on, "stroke on the organ"),
        (axes[1], beside, "and beside it"),
    ):
        pen.slice(axis, image[0, 0, z], title, truth=truth[z], strokes=strokes[0, z])
    pen.slice(axes[2], p_grey[on], "P(object | grey)", truth=truth[on])
    pen.slice(axes[3], image[0, 0, on], "graph cut", truth=truth[on], result=labels[0, on])
    pen.legend(figure, *ALL)


def reach(
    pen: Pen, figure: Any, axes: Any, image: Tensor, prob: Tensor, marks: Tensor, eps: float
) -> None:
    """What is in doubt on a 2-D image for one reach ε."""
    pen.slice(axes[0], image[0, 0], "image, scribbles", strokes=marks[0])
    pen.slice(axes[1], prob[0, 0], "P(object)")
    pen.slice(axes[2], uncertainty_weights(prob, image, None)[0] == 0, "undecided ($U_p$)")
    pen.weights(axes[3], uncertainty_weights(prob, image, marks, Doubt(eps=eps))[0], marks[0])
    pen.legend(figure, "object", "background")


def one_image(
    pen: Pen,
    figure: Any,
    axes: Any,
    image: Tensor,
    truth: Tensor,
    marks: Tensor,
    prob: Tensor,
    guess: Tensor,
    refined: Refined,
) -> None:
    """Six pictures (2 x 3) of the slice with most scribbles, from the box to the result."""
    z = largest_slice(marks[0] != 255)
    look = {"truth": truth[z], "strokes": marks[0, z]}
    pen.slice(axes[0, 0], image[0, 0, z], "1  the box", truth=truth[z])
    pen.slice(axes[0, 1], prob[0, 0, z], "2  network: P(object)", truth=truth[z])
    pen.slice(axes[0, 2], image[0, 0, z], "3  its cut, and scribbles", result=guess[0, z], **look)
    pen.weights(axes[1, 0], refined.weight[0, z], marks[0, z], "4  weights")
    pen.slice(axes[1, 1], refined.prob[0, 0, z], "5  P after fine-tuning", truth=truth[z])
    pen.slice(axes[1, 2], image[0, 0, z], "6  new cut", result=refined.labels[0, z], **look)
    pen.legend(figure, *ALL)


def two_results(
    pen: Pen, axes: Any, what: str, image: Tensor, truth: Tensor, marks: Tensor, ends: Any
) -> None:
    """Results {method: labels (D,H,W)} of one crop, in the slice with most errors of all."""
    z = int(sum((labels != truth).int() for labels in ends.values()).sum((1, 2)).argmax())
    look = {"truth": truth[z], "strokes": marks[0, z]}
    for axis, (name, labels) in zip(axes, ends.items(), strict=True):
        title = f"{what} crop, {float(overlap(labels[None], truth)):.3f}\n{name}"
        pen.slice(axis, image[0, z], title, result=labels[z], **look)


def moment(
    pen: Pen, figure: Any, axes: Any, image: Tensor, truth: Tensor, m: Moment, z: int
) -> None:
    """P, the cut without fine-tuning, weights and result of one slice of a session."""
    look = {"truth": truth[z], "strokes": m.marks[0, z]}
    plain, tuned = (float(overlap(labels, truth)) for labels in (m.cut, m.labels))
    pen.slice(axes[0], m.prob[0, 0, z], "P(object)", truth=truth[z])
    pen.slice(axes[1], image[0, 0, z], f"no tuning: {plain:.3f}", result=m.cut[0, z], **look)
    pen.weights(axes[2], m.weight[0, z], m.marks[0, z])
    pen.slice(axes[3], image[0, 0, z], f"BIFSeg: {tuned:.3f}", result=m.labels[0, z], **look)
    pen.legend(figure, *ALL)


def leak(
    pen: Pen,
    figure: Any,
    axes: Mapping[str, Any],
    scenes: Sequence[Mapping[float, Scene]],
    contrast: float,
    colours: Mapping[str, str],
) -> None:
    """P and cut by "grey" (axes a, b) and "network" (c, d) at one contrast, and Dice over it (e).

    ``scenes``: one {contrast: scene} per organ; the first is the one that is shown.
    """
    scene = scenes[0][contrast]
    for name, (left, right) in {"grey": "ab", "network": "cd"}.items():
        look = {"truth": scene.truth, "strokes": scene.marks}
        pen.slice(axes[left], scene.prob[name], f"P, {name}", truth=scene.truth)
        title = f"cut: {scene.score[name]:.3f}"
        pen.slice(axes[right], scene.image, title, result=scene.labels[name], **look)
        for i, organ in enumerate(scenes):
            line = [at.score[name] for at in organ.values()]
            axes["e"].plot(
                list(organ),
                line,
                color=colours[name],
                linewidth=0.8 if i else 2.2,
                label=None if i else name,
            )
        axes["e"].plot([contrast], [scene.score[name]], "o", color=colours[name])
    axes["e"].set(xlabel="contrast", title="Dice", ylim=(0, 1))
    pen.legend(figure, *ALL, columns=3)


def session_curves(
    axis: Any, curves: Mapping[str, np.ndarray], look: Mapping[str, tuple[str, str]], when: Any
) -> None:
    """Mean Dice over the number of scribbles; ``look`` {method: (colour, line)}, the first two with
    a band of one standard error; dotted lines at ``when``.
    """
    for k, (name, (colour, line)) in enumerate(look.items()):
        volumes = curves[name].mean(0)  # seeds averaged: (volumes, scribbles + 1)
        mean, error = volumes.mean(0), volumes.std(0) / np.sqrt(len(volumes))
        x = np.arange(len(mean))
        axis.plot(x, mean, line, color=colour, label=name, zorder=2 if k else 3)
        if k < 2:
            axis.fill_between(x, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    for k in when:
        axis.axvline(k, color="0.6", linestyle=":", linewidth=0.8)
    axis.set(xlabel="scribbles", ylabel="Dice, unseen organs")


def slices_of(truth: Tensor, n: int) -> list[int]:
    """At most n slices (first axis) across an object (D,H,W), without its outermost ones."""
    inside = truth.flatten(1).any(1).nonzero()[:, 0]
    places = torch.linspace(0.12, 0.88, n).mul(len(inside) - 1).round().long()
    return inside[places].unique().tolist()
