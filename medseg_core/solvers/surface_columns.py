"""The columns of `surface_qp` as one differentiable function, whichever solver answers.

A column is a chain: surfaces are points on springs of stiffness 1/σ², gaps are links. Every solver
leaves a solution and the compliance of its links (0 held, `FREE` not, the interior point's own
1/Σ(λ/g) between), and the backward pass is one solve with that chain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medseg_core.solvers import active_set
from medseg_core.solvers.isotonic import in_block, isotonic_regression
from medseg_core.solvers.surface_ipm import Point, solve_columns
from medseg_core.solvers.tridiagonal import FREE, links, solve_chain

TIED = 1e-7  # px: a pair whose limits are nearer than this is one rigid body


@dataclass
class Columns:
    """The problem as C = B·W columns, float64."""

    mu: Tensor  # (N,C)
    weight: Tensor  # (N,C) 1/σ²
    low: Tensor  # (N-1,C) least gaps
    high: Tensor | None  # (N-1,C) largest gaps, infinite where there is no limit

    @classmethod
    def of(cls, mu: Tensor, sigma2: Tensor, low: Tensor | None, high: Tensor | None) -> Columns:
        """From images ``(B,N,W)`` and ``(B,N-1,W)``."""
        y = to_columns(mu)
        low = torch.zeros_like(y[1:]) if low is None else to_columns(low)
        if high is not None:
            high = to_columns(high)
            tied = high - low <= TIED
            middle = (low + high) / 2
            low, high = torch.where(tied, middle, low), torch.where(tied, middle, high)
        return cls(y, to_columns(sigma2).reciprocal(), low, high)

    @property
    def rigid(self) -> Tensor:
        """``(N-1,C)`` bool: pairs that move as one body."""
        none = torch.zeros_like(self.low, dtype=torch.bool)
        return none if self.high is None else self.high <= self.low

    def pick(self, place: Tensor) -> Columns:
        parts = (self.mu, self.weight, self.low, self.high)
        return Columns(*(None if x is None else x.index_select(1, place) for x in parts))

    def interior_point(self, **options) -> Point:
        """`solve_columns`, for ``stop="gap"`` in units of the column's least weight."""
        if options.get("stop") == "residual":
            return solve_columns(self.mu, self.weight, self.low, self.high, **options)
        unit = self.weight.amin(0)
        weight = self.weight / unit
        point = solve_columns(
            self.mu, weight, self.low, self.high, first_dual=weight.mean(0), **options
        )
        for p in options.get("trace") or [point]:  # a trace ends with `point`
            p.dual, p.force, p.gap = p.dual * unit, p.force * unit, p.gap * unit
        return point


@dataclass
class Answer:
    """A solution per column, and what its gradient needs; columns are always the last axis."""

    s: Tensor  # (N,C)
    compliance: Tensor  # (N-1,C) of the links
    share: Tensor  # (N-1,C) the part of a link's stiffness that its maximum gap holds
    dual: Tensor  # (2,N-1,C) multipliers of the minimum and the maximum gaps
    iterations: Tensor  # (C,)
    converged: Tensor  # (C,)

    @classmethod
    def of_state(cls, columns: Columns, s: Tensor, force: Tensor, state: Tensor) -> Answer:
        """From held gaps: `state` 0 free, 1 at the minimum, 2 at the maximum, ``(N-1,C)``."""
        share = (state == 2).to(s.dtype).masked_fill_(columns.rigid, 0.5)
        dual = torch.stack([force, -force]).clamp_(min=0)
        zeros = torch.zeros(s.shape[1], dtype=torch.int64, device=s.device)
        return cls(s, links(state > 0), share, dual, zeros, zeros == 0)

    @classmethod
    def of_point(cls, columns: Columns, point: Point) -> Answer:
        """From an interior point as it stands."""
        rigid, n = columns.rigid, len(columns.mu)
        dual = torch.zeros(2, *rigid.shape, dtype=point.s.dtype, device=point.s.device)
        pull = torch.zeros_like(dual)
        sides = len(point.dual) // max(n - 1, 1)
        dual[:sides] = point.dual.view(sides, *rigid.shape)
        pull[:sides] = (point.dual / point.slack).view(sides, *rigid.shape)
        stiffness = pull.sum(0).clamp_(min=1 / FREE)
        equation = torch.stack([point.force, -point.force]).clamp_(min=0)
        return cls(
            point.s,
            stiffness.reciprocal().masked_fill_(rigid, 0),
            (pull[1] / stiffness).masked_fill_(rigid, 0.5),
            torch.where(rigid, equation, dual),
            point.iterations,
            point.converged,
        )

    def put(self, place: Tensor, other: Answer) -> None:
        """Take the columns of `other` over, at `place`."""
        for f in fields(self):
            getattr(self, f.name).index_copy_(-1, place, getattr(other, f.name))

    def pick(self, place: Tensor) -> Answer:
        return Answer(*(getattr(self, f.name).index_select(-1, place) for f in fields(self)))


