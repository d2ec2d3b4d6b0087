"""Learning the weights of a CRF by the margin between the truth and every other labelling.

    E(y) = −w₁ Σᵢ log Φᵢ(yᵢ) + Σ_{(i,j)} [yᵢ ≠ yⱼ] (w₂ + w₃ e_ij)
    γ = min over w, ξ of  ½‖w‖² + C/N Σₙ ξₙ
        s.t.  E(y) − E(yₙ) ≥ Δ(y, yₙ) − ξₙ  for every labelling y of image n;  ξ, w₂, w₃ ≥ 0

with Φᵢ(1) = σ(aᵢ) of the network's logit aᵢ and Δ the number of wrong pixels (Larsson, Alvén and
Kahl 2017, equations 2, 4 and 8). Of the 2ᴾ rows per image a few matter: Algorithm 1
(`cutting_planes`) finds them by exact cuts. The gradient of γ stands in `gradient`.

Taught in: max-margin-crf.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.papers.max_margin_crf.constraints import ImageConstraints, pair_weights
from medseg_core.papers.max_margin_crf.cutting_planes import Fit, Programme, algorithm_1
from medseg_core.solvers.grid_cut import GridCut

# Under which empty sets are first searched; the optimum does not depend on it.
W0 = np.array([1.0, 0.1, 0.1])

Weights = Tensor | np.ndarray | Sequence[float]


@dataclass(frozen=True, eq=False)
class MaxMarginCRF:
    """The programme above for N images, whose labelling sets persist from call to call.

    Args:
        images: one for each image, see `from_images`.
        C: > 0, the price of slack.

    Taught in: max-margin-crf.
    """

    images: tuple[ImageConstraints, ...]
    C: float

    @classmethod
    def from_images(
        cls,
        image: Tensor,
        target: Tensor,
        *,
        connectivity: int = 4,
        C: float = 1.0,
        contrast: bool = True,
    ) -> MaxMarginCRF:
        """The programme of these images, with empty sets.

        Args:
            image: ``(N,C,H,W)``, any units: e_ij = exp(−‖xᵢ−xⱼ‖²/2⟨‖Δx‖²⟩), the mean over the pairs
                of the image.
            target: ``(N,H,W)``, 0 or 1.
            connectivity: 4, or 8 with corner pairs weighted 1/√2.
            C: > 0, the price of slack.
            contrast: False holds w₃ at 0.

        Raises:
            ValueError: NaN (with its place), a target that is not 0 or 1, shapes that disagree, an
                unknown neighbourhood, C ≤ 0.
        """
        checks.choice(connectivity, "connectivity", (4, 8))
        checks.positive(C, "C")
        sizes = checks.shape(image, "image", "N C H W")
        checks.shape(target, "target", "N H W", N=sizes["N"], H=sizes["H"], W=sizes["W"])
        if 0 in image.shape:
            raise ValueError(f"image must hold at least one pixel, got {tuple(image.shape)}")
        checks.finite(image, "image")
        grid = GridCut((sizes["H"], sizes["W"]), connectivity)
        images = tuple(
            ImageConstraints(pair_weights(x, connectivity, contrast), y, grid)
            for x, y in zip(image, _labels(target, "target"), strict=True)
        )
        return cls(images, float(C))

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Iterable[int]) -> MaxMarginCRF:
        """The programme of some of the images, in that order; nothing is computed again.

        What it finds goes into the sets of this object too, which is Algorithm 2's merging of the
        batches.

        Raises:
            ValueError: no index, one twice, or one of no image.
        """
        chosen = [checks.integer(i, "indices", 0, len(self) - 1) for i in indices]
        if not chosen or len(set(chosen)) < len(chosen):
            raise ValueError("indices must name at least one image, and each once")
        return replace(self, images=tuple(self.images[i] for i in chosen))

    def reset(self) -> None:
        """Empty the sets of all images (and of whoever shares them)."""
        for x in self.images:
            x.clear()

    def infer(self, logits: Tensor, w: Weights) -> Tensor:
        """argmin E(y), exact: ``(N,H,W)`` int64 on the device of `logits`. Ties: background."""
        return self._cuts(logits, w, margin=0.0)

    def most_violated(self, logits: Tensor, w: Weights) -> Tensor:
        """argmin E(y) − Δ(y, truth), what w separates worst: ``(N,H,W)`` int64.

        One exact cut per image. With w = 0 it is the complement of the truth.
        """
        return self._cuts(logits, w, margin=1.0)

    def rows(self, labels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """r = (ΣU, C₂, C₃) ``(N,3)`` and Δ ``(N,)`` of one labelling per image ``(N,H,W)``.

        r·w = E(truth) − E(y), so r·w + Δ is what the labelling asks of ξ. Both lie on the CPU.
        """
        a, (h, w) = self._logits(logits), self._size
        checks.shape(labels, "labels", "N H W", N=len(self), H=h, W=w)
        parts = zip(self.images, _labels(labels, "labels"), a, strict=True)
        rows, deltas = zip(*(x.row(y, a_n) for x, y, a_n in parts), strict=True)
        return torch.from_numpy(np.stack(rows)), torch.tensor(deltas, dtype=torch.float64)

    def solve(self, logits: Tensor) -> Fit:
        """The optimum over the labellings found so far; no cut, nothing is added.

        With sets found for other logits this γ is a lower bound: see `fit`. Empty sets give w = 0.
        """
        programme = Programme(self.images, self._logits(logits), self.C, 1.0)
        return programme.fit(programme.solve())

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
        checks.between(checks.finite(margin, "margin"), "margin", 0, None)
        fit = algorithm_1(
            Programme(self.images, self._logits(logits), self.C, float(margin)),
            W0,
            eps=checks.positive(eps, "eps"),
            max_rounds=checks.integer(max_rounds, "max_rounds", 1),
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

    @property
    def _size(self) -> tuple[int, int]:
        return self.images[0].target.shape

    def _cuts(self, logits: Tensor, w: Weights, margin: float) -> Tensor:
        a, weights = self._logits(logits), _weights(w, "w")
        cuts = [x.cut(a_n, weights, margin) for x, a_n in zip(self.images, a, strict=True)]
        return torch.from_numpy(np.stack(cuts).astype(np.int64)).to(logits.device)

    def _logits(self, logits: Tensor) -> np.ndarray:
        """``(N,1,H,W)`` to ``(N,H,W)`` float64 on the CPU."""
        checks.floating(logits, "logits")
        h, w = self._size
        checks.shape(logits, "logits", "N 1 H W", N=len(self), H=h, W=w)
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
