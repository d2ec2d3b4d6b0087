"""Interactive segmentation with a network's probabilities: the cut, and what to learn from it.

    E(y) = Σᵢ −log P(yᵢ) + λ Σ_{i,j} [yᵢ ≠ yⱼ] exp(−(Xᵢ − Xⱼ)² / 2σ²) / r_ij

over labels that agree with the user's scribbles (Groff 2018, equations 1 to 3, the energy of Boykov
and Jolly 2001; chapter `bifseg-interactive`). The deck prints yᵢ ≠ yⱼ for both cases of equation 3
and loses the sign and σ in the capacities; this is the energy that it means. Scribbles are label
maps: 1 object, 0 background, 255 none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.solvers.geodesic import geodesic_distance
from medseg_core.solvers.graphcut import GridCut, binary_mrf_map, contrast_weights
from medseg_core.solvers.grid_checks import (
    checked_connectivity,
    checked_image,
    checked_prob,
    checked_scribbles,
)

P_MIN = 1e-4  # −log of less would outweigh every boundary
NONE = 255


def crf_graphcut(
    prob: Tensor,
    image: Tensor,
    *,
    lam: float,
    sigma: float,
    scribbles: Tensor | None = None,
    spacing: Sequence[float] | None = None,
    connectivity: int | None = None,
    grid: GridCut | None = None,
) -> Tensor:
    """The labels of least energy (the module's), an exact minimum cut. Ties: background.

    Args:
        prob: ``(N,1,*S)``, P(object), clamped to [1e-4, 1 − 1e-4].
        image: ``(N,1,*S)``, normalised to [0,1] if σ is to mean the same for every image.
        lam: λ ≥ 0.
        sigma: σ > 0, in the image's intensities.
        scribbles: ``(N,*S)``, hard constraints; None: no scribbles.
        spacing: millimetres per pixel in axis order, for r; None: r in pixels.
        connectivity: neighbours: 4 or 8 in the plane, 6 or 26 in space; None: 8 or 6.
        grid: a `GridCut` of the image's size, kept between calls for N = 1: as long as image, λ, σ
            and spacing stay the same, each cut starts from the flow of the one before.

    Returns:
        ``(N,*S)`` int64: 1 object, 0 background.

    Raises:
        ValueError: an image without pixels, NaN or infinity (with its place), shapes that differ, a
            probability outside [0,1], a scribble that is not 0, 1 or 255, λ < 0, σ or a spacing
            ≤ 0, an unknown neighbourhood.
        TypeError: tensors of the wrong kind.
    """
    size = checked_image(image, "image")
    connectivity = checked_connectivity(connectivity, len(size), (8, 6))
    unary = crf_unary(prob, scribbles)
    checks.same_shape(prob, image, ("prob", "image"))
    weights = contrast_weights(image, connectivity, lam=lam, sigma=sigma, spacing=spacing)
    if grid is None:
        return binary_mrf_map(unary, weights, connectivity)[0]
    if len(image) != 1 or (grid.size, grid.connectivity) != (size, connectivity):
        raise ValueError(
            f"grid of {grid.size}, connectivity {grid.connectivity}, does not fit "
            f"image {tuple(image.shape)}, connectivity {connectivity}"
        )
    return grid.cut(unary[0], None if grid.holds(weights[0]) else weights[0])[0][None]


def crf_unary(prob: Tensor, scribbles: Tensor | None = None) -> Tensor:
    """Costs ``(N,2,*S)`` of the labels 0 and 1: −log P, and +∞ for what a scribble forbids."""
    checked_prob(prob, prob)
    p = prob.detach().clamp(P_MIN, 1 - P_MIN)
    unary = torch.cat([-(1 - p).log(), -p.log()], 1)  # (N,2,*S)
    if scribbles is not None:
        checked_scribbles(scribbles, prob)
        forbidden = torch.stack([scribbles == 1, scribbles == 0], 1)
        unary = unary.masked_fill(forbidden, float("inf"))
    return unary


def uncertainty_weights(
    prob: Tensor,
    image: Tensor,
    scribbles: Tensor | None,
    *,
    t0: float = 0.2,
    t1: float = 0.7,
    eps: float = 0.2,
    omega: float = 5.0,
    spacing: Sequence[float] | None = None,
    distance: Tensor | None = None,
) -> Tensor:
    """How much each pixel counts when the network learns from the cut: ω, 0 or 1.

        ω where the user scribbled;  else 0 where the network is in doubt, t₀ < P < t₁, or where its
        label P > ½ is contradicted nearby: a scribble of the other label at a geodesic distance
        G < ε;  else 1

    (Groff 2018, equation 4; t₀, t₁, ε and G from Wang et al. 2018.) Only the scribbles of the OTHER
    label count: around a confirmed pixel nothing is in doubt.

    Args:
        prob: ``(N,1,*S)``, the network's P(object), not the cut.
        image: ``(N,1,*S)``, normalised to [0,1], for G.
        scribbles: ``(N,*S)``; None: no scribbles, so that t₀ < P < t₁ alone decides.
        t0, t1: the open interval of doubt, 0 ≤ t₀ ≤ t₁ ≤ 1; t₀ = t₁: none.
        eps: ε ≥ 0, in the image's intensities. Choose it below the contrast of the object's edge:
            a larger one reaches all over the image from one scribble, all pixels of the other
            label count 0, and the network unlearns it.
        omega: ω ≥ 0.
        spacing: as in `geodesic_distance`.
        distance: what `scribble_distance` returned for this image and these scribbles, to spare
            the search; None: it is computed.

    Returns:
        ``(N,*S)`` in the dtype of `prob`.

    Raises:
        ValueError: as `crf_graphcut`; t₀ > t₁, ε or ω < 0.
    """
    checked_image(image, "image")
    checked_prob(prob, image)
    checks.between(t0, "t0", 0, 1)
    checks.between(t1, "t1", t0, 1)
    checks.between(checks.finite(omega, "omega"), "omega", 0, None)
    checks.between(eps, "eps", 0, None)
    p = prob.detach()[:, 0]  # (N,*S)
    in_doubt = (p > t0) & (p < t1)
    if scribbles is None:
        return (~in_doubt).to(p)
    checked_scribbles(scribbles, image)
    if distance is None:
        distance = scribble_distance(image, scribbles, limit=eps, spacing=spacing)
    checks.shape(distance, "distance", "N 2 *S", N=len(image), S=image.shape[2:])
    contradicted = torch.where(p > 0.5, distance[:, 0], distance[:, 1]) < eps
    weight = (~(in_doubt | contradicted)).to(p)
    return weight.masked_fill(scribbles != NONE, omega)


def scribble_distance(
    image: Tensor,
    scribbles: Tensor,
    *,
    limit: float | None = None,
    spacing: Sequence[float] | None = None,
) -> Tensor:
    """Geodesic distance to the background's and to the object's scribbles, ``(N,2,*S)``.

    +inf without such scribbles and beyond `limit`. See `geodesic_distance`.
    """
    checked_image(image, "image")
    checked_scribbles(scribbles, image)
    seeds = [(scribbles == label)[:, None] for label in (0, 1)]
    parts = [geodesic_distance(image, s, limit=limit, spacing=spacing) for s in seeds]
    return torch.cat(parts, 1)


def merge_scribbles(object_seeds: Tensor, background_seeds: Tensor) -> Tensor:
    """Two masks as one label map: 1 object, 0 background, 255 none, int64 of the masks' shape.

    Raises:
        ValueError: a pixel in both, with its place, or masks of different shapes.
        TypeError: if a mask is not bool.
    """
    for mask, name in ((object_seeds, "object_seeds"), (background_seeds, "background_seeds")):
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = getattr(mask, "dtype", type(mask))
            raise TypeError(f"{name} must be a bool tensor, got {kind}")
    checks.same_shape(object_seeds, background_seeds, ("object_seeds", "background_seeds"))
    both = object_seeds & background_seeds
    if bool(both.any()):
        place = [int(i) for i in both.nonzero()[0]]
        raise ValueError(
            f"object_seeds and background_seeds contradict each other at index {place}"
            f"{f' and at {int(both.sum()) - 1} more places' if both.sum() > 1 else ''}"
        )
    labels = torch.full(object_seeds.shape, NONE, dtype=torch.int64, device=object_seeds.device)
    return labels.masked_fill(background_seeds, 0).masked_fill(object_seeds, 1)
