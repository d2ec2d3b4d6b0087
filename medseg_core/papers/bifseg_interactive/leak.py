"""Where a cut leaks: one organ whose lookalikes are rendered at several contrasts.

Taught in: bifseg-interactive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from medseg_core import rng
from medseg_core.papers.bifseg_interactive.crf import Cut, crf_graphcut
from medseg_core.papers.bifseg_interactive.experiment import UNSEEN, predict
from medseg_core.papers.bifseg_interactive.seed_models import boykov_jolly, histogram_prob
from medseg_core.papers.bifseg_interactive.sessions import overlap, two_strokes
from medseg_core.phantoms import organ_in_context_params, render_organ_in_context


@dataclass(frozen=True)
class Scene:
    """One organ at one contrast, in the slice z where organ and touching neighbour are large.

    Args:
        image, truth, marks: that slice, (H,W).
        prob, labels: {"grey" or "network": P(object) and cut of that slice (H,W)}.
        score: {"grey" or "network": Dice of the whole crop}.
    """

    image: Tensor
    truth: Tensor
    marks: Tensor
    prob: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]
    score: Mapping[str, float]


def leak_scene(
    model: nn.Module, size: int, seed: int, index: int, contrast: float, cuts: Mapping[str, Cut]
) -> Scene:
    """Two strokes, and the cuts by grey values and by the network that answer them.

    Args:
        model: the network.
        size: of the crop.
        seed, index: of the organ, an unseen one; its strokes are the same at every contrast.
        contrast: of the lookalikes: 0 the organ's own grey, 1 that of the background.
        cuts: {"grey": λ and σ of the histograms' cut, "network": of the network's}.
    """
    params = organ_in_context_params(seed, index, size=size, kind=UNSEEN)
    gen = rng.generator(seed, index, stream="leak")
    sample = render_organ_in_context(params | {"alike": contrast}, gen=gen)
    image, truth = sample["image"], sample["mask"][0, 0]
    marks = two_strokes(truth, rng.generator(seed, index, stream="two strokes"))
    prob = {"grey": histogram_prob(image, marks), "network": predict(model, image)}
    labels = {
        "grey": boykov_jolly(image, marks, cuts["grey"]),
        "network": crf_graphcut(prob["network"], image, cuts["network"], marks),
    }
    touching = sample["hidden"]["distractors"][0] == 1
    z = int((truth.flatten(1).sum(1) * touching.flatten(1).sum(1)).argmax())
    return Scene(
        image[0, 0, z],
        truth[z],
        marks[0, z],
        {name: p[0, 0, z] for name, p in prob.items()},
        {name: found[0, z] for name, found in labels.items()},
        {name: float(overlap(found, truth)) for name, found in labels.items()},
    )
