"""The quadratic programme of max-margin learning, with its Lagrange multipliers.

    min over w, ξ of  ½‖w‖² + C/N Σₙ ξₙ
    subject to        h_k = r_k·w + Δ_k − ξ_n(k) ≤ 0  for k = 1 … K,   ξ ≥ 0,   w₂, w₃ ≥ 0

Row k says that a wrong labelling of image n(k) costs more than the truth by at least Δ_k, or the
image pays the slack ξₙ (Larsson, Alvén and Kahl 2017, equation 8 and supplement, equation 19).
r_k = (Σⱼ U_kj, C₂, C₃) is truth minus wrong, in the terms of the energy.

Taught in: max-margin-crf.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from scipy.optimize import lsq_linear
from scipy.sparse import csc_matrix, diags

from medseg_core import checks

TOL = 1e-8  # clarabel's, for its gap (relative and absolute) and its residuals
NOTHING = 1e-12  # a multiplier of the scaled programme below this is zero
EXACT = 1e-10  # error that the equations of the active rows may leave, in the scaled programme
ACTIVE = 1e-6  # of max(Δ, 1): a row nearer to its limit than this stands at it


@dataclass(frozen=True)
class MarginQP:
    """The problem: K rows over N images. All arrays are float64 but `image`."""

    rows: np.ndarray  # (K,3) r_k
    delta: np.ndarray  # (K,) Δ_k ≥ 0
    image: np.ndarray  # (K,) int64, which image row k belongs to
    n_images: int  # N
    C: float

    @property
    def price(self) -> float:
        """C/N, what a unit of slack costs; also the most that an image's multipliers sum to."""
        return self.C / self.n_images

    @property
    def scale(self) -> np.ndarray:
        """``(K,)`` max(Δ_k, 1): rows are in thousands of pixels, the slack's column in ones."""
        return np.maximum(self.delta, 1)

    def slack(self, w: np.ndarray) -> np.ndarray:
        """``(N,)`` ξₙ = max(0, max_k r_k·w + Δ_k), the least slack that w leaves."""
        xi = np.zeros(self.n_images)
        np.maximum.at(xi, self.image, self.rows @ w + self.delta)
        return xi

    def values(self, w: np.ndarray, xi: np.ndarray) -> np.ndarray:
        """``(K,)`` h_k, at most 0 where row k is kept."""
        return self.rows @ w + self.delta - xi[self.image]

    def objective(self, w: np.ndarray, xi: np.ndarray) -> float:
        """½‖w‖² + C/N Σₙ ξₙ."""
        return float(0.5 * w @ w + self.price * xi.sum())


@dataclass(frozen=True)
class Optimum:
    """Solution of a `MarginQP` and the multipliers of its rows; w and ξ keep every row exactly."""

    w: np.ndarray  # (3,)
    xi: np.ndarray  # (N,)
    gamma: float  # the objective
    energy: np.ndarray  # (K,) λ_k ≥ 0 of h_k ≤ 0
    slack: np.ndarray  # (N,) λ_(n) ≥ 0 of ξₙ ≥ 0
    weight: np.ndarray  # (2,) λ_w ≥ 0 of w₂, w₃ ≥ 0


def solve_margin_qp(qp: MarginQP) -> Optimum:
    """The optimum of `qp`: w is unique, the multipliers are where the active rows are independent.

    Clarabel's interior point solves the programme with row k divided by max(Δ_k, 1), slack in units
    of the largest Δ and the objective in units of C/N; multipliers come back in pixels. The rows
    that it found active are then solved as equations, which leaves zeros where zeros belong; where
    that answer breaks a row or a sign, as it can with dependent rows, the interior point's stands.

    Args:
        qp: the problem. Without rows the answer is w = 0.

    Raises:
        ValueError: NaN or infinity, shapes that disagree, Δ < 0, C ≤ 0, or an index of no image.
        ImportError: without clarabel.
        RuntimeError: if neither clarabel nor the equations of its active rows find an optimum.

    Taught in: max-margin-crf.
    """
    _check(qp)
    if not qp.delta.any():  # nothing asks for a margin
        zero = np.zeros(qp.n_images)
        none = np.zeros(len(qp.rows))
        return Optimum(np.zeros(3), zero, 0.0, none, zero + qp.price, np.zeros(2))
    unit = qp.objective(np.zeros(3), qp.slack(np.zeros(3)))
    best = _Scaled(qp, unit).solve()
    for _ in range(2):
        if abs(optimality(qp, best)["gap"]) <= TOL * best.gamma:
            break
        unit = max(best.gamma, 1e-4 * unit)  # far below that of w = 0: a finer unit
        try:
            best = _Scaled(qp, unit).solve()
        except RuntimeError:  # the answer in the coarser unit stands
            break
    return best


def optimality(qp: MarginQP, optimum: Optimum) -> dict[str, float]:
    """How far `optimum` is from the conditions of equation 12; each is 0 at the exact optimum.

    Returns:
        "stationarity": largest |∇L| over w and ξ; "infeasibility": largest excess of a row, of −ξ
        or of −w₂, −w₃; "negative": largest negative multiplier; "complementarity": largest |λ·h|
        over all rows, in units of γ; "gap": γ minus the value of the dual, which bounds the error
        of γ.

    Taught in: max-margin-crf.
    """
    w, xi = optimum.w, optimum.xi
    by_image = np.bincount(qp.image, optimum.energy, qp.n_images)
    force = optimum.energy @ qp.rows  # (3,) Σ λ r
    gradient = w + force - np.r_[0, optimum.weight]
    h = np.r_[qp.values(w, xi), -xi, -w[1:]]
    multipliers = np.r_[optimum.energy, optimum.slack, optimum.weight]
    dual_w = np.r_[-force[0], np.maximum(-force[1:], 0)]
    return {
        "stationarity": float(np.abs(np.r_[gradient, qp.price - by_image - optimum.slack]).max()),
        "infeasibility": float(max(h.max(), 0)),
        "negative": float(max(-multipliers.min(), 0)),
        "complementarity": float(np.abs(multipliers * h).max()),
        "gap": float(optimum.gamma - optimum.energy @ qp.delta + 0.5 * dual_w @ dual_w),
    }


