"""Checks of arguments: each raises with the argument's name, what it got and what it takes.

They take NumPy arrays, torch tensors (on any device), numbers and lists, and import no torch.
"""

from __future__ import annotations

import difflib
import operator
import sys
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def finite(x: T, name: str) -> T:
    """Refuse NaN and infinity in `x`, with the first place; returns `x`.

    Raises:
        ValueError: if a value is NaN or infinite.
        TypeError: if `x` is not numeric.
    """
    array = _array(x, name)
    ok = sys.modules["torch"].isfinite(array) if _is_tensor(array) else np.isfinite(array)
    if not bool(ok.all()):
        place, value, count = _first(array, ~ok)
        more = f" and at {count - 1} more places" if count > 1 else ""
        raise ValueError(f"{name} must be finite, got {value}{place}{more}")
    return x


def shape(x: Any, name: str, spec: str, **known: int | tuple[int, ...]) -> dict[str, Any]:
    """Compare the shape of `x` with a specification such as `"N 1 H W"`; returns the named sizes.

    A number is an exact size, a name any size (the same at each place, and `known[name]` where
    that is given), `*S` any number of axes, at most one per specification.

    >>> shape(np.zeros((4, 1, 64, 48)), "image", "N 1 *S", N=4)
    {'N': 4, 'S': (64, 48)}

    Raises:
        ValueError: if the shape does not fit.
        TypeError: if `x` has no shape.
    """
    if not hasattr(x, "shape"):
        raise TypeError(f"{name} must be an array or a tensor of shape ({spec}), got {_kind(x)}")
    got, tokens = tuple(x.shape), spec.split()
    star = next((i for i, token in enumerate(tokens) if token.startswith("*")), None)

    def refuse(why: str) -> ValueError:
        given = "".join(f", {key} = {value}" for key, value in known.items())
        return ValueError(f"{name} must have the shape ({spec}){given}; got {got}: {why}")

    if star is None and len(got) != len(tokens):
        raise refuse(f"{len(got)} axes, not {len(tokens)}")
    if len(got) < len(tokens) - (star is not None):
        raise refuse(f"{len(got)} axes, not at least {len(tokens) - 1}")
    sizes: dict[str, Any] = {}
    for i, token in enumerate(tokens):
        if i == star:
            token, size = token[1:], got[star : len(got) - (len(tokens) - 1 - star)]
        else:
            size = got[i if star is None or i < star else i - len(tokens)]
        want = int(token) if token.isdecimal() else sizes.get(token, known.get(token))
        if isinstance(size, tuple) and want is not None:
            want = tuple(want)
        if want is not None and size != want:
            label = "" if token.isdecimal() else f"{token} = "
            raise refuse(f"{label}{size}, not {want}")
        if not token.isdecimal():
            sizes[token] = size
    return sizes


def choice(v: T, name: str, choices: Collection[T]) -> T:
    """Refuse a value that is not among `choices`, naming them and a near match; returns `v`.

    Raises:
        ValueError: if `v` is none of them.
    """
    if v not in list(choices):
        listed = ", ".join(map(repr, choices)) or "nothing"
        raise ValueError(f"{name} must be one of {listed}; got {v!r}{near(v, choices)}")
    return v


def near(v: Any, choices: Collection[Any]) -> str:
    """`" (did you mean 'lesson'?)"` where a choice looks like `v`, otherwise the empty string."""
    match = difflib.get_close_matches(str(v), [str(c) for c in choices], n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def between(v: T, name: str, lo: float | None, hi: float | None) -> T:
    """Refuse numbers outside [`lo`, `hi`] (`None` = no limit) and NaN; returns `v`.

    `v` is a number or an array, each of whose values must lie there.

    Raises:
        ValueError: if a value lies outside or is NaN.
        TypeError: if `v` is not numeric.
    """
    array = _array(v, name)
    lo, hi = -np.inf if lo is None else lo, np.inf if hi is None else hi
    ok = (array >= lo) & (array <= hi)  # NaN compares false
    if not bool(ok.all()):
        place, value, _ = _first(array, ~ok)
        limits = (
            f"in [{lo:g}, {hi:g}]"
            if np.isfinite([lo, hi]).all()
            else f"at least {lo:g}"
            if np.isfinite(lo)
            else f"at most {hi:g}"
            if np.isfinite(hi)
            else "a number"
        )
        raise ValueError(f"{name} must be {limits}, got {value}{place}")
    return v


def integer(v: Any, name: str, lo: int | None = None, hi: int | None = None) -> int:
    """`v` as an int, in [`lo`, `hi`] (`None` = no limit); a bool is none.

    Raises:
        TypeError: if `v` is no integer.
        ValueError: if it lies outside.
    """
    try:
        number = None if isinstance(v, bool) else operator.index(v)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} must be an integer, got {v!r}")
    return between(number, name, lo, hi)


def floating(x: T, name: str) -> T:
    """Refuse what is no tensor of real numbers; returns `x`.

    Raises:
        TypeError: another dtype, or no tensor.
    """
    if not _is_tensor(x) or not x.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {_dtype(x)}")
    return x


def mask(x: T, name: str) -> T:
    """Refuse what is no bool tensor; returns `x`.

    Raises:
        TypeError: another dtype, or no tensor.
    """
    if not _is_tensor(x) or _dtype(x) != "torch.bool":
        raise TypeError(f"{name} must be a bool tensor, got {_dtype(x)}")
    return x


def positive(v: float, name: str) -> float:
    """Refuse a number that is not above 0 and finite; returns `v`.

    Raises:
        ValueError: zero, a negative number, infinity or NaN.
    """
    if not 0 < v < np.inf:
        raise ValueError(f"{name} must be positive and finite, got {v}")
    return v


def spacing(v: Sequence[float] | None, ndim: int) -> tuple[float, ...]:
    """Lengths of a pixel, one positive number for each of `ndim` axes; None gives ones.

    Raises:
        ValueError: another number of them, or one that is not above 0 and finite.
    """
    lengths = (1.0,) * ndim if v is None else tuple(float(s) for s in v)
    if len(lengths) != ndim or not all(0 < s < np.inf for s in lengths):
        raise ValueError(f"spacing must be {ndim} positive numbers, got {v}")
    return lengths


def same_shape(a: Any, b: Any, names: Sequence[str]) -> None:
    """Refuse two arrays of different shapes; `names` are their two names.

    Raises:
        ValueError: if the shapes differ.
    """
    if tuple(a.shape) != tuple(b.shape):
        first, second = names
        raise ValueError(
            f"{first} and {second} must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}"
        )


def _is_tensor(x: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _dtype(x: Any) -> str:
    return str(getattr(x, "dtype", type(x).__name__))


def _array(x: Any, name: str) -> Any:
    if _is_tensor(x):
        return x
    array = np.asarray(x)
    if array.dtype.kind not in "biufc" or isinstance(x, bool):
        raise TypeError(f"{name} must be numeric, got {_kind(x)}")
    return array


def _kind(x: Any) -> str:
    text = repr(x)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({type(x).__name__})"


def _first(array: Any, bad: Any) -> tuple[str, Any, int]:
    """Where the first bad value stands (as text), that value, and how many there are."""
    if array.ndim == 0:
        return "", array.item(), 1
    where = bad.nonzero() if _is_tensor(bad) else np.argwhere(bad)  # (count, ndim)
    index = tuple(int(i) for i in where[0])
    return f" at index {list(index)}", array[index].item(), len(where)
