"""Simulated annotators: each takes the truth and a generator, and returns annotation only."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from medseg_core import checks

OBJECT, BACKGROUND, NONE = 1, 0, 255  # values of a map of scribbles


def scribble_robot(
    pred: Tensor, truth: Tensor, gen: torch.Generator, *, max_length: int = 15
) -> tuple[Tensor, int] | None:
    """The next correction of a user who looks at the largest error: a stroke along its middle.

    Missed and superfluous voxels form connected components, diagonals included. Of the largest one
    the user opens the slice (of the first axis) where it has most voxels, draws along the longest
    path of the eroded component's skeleton there, at most ``max_length`` voxels of it, and errs by
    at most one voxel per axis, as a whole and never out of the component. The label is the truth's
    at every voxel drawn, so two scribbles never contradict each other.

    Args:
        pred: ``(*S)`` bool, the segmentation that the user sees; 2-D images are their one slice.
        truth: ``(*S)`` bool, known to the user; nobody else reads it.
        gen: generator of the place along the path and of the user's inaccuracy; same numbers, same
            scribble.
        max_length: of the stroke in voxels, ≥ 1.

    Returns:
        ``(coords (P,ndim) int64, label)``: P ≤ ``max_length`` different voxels in the order drawn,
        each next to the one before (diagonals included), in one slice; label 1 where the object was
        missed, 0 where the segmentation leaks. None where there is no error.

    The scribbles of Wang et al., Interactive medical image segmentation using deep learning with
    image-specific fine-tuning, 2018, are a person's; this rule stands in for one.

    Raises:
        ValueError: different shapes, other than 2 or 3 axes, ``max_length`` < 1.
        TypeError: masks that are not bool.

    Taught in: bifseg-interactive.
    """
    checks.mask(pred, "pred")
    checks.mask(truth, "truth")
    checks.same_shape(pred, truth, ("pred", "truth"))
    checks.choice(pred.ndim, "number of axes", (2, 3))
    checks.between(max_length, "max_length", 1, None)
    p, t = pred.cpu().numpy(), truth.cpu().numpy()
    missed, extra = _largest(t & ~p), _largest(p & ~t)
    label = OBJECT if missed.sum() >= extra.sum() else BACKGROUND
    component = missed if label == OBJECT else extra
    if not component.any():
        return None
    plane = ()  # index of the slice; none of a 2-D image
    if component.ndim == 3:
        plane = (int(component.sum((1, 2)).argmax()),)
    region = _largest(component[plane])
    path = _middle_line(region)
    spare = max(len(path) - max_length, 0)
    first = int(torch.randint(0, spare + 1, (), generator=gen))
    path = _shifted(path[first : first + max_length], region, gen)
    coords = np.column_stack([np.full((len(path), len(plane)), plane), path])
    return torch.from_numpy(coords).long(), label


def add_scribble(scribbles: Tensor, coords: Tensor, label: int) -> Tensor:
    """A map of scribbles with one more: ``label`` at ``coords``, everything else as it was.

    Args:
        scribbles: ``(*S)`` int64: 1 object, 0 background, 255 none; not changed.
        coords: ``(P,ndim)`` int64, voxels of the scribble, as from `scribble_robot`.
        label: 1 or 0.

    Raises:
        ValueError: another label, voxels outside the image, or a voxel that has the other label
            already, with its place.
    """
    checks.choice(int(label), "label", (BACKGROUND, OBJECT))
    checks.shape(coords, "coords", f"P {scribbles.ndim}")
    size = torch.tensor(scribbles.shape, device=coords.device)
    outside = ((coords < 0) | (coords >= size)).any(1)
    if outside.any():
        place = coords[outside][0].tolist()
        raise ValueError(f"coords must lie inside {tuple(scribbles.shape)}, got {place}")
    index = tuple(coords.to(scribbles.device).T)
    before = scribbles[index]
    clash = (before != NONE) & (before != label)
    if clash.any():
        place = coords[clash.to(coords.device)][0].tolist()
        raise ValueError(
            f"scribbles contradict each other: {place} has label {int(before[clash][0])} already, "
            f"got label {int(label)}"
        )
    scribbles = scribbles.clone()
    scribbles[index] = int(label)
    return scribbles


def _largest(mask: np.ndarray) -> np.ndarray:
    """Its largest connected component, diagonals included; the first of equals."""
    label, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return label == 1 + np.bincount(label.ravel())[1:].argmax() if count else mask


def _middle_line(region: np.ndarray) -> np.ndarray:
    """Longest path ``(P,2)`` of the skeleton of a 2-D region, eroded if anything is left of it."""
    from skimage.morphology import skeletonize

    eroded = ndimage.binary_erosion(region)
    skeleton = skeletonize(_largest(eroded) if eroded.any() else region)
    points = np.argwhere(skeleton)  # (P,2)
    number = np.full(region.shape, -1)
    number[tuple(points.T)] = np.arange(len(points))
    padded = np.pad(number, 1, constant_values=-1)
    ends = []
    for offset in ((0, 1), (1, -1), (1, 0), (1, 1)):
        other = padded[tuple((points + 1 + offset).T)]
        ends += [(a, b, np.hypot(*offset)) for a, b in enumerate(other) if b >= 0]
    if not ends:
        return points[:1]
    rows, columns, lengths = zip(*ends, strict=True)
    graph = coo_array((lengths, (rows, columns)), shape=(len(points),) * 2).tocsr()
    distance, before = dijkstra(graph, directed=False, return_predecessors=True)
    distance[np.isinf(distance)] = -1
    start, at = np.unravel_index(distance.argmax(), distance.shape)
    path = [at]
    while path[-1] != start:
        path.append(before[start, path[-1]])
    return points[path]


def _shifted(path: np.ndarray, region: np.ndarray, gen: torch.Generator) -> np.ndarray:
    """The path moved by a random step of at most one voxel per axis that keeps it in the region."""
    steps = np.array(list(itertools.product((-1, 0, 1), repeat=2)))
    order = torch.randperm(len(steps), generator=gen).numpy()
    padded = np.pad(region, 1)
    for step in steps[order]:
        moved = path + step
        if padded[tuple((moved + 1).T)].all():
            return moved
    raise AssertionError("the step (0, 0) keeps the path in its region")
