"""Losses on one number per column, such as the row of a boundary."""

from __future__ import annotations

import torch
from torch import Tensor

from medseg_core import checks


def hard_column_mse(pred: Tensor, target: Tensor, valid: Tensor, *, hard: bool = True) -> Tensor:
    r"""Squared error over those columns of a layer that are worse than its mean.

    .. math:: L = \sum_k \frac1{|H_k|}\sum_{j\in H_k} e_{k,j},\qquad
              e_{k,j} = (\hat y_{k,j}-y_{k,j})^2,\quad H_k = \{j : e_{k,j} > \bar e_k\}

    The mean is over the valid columns of one image and layer; which columns count is a constant to
    the gradient. So many small errors cannot outvote a few large, local ones. Where no error
    exceeds the mean (they are all alike, as with one column) every valid column counts; a layer
    without valid columns adds nothing.

    Args:
        pred: (B, K, W), K layers.
        target: (B, K, W); anything, NaN too, where it is not valid.
        valid: bool (B, K, W) or (B, W).
        hard: False lets every valid column count, the plain mean squared error of each layer.

    Returns:
        (B,), one loss per image.

    Raises:
        ValueError: shapes that differ.

    Source: Liefers et al. 2019, section 3.4.2 (whether the chosen errors are averaged or summed is
    not stated there).

    Taught in: selected-dimensions-oct.
    """
    checks.shape(pred, "pred", "B K W")
    checks.same_shape(pred, target, ("pred", "target"))
    valid = valid[:, None].expand_as(pred) if valid.ndim == 2 else valid
    checks.same_shape(pred, valid, ("pred", "valid"))
    valid = valid.bool()
    # where before the difference: the gradient of 0 × NaN is NaN.
    error = (pred - torch.where(valid, target, pred.detach())).square()
    count = valid
    if hard:
        mean = error.detach().sum(-1, keepdim=True) / valid.sum(-1, keepdim=True).clamp_min(1)
        worse = valid & (error.detach() > mean)
        count = torch.where(worse.any(-1, keepdim=True), worse, valid)
    loss = (error * count).sum(-1) / count.sum(-1).clamp_min(1)  # (B, K)
    return loss.sum(1)
