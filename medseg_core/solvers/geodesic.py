"""Distances along a grid: how much intensity changes on the cheapest way.

    G(i, S) = min over j ∈ S, min over paths from i to j of  Σ_steps |ΔX| + eps · length(step)

the discrete form of ∫ ‖∇X · u‖ ds (Wang et al. 2018): small inside an object of even intensity,
however far away, and large across a boundary.

Taught in: bifseg-interactive.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.solvers.grid_checks import checked_image
from medseg_core.solvers.grid_cut import OFFSETS, pair_slices

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


EPS = 1e-6  # intensity that one pixel of length costs


def geodesic_distance(image: Tensor, seeds: Tensor, *, limit: float | None = None) -> Tensor:
    """Intensity geodesic distance from each pixel to the nearest seed, by Dijkstra's algorithm.

    A step between neighbours (8 in the plane, 26 in space) costs |X_p − X_q| + eps · ‖p − q‖. The
    distance is thus in units of intensity, and eps = 1e-6, what a pixel of length costs, is nearly
    nothing: of equal ways the shorter counts. O(P·log P) for P pixels, each image on its own, on
    the CPU.

    Args:
        image: ``(N,1,*S)``, in the plane or in space.
        seeds: ``(N,1,*S)`` bool.
        limit: look no further than this distance, which is faster; beyond it +inf. None: no limit.

    Returns:
        ``(N,1,*S)`` in the image's dtype and on its device, 0 at the seeds; +inf without seeds.
        No gradient.

    Raises:
        ValueError: NaN or infinity (with its place), an image without pixels or other than 2-D or
            3-D, shapes that differ, limit < 0.
        TypeError: if `image` is no floating-point tensor or `seeds` no bool tensor.
    """
    from scipy.sparse.csgraph import dijkstra

    size = checked_image(image, "image")
    checks.mask(seeds, "seeds")
    checks.same_shape(image, seeds, ("image", "seeds"))
    limit = math.inf if limit is None else checks.between(limit, "limit", 0, None)
    connectivity = {2: 8, 3: 26}[len(size)]

    distance = np.full((len(image), math.prod(size)), math.inf)
    values = image.detach().cpu().double().numpy()
    starts = seeds.cpu().numpy()
    for n, found in enumerate(distance):
        nodes = np.flatnonzero(starts[n])
        if len(nodes):
            graph = _graph(values[n, 0], connectivity)
            found[:] = dijkstra(graph, directed=False, indices=nodes, limit=limit, min_only=True)
    return torch.from_numpy(distance).view(image.shape).to(image)


def _graph(image: np.ndarray, connectivity: int) -> csr_matrix:
    """Sparse matrix ``(P,P)`` of the steps' costs, each pair of neighbours once."""
    from scipy.sparse import csr_matrix

    present, columns, starts = _structure(image.shape, connectivity)
    price = np.empty((*image.shape, len(OFFSETS[connectivity])))
    for o, step in enumerate(OFFSETS[connectivity]):
        here, there = pair_slices(step)
        price[(*here, o)] = np.abs(image[here] - image[there]) + EPS * math.hypot(*step)
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
