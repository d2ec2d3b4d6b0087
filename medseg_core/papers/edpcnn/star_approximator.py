"""The network that learns to imitate dynamic programming on a star pattern."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg_core.models.unet import UNet


class StarApproximator(nn.Module):
    r"""F: from a map on star lines to one softmax per line over the radius index.

    The map's differences :math:`h(n,i) = g(n,i) - g(n,i-1)` are what the dynamic programme sees, a
    constant per map cannot matter; they form an image with rows = radius and columns = angle, which
    a small padded U-Net reads (three poolings, widths ``width * 2**level``). Source: Nguyen and
    Ray 2019, section 3.3.

    Args:
        width: channels of the first level (the paper's "base channels").
        circular: let the angle close on itself in every convolution; False pads it with zeros.

    The closure is exact where 8 divides N; otherwise the lines are repeated up to the next
    multiple, half of them before the first and half behind the last, and cut off again.

    >>> net = StarApproximator()
    >>> sum(p.numel() for p in net.parameters())
    121033
    >>> net(torch.zeros(10, 32, 29)).shape  # (B, N, M + 1) -> (B, N, M)
    torch.Size([10, 32, 28])

    Taught in: edpcnn.
    """

    def __init__(self, width: int = 8, circular: bool = True) -> None:
        super().__init__()
        widths = tuple(width * 2**level for level in range(4))
        self.step, self.circular = 2 ** (len(widths) - 1), circular
        self.unet = UNet(2, 1, 1, widths, padding="circular" if circular else "same")

    def forward(self, g: Tensor) -> Tensor:
        """g (B, N, M+1), index 0 nearest the centre -> logits (B, N, M); class i-1 is sample i."""
        if g.ndim != 3 or g.shape[-1] < 2:
            raise ValueError(f"g must be (B, N, M + 1) with M >= 1, got shape {tuple(g.shape)}")
        image = g.diff(dim=-1).transpose(1, 2)[:, None]  # (B, 1, M, N)
        m, n = image.shape[2:]
        left, right = _halves(-n % self.step)
        top, bottom = _halves(-m % self.step)
        image = self._pad(image, left, right, top, bottom)
        logits = self.unet(image)[:, 0, top : top + m, left : left + n]  # (B, M, N)
        return logits.transpose(1, 2)

    def _pad(self, x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
        if left or right:
            if self.circular:
                n = x.shape[-1]
                columns = torch.arange(-left, n + right, device=x.device) % n
                x = x[..., columns]
            else:
                x = F.pad(x, (left, right))
        return F.pad(x, (0, 0, top, bottom), mode="replicate") if top or bottom else x


def _halves(n: int) -> tuple[int, int]:
    return n // 2, n - n // 2
