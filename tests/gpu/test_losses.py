"""Losses, and the functions beside the networks, give on CUDA what they give on the CPU."""

import ast
from pathlib import Path

import torch

from medseg_core import losses, models
from medseg_core.rng import generator


def noise(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed, stream="gpu"))


def surfaces():
    truth = (8 + 3 * noise(2, 3, 6)).clone()
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[0, 2], truth[0, :, 2] = False, float("nan")
    return {
        "log_p": noise(2, 3, 16, 6, seed=1).log_softmax(2),
        "found": 8 + 3 * noise(2, 3, 6, seed=2),
        "truth": truth,
        "weight": noise(2, 1, 16, 6, seed=3).abs(),
        "valid": valid,
    }


def pixels():
    label = (noise(2, 5, 5, seed=1) > 0).long()
    label[:, 0] = 255
    return {"logits": noise(2, 3, 5, 5), "label": label, "weight": noise(2, 5, 5, seed=2).abs()}


def of_p(name):
    def call(log_p, found, truth, weight, valid):
        target = losses.surfaces.gaussian_target(truth, 16, 1.5)
        extra = (weight,) if name == "weighted_divergence" else ()
        return getattr(losses.surfaces, name)(log_p, target, *extra, valid=valid)

    return {"call": call, "inputs": surfaces, "wrt": ("log_p",)}


def of_position(name, **options):
    def call(log_p, found, truth, weight, valid):
        return getattr(losses.surfaces, name)(found, truth, valid=valid, **options)

    return {"call": call, "inputs": surfaces, "wrt": ("found",)}


def of_image(function, wrt=("image",)):
    return {"call": function, "inputs": lambda: {"image": noise(2, 1, 8, 6)}, "wrt": wrt}


TABLE = {
    "losses.columns.hard_column_mse": {
        "call": lambda log_p, found, truth, weight, valid: losses.columns.hard_column_mse(
            found, truth, valid
        ),
        "inputs": surfaces,
        "wrt": ("found",),
    },
    "losses.partial.weighted_cross_entropy": {
        "call": lambda logits, label, weight: losses.partial.weighted_cross_entropy(
            logits, label, weight, normalise="weights"
        ),
        "inputs": pixels,
        "wrt": ("logits",),
    },
    "losses.surfaces.gaussian_target": {
        "call": lambda log_p, found, truth, weight, valid: losses.surfaces.gaussian_target(
            truth, 16, found.abs() + 1
        ),
        "inputs": surfaces,
        "wrt": ("found",),
    },
    "losses.surfaces.gradient_weight": of_image(
        lambda image: losses.surfaces.gradient_weight(image, 3.0)
    ),
    "losses.surfaces.weighted_divergence": of_p("weighted_divergence"),
    "losses.surfaces.kl_divergence": of_p("kl_divergence"),
    "losses.surfaces.surface_cross_entropy": {
        "call": lambda log_p, found, truth, weight, valid: losses.surfaces.surface_cross_entropy(
            log_p, truth, weight, valid
        ),
        "inputs": surfaces,
        "wrt": ("log_p",),
    },
    "losses.surfaces.smooth_loss": of_position("smooth_loss"),
    "losses.surfaces.smooth_loss: circular": of_position("smooth_loss", circular=True),
    "losses.surfaces.l1_loss": of_position("l1_loss"),
    "losses.surfaces.smooth_l1_loss": of_position("smooth_l1_loss"),
    "models.surface_net.region_boundaries": of_image(
        lambda image: models.surface_net.region_boundaries((image[:, 0] > 0).long(), 2), ()
    ),
    "models.surface_net.gradient_channels": of_image(
        lambda image: models.surface_net.gradient_channels(image, circular=True)
    ),
    "models.surface_net.running_maximum": of_image(
        lambda image: models.surface_net.running_maximum(image[:, 0])
    ),
}
IN_NETWORK = "a part of the networks in test_models"
LEFT_OUT = {
    "models.fcn8.bilinear_upsampling": IN_NETWORK,
    "models.selected_dims.receptive_field": "counts on a copy of the network on the CPU",
    "models.unet_blocks.downsample": IN_NETWORK,
    "models.unet_blocks.upsample": IN_NETWORK,
    "models.unet_blocks.crop": IN_NETWORK,
}


def test_the_answer_of_the_cpu(entry, lane, agrees):
    agrees(entry, lane)


def test_no_function_is_forgotten():
    found = {
        f"{package.__name__.rpartition('.')[2]}.{path.stem}.{node.name}"
        for package in (losses, models)
        for path in Path(package.__path__[0]).glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    assert found == {name.partition(":")[0] for name in TABLE} | set(LEFT_OUT)
