"""Image-specific fine-tuning: a network learns one image from its own segmentation of it.

    min over labels y and weights θ of  E(y, θ) = Σᵢ −log P_θ(yᵢ) + λ Σ_{i,j} B_ij(y),
    where y agrees with the scribbles,

by turns: y by a minimum cut, then a few gradient steps in θ on the cross entropy with the weights
of `uncertainty_weights` (Groff 2018; Wang et al. 2018).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from medseg_core import checks
from medseg_core.losses.partial import weighted_cross_entropy
from medseg_core.papers.bifseg_interactive.crf import Cut, crf_links, crf_unary
from medseg_core.papers.bifseg_interactive.weight_map import (
    Doubt,
    scribble_distance,
    uncertainty_weights,
)
from medseg_core.solvers.grid_checks import checked_image, checked_scribbles
from medseg_core.solvers.grid_cut import GridCut
from medseg_core.training.fit import make_optimizer

# On a CPU torch has a slow convolution for inputs whose first four sizes multiply to no more. Two
# copies of one small crop are then computed several times faster than one.
SMALL = 20_480


@dataclass(frozen=True)
class FineTuning:
    """How a network is fine-tuned on one image.

    Args:
        rounds: at most so many, each a network step and a label step, ≥ 0; 0: no fine-tuning.
        steps: gradient steps per round, ≥ 1; the optimiser's state lasts from round to round.
        lr: learning rate of Adam, > 0.
        finetune: "last": the head alone, on features that are computed once; "all": every weight.
        tol: stop when less than this share of the pixels changed, ≥ 0.

    Raises:
        ValueError: a value outside these limits.
    """

    rounds: int = 4
    steps: int = 20
    lr: float = 1e-3
    finetune: str = "last"
    tol: float = 1e-3

    def __post_init__(self) -> None:
        checks.between(self.rounds, "rounds", 0, None)
        checks.between(self.steps, "steps", 1, None)
        checks.positive(self.lr, "lr")
        checks.choice(self.finetune, "finetune", ("last", "all"))
        checks.between(self.tol, "tol", 0, None)


@dataclass
class Round:
    """One round: share of pixels whose label changed, the steps' losses, seconds of each part."""

    changed: float
    losses: list[float]
    seconds: dict[str, float]


@dataclass
class Refined:
    """What `bifseg_refine` found.

    Args:
        labels: ``(1,*S)`` int64, the last cut.
        prob: ``(1,1,*S)``, P(object) of the fine-tuned network.
        weight: ``(1,*S)``, the last weight map; None where there was no round.
        crf: ``(1,*S)`` int64, the first cut: the network as it came, the CRF and the scribbles.
        history: one `Round` after the other.
        seconds: of the whole call.
    """

    labels: Tensor
    prob: Tensor
    weight: Tensor | None
    crf: Tensor
    history: list[Round] = field(default_factory=list)
    seconds: float = 0.0


