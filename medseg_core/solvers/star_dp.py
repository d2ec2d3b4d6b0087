"""Best closed contour on a star pattern: circular dynamic programming, hard, soft and perturbed.

On the warped map g(n,i), N lines of M+1 samples, choose one answer 1 ≤ v(n) ≤ M per line:

    min_v  Σₙ E(n, vₙ, vₙ₊₁),   line N+1 = line 1,
    E(n,i,j) = h(n,i) + h(n+1,j) if |i−j| ≤ δ, else ∞,   h(n,i) = g(n,i) − g(n,i−1)

(Nguyen and Ray 2019, equations 1 and 2, after Ray, Acton and Zhang 2012.)
Around the cycle each h enters twice, so the problem is 2 Σ h(n,vₙ) under a hard band.
The geometry of the star stands in `star_pattern`.

Taught in: dynamic-programming, edpcnn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medseg_core import checks
from medseg_core.solvers.star_pattern import smooth_indices

INF = float("inf")
T = TypeVar("T", Tensor, np.ndarray)


def circular_dp(g: Tensor, delta: int) -> Tensor:
    """Exact minimiser v of the module's problem, O(N·M²·log δ) time and O(M²) memory per map.

    With the first line's answer fixed to k the problem is an open path, and each step of its
    recursion V(k,j) ← h(n,j) + min over |i−j| ≤ δ of V(k,i) is a sliding minimum. All k run at
    once; the path of the best one is then traced on the host, where its N small steps cost less
    than a launch each would on a GPU. Ties: the lowest first answer, then the lowest last one,
    then the lowest answer line by line backwards, as far as rounding leaves the costs equal.

    Args:
        g: ``(B,N,M+1)`` warped map, index 0 nearest the centre, N ≥ 3, M ≥ 1; bright inside.
        delta: largest step δ ≥ 0 between neighbouring lines, the last and the first included.

    Returns:
        ``(B,N)`` int64 in 1..M, on the device of `g`. No gradient: argmin has none.

    Raises:
        ValueError: for NaN or infinity (with its place), N < 3, M < 1, or δ < 0.
        TypeError: if `g` is no floating-point tensor or `delta` no integer.
    """
    delta = _check(g, delta)
    h = g.detach().to(torch.promote_types(g.dtype, torch.float32)).diff(dim=-1)  # (B,N,M)
    n_points = h.shape[-1]
    if delta >= n_points - 1:  # the band binds nothing
        return h.argmin(-1) + 1
    h = h.permute(1, 2, 0).contiguous()  # (N,M,B): the answer's axis outside, so shifts are blocks
    closed = _closed_costs(h, delta)
    best, last = closed.min(0)  # (B,M): over the last line's answer
    first = best.argmin(1, keepdim=True)  # (B,1)
    ends = torch.cat([first, last.gather(1, first)], 1).cpu().numpy()
    path = _trace(h.cpu().numpy(), ends[:, 0], ends[:, 1], delta)  # (N,B)
    return torch.from_numpy(path.T + 1).to(g.device)


def _closed_costs(h: Tensor, delta: int) -> Tensor:
    """``(M,B,M)``: at [j,b,k] the least Σh of a path of map b from k to j that closes, or ∞."""
    n_lines, n_points, batch = h.shape
    padded = h.new_full((n_points + 2 * delta, batch, n_points), INF)
    scratch = [torch.empty_like(padded) for _ in range(2)]
    value = padded[delta : delta + n_points]  # a view: the margins of `padded` stay at ∞
    value.diagonal(dim1=0, dim2=2).copy_(h[0].T)
    for n in range(1, n_lines):
        near = _window_min(padded, 2 * delta + 1, scratch, torch.minimum)
        torch.add(near, h[n, ..., None], out=value)
    answer = torch.arange(n_points, device=h.device)
    broken = (answer[:, None] - answer).abs() > delta
    return value.masked_fill_(broken[:, None], INF)


def _window_min(x: T, width: int, scratch: Sequence[T], minimum: Callable[..., T]) -> T:
    """Minimum over `width` consecutive rows of `x`: windows double until they are wide enough."""
    done, turn = 1, 0
    while done < width:
        step = min(done, width - done)
        rows = len(x) - step
        x = minimum(x[:rows], x[step:], out=scratch[turn][:rows])
        done, turn = done + step, 1 - turn
    return x


def _trace(h: np.ndarray, first: np.ndarray, last: np.ndarray, delta: int) -> np.ndarray:
    """``(N,B)``: the cheapest path between given ends, by the same recursion with its tables kept.

    The argmin is taken along the path only, never for whole tables.
    """
    n_lines, n_points, batch = h.shape
    lane, window = np.arange(batch), np.arange(2 * delta + 1)[:, None]
    padded = np.full((n_lines, n_points + 2 * delta, batch), INF, h.dtype)
    scratch = np.empty((2, *padded.shape[1:]), h.dtype)
    padded[0, first + delta, lane] = h[0, first, lane]
    for n in range(1, n_lines):
        near = _window_min(padded[n - 1], 2 * delta + 1, scratch, np.minimum)
        np.add(near, h[n], out=padded[n, delta : delta + n_points])
    v = np.empty((n_lines, batch), np.int64)
    v[-1] = last
    for n in range(n_lines - 1, 0, -1):
        v[n - 1] = v[n] - delta + padded[n - 1, v[n] + window, lane].argmin(0)
    return v


def circular_dp_energy(g: Tensor, v: Tensor, delta: int | None = None) -> Tensor:
    """Cost of answers v by equations 1 and 2 as printed, term by term: ``(B,)``.

    Args:
        g: ``(B,N,M+1)``.
        v: ``(B,N)`` whole answers in 1..M.
        delta: +∞ where two neighbours, the last and the first included, differ by more than δ;
            None: the band is not looked at.

    Raises:
        ValueError: if v leaves 1..M, or for the same `g` as in `circular_dp`.
    """
    _check(g, 0 if delta is None else delta)
    checks.shape(v, "v", "B N", B=g.shape[0], N=g.shape[1])
    checks.between(v, "v", 1, g.shape[2] - 1)
    fall = g.diff(dim=-1).gather(2, v[..., None] - 1)[..., 0]  # (B,N)
    cost = fall + fall.roll(-1, dims=1)  # E(n, vₙ, vₙ₊₁)
    if delta is not None:
        cost = cost.masked_fill((v - v.roll(-1, dims=1)).abs() > delta, INF)
    return cost.sum(1)


def algorithm1(g: Tensor, delta: int) -> Tensor:
    """The published algorithm, vectorised over the batch and i, j, k: O(N·M³), the reference.

    Tables U(n,i,k) over all pairs of a first answer i and a current answer k, index tables beside
    them, backtracking from argmin U(N−1,j,j) down to line 2: one step more would overwrite the
    first answer. (Nguyen and Ray 2019, algorithm 1.) Arguments and errors as `circular_dp`.
    """
    delta = _check(g, delta)
    h = g.detach().diff(dim=-1)
    n_lines, n_points = h.shape[1:]
    answer = torch.arange(n_points, device=g.device)
    band = h.new_zeros(n_points, n_points)
    band = band.masked_fill((answer[:, None] - answer).abs() > delta, INF)

    def pair(n: int) -> Tensor:  # E(n+1, i, j), lines counted from 0: (B,M,M)
        return h[:, n, :, None] + h[:, (n + 1) % n_lines, None] + band

    value, index = pair(0), []
    for n in range(1, n_lines):
        value, came_from = (value[..., None] + pair(n)[:, None]).min(2)  # (B,i,j,k) over j
        index.append(came_from)
    rows = torch.arange(len(h), device=g.device)
    v = h.new_empty(h.shape[:2], dtype=torch.int64)
    v[:, 0] = value.diagonal(dim1=1, dim2=2).argmin(1)
    v[:, -1] = index[-1][rows, v[:, 0], v[:, 0]]
    for n in range(n_lines - 2, 0, -1):
        v[:, n] = index[n - 1][rows, v[:, 0], v[:, n + 1]]
    return v + 1


def soft_circular_dp(g: Tensor, delta: int, gamma: float) -> tuple[Tensor, Tensor]:
    """Smoothed optimum −γ log Σ_v exp(−E(v)/γ) over all closed contours, and its marginals.

    The recursion of `circular_dp` with log-sum-exp for min, O(N·M²·δ) time and memory. The
    marginals p(n,i) = P(vₙ = i) under exp(−E/γ)/Z are the value's gradient with respect to the
    unary costs 2h (Mensch and Blondel 2018), so ∂value/∂g(n,i) = 2(p(n,i) − p(n,i+1)).
    Both can be differentiated further; γ → 0 gives the hard optimum.

    Args:
        g: ``(B,N,M+1)``.
        delta: as in `circular_dp`.
        gamma: γ > 0, in the units of E.

    Returns:
        value ``(B,)`` and marginals ``(B,N,M)``, whose lines sum to 1.
    """
    delta = min(_check(g, delta), g.shape[2] - 2)
    checks.positive(gamma, "gamma")
    wants_graph = g.requires_grad and torch.is_grad_enabled()
    with torch.enable_grad():
        unary = 2 * (g if wants_graph else g.detach()).diff(dim=-1)  # (B,N,M)
        if not wants_graph:
            unary.requires_grad_()
        score = -unary / gamma
        # Finite, because log-sum-exp over a window of −∞ alone has no gradient.
        never = torch.finfo(score.dtype).min / 4
        n_points = score.shape[-1]
        start = torch.eye(n_points, dtype=torch.bool, device=g.device)
        value = score[:, 0, None].where(start, never)  # (B,k,j)
        for n in range(1, score.shape[1]):
            windows = F.pad(value, (delta, delta), value=never).unfold(-1, 2 * delta + 1, 1)
            value = windows.logsumexp(-1) + score[:, n, None]  # (B,k,j,2δ+1) to (B,k,j)
        answer = torch.arange(n_points, device=g.device)
        closes = (answer[:, None] - answer).abs() <= delta
        value = -gamma * value.where(closes, never).logsumexp((1, 2))
        (marginals,) = torch.autograd.grad(value.sum(), unary, create_graph=wants_graph)
    return (value if wants_graph else value.detach()), marginals


def perturbed_indices(
    g: Tensor, delta: int, sigma: float, n_samples: int, gen: torch.Generator
) -> Tensor:
    """Perturbed optimiser: mean of the one-hot `circular_dp` (g + σε), ε ~ N(0,1), ``(B,N,M)``.

    An unbiased estimate of P(vₙ = i). Its difference to the one-hot truth y is the gradient of the
    Fenchel–Young loss: ∂L/∂h = y − mean (Berthet et al. 2020, here for a minimum).
    """
    mean = g.new_zeros(g.shape[0], g.shape[1], g.shape[2] - 1)
    for _, v in _perturbed(g, delta, sigma, n_samples, gen):  # (S,B,N)
        mean += F.one_hot(v - 1, mean.shape[-1]).sum(0)
    return mean / n_samples


def perturbed_gradient(
    g: Tensor,
    delta: int,
    target: Tensor,
    sigma: float,
    n_samples: int,
    gen: torch.Generator,
    width: int = 1,
) -> Tensor:
    """Estimate of ∂/∂g E[ℓ(circular_dp(g + σε), v*)] with ℓ = mean over lines of |v − v*|/M.

    Score function with the leave-one-out mean as baseline: Σ (ℓₛ − ℓ̄) εₛ / (σ(S − 1)), unbiased
    for every S ≥ 2 and free of any gradient of the solver (Berthet et al. 2020).

    Args:
        g: ``(B,N,M+1)``.
        delta: as in `circular_dp`.
        target: ``(B,N)`` true answers, whole or smoothed.
        sigma: of the noise on g.
        n_samples: S ≥ 2.
        gen: draws ε, on its own device.
        width: answers are smoothed over so many lines before the loss (`smooth_indices`).

    Returns:
        ``(B,N,M+1)``, one gradient per map.
    """
    checks.between(n_samples, "n_samples", 2, None)
    checks.shape(target, "target", "B N", B=g.shape[0], N=g.shape[1])
    weighted, plain, loss_sum = torch.zeros_like(g), torch.zeros_like(g), 0.0
    for noise, v in _perturbed(g, delta, sigma, n_samples, gen):
        smooth = smooth_indices(v.flatten(0, 1), width).view(v.shape)
        loss = ((smooth - target).abs().mean(-1) / (g.shape[2] - 1)).to(g.dtype)  # (s,B)
        weighted += torch.einsum("sb,sbni->bni", loss, noise)
        plain += noise.sum(0)
        loss_sum = loss_sum + loss.sum(0)
    total = weighted - (loss_sum / n_samples)[:, None, None] * plain
    return total / (sigma * (n_samples - 1))


def _perturbed(
    g: Tensor, delta: int, sigma: float, n_samples: int, gen: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Noise ``(s,B,N,M+1)`` and answers ``(s,B,N)``, in parts of about 256 maps."""
    checks.positive(sigma, "sigma")
    checks.between(n_samples, "n_samples", 1, None)
    g = g.detach()
    part = max(1, 256 // max(1, len(g)))
    for begin in range(0, n_samples, part):
        shape = (min(part, n_samples - begin), *g.shape)
        noise = torch.randn(shape, generator=gen, device=gen.device, dtype=g.dtype).to(g.device)
        v = circular_dp((g + sigma * noise).flatten(0, 1), delta)
        yield noise, v.view(shape[:3])


def _check(g: Tensor, delta: int) -> int:
    size = checks.shape(checks.floating(g, "g"), "g", "B N M+1")
    checks.between(size["N"], "the number of lines N of g", 3, None)
    checks.between(size["M+1"], "the number of samples M+1 of g", 2, None)
    checks.finite(g, "g")
    return checks.integer(delta, "delta", 0)
