"""The chapter's experiment: its settings, the retina's data, and the arm that trains.

What distinguishes the arms stands in `recipes`, what is measured in `scores`, the artery's data in
`ivus_experiment`, and the surfaces that are found without learning in `classical`.

Taught in: ipm-surfaces.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from medseg_core import checks
from medseg_core.datasets import JHUOCT, SpectralisExport
from medseg_core.datasets.oct_jhu import VALIDATION
from medseg_core.papers.ipm_surfaces import recipes
from medseg_core.papers.ipm_surfaces.recipes import Recipe
from medseg_core.papers.ipm_surfaces.scores import masd, score
from medseg_core.phantoms import oct_bscan
from medseg_core.training.fit import fit
from medseg_core.training.samplers import batches

SOURCES = {"phantom": None, "jhu": JHUOCT, "spectralis": SpectralisExport}
LAYERS = ("ILM", "RNFL–GCL", "IPL–INL", "INL–OPL", "OPL–ONL", "ELM", "IS–OS", "OS–RPE", "BM")
PARTS = {"training": 0, "validation": 5000, "test": 10_000}  # their first samples of a phantom

Data = Mapping[str, Tensor]
Arm = Callable[[int], dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """What the three scales change; any of it can be set through `overrides`."""

    size: tuple = (128, 64)  # rows (depth), columns of a B-scan
    n_surfaces: int = 9
    n_train: int = 60
    n_validation: int = 12
    n_test: int = 30
    mask_px: int = 256  # side of the Cartesian masks of IVUS
    ivus_size: tuple = (64, 96)  # radii, angles
    ivus_counts: tuple = (40, 10, 30)  # training, validation, test
    widths: tuple = (8, 16, 32, 64)  # channels of the U-Net
    kappa: float = 2.0  # κ: weight of the regions in μ
    sigma: float = 4.0  # rows, of the Gaussian around the true surface
    l1_weight: float = 10.0
    warm_up: float = 0.65  # share of the updates before smoothness and position count
    noise: float = 0.05  # largest σ of the Gaussian noise in augmentation
    salt: float = 0.02  # largest share of pixels turned black or white
    lr: float = 3e-3  # smallest learning rate that is tried; the others are 3 and 10 times larger
    batch: int = 4
    steps: int = 400
    ivus_steps: int = 300
    validate_every: int = 50
    tol: float = 1e-8  # of the interior point layer
    n_seeds: int = 3
    expected: str = "about five minutes on two CPU cores"


SETTINGS = {
    "smoke": Settings(
        size=(64, 64), n_surfaces=5, n_train=8, n_validation=4, n_test=6, ivus_size=(32, 48),
        ivus_counts=(8, 4, 6), widths=(8, 16), steps=10, ivus_steps=10, validate_every=5,
        n_seeds=1, expected="half a minute",
    ),
    "lesson": Settings(),
    "paper": Settings(
        # The paper has 360 angles, which seven levels cannot halve six times.
        size=(128, 1024), n_train=588, n_validation=147, n_test=980, ivus_size=(192, 384),
        ivus_counts=(100, 9, 326), widths=(32, 64, 128, 256, 512, 1024, 2048), sigma=8.0,
        steps=7350, mask_px=384, ivus_steps=1250, validate_every=200,
        expected="many hours on one GPU",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A data set (its three parts, `prepared`) and what its geometry asks for."""

    train: Data
    validation: Data
    test: Data
    steps: int
    circular: bool = False  # the last column is the neighbour of the first


def load(dataset: str, s: Settings, seed: int, reader: Any = None) -> Task:
    """The retina's B-scans for training, validation and test.

    Args:
        dataset: of `SOURCES`.
        s: the settings.
        seed: of the phantom; real data are the same for every seed.
        reader: of the real data set.

    Raises:
        ValueError: another data set, or one that leaves a part without a B-scan.
    """
    checks.choice(dataset, "dataset", SOURCES)
    loaders = {"jhu": _load_jhu, "spectralis": _load_spectralis}
    parts = loaders[dataset](s, reader) if dataset in loaders else _load_phantom(s, seed)
    return Task(*map(prepared, _none_empty(parts)), s.steps)


