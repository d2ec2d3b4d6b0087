"""Sampling that comes back to the images a network finds hard."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from medseg_core import checks


class LossHistorySampler:
    """Draw an image more often if its last loss was larger than the median of recent losses.

    An image starts with weight 1. Whenever it was used, its weight becomes ``boost`` if its loss
    exceeds the median of all losses of the last ``window`` updates (its own included), else 1.

    Args:
        n: images.
        window: updates that the median looks back.
        boost: weight of a hard image; 1 is uniform sampling.

    Raises:
        ValueError: an argument below 1; in `draw` and `update`, what does not fit.

    Source: Liefers et al. 2019, section 3.4.2, where the factor is not stated.

    Taught in: selected-dimensions-oct.

    >>> sampler = LossHistorySampler(3)
    >>> sampler.update(torch.tensor([0, 1, 2]), torch.tensor([0.1, 0.2, 0.9]))
    >>> sampler.weights.tolist()
    [1.0, 1.0, 2.0]
    """

    def __init__(self, n: int, window: int = 100, boost: float = 2.0) -> None:
        for value, name in ((n, "n"), (window, "window"), (boost, "boost")):
            checks.between(checks.finite(value, name), name, 1, None)
        self.boost = float(boost)
        self.weights = torch.ones(n)
        self._recent: deque[Tensor] = deque(maxlen=window)

    def draw(self, size: int, gen: torch.Generator) -> Tensor:
        """Rows (size,) of one batch, without repetition unless there are fewer images."""
        checks.between(size, "size", 1, None)
        replace = size > len(self.weights)
        return torch.multinomial(self.weights, size, replacement=replace, generator=gen)

    def update(self, index: Tensor, losses: Tensor) -> None:
        """Remember the losses (size,) of the images ``index`` (size,) after one update."""
        index, losses = index.detach().cpu(), losses.detach().cpu().float()
        checks.shape(index, "index", "size")
        checks.same_shape(index, losses, ("index", "losses"))
        checks.finite(losses, "losses")
        checks.between(index, "index", 0, len(self.weights) - 1)
        self._recent.append(losses)
        median = torch.cat([*self._recent]).median()
        self.weights[index] = torch.where(losses > median, self.boost, 1.0)
