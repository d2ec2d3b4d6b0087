"""The one way in which an image and its label are read, whatever their format.

Axes of length 1 that are too many go, from both; the label is turned to the image's axes by its own
affine, and must then lie on the image's grid; images are finite, labels whole numbers of a table.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from medseg_core import checks
from medseg_core.datasets import _metaimage, _nifti, _pictures

SAME_GRID = 0.1  # of the smallest voxel: by so much two grids may differ in any corner
WHOLE = 1e-3  # what a label may be off a whole number, after it went through a float tool


@dataclass(frozen=True)
class Header:
    """What is known of a file before its voxels are read; along the file's own axes.

    Attributes:
        path: of the file.
        shape: without the axes of length 1 that are too many.
        spacing: mm per axis; pixels of a picture count as 1.
        affine: voxel to world in mm, ``(4,4)``; None for a picture, which has no place.
    """

    path: Path
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    affine: np.ndarray | None


@dataclass(frozen=True)
class Pair:
    """Image ``(*S)`` float32, label ``(*S)`` int64, mm per axis, in (slice,) row, column."""

    image: np.ndarray
    label: np.ndarray
    spacing: tuple[float, ...]

    def turned(self, view: Callable[[np.ndarray], np.ndarray]) -> Pair:
        """A flat pair by another view of its arrays, which may exchange rows and columns."""
        image, label = (np.ascontiguousarray(view(a)) for a in (self.image, self.label))
        crosswise = view(np.empty((1, 2))).shape == (2, 1)
        return Pair(image, label, self.spacing[:: -1 if crosswise else 1])


def header(path: Path, ndim: int, *, channels: bool = False) -> Header:
    """The header of an image or a label of ``ndim`` axes, one more if ``channels`` may follow.

    Raises:
        ValueError: unreadable, another number of axes, sizes that cannot be.
    """
    if path.suffix.lower() in _pictures.SUFFIXES:
        return Header(path, _pictures.shape(path), (1.0,) * ndim, None)
    kind = _metaimage if path.suffix == ".mhd" else _nifti
    shape, spacing, affine = kind.header(path, ndim)
    full = shape
    while len(shape) > ndim and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != ndim and not (channels and len(shape) == ndim + 1):
        axes, more = ("(x, y)", "(x, y, slice)")[ndim - 2], ": a sequence?" * (len(shape) > ndim)
        raise ValueError(f"{path.name} must be {ndim}-D {axes}, got {len(full)}-D {full}{more}")
    return Header(path, shape, spacing, affine)


def turn(label: Header, image: Header) -> np.ndarray | None:
    """How the label's axes are to be turned to be the image's; None where files have no place.

    Raises:
        ValueError: another shape or, beyond `SAME_GRID`, another voxel size, place or direction.
    """
    name = label.path.name
    if image.affine is None or label.affine is None:
        same, orientation = label.shape == image.shape, None
    else:
        orientation = nib.orientations.ornt_transform(
            nib.io_orientation(label.affine), nib.io_orientation(image.affine)
        )
        old, space = _three(label.shape), _three(image.shape[: len(label.shape)])
        turned = nib.apply_orientation(np.empty(old, bool), orientation).shape
        same = turned == space
    if not same:
        raise ValueError(f"{name} has the shape {label.shape}, its image {image.shape}")
    if orientation is None:
        return None
    moved = label.affine @ nib.orientations.inv_ornt_aff(orientation, old)
    corners = np.array([[*c, 1] for c in itertools.product(*[(0, n - 1) for n in space])]).T
    off = np.linalg.norm(((moved - image.affine) @ corners)[:3], axis=0).max()
    if off > SAME_GRID * min(image.spacing):
        mm = [nib.affines.voxel_sizes(a).round(4).tolist() for a in (label.affine, image.affine)]
        axes = ["".join(nib.aff2axcodes(a)) for a in (label.affine, image.affine)]
        raise ValueError(
            f"{name} is not on its image's grid: by their affines they are {off:.4g} mm apart "
            f"(voxels {mm[0]} and {mm[1]} mm, axes {axes[0]} and {axes[1]}); resample it first"
        )
    return orientation


def check_pair(
    image: Path, label: Path, *, ndim: int, channels: bool = False
) -> tuple[Header, bool]:
    """Compare the headers of an image and its label.

    Returns:
        The image's, and whether the label's axes are stored otherwise and will be turned.

    Raises:
        ValueError: as `header` and `turn`.
    """
    head = header(image, ndim, channels=channels)
    orientation = turn(header(label, ndim), head)
    same = orientation is None or np.array_equal(orientation, [[0, 1], [1, 1], [2, 1]])
    return head, not same


def read_pair(
    image: Path,
    label: Path,
    labels: Collection[int],
    *,
    ndim: int = 2,
    axes: str | None = None,
    channel: int | None = None,
) -> Pair:
    """Read an image and its label.

    Args:
        image, label: their files.
        labels: the values that a label may have.
        ndim: number of axes, 2 or 3.
        axes: towards which the file's axes are to run, e.g. "LPS"; None keeps the image's own.
        channel: of an image with one more axis.

    Raises:
        ValueError: damaged files, other grids, values that cannot be; named by the file.
    """
    head, truth = header(image, ndim, channels=channel is not None), header(label, ndim)
    orientation = turn(truth, head)
    pixels = voxels(head, channel if len(head.shape) > ndim else None).astype(np.float32)
    checks.finite(pixels, image.name)
    classes = whole(voxels(truth), labels, label.name)
    if orientation is not None:
        space = head.shape[:ndim]
        classes = nib.apply_orientation(classes.reshape(_three(truth.shape)), orientation)
        classes = classes.reshape(space)
    if head.affine is None:
        return Pair(pixels, classes, head.spacing)
    if axes is not None:
        pixels, classes = (to_axes(a, head.affine, axes) for a in (pixels, classes))
    # A file's axes are (x, y, slice) = (column, row, slice).
    pixels, classes = (np.ascontiguousarray(a.T) for a in (pixels, classes))
    return Pair(pixels, classes, grid(head, axes)[1])


def grid(head: Header, axes: str | None) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Shape and mm per axis, in (slice,) row, column, of what `read_pair` makes of a file."""
    ndim = len(head.spacing)
    order = np.arange(ndim) if axes is None else np.argsort(_towards(head.affine, axes)[:, 0])
    back = order[::-1].astype(int)
    return tuple(head.shape[i] for i in back), tuple(head.spacing[i] for i in back)


