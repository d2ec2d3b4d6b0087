"""One training step of every chapter's network, with its own loss, gives the CPU's result."""

import inspect
import pkgutil
from importlib import import_module
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from medseg_book.run.catalogue import find_chapters
from medseg_core import models, papers
from medseg_core.losses import partial
from medseg_core.models.isensee import IsenseeUNet
from medseg_core.models.unet import UNet
from medseg_core.papers.bifseg_interactive.crf import Cut
from medseg_core.papers.bifseg_interactive.refine import FineTuning, bifseg_refine
from medseg_core.papers.bifseg_interactive.weight_map import Doubt
from medseg_core.papers.edpcnn.star_approximator import StarApproximator
from medseg_core.papers.edpcnn.synthetic_gradient import SyntheticGradient
from medseg_core.papers.ipm_surfaces import losses
from medseg_core.papers.ipm_surfaces.surface_net import (
    SurfaceNet,
    gradient_channels,
    running_maximum,
)
from medseg_core.papers.max_margin_crf.crf import MaxMarginCRF
from medseg_core.papers.max_margin_crf.fcn8 import FCN8
from medseg_core.papers.max_margin_crf.gradient import margin_loss
from medseg_core.papers.selected_dimensions_oct.losses import hard_column_mse
from medseg_core.papers.selected_dimensions_oct.network import SelectedDimNet
from medseg_core.physics import deform
from medseg_core.rng import generator
from medseg_core.solvers import star_dp, star_pattern
from medseg_core.solvers.surface_qp import ordered_surfaces

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = {
    "unet": lambda: UNet(2, 1, 1, (4, 8, 8)),
    "unet of layers": lambda: UNet(2, 1, 3, (4, 8), up="bilinear", skip="sum", act="leaky"),
    "imitator": lambda: StarApproximator(width=4),
    "surfaces": lambda: SurfaceNet(3, widths=(4, 8)),
    "fcn8": lambda: FCN8(1, 2, (4, 4, 8, 8, 8), (1,) * 5, fc=8, fc_kernel=3, dropout=0.0),
    "isensee": lambda: IsenseeUNet(3, 1, 1, width=4, depth=3).eval(),
    "columns": lambda: SelectedDimNet(16, (4, 4, 4, 8, 8), 2, head_ch=16),
}


def network(name, like):
    """The same weights in every lane: drawn on the CPU, in single precision."""
    torch.manual_seed(0)
    return NETWORKS[name]().to(like.device, like.dtype)


def one_step(model, loss):
    """Backward and one update; the loss, all gradients and all weights, one vector each."""
    weights = list(model.parameters())
    optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in weights])
    assert gradient.abs().sum() > 0
    optimizer.step()
    return loss, gradient, torch.cat([p.flatten() for p in weights])


def picture(*size, n=2):
    """A bright ball with noise, and the ball."""
    axes = torch.meshgrid(*(torch.linspace(-1, 1, k) for k in size), indexing="ij")
    mask = (sum(axis**2 for axis in axes) < 0.4).expand(n, 1, *size)
    image = mask + 0.2 * torch.randn(n, 1, *size, generator=generator(0, stream="gpu"))
    return {"image": image.clamp(0, 1), "mask": mask}


def layers(height, width, n_surfaces):
    """A picture and its surfaces, one column unknown."""
    rows = torch.arange(1, n_surfaces + 1)[:, None] * height / (n_surfaces + 1)
    surfaces = (rows + torch.arange(width).div(3).sin()).expand(2, n_surfaces, width).clone()
    valid = torch.ones(2, width, dtype=torch.bool)
    valid[0, 2] = False
    surfaces[0, :, 2] = float("nan")
    return picture(height, width) | {"surfaces": surfaces, "valid": valid}


def pixel_step(image, mask):
    model, target = network("unet", image), mask.to(image)
    logits = model(image)
    p = logits.sigmoid()
    overlap = 2 * (p * target).sum() / (p + target).sum()
    return one_step(model, F.binary_cross_entropy_with_logits(logits, target) + 1 - overlap)


def edpcnn_step(sigma):
    """The U-Net through the imitator of dynamic programming, which is trained in between."""

    def step(image, mask):
        model, imitator = network("unet", image), network("imitator", image)
        imitate = SyntheticGradient(
            imitator,
            lambda g: star_dp.circular_dp(g, 2) - 1,
            torch.optim.SGD(imitator.parameters(), lr=0.1),
            generator(0),
            sigma=sigma,
            n_steps=2,
        )
        centre = torch.full_like(image[:, 0, 0, :2], 15.3)
        points = star_pattern.star_pattern(centre, 16, 16, 12.0)
        truth, _ = star_pattern.star_truth(mask, points)
        # Not the nearest pixel: there dynamic programming meets ties, which rounding decides.
        g = deform.sample(model(image), points)[:, 0]
        imitate.step(g)
        taught = torch.cat([p.detach().flatten() for p in imitator.parameters()])
        return *one_step(model, imitate.loss(g, truth - 1)), taught

    return step


