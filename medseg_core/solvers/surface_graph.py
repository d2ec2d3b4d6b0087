"""Optimal surfaces by graph search: N surfaces, one row per column each, as one minimum cut.

    min_s  Σᵢ Σₓ cᵢ(sᵢ(x), x)   over whole rows 0 ≤ sᵢ(x) < H, with
    |sᵢ(x+1) − sᵢ(x)| ≤ max_slope    and    min_gap ≤ sᵢ₊₁(x) − sᵢ(x) ≤ max_gap

(Li, Wu, Chen and Sonka 2006.) Every constraint says "if surface a is at
row z or below, then surface b is at row z + k or below", so the pixels on and above the surfaces
are a closed set, and the cheapest one is a minimum cut. Three things differ from the paper, none of
them the answer: the cost of a row is the capacity of the arc that the surface cuts there, instead
of cost differences at the terminals, which the same solver cuts many times faster
(`benchmarks/surface_graph.py`); rows that the constraints make unreachable get no node, so no arc
leaves the graph; and for the same reason infeasible constraints are found before the cut.
Costs from an image's gradient and rows to a fraction stand in `surface_cost`.

Taught in: ipm-surfaces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.solvers.surface_cost import as_float64

Gaps = float | Sequence[float] | np.ndarray | Tensor


def graph_search(
    cost: Tensor | np.ndarray,
    *,
    max_slope: int = 2,
    min_gap: Gaps = 0,
    max_gap: Gaps | None = None,
    circular: bool = False,
) -> Tensor:
    """Globally optimal surfaces of the module's problem. Ties: the deepest optimum.

    The graph has at most N·H·W nodes and five arcs for each; the cut (Boykov and Kolmogorov 2004)
    runs on the CPU.

    Args:
        cost: ``(N,H,W)``, or ``(B,N,H,W)`` for B independent problems; N surfaces from top to
            bottom, H rows, W columns. +inf forbids a row.
        max_slope: largest step in rows between neighbouring columns, a whole number ≥ 0.
        min_gap: least distance in rows from each surface to the next one, ≥ 0: a number,
            ``(N-1,)`` or ``(N-1,W)``. Rows are whole: a fraction is rounded up.
        max_gap: the largest, rounded down; None: no limit.
        circular: the last column is the neighbour of the first (columns = angle).

    Returns:
        ``(N,W)`` or ``(B,N,W)`` int64 rows, on the device of `cost`. No gradient.

    Raises:
        ValueError: NaN or −inf (with its place), min_gap > max_gap, or constraints that no
            surfaces meet: too few rows, or too many forbidden ones. All of it before the cut.
        TypeError: if `max_slope` is no integer.
    """
    array = as_float64(cost, "cost")
    if array.ndim == 4:
        kind = {"max_slope": max_slope, "min_gap": min_gap, "max_gap": max_gap}
        found = [graph_search(one, circular=circular, **kind) for one in array]
        size = (0, array.shape[1], array.shape[3])
        answer = torch.stack(found) if found else torch.zeros(size, dtype=torch.int64)
    else:
        size = checks.shape(array, "cost", "N H W")
        for name, least in size.items():
            checks.between(least, f"the size {name} of cost", 1, None)
        checks.finite(np.where(array == math.inf, 0.0, array), "cost")
        slope = checks.integer(max_slope, "max_slope", 0)
        rules = (slope, *_gaps(min_gap, max_gap, size), bool(circular))
        answer = torch.from_numpy(_cut(array, *_ranges(array < math.inf, *rules), *rules))
    return answer.to(cost.device) if isinstance(cost, Tensor) else answer


def _cut(
    cost: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    slope: int,
    least: np.ndarray,
    most: np.ndarray,
    circular: bool,
) -> np.ndarray:
    """The minimum cut. Node (i,x,z) lies on the source's side if and only if sᵢ(x) ≥ z."""
    from maxflow import GraphFloat

    c = cost.transpose(0, 2, 1)  # (N,W,H): a column's rows side by side in memory
    row = np.arange(c.shape[2])
    exists = (row > low[..., None]) & (row <= high[..., None])
    within = exists | (row == low[..., None])
    node = np.full(c.shape, -1)
    node[exists] = np.arange(exists.sum())
    if not exists.any():
        return low

    finite = within & (c < math.inf)
    floor = np.where(finite, c, math.inf).min(2, keepdims=True)  # a cut needs capacities ≥ 0
    c = np.where(finite, c - floor, 0.0)
    never = 1 + 2 * c.max(2).sum()  # more than any feasible cut
    c = np.where(finite, c, never)

    graph = GraphFloat(int(exists.sum()), 5 * int(exists.sum()))
    graph.add_nodes(int(exists.sum()))
    # A surface at row z cuts the arc from node z to node z + 1; the ends are the terminals.
    first, last = row == low[..., None] + 1, row == high[..., None]
    source = np.where(first[..., 1:], c[..., :-1], 0.0)
    source = np.concatenate([np.zeros_like(source[..., :1]), source], 2)[exists]
    graph.add_grid_tedges(node[exists], source, np.where(last, c, 0.0)[exists])
    inner = exists[..., 1:] & exists[..., :-1]
    upper, lower, between = node[..., :-1][inner], node[..., 1:][inner], c[..., :-1][inner]
    graph.add_edges(upper, lower, between, np.full(len(upper), never))

    def imply(a: np.ndarray, b: np.ndarray, shift: Any) -> None:
        """s_a ≥ z ⟹ s_b ≥ z + shift, for all columns of node arrays (…,H)."""
        target = row + shift
        known = (target >= 0) & (target < len(row))
        there = np.take_along_axis(b, np.where(known, target, 0), -1)
        arc = (a >= 0) & known & (there >= 0)
        n_arcs = int(arc.sum())
        graph.add_edges(a[arc], there[arc], np.full(n_arcs, never), np.zeros(n_arcs))

    def beside(a: np.ndarray, b: np.ndarray) -> None:
        shift = np.full((*a.shape[:-1], 1), -slope)
        imply(a, b, shift)
        imply(b, a, shift)

    beside(node[:, :-1], node[:, 1:])
    if circular and node.shape[1] > 1:
        beside(node[:, -1:], node[:, :1])
    imply(node[:-1], node[1:], least[..., None])
    imply(node[1:], node[:-1], -most[..., None])

    graph.maxflow()
    deeper = np.zeros(c.shape, bool)
    deeper[exists] = ~graph.get_grid_segments(node[exists])
    return low + deeper.sum(2)


