"""Losses, and the functions beside the networks, give on CUDA what they give on the CPU."""

import ast
from pathlib import Path

import torch

from medseg_core import losses, models
from medseg_core.losses import partial
from medseg_core.rng import generator


def noise(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed, stream="gpu"))


def pixels():
    label = (noise(2, 5, 5, seed=1) > 0).long()
    label[:, 0] = 255
    return {"logits": noise(2, 3, 5, 5), "label": label, "weight": noise(2, 5, 5, seed=2).abs()}


TABLE = {
    "losses.partial.weighted_cross_entropy": {
        "call": lambda logits, label, weight: partial.weighted_cross_entropy(
            logits, label, weight, normalise="weights"
        ),
        "inputs": pixels,
        "wrt": ("logits",),
    },
}
IN_NETWORK = "a part of the networks in test_models"
LEFT_OUT = {"models.unet_blocks.upsample": IN_NETWORK, "models.unet_blocks.crop": IN_NETWORK}


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
