"""The chapter's experiment: its settings, data, network, and the arms that are compared.

What the chapter teaches stands in its notebook and is given to the arms: the loss of an update,
and the pipeline behind the network, ``segment``. All images and masks (bool) are (N,1,H,W).
Taught in: edpcnn.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medseg_core import checks, rng
from medseg_core.datasets import ACDC, SunnybrookPNG
from medseg_core.datasets.preprocess import zscore
from medseg_core.datasets.splits import group_split
from medseg_core.models.unet import UNet
from medseg_core.papers.edpcnn.centres import random_centres
from medseg_core.papers.edpcnn.evaluation import component, mean_dice, scores
from medseg_core.papers.edpcnn.maps import look_inside, output_maps
from medseg_core.papers.edpcnn.star_approximator import StarApproximator
from medseg_core.papers.edpcnn.synthetic_gradient import SyntheticGradient
from medseg_core.phantoms.cardiac import LV, cardiac_sax
from medseg_core.solvers.star_pattern import star_pattern, star_truth
from medseg_core.training.fit import fit, make_optimizer
from medseg_core.training.samplers import batches

# How `scales.begin` opens a data set: a function of its folder, None for the phantom.
SOURCES = {
    "phantom": None,
    "sunnybrook": SunnybrookPNG,
    "acdc": partial(ACDC, part="training", lv_only=True),
}
STARTS = (0, 5000, 10_000)  # of the phantom's training, validation and test patients

Data = dict[str, Any]
Arm = Callable[[int], dict[str, Any]]
Loss = Callable[[nn.Module, Data], Any]
Feeds = Mapping[str, Callable[[Tensor], Tensor]]
Judge = Callable[[nn.Module], float]
ContourLoss = Callable[[SyntheticGradient | None, Tensor, Tensor, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Settings:
    """What the three scales change; any of it can be set through `overrides`."""

    size: int = 64  # pixels
    n_lines: int = 32  # N, rays of the star
    n_points: int = 28  # M, answers per ray
    radius: float = 28.0  # of the star, pixels
    delta: int = 2  # largest step of the contour from ray to ray
    smooth: int = 5  # rays in the moving average behind the DP
    widths: tuple = (8, 16, 32, 64)  # channels of the U-Net
    padding: str = "same"  # "valid" with a margin is the paper's unpadded U-Net
    margin: int = 0  # zeros around the image where padding is "valid"
    dropout: float = 0.0
    f_width: int = 8  # channels of F, the imitator
    sigma: float = 1.0  # exploration noise
    n_steps: int = 4  # S, updates of F per update of the U-Net
    lr: float = 1e-3  # smallest learning rate that is tried; the others are 3 and 10 times larger
    batch: int = 10
    steps: int = 200  # updates of every arm
    validate_every: int = 50
    n_train: tuple = (10, 160)  # training-set sizes, telescopic
    n_validation: int = 40
    n_test: int = 60
    jitter_seeds: int = 5
    gamma: float = 1.0  # temperature of the smoothed DP
    n_seeds: int = 3
    expected: str = "some minutes on two CPU cores"


SETTINGS = {
    "smoke": Settings(
        n_lines=24, n_points=24, radius=24.0, steps=5, n_steps=2, batch=6, n_train=(6, 12),
        n_validation=6, n_test=12, jitter_seeds=2, n_seeds=1, validate_every=5,
        expected="about a minute",
    ),
    "lesson": Settings(),
    "paper": Settings(
        size=212, n_lines=50, n_points=65, radius=65.0, widths=(64, 128, 256, 512, 1024),
        padding="valid", margin=92, dropout=0.5, n_steps=10, lr=1e-4, steps=20_000,
        n_train=(10, 50, 100, 200, 500, 1000, 1436), n_validation=372, n_test=372,
        expected="days on one GPU",
    ),
}  # fmt: skip


class Parts(NamedTuple):
    """Images of disjoint patients (of ACDC, validation and test are the same ones)."""

    train: Data
    validation: Data
    test: Data


class Bench(NamedTuple):
    """What all arms share: ``parts`` are `prepared`, ``segment(maps, data)`` gives masks."""

    s: Settings
    parts: Parts
    segment: Callable[[Tensor, Data], Tensor]
    device: torch.device


def load_phantom(s: Settings, seed: int, reader: None = None) -> Parts:
    """Patients of one seed; more than 5000 images of a part would reach into the next."""
    counts = (max(s.n_train), s.n_validation, s.n_test)
    for n, name in zip(counts[:2], ("n_train", "n_validation"), strict=True):
        checks.between(n, name, 1, STARTS[1])
    parts = zip(counts, STARTS, strict=True)
    return _zscored(cardiac_sax(n, s.size, seed, start=start) for n, start in parts)


def load_sunnybrook(s: Settings, seed: int, reader: SunnybrookPNG) -> Parts:
    """Two patients train, two validate, four test, of each kind of disease as many."""
    grid = {"size": s.size, "spacing": 128 / s.size}  # the middle half of each image
    data = reader.load(**grid)
    shares, group = (0.25, 0.25, 0.5), data["group"].numpy()
    split = group_split(group, shares, seed, stratify=data["pathology"])
    return _zscored(reader.load(part.tolist(), **grid) for part in split)


def load_acdc(s: Settings, seed: int, reader: ACDC) -> Parts:
    """The paper's split, whatever the seed; its validation patients are its test patients, too."""
    train, held_out = reader.split()
    field = 212 if s.size >= 212 else 106  # a small image shows the middle half
    grid = {"size": s.size, "spacing": 1.3672 * field / s.size}
    return Parts(*(reader.load(part, **grid) for part in (train, held_out, held_out)))


