"""Primal-dual interior point for ordered surfaces, all columns at once.

Per column, with gaps eᵢ = sᵢ₊₁ − sᵢ and weights wᵢ = 1/σᵢ²:

    min_s  ½ Σᵢ wᵢ (sᵢ − μᵢ)²   subject to   d_minᵢ ≤ eᵢ ≤ d_maxᵢ

After Xie et al. 2020, appendix C (algorithm 1 with equations 12, 22 and 27). The Newton system is
not built: eliminating the slacks and the multipliers leaves a chain of springs
(`tridiagonal.solve_chain`) whose links have the compliance 1/Σ(λ/g). The functions here work on
columns, ``(N,C)``, in float64; `surface_qp` is the door for users.

Taught in: optimisation-as-a-layer, ipm-surfaces.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from medseg_core.solvers.tridiagonal import FREE, solve_chain

INF = float("inf")
BETA1 = 0.5  # factor of backtracking
BETA2 = 0.055  # share of the decrease of ‖r_t‖ that a step must reach
BETA3 = 10.0  # growth of t over what the present duality gap stands for


@dataclass
class Point:
    """A primal-dual point of C columns; M = N-1 minimum gaps, or 2(N-1) with the maximum gaps."""

    s: Tensor  # (N,C) surfaces
    slack: Tensor  # (M,C) g > 0; infinite where there is no such constraint
    dual: Tensor  # (M,C) λ > 0; 0 where there is no such constraint
    force: Tensor  # (N-1,C) ν = λ_min − λ_max; of a rigid link (d_min = d_max): its multiplier
    residual: Tensor  # (C,) what `stop` looks at: |Q⁻¹ r_d|∞ in px, or ‖r_t‖ of algorithm 1
    gap: Tensor  # (C,) duality gap Σ λ g
    iterations: Tensor  # (C,) int64
    converged: Tensor  # (C,) bool


def increasing_start(mu: Tensor) -> Tensor:
    """Keep a longest non-decreasing subsequence of each column, fill the rest between its members.

    O(N²) time and O(N) memory a column. An entry outside the subsequence becomes the mean of the
    nearest kept ones above and below it, or the only one of them.

    Args:
        mu: ``(N,C)``.

    Returns:
        ``(N,C)``, non-decreasing; `mu` itself where it is.
    """
    n = len(mu)
    length = torch.ones_like(mu)  # of the longest subsequence that ends here
    for i in range(1, n):
        before = length[:i] * (mu[:i] <= mu[i])
        length[i] += before.amax(0)
    keep = torch.zeros_like(mu, dtype=torch.bool)
    need, above = length.amax(0), mu.new_full(mu.shape[1:], INF)
    for i in range(n - 1, -1, -1):
        keep[i] = (length[i] == need) & (mu[i] <= above)
        need = need - keep[i].to(need.dtype)
        above = torch.where(keep[i], mu[i], above)
    low = torch.where(keep, mu, -INF).cummax(0).values
    high = torch.where(keep, mu, INF).flip(0).cummin(0).values.flip(0)
    low, high = low.where(low > -INF, high), high.where(high < INF, low)
    return low.lerp(high, 0.5).where(~keep, mu)


def strictly_inside(
    s: Tensor, mu: Tensor, weight: Tensor, min_gap: Tensor, max_gap: Tensor | None
) -> Tensor:
    """Move `s` to gaps well inside their limits, about the weighted mean of μ.

    Each gap is clipped to [d_min + η, d_max − η], η = min(0.01, (d_max − d_min)/4); then the column
    is shifted so that its weighted mean is that of μ.
    """
    gaps = s.diff(dim=0)
    if max_gap is None:
        gaps = torch.maximum(gaps, min_gap + 1e-2)
    else:
        margin = ((max_gap - min_gap) / 4).clamp(max=1e-2)
        gaps = torch.minimum(torch.maximum(gaps, min_gap + margin), max_gap - margin)
    s = torch.cat([s[:1], s[:1] + gaps.cumsum(0)])
    return s + (weight * (mu - s)).sum(0) / weight.sum(0)


def solve_columns(
    mu: Tensor,
    weight: Tensor,
    min_gap: Tensor,
    max_gap: Tensor | None,
    *,
    tol: float,
    max_iter: int,
    stop: Literal["gap", "residual"] = "gap",
    first_dual: Tensor | float = 1.0,
    trace: list[Point] | None = None,
) -> Point:
    """Algorithm 1 on every column until its own stop; a finished column costs nothing any more.

    Args:
        mu: ``(N,C)`` float64.
        weight: ``(N,C)``, 1/σ².
        min_gap: ``(N-1,C)``.
        max_gap: ``(N-1,C)``, infinite where there is no limit, or None. A pair with
            d_max = d_min is one rigid body: its link has no slack and no complementarity.
        tol: a column stops when Σ λg < tol and |Q⁻¹ r_d|∞ < tol (``stop="gap"``), or when
            ‖r_t‖₂ < tol (``stop="residual"``).
        max_iter: most iterations of any column.
        stop: "residual" backtracks until the surfaces are inside, as printed; "gap" goes 0.99 of
            the way to the wall.
        first_dual: λ at the start, a number or ``(C,)``.
        trace: filled with the point of all columns before the first and after each iteration.
    """
    work = _start(mu, weight, min_gap, max_gap, first_dual)
    n, columns = mu.shape
    m = (len(work.state) - 2 * n + 1) // 2
    sizes = [n, m, m, n - 1]  # rows of s − μ, g, λ, ν
    end, report = torch.empty_like(work.state), mu.new_empty(4, columns)
    residual = mu.new_full((columns,), INF)
    for iteration in range(max_iter + 1):
        d, g, lam, nu = work.state.split(sizes)
        product = _without(work.missing, lam * g)
        gap = product.sum(0)
        inverse_t = gap / (BETA3 * work.count)
        slackness = _without(work.missing, product - inverse_t)  # r_c = λg − 1/t
        stationarity = work.weight * d  # r_d = Q(s − μ) + Aᵀν
        stationarity[:-1] += nu
        stationarity[1:] -= nu
        if stop == "gap":
            residual = (stationarity / work.weight).abs_().amax(0)
            rounding = 1e-15 * nu.abs().sum(0)  # where the least weight is 1
            done = (gap < tol) & (residual < tol + rounding)
        else:
            if iteration == 0:
                residual = (_dot(stationarity, stationarity) + _dot(slackness, slackness)).sqrt_()
            done = residual < tol
        finished = int(done.sum())
        last = iteration == max_iter or finished == len(done)
        if finished or last or trace is not None:
            end.index_copy_(1, work.column, work.state)
            row = [residual, gap, torch.full_like(gap, iteration), done.to(gap.dtype)]
            report.index_copy_(1, work.column, torch.stack(row))
            if last or trace is not None:
                point = _point(mu, end.clone(), report.clone(), sizes)
            if trace is not None:
                trace.append(point)
            if last:
                return point
        if finished:
            going = (~done).nonzero()[:, 0]
            work = work.pick(going)
            inverse_t, stationarity, slackness = (
                x.index_select(-1, going) for x in (inverse_t, stationarity, slackness)
            )
        step = _newton(work, sizes, stationarity, inverse_t)
        alpha, residual = _length(work, step, sizes, stationarity, slackness, stop)
        work.state.addcmul_(step, alpha)
    raise AssertionError("the last iteration returns")


@dataclass
class _Work:
    """The columns that still iterate."""

    state: Tensor  # (R,C'): s − μ, g, λ, ν
    weight: Tensor  # (N,C')
    count: Tensor  # (C',) constraints of the column
    column: Tensor  # (C',) its number
    rigid: Tensor | None  # (N-1,C') bool: d_min = d_max
    missing: Tensor | None  # (M,C') bool: no such constraint

    def pick(self, place: Tensor) -> _Work:
        parts = (getattr(self, f.name) for f in fields(self))
        return _Work(*(None if x is None else x.index_select(-1, place) for x in parts))


def _start(
    mu: Tensor, weight: Tensor, min_gap: Tensor, max_gap: Tensor | None, first_dual: Tensor | float
) -> _Work:
    offset = torch.zeros_like(mu)
    torch.cumsum(min_gap, 0, out=offset[1:])
    start = increasing_start(mu - offset) + offset
    start = strictly_inside(start, mu, weight, min_gap, max_gap)
    gaps = start.diff(dim=0)
    slack = gaps - min_gap
    rigid = missing = None
    if max_gap is not None:
        slack = torch.cat([slack, max_gap - gaps])
        rigid = max_gap <= min_gap
        missing = slack.isinf() | rigid.repeat(2, 1)
        rigid = rigid if bool(rigid.any()) else None
        missing = missing if bool(missing.any()) else None
    dual = torch.ones_like(slack) * first_dual
    if missing is not None:
        slack.masked_fill_(missing, INF)
        dual.masked_fill_(missing, 0)
    state = torch.cat([start - mu, slack, dual, _net(dual, len(gaps))])
    count = mu.new_full(mu.shape[1:], len(slack))
    if missing is not None:
        count -= missing.sum(0)
    column = torch.arange(mu.shape[1], device=mu.device)
    return _Work(state, weight, count.clamp_(min=1), column, rigid, missing)


def _newton(work: _Work, sizes: list[int], stationarity: Tensor, inverse_t: Tensor) -> Tensor:
    """Newton's direction for s, g, λ and ν, ``(R,C')``: one sweep along the chain.

    With r_c = λg − 1/t the rows of the Newton system that belong to a link are
    AΔs − rΔν = r·(ν − Σ±1/(tg)) =: c, r = 1/Σ(λ/g). Absolute places y = x + prefix sums of c
    take c into the load, so that the chain is the plain one.
    """
    _, g, lam, nu = work.state.split(sizes)
    step = torch.empty_like(work.state)
    d_s, d_g, d_lam, d_nu = step.split(sizes)
    links = len(nu)
    inverse_g = g.reciprocal()
    pull = lam * inverse_g  # λ/g
    target = inverse_t * inverse_g  # 1/(tg)
    stiffness = pull if len(pull) == links else pull[:links] + pull[links:]
    compliance = stiffness.clamp(min=1 / FREE).reciprocal_()
    c = (nu - _net(target, links)).mul_(compliance)
    if work.rigid is not None:
        compliance.masked_fill_(work.rigid, 0)
        c.masked_fill_(work.rigid, 0)
    prefix = torch.zeros_like(d_s)
    torch.cumsum(c, 0, out=prefix[1:])
    load = torch.addcmul(-stationarity, work.weight, prefix)
    y, q = solve_chain(work.weight, compliance, load)
    torch.sub(y, prefix, out=d_s)
    d_nu.copy_(q)
    closing = torch.addcmul(c, compliance, q)  # AΔs, not from differences: those would cancel
    torch.neg(closing, out=d_g[:links])
    d_g[links:] = closing[: len(g) - links]
    torch.sub(target, lam, out=d_lam).addcmul_(pull, d_g, value=-1)
    return step


def _length(
    work: _Work,
    step: Tensor,
    sizes: list[int],
    stationarity: Tensor,
    slackness: Tensor,
    stop: str,
) -> tuple[Tensor, Tensor]:
    """Length α of each column's step and ‖r_t‖ after it: λ > 0, then g > 0, then ‖r_t‖ falls.

    Along Newton's direction r_d = (1−α) r_d0 and r_c = (1−α) r_c0 + α²ΔλΔg: the search along it
    needs three sums per column and never looks at the surfaces again.
    """
    _, d_g, d_lam, _ = step.split(sizes)
    n, m, _, _ = sizes
    shrink = (step[n : n + 2 * m] / work.state[n : n + 2 * m]).neg_()  # 1/α to the wall
    if work.missing is not None:
        shrink.masked_fill_(work.missing.repeat(2, 1), 0)
    if m == 0:
        alpha = torch.ones_like(work.count)
    elif stop == "gap":
        alpha = 0.99 / shrink.amax(0).clamp_(min=0.99)
    else:
        alpha = (0.99 / shrink[m:].amax(0).clamp_(min=0.5)).clamp_(max=1)
        wall = shrink[:m].amax(0)
        while bool((outside := alpha * wall >= 1).any()):
            alpha = torch.where(outside, BETA1 * alpha, alpha)
    second = _without(work.missing, d_lam * d_g)
    now = _dot(stationarity, stationarity) + _dot(slackness, slackness)
    cross, bend = _dot(slackness, second), _dot(second, second)
    while True:
        rest, square = 1 - alpha, alpha * alpha
        squared = rest * rest * now + square * (2 * rest * cross + square * bend)
        high = squared > (1 - BETA2 * alpha).square_() * now
        high &= alpha > 1e-12  # rounding alone keeps ‖r_t‖ up there
        if not bool(high.any()):
            return alpha, squared.clamp_(min=0).sqrt_()
        alpha = torch.where(high, BETA1 * alpha, alpha)


def _net(dual: Tensor, links: int) -> Tensor:
    """λ_min − λ_max per link, ``(N-1,C)``."""
    return dual if len(dual) == links else dual[:links] - dual[links:]


def _without(missing: Tensor | None, x: Tensor) -> Tensor:
    return x if missing is None else x.masked_fill_(missing, 0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b, dim=0)


def _point(mu: Tensor, state: Tensor, report: Tensor, sizes: list[int]) -> Point:
    d, g, lam, nu = state.split(sizes)
    residual, gap, iterations, done = report
    return Point(mu + d, g, lam, nu, residual, gap, iterations.long(), done > 0)
