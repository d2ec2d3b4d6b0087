"""One grid of pixels that is cut again and again: the minimum cut behind `graphcut`.

Only the difference d = unary[1] − unary[0] of a pixel's two costs matters to the labels:

    min_y  Σₚ d_p y_p + Σ_{p,q} w_pq · [y_p ≠ y_q],   y_p ∈ {0, 1},  w ≥ 0

Pixel p is tied to the source by max(d_p, 0) and to the sink by max(−d_p, 0); who lies on the sink's
side after the cut (Boykov and Kolmogorov 2004) is labelled 1. Building costs about as much as
cutting, and a maximum flow stays a flow when ties to the terminals change, so a kept grid gains
twice: its memory stays, and with unchanged weights its flow does too (Kohli and Torr 2007).
Taught in: graph-cuts, max-margin-crf.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
import torch
from maxflow import GraphFloat
from torch import Tensor

from medseg_core import checks

Array = Tensor | np.ndarray

# Half of each pixel's neighbours, so that a pair comes once; nearest first, then in raster order.
OFFSETS = {
    4: ((0, 1), (1, 0)),
    8: ((0, 1), (1, 0), (1, -1), (1, 1)),
    6: ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    26: (
        *((0, 0, 1), (0, 1, 0), (1, 0, 0)),
        *((0, 1, -1), (0, 1, 1), (1, -1, 0), (1, 0, -1), (1, 0, 1), (1, 1, 0)),
        *((1, -1, -1), (1, -1, 1), (1, 1, -1), (1, 1, 1)),
    ),
}


class GridCut:
    """Exact cuts of one image's grid, whose memory and flow are kept from cut to cut.

    >>> grid = GridCut(image.shape[2:], connectivity=8)
    >>> labels, energy = grid.cut(unary, pairwise)
    >>> labels, energy = grid.cut(other_unary)  # the weights, and the flow found so far, stay

    Args:
        size: ``(H,W)`` or ``(D,H,W)``.
        connectivity: 4 or 8 in the plane, 6 or 26 in space.

    Raises:
        ValueError: an unknown connectivity, or a size that does not go with it.
        TypeError: if a size is no integer.
    """

    def __init__(self, size: Sequence[int], connectivity: int) -> None:
        self.size = tuple(checks.integer(n, "size") for n in size)
        self.connectivity = connectivity
        check_size(self.size, "size", connectivity)
        checks.between(min(self.size), "the shortest side in size", 1, None)
        self._pairs = [pair_slices(offset) for offset in OFFSETS[connectivity]]
        self._pixel = np.arange(math.prod(self.size)).reshape(self.size)
        n_pairs = sum(self._pixel[here].size for here, _ in self._pairs)
        # With room for all that is to come, the graph need not move in memory as it grows.
        self._graph = GraphFloat(self._pixel.size, n_pairs)
        self._weights: list[np.ndarray] = []  # per offset: of the pairs inside the grid
        self._ties: np.ndarray | None = None  # those that the flow belongs to

    def cut(self, unary: Array, pairwise: Array | None = None) -> tuple[Tensor, float]:
        """The global minimiser. Ties: label 0, so that the fewest pixels get label 1.

        Args:
            unary: ``(2,*S)``, cost of label 0 and of label 1, of any sign; +inf forbids a label,
                −inf demands it (and costs nothing).
            pairwise: ``(O,*S)`` ≥ 0, cost of cutting p from p + offset, in the order of
                `graphcut.offsets`; where that lies outside, ignored. None: as in the last cut.

        Returns:
            labels ``(*S)`` int64, on the device of `unary`, and their energy.

        Raises:
            ValueError: NaN or a negative weight (with its place), a pixel whose labels are both
                forbidden, a wrong shape, or no `pairwise` for the first cut.
        """
        costs = _finite_costs(as_array(unary, "unary"), self.size)
        if pairwise is not None:
            self._build(as_array(pairwise, "pairwise"))
        elif not self._weights:
            raise ValueError("pairwise must be given for the first cut of a grid, got None")
        with np.errstate(over="ignore"):
            ties = np.subtract(costs[1], costs[0], dtype=np.float64)
        self._tie(ties.clip(-self._enough, self._enough, out=ties))
        one = self._graph.get_grid_segments(self._pixel)  # True: on the sink's side
        labels = torch.from_numpy(one.astype(np.int64))
        energy = np.where(one, costs[1], costs[0]).sum(dtype=np.float64)
        for weight, (here, there) in zip(self._weights, self._pairs, strict=True):
            energy += weight[one[here] != one[there]].sum()
        return labels.to(unary.device) if isinstance(unary, Tensor) else labels, float(energy)

    def holds(self, pairwise: Array) -> bool:
        """Whether these are the weights of the last cut, so that the next one needs none."""
        parts = zip(as_array(pairwise, "pairwise"), self._weights, self._pairs, strict=False)
        return bool(self._weights) and all(
            np.array_equal(w[here], old) for w, old, (here, _) in parts
        )

    def _build(self, pairwise: np.ndarray) -> None:
        """The graph without its ties to the terminals."""
        checks.shape(pairwise, "pairwise", "O *S", O=len(self._pairs), S=self.size)
        weights = [
            np.array(w[here], np.float64)
            for w, (here, _) in zip(pairwise, self._pairs, strict=True)
        ]
        largest = [w.max(initial=0) for w in weights]
        if not (math.isfinite(sum(largest)) and all(w.min(initial=0) >= 0 for w in weights)):
            _refuse_weights(pairwise, self._pairs)
        graph = self._graph
        graph.reset()
        graph.add_nodes(self._pixel.size)
        for weight, most, (here, there) in zip(weights, largest, self._pairs, strict=True):
            if most > 0:  # no edges in a direction without weights
                pair = self._pixel[here].ravel(), self._pixel[there].ravel()
                graph.add_edges(*pair, weight.ravel(), weight.ravel())
        self._weights, self._ties = weights, None
        # A preference above the sum of all of a pixel's weights decides the pixel, so that larger
        # ones, infinity too, may be cut off there. That keeps the numbers in the flow small.
        self._enough = 4 * sum(largest) + sys.float_info.min

    def _tie(self, ties: np.ndarray) -> None:
        """Bring the ties to the terminals to `ties` ``(*S)``, and the flow to its maximum."""
        graph, before, self._ties = self._graph, self._ties, ties
        node, change = self._pixel.ravel(), ties.ravel()
        few = False
        if before is not None:
            change = change - before.ravel()
            n_moved = np.count_nonzero(change)
            if n_moved == 0:
                return
            few = n_moved < len(change) / 4  # then the search trees are kept as well
            if few:
                node = np.flatnonzero(change)
                change = change[node]
                graph.mark_grid_nodes(node)
        graph.add_grid_tedges(node, change, np.zeros(len(node)))
        graph.maxflow(reuse_trees=few)


def check_size(size: Sequence[int], name: str, connectivity: int) -> None:
    """Refuse an unknown connectivity and a size whose axes do not go with it."""
    checks.choice(connectivity, "connectivity", OFFSETS)
    ndim = len(OFFSETS[connectivity][0])
    if len(size) != ndim:
        raise ValueError(
            f"{name} must have {ndim} axes of pixels for connectivity {connectivity}, got "
            f"{len(size)}: {tuple(size)}"
        )


def pair_slices(offset: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where the pixels p lie whose neighbour p + offset is in the grid, and those neighbours."""
    here = tuple(slice(max(0, -k), -k if k > 0 else None) for k in offset)
    there = tuple(slice(max(0, k), k if k < 0 else None) for k in offset)
    return here, there