class _Scaled:
    """`qp` as  min ½ xᵀ diag(p) x + qᵀx  s.t.  A x ≤ b,  x = (w, ξ/D), rows: K, then N, then 2.

    The objective is in units of `unit`, slack in units of D, row k in units of max(Δ_k, 1).
    """

    def __init__(self, qp: MarginQP, unit: float) -> None:
        self.qp, self.unit, n, k = qp, unit, qp.n_images, len(qp.rows)
        self.D = float(qp.scale.max())
        self.p = np.r_[np.full(3, 1 / unit), np.zeros(n)]
        self.q = np.r_[np.zeros(3), np.full(n, qp.price * self.D / unit)]
        self.A = np.zeros((k + n + 2, 3 + n))
        self.A[:k, :3] = qp.rows / qp.scale[:, None]
        self.A[np.arange(k), 3 + qp.image] = -self.D / qp.scale
        self.A[k : k + n, 3:] = -np.eye(n)
        self.A[k + n :, 1:3] = -np.eye(2)
        self.b = np.r_[-qp.delta / qp.scale, np.zeros(n + 2)]

    def solve(self) -> Optimum:
        x, z, failure = self.interior_point()
        exact = self.equations(x, z)  # needs of x and z no more than a guess of the active rows
        if failure and exact is None:
            raise RuntimeError(
                f"the quadratic programme of {len(self.qp.rows)} rows has no answer: {failure}"
            )
        return self.optimum(*(exact or (x, z)))

    def interior_point(self) -> tuple[np.ndarray, np.ndarray, str]:
        """Clarabel's x and multipliers z, and why they are no optimum ("" where they are one)."""
        clarabel = _clarabel()
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = TOL
        cones = [clarabel.NonnegativeConeT(len(self.b))]
        solution = clarabel.DefaultSolver(
            diags(self.p, format="csc"), self.q, csc_matrix(self.A), self.b, cones, settings
        ).solve()
        failure = ""
        if str(solution.status) not in ("Solved", "AlmostSolved"):
            failure = f"clarabel says {solution.status} after {solution.iterations} iterations"
        return np.array(solution.x), np.array(solution.z), failure

    def equations(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """x and z with the active rows solved as equations, or None.

        z marks the active rows; one that pulls the wrong way leaves, one that is broken enters.
        """
        active = z > self.b - self.A @ x  # z·slack = μ on the central path: one of them is large
        for _ in range(10):
            x, z = self.with_active(active)
            excess = self.A @ x - self.b
            if z.min() < 0 and excess.max() <= EXACT:  # dependent rows leave z a choice
                z[active] = _nonnegative(self.A[active].T, -self.p * x - self.q)
            residual = np.abs(self.p * x + self.q + z @ self.A).max()
            if max(residual, excess.max(), -z.min()) <= EXACT:
                return x, z
            active = np.where(active, z > 0, excess > EXACT)
        return None

    def with_active(self, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x and z with these rows as equations and no others."""
        rows = self.A[active]
        size, m = len(self.q), len(rows)
        matrix = np.zeros((size + m, size + m))
        matrix[:size, :size] = np.diag(self.p)
        matrix[:size, size:], matrix[size:, :size] = rows.T, rows
        right = np.r_[-self.q, self.b[active]]
        try:
            answer = np.linalg.solve(matrix, right)
        except np.linalg.LinAlgError:
            answer = np.full(size + m, np.nan)
        if not np.abs(matrix @ answer - right).max() <= 0.1 * EXACT:  # singular: NaN or noise
            answer = np.linalg.lstsq(matrix, right, rcond=1e-12)[0]
        z = np.zeros(len(active))
        z[active] = answer[size:]
        return answer[:size], z

    def optimum(self, x: np.ndarray, z: np.ndarray) -> Optimum:
        """Back to pixels: w₂, w₃ clamped at 0, ξ the least that keeps every row."""
        qp, k = self.qp, len(self.qp.rows)
        w = np.r_[x[0], np.maximum(x[1:3], 0)]
        xi = qp.slack(w)
        z = np.where(z > NOTHING, z, 0) * self.unit
        energy, slack, weight = np.split(z, [k, k + qp.n_images])
        return Optimum(w, xi, qp.objective(w, xi), energy / qp.scale, slack / self.D, weight)


def _nonnegative(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """argmin ‖matrix·z − right‖ over z ≥ 0."""
    return lsq_linear(matrix, right, (0, np.inf), method="bvls", tol=1e-14).x


def _clarabel() -> ModuleType:
    try:
        import clarabel
    except ImportError as error:
        raise ImportError(
            "max-margin learning solves its quadratic programme with clarabel, which is not "
            "installed: pip install medseg-core[qp]"
        ) from error
    return clarabel


def _check(qp: MarginQP) -> None:
    k = checks.shape(qp.rows, "rows", "K 3")["K"]
    checks.shape(qp.delta, "delta", "K", K=k)
    checks.shape(qp.image, "image", "K", K=k)
    checks.finite(qp.rows, "rows")
    checks.between(checks.finite(qp.delta, "delta"), "delta", 0, None)
    checks.between(qp.n_images, "n_images", 1, None)
    if k:
        checks.between(qp.image, "image", 0, qp.n_images - 1)
    checks.positive(qp.C, "C")