def surface_step(image, mask, surfaces, valid):
    model = network("surfaces", image)
    out = model(gradient_channels(image, circular=True))
    placed, _ = ordered_surfaces(out["mu"], out["sigma2"])
    known = {"valid": valid[:, None].expand_as(surfaces)}
    weight = losses.gradient_weight(gradient_channels(image)[:, 3:4])
    target = losses.gaussian_target(surfaces, image.shape[2], 1.5)
    loss = losses.weighted_divergence(out["log_p"], target, weight, **known)
    loss = loss + losses.smooth_loss(placed, surfaces, circular=True, **known)
    loss = loss + losses.l1_loss(placed, surfaces.nan_to_num(0.0), **known)
    rival = running_maximum(out["xi"])
    loss = loss + losses.smooth_l1_loss(rival, surfaces, **known)
    return one_step(model, loss + out["region_logits"].square().mean())


def margin_step(image, mask):
    model, target = network("fcn8", image), mask[:, 0].long()
    out = model(image)
    crf = MaxMarginCRF.from_images(image, target)
    # The untrained network says nothing, and then the CRF gives it no weight and no gradient.
    logits = out[:, 1:] - out[:, :1] + 4 * image - 2
    gamma, _ = margin_loss(logits, crf, eps=1e-6)
    return one_step(model, gamma / target.numel())


def likelihood_step(image, mask):
    model = network("fcn8", image)
    return one_step(model, F.cross_entropy(model(image), mask[:, 0].long()))


def column_step(image, mask, surfaces, valid):
    model = network("columns", image)
    loss = hard_column_mse(model(image), surfaces / image.shape[2], valid)
    return one_step(model, loss.mean())


def layer_step(image, mask, surfaces, valid):
    model = network("unet of layers", image)
    rows = torch.arange(image.shape[2], device=image.device)[:, None]
    label = (rows > surfaces[:, :, None]).sum(1)  # (B,H,W), NaN: below none
    entropy = F.cross_entropy(model(image), label, reduction="none").mean(1)
    return one_step(model, entropy[valid].mean())


def volume_step(image, mask):
    model, label = network("isensee", image), mask[:, 0].long()
    label[:, :2] = 255
    loss = partial.weighted_cross_entropy(model(image), label, 1 + image[:, 0])
    return one_step(model, loss)


def refine(image, mask):
    """One image's fine-tuning, cuts and all."""
    scribbles = torch.full_like(mask[:1, 0], 255, dtype=torch.int64)
    scribbles[:, 8, 6:10, 8], scribbles[:, 0, 0] = 1, 0
    options = (Cut(lam=2.0, sigma=0.2), FineTuning(rounds=1, steps=1), Doubt())
    found = bifseg_refine(network("isensee", image), image[:1], scribbles, *options)
    return found.labels, found.prob, found.weight


def entry(call, inputs, **more):
    return {"call": call, "inputs": inputs, "tol": 1e-3, **more}


NOISE = {
    "float64": "the noise drawn in double precision is another one",
}
TABLE = {
    "edpcnn": entry(edpcnn_step(0.0), lambda: picture(32, 32)),
    "edpcnn: noise": entry(edpcnn_step(0.5), lambda: picture(32, 32), skip=NOISE),
    "edpcnn: pixels": entry(pixel_step, lambda: picture(32, 32)),
    "ipm-surfaces": entry(surface_step, lambda: layers(32, 16, 3)),
    "max-margin-crf": entry(margin_step, lambda: picture(32, 32)),
    "max-margin-crf: likelihood": entry(likelihood_step, lambda: picture(32, 32)),
    "selected-dimensions-oct": entry(column_step, lambda: layers(16, 16, 2)),
    "selected-dimensions-oct: U-Net": entry(layer_step, lambda: layers(16, 16, 2)),
    "bifseg-interactive": entry(volume_step, lambda: picture(16, 16, 16)),
    "bifseg-interactive: one image": entry(refine, lambda: picture(16, 16, 16)),
}


def test_the_step_of_the_cpu(entry, lane, agrees):
    agrees(entry, lane)


def test_no_chapter_is_forgotten():
    chapters = {c.slug for c in find_chapters(ROOT) if c.kind == "chapter"}
    assert {name.partition(":")[0] for name in TABLE} == chapters


def test_no_network_is_forgotten():
    """Every network of `models` and `papers` is one of the table or a part of one."""
    parts = {type(part) for make in NETWORKS.values() for part in make().modules()}
    for package in (models, papers):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            found = import_module(module.name)
            for name, value in vars(found).items():
                ours = inspect.isclass(value) and value.__module__ == found.__name__
                if ours and issubclass(value, nn.Module):
                    assert value in parts, f"{module.name}.{name} is in no network of this file"
