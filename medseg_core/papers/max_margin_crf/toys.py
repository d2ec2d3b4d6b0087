"""Two images small enough to think about: an ellipse under noise, and twelve pixels.

Taught in: max-margin-crf.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from medseg_core import rng
from medseg_core.physics.noise import gaussian_field


class Toy(NamedTuple):
    """An image (1,1,H,W), logits of a network that nobody trained (1,1,H,W), and the truth."""

    image: Tensor
    logits: Tensor
    target: Tensor  # (1,H,W) int64


def noisy_ellipse(n: int, seed: int) -> Toy:
    """n × n pixels; image and logits are the ellipse under noise of their own.

    Taught in: max-margin-crf.
    """
    row, column = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    inside = ((row - n / 2) / (0.36 * n)) ** 2 + ((column - n / 2) / (0.24 * n)) ** 2 < 1
    gen = rng.generator(seed, stream="toy")
    image = inside + 0.5 * gaussian_field((1, 1, n, n), gen, sigma_px=1.0)
    noise = gaussian_field((1, 1, n, n), gen, sigma_px=0.7)
    return Toy(image, 1.5 * ((2.0 * inside - 1) + 1.6 * noise), inside[None].long())


def twelve_pixels(seed: int) -> Toy:
    """3 × 4 pixels, of which half are inside.

    Taught in: max-margin-crf.
    """
    target = torch.tensor([[[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1]]])
    gen = rng.generator(seed, stream="tiny")
    image = target[:, None] + 0.3 * torch.randn(1, 1, 3, 4, generator=gen)
    noise = torch.randn(1, 1, 3, 4, generator=gen)
    return Toy(image, 1.2 * (2.0 * target[:, None] - 1) + 1.5 * noise, target)


def every_labelling(height: int, width: int) -> Tensor:
    """(2^HW,H,W) int64, all of them: for a dozen pixels or so.

    Taught in: max-margin-crf.
    """
    bits = itertools.product((0, 1), repeat=height * width)
    return torch.tensor(list(bits)).reshape(-1, height, width)
