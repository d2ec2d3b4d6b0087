"""Sessions of a user, played by a robot, with a method; and what the methods reach in them.

A stroke is (voxels (P,3), label), or None where the user was content. A map of scribbles is
(1,D,H,W) int64: 1 object, 0 background, 255 none.

Taught in: bifseg-interactive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medseg_core import checks, rng
from medseg_core.metrics.overlap import dice
from medseg_core.papers.bifseg_interactive.crf import NONE
from medseg_core.papers.bifseg_interactive.experiment import Arm, Data, Settings, predict
from medseg_core.papers.bifseg_interactive.knobs import Knobs
from medseg_core.papers.bifseg_interactive.methods import (
    Answer,
    BIFSeg,
    Case,
    cases_of,
    make_method,
)
from medseg_core.papers.bifseg_interactive.weight_map import Doubt
from medseg_core.phantoms import scribble_robot
from medseg_core.phantoms.annotators import add_scribble

Stroke = tuple[Tensor, int]
Tuned = Mapping[str, Knobs]


@dataclass(frozen=True)
class Moment:
    """A session after some scribbles.

    Args:
        prob: (1,1,D,H,W), of the network as fine-tuned last.
        cut: (1,D,H,W), what the network as it came and the hard scribbles give.
        weight: (1,D,H,W), of the last fine-tuning; ones before it.
        labels: (1,D,H,W), the result.
        marks: (1,D,H,W), the scribbles so far.
    """

    prob: Tensor
    cut: Tensor
    weight: Tensor
    labels: Tensor
    marks: Tensor


def overlap(labels: Tensor, truth: Tensor) -> Tensor:
    """Dice (M,) of label maps (M,D,H,W) with one truth (D,H,W)."""
    found = (labels > 0)[:, None]
    return dice(found, truth.expand_as(found), empty="one")[:, 0]


def scribble_map(strokes: Sequence[Stroke | None], size: Sequence[int]) -> Tensor:
    """The map of some strokes."""
    marks = torch.full(tuple(size), NONE)
    for stroke in strokes:
        marks = marks if stroke is None else add_scribble(marks, *stroke)
    return marks[None]


def two_strokes(truth: Tensor, gen: torch.Generator) -> Tensor:
    """What the robot draws first on an object (D,H,W), and on its surroundings: their map."""
    nothing = (torch.zeros_like(truth), torch.ones_like(truth))
    return scribble_map([scribble_robot(labels, truth, gen) for labels in nothing], truth.shape)


def session(
    answer: Answer,
    truth: Tensor,
    gen: torch.Generator,
    n: int,
    *,
    strokes: Sequence[Stroke | None] | None = None,
    goal: float = math.inf,
    max_length: int = 15,
) -> tuple[Tensor, list[Stroke | None]]:
    """User and method by turns.

    Args:
        answer: the method, see `methods`.
        truth: (D,H,W) bool; the robot chooses its strokes by it.
        gen: of the robot.
        n: strokes, ≥ 0.
        strokes: those of another session; they are drawn, whatever the errors are.
        goal: once the Dice reaches it the user is content.
        max_length: of the robot's strokes, in voxels.

    Returns:
        Labels (n+1,D,H,W) after 0 … n strokes, and the strokes.

    Raises:
        ValueError: n < 0, or fewer `strokes`.

    Taught in: bifseg-interactive.
    """
    checks.between(n, "n", 0, None)
    if strokes is not None:
        checks.between(len(strokes), "the number of strokes", n, None)
    marks = scribble_map([], truth.shape)
    labels, drawn = [answer(marks, 0)], []
    for k in range(1, n + 1):
        if strokes is not None:
            stroke = strokes[k - 1]
        elif float(overlap(labels[-1], truth)) < goal:
            stroke = scribble_robot(labels[-1][0] > 0, truth, gen, max_length=max_length)
        else:
            stroke = None
        drawn.append(stroke)
        if stroke is None:  # nothing is wrong, or not much
            labels.append(labels[-1])
        else:
            marks = add_scribble(marks[0], *stroke)[None]
            labels.append(answer(marks, k))
    return torch.cat(labels), drawn


def scribbles_until(curve: np.ndarray, goal: float) -> np.ndarray:
    """First number of scribbles (…) at which the curves (…, n+1) reach the goal; n + 1 if never."""
    reached = curve >= goal
    return np.where(reached.any(-1), reached.argmax(-1), curve.shape[-1])


def tuning_score(
    name: str,
    cases: Sequence[Case],
    data: Data,
    marks: Sequence[Tensor] | None,
    tuned: Tuned,
    s: Settings,
    doubt: Doubt,
) -> Callable[[Knobs], float]:
    """Mean Dice of a method on some crops, as a function of its knobs.

    With ``marks``, a map for each crop, the method answers them, and fine-tunes if it does so at
    all; None: it answers before any scribble.
    """
    count = 0 if marks is None else s.tune_at[0]

    def score(knobs: Knobs) -> float:
        found = []
        for i, case in enumerate(cases):
            truth = data["mask"][i, 0]
            given = scribble_map([], truth.shape) if marks is None else marks[i]
            answer = make_method(name, case, {**tuned, name: knobs}, s, doubt)
            found.append(float(overlap(answer(given, count), truth)))
        return float(np.mean(found))

    return score


def session_arm(
    name: str,
    cases: Callable[[int], Sequence[Case]],
    data: Data,
    tuned: Tuned,
    s: Settings,
    doubt: Doubt,
    *,
    strokes: Mapping[int, Sequence[Sequence[Stroke | None]]] | None = None,
    goal: float = math.inf,
) -> Arm:
    """Arm: sessions of one method with every crop.

    Args:
        name, tuned, s, doubt: of `make_method`.
        cases: the crops, with the network of a seed.
        data: of the crops, for the truth.
        strokes: {seed: strokes of each crop}, drawn again; None: the robot watches this method.
        goal: of `session`.

    Returns:
        A function of the seed: "final" (Dice per crop); as updates the gradient steps that its
        fine-tunings were given (one that settles early leaves some); images; and as extras "curve"
        (crops, scribbles + 1), "labels" and "strokes" per crop, and all "rounds".
    """

    def arm(seed: int) -> dict[str, Any]:
        curve, labels, drawn, tunings = [], [], [], []
        for i, case in enumerate(cases(seed)):
            answer, truth = make_method(name, case, tuned, s, doubt), data["mask"][i, 0]
            gen = rng.generator(seed, i, stream="robot")
            given = None if strokes is None else strokes[seed][i]
            found, given = session(answer, truth, gen, s.n_scribbles, strokes=given, goal=goal)
            curve.append(overlap(found, truth))
            labels.append(found.bool())
            drawn.append(given)
            tunings += answer.tunings if isinstance(answer, BIFSeg) else []
        curve = torch.stack(curve).numpy()
        return {
            "updates": len(tunings) * s.rounds * s.tune_steps,
            "images": len(curve),
            "final": curve[:, -1],
            "extras": {
                "curve": curve,
                "labels": labels,
                "strokes": drawn,
                "rounds": [turn for tuning in tunings for turn in tuning],
            },
        }

    return arm


def first_strokes(
    model: nn.Module, data: Data, tuned: Tuned, s: Settings, doubt: Doubt, seed: int
) -> tuple[Tensor, Tensor]:
    """Dice (N,) of BIFSeg with this network before any scribble, and after the first few."""
    ends = []
    prob = torch.cat([predict(model, image[None]) for image in data["image"]])
    for i, case in enumerate(cases_of(model, data, prob)):
        answer, truth = make_method("BIFSeg", case, tuned, s, doubt), data["mask"][i, 0]
        gen = rng.generator(seed, i, stream="next robot")
        ends.append(overlap(session(answer, truth, gen, s.early)[0], truth)[[0, -1]])
    return torch.stack(ends).unbind(1)


def table_of_patients(
    models: Mapping[str, nn.Module], data: Data, tuned: Tuned, s: Settings, doubt: Doubt, seed: int
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table: `on_patients`, mean ± SD, for {what trained it: network}."""
    columns = [on_patients(net, data, tuned, s, doubt, seed) for net in models.values()]
    rows = [
        [name, *(f"{np.mean(c[name]):.3f} ± {np.std(c[name]):.3f}" for c in columns)]
        for name in columns[0]
    ]
    return ["Dice", *(f"trained on {name}" for name in models)], rows


