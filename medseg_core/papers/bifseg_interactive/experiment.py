"""The chapter's experiment: its settings, its crops, and the network that knows three organs.

How methods and users work on the crops of the other organs stands in `methods` and `sessions`.

Taught in: bifseg-interactive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import DiceLoss
from torch import Tensor, nn

from medseg_core import checks
from medseg_core.datasets import MSD
from medseg_core.metrics.overlap import dice
from medseg_core.models.isensee import IsenseeUNet
from medseg_core.phantoms import organ_in_context
from medseg_core.training.augment import Augment
from medseg_core.training.fit import History, fit
from medseg_core.training.samplers import batches

NAMES = ("atrium", "walnut", "tube", "lobe", "bean")  # of the phantom's kinds
ORGANS = ("left atrium", "prostate", "hippocampus", "liver", "spleen")  # and of the slides' organs
TASKS = (
    "Task02_Heart",
    "Task05_Prostate",
    "Task04_Hippocampus",
    "Task03_Liver",
    "Task09_Spleen",
)
SEEN, UNSEEN = (0, 1, 2), (3, 4)  # kinds that train the network, and those that do not
# Parts of the data: the kinds in each, and where its samples of the phantom lie.
PARTS = {
    "train": (SEEN, range(5000)),
    "tune": (SEEN, range(5000, 10_000)),
    "seen": (SEEN, range(10_000, 12_000)),
    "unseen": (UNSEEN, range(12_000, 20_000)),
    "next": (UNSEEN[:1], range(20_000, 30_000)),
}

Data = Mapping[str, Any]  # image (N,1,D,H,W), mask (N,1,D,H,W) bool, kind (N,)
Arm = Callable[[int], dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """What the three scales change; any of it can be set through `overrides`."""

    size: int = 28  # voxels per side of a crop
    n_train: int = 60  # crops of the three training kinds
    n_tune: int = 9  # further ones, on which everything is tuned
    n_seen: int = 12  # test crops of the training kinds
    n_unseen: int = 12  # test crops of the other two kinds
    width: int = 8  # channels of the first level
    depth: int = 3  # levels
    steps: int = 350  # updates of the generalised network
    batch: int = 2
    lr: float = 3e-3
    validate_every: int = 50
    connectivity: int = 6  # neighbours of a voxel in the graph
    n_scribbles: int = 15
    tune_at: tuple = (3, 5, 10, 15)  # numbers of scribbles after which the network is fine-tuned
    early: int = 3  # scribbles: of the weight map's claim
    many: int = 10  # scribbles: of the other claims
    rounds: int = 2  # of fine-tuning, each a label step and a network step
    tune_steps: int = 10  # gradient steps in a round
    finetune: tuple = ("last", "all")  # weights that are fine-tuned: last block, all; tuned
    lams: tuple = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4, 1e5)  # λ
    sigmas: tuple = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # σ that are tried
    tune_rates: tuple = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # learning rates of fine-tuning
    mixture_turns: int = 3  # of GrabCut: fits and cuts
    n_transfer: tuple = (4, 6)  # crops of one unseen kind: training, validation
    transfer_steps: int = 80
    transfer_rates: tuple = (3e-4, 1e-2)  # from generalised weights, from scratch
    transfer_every: int = 10
    n_seeds: int = 3  # of the network, and of the transfer experiment
    n_sessions: int = 3  # seeds of the sessions with a user, on a GPU; on a CPU it is one
    expected: str = "some minutes on two CPU cores"


SETTINGS = {
    "smoke": Settings(
        size=24, n_train=6, n_tune=3, n_seen=1, n_unseen=2, width=4, depth=2, steps=15,
        validate_every=5, n_scribbles=2, tune_at=(1, 2), early=1, many=1, rounds=1, tune_steps=3,
        lams=(0.1, 1.0), sigmas=(0.1,), tune_rates=(3e-3,), finetune=("last",), mixture_turns=1,
        n_transfer=(1, 1), transfer_steps=4, transfer_every=2, n_seeds=1, n_sessions=1,
        expected="about a minute",
    ),
    "lesson": Settings(),
    "paper": Settings(
        size=96, n_train=300, n_tune=15, n_seen=30, n_unseen=30, width=16, depth=5, steps=20_000,
        lr=5e-4, validate_every=1000, connectivity=26, rounds=4, tune_steps=20,
        transfer_steps=1000, transfer_rates=(5e-4, 5e-4), transfer_every=100, mixture_turns=5,
        expected="hours on one GPU",
    ),
}  # fmt: skip


def part_sizes(s: Settings) -> dict[str, int]:
    """How many crops each part asks for."""
    sizes = (s.n_train, s.n_tune, s.n_seen, s.n_unseen, s.n_transfer[1])
    return dict(zip(PARTS, sizes, strict=True))


def load_phantom(s: Settings, seed: int) -> dict[str, Data]:
    """Crops of one seed: training, tuning, seen and unseen tests, and the next of an unseen kind.

    Raises:
        ValueError: a part without crops, or one that would reach into the next.
    """
    sizes = part_sizes(s)
    for part, n in sizes.items():
        checks.between(n, f"the number of crops in {part!r}", 1, len(PARTS[part][1]))
    return {
        part: organ_in_context(sizes[part], s.size, seed, start=places.start, kind=kinds)
        for part, (kinds, places) in PARTS.items()
    }


def organ_reader(root: str | Path, task: str) -> MSD:
    """The reader of one task of the Decathlon, all its labels merged into one object."""
    return MSD(root, task=task, binary=True, channel="T2" if "Prostate" in task else None)


def load_organs(s: Settings, seed: int, readers: Sequence[MSD]) -> dict[str, Data]:
    """The slides' five organs in the parts of the phantom; ``readers`` in the order of `TASKS`.

    Each organ gives its share of a part; one with fewer volumes gives what it has.
    """
    sizes = part_sizes(s)
    found: dict[str, list[dict[str, Tensor]]] = {part: [] for part in PARTS}
    for kind, reader in enumerate(readers):
        wanted = {
            part: -(-sizes[part] // len(kinds))
            for part, (kinds, _) in PARTS.items()
            if kind in kinds
        }
        share = min(1.0, len(reader) / sum(wanted.values()))
        counts = [max(1, int(share * n)) for n in wanted.values()]
        for part, chosen in zip(wanted, reader.split(counts, seed), strict=True):
            crops = reader.crops(chosen, size=s.size, seed=seed)
            crops["kind"] = torch.full((len(chosen),), kind)
            found[part].append({key: crops[key] for key in ("image", "mask", "kind")})
    return {
        part: {key: torch.cat([crops[key] for crops in list_]) for key in list_[0]}
        for part, list_ in found.items()
    }


def load_patients(s: Settings, seed: int, reader: MSD, n_test: int) -> tuple[Data, Data]:
    """Crops of one organ: patients to train on, and ``n_test`` others to test on.

    Raises:
        ValueError: fewer patients than that, and one more to train on.
    """
    checks.between(n_test, f"n_test, of {len(reader)} patients,", 1, len(reader) - 1)
    n = min(s.n_train, len(reader) - n_test)
    train, test = reader.split((n, n_test), seed)
    return reader.crops(train, size=s.size, seed=seed), reader.crops(test, size=s.size, seed=seed)


def load(
    s: Settings, seed: int, readers: Sequence[MSD], n_test: int
) -> tuple[dict[str, Data], Sequence[str], tuple[Data, Data] | None]:
    """The parts, the names of their kinds, and the patients of a single reader: (train, test)."""
    patients = load_patients(s, seed, readers[0], n_test) if len(readers) == 1 else None
    if len(readers) > 1:
        return load_organs(s, seed, readers), ORGANS, patients
    return load_phantom(s, seed), NAMES, patients


def network(s: Settings, device: torch.device) -> IsenseeUNet:
    """From a crop to one logit per voxel: object or not."""
    return IsenseeUNet(3, 1, 1, width=s.width, depth=s.depth).to(device)


def restored(state: Mapping[str, Tensor], s: Settings, device: torch.device) -> IsenseeUNet:
    """A network with stored weights."""
    model = network(s, device)
    model.load_state_dict(state)
    return model.eval()


@torch.no_grad()
def predict(model: nn.Module, images: Tensor) -> Tensor:
    """P(object) (N,1,D,H,W) on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    return torch.cat([model(x.to(device)).sigmoid().cpu() for x in images.split(4)])


