"""What distinguishes the arms: what the network reads, how its output is ordered, what it learns.

Shapes: images (B,1,H,W), surfaces (B,N,W) in rows; ``out`` is what a `SurfaceNet` returns.

Taught in: ipm-surfaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monai.losses import DiceLoss, GeneralizedDiceLoss
from torch import Tensor
from torch.nn import functional as F

from medseg_core import checks
from medseg_core.papers.ipm_surfaces import losses
from medseg_core.papers.ipm_surfaces.surface_net import (
    SurfaceNet,
    gradient_channels,
    running_maximum,
)
from medseg_core.solvers.surface_qp import ordered_surfaces

ORDERS = ("layer", "none", "running maximum")
LOSSES = ("divergence", "KL", "cross entropy", "FCBR")


@dataclass(frozen=True)
class Recipe:
    """One arm: what makes its output, and what it learns from.

    Raises:
        ValueError: another order or loss.
    """

    order: str = "layer"  # of `ORDERS`
    loss: str = "divergence"  # of `LOSSES`
    regions_loss: bool = True
    smooth: bool = True
    fuse: bool = True  # μ from both heads; False: μ = ξ
    channels: int = 5
    dynamic_sigma: bool = False  # the target's σ: the predicted one, or the setting

    def __post_init__(self) -> None:
        checks.choice(self.order, "order", ORDERS)
        checks.choice(self.loss, "loss", LOSSES)


RECIPES = {
    "IPM": Recipe(),
    "no IPM": Recipe(order="none"),
    "FCBR": Recipe(order="running maximum", loss="FCBR", fuse=False),
    "soft-argmax": Recipe(order="none", regions_loss=False, fuse=False),
    "no smooth loss": Recipe(smooth=False),
    "no region μ": Recipe(fuse=False),
}
EXTENDED = {
    "one channel": Recipe(channels=1),
    "dynamic σ": Recipe(dynamic_sigma=True),
    "weighted cross entropy": Recipe(loss="cross entropy"),
    "plain KL": Recipe(loss="KL"),
}


def network(
    recipe: Recipe, n_surfaces: int, widths: Sequence[int], kappa: float, circular: bool
) -> SurfaceNet:
    """The network of an arm; its region head is there in all of them."""
    return SurfaceNet(
        n_surfaces, recipe.channels, widths, kappa=kappa, regions=recipe.fuse, circular=circular
    )


def channels(images: Tensor, recipe: Recipe, circular: bool) -> Tensor:
    """What the network reads: the image, or the image and its gradient."""
    return gradient_channels(images, circular=circular)[:, : recipe.channels]


def place(out: Mapping[str, Tensor], recipe: Recipe, tol: float) -> Tensor:
    """Surfaces from what the network returns: through the layer, as they are, or FCBR's way."""
    if recipe.order == "layer":
        return ordered_surfaces(out["mu"], out["sigma2"], tol=tol)[0]
    return running_maximum(out["xi"]) if recipe.order == "running maximum" else out["mu"]


def training_losses(
    out: Mapping[str, Tensor],
    placed: Tensor,
    batch: Mapping[str, Tensor],
    recipe: Recipe,
    *,
    sigma: float,
    l1_weight: float,
    late: bool,
    circular: bool,
) -> dict[str, Tensor]:
    """The losses that are summed, by name: "regions", "columns", "smooth", "position".

    Unknown columns of a real data set count nowhere.

    Args:
        out: what the network says.
        placed: what `place` made of it.
        batch: ``image``, ``surfaces``, ``valid`` (B,N,W) bool, ``label`` (B,H,W).
        recipe: which losses.
        sigma: rows, of the Gaussian around the true surface.
        l1_weight: of the position; FCBR's has the weight 1.
        late: whether smoothness and position count already.
        circular: the last column is the neighbour of the first.
    """
    truth, valid, log_p, parts = batch["surfaces"], batch["valid"], out["log_p"], {}
    if recipe.regions_loss:
        parts["regions"] = regions_loss(out["region_logits"], batch, plain=recipe.loss == "FCBR")
    if recipe.loss == "FCBR":
        parts["columns"] = losses.surface_cross_entropy(log_p, truth, valid)
        parts["position"] = float(late) * losses.smooth_l1_loss(placed, truth, valid)
        return parts
    magnitude = gradient_channels(batch["image"], circular=circular)[:, 3:4]
    weight = losses.gradient_weight(magnitude)
    width = out["sigma2"].detach().sqrt() if recipe.dynamic_sigma else sigma
    target = losses.gaussian_target(truth, log_p.shape[2], width)
    if recipe.loss == "cross entropy":
        parts["columns"] = losses.surface_cross_entropy(log_p, truth, valid, weight)
    elif recipe.loss == "KL":
        parts["columns"] = losses.kl_divergence(log_p, target, valid)
    else:
        parts["columns"] = losses.weighted_divergence(log_p, target, weight, valid)
    if recipe.smooth:
        smooth = losses.smooth_loss(placed, truth, valid, circular=circular)
        parts["smooth"] = float(late) * smooth
    parts["position"] = float(late) * l1_weight * losses.l1_loss(placed, truth, valid)
    return parts


def regions_loss(logits: Tensor, batch: Mapping[str, Tensor], *, plain: bool = False) -> Tensor:
    """Generalised Dice and cross entropy over the pixels of columns in which all is known.

    The generalised Dice loss alone can leave a region without a single pixel for long.

    Args:
        logits: (B,N+1,H,W).
        batch: ``valid`` and ``label``, as above.
        plain: the Dice loss alone, as FCBR has it.
    """
    known = batch["valid"].all(1)[:, None, None]  # (B,1,1,W)
    p = logits.softmax(1) * known
    target = (F.one_hot(batch["label"], p.shape[1]).movedim(-1, 1) * known).to(p.dtype)
    if plain:
        return DiceLoss()(p, target)
    pixels = known.expand_as(p)[:, :1].sum().clamp_min(1)
    entropy = -(target * logits.log_softmax(1)).sum() / pixels
    return GeneralizedDiceLoss(batch=True)(p, target) + entropy
