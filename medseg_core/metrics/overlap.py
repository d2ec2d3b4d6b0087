"""How much of a segmentation overlaps the reference: Dice and Jaccard.

First the pixels are counted, per sample and class, then a ratio of the counts is taken.
"""

from __future__ import annotations

import torch
from monai.metrics import get_confusion_matrix
from torch import Tensor

from medseg_core import checks

EMPTY = ("nan", "one")
IGNORE = 255  # label of the reference whose pixels count nowhere


def dice(pred: Tensor, ref: Tensor, n_classes: int | None = None, *, empty: str = "nan") -> Tensor:
    """Dice coefficient 2·TP / (2·TP + FP + FN), one value per sample and class (Dice 1945).

    Args:
        pred: label maps (N, *S) of an integer type, or masks (N, K, *S) of type bool.
        ref: the same kind; pixels of a label map that are 255 count nowhere.
        n_classes: classes of a label map, background included (K = n_classes − 1); None takes the
            largest label found plus one, so give it where tables are compared. Masks have their K
            columns as they are.
        empty: "nan": NaN where the reference is empty, even if the prediction is not (as
            `monai.metrics.compute_dice` does). "one": 1 where both are empty, 0 where one of them
            is (the BraTS convention).

    Returns:
        (N, K) float32 on the CPU.

    Raises:
        ValueError: if shapes differ, or a label lies outside 0..n_classes − 1.
        TypeError: if one is a mask and the other a label map, or either holds fractions.

    Taught in: edpcnn, ipm-surfaces, selected-dimensions-oct, bifseg-interactive.
    """
    checks.choice(empty, "empty", EMPTY)
    tp, fp, fn = _counts(*_one_hot(pred, ref, n_classes))
    return _ratio(2 * tp, 2 * tp + fp + fn, tp + fp == 0, tp + fn == 0, empty)


def jaccard(pred: Tensor, ref: Tensor) -> Tensor:
    """Jaccard index (intersection over union) TP / (TP + FP + FN); otherwise as `dice`.

    Taught in: ipm-surfaces, max-margin-crf.
    """
    tp, fp, fn = _counts(*_one_hot(pred, ref, None))
    return _ratio(tp, tp + fp + fn, tp + fp == 0, tp + fn == 0, "nan")


def _counts(pred: Tensor, ref: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """True and false positives and false negatives of masks, in pixels, each (N, K) float32."""
    # monai adds the two masks, so bool will not do.
    matrix = get_confusion_matrix(pred.byte(), ref.byte(), include_background=True)  # (N, K, 4)
    tp, fp, _, fn = matrix.unbind(-1)
    return tp, fp, fn


def _ratio(top: Tensor, bottom: Tensor, no_pred: Tensor, no_ref: Tensor, empty: str) -> Tensor:
    value = torch.where(no_pred | no_ref, 0.0, top / bottom)
    if empty == "nan":
        return value.masked_fill(no_ref, torch.nan)
    return value.masked_fill(no_pred & no_ref, 1.0)


def _one_hot(pred: Tensor, ref: Tensor, n_classes: int | None) -> tuple[Tensor, Tensor]:
    """Both as masks (N, K, *S), with the ignored pixels removed from both."""
    if _is_mask(pred, "pred") != _is_mask(ref, "ref"):
        raise TypeError(
            "pred and ref must both be label maps or both bool masks, "
            f"got {pred.dtype} and {ref.dtype}"
        )
    checks.same_shape(pred, ref, ("pred", "ref"))
    if pred.dtype == torch.bool:
        checks.shape(pred, "pred", "N K L *S")
        if n_classes not in (None, pred.shape[1]):
            raise ValueError(f"n_classes={n_classes}, but the masks have {pred.shape[1]} channels")
        return pred.cpu(), ref.cpu()
    checks.shape(pred, "pred", "N L *S")
    pred, ref = pred.cpu().long(), ref.cpu().long()
    valid = ref != IGNORE
    n_classes = _checked_classes({"pred": pred[valid], "ref": ref[valid]}, n_classes)
    classes = torch.arange(1, n_classes).view(1, -1, *[1] * (ref.ndim - 1))
    return (pred[:, None] == classes) & valid[:, None], ref[:, None] == classes  # (N, K, *S)


def _checked_classes(labels: dict[str, Tensor], n_classes: int | None) -> int:
    """Number of classes; ``labels`` are those that count (under an ignored one all may stand)."""
    if n_classes is None:
        n_classes = max([2, *(int(x.max()) + 1 for x in labels.values() if x.numel())])
    checks.integer(n_classes, "n_classes", 2)
    for name, x in labels.items():
        wrong = x[(x < 0) | (x >= n_classes)]
        if wrong.numel():
            raise ValueError(
                f"{name} must hold labels 0..{n_classes - 1}"
                f"{f' or {IGNORE} (ignore)' if name == 'ref' else ''}, got {int(wrong[0])}"
            )
    return n_classes


def _is_mask(x: Tensor, name: str) -> bool:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    if x.is_floating_point() or x.is_complex():
        raise TypeError(
            f"{name} must be a label map (integer) or a mask (bool), got {x.dtype}: "
            "threshold it or take the argmax first"
        )
    return x.dtype == torch.bool
