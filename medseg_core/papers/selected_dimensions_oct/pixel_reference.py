"""An outside reference that the paper does not have: a 2-D U-Net that labels every pixel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg_core.papers.selected_dimensions_oct.sampler import LossHistorySampler


def region_step(
    model: nn.Module, batch: Mapping[str, Tensor], sampler: LossHistorySampler
) -> Tensor:
    """One update's loss: cross entropy of the K + 1 regions between K borders, in valid columns.

    Args:
        model: (B,1,H,W) -> logits (B,K+1,H,W); region 0 is above the first border.
        batch: ``image``, ``surfaces (B,K,W)``, ``valid (B,K,W)`` and ``index (B,)``.
        sampler: is told the loss of each image.

    Taught in: selected-dimensions-oct.
    """
    row = torch.arange(batch["image"].shape[2], device=batch["image"].device).view(1, 1, -1, 1)
    region = (batch["surfaces"][:, :, None] <= row).sum(1)  # (B,H,W)
    losses = F.cross_entropy(model(batch["image"]), region, reduction="none").mean(1)
    valid = batch["valid"].all(1)
    losses = (losses * valid).sum(1) / valid.sum(1).clamp_min(1)
    sampler.update(batch["index"], losses)
    return losses.mean()


def region_borders(logits: Tensor) -> Tensor:
    """Rows (N,K,W) of the borders between K + 1 regions, from their logits (N,K+1,H,W).

    A border's row is the count of a column's pixels above it, less a half.

    Taught in: selected-dimensions-oct.
    """
    region = logits.argmax(1, keepdim=True)  # (N,1,H,W)
    border = torch.arange(logits.shape[1] - 1).view(1, -1, 1, 1).to(region)
    return (region <= border).sum(2) - 0.5
