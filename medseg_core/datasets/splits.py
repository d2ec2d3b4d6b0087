"""Splits in which no patient stands on two sides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.model_selection import train_test_split


def group_split(
    group: Sequence[int],
    fractions: Sequence[float],
    seed: int,
    stratify: Sequence | None = None,
) -> list[np.ndarray]:
    """Split samples at random so that all samples of one group (patient) stay together.

    Args:
        group: (N,) the group of each sample: integers or strings.
        fractions: share of the GROUPS in each part, summing to 1, e.g. ``(0.6, 0.2, 0.2)``. The
            numbers of groups are rounded by largest remainder.
        seed: ≥ 0.
        stratify: (N,) a class per sample, the same within a group; its classes are spread over the
            parts in proportion.

    Returns:
        One sorted array of sample indices per part; together they are 0 … N − 1.

    Raises:
        ValueError: a part would be empty, fractions do not sum to 1, or a group has two classes.

    Taught in: edpcnn, max-margin-crf.
    """
    group = np.asarray(group)
    if group.ndim != 1 or group.size == 0:
        raise ValueError(f"group must be a non-empty (N,) sequence, got shape {group.shape}")
    names, member = np.unique(group, return_inverse=True)
    counts = _counts(len(names), fractions)
    classes = None if stratify is None else _class_of_group(member, names, stratify)

    parts, rest = [], np.arange(len(names))
    for at, count in enumerate(counts[:-1]):
        try:
            taken, rest = train_test_split(
                rest,
                train_size=count,
                random_state=seed + at,
                stratify=None if classes is None else classes[rest],
            )
        except ValueError as error:
            if classes is None:
                raise
            raise ValueError(
                f"stratify has a class with too few groups for {len(counts)} parts: {error}"
            ) from error
        parts.append(taken)
    parts.append(rest)
    return [np.flatnonzero(np.isin(member, part)) for part in parts]


def consecutive_split(
    group: Sequence[str], kind: Sequence[str], parts: Sequence[Mapping[str, int]]
) -> list[list[int]]:
    """Give the first groups of each kind to the first part, the next to the second, and so on.

    Args:
        group: (N,) of each sample, e.g. its patient; the order of their first samples counts.
        kind: (N,) of each sample's group.
        parts: number of groups of each kind in each part; groups beyond them are left out.

    Returns:
        Sample indices of each part.

    Raises:
        ValueError: there are fewer groups of a kind than the parts want.

    Taught in: selected-dimensions-oct.
    """
    part_of: dict[str, int] = {}
    for name in parts[0]:
        groups = list(dict.fromkeys(g for g, k in zip(group, kind, strict=True) if k == name))
        wanted = [at for at, counts in enumerate(parts) for _ in range(counts[name])]
        if len(groups) < len(wanted):
            raise ValueError(
                f"the split needs {len(wanted)} {name} volumes, there are {len(groups)}"
            )
        part_of |= dict(zip(groups, wanted, strict=False))
    return [[i for i, g in enumerate(group) if part_of.get(g) == at] for at in range(len(parts))]


def _counts(n_groups: int, fractions: Sequence[float]) -> list[int]:
    """Groups per part, by largest remainder."""
    shares = np.asarray(fractions, dtype=float)
    if shares.ndim != 1 or len(shares) < 2 or not np.isfinite(shares).all() or (shares <= 0).any():
        raise ValueError(f"fractions must be two or more numbers > 0, got {fractions}")
    if not math.isclose(shares.sum(), 1.0, abs_tol=1e-6):
        raise ValueError(f"fractions must sum to 1, got {fractions} with sum {shares.sum():g}")
    exact = shares * n_groups
    counts = np.floor(exact + 1e-9).astype(int)
    for part in np.argsort(counts - exact, kind="stable")[: n_groups - counts.sum()]:
        counts[part] += 1
    if (counts == 0).any():
        raise ValueError(
            f"fractions {tuple(fractions)} of {n_groups} groups would leave part "
            f"{int(np.argmin(counts))} empty: the parts would hold {counts.tolist()} groups"
        )
    return counts.tolist()


def _class_of_group(member: np.ndarray, names: np.ndarray, stratify: Sequence) -> np.ndarray:
    labels = np.asarray(stratify)
    if labels.shape != member.shape:
        raise ValueError(f"stratify must have shape {member.shape} as group, got {labels.shape}")
    _, first = np.unique(member, return_index=True)
    wrong = np.flatnonzero(labels != labels[first][member])
    if len(wrong):
        raise ValueError(
            f"stratify must be constant within a group: group {names[member[wrong[0]]]} has "
            f"{labels[first][member[wrong[0]]]} and {labels[wrong[0]]}"
        )
    return labels[first]