LOADERS = {"phantom": load_phantom, "sunnybrook": load_sunnybrook, "acdc": load_acdc}


def _zscored(parts: Iterable[Data]) -> Parts:
    return Parts(*(part | {"image": zscore(part["image"])} for part in parts))


def prepared(data: Data) -> Data:
    """What the arms may see, without slices whose ventricle covers fewer than 4 pixels.

    Raises:
        ValueError: no slice is left.
    """
    mask = (data["label"] == LV)[:, None]
    keep = torch.nonzero(mask.sum((1, 2, 3)) >= 4)[:, 0]
    if not len(keep):
        raise ValueError("data must hold a slice with 4 pixels of the ventricle or more")
    return {
        "image": data["image"][keep],
        "mask": mask[keep],
        "centre": data["centre"][keep],
        "phase_name": [data["phase_name"][i] for i in keep.tolist()],
        "spacing": data["spacing"],
    }


def subset(data: Data, n: int, seed: int) -> Data:
    """The first n images of the seed's shuffle: smaller sets lie inside larger ones.

    Raises:
        ValueError: fewer than one image, or more than there are.
    """
    checks.between(n, "n", 1, len(data["image"]))
    order = torch.randperm(len(data["image"]), generator=rng.generator(seed, stream="subset"))[:n]
    return {"image": data["image"][order], "mask": data["mask"][order]}


def network(s: Settings) -> nn.Module:
    """The U-Net of all arms: maps (B,1,H,W), logits; a "valid" one gets its margin of zeros."""
    unet = UNet(2, 1, 1, s.widths, padding=s.padding, dropout=s.dropout)
    return nn.Sequential(nn.ZeroPad2d(s.margin), unet)


def imitator(
    s: Settings, lr: float, device: torch.device, circular: bool = True
) -> tuple[StarApproximator, Optimizer]:
    """A fresh F with the optimiser that it keeps for the whole training."""
    f = StarApproximator(width=s.f_width, circular=circular).to(device)
    return f, make_optimizer(f.parameters(), lr=lr)


def star(s: Settings, centre: Tensor, angle0: float | Tensor = 0.0) -> Tensor:
    """The settings' star at centres (B,2): points (B,N,M+1,2)."""
    return star_pattern(centre, s.n_lines, s.n_points, s.radius, angle0)