def voxels(head: Header, channel: int | None = None) -> np.ndarray:
    """The values of a file in its own type and axes, without axes of length 1 too many."""
    if head.affine is None:
        return _pictures.read_grey(head.path)
    if head.path.suffix == ".mhd":
        return _metaimage.voxels(head.path).reshape(head.shape)
    array = _nifti.voxels(head.path, channel)
    return array.reshape(head.shape if channel is None else head.shape[:-1])


def whole(values: np.ndarray, labels: Collection[int], name: str) -> np.ndarray:
    """Labels as int64: rounded, never cut off.

    Raises:
        ValueError: a value that is more than `WHOLE` off a whole number, or none of ``labels``.
    """
    if values.dtype.kind == "f":
        rounded = np.rint(values)
        with np.errstate(invalid="ignore"):
            off = ~(np.abs(values - rounded) <= WHOLE)  # NaN compares false
        if off.any():
            raise ValueError(
                f"{name} must hold whole numbers, got {np.unique(values[off])[:5].tolist()}"
            )
        values = rounded
    wrong = np.setdiff1d(values, list(labels))
    if len(wrong):
        known = ", ".join(str(value) for value in sorted(labels))
        raise ValueError(f"{name} must hold the labels {known}, got {wrong[:5].tolist()}")
    return values.astype(np.int64)


def to_axes(array: np.ndarray, affine: np.ndarray, axes: str) -> np.ndarray:
    """An array in a file's axes, turned so that they run towards ``axes``; a view."""
    return nib.apply_orientation(array, _towards(affine, axes))


def from_axes(array: np.ndarray, affine: np.ndarray, axes: str) -> np.ndarray:
    """Undo `to_axes`."""
    back = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(axes), nib.io_orientation(affine)
    )
    return nib.apply_orientation(array, back)


def _towards(affine: np.ndarray, axes: str) -> np.ndarray:
    return nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes)
    )


def _three(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape, *(1,) * (3 - len(shape)))
