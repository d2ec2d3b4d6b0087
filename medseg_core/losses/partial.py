"""Cross-entropy where the truth is known only in part, or known better in some places."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg_core import checks

IGNORE = 255  # label of the pixels that do not count


def weighted_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    normalise: str = "valid",
) -> Tensor:
    r"""Cross-entropy in which each pixel has a weight, and pixels without a label do not count.

    .. math:: L = \frac{1}{Z}\sum_{i \in V} w_i\,\bigl(-\log p_i(y_i)\bigr),\qquad
              V = \{i : y_i \ne 255\},\quad
              Z = |V| \ \text{("valid")}\quad\text{or}\quad Z = \sum_{i \in V} w_i
              \ \text{("weights")}

    over all pixels of the batch together; p is the softmax of the logits, or with one channel the
    sigmoid (binary). Z = 0 gives a loss of 0 with zero gradients.

    "valid" keeps the scale of the weights: halving them all halves the loss. "weights" makes the
    loss a weighted mean, so that excluded pixels (w = 0) do not thin it out. Source: the loss of
    image-specific fine-tuning, Wang et al. 2018, §III-B (the normalisation is a choice).

    Args:
        logits: (N, K, *S), any number of spatial axes.
        target: (N, *S) integer or bool: 0..K−1 (K = 1: 0 or 1), or 255, no label.
        weight: (N, *S), finite and ≥ 0, where there is no label too; None: 1.
        normalise: "valid" or "weights".

    Raises:
        ValueError: shapes that differ, a label that is no class, a weight that is negative, NaN or
            infinite, an unknown normalisation.
        TypeError: a target of real numbers.

    Taught in: bifseg-interactive.

    >>> logits = torch.zeros(1, 1, 4)  # p = 1/2, a loss of log 2 at each pixel
    >>> target = torch.tensor([[0, 1, 1, 255]])
    >>> weight = torch.tensor([[1.0, 0.0, 5.0, 1.0]])
    >>> weighted_cross_entropy(logits, target, weight)  # 6 log 2 / 3
    tensor(1.3863)
    >>> weighted_cross_entropy(logits, target, weight, normalise="weights")
    tensor(0.6931)
    """
    sizes = checks.shape(logits, "logits", "N K *S")
    checks.shape(target, "target", "N *S", N=sizes["N"], S=sizes["S"])
    checks.choice(normalise, "normalise", ("valid", "weights"))
    if target.is_floating_point() or target.is_complex():
        raise TypeError(f"target must hold integers or bools, got {target.dtype}")
    target = target.long()
    valid = target != IGNORE
    known = torch.where(valid, target, 0)
    checks.between(known, "target", 0, max(sizes["K"], 2) - 1)

    if sizes["K"] == 1:
        loss = F.binary_cross_entropy_with_logits(
            logits[:, 0], known.to(logits.dtype), reduction="none"
        )
    else:
        loss = F.cross_entropy(logits, known, reduction="none")  # (N, *S)
    w = valid.to(loss.dtype)
    if weight is not None:
        checks.same_shape(weight, target, ("weight", "target"))
        checks.between(checks.finite(weight, "weight"), "weight", 0, None)
        w = w * weight.to(loss)
    total = w.sum() if normalise == "weights" else valid.sum()
    return (w * loss).sum() / torch.where(total > 0, total, 1)