def dice_of(prob: Tensor, data: Data) -> Tensor:
    """Dice (N,) of probabilities, cut at ½."""
    return dice(prob > 0.5, data["mask"], empty="one")[:, 0]


def mean_dice(model: nn.Module, data: Data) -> float:
    """What validation measures."""
    return float(dice_of(predict(model, data["image"]), data).mean())


AUGMENT = Augment(flip=True, rotate_deg=15, scale=(0.85, 1.15), gamma=(0.7, 1.5), invert=0.3)
SOFT_DICE = DiceLoss(sigmoid=True)


def train(
    model: nn.Module,
    data: Data,
    s: Settings,
    seed: int,
    *,
    steps: int,
    lr: float,
    validation: Data | None = None,
    validate_every: int = 50,
    keep: str = "best",
) -> History:
    """Train on image and mask alone, by the soft Dice loss; `keep` as in `fit`."""
    seen = {key: data[key] for key in ("image", "mask")}
    return fit(
        model,
        batches(seen, s.batch, steps=steps, seed=seed, augment=AUGMENT),
        lambda model, batch: SOFT_DICE(model(batch["image"]), batch["mask"].float()),
        steps=steps,
        lr=lr,
        weight_decay=1e-5,
        schedule="cosine",
        validate=None if validation is None else lambda model: mean_dice(model, validation),
        validate_every=validate_every,
        keep=keep,
    )


