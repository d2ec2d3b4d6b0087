"""Weighted isotonic regression of many columns at once, exact: pooling of adjacent violators.

    min_s  ½ Σᵢ wᵢ (sᵢ − yᵢ)²   subject to   s₁ ≤ s₂ ≤ … ≤ s_N

The solution is constant on blocks, sᵢ = max over j ≤ i of min over k ≥ i of the weighted mean of
y_j..y_k.

Taught in: optimisation-as-a-layer, ipm-surfaces.
"""

from __future__ import annotations

import torch
from torch import Tensor


def isotonic_regression(y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Solution of the module's problem, and which neighbours it pools; no gradient.

    Neighbouring blocks in the wrong order belong to one block of the solution. So all such pairs
    of all columns are pooled at once, on one list of blocks that shortens with each sweep, until
    none is left: at most N − 1 sweeps, for random columns about log N. Time O(N·sweeps) and memory
    O(N) a column. Equal neighbours stay apart, so that a column in order comes back as it is.

    Args:
        y: ``(N,C)`` finite values, one column per problem.
        weight: ``(N,C)``, positive.

    Returns:
        s ``(N,C)`` and pooled ``(N-1,C)`` bool: sᵢ and sᵢ₊₁ stand in one block.
    """
    n, columns = y.shape
    total = weight.T.reshape(-1)  # one list of blocks, column after column: (C·N,)
    moment = (weight * y).T.reshape(-1)
    mean = y.T.reshape(-1)
    column = torch.arange(columns, device=y.device).repeat_interleave(n)
    block = torch.arange(n * columns, device=y.device)  # of each value
    while True:
        apart = (mean[:-1] <= mean[1:]) | (column[:-1] != column[1:])
        if bool(apart.all()):
            break
        new = torch.cat([apart.new_zeros(1, dtype=torch.int64), apart.cumsum(0)])
        count = int(new[-1]) + 1
        total = total.new_zeros(count).index_add_(0, new, total)
        moment = moment.new_zeros(count).index_add_(0, new, moment)
        column = column.new_empty(count).index_copy_(0, new, column)
        block = new[block]
        mean = moment / total
    block = block.view(columns, n).T
    pooled = block[1:] == block[:-1]
    return torch.where(in_block(pooled), mean[block], y), pooled


def in_block(pooled: Tensor) -> Tensor:
    """``(N,C)`` bool from ``(N-1,C)``: the value shares its block with a neighbour."""
    edge = pooled.new_zeros(1, pooled.shape[1])
    return torch.cat([pooled, edge]) | torch.cat([edge, pooled])
