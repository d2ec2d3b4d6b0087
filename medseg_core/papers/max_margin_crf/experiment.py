"""The chapter's experiment: its settings, images, network, pre-training, and CRFs of its images.

How a pre-trained network is trained on stands in `training`, what the arms report in `outcomes`.
Images are (N,1,H,W), targets (N,H,W), logits (N,1,H,W).

Taught in: max-margin-crf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg_core import checks, rng
from medseg_core.datasets import CAMUS
from medseg_core.papers.max_margin_crf.crf import MaxMarginCRF
from medseg_core.papers.max_margin_crf.fcn8 import FCN8
from medseg_core.papers.max_margin_crf.scores import mean_overlap
from medseg_core.phantoms import thorax_ct, ultrasound_bmode
from medseg_core.training.fit import fit
from medseg_core.training.samplers import batches

PHANTOMS = {"ultrasound": ultrasound_bmode, "ct": thorax_ct}
# How `scales.begin` opens a data set: a function of its folder, None for a phantom.
SOURCES = {"ultrasound": None, "ct": None, "camus": partial(CAMUS, view="2CH", phase="ED")}
STARTS = (0, 5000, 10_000)  # of a phantom's training, validation and test patients

Arm = Callable[[int], dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """What the three scales change; any of it can be set through `overrides`."""

    size: int = 96  # pixels per side, divisible by 32
    n_train: int = 33  # images
    n_small: int = 12  # of the comparison by size, ...
    n_large: int = 66  # ... of which the smaller sets are the beginning
    n_validation: int = 17
    n_test: int = 16
    widths: tuple = (16, 32, 64, 64, 64)  # channels of the five stages
    convs: tuple = (1, 1, 2, 2, 2)  # convolutions per stage
    fc: int = 128  # channels of the two layers after them
    fc_kernel: int = 3
    dropout: float = 0.5
    batch: int = 10
    pre_steps: int = 200  # updates of the pre-training
    pre_rate: float = 1e-3
    validate_every: int = 25
    epochs: int = 8  # of the joint training, and of the control
    rates: tuple = (1e-4, 3e-4, 1e-3, 3e-3)  # learning rates that are tried for both
    C: float = 1.0  # weight of the slack
    eps: float = 1.0  # tolerance of the cutting planes, pixels
    max_rounds: int = 50
    connectivity: int = 4
    grid: tuple = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of the hand-tuned w2, w3
    n_seeds: int = 3
    expected: str = "a few minutes on two CPU cores"


SETTINGS = {
    "smoke": Settings(
        size=64, n_train=6, n_small=4, n_large=8, n_validation=4, n_test=4,
        widths=(8, 8, 16, 16, 16), convs=(1,) * 5, fc=16, pre_steps=40, pre_rate=3e-3,
        validate_every=20, epochs=2, rates=(1e-3,), eps=5.0, grid=(0.0, 1.0), n_seeds=1, batch=4,
        expected="half a minute",
    ),
    "lesson": Settings(),
    "paper": Settings(
        size=256, widths=(64, 128, 256, 512, 512), convs=(2, 2, 3, 3, 3), fc=4096, fc_kernel=7,
        n_small=33, n_train=200, n_large=300, n_validation=50, n_test=100, pre_steps=2000,
        validate_every=200, epochs=20, rates=(1e-5, 3e-5, 1e-4), expected="hours on one GPU",
    ),
}  # fmt: skip


class Parts(NamedTuple):
    """Images of disjoint patients, as a source gives them or `prepared`."""

    train: dict[str, Any]
    validation: dict[str, Any]
    test: dict[str, Any]


class Bench(NamedTuple):
    """What all arms share; ``parts`` are `prepared`."""

    s: Settings
    parts: Parts
    device: torch.device


def load(dataset: str, s: Settings, seed: int, reader: CAMUS | None = None) -> Parts:
    """Training, validation and test images, as many of the first as the largest set needs.

    Args:
        dataset: of `SOURCES`.
        s: the settings.
        seed: of a phantom's images, or of the split of real patients.
        reader: of the real data set.

    Raises:
        ValueError: another data set, or fewer patients than the settings ask for.
    """
    checks.choice(dataset, "dataset", SOURCES)
    counts = (max(s.n_train, s.n_small, s.n_large), s.n_validation, s.n_test)
    if dataset == "camus":
        return _load_camus(counts, s, seed, reader)
    for name in ("n_train", "n_small", "n_large", "n_validation", "n_test"):
        checks.between(getattr(s, name), name, 1, STARTS[1])  # more would reach into the next part
    parts = zip(counts, STARTS, strict=True)
    return Parts(*(PHANTOMS[dataset](n, s.size, seed, start=start) for n, start in parts))


def _load_camus(counts: tuple[int, ...], s: Settings, seed: int, reader: CAMUS) -> Parts:
    """One image per patient, all on the grid that shows the largest of them whole."""
    total = sum(counts)
    if len(reader) < total:
        raise ValueError(
            f"data_dir must hold {total} patients for the settings n_train, n_small, n_large, "
            f"n_validation and n_test, and holds {len(reader)}; ask for fewer with --set"
        )
    split = reader.split([n / total for n in counts], seed=seed)
    grid = {"size": s.size, "spacing": reader.fit_spacing(s.size)}
    return Parts(*(reader.load(part[:n], **grid) for part, n in zip(split, counts, strict=True)))


def prepared(data: Mapping[str, Any]) -> dict[str, Tensor]:
    """What the network and the CRF see: images of mean 0 and deviation 1, targets 0 and 1."""
    image = data["image"]
    image = (image - image.mean((1, 2, 3), True)) / image.std((1, 2, 3), keepdim=True)
    return {"image": image, "target": data["mask"][:, 0].long()}


def first(data: Mapping[str, Tensor], n: int | None) -> dict[str, Tensor]:
    """The first n images, None: all of them. Smaller sets lie inside larger ones."""
    return {key: x[:n] for key, x in data.items()}


def network(s: Settings) -> FCN8:
    """The network of all arms, with two channels of scores."""
    return FCN8(1, 2, s.widths, s.convs, s.fc, s.fc_kernel, s.dropout)


def logits_of(model: nn.Module, image: Tensor) -> Tensor:
    """a = log z − log(1 − z) of a softmax over the two channels, on the model's device."""
    out = model(image.to(next(model.parameters()).device))
    return out[:, 1:] - out[:, :1]


