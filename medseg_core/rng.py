"""Random numbers that depend on (seed, stream, index) and on nothing else.

Sample `index` is drawn from a generator of its own, so it changes neither with the number of
samples nor with the batch size; and one `stream` per purpose ("anatomy", "noise", "weights",
"order") lets a chapter change one of them and keep the others.
"""

from __future__ import annotations

import operator
import random
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def numpy_rng(seed: int, index: int = 0, stream: str = "") -> np.random.Generator:
    """NumPy generator of sample `index` in `stream`.

    Raises:
        ValueError: if `seed` or `index` is negative.
        TypeError: if one of them is no integer, or `stream` no string.
    """
    return np.random.default_rng(_sequence(seed, index, stream))


def generator(seed: int, index: int = 0, stream: str = "") -> torch.Generator:
    """torch generator of sample `index` in `stream`, on the CPU.

    A CUDA generator of the same seed would give other numbers: draw here, then move what was drawn.

    Raises:
        ValueError: if `seed` or `index` is negative.
        TypeError: if one of them is no integer, or `stream` no string.
    """
    import torch

    state = _sequence(seed, index, stream).generate_state(1, np.uint64)
    # 63 bits: a sign bit is read differently by different back-ends.
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and torch, and make cuDNN deterministic, for code that takes no generator.

    Raises:
        ValueError: if `seed` is negative.
        TypeError: if it is no integer.
    """
    import torch

    # What monai.utils.set_determinism does, here because a leaf of the package imports no monai.
    seed = _natural(seed, "seed") % 2**32
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def _sequence(seed: int, index: int, stream: str) -> np.random.SeedSequence:
    if not isinstance(stream, str):
        raise TypeError(f"stream must be a string, got {stream!r}")
    key = zlib.crc32(stream.encode())
    return np.random.SeedSequence([_natural(seed, "seed"), key, _natural(index, "index")])


def _natural(value: int, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < 0:
        raise ValueError(f"{name} must be 0 or more, got {number}")
    return number
