"""Closed contours around a centre: one radius per angle, and the image in that form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from skimage.draw import polygon2mask
from torch import Tensor

from medseg_core.datasets._grids import per_axis


def polar_sample(
    grey: np.ndarray, contours: Mapping[str, np.ndarray], size: Sequence[int], pixel_mm: float
) -> dict:
    """An image with nested contours, from the inside out, in polar and in Cartesian form.

    The polar form is unwrapped about the image's centre; its row i is the radius i·R/radii, R half
    the image's shorter side.

    Args:
        grey: ``(h,w)`` uint8.
        contours: corners ``(P,2)`` of each, by the name of its file.
        size: (radii, angles) of the polar form.
        pixel_mm: mm per pixel.

    Returns:
        ``image (1,1,H,W)`` in [0, 1]; ``surfaces (1,K,W)``: each ray's outermost crossing with
        each contour, in rows, never inside the one before; ``valid (1,K,W)``: not beyond the last
        row; ``label (1,H,W)``: number of surfaces at or above; ``spacing``: mm per row, radians
        per column; ``cartesian_image (1,1,h,w)``, ``mask (1,K,h,w)`` bool: inside each contour,
        ``cartesian_spacing`` (mm), ``centre (1,2)`` of the unwrapping in pixels.

    Raises:
        ValueError: a contour that does not go round the centre, named by its file; bad sizes.
    """
    n_radii, n_angles = per_axis(size, "size")
    for n in (n_radii, n_angles):
        if isinstance(n, bool) or int(n) != n or n < 4:
            raise ValueError(f"size must be (radii, angles), integers of at least 4, got {size}")
    shape, radius = grey.shape, min(grey.shape) / 2
    centre = ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    image = torch.from_numpy(grey / np.float32(255))[None, None]  # (1, 1, h, w)
    radii = []
    for name, points in contours.items():
        try:
            radii.append(contour_radii(points, centre, n_angles))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    outwards = np.maximum.accumulate(radii, axis=0)  # (K, W); where they cross, the inner counts
    surfaces = torch.from_numpy(outwards) * (n_radii / radius)
    masks = [torch.from_numpy(polygon2mask(shape, points)) for points in contours.values()]
    return {
        "image": unwrap(image, centre, radius, n_radii, n_angles),
        "surfaces": surfaces.float()[None],
        "valid": (surfaces <= n_radii - 0.5)[None],
        "label": (surfaces[:, None] <= torch.arange(n_radii)[:, None].double()).sum(0)[None],
        "spacing": (pixel_mm * radius / n_radii, 2 * math.pi / n_angles),
        "cartesian_image": image,
        "mask": torch.stack(masks)[None],
        "cartesian_spacing": (pixel_mm, pixel_mm),
        "centre": torch.tensor([centre]),
    }


def unwrap(
    x: Tensor, centre: Sequence[float], radius_px: float, n_radii: int, n_angles: int
) -> Tensor:
    """Image ``(1,C,n_radii,n_angles)``: rows are radii i·radius_px/n_radii, columns angles.

    Angle a points along (sin a, cos a) in (row, column); edges of the image are repeated.
    """
    r = torch.arange(n_radii, dtype=x.dtype)[:, None] * (radius_px / n_radii)
    a = torch.arange(n_angles, dtype=x.dtype)[None] * (2 * math.pi / n_angles)
    offsets = torch.stack([r * torch.sin(a), r * torch.cos(a)], dim=-1)  # (radii, angles, 2)
    points = torch.tensor([centre], dtype=x.dtype)[:, None, None] + offsets
    size = torch.tensor(x.shape[2:], dtype=x.dtype)
    unit = 2 * points / (size - 1).clamp_min(1) - 1  # −1 and 1 are the first and last centres
    return F.grid_sample(
        x, unit.flip(-1), mode="bilinear", padding_mode="border", align_corners=True
    )


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
