"""What max-margin learning keeps of one image: its pairs, a grid to cut, and the labellings found.

    E(y) = −w₁ Σᵢ log Φᵢ(yᵢ) + Σ_{(i,j)} [yᵢ ≠ yⱼ] (w₂ + w₃ e_ij)

Larsson, Alvén and Kahl 2017, equations 2 to 4 with the sign of their equation 19. Terms that do not
depend on the network are computed once per labelling.

Taught in: max-margin-crf.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medseg_core.solvers.graphcut import contrast_weights, offsets
from medseg_core.solvers.grid_cut import GridCut, pair_slices


def pair_weights(image: Tensor, connectivity: int, contrast: bool = True) -> np.ndarray:
    """What w₂ and w₃ multiply at each pair of neighbours.

        1/d_ij  and  e_ij/d_ij,   e_ij = exp(−‖xᵢ − xⱼ‖² / 2⟨‖Δx‖²⟩),

    ⟨‖Δx‖²⟩ the image's mean over its pairs, so that the units of the image do not matter (the paper
    takes xᵢ as it is), and d_ij the distance in pixels: 1, or √2 across a corner. An image without
    contrast has e = 1.

    Args:
        image: ``(C,H,W)``.
        connectivity: 4 or 8.
        contrast: with False e is 0, so that w₃ stays 0.

    Returns:
        ``(2,O,H,W)`` float64, O the directions of the neighbourhood.

    Taught in: max-margin-crf.
    """
    x = image.detach().cpu().double()[None]  # (1,C,H,W)
    near = contrast_weights(x, connectivity, lam=0.0, sigma=1.0, constant=1.0)
    if not contrast:
        return torch.cat([near, torch.zeros_like(near)]).numpy()
    changes = []
    for step in offsets(connectivity).tolist():
        here, there = ((..., *part) for part in pair_slices(step))
        changes.append((x[here] - x[there]).square().sum(1).flatten())
    changes = torch.cat(changes)
    mean_square = float(changes.mean()) if len(changes) else 0.0
    sigma = max(mean_square, np.finfo(float).tiny) ** 0.5
    edge = contrast_weights(x, connectivity, lam=1.0, sigma=sigma)
    return torch.cat([near, edge]).numpy()


def unpack(packed: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labellings as bits ``(K, ⌈H·W/8⌉)`` to ``(K,H,W)`` bool."""
    bits = np.unpackbits(packed, axis=1, count=size[0] * size[1])
    return bits.reshape(len(packed), *size).astype(bool)


class ImageConstraints:
    """One image's side of the problem: its truth and S, the labellings that w has to beat.

    S holds labellings as bits, each once, in the order in which they were found; with each its
    Hamming distance to the truth and C₂, C₃ of supplement, equation 19.

    Args:
        pairs: ``(2,O,H,W)`` of `pair_weights`.
        target: ``(H,W)`` bool, the truth.
        grid: images of one size may share it, since each cut brings its own weights.

    Taught in: max-margin-crf.
    """

    def __init__(self, pairs: np.ndarray, target: np.ndarray, grid: GridCut) -> None:
        self.pairs, self.target, self.grid = pairs, target, grid
        self._slices = [pair_slices(step) for step in offsets(grid.connectivity).tolist()]
        self._truth = self.crossings(target)
        self._place: dict[bytes, int] = {}  # packed labelling -> index in S
        self._fixed: list[np.ndarray] = []  # (C₂, C₃, Δ)

    def clear(self) -> None:
        """Empty S."""
        self._place.clear()
        self._fixed.clear()

    def __len__(self) -> int:
        return len(self._place)

    def crossings(self, labels: np.ndarray) -> np.ndarray:
        """``(2,)`` what the boundary of `labels` ``(H,W)`` bool costs per unit of w₂ and of w₃."""
        total = np.zeros(2)
        for o, (here, there) in enumerate(self._slices):
            total += self.pairs[:, o][(slice(None), *here)][:, labels[here] != labels[there]].sum(1)
        return total

    def cut(self, logits: np.ndarray, w: np.ndarray, margin: float) -> np.ndarray:
        """Minimiser ``(H,W)`` bool of E(y) − margin·Δ(y), for logits ``(H,W)``.

        Δ, the number of wrong pixels, is a sum over pixels, so the cut stays exact.
        """
        background = np.logaddexp(0, logits)  # −log Φ of label 0
        unary = w[0] * np.stack([background, background - logits])
        unary = unary - margin * np.stack([self.target, ~self.target])
        labels, _ = self.grid.cut(unary, np.tensordot(w[1:], self.pairs, 1))
        return labels.numpy().astype(bool)

    def row(self, labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, float]:
        """r = (ΣU, C₂, C₃) and Δ of one labelling; ΣU = (y − truth)·a is linear in the logits."""
        wrong = labels != self.target
        sum_u = logits[wrong & labels].sum() - logits[wrong & ~labels].sum()
        return np.r_[sum_u, self._truth - self.crossings(labels)], float(wrong.sum())

    def add(self, labels: np.ndarray) -> int | None:
        """Put a labelling ``(H,W)`` bool into S: its index; None for the truth and duplicates."""
        key = np.packbits(labels).tobytes()
        delta = float((labels != self.target).sum())
        if delta == 0 or key in self._place:
            return None
        self._place[key] = len(self._place)
        self._fixed.append(np.r_[self._truth - self.crossings(labels), delta])
        return len(self._place) - 1

    def packed(self) -> np.ndarray:
        """S as bits, ``(K, ⌈H·W/8⌉)`` uint8."""
        flat = np.frombuffer(b"".join(self._place), np.uint8)
        return flat.reshape(len(self), (self.target.size + 7) // 8)

    def rows(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """r ``(K,3)`` and Δ ``(K,)`` of all of S: one matrix product."""
        fixed = np.array(self._fixed).reshape(-1, 3)
        wrong = unpack(self.packed(), self.target.shape).astype(np.float64) - self.target
        sum_u = wrong.reshape(len(self), logits.size) @ logits.ravel()
        return np.column_stack([sum_u, fixed[:, :2]]), fixed[:, 2]