def on_patients(
    model: nn.Module, data: Data, tuned: Tuned, s: Settings, doubt: Doubt, seed: int
) -> dict[str, list[float]]:
    """Dice per patient: CNN, CNN + CRF, BIFSeg, and its scribbles without fine-tuning."""
    table: dict[str, list[float]] = {}
    for i, case in enumerate(cases_of(model, data, predict(model, data["image"]))):
        truth, gen = data["mask"][i, 0], rng.generator(seed, i, stream="patient robot")
        answer = make_method("BIFSeg", case, tuned, s, doubt)
        labels, drawn = session(answer, truth, gen, s.n_scribbles)
        answer = make_method("CRF + scribbles", case, tuned, s, doubt)
        plain, _ = session(answer, truth, gen, s.n_scribbles, strokes=drawn)
        scores = {
            "CNN": overlap(case.prob[0] > 0.5, truth),
            "CNN + CRF": overlap(labels[:1], truth),
        }
        for k in sorted({s.early, s.many, s.n_scribbles}):
            scores[f"BIFSeg, {k} scribbles"] = overlap(labels[[k]], truth)
            scores[f"CRF, the same {k}"] = overlap(plain[[k]], truth)
        for name, value in scores.items():
            table.setdefault(name, []).append(float(value))
    return table
