"""How far two borders lie apart: Hausdorff and mean surface distances."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from monai.metrics.utils import get_edge_surface_distance
from torch import Tensor

from medseg_core import checks


def _directed(statistic: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: torch.maximum(statistic(a), statistic(b))


# Each takes the distances of the predicted border's pixels to the reference's border, and back.
KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hd": _directed(torch.max),
    "hd95": _directed(lambda d: torch.quantile(d, 0.95)),
    "assd": lambda a, b: torch.cat([a, b]).mean(),
    "mcd": lambda a, b: (a.mean() + b.mean()) / 2,
    "avd": _directed(torch.mean),
}


def surface_distance(
    pred: Tensor,
    ref: Tensor,
    *,
    spacing: Sequence[float] | None,
    kind: str = "hd",
) -> Tensor:
    r"""Distance between the borders of two masks, one value per sample.

    With the border P of `pred`, the border R of `ref`, and d(p, R) the Euclidean distance of p to
    the nearest point of R:

    - ``"hd"``: max of all d(p, R) and d(r, P), the Hausdorff distance;
    - ``"hd95"``: the larger of the two directed 95th percentiles;
    - ``"assd"``: mean over the points of both borders together;
    - ``"mcd"``: mean of the two directed means;
    - ``"avd"``: the larger of the two directed means.

    The border is the set of mask pixels with a face neighbour outside the mask (outside the image
    counts as outside), and every border pixel weighs the same: the definition of
    `monai.metrics.compute_average_surface_distance` and `compute_hausdorff_distance`. Programs that
    weigh sub-pixel surface elements by their length or area give mean distances that differ from
    these by tens of per cent on small objects: never compare across definitions.

    Args:
        pred: bool masks (N, 1, *S), 2-D or 3-D. Pass the slices of a volume as N for slice-wise
            distances.
        ref: the same.
        spacing: mm per pixel in axis order, for a result in mm; None for a result in pixels.
        kind: see above.

    Returns:
        (N,) float32 on the CPU, NaN where a mask is empty. O(B log B) per sample for B border
        pixels.

    Raises:
        ValueError: for other shapes, a spacing of another length or not positive, an unknown kind.
        TypeError: for masks that are not bool.

    Taught in: edpcnn, ipm-surfaces.
    """
    reduce = KINDS[checks.choice(kind, "kind", KINDS)]
    checks.mask(ref, "ref")
    size = checks.shape(checks.mask(pred, "pred"), "pred", "N 1 *S")["S"]
    checks.same_shape(pred, ref, ("pred", "ref"))
    if len(size) not in (2, 3):
        raise ValueError(f"pred must be 2-D or 3-D, (N, 1, *S); got shape {tuple(pred.shape)}")
    mm = checks.spacing(spacing, len(size))
    out = torch.full((len(pred),), torch.nan)
    for i, (p, r) in enumerate(zip(pred[:, 0].cpu(), ref[:, 0].cpu(), strict=True)):
        if p.any() and r.any():
            out[i] = reduce(*_border_distances(p, r, mm))
    return out


def _border_distances(pred: Tensor, ref: Tensor, spacing: tuple[float, ...]) -> tuple[Tensor, ...]:
    """Distances of the border pixels of two masks (*S): pred to ref, ref to pred."""
    with warnings.catch_warnings():  # monai warns of its own call of a deprecated argument
        warnings.simplefilter("ignore", FutureWarning)
        return get_edge_surface_distance(pred, ref, spacing=list(spacing), symmetric=True)[1]
