"""The gradient of the max-margin objective γ to the network's output, in two ways.

- From the optimality conditions: differentiate them, and solve for ∂w/∂z and ∂ξ/∂z at each pixel
  (Larsson, Alvén and Kahl 2017, equations 11 to 15 and 24). z = σ(a) is the network's probability.
- By the envelope theorem: at an optimum only the explicit dependence counts,

      ∂γ/∂a = w₁ Σ_k λ_k (y_k − y_n),

  the labellings found minus the truth, weighted by the multipliers.

Both agree where γ is differentiable; the chapter shows why.

Taught in: max-margin-crf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from scipy.linalg import get_lapack_funcs
from torch import Tensor
from torch.autograd.function import once_differentiable

from medseg_core import checks
from medseg_core.papers.max_margin_crf.crf import MaxMarginCRF, Weights
from medseg_core.papers.max_margin_crf.cutting_planes import Fit
from medseg_core.papers.max_margin_crf.qp import ACTIVE


def margin_loss(logits: Tensor, crf: MaxMarginCRF, **options: Any) -> tuple[Tensor, Fit]:
    """γ as a loss of the logits, and the `Fit` behind it. Differentiable once.

    Algorithm 1 runs on the CPU, from the labellings that `crf` holds; the gradient comes back on
    the device and in the dtype of `logits`. γ is in pixels, a mean over images of sums over pixels:
    divide by H·W for a loss of the usual size. Where w₁ = 0 the gradient is 0, and where w₁ < 0 it
    points the other way: the logits are worth nothing to the CRF, see ``fit.w``.

    Args:
        logits: ``(N,1,H,W)`` of the images of `crf`, in their order.
        crf: the programme, or a `subset` of it for a batch.
        options: of `MaxMarginCRF.fit`.

    Returns:
        γ, a scalar of the logits' dtype (at least float32) and device, and the `Fit`.

    Raises:
        ValueError: as `MaxMarginCRF.fit`.

    Taught in: max-margin-crf.
    """
    fit = crf.fit(logits, **options)
    wanted = torch.is_grad_enabled() and logits.requires_grad
    grad = envelope_gradient(fit, logits) if wanted else None
    return _Gamma.apply(logits, fit.gamma, grad), fit


class _Gamma(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, gamma: float, grad: Tensor | None) -> Tensor:
        ctx.grad = grad
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return torch.tensor(gamma, dtype=dtype, device=logits.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        return (upstream * ctx.grad).to(ctx.grad.dtype), None, None


def envelope_gradient(fit: Fit, logits: Tensor) -> Tensor:
    """∂γ/∂a = w₁ Σ_k λ_k (y_k − y_n), ``(N,1,H,W)`` in the logits' dtype and device.

    At a pixel of image n it is at most |w₁|·C/N, since the image's multipliers sum to C/N at most.

    Args:
        fit: of `MaxMarginCRF.fit` or `solve` for these logits.
        logits: ``(N,1,H,W)``.

    Taught in: max-margin-crf.
    """
    _check_shape(logits, fit)
    grad = np.empty(fit.target.shape)
    for n, truth in enumerate(fit.target):
        weight = fit.optimum.energy[fit.qp.image == n]
        wrong = fit.labels(n).astype(np.float64) - truth
        grad[n] = fit.optimum.w[0] * np.tensordot(weight, wrong, 1)
    return torch.from_numpy(grad[:, None]).to(logits)


def kkt_gradient(fit: Fit, logits: Tensor, *, wrt: Literal["logits", "z"] = "logits") -> Tensor:
    """∂γ/∂z by the paper's linear system, equation 11, ``(N,1,H,W)`` as `envelope_gradient`.

    One factorisation; pixels that the same labellings get wrong share a right-hand side, and those
    that none gets wrong have 0. O((K + 2N)³) and a solve per distinct pixel.

    Args:
        fit: of `MaxMarginCRF.fit` or `solve` for these logits.
        logits: ``(N,1,H,W)``.
        wrt: "z" for the probabilities z = σ(a), or "logits": times ∂z/∂a.

    Taught in: max-margin-crf.
    """
    checks.choice(wrt, "wrt", ("logits", "z"))
    _check_shape(logits, fit)
    grad = np.zeros(fit.target.shape)
    if len(fit.qp.rows):
        solve, right = _factorised(kkt_matrix(fit)), kkt_right_side(fit)
        for n in np.unique(fit.qp.image):
            grad[n] = _image_gradient(fit, n, solve, right)
    if wrt == "z":  # ∂a/∂z = 1/z + 1/(1−z), which needs no clipping in terms of a
        grad = grad * (2 + 2 * np.cosh(logits.detach()[:, 0].double().cpu().numpy()))
    return torch.from_numpy(grad[:, None]).to(logits)


def kkt_matrix(fit: Fit) -> np.ndarray:
    """The paper's matrix ``(M,M)``, M = (3 + N) + (K + N + 2), of the system at every pixel.

    Unknowns: ∂w, ∂ξ, ∂λ of the K rows, of ξ ≥ 0 and of w₂, w₃ ≥ 0. Equations: equation 24 for each
    weight, then for each slack; ∂h = 0 for each active constraint, ∂λ = 0 for each passive one.
    λ itself, which the paper lists with the unknowns, is known from the solver.

    Source: Larsson, Alvén and Kahl 2017, equations 11 to 15 and 24.
    """
    qp, n, k = fit.qp, fit.qp.n_images, len(fit.qp.rows)
    h = np.zeros((k + n + 2, 3 + n))  # ∂h/∂w, ∂h/∂ξ of every constraint
    h[:k, :3] = qp.rows
    h[np.arange(k), 3 + qp.image] = -1
    h[k : k + n, 3:] = -np.eye(n)
    h[k + n :, 1:3] = -np.eye(2)
    active = _active(fit)[:, None]
    curvature = np.diag(np.r_[np.ones(3), np.zeros(n)])
    return np.block([[curvature, h.T], [np.where(active, h, 0), np.diag(~active[:, 0] * 1.0)]])


def kkt_right_side(fit: Fit) -> np.ndarray:
    """``(M,K)``: column k is the right-hand side per unit of ∂U_kj; a pixel's is their sum."""
    k, n = len(fit.qp.rows), fit.qp.n_images
    right = np.zeros((3 + n + k + n + 2, k))
    right[0] = -fit.optimum.energy
    right[3 + n + np.arange(k), np.arange(k)] = -fit.optimum.w[0] * _active(fit)[:k]
    return right


