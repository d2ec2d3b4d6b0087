"""How well F's gradient points: its cosine with a slow, unbiased estimate of the true direction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from medseg_core import rng
from medseg_core.papers.edpcnn.experiment import Settings
from medseg_core.solvers.star_dp import perturbed_gradient

N_MAPS = 4  # of each moment


def cosines(
    seen: Iterable[Mapping[str, Tensor]], s: Settings, n_draws: int, seed: int
) -> np.ndarray:
    """Cosine of F's gradient with the estimate, and the one that the truth would have.

    The estimate perturbs g ``n_draws`` times by noise as large as the map's spread and correlates
    the contour's error with it (Berthet et al. 2020). It is noisy itself: two independent ones with
    a cosine of r have a mean whose cosine with the truth is about √(2r/(1+r)).

    Args:
        seen: moments of the training, as `maps.look_inside` gives them.
        s: "delta" and "smooth" of the solver.
        n_draws: of each of the two estimates.
        seed: of the noise.

    Returns:
        (moments, 2): F's, and the truth's; each a mean over four maps.

    Taught in: edpcnn.
    """
    out = []
    for index, look in enumerate(seen):
        g, v_star = look["g"][:N_MAPS], look["v_star"][:N_MAPS].float()
        spread = float(g.std())
        two = []
        for stream in ("first", "second"):
            gen = rng.generator(seed, index, stream)
            two.append(perturbed_gradient(g, s.delta, v_star, spread, n_draws, gen, width=s.smooth))
        ours, mean, *two = (x.flatten(1) for x in (look["gradient"][:N_MAPS], sum(two), *two))
        r = F.cosine_similarity(*two).mean().clamp_min(0)
        cosine = F.cosine_similarity(ours, mean).mean()
        out.append([cosine.item(), (2 * r / (1 + r)).sqrt().item()])
    return np.array(out)
