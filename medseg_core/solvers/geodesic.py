"""Distances and paths along a grid: how much intensity changes on the way, and the cheapest way.

    G(i, S) = min over j ∈ S, min over paths from i to j of  Σ_steps |ΔX| + eps · length(step)

the discrete form of ∫ ‖∇X · u‖ ds (Wang et al. 2018; chapter `bifseg-interactive`): small inside
an object of even intensity, however far away, and large across a boundary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.solvers.grid_checks import checked_connectivity, checked_image
from medseg_core.solvers.grid_cut import OFFSETS, pair_slices

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def geodesic_distance(
    image: Tensor,
    seeds: Tensor,
    *,
    eps: float = 1e-6,
    spacing: Sequence[float] | None = None,
    limit: float | None = None,
    connectivity: int | None = None,
) -> Tensor:
    """Intensity geodesic distance from each pixel to the nearest seed, by Dijkstra's algorithm.

    A step between neighbours p and q costs |X_p − X_q| + eps · ‖p − q‖. The distance is thus in
    units of intensity, and eps is what one unit of length costs: nearly nothing by default (of
    equal ways the shorter counts), a mixture with the Euclidean distance where eps is larger.
    ``spacing`` enters through that second term alone, because a change of intensity is the same
    however far apart the slices lie. O(P·log P) for P pixels, each image on its own, on the CPU.

    Args:
        image: ``(N,1,*S)``, in the plane or in space.
        seeds: ``(N,1,*S)`` bool.
        eps: > 0, intensity per unit of length.
        spacing: millimetres per pixel in axis order, for ‖p − q‖; None: in pixels.
        limit: look no further than this distance, which is faster; beyond it +inf. None: no limit.
        connectivity: neighbours: 4 or 8 in the plane, 6 or 26 in space; None: 8 or 26.

    Returns:
        ``(N,1,*S)`` in the image's dtype and on its device, 0 at the seeds; +inf without seeds.
        No gradient.

    Raises:
        ValueError: NaN or infinity (with its place), an image without pixels or other than 2-D or
            3-D, shapes that differ, eps or a spacing ≤ 0, limit < 0, an unknown neighbourhood.
        TypeError: if `image` is no floating-point tensor or `seeds` no bool tensor.
    """
    from scipy.sparse.csgraph import dijkstra

    size = checked_image(image, "image")
    if not isinstance(seeds, Tensor) or seeds.dtype != torch.bool:
        raise TypeError(f"seeds must be a bool tensor, got {getattr(seeds, 'dtype', type(seeds))}")
    checks.same_shape(image, seeds, ("image", "seeds"))
    checks.positive(eps, "eps")
    lengths = checks.spacing(spacing, len(size))
    limit = math.inf if limit is None else checks.between(limit, "limit", 0, None)
    connectivity = checked_connectivity(connectivity, len(size), (8, 26))

    distance = np.full((len(image), math.prod(size)), math.inf)
    values = image.detach().cpu().double().numpy()
    starts = seeds.cpu().numpy()
    for n, found in enumerate(distance):
        nodes = np.flatnonzero(starts[n])
        if len(nodes):
            graph = _graph(values[n, 0], connectivity, eps, lengths)
            found[:] = dijkstra(graph, directed=False, indices=nodes, limit=limit, min_only=True)
    return torch.from_numpy(distance).view(image.shape).to(image)


def minimal_path(
    cost: Tensor | np.ndarray, start: Sequence[int], end: Sequence[int] | None = None
) -> Tensor:
    """Cheapest 8-connected path between two pixels: Σ over steps of length · mean cost of its ends.

    Args:
        cost: ``(H,W)`` ≥ 0 per pixel of length; +inf is a wall.
        start: (row, column).
        end: (row, column); None: the pixel that is the most expensive to reach.

    Returns:
        ``(P,2)`` int64, the pixels from start to end, both included.

    Raises:
        ValueError: NaN or a negative cost (with its place), a start or end outside the image or in
            a wall, or walls between them.
    """
    from skimage.graph import MCP_Geometric

    array = cost.detach().cpu().numpy() if isinstance(cost, Tensor) else np.asarray(cost)
    size = checks.shape(array, "cost", "H W")
    array = checks.between(array, "cost", 0, None).astype(np.float64)

    def pixel(place: Sequence[int], name: str) -> tuple[int, int]:
        inside = len(place) == 2 and 0 <= place[0] < size["H"] and 0 <= place[1] < size["W"]
        if not inside or array[tuple(place)] == math.inf:
            raise ValueError(
                f"{name} must be a (row, column) of finite cost inside {array.shape}, got {place}"
            )
        return int(place[0]), int(place[1])

    first = pixel(start, "start")
    last = None if end is None else pixel(end, "end")
    search = MCP_Geometric(array)
    reached, _ = search.find_costs([first], None if last is None else [last])
    if last is None:
        reached = np.where(np.isfinite(reached), reached, -1.0)
        last = np.unravel_index(int(reached.argmax()), reached.shape)
    elif not np.isfinite(reached[last]):
        raise ValueError(f"end {last} cannot be reached from start {first}: walls lie between")
    return torch.tensor(search.traceback(last), dtype=torch.int64)


def _graph(
    image: np.ndarray, connectivity: int, eps: float, spacing: tuple[float, ...]
) -> csr_matrix:
    """Sparse matrix ``(P,P)`` of the steps' costs, each pair of neighbours once."""
    from scipy.sparse import csr_matrix

    present, columns, starts = _structure(image.shape, connectivity)
    price = np.empty((*image.shape, len(OFFSETS[connectivity])))
    for o, step in enumerate(OFFSETS[connectivity]):
        here, there = pair_slices(step)
        length = math.hypot(*(k * s for k, s in zip(step, spacing, strict=True)))
        price[(*here, o)] = np.abs(image[here] - image[there]) + eps * length
    return csr_matrix((price[present], columns, starts), shape=(image.size, image.size))


@lru_cache(maxsize=4)
def _structure(
    size: tuple[int, ...], connectivity: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which pairs there are ``(*S,O)`` bool, the second pixel of each, where each row begins."""
    node = np.arange(math.prod(size), dtype=np.int32).reshape(size)
    steps = OFFSETS[connectivity]
    present = np.zeros((*size, len(steps)), bool)
    second = np.zeros((*size, len(steps)), np.int32)
    for o, step in enumerate(steps):
        here, there = pair_slices(step)
        present[(*here, o)] = True
        second[(*here, o)] = node[there]
    starts = np.concatenate([[0], present.sum(-1).ravel().cumsum()]).astype(np.int32)
    return present, second[present], starts
