"""The chapter's arms, each under its name: "U-Net (10)" is trained with ten images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from medseg_core.papers.edpcnn.experiment import (
    Arm,
    Bench,
    ContourLoss,
    Settings,
    contour_arm,
    unet_arm,
)
from medseg_core.papers.edpcnn.marginal_loss import marginal_loss
from medseg_core.papers.edpcnn.pixel_loss import pixel_loss


def _mask(logits: Tensor) -> Tensor:
    return (logits > 0).float()


def _logits(logits: Tensor) -> Tensor:
    return logits


# What the solver behind a U-Net that knows nothing of it may be fed with.
FEEDS = {"mask": _mask, "probability": torch.sigmoid, "logits": _logits}
WATCHED = (0.0, 0.02, 0.06, 0.12, 0.24, 0.48, 0.72, 0.96)  # shares of a training


def moments(s: Settings) -> list[int]:
    """Updates at which the training is looked into."""
    return sorted({round(s.steps * q) for q in WATCHED} & set(range(s.steps)))


class Arms(NamedTuple):
    """``loss`` is that of one update of EDPCNN, ``solver`` what F imitates (`contour_arm`)."""

    bench: Bench
    loss: ContourLoss
    solver: Callable[[Tensor], Tensor]

    def unet(self, n: int, loss_name: str, lr: float, times: int = 1) -> Arm:
        """The U-Net alone, with ``times`` as many updates as the others."""
        s = replace(self.bench.s, steps=times * self.bench.s.steps)
        return unet_arm(n, lr, pixel_loss(loss_name), FEEDS, self.bench._replace(s=s))

    def edpcnn(
        self,
        n: int,
        lr: float,
        *,
        watch: Collection[int] = (),
        circular: bool = True,
        move: bool = True,
        **changes: float,
    ) -> Arm:
        """The U-Net trained through the solver; ``changes`` are settings."""
        bench = self.bench._replace(s=replace(self.bench.s, **changes))
        options = {"circular": circular, "move": move, "watch": watch}
        return contour_arm(n, lr, self.loss, self.solver, bench, **options)

    def compared(
        self,
        sizes: Sequence[int],
        chosen: tuple[str, float],
        chosen_dp: tuple[str, float],
        rate: float,
        extended: bool = False,
    ) -> dict[str, Arm]:
        """All arms that share one budget.

        Args:
            sizes: numbers of training images; the ablations take the smallest.
            chosen, chosen_dp: loss and rate of the U-Net alone, and of the one before the solver,
                which is an arm of its own where the two differ.
            rate: of EDPCNN.
            extended: also ten inner steps, an F that is not closed, stars that are not moved.

        Taught in: edpcnn.
        """
        s, few, watch = self.bench.s, min(sizes), moments(self.bench.s)
        arms = {}
        for n in sizes:
            arms[f"U-Net ({n})"] = self.unet(n, *chosen)
            if chosen_dp != chosen:
                arms[f"U-Net for the DP ({n})"] = self.unet(n, *chosen_dp)
            arms[f"EDPCNN ({n})"] = self.edpcnn(n, rate, watch=watch if n == few else ())
        arms[f"EDPCNN, σ = 0 ({few})"] = self.edpcnn(few, rate, sigma=0.0, watch=watch)
        soft = marginal_loss(s.delta, s.gamma)
        arms[f"smoothed DP ({few})"] = contour_arm(few, rate, soft, None, self.bench)
        if extended:
            arms[f"EDPCNN, S = 10 ({few})"] = self.edpcnn(few, rate, n_steps=10)
            arms[f"EDPCNN, F not closed ({few})"] = self.edpcnn(few, rate, circular=False)
            arms[f"EDPCNN, stars not moved ({few})"] = self.edpcnn(few, rate, move=False)
        return arms
