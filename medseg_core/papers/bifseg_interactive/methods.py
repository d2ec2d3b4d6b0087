"""The methods that are compared: each answers a map of scribbles with labels.

An answer is a function of scribbles (1,D,H,W) int64 (1 object, 0 background, 255 none) and of how
many there are so far, and gives labels (1,D,H,W) int64.

Taught in: bifseg-interactive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from medseg_core import checks
from medseg_core.papers.bifseg_interactive.crf import Cut, crf_graphcut
from medseg_core.papers.bifseg_interactive.experiment import Data, Settings
from medseg_core.papers.bifseg_interactive.knobs import Knobs
from medseg_core.papers.bifseg_interactive.refine import FineTuning, Round, bifseg_refine
from medseg_core.papers.bifseg_interactive.seed_models import boykov_jolly, grabcut
from medseg_core.papers.bifseg_interactive.weight_map import Doubt

METHODS = (
    "CNN + CRF",
    "CRF + scribbles",
    "BIFSeg",
    "BIFSeg, w = 1",
    "Boykov–Jolly",
    "GrabCut",
)
FINE_TUNED = ("BIFSeg", "BIFSeg, w = 1")  # they take λ and σ from "CRF + scribbles"

Answer = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Case:
    """What a method is given of a crop: the network as it came, the image, and P(object).

    ``image`` and ``prob`` are (1,1,D,H,W), on the CPU.
    """

    model: nn.Module
    image: Tensor
    prob: Tensor


def cases_of(model: nn.Module, data: Data, prob: Tensor) -> list[Case]:
    """One case per crop; ``prob`` (N,1,D,H,W) is what `predict` gave for the data."""
    pairs = zip(data["image"], prob, strict=True)
    return [Case(model, image[None], p[None]) for image, p in pairs]


@dataclass(frozen=True)
class CRF:
    """CNN + CRF, scribbles as hard constraints, no fine-tuning.

    Args:
        case: the crop.
        bare: the cut before the first scribble.
        cut: the cut from then on.
    """

    case: Case
    bare: Cut
    cut: Cut

    def __call__(self, marks: Tensor, count: int) -> Tensor:
        cut = self.cut if count else self.bare
        return crf_graphcut(self.case.prob, self.case.image, cut, marks)


class BIFSeg:
    """Fine-tune after some of the scribbles, from the weights as they came; cut after each.

    Args:
        case: the crop.
        before: the method that answers until the first fine-tuning.
        cut, tuning, doubt: as in `bifseg_refine`.
        when: numbers of scribbles after which the network is fine-tuned.

    Attributes:
        tunings: the rounds of each fine-tuning so far.
    """

    def __init__(
        self,
        case: Case,
        before: Answer,
        cut: Cut,
        tuning: FineTuning,
        doubt: Doubt | None,
        when: Sequence[int],
    ) -> None:
        self.case, self.before, self.when = case, before, when
        self.cut, self.tuning, self.doubt = cut, tuning, doubt
        self.prob: Tensor | None = None  # of the network that was fine-tuned last
        self.tunings: list[list[Round]] = []

    def __call__(self, marks: Tensor, count: int) -> Tensor:
        model, image = self.case.model, self.case.image
        if count in self.when:
            refined = bifseg_refine(model, image, marks, self.cut, self.tuning, self.doubt)
            self.prob = refined.prob
            self.tunings.append(refined.history)
            return refined.labels
        if self.prob is None:
            return self.before(marks, count)
        return crf_graphcut(self.prob, image, self.cut, marks)


class GreyCut:
    """Boykov–Jolly or GrabCut: grey values alone; until the first answer the box is the object.

    Args:
        segment: ``segment(image, marks)`` gives labels.
        image: (1,1,D,H,W).
        when: numbers of scribbles after which it answers, while in between its last answer stays;
            None: after each.
    """

    def __init__(
        self,
        segment: Callable[[Tensor, Tensor], Tensor],
        image: Tensor,
        when: Sequence[int] | None,
    ) -> None:
        self.segment, self.image, self.when = segment, image, when
        self.labels = torch.ones(1, *image.shape[2:], dtype=torch.int64)

    def __call__(self, marks: Tensor, count: int) -> Tensor:
        if count and (self.when is None or count in self.when):
            self.labels = self.segment(self.image, marks)
        return self.labels


def make_method(
    name: str, case: Case, tuned: Mapping[str, Knobs], s: Settings, doubt: Doubt
) -> Answer:
    """A method, ready for its first scribble.

    Args:
        name: of `METHODS`.
        case: the crop.
        tuned: {method: its knobs}; also those of "CNN + CRF" and "CRF + scribbles", which answer
            until a method with a network has more to say.
        s: the settings.
        doubt: of the weight map; "BIFSeg, w = 1" has none.

    Raises:
        ValueError: another name.
    """
    checks.choice(name, "name", METHODS)
    knobs = tuned[name]
    cut = knobs.cut(s.connectivity)
    if name == "Boykov–Jolly":
        return GreyCut(partial(boykov_jolly, cut=cut), case.image, None)
    if name == "GrabCut":
        segment = partial(grabcut, cut=cut, n_iter=s.mixture_turns)
        return GreyCut(segment, case.image, s.tune_at)
    bare = tuned["CNN + CRF"].cut(s.connectivity)
    if name not in FINE_TUNED:
        return CRF(case, bare, cut)
    before = CRF(case, bare, tuned["CRF + scribbles"].cut(s.connectivity))
    tuning = knobs.tuning(s.rounds, s.tune_steps)
    return BIFSeg(case, before, cut, tuning, doubt if name == "BIFSeg" else None, s.tune_at)


def grids_of(
    name: str, s: Settings, lam: float | None = None, sigma: float | None = None
) -> dict[str, Sequence[Any]]:
    """{knob: values} that a method is tuned over; λ and σ may be given instead.

    Raises:
        ValueError: another name.
    """
    checks.choice(name, "name", METHODS)
    if name in FINE_TUNED:
        return {"lr": s.tune_rates, "finetune": s.finetune}
    return {
        "lam": s.lams if lam is None else (lam,),
        "sigma": s.sigmas if sigma is None else (sigma,),
    }
