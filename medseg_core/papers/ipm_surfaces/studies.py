"""What the chapter looks into beside its main table: crossings, heads, gaps, lost guesses.

``outs`` are what `experiment.predict` returned, one for each seed; ``data`` is a part of a `Task`.
Surfaces (n,N,W) in rows.

Taught in: ipm-surfaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_core import rng
from medseg_core.papers.ipm_surfaces.scores import broken, masd, outside, score
from medseg_core.papers.ipm_surfaces.surface_net import running_maximum
from medseg_core.solvers.surface_qp import ordered_surfaces

Outs = Sequence[Mapping[str, Tensor]]

# How to order the guesses μ of a column, given their variances.
ORDERINGS = {
    "none": lambda mu, sigma2: mu,
    "running maximum": lambda mu, sigma2: running_maximum(mu),
    "sorted": lambda mu, sigma2: mu.sort(1).values,
    "column problem, equal σ": lambda mu, sigma2: ordered_surfaces(mu, torch.ones_like(sigma2))[0],
    "column problem": lambda mu, sigma2: ordered_surfaces(mu, sigma2)[0],
}


def head_errors(outs: Outs, data: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean error in rows of γ, of ξ and of their fusion μ: "gamma", "xi", "mu"."""
    return {
        key: float(np.mean([masd(out[key], data).nanmean().item() for out in outs]))
        for key in ("gamma", "xi", "mu")
    }


@dataclass(frozen=True)
class Crossings:
    """The columns out of order: how many, how deep in rows, and their mean error in rows."""

    columns: int
    median_depth: float
    largest_depth: float
    error: float
    error_ordered: float  # after the column problem

    def __str__(self) -> str:
        if not self.columns:
            return "no column is out of order"
        return (
            f"{self.columns} columns are out of order; they cross by {self.median_depth:.2f} rows "
            f"(median), {self.largest_depth:.2f} at most, and their error is {self.error:.2f} rows "
            f"before and {self.error_ordered:.2f} after they are put in order"
        )


def crossings(outs: Outs, data: Mapping[str, Tensor]) -> Crossings:
    """Why ordering moves so little, or so much; NaN where no column is out of order."""
    depth, before, after = [], [], []
    for out in outs:
        mu, wrong = out["mu"], broken(out["mu"])  # (n,W)
        depth.append((-mu.diff(dim=1)).amax(1)[wrong])
        for placed, errors in ((mu, before), (ordered_surfaces(mu, out["sigma2"])[0], after)):
            errors.append((placed - data["surfaces"]).abs().movedim(1, 2)[wrong])
    deep = torch.cat(depth)
    median, most = (deep.median(), deep.max()) if len(deep) else (torch.nan, torch.nan)
    errors = (float(torch.cat(part).nanmean()) for part in (before, after))
    return Crossings(len(deep), float(median), float(most), *errors)


def within_gaps(
    outs: Outs, data: Mapping[str, Tensor], low: Tensor, high: Tensor, tol: float
) -> dict[str, dict[str, Any]]:
    """What limits on the gaps change, enforced after training, in double precision.

    Args:
        outs: of a network without the layer.
        data: the set that they belong to.
        low, high: (N-1,) smallest and largest gap, rows.
        tol: of the interior point.

    Returns:
        For "no IPM" and three sets of limits: "solver", "masd" and "sd" in rows (means of the
        seeds), and "outside", the share of columns with a gap out of range, for each seed.
    """
    low, high = low.double(), high.double()
    limits = {
        "no IPM": None,
        "order": {},
        "order, minimum gaps": {"min_gap": low},
        "minimum and maximum gaps": {"min_gap": low, "max_gap": high},
    }
    found = {}
    for name, limit in limits.items():
        placed = [out["mu"].double() for out in outs]
        if limit is not None:
            variances = [out["sigma2"].double() for out in outs]
            placed = [
                ordered_surfaces(mu, sigma2, tol=tol, **limit)[0]
                for mu, sigma2 in zip(placed, variances, strict=True)
            ]
        errors = [score(s, data) for s in placed]
        found[name] = {
            "solver": "–" if limit is None else "ipm" if "max_gap" in limit else "pav",
            "masd": float(np.mean([np.nanmean(e["masd"]) for e in errors])),
            "sd": float(np.mean([e["sd"] for e in errors])),
            "outside": [outside(s, low, high).double().mean().item() for s in placed],
        }
    return found


def around_crossing(surfaces: Tensor, reach: int = 14) -> tuple[tuple, tuple]:
    """Limits of columns and rows (downwards) about the deepest crossing of (N,W).

    Near the side of the image the columns are its outermost ones.
    """
    depth = -surfaces.diff(dim=0)
    i, x = np.unravel_index(int(depth.argmax()), depth.shape)
    z = float(surfaces[i, x])
    x = max(min(x, surfaces.shape[1] - 1 - reach), reach)
    return (x - reach - 0.5, x + reach + 0.5), (z + reach + 0.5, z - reach - 0.5)


def lost_guesses(out: Mapping[str, Tensor], level: float, seed: int) -> tuple[Tensor, Tensor]:
    """μ and σ² after every tenth guess is thrown off by `level` rows (SD), which σ² admits."""
    gen = rng.generator(seed, stream="exercise")
    lost = torch.rand(out["mu"].shape, generator=gen) < 0.1
    mu = out["mu"] + level * lost * torch.randn(out["mu"].shape, generator=gen)
    return mu, out["sigma2"] + level**2 * lost
