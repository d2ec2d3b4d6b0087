"""The book's one U-Net: 2-D or 3-D, with the few options in which published ones differ."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg_core import checks
from medseg_core.models.unet_blocks import MAXPOOL, Block, Style, crop, upsample


class UNet(nn.Module):
    r"""Encoder, decoder and skips between them (Ronneberger et al. 2015), returning logits.

    A level is a block of ``convs`` times (3×3 convolution, batch norm, activation).
    ``len(widths) - 1`` maximum poolings halve every axis; the decoder mirrors them.

    Args:
        spatial_dims: 2 or 3.
        in_ch: channels of the image.
        out_ch: channels of the logits.
        widths: channels per level, fine to coarse.
        convs: convolutions per block.
        act: "relu" or "leaky" (slope 0.01).
        block: "plain", or "residual": the block's input is added (through a 1×1 convolution where
            the channels differ) before the last activation.
        up: "transpose" (kernel 2, stride 2), or "bilinear" interpolation with a 1×1 convolution,
            computed before it, where it costs less and means the same.
        skip: "concat" or "sum".
        padding: "same" (zeros); "valid" (none: the logits are smaller, see ``output_size``);
            "circular": the LAST axis closes on itself (columns = angle), zeros on the others.
        dropout: probability, after the deepest block.

    Initialisation: Kaiming normal (He et al. 2015), fan-in, with the gain of the activation; gain 1
    where none follows (upsampling, shortcuts, head); biases zero. In 2-D the weights lie
    channels-last, which trains a fifth to a third faster on a CPU.

    Raises:
        ValueError: an unknown option, or an image that the poolings do not divide.

    Taught in: edpcnn, ipm-surfaces, selected-dimensions-oct.

    >>> net = UNet(2, 1, 2, widths=(8, 16, 32, 64))
    >>> sum(p.numel() for p in net.parameters())
    121042
    >>> net(torch.zeros(1, 1, 64, 64)).shape
    torch.Size([1, 2, 64, 64])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_ch: int,
        out_ch: int,
        widths: Sequence[int] = (32, 64, 128, 256),
        *,
        convs: int = 2,
        act: str = "relu",
        block: str = "plain",
        up: str = "transpose",
        skip: str = "concat",
        padding: str = "same",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        checks.choice(spatial_dims, "spatial_dims", (2, 3))
        checks.choice(act, "act", ("relu", "leaky"))
        checks.choice(block, "block", ("plain", "residual"))
        checks.choice(up, "up", ("transpose", "bilinear"))
        checks.choice(skip, "skip", ("concat", "sum"))
        checks.choice(padding, "padding", ("same", "valid", "circular"))
        checks.between(dropout, "dropout", 0.0, 1.0)
        widths = tuple(int(w) for w in widths)
        if not widths or min(in_ch, out_ch, convs, *widths) < 1:
            raise ValueError(
                "in_ch, out_ch, convs and every entry of widths must be at least 1, got "
                f"in_ch={in_ch}, out_ch={out_ch}, convs={convs}, widths={widths}"
            )
        self.spatial_dims, self.widths, self.convs = spatial_dims, widths, convs
        self.skip, self.padding = skip, padding
        style = Style(spatial_dims, act, padding)

        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        channels = in_ch
        for level, width in enumerate(widths):
            self.encoders.append(Block(style, channels, width, convs, block))
            channels = width
            if level < len(widths) - 1:
                self.downs.append(MAXPOOL[spatial_dims](2))
        self.dropout = nn.Dropout(dropout)
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        for width in widths[-2::-1]:
            self.ups.append(upsample(style, channels, width, up))
            joined = width if skip == "sum" else 2 * width
            self.decoders.append(Block(style, joined, width, convs, block))
            channels = width
        self.head = style.linear(channels, out_ch)
        if spatial_dims == 2:
            self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_ch, *S) -> logits (N, out_ch, *S'), S' = S unless the padding is valid."""
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """(N, in_ch, *S) -> what the head reads, (N, widths[0], *S')."""
        if x.ndim != self.spatial_dims + 2:
            raise ValueError(
                f"x must have {self.spatial_dims + 2} axes (N, C, *S), got shape {tuple(x.shape)}"
            )
        self.output_size(x.shape[2:])
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=False):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.dropout(self.encoders[-1](x))
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = up(x)
            fine = crop(skips.pop(), x)
            x = decoder(x + fine if self.skip == "sum" else torch.cat((fine, x), 1))
        return x

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Size of the logits for an image of ``size``; ValueError where a pooling meets an odd one.

        With valid padding each block loses ``2 * convs`` pixels per axis: 572 becomes 388, and 396
        becomes 212, with five levels and two convolutions.
        """
        levels = len(self.widths) - 1
        if self.padding != "valid":
            step = 2**levels
            if any(s < 1 or s % step for s in size):
                raise ValueError(
                    f"image size {tuple(size)} must be divisible by {step} ({levels} poolings); "
                    f"next size: {tuple(-(-s // step) * step for s in size)}"
                )
            return tuple(size)
        out = tuple(_valid_size(s, levels, 2 * self.convs) for s in size)
        if None in out:
            raise ValueError(
                f"image size {tuple(size)} does not pass {levels} poolings with valid padding; "
                f"next size: {tuple(_next_valid(s, levels, 2 * self.convs) for s in size)}"
            )
        return out


def _valid_size(size: int, levels: int, loss: int) -> int | None:
    for _ in range(levels):
        size -= loss
        if size < 2 or size % 2:
            return None
        size //= 2
    size -= loss
    if size < 1:
        return None
    for _ in range(levels):
        size = 2 * size - loss
        if size < 1:
            return None
    return size


def _next_valid(size: int, levels: int, loss: int) -> int:
    while _valid_size(size, levels, loss) is None:
        size += 1
    return size