def unet_arm(n: int, lr: float, loss: Loss, feeds: Feeds, bench: Bench) -> Arm:
    """Arm: the U-Net alone, trained pixel by pixel, and what the solver makes of its maps.

    Args:
        n: training images.
        lr: learning rate.
        loss: of one update, ``loss(model, batch)``; the batch holds "image" and "mask".
        feeds: what the solver may be given: name -> function of the maps.
        bench: what all arms share.

    Returns:
        A function of the seed: updates, images, `evaluation.scores` of the test images, and as
        extras "history", "test" (their maps) and "through_dp": for each feed the best validation
        Dice behind the solver, and the fed maps of the test images at that moment.
    """
    s, (_, validation, test), segment, device = bench

    def arm(seed: int) -> dict[str, Any]:
        through_dp = dict.fromkeys(feeds, (-1.0, None))

        def judge(model: nn.Module) -> float:
            maps = output_maps(model, validation["image"], s.batch)
            for name, feed in feeds.items():
                dice = mean_dice(segment(feed(maps), validation), validation)
                if dice > through_dp[name][0]:
                    through_dp[name] = (dice, feed(output_maps(model, test["image"], s.batch)))
            return mean_dice(component(maps > 0, validation["centre"]), validation)

        out = _trained(network(s).to(device), loss, judge, n, lr, seed, bench)
        out["extras"]["through_dp"] = through_dp
        return out | scores(component(out["extras"]["test"] > 0, test["centre"]), test)

    return arm


def contour_arm(
    n: int,
    lr: float,
    loss: ContourLoss,
    solver: Callable[[Tensor], Tensor] | None,
    bench: Bench,
    *,
    circular: bool = True,
    move: bool = True,
    watch: Collection[int] = (),
) -> Arm:
    """Arm: the U-Net trained through the solver, on stars that are moved and turned at random.

    The rest as for `unet_arm`.

    Args:
        loss: of one update, ``loss(sg, maps, points, v_star)``: the stars' samples (B,N,M+1,2) and
            the true answers (B,N) on them; gives a dict, see `fit`.
        solver: what F imitates, from warped maps (B,N,M+1) to classes (B,N); with None there is no
            F, and ``sg`` is None.
        circular: whether F's angle closes on itself.
        move: whether the stars' centres leave the object's.
        watch: updates (from 0) at which F is looked into: `look_inside` as the extra "seen", and
            the final weights as "state".
    """
    s, (_, validation, test), segment, device = bench
    some = [validation["image"][:8], validation["mask"][:8], star(s, validation["centre"][:8])]

    def judge(model: nn.Module) -> float:
        maps = output_maps(model, validation["image"], s.batch)
        return mean_dice(segment(maps, validation), validation)

    def arm(seed: int) -> dict[str, Any]:
        model, sg = network(s).to(device), None
        if solver is not None:
            f, optimizer = imitator(s, lr, device, circular)
            gen = rng.generator(seed, stream="exploration")
            sg = SyntheticGradient(f, solver, optimizer, gen, sigma=s.sigma, n_steps=s.n_steps)
        stars, update, seen = rng.generator(seed, stream="stars"), itertools.count(), []

        def on_stars(model: nn.Module, batch: Data) -> dict[str, Tensor]:
            mask = batch["mask"].cpu()
            points = star(s, *random_centres(mask, stars, move))
            v_star, uncovered = star_truth(mask, points)
            maps = model(batch["image"])
            if (now := next(update)) in watch:
                seen.append({"update": now} | look_inside(model, sg, *some))
            out = loss(sg, maps, points.to(device), v_star.to(device))
            return out | {"uncovered": torch.tensor(uncovered)}

        out = _trained(model, on_stars, judge, n, lr, seed, bench)
        if watch:
            state = {k: v.cpu() for k, v in model.state_dict().items()}
            out["extras"] |= {"seen": seen, "state": state}
        return out | scores(segment(out["extras"]["test"], test), test)

    return arm


def _trained(
    model: nn.Module, loss: Loss, judge: Judge, n: int, lr: float, seed: int, bench: Bench
) -> dict[str, Any]:
    """The shared loop: batches of the seed's subset, best validation Dice kept."""
    s = bench.s
    order = batches(subset(bench.parts.train, n, seed), s.batch, steps=s.steps, seed=seed)
    every = s.validate_every
    history = fit(model, order, loss, steps=s.steps, lr=lr, validate=judge, validate_every=every)
    extras = {"history": history, "test": output_maps(model, bench.parts.test["image"], s.batch)}
    return {"updates": history.updates, "images": history.images, "extras": extras}
