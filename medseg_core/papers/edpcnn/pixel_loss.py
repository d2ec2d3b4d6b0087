"""What the U-Net alone is trained with: a loss per pixel, in two forms.

The paper does not state it; validation images choose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg_core import checks

LOSSES = ("CE", "CE + Dice")


def pixel_loss(name: str) -> Callable[[nn.Module, dict[str, Any]], Tensor]:
    """The loss of one update, ``loss(model, batch)``; the batch holds "image" and "mask".

    Cross entropy counts every pixel the same, and pixels of the object are few; a Dice loss
    (one minus the soft Dice of each image) balances the classes.

    Args:
        name: one of `LOSSES`.

    Raises:
        ValueError: another name.

    Taught in: edpcnn.
    """
    checks.choice(name, "name", LOSSES)

    def loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        logits, target = model(batch["image"]), batch["mask"].float()
        value = F.binary_cross_entropy_with_logits(logits, target)
        if name == "CE + Dice":
            p = torch.sigmoid(logits)
            both, sum_ = (p * target).sum((1, 2, 3)), (p + target).sum((1, 2, 3))
            value = value + (1 - (2 * both + 1e-5) / (sum_ + 1e-5)).mean()
        return value

    return loss
