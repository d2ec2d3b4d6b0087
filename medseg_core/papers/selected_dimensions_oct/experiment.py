"""The chapter's experiment: its settings, data, networks, and the arms that are compared.

Two tasks: "layers", the heights of three borders per column, and "ga", whether a column has
geographic atrophy. Taught in: selected-dimensions-oct.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg_core import checks
from medseg_core.datasets import DukeAMD, SpectralisExport
from medseg_core.models.unet import UNet
from medseg_core.papers.selected_dimensions_oct.augment import augment
from medseg_core.papers.selected_dimensions_oct.network import SelectedDimNet
from medseg_core.papers.selected_dimensions_oct.pixel_reference import region_borders
from medseg_core.papers.selected_dimensions_oct.sampler import LossHistorySampler
from medseg_core.papers.selected_dimensions_oct.scores import column_dice, layer_errors
from medseg_core.phantoms import oct_bscan
from medseg_core.training.fit import History, fit
from medseg_core.training.samplers import batches

TASKS = ("layers", "ga")
PARTS = {"train": 0, "validation": 5000, "test": 10_000}  # each one's first sample of the phantom
KINDS: dict[str, dict[str, Any]] = {
    "proposed": {},
    "base 1": {"encoder": False, "funnels": "first"},
    "base 2": {"funnels": "none"},
    "one funnel": {"funnels": "first"},
}
UNET = "2-D U-Net"  # the outside reference

Data = Mapping[str, Any]
Arm = Callable[[int], dict[str, Any]]
Step = Callable[[nn.Module, dict[str, Tensor], LossHistorySampler], Tensor]


@dataclass(frozen=True)
class Settings:
    """What the three scales change; any of it can be set through `overrides`."""

    height: int = 64  # H, rows of a B-scan; a power of two
    width: int = 128  # columns, layers; a multiple of the height
    ga_width: int = 64  # columns, atrophy
    slices: int = 4  # B-scans per volume of the phantom
    n_train: int = 60  # B-scans
    n_validation: int = 40
    n_test: int = 80
    speckle: float = 0.3  # of the phantom
    registration: int = 3  # largest error of the atrophy's reference, columns
    duke: tuple = ((159, 5), (10, 10), (100, 100))  # volumes (AMD, control) of the three parts
    every: int = 10  # of the annotated B-scans of Duke, this many-th is read
    ch: tuple = (12, 16, 24, 32, 48, 64, 64)  # channels per level
    head_ch: int = 128  # channels of base 1's classifier
    norm: str = "batch"  # layers; "group" for batches of one image
    ga_norm: str = "batch"
    steps: int = 250  # updates of every arm
    ga_steps: int = 250
    batch: int = 8
    ga_batch: int = 8
    rates: tuple = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # learning rates that are tried
    ga_rates: tuple = (3e-4, 1e-3, 3e-3, 1e-2)
    halvings: int = 1  # of the learning rate, at even distances
    ga_halvings: int = 1
    shift: float = 0.125  # largest random translation, share of the image
    window: int = 100  # updates that the sampler's median looks back
    boost: float = 2.0  # weight of a hard image
    validate_every: int = 50
    n_seeds: int = 3
    expected: str = "some minutes on two CPU cores"


SETTINGS = {
    "smoke": Settings(
        height=32, width=64, ga_width=32, slices=2, n_train=8, n_validation=8, n_test=12,
        duke=((2, 1), (1, 1), (2, 2)), every=1, ch=(8,) * 6, head_ch=16, steps=20, ga_steps=20,
        batch=4, ga_batch=4, rates=(3e-3,), ga_rates=(3e-3,), validate_every=10, n_seeds=1,
        expected="half a minute",
    ),
    "lesson": Settings(),
    "paper": Settings(
        height=512, width=1024, ga_width=512, slices=20, n_train=1500, n_validation=400,
        n_test=800, registration=24, every=1, ch=tuple(32 * 2 ** (k // 2) for k in range(10)),
        head_ch=1024, norm="group", steps=400_000, ga_steps=20_000, batch=1, ga_batch=4,
        rates=(2e-5,), ga_rates=(1e-5,), halvings=3, validate_every=2000,
        expected="days on one GPU",
    ),
}  # fmt: skip


class Parts(NamedTuple):
    """B-scans of disjoint volumes, as the phantom and the readers give them."""

    train: dict[str, Any]
    validation: dict[str, Any]
    test: dict[str, Any]


def load_phantom(task: str, s: Settings, seed: int) -> Parts:
    """Volumes of one seed: for "layers" half of them with AMD, for "ga" all with atrophy.

    Raises:
        ValueError: another task, or a part that would reach into the next.
    """
    checks.choice(task, "task", TASKS)
    counts = (s.n_train, s.n_validation, s.n_test)
    for n, name in zip(counts[:2], ("n_train", "n_validation"), strict=True):
        checks.between(n, name, 1, 5000)
    options = {"size": (s.height, s.width), "pathology": "drusen"}
    if task == "ga":
        options = {"size": (s.height, s.ga_width), "pathology": "ga"}
        options["registration_error"] = s.registration
    options |= {"seed": seed, "slices": s.slices, "speckle": s.speckle}
    starts = zip(counts, PARTS.values(), strict=True)
    return Parts(*(oct_bscan(n, start=start, **options) for n, start in starts))


def load_duke(s: Settings, reader: DukeAMD) -> Parts:
    """Volumes by number (`Settings.duke` of them); of their annotated B-scans the `every`-th.

    Raises:
        ValueError: fewer volumes than that.
    """
    grid = {"size": (s.height, s.width), "spacing": max(1.0, 512 / s.height)}
    split = reader.split(dict(zip(PARTS, s.duke, strict=True)))
    return Parts(*(reader.load(part[:: s.every], **grid) for part in split))


def load_spectralis(s: Settings, reader: SpectralisExport, like: Data) -> dict[str, Any]:
    """B-scans of an export, with a retina as thick and an image as bright as those of ``like``."""
    thick = (like["surfaces"][:, 2] - like["surfaces"][:, 0])[like["valid"]].mean()
    grid = (0.3 / float(thick), like["spacing"][1])  # a retina is about 0.3 mm thick
    real = reader.load(size=(s.height, s.width), spacing=grid, flatten=False)
    light = real["image"] ** 2  # the export holds fourth roots
    light = (light - light.mean()) / light.std() * like["image"].std() + like["image"].mean()
    return real | {"image": light}


def network(kind: str, task: str, s: Settings) -> SelectedDimNet:
    """The paper's network, one of its two baselines, or "one funnel", the finest alone.

    Raises:
        ValueError: another kind or task, or settings that do not fit together.
    """
    checks.choice(kind, "kind", KINDS)
    out_ch, norm = (3, s.norm) if checks.choice(task, "task", TASKS) == "layers" else (1, s.ga_norm)
    return SelectedDimNet(s.height, s.ch, out_ch, norm=norm, head_ch=s.head_ch, **KINDS[kind])


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, s: Settings) -> Tensor:
    """What the model answers to (N,1,H,W), on the CPU."""
    model.eval()
    device, size = next(model.parameters()).device, max(s.batch, s.ga_batch)
    return torch.cat([model(x.to(device)).cpu() for x in images.split(size)])


def layers_arm(
    kind: str, lr: float, step: Step, *, s: Settings, parts: Parts, device: torch.device, keep: int
) -> Arm:
    """Arm: heights of the three borders. Its result holds `scores.layer_errors` in rows.

    Which images come back sooner, a `LossHistorySampler` decides. The weights of the best
    validation error are kept. The head starts at the training mean of each border.

    Args:
        kind: of `KINDS`, or `UNET`, which labels pixels.
        lr: learning rate.
        step: ``step(model, batch, sampler)`` gives the loss of one update and tells the sampler
            each image's; the batch is one of `augment`.
        s, parts: the settings, and the data of the task "layers".
        device: where to train.
        keep: the seed whose weights are kept, on the CPU, as the extra "state".

    Returns:
        A function of the seed: metrics, updates, images, and as extras "history", "test" (rows of
        the borders in the test B-scans) and "state".

    Raises:
        ValueError: another kind.
    """
    checks.choice(kind, "kind", (*KINDS, UNET))
    train, validation, test = parts
    columns, pixels = train["valid"], kind == UNET
    heights = [rows[columns].mean() / s.height for rows in train["surfaces"].unbind(1)]

    def borders(model: nn.Module, data: Data) -> Tensor:
        out = predict(model, data["image"], s)
        return region_borders(out) if pixels else s.height * out

    def judge(model: nn.Module) -> float:
        return -layer_errors(borders(model, validation), validation)["overall"]

    def arm(seed: int) -> dict[str, Any]:
        if pixels:
            model = UNet(2, 1, len(heights) + 1, s.ch[:-2])
        else:
            model = _start_at(network(kind, "layers", s), heights)
        sampler = LossHistorySampler(len(train["image"]), s.window, s.boost)

        def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
            return step(model, batch, sampler)

        history = _fit(model.to(device), "layers", train, loss, judge, lr, seed, s, sampler.draw)
        pred = borders(model, test)
        return _outcome(model, history, pred, seed == keep) | layer_errors(pred, test)

    return arm


def ga_arm(
    kind: str, lr: float, *, s: Settings, parts: Parts, device: torch.device, keep: int
) -> Arm:
    """Arm: atrophy yes or no, by binary cross entropy over the columns; images come equally often.

    Arguments and extras as for `layers_arm` ("test": logits). Metrics, one value per test volume:
    "dice" against the reference, "clean" against where the atrophy is.
    """
    checks.choice(kind, "kind", KINDS)
    train, validation, test = parts

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(
            model(batch["image"])[:, 0], batch["columns"].float(), reduction="none"
        )
        return losses[batch["valid"]].mean()

    def judge(model: nn.Module) -> float:
        found = predict(model, validation["image"], s)[:, 0] > 0
        return float(column_dice(found, validation["columns"], validation["group"]).nanmean())

    def arm(seed: int) -> dict[str, Any]:
        model = _start_at(network(kind, "ga", s), train["columns"].float().mean().logit())
        model = model.to(device)
        history = _fit(model, "ga", train, loss, judge, lr, seed, s)
        logits = predict(model, test["image"], s)
        found = logits[:, 0] > 0
        return _outcome(model, history, logits, seed == keep) | {
            "dice": column_dice(found, test["columns"], test["group"]),
            "clean": column_dice(found, test["hidden"]["columns_clean"], test["group"]),
        }

    return arm


def _fit(
    model: nn.Module,
    task: str,
    data: Data,
    loss: Callable[[nn.Module, dict[str, Tensor]], Tensor],
    judge: Callable[[nn.Module], float],
    lr: float,
    seed: int,
    s: Settings,
    rows: Callable[[int, torch.Generator], Tensor] | None = None,
) -> History:
    """Train on the image, what is valid and the target alone, with the budget of every arm."""
    target, steps, batch, halvings = {
        "layers": ("surfaces", s.steps, s.batch, s.halvings),
        "ga": ("columns", s.ga_steps, s.ga_batch, s.ga_halvings),
    }[task]
    seen = {key: data[key] for key in ("image", "valid", target)}
    change = partial(augment, shift=s.shift)
    return fit(
        model,
        batches(seen, batch, steps=steps, seed=seed, augment=change, rows=rows),
        loss,
        steps=steps,
        lr=lr,
        schedule=lambda t: 0.5 ** int(t * (halvings + 1)),
        validate=judge,
        validate_every=s.validate_every,
    )


@torch.no_grad()
def _start_at(model: SelectedDimNet, values: Any) -> SelectedDimNet:
    """Let the head answer about ``values`` before it has learnt anything."""
    head = model.head[-1] if isinstance(model.head, nn.Sequential) else model.head
    head.weight.mul_(0.1)
    head.bias[:] = torch.as_tensor(values)
    return model


def _outcome(model: nn.Module, history: History, pred: Tensor, keep: bool) -> dict[str, Any]:
    extras: dict[str, Any] = {"history": history, "test": pred}
    if keep:
        extras["state"] = {k: v.cpu() for k, v in model.state_dict().items()}
    return {"updates": history.updates, "images": history.images, "extras": extras}
