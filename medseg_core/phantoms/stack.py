"""What every phantom shares: samples drawn one by one, stacked like a data set."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def stack(samples: Sequence[dict]) -> dict:
    """Stack one-sample dicts: tensors are concatenated along N, lists joined, ``hidden`` likewise.

    Values that are the same for every sample (``spacing``) must be tuples and are kept once.
    """
    if not samples:
        raise ValueError("n must be >= 1: an empty phantom has no samples to stack")
    out: dict = {}
    for key, first in samples[0].items():
        values = [sample[key] for sample in samples]
        if isinstance(first, torch.Tensor):
            out[key] = torch.cat(values).contiguous()
        elif isinstance(first, dict):
            out[key] = stack(values)
        elif isinstance(first, list):
            out[key] = [item for value in values for item in value]
        else:
            out[key] = first
    return out
