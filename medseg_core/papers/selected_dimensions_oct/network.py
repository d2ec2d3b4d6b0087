"""Networks that read an image in all of its axes and answer in some of them only."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from medseg_core import checks
from medseg_core.papers.selected_dimensions_oct.blocks import (
    NORMS,
    Funnel,
    ResBlock,
    conv,
    upsampling,
)

FUNNELS = ("all", "first", "none")


class SelectedDimNet(nn.Module):
    r"""Dense prediction in selected dimensions, as logits.

    An image of N axes becomes an answer in M < N of them; in 2-D, one answer per column. An encoder
    halves all axes until one pixel of the dropped ones is left, and sees everything. A decoder
    doubles only the kept axes again. At every level of the encoder a `Funnel` squeezes the dropped
    axes out, and the decoder reads its output where a U-Net would read a skip connection:

    .. math:: d_l = R\bigl(W_l\,[\,U(d_{l+1}),\ \mathrm{funnel}_l(e_l)\,]\bigr),
              \qquad e_{l+1} = R(D(e_l)).

    The paper's baselines are the same class: base 1 is ``encoder=False, funnels="first"`` (one
    funnel, a classifier of 1×1 blocks, no decoder), base 2 is ``funnels="none"``.

    Args:
        height: pixels of every dropped axis, a power of two (512 in the paper); the encoder halves
            log2(height) times.
        ch: channels per level, fine to coarse, log2(height) + 1 of them; a funnel keeps those of
            the level that it leaves. Without the encoder only the first is used.
        out_ch: answers per position.
        encoder: False leaves encoder and decoder out.
        funnels: "all" levels, the "first" (finest) only, or "none".
        head_ch: width of the classifier that takes the decoder's place without an encoder (1024 in
            the paper).
        norm: "batch", or "group" (groups of four channels or more) for batches of one image, which
            takes its mean and variance over the whole map, so that every column learns something of
            all others, whatever the convolutions' reach.
        spatial_dims: N, 2 or 3.
        drop: the axes to give up, counted among the spatial ones; at least one, not all.

    Not stated in the paper: the norm; norm and ReLU before the convolutions; a transposed
    convolution of stride 2 for "1×2 upsampling followed by 1×2 convolutions"; the initialisation
    (Kaiming).

    Raises:
        ValueError: options that do not fit together; in ``forward`` a dropped axis that is not
            ``height``, or a kept one that the encoder cannot halve as often.

    Source: Liefers et al. 2019, section 3.2.

    Taught in: selected-dimensions-oct.

    >>> net = SelectedDimNet(64, (12, 16, 24, 32, 48, 64, 64), out_ch=3)
    >>> sum(p.numel() for p in net.parameters())
    701111
    >>> net(torch.zeros(1, 1, 64, 128)).shape  # the dropped axis is gone
    torch.Size([1, 3, 128])
    """

    def __init__(
        self,
        height: int,
        ch: Sequence[int],
        out_ch: int,
        encoder: bool = True,
        funnels: str = "all",
        *,
        head_ch: int = 1024,
        norm: str = "batch",
        spatial_dims: int = 2,
        drop: Sequence[int] = (0,),
    ) -> None:
        super().__init__()
        checks.choice(spatial_dims, "spatial_dims", (2, 3))
        checks.choice(funnels, "funnels", FUNNELS)
        checks.choice(norm, "norm", NORMS)
        self.drop = _dropped(drop, spatial_dims)
        self.height, self.levels, self.norm = height, _log2(height), norm
        levels, ch = self.levels, tuple(int(c) for c in ch)
        if len(ch) != levels + 1 or min(out_ch, head_ch, *ch) < 1:
            raise ValueError(
                f"ch must have log2(height) + 1 = {levels + 1} entries, and they, out_ch and "
                f"head_ch be at least 1; got {ch}, {out_ch}, {head_ch}"
            )
        if not encoder and funnels != "first":
            raise ValueError(
                f'without an encoder there is one level: funnels must be "first", got {funnels!r}'
            )
        everywhere = (3,) * spatial_dims
        where = {"spatial_dims": spatial_dims, "drop": self.drop, "norm": norm}
        one = (1,) * spatial_dims
        with_funnel = {"all": range(levels), "first": range(1), "none": range(0)}[funnels]

        self.stem = conv(1, ch[0], everywhere)
        self.blocks = nn.ModuleList([ResBlock(ch[0], everywhere, norm)])
        self.funnels = nn.ModuleDict(
            {str(level): Funnel(ch[level], levels - level, **where) for level in with_funnel}
        )
        self.downs, self.ups, self.joins = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.decoders = nn.ModuleList()
        if encoder:
            kept = tuple(1 if axis in self.drop else 2 for axis in range(spatial_dims))
            along = tuple(1 if axis in self.drop else 3 for axis in range(spatial_dims))
            for level in range(levels):
                two = (2,) * spatial_dims
                self.downs.append(conv(ch[level], ch[level + 1], two, stride=two))
                self.blocks.append(ResBlock(ch[level + 1], everywhere, norm))
                self.ups.append(upsampling(ch[level + 1], ch[level], kept))
                # Without a funnel there is nothing to join.
                both = 2 * ch[level]
                joined = level in with_funnel
                self.joins.append(conv(both, ch[level], one) if joined else nn.Identity())
                self.decoders.append(ResBlock(ch[level], along, norm))
            self.bottom = nn.Sequential(ResBlock(ch[-1], one, norm), ResBlock(ch[-1], one, norm))
            self.head = conv(ch[0], out_ch, one)
        else:
            self.head = nn.Sequential(
                conv(ch[0], head_ch, one),
                ResBlock(head_ch, one, norm),
                ResBlock(head_ch, one, norm),
                conv(head_ch, out_ch, one),
            )
        if spatial_dims == 2:
            self.to(memory_format=torch.channels_last)  # trains a sixth faster on a CPU

    def forward(self, x: Tensor, off: Collection[int] = ()) -> Tensor:
        """(B, 1, *S) -> logits (B, out_ch, *kept axes of S).

        ``off`` names levels whose funnel is switched off: its output is replaced by zeros.
        """
        self._check(x, off)
        x = self.blocks[0](self.stem(x))
        shortcuts = {0: self._funnel(0, x, off)}
        if not self.downs:
            return self._squeeze(self.head(shortcuts[0]))
        for level, (down, block) in enumerate(zip(self.downs, self.blocks[1:], strict=True), 1):
            x = block(down(x))
            shortcuts[level] = self._funnel(level, x, off)
        x = self.bottom(x)  # (B, C, 1, W / height)
        for level in reversed(range(self.levels)):
            x = self.ups[level](x)
            if shortcuts[level] is not None:
                x = torch.cat((x, shortcuts[level]), 1)
            x = self.decoders[level](self.joins[level](x))
        return self._squeeze(self.head(x))

    def _funnel(self, level: int, x: Tensor, off: Collection[int]) -> Tensor | None:
        if str(level) not in self.funnels:
            return None
        out = self.funnels[str(level)](x)  # (B, C, 1, W / 2**level)
        return torch.zeros_like(out) if level in off else out

    def _squeeze(self, x: Tensor) -> Tensor:
        # (B, out_ch, 1, W) -> (B, out_ch, W)
        return x.squeeze(tuple(2 + axis for axis in self.drop))

    def _check(self, x: Tensor, off: Collection[int]) -> None:
        dims = len(self.stem.kernel_size)
        checks.shape(x, "x", "B 1 " + " ".join("DHW"[-dims:]))
        step = self.height if self.downs else 1
        for axis, size in enumerate(x.shape[2:]):
            if axis in self.drop and size != self.height:
                raise ValueError(
                    f"x must have height = {self.height} pixels in its dropped axis {axis}, "
                    f"got {size}"
                )
            if axis not in self.drop and (size < 1 or size % step):
                raise ValueError(
                    f"x must have a multiple of height = {step} pixels in its kept axis {axis}, "
                    f"got {size}; next size: {max(step, -(-size // step) * step)}"
                )
        bottom = len(x) * math.prod(
            1 if axis in self.drop else n // step for axis, n in enumerate(x.shape[2:])
        )
        if self.training and self.norm == "batch" and bottom == 1:
            raise ValueError(
                "x must hold more than one image: at the bottom nothing but one pixel is left for "
                f'norm="batch", got shape {tuple(x.shape)}; use a larger batch or norm="group"'
            )
        unknown = {str(level) for level in off} - set(self.funnels)
        if unknown:
            raise ValueError(f"off must name levels {[*self.funnels]}, got {sorted(unknown)}")


def _log2(height: int) -> int:
    depth = int(math.log2(height)) if height >= 2 else 0
    if depth == 0 or 2**depth != height:
        raise ValueError(f"height must be a power of two, at least 2, got {height}")
    return depth


def _dropped(drop: Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    axes = tuple(drop)
    if not 0 < len(set(axes)) == len(axes) < spatial_dims or not set(axes) <= {
        *range(spatial_dims)
    }:
        raise ValueError(
            f"drop must name some of the axes 0 to {spatial_dims - 1}, and not all, got {drop!r}"
        )
    return tuple(sorted(axes))
