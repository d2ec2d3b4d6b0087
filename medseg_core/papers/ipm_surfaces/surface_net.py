"""The network behind the ordered surfaces: a Gaussian for each surface in each column."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg_core import checks
from medseg_core.models.unet import UNet
from medseg_core.models.unet_blocks import Style

FLOOR = 0.25  # smallest σ², rows²: a certain network would make the column problem ill-posed


class SurfaceNet(nn.Module):
    r"""Column problem of N surfaces, mean μ and variance σ² of each, from an image.

    A residual U-Net feeds two heads, each three 3×3 convolutions and a 1×1 one. *SurfaceConv*
    gives a distribution p over the rows of each column and its mean ξ = Σ z p(z); *RegionConv*
    gives N + 1 regions, whose boundaries γ and whose orderliness c (`region_boundaries`) are
    constants. Both are fused (eqs. 2 and 3):

    .. math:: \mu = \frac{c\gamma + (\kappa - c)\xi}{\kappa}, \qquad
              \sigma^2 = \sum_z p(z) (z - \mu)^2

    The layer that turns μ and σ² into ordered surfaces is not part of the network:
    `medseg_core.solvers.surface_qp.ordered_surfaces`. Source: Xie et al. 2020, §2.2; details that
    the paper leaves open are those of the U-Net's options.

    Args:
        n_surfaces: N.
        in_ch: 5 for `gradient_channels`.
        widths: channels per level of the U-Net.
        kappa: κ ≥ 2, the weight of the regions: at 2 an orderly column is the mean of both.
        regions: False: μ = ξ (the paper's ablation 5); the region head stays.
        circular: the last column is the neighbour of the first (columns = angle).

    Raises:
        ValueError: fewer than one surface, κ < 2.

    Taught in: ipm-surfaces.

    >>> net = SurfaceNet(9, widths=(8, 16, 32, 64))
    >>> sum(p.numel() for p in net.parameters())
    169131
    >>> net(torch.zeros(1, 5, 64, 32))["mu"].shape
    torch.Size([1, 9, 32])
    """

    def __init__(
        self,
        n_surfaces: int,
        in_ch: int = 5,
        widths: Sequence[int] = (8, 16, 32, 64),
        *,
        kappa: float = 2.0,
        regions: bool = True,
        circular: bool = False,
    ) -> None:
        super().__init__()
        checks.between(n_surfaces, "n_surfaces", 1, float("inf"))
        checks.between(kappa, "kappa", 2, float("inf"))
        self.n_surfaces, self.kappa, self.regions = n_surfaces, kappa, regions
        padding = "circular" if circular else "same"
        self.backbone = UNet(
            2, in_ch, 1, widths, convs=3, act="leaky", block="residual", up="bilinear", skip="sum",
            padding=padding,
        )  # fmt: skip
        self.backbone.head = nn.Identity()  # the features are what the two heads read
        style = Style(2, "leaky", padding)
        self.region_conv = _head(style, widths[0], n_surfaces + 1)
        self.surface_conv = _head(style, widths[0], n_surfaces)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, in_ch, H, W) -> ``region_logits`` (B,N+1,H,W); ``log_p`` (B,N,H,W), normalised over
        H; ``xi``, ``gamma``, ``mu``, ``sigma2`` (B,N,W), rows; ``c`` (B,1,W)."""
        features = self.backbone.features(x)
        region_logits = self.region_conv(features)
        log_p = self.surface_conv(features).log_softmax(2)
        p = log_p.exp()
        # Rows counted from the middle: squares half as long, less lost in their difference below.
        middle = (x.shape[2] - 1) / 2
        z = torch.arange(x.shape[2], dtype=p.dtype, device=p.device)[:, None] - middle  # (H,1)
        mean = (z * p).sum(2)  # (B,N,W)
        xi = mean + middle
        gamma, c = region_boundaries(region_logits.argmax(1), self.n_surfaces)
        gamma, c = gamma.to(xi.dtype), c.to(xi.dtype)
        mu = (c * gamma + (self.kappa - c) * xi) / self.kappa if self.regions else xi
        # Σ p (z − μ)² by the parallel-axis theorem: no second map of the image's size.
        spread = ((z.square() * p).sum(2) - mean.square()).clamp_min(0.0)
        sigma2 = (spread + (xi - mu).square()).clamp_min(FLOOR)
        return {"region_logits": region_logits, "log_p": log_p, "xi": xi, "gamma": gamma, "c": c,
                "mu": mu, "sigma2": sigma2}  # fmt: skip


def _head(style: Style, channels: int, out_ch: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [*style.conv(channels, channels), style.normalise(channels), style.activate()]
    return nn.Sequential(*layers, style.linear(channels, out_ch))


@torch.no_grad()
def region_boundaries(label: Tensor, n_surfaces: int) -> tuple[Tensor, Tensor]:
    r"""Surfaces and confidence of a column whose regions may come in any order.

    With ℓ(z) the region of row z, γᵢ = #{z : ℓ(z) ≤ i} − ½: where boundary i would lie if the rows
    of the column were sorted by region, as a row between pixel centres. Without disorder that is
    the boundary itself; a stray pixel moves it by one row, however far away it lies. γ never
    decreases in i. c is the share of rows whose region is the largest so far: 1 if and only if the
    column is in order. The paper (Xie et al. 2020, §2.2) names both without a formula ("average
    envelope" of the boundaries, an index that falls with disorder); these are the chapter's.

    Args:
        label: (B,H,W) integers 0 … N.
        n_surfaces: N.

    Returns:
        γ (B,N,W), rows, and c (B,1,W), both float32 and without gradient.

    Raises:
        ValueError: a region below 0 or above N.

    Taught in: ipm-surfaces.
    """
    checks.shape(label, "label", "B H W")
    if label.numel() and (int(label.min()) < 0 or int(label.max()) > n_surfaces):
        raise ValueError(
            f"label must lie in 0 … {n_surfaces}, got {int(label.min())} … {int(label.max())}"
        )
    ordered = (label == label.cummax(1).values).float().mean(1, keepdim=True)
    surfaces = torch.arange(n_surfaces, device=label.device)
    above = label[:, None] <= surfaces[:, None, None]  # (B,N,H,W)
    return above.sum(2) - 0.5, ordered


def gradient_channels(image: Tensor, *, circular: bool = False) -> Tensor:
    """Image, its derivatives down and across, their magnitude and direction: (B,5,H,W).

    Central differences (one-sided at the border); direction = atan2(down, across)/π in [−1, 1].
    The paper's five input channels (Xie et al. 2020, §2.2).

    Args:
        image: (B,1,H,W), scaled to about [0, 1].
        circular: the last column is the neighbour of the first.

    Raises:
        ValueError: an image of another shape.

    Taught in: ipm-surfaces.
    """
    checks.shape(image, "image", "B 1 H W")
    down = torch.gradient(image, dim=2)[0]
    if circular:
        across = (image.roll(-1, 3) - image.roll(1, 3)) / 2
    else:
        across = torch.gradient(image, dim=3)[0]
    direction = torch.atan2(down, across) / torch.pi
    return torch.cat((image, down, across, torch.hypot(down, across), direction), 1)


def running_maximum(xi: Tensor) -> Tensor:
    """Order by s₁ = ξ₁, sᵢ = sᵢ₋₁ + ReLU(ξᵢ − sᵢ₋₁) (He et al. 2019), for (B,N,W).

    That is the running maximum over the surfaces: one that lies too deep pushes down all below it,
    and what is pushed gets no gradient.

    Taught in: ipm-surfaces.
    """
    return xi.cummax(1).values
