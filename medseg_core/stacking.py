"""Samples, drawn or read one by one, stacked into one data set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def stack(samples: Sequence[dict]) -> dict:
    """Stack one-sample dicts: tensors along N, lists joined, dicts (``hidden``) likewise.

    Anything else (``spacing``) is kept once and has to be the same for all samples. Phantoms and
    readers share it, so that their data look alike.

    Raises:
        ValueError: no sample, or samples that differ in size or spacing, with the two that do.

    Taught in: all chapters.
    """
    if not samples:
        raise ValueError("samples must hold at least one sample, got none")
    out: dict = {}
    for key, first in samples[0].items():
        values = [sample[key] for sample in samples]
        if isinstance(first, Tensor):
            for at, value in enumerate(values):
                if value.shape[1:] != first.shape[1:]:
                    shapes = f"{tuple(first.shape[1:])} and, at position {at},"
                    raise ValueError(
                        f"{key} differs in size between samples: {shapes} "
                        f"{tuple(value.shape[1:])}; give size= (and spacing=) to load them together"
                    )
            out[key] = torch.cat(values).contiguous()
        elif isinstance(first, dict):
            out[key] = stack(values)
        elif isinstance(first, list):
            out[key] = [item for value in values for item in value]
        else:
            for at, value in enumerate(values):
                if value != first:
                    raise ValueError(
                        f"{key} differs between samples: {first} and, at position {at}, {value}; "
                        f"give {key}= to load them together"
                    )
            out[key] = first
    return out