def as_array(x: Array, name: str) -> np.ndarray:
    """`x` as an array on the CPU that NumPy can calculate with."""
    if not isinstance(x, Tensor | np.ndarray):
        raise TypeError(f"{name} must be a tensor or an array, got {type(x).__name__}")
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        return (x if x.dtype in (torch.float32, torch.float64) else x.double()).numpy()
    return x.astype(np.promote_types(x.dtype, np.float32), copy=False)


def _finite_costs(unary: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Checked costs in which only forbidden labels are infinite."""
    checks.shape(unary, "unary", "2 *S", S=size)
    with np.errstate(invalid="ignore", over="ignore"):
        if math.isfinite(unary.sum()):
            return unary
    checks.finite(np.where(np.isinf(unary), 0, unary), "unary")
    demanded = np.isneginf(unary)
    unary = np.where(demanded[::-1], np.inf, np.where(demanded, 0, unary))
    nothing = np.isinf(unary).all(0)
    if nothing.any():
        place = [int(i) for i in np.argwhere(nothing)[0]]
        more = f" and at {nothing.sum() - 1} more" if nothing.sum() > 1 else ""
        raise ValueError(
            "unary must leave one label to each pixel, got labels 0 and 1 both forbidden (or both "
            f"demanded) at the pixel {place}{more}"
        )
    return unary


def _refuse_weights(pairwise: np.ndarray, pairs: list) -> None:
    inside = np.zeros(pairwise.shape, bool)
    for mask, (here, _) in zip(inside, pairs, strict=True):
        mask[here] = True
    pairwise = np.where(inside, pairwise, 0)
    checks.between(checks.finite(pairwise, "pairwise"), "pairwise", 0, None)
