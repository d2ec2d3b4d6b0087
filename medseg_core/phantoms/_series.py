"""What the generators share: samples one after the other, each from streams of its own.

A generator is three functions: ``x_params(seed, index, **options)`` draws everything that a sample
needs, ``render_x(params, gen=)`` makes the sample (N = 1), and ``x(n, size, seed, **options)`` is
`series` of the two. The options, their defaults and their checks stand in ``x_params`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        TypeError: n or start that is no integer, an option that ``draw`` has not.
    """
    checks.integer(n, "n", 1)
    checks.integer(start, "start", 0)
    return stack(
        [
            render(draw(seed, index, **options), gen=rng.generator(seed, index, f"{name}.noise"))
            for index in range(start, start + n)
        ]
    )


def sides(
    size: int | Sequence[int], ndim: int, least: int, most: int | None = None
) -> tuple[int, ...]:
    """An image's size, ``ndim`` numbers in [least, most]; one number gives all of them.

    Raises:
        ValueError: another count of numbers, or one out of range.
        TypeError: one that is no integer.
    """
    lengths = tuple(size) if isinstance(size, Sequence) else (size,) * ndim
    if len(lengths) != ndim:
        raise ValueError(f"size must be one number or {ndim} of them, got {size}")
    return tuple(checks.integer(length, "size", least, most) for length in lengths)