@torch.no_grad()
def predict(model: nn.Module, image: Tensor, s: Settings) -> Tensor:
    """Logits of the network as it segments, without dropout, on the CPU."""
    model.eval()
    return torch.cat([logits_of(model, part).cpu() for part in image.split(s.batch)])


def log_likelihood(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The loss of the pre-training and of the control, a mean over pixels."""
    return F.cross_entropy(model(batch["image"]), batch["target"])


def pretraining(n: int, bench: Bench) -> Arm:
    """Arm: the network on the first n training images, by pixel-wise log-likelihood.

    The weights with the best validation Jaccard are kept.

    Returns:
        A function of the seed: updates, images, and as extras "history" and "state", the weights.
    """
    s, parts, device = bench

    def judge(model: nn.Module) -> float:
        found = predict(model, parts.validation["image"], s)[:, 0] > 0
        return mean_overlap(found, parts.validation["target"])

    def arm(seed: int) -> dict[str, Any]:
        rng.seed_all(seed)
        model = network(s).to(device)
        order = batches(first(parts.train, n), s.batch, steps=s.pre_steps, seed=seed)
        history = fit(
            model, order, log_likelihood, steps=s.pre_steps, lr=s.pre_rate, validate=judge,
            validate_every=s.validate_every,
        )  # fmt: skip
        state = {key: x.cpu() for key, x in model.state_dict().items()}
        extras = {"state": state, "history": history}
        return {"updates": history.updates, "images": history.images, "extras": extras}

    return arm


def restored(state: Mapping[str, Tensor], bench: Bench) -> nn.Module:
    """The network with these weights."""
    model = network(bench.s).to(bench.device)
    model.load_state_dict(state)
    return model


def crf_of(
    data: Mapping[str, Tensor], s: Settings, n: int | None = None, **options: Any
) -> MaxMarginCRF:
    """The CRF of a part's first n images, with empty sets; options replace the settings'."""
    few = first(data, n)
    options = {"connectivity": s.connectivity, "C": s.C} | options
    return MaxMarginCRF.from_images(few["image"], few["target"], **options)


def tolerance(s: Settings) -> dict[str, Any]:
    """The options of Algorithm 1.

    The QP is solved after every image, as the paper prints it, or after every round over the
    images: the same optimum, since it is convex; the former needs fewer cuts.
    """
    return {"eps": s.eps, "max_rounds": s.max_rounds, "solve_after": "image"}
