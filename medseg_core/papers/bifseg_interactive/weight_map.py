"""Which pixels of its own segmentation a network may learn from.

    w = ω where the user scribbled;  else 0 where the network is in doubt, t₀ < P < t₁, or where its
    label P > ½ is contradicted nearby: a scribble of the other label at a geodesic distance G < ε;
    else 1

(Groff 2018, equation 4; t₀, t₁, ε and G from Wang et al. 2018.) Only the scribbles of the OTHER
label count: around a confirmed pixel nothing is in doubt.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.papers.bifseg_interactive.crf import NONE
from medseg_core.solvers.geodesic import geodesic_distance
from medseg_core.solvers.grid_checks import checked_image, checked_prob, checked_scribbles


@dataclass(frozen=True)
class Doubt:
    """When a pixel is in doubt, and what a scribbled one counts.

    Args:
        t0, t1: the open interval of doubt, 0 ≤ t₀ ≤ t₁ ≤ 1; t₀ = t₁: none.
        eps: ε ≥ 0, in the image's intensities. Choose it below the contrast of the object's edge:
            a larger one reaches all over the image from one scribble, all pixels of the other
            label count 0, and the network unlearns it.
        omega: ω ≥ 0, finite.

    Raises:
        ValueError: a value outside these limits.
    """

    t0: float = 0.2
    t1: float = 0.7
    eps: float = 0.2
    omega: float = 5.0

    def __post_init__(self) -> None:
        checks.between(self.t0, "t0", 0, 1)
        checks.between(self.t1, "t1", self.t0, 1)
        checks.between(self.eps, "eps", 0, None)
        checks.between(checks.finite(self.omega, "omega"), "omega", 0, None)


def uncertainty_weights(
    prob: Tensor,
    image: Tensor,
    scribbles: Tensor | None,
    doubt: Doubt | None = None,
    *,
    distance: Tensor | None = None,
) -> Tensor:
    """How much each pixel counts when the network learns from the cut: ω, 0 or 1 (the module's w).

    Args:
        prob: ``(N,1,*S)``, the network's P(object), not the cut.
        image: ``(N,1,*S)``, normalised to [0,1], for G.
        scribbles: ``(N,*S)``; None: no scribbles, so that t₀ < P < t₁ alone decides.
        doubt: t₀, t₁, ε and ω; None: those of Wang et al., `Doubt()`.
        distance: what `scribble_distance` returned for this image and these scribbles, to spare
            the search; None: it is computed.

    Returns:
        ``(N,*S)`` in the dtype of `prob`.

    Raises:
        ValueError: an image without pixels, NaN or infinity (with its place), shapes that differ, a
            probability outside [0,1], a scribble that is not 0, 1 or 255.
        TypeError: tensors of the wrong kind.

    Taught in: bifseg-interactive.
    """
    doubt = doubt or Doubt()
    checked_image(image, "image")
    checked_prob(prob, image)
    p = prob.detach()[:, 0]  # (N,*S)
    in_doubt = (p > doubt.t0) & (p < doubt.t1)
    if scribbles is None:
        return (~in_doubt).to(p)
    checked_scribbles(scribbles, image)
    if distance is None:
        distance = scribble_distance(image, scribbles, doubt.eps)
    checks.shape(distance, "distance", "N 2 *S", N=len(image), S=image.shape[2:])
    contradicted = torch.where(p > 0.5, distance[:, 0], distance[:, 1]) < doubt.eps
    weight = (~(in_doubt | contradicted)).to(p)
    return weight.masked_fill(scribbles != NONE, doubt.omega)


def scribble_distance(image: Tensor, scribbles: Tensor, limit: float) -> Tensor:
    """Geodesic distance to the background's and to the object's scribbles, ``(N,2,*S)``.

    +inf without such scribbles and beyond `limit`. See `geodesic_distance`.

    Taught in: bifseg-interactive.
    """
    checked_image(image, "image")
    checked_scribbles(scribbles, image)
    seeds = [(scribbles == label)[:, None] for label in (0, 1)]
    return torch.cat([geodesic_distance(image, s, limit=limit) for s in seeds], 1)