def bifseg_refine(
    model: nn.Module,
    image: Tensor,
    scribbles: Tensor | None,
    cut: Cut,
    tuning: FineTuning,
    doubt: Doubt | None,
) -> Refined:
    """Segment one image, fine-tuning a copy of `model` on it; the module's problem.

    One label step, then up to `tuning.rounds` times a network step (Adam) and a label step. Every
    call starts from the weights of `model`, which it leaves as they are. The network runs in eval
    mode: no dropout, no change of running statistics. Nothing is random.

    Args:
        model: from ``(N,1,*S)`` to logits ``(N,1,*S)``, a sigmoid's. To fine-tune its last block
            it has ``features(x)`` and ``head(features)``, model(x) = head(features(x)).
        image: ``(1,1,*S)``, the crop, normalised to [0,1].
        scribbles: ``(1,*S)``: 1 object, 0 background, 255 none; None: the unsupervised variant.
        cut: λ, σ and the neighbours of a pixel.
        tuning: rounds, steps and rate.
        doubt: of the weight map; None: every pixel counts 1.

    Raises:
        ValueError: as the functions named; a batch of more than one image, logits of another shape.
        TypeError: if `model` has no ``features`` and ``head`` where they are needed.
        FloatingPointError: if the network answers with NaN or infinity.

    Taught in: bifseg-interactive.
    """
    started = time.perf_counter()
    size = checked_image(image, "image")
    checks.between(len(image), "the number of images", 1, 1)
    if scribbles is not None:
        checked_scribbles(scribbles, image)
    links, connectivity = crf_links(image, cut)
    grid = GridCut(size, connectivity)
    distance = None  # neither image nor scribbles change from round to round
    if tuning.rounds and doubt is not None and scribbles is not None:
        distance = scribble_distance(image, scribbles, doubt.eps)

    def label(prob: Tensor, links: Tensor | None = None) -> Tensor:  # None: as in the last cut
        return grid.cut(crf_unary(prob, scribbles)[0], None if links is None else links[0])[0][None]

    def weigh(prob: Tensor) -> Tensor:
        if doubt is None:
            return torch.ones_like(image[:, 0])
        return uncertainty_weights(prob, image, scribbles, doubt, distance=distance)

    network = _Network(model, image, tuning)
    prob = network.prob()
    labels = first = label(prob, links)
    weight, history = None, []
    for _ in range(tuning.rounds):
        seconds: dict[str, float] = {}
        with _clock(seconds, "weights"):
            weight = weigh(prob)
        with _clock(seconds, "network"):
            losses = network.tune(labels, weight, tuning.steps)
            prob = network.prob()
        with _clock(seconds, "cut"):
            before, labels = labels, label(prob)
        changed = float((labels != before).double().mean())
        history.append(Round(changed, losses, seconds))
        if changed < tuning.tol:
            break
    return Refined(labels, prob, weight, first, history, time.perf_counter() - started)


class _Network:
    """A copy of the model on its way to one image."""

    def __init__(self, model: nn.Module, image: Tensor, tuning: FineTuning) -> None:
        last = tuning.finetune == "last"
        if last and not (hasattr(model, "features") and hasattr(model, "head")):
            raise TypeError(
                'model must have features(x) and head(features) for finetune="last", '
                f'got {type(model).__name__}; finetune="all" needs neither'
            )
        copied = copy.deepcopy(model).eval().requires_grad_(True)
        self.home, self.device = image.device, next(copied.parameters()).device
        self.input: Tensor | Sequence[Tensor] = image.to(self.device)
        self.forward: Callable[..., Tensor] = copied
        if last:
            with torch.no_grad():
                self.input = copied.features(self.input)
            self.forward = copied.head
        self.input = self._copies(copied)
        # Weights that the loss does not reach have no gradient, and Adam leaves them alone.
        self.optimizer = make_optimizer(copied.parameters(), lr=tuning.lr)
        self.size = image.shape

    def _copies(self, model: nn.Module) -> Tensor | Sequence[Tensor]:
        """The input, twice where that is faster (see `SMALL`); `logits` takes the first."""
        x = self.input
        if isinstance(x, Tensor):
            channels = next((len(p) for p in model.parameters() if p.ndim > 2), 1)  # first level's
        else:
            channels = x[-1].shape[1]
        plane = (x if isinstance(x, Tensor) else x[-1]).shape[2:4]
        if self.device.type != "cpu" or channels * math.prod(plane) > SMALL:
            return x
        return torch.cat([x, x]) if isinstance(x, Tensor) else [torch.cat([f, f]) for f in x]

    def logits(self) -> Tensor:
        logits = self.forward(self.input)[:1]
        if logits.shape != self.size:
            raise ValueError(
                f"model must answer with logits {tuple(self.size)}, got {tuple(logits.shape)}"
            )
        return logits

    @torch.no_grad()
    def prob(self) -> Tensor:
        prob = self.logits().sigmoid().to(self.home)
        if not bool(prob.isfinite().all()):
            raise FloatingPointError("the network's probabilities are not finite")
        return prob

    @torch.enable_grad()
    def tune(self, labels: Tensor, weight: Tensor, steps: int) -> list[float]:
        labels, weight = labels.to(self.device), weight.to(self.device)
        losses = []
        for _ in range(steps):
            loss = weighted_cross_entropy(self.logits(), labels, weight, normalise="weights")
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).tolist()


@contextmanager
def _clock(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