def _load_phantom(s: Settings, seed: int) -> list[dict]:
    """Disjoint samples of one seed."""
    counts = checked_counts((s.n_train, s.n_validation, s.n_test))
    draw = partial(oct_bscan, size=s.size, seed=seed, layers=s.n_surfaces)
    return [draw(n, start=start) for n, start in zip(counts, PARTS.values(), strict=True)]


def _load_jhu(s: Settings, reader: JHUOCT) -> list[dict]:
    """The paper's split of the 35 volumes: 15 people train (3 of them validate), 20 test."""
    (train, people), (test, _) = (_crops(reader, part, s.size) for part in reader.split())
    held_out = torch.tensor([who in VALIDATION for who in people])
    sets = [{k: v[part] for k, v in train.items()} for part in (~held_out, held_out)]
    counts = (s.n_train, s.n_validation, s.n_test)
    return [_spread(d, n) for d, n in zip([*sets, test], counts, strict=True)]


def _load_spectralis(s: Settings, reader: SpectralisExport) -> list[dict]:
    """Crops of all B-scans but the last train and validate, those of the last one test."""
    if len(reader) < 2:
        raise ValueError(
            f"{reader.root}: the last B-scan tests and the others train, so that two or more are "
            f"needed, found {len(reader)}"
        )
    last = len(reader) - 1
    (train, _), (test, _) = (_crops(reader, part, s.size) for part in (range(last), [last]))
    n = max(1, len(train["image"]) // 5)
    return [*({k: v[cut] for k, v in train.items()} for cut in (slice(-n), slice(-n, None))), test]


def _crops(reader: Any, indices: Iterable[int], size: tuple) -> tuple[dict, list[str]]:
    """B-scans cut into pieces of the network's width that are mostly known, and whose each is.

    The last piece of a B-scan is flush right; a narrower B-scan is one piece.
    """
    height, width = size
    down, across = reader[0]["spacing"]
    coarser = (down * max(1.0, 128 / height), across)  # a retina fills most of 128 rows
    data = reader.load(indices, size=(height, None), spacing=coarser)
    total = data["image"].shape[3]
    width = min(width, total)
    starts = sorted({*range(0, total - width + 1, width), total - width})
    cut = {
        key: torch.cat([data[key][..., i : i + width] for i in starts])
        for key in ("image", "surfaces", "valid")
    }
    known = cut["valid"].flatten(1).float().mean(1) > 0.5
    people = data["patient"] * len(starts)
    kept = [people[i] for i in torch.nonzero(known)[:, 0].tolist()]
    return {k: v[known] for k, v in cut.items()}, kept


def _spread(data: Data, n: int) -> dict:
    """At most n samples, evenly spaced over all of them."""
    keep = torch.linspace(0, len(data["image"]) - 1, min(n, len(data["image"]))).round().long()
    return {k: v[keep] for k, v in data.items()}


def checked_counts(counts: Iterable[int]) -> tuple[int, ...]:
    """Sizes of the parts of a phantom, refused where one is empty or would reach into the next."""
    named = zip(PARTS, counts, strict=True)
    return tuple(checks.between(n, f"number of images for {name}", 1, 5000) for name, n in named)


def _none_empty(parts: list[dict]) -> list[dict]:
    """The three parts of a data set, refused where one is empty."""
    for name, part in zip(PARTS, parts, strict=True):
        if not len(part["image"]):
            raise ValueError(f"the data set is too small: no image is left for {name}")
    return parts


def prepared(data: Mapping[str, Any]) -> Data:
    """What every arm sees: images in [0,1], surfaces as rows from the top, where they are known.

    Args:
        data: ``image`` (n,1,H,W), ``surfaces`` (n,N,W) and, where a device leaves gaps, ``valid``
            (n,W) or (n,N,W).

    Returns:
        These three, ``valid`` (n,N,W) bool, and ``label`` (n,H,W), the regions 0 … N between them.
    """
    surfaces = data["surfaces"]
    known = data.get("valid", torch.ones(len(surfaces), surfaces.shape[2], dtype=torch.bool))
    known = known if known.ndim == 3 else known[:, None].expand_as(surfaces)
    known = known & surfaces.isfinite()
    rows = torch.arange(data["image"].shape[2])[:, None]
    label = (rows >= surfaces.nan_to_num(1e9)[:, :, None]).sum(1)
    return {
        "image": data["image"].float(),
        "surfaces": surfaces.float(),
        "valid": known,
        "label": label,
    }


def noisy(batch: dict[str, Tensor], gen: torch.Generator, s: Settings) -> dict[str, Tensor]:
    """Gaussian noise, salt and pepper, of a strength drawn for each image: the key ``input``."""
    image = batch["image"]
    level = torch.rand(2, len(image), 1, 1, 1, generator=gen)
    image = image + s.noise * level[0] * torch.randn(image.shape, generator=gen)
    dice = torch.rand(image.shape, generator=gen)
    hit = dice < s.salt * level[1]
    grain = (dice < s.salt * level[1] / 2).float()  # half of them white
    return batch | {"input": torch.where(hit, grain, image).clamp(0, 1)}


@torch.no_grad()
def predict(model: nn.Module, data: Data, task: Task, recipe: Recipe, s: Settings) -> dict:
    """What the network says about a whole set: μ, σ², ξ, γ and c, on the CPU."""
    model.eval()
    device, found = next(model.parameters()).device, []
    for images in data["image"].split(2 * s.batch):
        out = model(recipes.channels(images.to(device), recipe, task.circular))
        found.append({k: out[k].cpu() for k in ("mu", "sigma2", "xi", "gamma", "c")})
    return {k: torch.cat([part[k] for part in found]) for k in found[0]}


def adam(lr: float) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """Adam with a short memory of squared gradients: their scale jumps when the warm-up ends."""
    return lambda weights: torch.optim.Adam(list(weights), lr=lr, betas=(0.9, 0.98))


def train(
    task: Task,
    recipe: Recipe,
    lr: float,
    s: Settings,
    device: torch.device,
    metrics: Callable[[Tensor, Data], dict[str, Any]] = score,
) -> Arm:
    """Arm: one training run of a recipe, which keeps the weights with the lowest validation error.

    That is the error of its own output, among the weights that have seen all of its losses.

    Args:
        task: the data.
        recipe: what distinguishes the arm.
        lr: learning rate, cosine decay.
        s: the settings.
        device: where to train.
        metrics: of surfaces and the test set.

    Returns:
        A function of the seed: metrics, updates, images, and as extras "history", "curve"
        (updates, validation error), "out" (`predict` on the test set) and "placed" (surfaces).
    """

    def arm(seed: int) -> dict[str, Any]:
        n_surfaces = task.train["surfaces"].shape[1]
        model = recipes.network(recipe, n_surfaces, s.widths, s.kappa, task.circular).to(device)
        done, curve = itertools.count(), []

        def loss(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            late = next(done) / task.steps >= s.warm_up
            out = model(recipes.channels(batch["input"], recipe, task.circular))
            parts = recipes.training_losses(
                out, recipes.place(out, recipe, s.tol), batch, recipe,
                sigma=s.sigma, l1_weight=s.l1_weight, late=late, circular=task.circular,
            )  # fmt: skip
            return {"loss": sum(parts.values())} | {k: v.detach() for k, v in parts.items()}

        def judge(model: nn.Module) -> float:
            out = predict(model, task.validation, task, recipe, s)
            error = masd(recipes.place(out, recipe, s.tol), task.validation).nanmean().item()
            updates = min((len(curve) + 1) * s.validate_every, task.steps)
            curve.append((updates, error))
            return -error if updates > s.warm_up * task.steps else float("nan")  # NaN never wins

        order = batches(
            task.train, s.batch, steps=task.steps, seed=seed, augment=partial(noisy, s=s)
        )
        history = fit(
            model, order, loss, steps=task.steps, optimizer=adam(lr), schedule="cosine",
            validate=judge, validate_every=s.validate_every,
        )  # fmt: skip
        out = predict(model, task.test, task, recipe, s)
        placed = recipes.place(out, recipe, s.tol)
        extras = {"history": history, "curve": curve, "out": out, "placed": placed}
        return {"updates": history.updates, "images": history.images, "extras": extras} | metrics(
            placed, task.test
        )

    return arm
