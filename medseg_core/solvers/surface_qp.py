"""Ordered surfaces: the constrained optimum of each image column, as a differentiable layer.

    min_s  ½ Σᵢ (sᵢ − μᵢ)²/σᵢ²   subject to   d_minᵢ ≤ sᵢ₊₁ − sᵢ ≤ d_maxᵢ

for N surfaces in each of the W columns of B images (Xie et al. 2020, equation 5). s, μ and the
gaps are rows or pixels, σ² is in px².

Taught in: optimisation-as-a-layer, ipm-surfaces.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.solvers.surface_columns import (
    Answer,
    Columns,
    OrderedSurfaces,
    result_dtype,
    solve,
    to_images,
    to_maps,
)
from medseg_core.solvers.surface_ipm import Point

INF = float("inf")
NEAR = 1e-6  # px: a gap so near its limit stands at it
Gap = Tensor | float | None


@dataclass
class SurfaceInfo:
    """What a solver of ordered surfaces did, per column.

    The multipliers belong to σ² as given, in px⁻¹: `multipliers_min[b,i,w]` is the rise of the
    objective per pixel of more minimum gap between surfaces i and i + 1.
    """

    method: str  # "pav" or "ipm": what answered, "ipm" if any column needed it
    iterations: Tensor  # (B,W) int64, of the interior point; 0 where none was needed
    residual: Tensor  # (B,W) |σ²·r_d|∞ in px, r_d = (s − μ)/σ² + Aᵀλ the stationarity
    duality_gap: Tensor  # (B,W) Σ λg, g the slack
    multipliers_min: Tensor  # (B,N-1,W) λ of the minimum gaps, ≥ 0
    multipliers_max: Tensor  # (B,N-1,W) λ of the maximum gaps, ≥ 0
    active_min: Tensor  # (B,N-1,W) bool: the gap stands at its minimum
    active_max: Tensor  # (B,N-1,W) bool: at its maximum
    converged: Tensor  # (B,W) bool
    trace: Trace | None = None


@dataclass
class Trace:
    """The iterates of `interior_point`, T + 1 of them; a finished column repeats its last one."""

    surfaces: Tensor  # (T+1,B,N,W)
    residual: Tensor  # (T+1,B,W)
    duality_gap: Tensor  # (T+1,B,W)


def ordered_surfaces(
    mu: Tensor,
    sigma2: Tensor,
    *,
    min_gap: Gap = None,
    max_gap: Gap = None,
    method: Literal["auto", "pav", "ipm"] = "auto",
    tol: float = 1e-8,
    max_iter: int = 100,
    polish: bool = True,
) -> tuple[Tensor, SurfaceInfo]:
    """Surfaces nearest to μ, in the metric of 1/σ², that keep their order and gaps.

    Differentiable once in `mu`, `sigma2` and the gaps. O(N) memory a column; O(N) time per sweep of
    the closed form (at most N − 1) and per iteration of the interior point, whose start takes
    O(N²). Nothing keeps s within the image.

    - "pav": order and minimum gaps have a closed form, weighted isotonic regression of
      μᵢ − Σ d_min; each block of pooled surfaces moves as one.
    - "ipm": the primal-dual interior point of Xie et al. 2020 (appendix C), which takes maximum
      gaps too. It runs on the columns that break a limit, each until its own tolerance. Then the
      pairs it found at their limits are held there and the rest solved exactly (`polish`).
    - "auto": the closed form, and the interior point for the columns where that leaves a
      maximum gap.

    A column that already keeps all limits comes back unchanged, its gradient the identity.
    The gradient is one solve with the final Newton matrix (algorithm 2); after `polish` that is
    the mean over the block. Where a limit is just reached without force it is one-sided.
    A pair with d_min = d_max (to 1e-7 px) moves as one body; its gap's gradient is shared equally
    between both limits.

    Args:
        mu: ``(B,N,W)`` rows, downward; N, B, W ≥ 1.
        sigma2: ``(B,N,W)`` variances, positive. Floor them before: 1/σ² is the weight.
        min_gap: least s[i+1] − s[i]: None (0: order alone), a number, ``(N-1,)`` or
            ``(B,N-1,W)``, or a shape that broadcasts to the latter. A negative one lets surfaces
            cross by so much.
        max_gap: largest s[i+1] − s[i]: None, or as `min_gap`; ``inf`` in a tensor is no limit.
        method: see above.
        tol: a column's interior point stops when its duality gap, in px² of its least certain
            surface, and its stationarity, in px, are both below it; at least 1e-11.
        max_iter: most iterations of the interior point.
        polish: False leaves the interior point's answer as it is: strictly inside the limits, a
            smooth approximation up to `tol`, with the gradient of that.

    Returns:
        surfaces ``(B,N,W)``, float32 or, where an input is, float64 (computed in float64), and
        the `SurfaceInfo`.

    Raises:
        ValueError: for NaN or infinity (with the place), shapes that disagree, σ² ≤ 0, a minimum
            gap above the maximum (with the column), an unknown or unfit method, and parameters out
            of range.
        TypeError: if `mu` or `sigma2` is no floating-point tensor.
    """
    checks.choice(method, "method", ("auto", "pav", "ipm"))
    max_iter = _check_parameters(tol, max_iter, least=1e-11)
    low, high = _check(mu, sigma2, min_gap, max_gap)
    if method == "pav" and high is not None:
        raise ValueError("method='pav' takes no max_gap: use method='auto' or 'ipm'")
    options = {"tol": tol, "max_iter": max_iter}
    solved: list[tuple[Columns, Answer]] = []

    def run(columns: Columns) -> Answer:
        solved.append((columns, solve(columns, method, polish, options)))
        return solved[0][1]

    surfaces = OrderedSurfaces.apply(mu, sigma2, low, high, run)
    info = _info(*solved[0], "ipm" if method == "ipm" else "pav", mu.shape)
    if not bool(info.converged.all()):
        warnings.warn(
            f"ordered_surfaces: {int((~info.converged).sum())} of {info.converged.numel()} columns "
            f"did not reach tol={tol:g} within max_iter={max_iter}; see info.converged",
            RuntimeWarning,
            stacklevel=2,
        )
    return surfaces, info


def interior_point(
    mu: Tensor,
    sigma2: Tensor,
    *,
    min_gap: Gap = None,
    max_gap: Gap = None,
    tol: float | None = None,
    max_iter: int = 100,
    stop: Literal["gap", "residual"] = "gap",
    trace: bool = False,
) -> tuple[Tensor, SurfaceInfo]:
    """The interior point alone, for looking into it: every column iterates, nothing is polished.

    ``stop="residual"`` is algorithm 1 of Xie et al. 2020 as printed: λ starts at 1, the step is
    halved (β₁) until the surfaces are inside and until ‖r_t‖ ≤ (1 − β₂α)‖r_t0‖, and a column is
    done when ‖r_t‖₂ < ε = `tol` (default 0.01). That number mixes px⁻¹ with px·px⁻¹ and does not
    bound an error in pixels. ``stop="gap"`` is what `ordered_surfaces` runs: σ² relative to the
    column's largest, steps up to 0.99 of the way to the wall, and a stop in pixels (default 1e-8).

    Arguments, shapes and errors as `ordered_surfaces`. No gradient, and no warning: see
    ``info.converged``. ``info.residual`` is what `stop` names: ‖r_t‖₂, or |σ²·r_d|∞.

    Args:
        trace: keep all iterates in ``info.trace``.
    """
    checks.choice(stop, "stop", ("gap", "residual"))
    tol = {"gap": 1e-8, "residual": 1e-2}[stop] if tol is None else tol
    max_iter = _check_parameters(tol, max_iter, least=0)
    low, high = _check(mu, sigma2, min_gap, max_gap)
    columns = Columns.of(mu, sigma2, low, high)
    points: list[Point] | None = [] if trace else None
    point = columns.interior_point(stop=stop, tol=tol, max_iter=max_iter, trace=points)
    info = _info(columns, Answer.of_point(columns, point), "ipm", mu.shape)
    info.residual = to_maps(point.residual, mu.shape)
    info.duality_gap = to_maps(point.gap, mu.shape)
    if points is not None:
        info.trace = Trace(
            to_images(torch.stack([p.s for p in points]), mu.shape),
            to_maps(torch.stack([p.residual for p in points]), mu.shape),
            to_maps(torch.stack([p.gap for p in points]), mu.shape),
        )
    return to_images(point.s, mu.shape).to(result_dtype(mu, sigma2)), info


def _info(columns: Columns, answer: Answer, method: str, shape: torch.Size) -> SurfaceInfo:
    """All that `SurfaceInfo` holds, from a solution and its multipliers."""
    gaps, (dual_min, dual_max) = answer.s.diff(dim=0), answer.dual
    force = dual_min - dual_max
    stationarity = columns.weight * (answer.s - columns.mu)
    stationarity[:-1] += force
    stationarity[1:] -= force
    slack = gaps - columns.low
    gap, active_max = (dual_min * slack).sum(0), torch.zeros_like(slack, dtype=torch.bool)
    if columns.high is not None:
        slack = columns.high - gaps
        gap = gap + (dual_max * slack.clamp(max=1 / NEAR)).sum(0)  # no 0 · ∞
        active_max = slack <= NEAR
    return SurfaceInfo(
        method="ipm" if bool((answer.iterations > 0).any()) else method,
        iterations=to_maps(answer.iterations, shape),
        residual=to_maps((stationarity / columns.weight).abs_().amax(0), shape),
        duality_gap=to_maps(gap, shape),
        multipliers_min=to_images(dual_min, shape),
        multipliers_max=to_images(dual_max, shape),
        active_min=to_images(gaps - columns.low <= NEAR, shape),
        active_max=to_images(active_max, shape),
        converged=to_maps(answer.converged, shape),
    )


def _check_parameters(tol: float, max_iter: int, least: float) -> int:
    checks.positive(tol, "tol")
    checks.between(tol, "tol", least, None)
    return checks.integer(max_iter, "max_iter", 1)


def _check(
    mu: Tensor, sigma2: Tensor, min_gap: Gap, max_gap: Gap
) -> tuple[Tensor | None, Tensor | None]:
    for x, name in ((mu, "mu"), (sigma2, "sigma2")):
        checks.floating(x, name)
    size = checks.shape(mu, "mu", "B N W")
    if 0 in mu.shape:
        raise ValueError(f"mu must hold at least one column and surface, got {tuple(mu.shape)}")
    checks.same_shape(mu, sigma2, ("mu", "sigma2"))
    checks.finite(mu, "mu")
    checks.finite(sigma2, "sigma2")
    if bool((sigma2 <= 0).any()):
        place = [int(i) for i in (sigma2 <= 0).nonzero()[0]]
        raise ValueError(
            f"sigma2 must be positive, got {sigma2[tuple(place)].item()} at index {place}"
        )
    target = (size["B"], size["N"] - 1, size["W"])
    low = _gap(min_gap, "min_gap", mu, target)
    high = _gap(max_gap, "max_gap", mu, target)
    if low is not None:
        checks.finite(low, "min_gap")
    if high is not None:
        floor = torch.zeros_like(high) if low is None else low
        if bool((wrong := ~(floor <= high)).any()):
            b, i, w = (int(k) for k in wrong.nonzero()[0])
            raise ValueError(
                f"min_gap must not exceed max_gap: {floor[b, i, w].item():g} > "
                f"{high[b, i, w].item():g} between surfaces {i} and {i + 1} "
                f"in column {w} of image {b}"
            )
    return low, high


def _gap(gap: Gap, name: str, mu: Tensor, target: tuple[int, int, int]) -> Tensor | None:
    """The gap per image, pair and column, a view; None where there is none."""
    if gap is None:
        return None
    checks.between(gap, name, None, None)  # numbers, no NaN
    float64 = not isinstance(gap, Tensor) or not gap.is_floating_point()
    x = torch.as_tensor(gap, device=mu.device, dtype=torch.float64 if float64 else None)
    pairs = target[1]
    shaped = x[:, None] if x.ndim == 1 else x
    if x.ndim in (0, 3) or tuple(x.shape) == (pairs,):
        try:
            return shaped.expand(target)
        except RuntimeError:
            pass
    raise ValueError(
        f"{name} must be a number, ({pairs},) or (B,N-1,W) = {target}; got {tuple(x.shape)}"
    )
