"""What the generators share: samples one after the other, each from streams of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from medseg_core import checks, rng
from medseg_core.stacking import stack


def series(
    name: str,
    draw: Callable[..., dict],
    render: Callable[..., dict],
    n: int,
    seed: int,
    start: int,
    **options: Any,
) -> dict:
    """Samples start … start + n − 1, stacked: ``draw(seed, index, **options)``, then ``render``.

    The noise of a sample has the stream ``"<name>.noise"``, apart from what ``draw`` takes, so that
    an option may change the one and not the other.

    Raises:
        ValueError: n < 1 or start < 0.
    """
    checks.between(n, "n", 1, math.inf)
    checks.between(start, "start", 0, math.inf)
    return stack(
        [
            render(draw(seed, index, **options), gen=rng.generator(seed, index, f"{name}.noise"))
            for index in range(start, start + n)
        ]
    )
