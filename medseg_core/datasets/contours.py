"""Closed contours as one radius per angle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def contour_radii(points: np.ndarray, centre: Sequence[float], n_angles: int) -> np.ndarray:
    """Distance from a centre to a closed polygon along rays at the angles 2πj/n_angles.

    Ray and edge are intersected exactly; where a ray crosses several edges the outermost counts,
    and where it crosses none the radius is interpolated between its neighbours around the circle.

    Args:
        points: ``(P,2)`` corners (row, column), P ≥ 3; the last is joined to the first.
        centre: (row, column).
        n_angles: number of rays; angle a points along (sin a, cos a) in (row, column).

    Returns:
        ``(n_angles,)`` float64, in pixels.

    Raises:
        ValueError: fewer than half of the rays meet the contour: it does not go round the centre.
    """
    a = np.asarray(points, float) - np.asarray(centre, float)  # (P, 2)
    b = np.roll(a, -1, axis=0)
    angle = 2 * np.pi * np.arange(n_angles) / n_angles
    ray = np.stack([np.sin(angle), np.cos(angle)], axis=1)  # (n_angles, 2)
    # Signed distance of every corner from the line of every ray, (n_angles, P); an edge is crossed
    # where it changes sign. A corner ON the line counts as positive, so that it counts once.
    side_a = ray[:, :1] * a[:, 1] - ray[:, 1:] * a[:, 0]
    side_b = ray[:, :1] * b[:, 1] - ray[:, 1:] * b[:, 0]
    crossed = (side_a >= 0) != (side_b >= 0)
    t = np.where(crossed, side_a / np.where(crossed, side_a - side_b, 1), 0)
    along_a, along_b = ray @ a.T, ray @ b.T
    r = np.where(crossed, along_a + t * (along_b - along_a), -1)
    radius = r.max(axis=1)
    met = radius >= 0
    if 2 * met.sum() < n_angles:
        raise ValueError(
            f"the contour does not go round the centre {tuple(float(c) for c in centre)}: "
            f"{met.sum()} of {n_angles} rays meet it"
        )
    return np.interp(angle, angle[met], radius[met], period=2 * np.pi)