def generalised(s: Settings, parts: Mapping[str, Data], device: torch.device) -> Arm:
    """Arm: a network that learns the training kinds; the best weights on the tuning crops stay.

    Returns:
        A function of the seed: "tune", "seen" and "unseen" (Dice per crop), updates, images, and as
        extras "state" (the weights), "history", and "prob" {part: P(object)}.
    """

    def arm(seed: int) -> dict[str, Any]:
        model = network(s, device)
        options = {"steps": s.steps, "lr": s.lr, "validate_every": s.validate_every}
        history = train(model, parts["train"], s, seed, validation=parts["tune"], **options)
        prob = {p: predict(model, parts[p]["image"]) for p in ("tune", "seen", "unseen")}
        extras = {"state": state_of(model), "history": history, "prob": prob}
        spent = {"updates": history.updates, "images": history.images, "extras": extras}
        return spent | {part: dice_of(p, parts[part]) for part, p in prob.items()}

    return arm


def transfer(
    s: Settings,
    labelled: Data,
    validation: Data,
    starts: Mapping[int, Mapping[str, Tensor]] | None,
    device: torch.device,
) -> Arm:
    """Arm: a network for one organ, from weights {seed: state}, or None: from scratch.

    Returns:
        A function of the seed: "area" and "last" (mean and last value of the validation curve),
        updates, images, and as extras "curve" (updates and Dice) and "state".
    """

    def arm(seed: int) -> dict[str, Any]:
        model = network(s, device) if starts is None else restored(starts[seed], s, device)
        options = {"steps": s.transfer_steps, "lr": s.transfer_rates[int(starts is None)]}
        options |= {"validate_every": s.transfer_every, "keep": "last"}
        history = train(model, labelled, s, seed, validation=validation, **options)
        curve = [score for _, score in history.validation]
        return {
            "updates": history.updates,
            "images": history.images,
            "area": float(np.mean(curve)),
            "last": curve[-1],
            "extras": {"curve": history.validation, "state": state_of(model)},
        }

    return arm


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The weights, on the CPU."""
    return {name: value.cpu() for name, value in model.state_dict().items()}
