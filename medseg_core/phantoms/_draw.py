"""Random draws of a phantom's parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medseg_core.physics.noise import gaussian_field


class Draw:
    """Short names for draws from one generator."""

    def __init__(self, gen: torch.Generator) -> None:
        self.gen = gen

    def uniform(self, lo: float, hi: float) -> float:
        return lo + (hi - lo) * float(torch.rand((), generator=self.gen))

    def normal(self) -> float:
        return float(torch.randn((), generator=self.gen))

    def integer(self, lo: int, hi: int) -> int:
        """Uniform in lo … hi, both included."""
        return int(torch.randint(lo, hi + 1, (), generator=self.gen))

    def process(self, slices: int, width: int, length: float) -> Tensor:
        """Gaussian process ``(slices, W)``, variance 1, covariance exp(−d²/2ℓ²), ℓ = length·W."""
        stretch = (slices / width, 1.0)
        sigma = length * width / math.sqrt(2)
        return gaussian_field((slices, width), self.gen, sigma_px=sigma, anisotropy=stretch)
