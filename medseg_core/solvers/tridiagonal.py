"""Chains of springs: the tridiagonal system behind every solver of ordered surfaces."""

from __future__ import annotations

import torch
from torch import Tensor

FREE = 1e150  # compliance of a link that holds nothing: far above any other, its product finite


def solve_chain(weight: Tensor, compliance: Tensor, load: Tensor) -> tuple[Tensor, Tensor]:
    """Points on springs, neighbours joined by springs: positions x and forces q of the links.

        wᵢ xᵢ + qᵢ − qᵢ₋₁ = fᵢ,   xᵢ − xᵢ₊₁ = rᵢ qᵢ,   q₀ = q_N = 0,

    which is K x = f with the symmetric, positive definite, tridiagonal K = W + Aᵀ R⁻¹ A, A the
    differences xᵢ − xᵢ₊₁. A Thomas sweep over N, all columns at once: O(N) time and memory each.
    It is written in the compliance r, not in the stiffness 1/r: nothing is subtracted from a large
    number, so r may be as small as it likes. r = 0 is a rigid link, then x is constant along it;
    r ≥ `FREE` is no link.

    Args:
        weight: ``(N,*C)``, w > 0.
        compliance: ``(N-1,*C)``, r ≥ 0, finite.
        load: ``(N,*C)``, f.

    Returns:
        x ``(N,*C)`` and q ``(N-1,*C)``.
    """
    n = len(weight)
    both = torch.stack([weight, load], 1)  # (N,2,*C), swept together
    if n == 1:
        return load / weight, compliance.clone()
    keep = torch.empty_like(compliance)  # mᵢ = 1/(1 + rᵢ hᵢ), what passes to the next row
    rows, heads, m, r = both.unbind(0), both[:, 0].unbind(0), keep.unbind(0), compliance.unbind(0)
    for i in range(n - 1):
        torch.mul(r[i], heads[i], out=m[i]).add_(1).reciprocal_()
        rows[i + 1].addcmul_(rows[i], m[i])
    h, v = both.unbind(1)
    x = torch.empty_like(load)
    torch.mul(compliance, v[:-1], out=x[:-1]).mul_(keep)
    torch.div(v[-1], h[-1], out=x[-1])
    places = x.unbind(0)
    for i in range(n - 2, -1, -1):
        places[i].addcmul_(m[i], places[i + 1])
    return x, torch.addcmul(v[:-1], h[:-1], x[1:], value=-1).mul_(keep)


def links(held: Tensor) -> Tensor:
    """Compliances of links that either hold rigidly or not at all: 0 where `held`, else `FREE`."""
    return torch.full(held.shape, FREE, dtype=torch.float64, device=held.device).masked_fill_(
        held, 0
    )
