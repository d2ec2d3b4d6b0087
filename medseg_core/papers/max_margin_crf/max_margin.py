"""Learning the weights of a CRF by the margin between the truth and every other labelling.

    E(y) = −w₁ Σᵢ log Φᵢ(yᵢ) + Σ_{(i,j)} [yᵢ ≠ yⱼ] (w₂ + w₃ e_ij)
    γ = min over w, ξ of  ½‖w‖² + C/N Σₙ ξₙ
        s.t.  E(y) − E(yₙ) ≥ Δ(y, yₙ) − ξₙ  for every labelling y of image n;  ξ, w₂, w₃ ≥ 0

with Φᵢ(1) = σ(aᵢ) of the network's logit aᵢ and Δ the number of wrong pixels (Larsson, Alvén and
Kahl 2017, equations 2, 4 and 8; chapter `max-margin-crf`). Of the 2ᴾ rows per image a few matter:
Algorithm 1 (`margin_fit`) finds them by exact cuts. The gradient of γ stands in `margin_gradient`.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.papers.max_margin_crf.margin_fit import Fit, Programme, algorithm_1
from medseg_core.papers.max_margin_crf.margin_gradient import envelope_gradient
from medseg_core.papers.max_margin_crf.margin_gradient import hinge_subgradient as hinge_subgradient
from medseg_core.papers.max_margin_crf.margin_gradient import kkt_gradient as kkt_gradient
from medseg_core.papers.max_margin_crf.margin_gradient import margin_loss as margin_loss
from medseg_core.papers.max_margin_crf.margin_sets import ImageConstraints, pair_weights
from medseg_core.solvers.graphcut import GridCut

Weights = Tensor | np.ndarray | Sequence[float]


class MaxMarginCRF:
    """The programme above for N images, whose labelling sets persist from call to call.

    Args:
        image: ``(N,C,H,W)``, any units: e_ij = exp(−‖xᵢ−xⱼ‖²/2⟨‖Δx‖²⟩), the mean over the pairs of
            the image.
        target: ``(N,H,W)``, 0 or 1.
        connectivity: 4, or 8 with corner pairs weighted 1/√2.
        C: > 0, the price of slack.
        w0: the weights under which an empty set is first searched. The optimum does not depend on
            them.
        contrast: False holds w₃ at 0.

    Raises:
        ValueError: NaN (with its place), a target that is not 0 or 1, shapes that disagree, an
            unknown neighbourhood, C ≤ 0, w₂ or w₃ of `w0` < 0.
    """

    def __init__(
        self,
        image: Tensor,
        target: Tensor,
        *,
        connectivity: int = 4,
        C: float = 1.0,
        w0: Weights = (1.0, 0.1, 0.1),
        contrast: bool = True,
    ) -> None:
        checks.choice(connectivity, "connectivity", (4, 8))
        sizes = checks.shape(image, "image", "N C H W")
        checks.shape(target, "target", "N H W", N=sizes["N"], H=sizes["H"], W=sizes["W"])
        if 0 in image.shape:
            raise ValueError(f"image must hold at least one pixel, got {tuple(image.shape)}")
        checks.finite(image, "image")
        truth = _labels(target, "target")
        self.C, self.connectivity = float(checks.positive(C, "C")), connectivity
        self.w0 = _weights(w0, "w0")
        self.size = (sizes["H"], sizes["W"])
        grid = GridCut(self.size, connectivity)
        self.images = [
            ImageConstraints(pair_weights(x, connectivity, contrast), y, grid)
            for x, y in zip(image, truth, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.images)

    # --- the sets ---------------------------------------------------------------------------

    def subset(self, indices: Iterable[int], *, share: bool = True) -> MaxMarginCRF:
        """The programme of some of the images, in that order; nothing is computed again.

        What it finds goes into the sets of this object too, which is Algorithm 2's merging of the
        batches; with ``share=False`` its sets are its own and start empty.
        """
        last = len(self) - 1
        chosen = [
            self.images[checks.between(operator.index(i), "indices", 0, last)] for i in indices
        ]
        if not chosen or len({id(x) for x in chosen}) < len(chosen):
            raise ValueError("indices must name at least one image, and each once")
        other = object.__new__(MaxMarginCRF)
        other.__dict__.update(self.__dict__)
        other.images = chosen if share else [x.empty_copy() for x in chosen]
        return other

    def reset(self) -> None:
        """Empty the sets of all images (and of whoever shares them)."""
        for x in self.images:
            x.clear()

    @property
    def n_constraints(self) -> int:
        return sum(map(len, self.images))

    def labellings(self, index: int) -> Tensor:
        """The set of one image, ``(K_n,H,W)`` int64 on the CPU, in the order found."""
        return torch.from_numpy(self.images[index].labellings().astype(np.int64))

    def add(self, index: int, labels: Tensor) -> int:
        """Put labellings ``(K,H,W)`` into the set of one image; how many were new.

        The truth and duplicates are left out.
        """
        checks.shape(labels, "labels", "K H W", H=self.size[0], W=self.size[1])
        return sum(self.images[index].add(y) is not None for y in _labels(labels, "labels"))

    # --- the energy -------------------------------------------------------------------------

    def infer(self, logits: Tensor, w: Weights) -> Tensor:
        """argmin E(y), exact: ``(N,H,W)`` int64 on the device of `logits`. Ties: background."""
        return self.most_violated(logits, w, augment=False)

    def most_violated(
        self, logits: Tensor, w: Weights, *, augment: bool = True, margin: float = 1.0
    ) -> Tensor:
        """argmin E(y) − margin·Δ(y, truth), what w separates worst: ``(N,H,W)`` int64.

        One exact cut per image. With w = 0 it is the complement of the truth. ``augment=False``
        leaves Δ out.
        """
        a, weights = self._logits(logits), _weights(w, "w")
        cuts = [
            x.cut(a_n, weights, margin if augment else 0.0)[0]
            for x, a_n in zip(self.images, a, strict=True)
        ]
        return torch.from_numpy(np.stack(cuts).astype(np.int64)).to(logits.device)

    def energy(self, labels: Tensor, logits: Tensor, w: Weights) -> Tensor:
        """E of labels ``(N,H,W)``: ``(N,)`` float64, on the CPU wherever the logits lie."""
        a, weights = self._logits(logits), _weights(w, "w")
        checks.shape(labels, "labels", "N H W", N=len(self), H=self.size[0], W=self.size[1])
        parts = zip(self.images, _labels(labels, "labels"), a, strict=True)
        return torch.tensor([x.energy(y, a_n, weights) for x, y, a_n in parts], dtype=torch.float64)

    def rows(self, labels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """r = (ΣU, C₂, C₃) ``(N,3)`` and Δ ``(N,)`` of one labelling per image ``(N,H,W)``.

        r·w = E(truth) − E(y), so r·w + Δ is what the labelling asks of ξ. Both lie on the CPU.
        """
        a = self._logits(logits)
        checks.shape(labels, "labels", "N H W", N=len(self), H=self.size[0], W=self.size[1])
        parts = zip(self.images, _labels(labels, "labels"), a, strict=True)
        rows, deltas = zip(*(x.row(y, a_n) for x, y, a_n in parts), strict=True)
        return torch.from_numpy(np.stack(rows)), torch.tensor(deltas, dtype=torch.float64)

    # --- learning ---------------------------------------------------------------------------

    def solve(self, logits: Tensor, *, margin: float = 1.0) -> Fit:
        """The optimum over the labellings found so far; no cut, nothing is added.

        With sets found for other logits this γ is a lower bound: see `fit`. Empty sets give w = 0.
        """
        programme = self._programme(logits, margin)
        programme.solve()
        return programme.fit()

    def fit(
        self,
        logits: Tensor,
        *,
        eps: float = 1.0,
        max_rounds: int = 50,
        augment: bool = True,
        margin: float = 1.0,
        solve_after: Literal["round", "image"] = "round",
    ) -> Fit:
        """Algorithm 1: cut for the most violating labellings, add them, solve, until none is left.

        It starts from the labellings that the sets hold. At the end γ is at most C·eps below the
        optimum over all 2ᴾ labellings, and never above. γ does not fall from round to round.

        Args:
            logits: ``(N,1,H,W)``, any device; detached.
            eps: > 0, pixels: stop when no labelling of any image breaks its row by more.
            max_rounds: most rounds that add labellings. Running into it warns.
            augment: False searches with the plain cut, without Δ (ablation; then
                `largest_violation` is of these cuts).
            margin: factor of Δ; 0 asks for no margin, and w = 0 is optimal (ablation).
            solve_after: "round", or as the pseudo-code has it every "image": the same optimum by
                fewer cuts, as each knows what the images before it taught, and more programmes.

        Raises:
            ValueError: NaN or infinity in `logits`, a shape that does not fit, eps ≤ 0.
            ImportError: without clarabel (``pip install medseg-core[qp]``).
        """
        checks.choice(solve_after, "solve_after", ("round", "image"))
        checks.positive(eps, "eps")
        max_rounds = checks.between(operator.index(max_rounds), "max_rounds", 1, None)
        fit = algorithm_1(
            self._programme(logits, margin),
            self.w0,
            eps=eps,
            max_rounds=max_rounds,
            augment=augment,
            each_image=solve_after == "image",
        )
        if not fit.converged:
            warnings.warn(
                f"MaxMarginCRF.fit: after max_rounds={max_rounds} a labelling breaks its row by "
                f"{fit.largest_violation:g} pixels, more than eps={eps:g}",
                RuntimeWarning,
                stacklevel=2,
            )
        return fit

    def gamma_and_grad(self, logits: Tensor, **options) -> tuple[float, Tensor, Fit]:
        """γ, ∂γ/∂a ``(N,1,H,W)`` like the logits, and the `Fit`; options of `fit`."""
        fit = self.fit(logits, **options)
        return fit.gamma, envelope_gradient(fit, logits), fit

    def _programme(self, logits: Tensor, margin: float) -> Programme:
        checks.between(checks.finite(margin, "margin"), "margin", 0, None)
        return Programme(self.images, self._logits(logits), self.C, float(margin))

    def _logits(self, logits: Tensor) -> np.ndarray:
        """``(N,1,H,W)`` to ``(N,H,W)`` float64 on the CPU."""
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            raise TypeError(
                "logits must be a floating-point tensor, got "
                f"{getattr(logits, 'dtype', type(logits).__name__)}"
            )
        checks.shape(logits, "logits", "N 1 H W", N=len(self), H=self.size[0], W=self.size[1])
        checks.finite(logits, "logits")
        return logits.detach()[:, 0].double().cpu().numpy()


def _labels(labels: Tensor, name: str) -> np.ndarray:
    """0/1 of any integer or bool dtype as a bool array."""
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        raise TypeError(
            f"{name} must be a tensor of 0 and 1, got "
            f"{getattr(labels, 'dtype', type(labels).__name__)}"
        )
    checks.between(labels, name, 0, 1)
    return labels.detach().cpu().numpy().astype(bool)


def _weights(w: Weights, name: str) -> np.ndarray:
    """(w₁, w₂, w₃) as float64; a negative zero of the solver's noise in w₂, w₃ is 0."""
    w = w.detach().cpu().numpy() if isinstance(w, Tensor) else np.asarray(w)
    w = np.array(checks.finite(w, name), np.float64)
    checks.shape(w, name, "3")
    checks.between(w[1:], f"{name}[1:] (w2, w3)", -1e-6, None)
    w[1:] = w[1:].clip(min=0)
    return w
