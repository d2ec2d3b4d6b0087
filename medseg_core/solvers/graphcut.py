"""Exact binary segmentation of a grid by a minimum cut, in the plane and in space.

    min_y  E(y) = Σₚ unary[y_p, p] + Σ_{p, o} pairwise[o, p] · [y_p ≠ y_{p+o}],   y_p ∈ {0, 1}

over the half neighbourhood o ∈ `offsets(connectivity)`, each pair once (Boykov and Jolly 2001).
With pairwise ≥ 0 the energy is submodular and the cut is its global minimum.

Taught in: graph-cuts, max-margin-crf, bifseg-interactive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.solvers.grid_cut import OFFSETS, GridCut, check_size, pair_slices


def offsets(connectivity: int) -> Tensor:
    """Half of the neighbours of a pixel, ``(O,ndim)`` int64, so that each pair comes once.

    4 or 8 in the plane, 6 or 26 in space; O is half of that number. Nearest first.
    """
    return torch.tensor(OFFSETS[checks.choice(connectivity, "connectivity", OFFSETS)])


def contrast_weights(
    image: Tensor,
    connectivity: int,
    *,
    lam: float,
    sigma: float,
    constant: float = 0.0,
    spacing: Sequence[float] | None = None,
) -> Tensor:
    """Price of a boundary between neighbours p and p + o, low where the image changes.

        w(p, p+o) = (constant + lam · exp(−‖I_p − I_{p+o}‖² / 2σ²)) / distance(o)

    Args:
        image: ``(N,C,*S)``; the norm runs over the channels.
        connectivity: 4, 8, 6 or 26.
        lam: λ ≥ 0.
        sigma: σ > 0, in the image's intensities.
        constant: ≥ 0, paid at each cut pair whatever the contrast.
        spacing: millimetres per pixel in axis order, for the distance; None: pixels.

    Returns:
        ``(N,O,*S)`` in the image's dtype, 0 where p + o lies outside. Differentiable.

    Raises:
        ValueError: NaN or infinity, λ or constant < 0, σ ≤ 0, a spacing ≤ 0, an unknown
            neighbourhood or one that does not go with the image's axes.
        TypeError: if `image` is no floating-point tensor.
    """
    steps = OFFSETS[checks.choice(connectivity, "connectivity", OFFSETS)]
    size = checks.shape(image, "image", "N C *S")["S"]
    check_size(size, "image", connectivity)
    checks.finite(checks.floating(image, "image"), "image")
    checks.between(checks.finite(lam, "lam"), "lam", 0, None)
    checks.between(checks.finite(constant, "constant"), "constant", 0, None)
    checks.positive(sigma, "sigma")
    spacing = checks.spacing(spacing, len(size))
    weights = image.new_zeros(len(image), len(steps), *size)
    for o, step in enumerate(steps):
        here, there = ((..., *part) for part in pair_slices(step))
        distance = math.hypot(*(k * s for k, s in zip(step, spacing, strict=True)))
        change = (image[here] - image[there]).square().sum(1)
        weights[:, o][here] = (constant + lam * (-change / (2 * sigma**2)).exp()) / distance
    return weights


def binary_mrf_map(unary: Tensor, pairwise: Tensor, connectivity: int = 4) -> tuple[Tensor, Tensor]:
    """Global minimiser of the module's energy. Ties: background (label 0).

    Images are cut one after the other on the CPU (Boykov and Kolmogorov 2004): in practice the
    time grows little faster than the number of pairs. To cut one grid repeatedly, keep a `GridCut`.

    Args:
        unary: ``(N,2,*S)``, cost of label 0 and of label 1, of any sign. +inf forbids a label,
            −inf demands it (and costs nothing).
        pairwise: ``(N,O,*S)`` ≥ 0, in the order of `offsets`; where p + o lies outside, ignored.
        connectivity: 4 or 8 in the plane, 6 or 26 in space.

    Returns:
        labels ``(N,*S)`` int64 and energy ``(N,)`` float64, on the device of `unary`. No gradient.

    Raises:
        ValueError: a negative weight, NaN (with its place), both labels of a pixel forbidden, an
            unknown neighbourhood, or shapes that do not fit.
    """
    checks.choice(connectivity, "connectivity", OFFSETS)
    sizes = checks.shape(unary, "unary", "N 2 *S")
    check_size(sizes["S"], "unary", connectivity)
    checks.shape(pairwise, "pairwise", "N O *S", O=len(OFFSETS[connectivity]), **sizes)
    grid = GridCut(sizes["S"], connectivity)
    cuts = [grid.cut(u, w) for u, w in zip(unary, pairwise, strict=True)]
    labels = unary.new_zeros((sizes["N"], *sizes["S"]), dtype=torch.int64)
    for label, (found, _) in zip(labels, cuts, strict=True):
        label.copy_(found)
    energy = torch.tensor([e for _, e in cuts], dtype=torch.float64, device=unary.device)
    return labels, energy
