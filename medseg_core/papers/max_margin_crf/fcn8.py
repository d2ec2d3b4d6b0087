"""FCN-8: a VGG encoder whose last three stages are scored and added up, coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg_core import checks


class FCN8(nn.Module):
    r"""Fully convolutional network with an output stride of 8 (Long et al. 2015), returning logits.

    Five stages of 3×3 convolutions, a 2×2 max pooling after each; two convolutions in place of
    VGG's dense layers, with dropout; 1×1 scores :math:`s_5, s_4, s_3` on the last three stages,
    summed with learnt upsampling :math:`U`:
    :math:`a = U_8\bigl(s_3 + U_2(s_4 + U_2\,s_5)\bigr)`.
    After every convolution but the scores comes a group norm of four groups, which the original
    lacks.

    Args:
        in_ch: channels of the image.
        out_ch: channels of the logits.
        widths: channels of the five stages; the default is VGG-16's.
        convs: convolutions per stage.
        fc: channels of the two layers that were dense.
        fc_kernel: kernel of the first of them, odd.
        dropout: probability after each of them.

    The upsampling starts as bilinear interpolation, the scores at zero. Padding keeps sizes, where
    the original adds 100 pixels and crops.

    Raises:
        ValueError: an impossible option, or an image that 32 does not divide.

    Source: Long, Shelhamer and Darrell 2015, section 4.

    Taught in: max-margin-crf.

    >>> net = FCN8(1, 2, widths=(16, 32, 64, 64, 64), convs=(1, 1, 2, 2, 2), fc=128, fc_kernel=3)
    >>> sum(p.numel() for p in net.parameters())
    300662
    >>> net(torch.zeros(1, 1, 96, 96)).shape
    torch.Size([1, 2, 96, 96])
    """

    def __init__(
        self,
        in_ch: int,
        out_ch: int = 2,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        convs: Sequence[int] = (2, 2, 3, 3, 3),
        fc: int = 4096,
        fc_kernel: int = 7,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        checks.between(dropout, "dropout", 0, 1)
        if len(widths) != 5 or len(convs) != 5:
            raise ValueError(
                f"widths and convs must have five entries, got {len(widths)} and {len(convs)}"
            )
        if fc_kernel % 2 == 0:
            raise ValueError(f"fc_kernel must be odd, got {fc_kernel}")

        def conv(a: int, b: int, kernel: int) -> list[nn.Module]:
            layer = nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            return [layer, nn.GroupNorm(4, b), nn.ReLU(inplace=True)]

        self.stages = nn.ModuleList()
        for a, b, n in zip((in_ch, *widths[:-1]), widths, convs, strict=True):
            layers = [layer for k in range(n) for layer in conv(b if k else a, b, 3)]
            self.stages.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        self.fc = nn.Sequential(
            *conv(widths[4], fc, fc_kernel),
            nn.Dropout(dropout),
            *conv(fc, fc, 1),
            nn.Dropout(dropout),
        )
        # From coarse to fine: the score of each stage, and how its sum is brought to the next.
        self.scores = nn.ModuleList(nn.Conv2d(c, out_ch, 1) for c in (fc, widths[3], widths[2]))
        for score in self.scores:
            nn.init.zeros_(score.weight)
            nn.init.zeros_(score.bias)
        self.ups = nn.ModuleList(bilinear_upsampling(out_ch, factor) for factor in (2, 2, 8))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_ch, H, W) -> logits (N, out_ch, H, W)."""
        if x.ndim != 4 or x.shape[-2] % 32 or x.shape[-1] % 32:
            raise ValueError(
                f"x must be (N,C,H,W) with sides divisible by 32, got {tuple(x.shape)}"
            )
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        maps[4] = self.fc(maps[4])
        total: Tensor | None = None
        for score, up, level in zip(self.scores, self.ups, maps[:1:-1], strict=True):
            total = up(score(level) if total is None else total + score(level))
        return total


def bilinear_upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    """A learnable ×``factor`` upsampling (even factor) that starts as bilinear interpolation.

    Kernel 2·factor, stride factor; the tent :math:`1-|k-(2f-1)/2|/f` in each direction, channels
    kept apart.
    """
    up = nn.ConvTranspose2d(channels, channels, 2 * factor, factor, factor // 2, bias=False)
    tent = 1 - (torch.arange(2 * factor) - factor + 0.5).abs() / factor
    with torch.no_grad():
        up.weight.zero_()
        for c in range(channels):
            up.weight[c, c] = tent[:, None] * tent
    return up
