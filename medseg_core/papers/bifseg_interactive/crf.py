"""The energy of an interactive segmentation, and the labels that minimise it.

    E(y) = Σᵢ −log P(yᵢ) + λ Σ_{i,j} [yᵢ ≠ yⱼ] exp(−(Xᵢ − Xⱼ)² / 2σ²) / r_ij

over labels that agree with the user's scribbles: a conditional random field (Groff 2018, equations
1 to 3; the energy of Boykov and Jolly 2001). Those slides print yᵢ ≠ yⱼ for both cases of equation
3, and lose the sign and σ in the capacities; this is the energy that is meant. Scribbles are label
maps: 1 object, 0 background, 255 none. Distances r count in pixels: resample an image whose voxels
are no cubes first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.solvers.graphcut import binary_mrf_map, contrast_weights
from medseg_core.solvers.grid_checks import (
    checked_connectivity,
    checked_image,
    checked_prob,
    checked_scribbles,
)

P_MIN = 1e-4  # −log of less would outweigh every boundary
NONE = 255  # no scribble


@dataclass(frozen=True)
class Cut:
    """What a graph cut is set to.

    Args:
        lam: λ ≥ 0, the price of a boundary.
        sigma: σ > 0, which change counts as an edge, in the image's intensities; normalise images
            to [0,1] if it is to mean the same for all.
        connectivity: neighbours of a pixel, 4 or 8 in the plane, 6 or 26 in space; None: 8 or 6.
    """

    lam: float
    sigma: float
    connectivity: int | None = None


def crf_graphcut(prob: Tensor, image: Tensor, cut: Cut, scribbles: Tensor | None = None) -> Tensor:
    """The labels of least energy (the module's), an exact minimum cut. Ties: background.

    Args:
        prob: ``(N,1,*S)``, P(object), clamped to [1e-4, 1 − 1e-4].
        image: ``(N,1,*S)``.
        cut: λ, σ and the neighbours.
        scribbles: ``(N,*S)``, hard constraints; None: no scribbles.

    Returns:
        ``(N,*S)`` int64: 1 object, 0 background.

    Raises:
        ValueError: an image without pixels, NaN or infinity (with its place), shapes that differ, a
            probability outside [0,1], a scribble that is not 0, 1 or 255, λ < 0, σ ≤ 0, an unknown
            neighbourhood.
        TypeError: tensors of the wrong kind.

    Taught in: bifseg-interactive.
    """
    checked_image(image, "image")
    unary = crf_unary(prob, scribbles)
    checks.same_shape(prob, image, ("prob", "image"))
    return binary_mrf_map(unary, *crf_links(image, cut))[0]


def crf_unary(prob: Tensor, scribbles: Tensor | None = None) -> Tensor:
    """Costs ``(N,2,*S)`` of the labels 0 and 1: −log P, and +∞ for what a scribble forbids.

    Arguments and errors as in `crf_graphcut`.

    Taught in: bifseg-interactive.
    """
    checked_prob(prob, prob)
    p = prob.detach().clamp(P_MIN, 1 - P_MIN)
    unary = torch.cat([-(1 - p).log(), -p.log()], 1)  # (N,2,*S)
    if scribbles is not None:
        checked_scribbles(scribbles, prob)
        forbidden = torch.stack([scribbles == 1, scribbles == 0], 1)
        unary = unary.masked_fill(forbidden, float("inf"))
    return unary


def crf_links(image: Tensor, cut: Cut) -> tuple[Tensor, int]:
    """Costs ``(N,O,*S)`` of a boundary between neighbours, and how many neighbours a pixel has.

    Arguments and errors as in `crf_graphcut`.

    Taught in: bifseg-interactive.
    """
    size = checked_image(image, "image")
    connectivity = checked_connectivity(cut.connectivity, len(size), (8, 6))
    return contrast_weights(image, connectivity, lam=cut.lam, sigma=cut.sigma), connectivity
