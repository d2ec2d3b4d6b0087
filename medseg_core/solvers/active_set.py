"""Exact finish of a quadratic programme on a chain: which gaps stand at a limit, then one solve."""

from __future__ import annotations

import torch
from torch import Tensor

from medseg_core.solvers.tridiagonal import links, solve_chain


def finish(
    state: Tensor, mu: Tensor, weight: Tensor, min_gap: Tensor, max_gap: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The exact minimiser of `surface_ipm`'s problem, from a guess of the active constraints.

    With the held gaps as equations a column is a chain of rigid blocks: one solve. Where the force
    in a link then has the wrong sign it is let go, where a gap leaves its limits it is held, and
    the column is solved again until nothing changes; then it satisfies the optimality conditions.
    With minimum gaps alone that ends after at most N turns from any guess, because the dual's
    matrix is an M-matrix (Hintermüller, Ito and Kunisch 2002); with both kinds there is no such
    promise, but from an interior point's end it is one or two turns.

    Args:
        state: ``(N-1,C)`` int8: 0 free, 1 at the minimum, 2 at the maximum.
        mu: ``(N,C)`` float64.
        weight: ``(N,C)``.
        min_gap: ``(N-1,C)``.
        max_gap: ``(N-1,C)`` or None; a pair with d_max = d_min is always held.

    Returns:
        s ``(N,C)``, the forces λ_min − λ_max ``(N-1,C)``, the final state, and exact ``(C,)``
        bool: False where none was found.
    """
    rigid = None if max_gap is None else max_gap <= min_gap
    if rigid is not None:
        state = state.masked_fill(rigid, 1)
    for _ in range(2 * len(mu) + 4):
        s, force = _hold(state, mu, weight, min_gap, max_gap)
        gaps, free = s.diff(dim=0), state == 0
        rounding = 1e-12 * (1 + s.abs().amax(0))
        low = ((state == 1) & (force >= 0)) | (free & (gaps < min_gap - rounding))
        new = low.to(torch.int8)
        if max_gap is not None:
            high = ((state == 2) & (force <= 0)) | (free & (gaps > max_gap + rounding))
            new.masked_fill_(high, 2).masked_fill_(rigid, 1)
        exact = (new == state).all(0)
        if bool(exact.all()):
            break
        state = torch.where(exact, state, new)
    return s, force, state, exact


def _hold(
    state: Tensor, mu: Tensor, weight: Tensor, min_gap: Tensor, max_gap: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The minimiser with the gaps of `state` held at their limit, and the forces of the links."""
    held = state > 0
    limit = min_gap if max_gap is None else torch.where(state == 2, max_gap, min_gap)
    offset = torch.zeros_like(mu)
    torch.cumsum(limit.masked_fill(~held, 0), 0, out=offset[1:])
    y, force = solve_chain(weight, links(held), weight * (mu - offset))
    return y + offset, force.masked_fill_(~held, 0)