def _ranges(
    allowed: np.ndarray, slope: int, least: np.ndarray, most: np.ndarray, circular: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Highest and lowest feasible surfaces ``(N,W)``, between which all others lie.

    Each constraint bounds one row by another, so the feasible surfaces form a lattice; its ends
    are found by moving rows that break a constraint until none does. (The lowest are the highest
    ones of the problem turned upside down.)
    """
    turned = _highest(allowed[::-1, ::-1], slope, least[::-1], most[::-1], circular)
    low = _highest(allowed, slope, least, most, circular)
    return low, allowed.shape[1] - 1 - turned[::-1]


def _highest(
    allowed: np.ndarray, slope: int, least: np.ndarray, most: np.ndarray, circular: bool
) -> np.ndarray:
    n_rows = allowed.shape[1]
    free = np.where(allowed, np.arange(n_rows)[:, None], n_rows)
    free = np.minimum.accumulate(free[:, ::-1], axis=1)[:, ::-1]  # next allowed row from z on
    free = np.concatenate([free, np.full_like(free[:, :1], n_rows)], 1)  # (N,H+1,W)
    s = np.zeros(allowed[:, 0].shape, np.int64)
    while True:
        before, bound = s, s.copy()
        np.maximum(bound[:, 1:], s[:, :-1] - slope, out=bound[:, 1:])
        np.maximum(bound[:, :-1], s[:, 1:] - slope, out=bound[:, :-1])
        if circular:
            bound[:, 0] = np.maximum(bound[:, 0], s[:, -1] - slope)
            bound[:, -1] = np.maximum(bound[:, -1], s[:, 0] - slope)
        np.maximum(bound[1:], s[:-1] + least, out=bound[1:])
        np.maximum(bound[:-1], s[1:] - most, out=bound[:-1])
        s = np.take_along_axis(free, bound.clip(max=n_rows)[:, None], 1)[:, 0]
        if (s == n_rows).any():
            surface, column = np.argwhere(s == n_rows)[0]
            raise ValueError(
                f"cost has no {len(s)} surfaces in its {n_rows} rows that meet max_slope, min_gap, "
                f"max_gap and its forbidden rows (+inf) together: none is left for the surface at "
                f"index {surface} in column {column}"
            )
        if (s == before).all():
            return s


def _gaps(min_gap: Gaps, max_gap: Gaps | None, size: dict) -> tuple[np.ndarray, np.ndarray]:
    """Both gaps as whole rows ``(N-1,W)``, checked; no limit is H, which never binds."""
    shape = (size["N"] - 1, size["W"])

    def whole(gap: Gaps, name: str) -> np.ndarray:
        array = np.asarray(gap.detach().cpu() if isinstance(gap, Tensor) else gap, float)
        if array.ndim and array.shape not in (shape[:1], shape):
            raise ValueError(
                f"{name} must be a number, {shape[:1]} or {shape}, got the shape {array.shape}"
            )
        checks.between(checks.finite(array, name), name, 0, None)
        rounded = np.ceil(array) if name == "min_gap" else np.floor(array)
        rounded = rounded[:, None] if array.ndim == 1 else rounded
        return np.broadcast_to(rounded.clip(max=size["H"]), shape).astype(np.int64)

    least = whole(min_gap, "min_gap")
    most = whole(size["H"] if max_gap is None else max_gap, "max_gap")
    if (least > most).any():
        i, x = np.argwhere(least > most)[0]
        raise ValueError(
            f"min_gap must be at most max_gap in whole rows, got {least[i, x]} above {most[i, x]} "
            f"at index [{i}, {x}]"
        )
    need = int(least.sum(0).max()) + 1
    if need > size["H"]:
        raise ValueError(
            f"cost must have at least {need} rows for the sum of min_gap, got {size['H']}"
        )
    return least, most