def hinge_subgradient(logits: Tensor, crf: MaxMarginCRF, w: Weights) -> Tensor:
    """One subgradient of the structured hinge at a given w, ``(N,1,H,W)``: (C/N)·w₁·(y* − y_n).

        C/N Σₙ max_y [Δ(y, yₙ) − E(y) + E(yₙ)]

    y* is the single most violating labelling under `w`; γ's gradient mixes all those that share
    the multipliers at its own optimal w (ablation).

    Taught in: max-margin-crf.
    """
    worst = crf.most_violated(logits, w).to(logits)
    truth = torch.from_numpy(np.stack([x.target for x in crf.images])).to(logits)
    w1 = float(w[0])
    return (crf.C / len(crf) * w1 * (worst - truth))[:, None]


def _active(fit: Fit) -> np.ndarray:
    """``(K+N+2,)`` bool: the constraints with a multiplier that also stand at their limit.

    A constraint that just touches its limit without force counts as passive; that picks a
    subgradient where γ has a kink.
    """
    qp, best = fit.qp, fit.optimum
    h = np.r_[
        qp.values(best.w, best.xi) / qp.scale, -best.xi / qp.scale.max(initial=1), -best.w[1:]
    ]
    return (np.r_[best.energy, best.slack, best.weight] > 0) & (np.abs(h) <= ACTIVE)


def _image_gradient(
    fit: Fit, n: int, solve: Callable[[np.ndarray], np.ndarray], right: np.ndarray
) -> np.ndarray:
    """``(H,W)`` ∂γ/∂a of image n: ½‖w‖² + C/N Σξ, derived by the unknowns ∂w and ∂ξ."""
    outer = np.zeros((1, len(right)))
    outer[0, :3] = fit.optimum.w
    outer[0, 3 : 3 + fit.qp.n_images] = fit.qp.price
    truth, of_image = fit.target[n], np.flatnonzero(fit.qp.image == n)
    wrong = (fit.labels(n) != truth).reshape(len(of_image), -1)  # (K_n,P)
    bits = np.ascontiguousarray(np.packbits(wrong, axis=0).T)  # (P,⌈K_n/8⌉)
    key = bits.view(np.dtype((np.void, bits.shape[1]))).ravel()  # a pixel's bits as one value
    _, first, pixel = np.unique(key, return_index=True, return_inverse=True)
    patterns = wrong[:, first].astype(np.float64)  # (K_n, distinct pixels)
    distinct = outer @ solve(right[:, of_image] @ patterns)
    sign = np.where(truth, -1, 1)  # of y_k − y_n where y_k is wrong
    return sign * distinct[0, pixel.ravel()].reshape(truth.shape)


def _factorised(matrix: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Solver for many right-hand sides: LU, or least squares where the matrix is singular.

    It is where active rows depend on each other, as those of a labelling that stands there twice.
    Rows and unknowns are scaled to one size first.
    """
    left, above = _equilibration(matrix)
    scaled = left[:, None] * matrix * above
    factor, solve, condition = get_lapack_funcs(("getrf", "getrs", "gecon"), (scaled,))
    lu, pivots, _ = factor(scaled)
    inverse_condition, _ = condition(lu, np.abs(scaled).sum(0).max())
    if inverse_condition > 1e-13:
        return lambda b: above[:, None] * solve(lu, pivots, left[:, None] * b)[0]
    return lambda b: above[:, None] * np.linalg.lstsq(scaled, left[:, None] * b, rcond=1e-11)[0]


def _equilibration(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors of rows and of columns that bring the largest entries of both near 1."""
    rows, columns = np.ones(len(matrix)), np.ones(len(matrix))
    size = np.abs(matrix)
    for _ in range(4):
        rows /= np.sqrt((rows[:, None] * size * columns).max(1))
        columns /= np.sqrt((rows[:, None] * size * columns).max(0))
    return rows, columns


def _check_shape(logits: Tensor, fit: Fit) -> None:
    n, h, w = fit.target.shape
    checks.shape(logits, "logits", "N 1 H W", N=n, H=h, W=w)