def solve(columns: Columns, method: str, polish: bool, options: dict[str, Any]) -> Answer:
    """Columns that keep all limits stay as they are; the others go where `method` says."""
    if method == "ipm":
        nothing = torch.zeros_like(columns.low)
        answer = Answer.of_state(columns, columns.mu.clone(), nothing, nothing.to(torch.int8))
        gaps = columns.mu.diff(dim=0)
        todo = (gaps < columns.low) | columns.rigid
    else:
        answer = _closed_form(columns)
        gaps = answer.s.diff(dim=0)
        todo = columns.rigid
    if columns.high is not None:
        todo = todo | (gaps > columns.high)
    place = todo.any(0).nonzero()[:, 0]
    if len(place):
        answer.put(place, _interior_point(columns.pick(place), polish, options))
    return answer


def _closed_form(columns: Columns) -> Answer:
    """Order and minimum gaps, maximum gaps left aside: isotonic regression of μᵢ − Σ d_min."""
    s, pooled = columns.mu.clone(), torch.zeros_like(columns.low, dtype=torch.bool)
    place = (s.diff(dim=0) < columns.low).any(0).nonzero()[:, 0]
    part = columns.pick(place)
    offset = torch.zeros_like(part.mu)
    torch.cumsum(part.low, 0, out=offset[1:])
    fit, together = isotonic_regression(part.mu - offset, part.weight)
    s.index_copy_(1, place, torch.where(in_block(together), fit + offset, part.mu))
    pooled.index_copy_(1, place, together)
    force = (columns.weight * (columns.mu - s)).cumsum(0)[:-1].masked_fill_(~pooled, 0)
    return Answer.of_state(columns, s, force, pooled.to(torch.int8))


def _interior_point(columns: Columns, polish: bool, options: dict[str, Any]) -> Answer:
    point = columns.interior_point(**options)
    if not polish:
        return Answer.of_point(columns, point)
    sides = (point.dual > point.slack * columns.weight.mean(0)).split(max(len(columns.low), 1))
    state = sides[0].to(torch.int8)
    if columns.high is not None:
        state.masked_fill_(sides[1] & (point.slack.chunk(2)[1] < point.slack.chunk(2)[0]), 2)
    s, force, state, exact = active_set.finish(
        state, columns.mu, columns.weight, columns.low, columns.high
    )
    answer = Answer.of_state(columns, s, force, state)
    answer.iterations, answer.converged = point.iterations, point.converged | exact
    if not bool(exact.all()):  # no exact answer found: the iterate itself, inside the limits
        place = (~exact).nonzero()[:, 0]
        answer.put(place, Answer.of_point(columns, point).pick(place))
    return answer


class OrderedSurfaces(torch.autograd.Function):
    """`solve` with its implicit gradient (Xie et al. 2020, algorithm 2, condensed).

    With K the final Newton matrix and K x = dL/ds, q the forces of x in the links:
    dL/dμ = Qx, dL/dσ² = x(s − μ)/σ⁴, and a link's −q goes to its limits by their stiffness.
    """

    @staticmethod
    def forward(
        ctx: Any,
        mu: Tensor,
        sigma2: Tensor,
        low: Tensor | None,
        high: Tensor | None,
        run: Callable[[Columns], Answer],
    ) -> Tensor:
        columns = Columns.of(mu, sigma2, low, high)
        answer = run(columns)
        ctx.save_for_backward(columns.mu, columns.weight, answer.s, answer.compliance, answer.share)
        ctx.dtypes = [None if x is None else x.dtype for x in (mu, sigma2, low, high)]
        ctx.shape = mu.shape
        return to_images(answer.s, mu.shape).to(result_dtype(mu, sigma2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        mu, weight, s, compliance, share = ctx.saved_tensors
        x, force = solve_chain(weight, compliance, to_columns(grad))
        x = x.mul_(weight)
        wants = ctx.needs_input_grad
        grads = (
            x if wants[0] else None,
            x * (s - mu) * weight if wants[1] else None,
            force * (share - 1) if wants[2] else None,
            -force * share if wants[3] else None,
        )
        return *(
            None if g is None else to_images(g, ctx.shape).to(dtype)
            for g, dtype in zip(grads, ctx.dtypes, strict=True)
        ), None


def to_columns(x: Tensor) -> Tensor:
    """``(B,N,W)`` to ``(N,B·W)``, float64; may be a view."""
    return x.detach().transpose(0, 1).flatten(1).to(torch.float64)


def to_images(x: Tensor, shape: torch.Size) -> Tensor:
    """``(...,N,B·W)`` to ``(...,B,N,W)``, for images (B,N,W)."""
    return to_maps(x, shape).transpose(-3, -2).contiguous()


def to_maps(x: Tensor, shape: torch.Size) -> Tensor:
    """``(...,B·W)`` to ``(...,B,W)``."""
    return x.unflatten(-1, (shape[0], shape[2]))


def result_dtype(mu: Tensor, sigma2: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(mu.dtype, sigma2.dtype), torch.float32)
