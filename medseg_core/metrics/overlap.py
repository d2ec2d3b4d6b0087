"""How much of a segmentation overlaps the reference: Dice, Jaccard, precision, recall.

First count (`counts`), then take ratios; every function here is a ratio of those four counts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from monai.metrics import get_confusion_matrix
from torch import Tensor

from medseg_core import checks

EMPTY = ("nan", "one")


class Counts(NamedTuple):
    """Pixels per sample and class, each (N, K) float32."""

    tp: Tensor
    fp: Tensor  # where the reference is empty, this is the false-positive volume in pixels
    fn: Tensor
    tn: Tensor


class Empty(NamedTuple):
    """How many of the `n` samples have an empty mask, per class (K,) int64.

    `ref`: those that overlap metrics exclude (`empty="nan"`); `either`: those that surface
    distances exclude.
    """

    pred: Tensor
    ref: Tensor
    both: Tensor
    either: Tensor
    n: int


def counts(
    pred: Tensor,
    ref: Tensor,
    n_classes: int | None = None,
    *,
    background: bool = False,
    ignore: int = 255,
) -> Counts:
    """True and false positives and negatives, in pixels.

    Parameters
    ----------
    pred, ref : label maps (N, *S) of an integer type, or masks (N, K, *S) of type bool; both alike.
    n_classes : classes of a label map, background included (K = n_classes − 1 columns, or
        n_classes with `background=True`); None takes the largest label found plus one, so give it
        where tables are compared. Masks have their K columns as they are.
    background : keep the column of label 0. Masks have none.
    ignore : label of `ref` whose pixels count nowhere.

    Raises
    ------
    ValueError
        If shapes differ, or a label lies outside 0..n_classes − 1.
    TypeError
        If one is a mask and the other a label map, or either holds fractions.
    """
    pred, ref = _one_hot(pred, ref, n_classes, background, ignore)
    # monai adds the two masks, so bool will not do.
    matrix = get_confusion_matrix(pred.byte(), ref.byte(), include_background=True)  # (N, K, 4)
    tp, fp, tn, fn = matrix.unbind(-1)
    return Counts(tp, fp, fn, tn)


def dice(
    pred: Tensor,
    ref: Tensor,
    n_classes: int | None = None,
    *,
    background: bool = False,
    empty: str = "nan",
    ignore: int = 255,
) -> Tensor:
    """Dice coefficient 2·TP / (2·TP + FP + FN), one value per sample and class.

    Arguments as in `counts`. `empty="nan"`: NaN where the reference is empty, even if the
    prediction is not (as `monai.metrics.compute_dice` does): report `count_empty` beside a mean.
    `"one"`: 1 where both are empty, 0 where one of them is (the BraTS convention).

    Returns (N, K) float32 on the CPU. Source: Dice 1945. Taught in chapter `edpcnn`.
    """
    c = counts(pred, ref, n_classes, background=background, ignore=ignore)
    return _ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn, c, empty)


def jaccard(
    pred: Tensor,
    ref: Tensor,
    n_classes: int | None = None,
    *,
    background: bool = False,
    empty: str = "nan",
    ignore: int = 255,
) -> Tensor:
    """Jaccard index (intersection over union) TP / (TP + FP + FN); otherwise as `dice`."""
    c = counts(pred, ref, n_classes, background=background, ignore=ignore)
    return _ratio(c.tp, c.tp + c.fp + c.fn, c, empty)


def precision(
    pred: Tensor,
    ref: Tensor,
    n_classes: int | None = None,
    *,
    background: bool = False,
    empty: str = "nan",
    ignore: int = 255,
) -> Tensor:
    """Precision (positive predictive value) TP / (TP + FP); otherwise as `dice`.

    An empty prediction of something that is there scores 0, not NaN: a missed object must not
    drop out of the mean.
    """
    c = counts(pred, ref, n_classes, background=background, ignore=ignore)
    return _ratio(c.tp, c.tp + c.fp, c, empty)


def recall(
    pred: Tensor,
    ref: Tensor,
    n_classes: int | None = None,
    *,
    background: bool = False,
    empty: str = "nan",
    ignore: int = 255,
) -> Tensor:
    """Recall (sensitivity) TP / (TP + FN); otherwise as `dice`."""
    c = counts(pred, ref, n_classes, background=background, ignore=ignore)
    return _ratio(c.tp, c.tp + c.fn, c, empty)


def volumetric_similarity(
    pred: Tensor,
    ref: Tensor,
    n_classes: int | None = None,
    *,
    background: bool = False,
    empty: str = "nan",
    ignore: int = 255,
) -> Tensor:
    """1 − |FN − FP| / (2·TP + FP + FN): compares sizes and no places; otherwise as `dice`.

    Source: Taha and Hanbury 2015, BMC Medical Imaging.
    """
    c = counts(pred, ref, n_classes, background=background, ignore=ignore)
    total = 2 * c.tp + c.fp + c.fn
    return _ratio(total - (c.fn - c.fp).abs(), total, c, empty)


def count_empty(
    pred: Tensor,
    ref: Tensor,
    n_classes: int | None = None,
    *,
    background: bool = False,
    ignore: int = 255,
) -> Empty:
    """Count the samples with an empty prediction or reference; arguments as in `counts`."""
    c = counts(pred, ref, n_classes, background=background, ignore=ignore)
    no_pred, no_ref = c.tp + c.fp == 0, c.tp + c.fn == 0  # (N, K)
    either, both = no_pred | no_ref, no_pred & no_ref
    return Empty(*(e.sum(0) for e in (no_pred, no_ref, both, either)), n=len(no_ref))


def confusion(pred: Tensor, ref: Tensor, n_classes: int, ignore: int = 255) -> Tensor:
    """Pooled confusion matrix (K, K) int64 of label maps (N, *S): rows `ref`, columns `pred`."""
    pred, ref = _labels(pred, ref, n_classes, ignore)[:2]
    valid = ref != ignore
    pairs = ref[valid] * n_classes + pred[valid]
    return torch.bincount(pairs, minlength=n_classes**2).view(n_classes, n_classes)


def dice_from_confusion(matrix: Tensor) -> Tensor:
    """Pooled Dice per class (K,) of a confusion matrix (K, K); NaN for a class that neither has."""
    checks.shape(matrix, "matrix", "K K")
    matrix = matrix.double()
    return (2 * matrix.diagonal() / (matrix.sum(0) + matrix.sum(1))).float()


def _ratio(top: Tensor, bottom: Tensor, c: Counts, empty: str) -> Tensor:
    checks.choice(empty, "empty", EMPTY)
    no_pred, no_ref = c.tp + c.fp == 0, c.tp + c.fn == 0
    value = torch.where(no_pred | no_ref, 0.0, top / bottom)
    if empty == "nan":
        return value.masked_fill(no_ref, torch.nan)
    return value.masked_fill(no_pred & no_ref, 1.0)


def _one_hot(
    pred: Tensor, ref: Tensor, n_classes: int | None, background: bool, ignore: int
) -> tuple[Tensor, Tensor]:
    """Both as masks (N, K, *S), with the ignored pixels removed from both."""
    if _is_mask(pred, "pred") != _is_mask(ref, "ref"):
        raise TypeError(
            "pred and ref must both be label maps or both bool masks, "
            f"got {pred.dtype} and {ref.dtype}"
        )
    if pred.dtype == torch.bool:
        checks.same_shape(pred, ref, ("pred", "ref"))
        checks.shape(pred, "pred", "N K L *S")
        if n_classes not in (None, pred.shape[1]):
            raise ValueError(f"n_classes={n_classes}, but the masks have {pred.shape[1]} channels")
        if background:
            raise ValueError("background=True needs label maps: masks have no background channel")
        return pred.cpu(), ref.cpu()
    pred, ref, n_classes = _labels(pred, ref, n_classes, ignore)
    classes = torch.arange(0 if background else 1, n_classes).view(1, -1, *[1] * (ref.ndim - 1))
    valid = (ref != ignore)[:, None]  # (N, 1, *S)
    return (pred[:, None] == classes) & valid, ref[:, None] == classes  # (N, K, *S)


def _labels(
    pred: Tensor, ref: Tensor, n_classes: int | None, ignore: int
) -> tuple[Tensor, Tensor, int]:
    if _is_mask(pred, "pred") or _is_mask(ref, "ref"):
        raise TypeError(f"pred and ref must be integer label maps, got {pred.dtype}, {ref.dtype}")
    checks.same_shape(pred, ref, ("pred", "ref"))
    checks.shape(pred, "pred", "N L *S")
    pred, ref = pred.cpu().long(), ref.cpu().long()
    valid = ref != ignore
    # A prediction under an ignored pixel may be anything.
    found = {"pred": pred[valid], "ref": ref[valid]}
    if n_classes is None:
        n_classes = max([2, *(int(x.max()) + 1 for x in found.values() if x.numel())])
    elif n_classes < 2:
        raise ValueError(f"n_classes must be at least 2 (with the background), got {n_classes}")
    for name, x in found.items():
        wrong = x[(x < 0) | (x >= n_classes)]
        if wrong.numel():
            raise ValueError(
                f"{name} must hold labels 0..{n_classes - 1}"
                f"{f' or {ignore} (ignore)' if name == 'ref' else ''}, got {int(wrong[0])}"
            )
    return pred, ref, n_classes


def _is_mask(x: Tensor, name: str) -> bool:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    if x.is_floating_point() or x.is_complex():
        raise TypeError(
            f"{name} must be a label map (integer) or a mask (bool), got {x.dtype}: "
            "threshold it or take the argmax first"
        )
    return x.dtype == torch.bool
