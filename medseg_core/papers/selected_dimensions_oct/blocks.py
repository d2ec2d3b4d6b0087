"""What the network is built from: residual blocks, funnels, and single convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medseg_core import checks
from medseg_core.models.unet_blocks import BATCH, CONV, TRANSPOSE

NORMS = ("batch", "group")


class ResBlock(nn.Module):
    """Two convolutions and the identity: x + conv(relu(norm(conv(relu(norm(x)))))), size kept.

    Args:
        ch: channels.
        kernel: one odd entry per spatial axis, such as (3, 3) or (1, 3).
        norm: "batch", or "group" (see `_normalisation`).

    Source: Liefers et al. 2019, section 3.2; norm and its place (before the convolution) are not
    stated there.

    Taught in: selected-dimensions-oct.
    """

    def __init__(self, ch: int, kernel: Sequence[int] = (3, 3), norm: str = "batch") -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [_normalisation(ch, norm, len(kernel)), nn.ReLU(), conv(ch, ch, kernel)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ch, *S) -> (B, ch, *S)."""
        return x + self.layers(x)


class Funnel(nn.Module):
    """Pool the dropped axes away, leave the others alone: ``n_steps`` times halve, then ResBlock.

    One step is a convolution with kernel 2 and stride 2 in the dropped axes, kernel 1 in the
    others. In 2-D with ``drop=(0,)``: (B, C, 2**n_steps, W) -> (B, C, 1, W).

    Args:
        ch: channels.
        n_steps: halvings; without any it is the identity.
        spatial_dims: 2 or 3.
        drop: the axes to pool away, counted among the spatial ones.
        norm: as in `ResBlock`.

    Raises:
        ValueError: fewer than no steps.

    Source: the shortcut of Liefers et al. 2019, section 3.2.

    Taught in: selected-dimensions-oct.
    """

    def __init__(
        self,
        ch: int,
        n_steps: int,
        *,
        spatial_dims: int = 2,
        drop: Sequence[int] = (0,),
        norm: str = "batch",
    ) -> None:
        super().__init__()
        checks.between(n_steps, "n_steps", 0, None)
        halve = tuple(2 if axis in drop else 1 for axis in range(spatial_dims))
        steps: list[nn.Module] = []
        for _ in range(n_steps):
            steps += [conv(ch, ch, halve, stride=halve), ResBlock(ch, (3,) * spatial_dims, norm)]
        self.steps = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 2**n_steps, W) -> (B, C, 1, W), in 2-D with the rows dropped."""
        return self.steps(x)


def conv(
    in_ch: int, out_ch: int, kernel: Sequence[int], stride: Sequence[int] | int = 1
) -> nn.Module:
    """A convolution that keeps the size where its kernel is odd; Kaiming's start, gain 1."""
    padding = tuple(k // 2 if k % 2 else 0 for k in kernel)
    layer = CONV[len(kernel)](in_ch, out_ch, tuple(kernel), stride=stride, padding=padding)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    nn.init.zeros_(layer.bias)
    return layer


def upsampling(in_ch: int, out_ch: int, kernel: tuple[int, ...]) -> nn.Module:
    """A transposed convolution that enlarges each axis by its entry of ``kernel``."""
    layer = TRANSPOSE[len(kernel)](in_ch, out_ch, kernel, stride=kernel)
    # Kernel = stride: each output pixel reads every input channel exactly once.
    nn.init.normal_(layer.weight, std=in_ch**-0.5)
    nn.init.zeros_(layer.bias)
    return layer


def _normalisation(ch: int, kind: str, dims: int) -> nn.Module:
    """Batch norm, or group norm of at most eight groups of four channels or more.

    On a map of one pixel a group of one channel would be all zero.
    """
    if kind == "batch":
        return BATCH[dims](ch)
    return nn.GroupNorm(max(g for g in range(1, 9) if ch % g == 0 and (g == 1 or ch // g >= 4)), ch)
