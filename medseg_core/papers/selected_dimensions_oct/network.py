"""Networks that read an image in all of its axes and answer in some of them only."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from medseg_core import checks
from medseg_core.models.unet_blocks import BATCH, CONV, TRANSPOSE

FUNNELS = ("all", "first", "none")
NORMS = ("batch", "group", None)
NORM_LAYERS = (nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm)


class ResBlock(nn.Module):
    """Two convolutions and the identity: x + conv(relu(norm(conv(relu(norm(x)))))), size kept.

    ``kernel`` has one odd entry per spatial axis, such as (3, 3) or (1, 3). Liefers et al. 2019,
    section 3.2; norm and its place (before the convolution) are not stated there.
    """

    def __init__(self, ch: int, kernel: Sequence[int] = (3, 3), norm: str | None = "batch") -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [_norm(ch, norm, len(kernel)), nn.ReLU(), _conv(ch, ch, kernel)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Funnel(nn.Module):
    """Pool the dropped axes away, leave the others alone: ``n_steps`` times halve, then ResBlock.

    One step is a convolution with kernel 2 and stride 2 in the dropped axes, kernel 1 in the
    others. In 2-D with ``drop=(0,)``: (B, C, 2**n_steps, W) -> (B, C, 1, W). Without steps it is
    the identity. The shortcut of Liefers et al. 2019, section 3.2; taught in
    ``selected-dimensions-oct``.
    """

    def __init__(
        self,
        ch: int,
        n_steps: int,
        *,
        spatial_dims: int = 2,
        drop: Sequence[int] = (0,),
        norm: str | None = "batch",
    ) -> None:
        super().__init__()
        checks.between(n_steps, "n_steps", 0, None)
        halve = tuple(2 if axis in drop else 1 for axis in range(spatial_dims))
        steps: list[nn.Module] = []
        for _ in range(n_steps):
            steps += [_conv(ch, ch, halve, stride=halve), ResBlock(ch, (3,) * spatial_dims, norm)]
        self.steps = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 2**n_steps, W) -> (B, C, 1, W), in 2-D with the rows dropped."""
        return self.steps(x)


class SelectedDimNet(nn.Module):
    r"""Dense prediction in selected dimensions (Liefers et al. 2019, section 3.2), as logits.

    An image of N axes becomes an answer in M < N of them; in 2-D, one answer per column. An encoder
    halves all axes ``levels`` times and sees everything. A decoder doubles only the kept axes
    again. At every level of the encoder a `Funnel` squeezes the dropped axes out, and the decoder
    reads its output where a U-Net would read a skip connection:

    .. math:: d_l = R\bigl(W_l\,[\,U(d_{l+1}),\ \mathrm{funnel}_l(e_l)\,]\bigr),
              \qquad e_{l+1} = R(D(e_l)).

    The paper's baselines are the same class: base 1 is ``encoder=False, funnels="first"`` (one
    funnel, a classifier of 1×1 blocks, no decoder), base 2 is ``funnels="none"``. Taught in
    ``selected-dimensions-oct``.

    Args:
        height: pixels of every dropped axis, a power of two.
        levels: halvings in the encoder, at most log2(height), which is the paper's (512 and 9).
            With fewer, a funnel at the bottom squeezes what is left.
        ch: channels per level, fine to coarse, ``levels + 1`` of them; a funnel keeps those of the
            level that it leaves. Without the encoder only the first is used.
        out_ch: answers per position.
        encoder: False leaves encoder and decoder out.
        funnels: "all" levels, the "first" (finest) only, or "none".
        in_ch: channels of the image.
        head_ch: width of the classifier that takes the decoder's place without an encoder (1024 in
            the paper).
        norm: "batch"; "group" (groups of four channels or more), for batches of one image; or None.
            "group" takes its mean and variance over the whole map, so that every column learns
            something of all others, whatever the convolutions' reach.
        spatial_dims: N, 2 or 3.
        drop: the axes to give up, counted among the spatial ones; at least one, not all.

    Not stated in the paper: the norm; norm and ReLU before the convolutions; a transposed
    convolution of stride 2 for "1×2 upsampling followed by 1×2 convolutions"; the initialisation
    (Kaiming).

    Raises:
        ValueError: options that do not fit together; in ``forward`` a dropped axis that is not
            ``height`` or a kept one that ``2**levels`` does not divide.

    >>> net = SelectedDimNet(64, 6, (12, 16, 24, 32, 48, 64, 64), out_ch=3)
    >>> sum(p.numel() for p in net.parameters())
    701111
    >>> net(torch.zeros(1, 1, 64, 128)).shape  # the dropped axis is gone
    torch.Size([1, 3, 128])
    """

    def __init__(
        self,
        height: int,
        levels: int,
        ch: Sequence[int],
        out_ch: int,
        encoder: bool = True,
        funnels: str = "all",
        *,
        in_ch: int = 1,
        head_ch: int = 1024,
        norm: str | None = "batch",
        spatial_dims: int = 2,
        drop: int | Sequence[int] = 0,
    ) -> None:
        super().__init__()
        checks.choice(spatial_dims, "spatial_dims", (2, 3))
        checks.choice(funnels, "funnels", FUNNELS)
        checks.choice(norm, "norm", NORMS)
        self.drop = _dropped(drop, spatial_dims)
        self.height, self.levels, self.norm = height, levels, norm
        depth = _log2(height)
        ch = tuple(int(c) for c in ch)
        if not 1 <= levels <= depth:
            raise ValueError(f"levels must be 1 to log2(height) = {depth}, got {levels}")
        if len(ch) != levels + 1 or min(in_ch, out_ch, head_ch, *ch) < 1:
            raise ValueError(
                f"ch must have levels + 1 = {levels + 1} entries, and they, in_ch, out_ch and "
                f"head_ch be at least 1; got {ch}, {in_ch}, {out_ch}, {head_ch}"
            )
        if not encoder and funnels != "first":
            raise ValueError(
                f'without an encoder there is one level: funnels must be "first", got {funnels!r}'
            )
        everywhere = (3,) * spatial_dims
        where = {"spatial_dims": spatial_dims, "drop": self.drop, "norm": norm}
        one = (1,) * spatial_dims
        with_funnel = {"all": range(levels), "first": range(1), "none": range(0)}[funnels]

        self.stem = _conv(in_ch, ch[0], everywhere)
        self.blocks = nn.ModuleList([ResBlock(ch[0], everywhere, norm)])
        self.funnels = nn.ModuleDict(
            {str(level): Funnel(ch[level], depth - level, **where) for level in with_funnel}
        )
        self.downs, self.ups, self.joins = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.decoders = nn.ModuleList()
        if encoder:
            kept = tuple(1 if axis in self.drop else 2 for axis in range(spatial_dims))
            along = tuple(1 if axis in self.drop else 3 for axis in range(spatial_dims))
            for level in range(levels):
                two = (2,) * spatial_dims
                self.downs.append(_conv(ch[level], ch[level + 1], two, stride=two))
                self.blocks.append(ResBlock(ch[level + 1], everywhere, norm))
                self.ups.append(_double(ch[level + 1], ch[level], kept))
                # Without a funnel there is nothing to join.
                both = 2 * ch[level]
                joined = level in with_funnel
                self.joins.append(_conv(both, ch[level], one) if joined else nn.Identity())
                self.decoders.append(ResBlock(ch[level], along, norm))
            self.bottom = nn.Sequential(
                Funnel(ch[-1], depth - levels, **where),
                ResBlock(ch[-1], one, norm),
                ResBlock(ch[-1], one, norm),
            )
            self.head = _conv(ch[0], out_ch, one)
        else:
            self.head = nn.Sequential(
                _conv(ch[0], head_ch, one),
                ResBlock(head_ch, one, norm),
                ResBlock(head_ch, one, norm),
                _conv(head_ch, out_ch, one),
            )
        if spatial_dims == 2:
            self.to(memory_format=torch.channels_last)  # trains a sixth faster on a CPU

    def forward(self, x: Tensor, off: Collection[int] = ()) -> Tensor:
        """(B, in_ch, *S) -> logits (B, out_ch, *kept axes of S).

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
        x = self.bottom(x)  # (B, C, 1, W / 2**levels)
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
        checks.shape(x, "x", "B C " + " ".join("DHW"[-dims:]), C=self.stem.in_channels)
        step = 2**self.levels if self.downs else 1
        for axis, size in enumerate(x.shape[2:]):
            if axis in self.drop and size != self.height:
                raise ValueError(
                    f"x must have height = {self.height} pixels in its dropped axis {axis}, "
                    f"got {size}"
                )
            if axis not in self.drop and (size < 1 or size % step):
                raise ValueError(
                    f"x must have a multiple of 2**levels = {step} pixels in its kept axis {axis}, "
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


def receptive_field(model: SelectedDimNet, size: Sequence[int]) -> tuple[int, ...]:
    """How far the input may lie, in pixels along each kept axis, from which a centre answer comes.

    Counted by the gradient of a copy with positive weights and without norms and activations, so
    that nothing cancels and nothing is switched off: the extent of what the convolutions join. (The
    mean and variance of ``norm="group"`` see the whole map on top of it.) An image too small for
    the field cuts it off. Taught in ``selected-dimensions-oct``.

    Args:
        model: the network.
        size: of the image's spatial axes, as ``forward`` takes it.
    """
    linear = copy.deepcopy(model).cpu().double()
    for module in linear.modules():
        for name, child in module.named_children():
            if isinstance(child, (*NORM_LAYERS, nn.ReLU)):
                setattr(module, name, nn.Identity())
    with torch.no_grad():
        for p in linear.parameters():
            p.fill_(1 / p[0].numel() if p.ndim > 1 else 0.0)  # averages: no overflow
    x = torch.zeros(1, model.stem.in_channels, *size, dtype=torch.float64, requires_grad=True)
    out = linear(x)[0, 0]
    out[tuple(n // 2 for n in out.shape)].backward()
    reached = x.grad[0].sum(0) > 0  # (*S)
    kept = [axis for axis in range(reached.ndim) if axis not in model.drop]
    spans = []
    for axis in kept:
        hit = reached.any([a for a in range(reached.ndim) if a != axis]).nonzero()[:, 0]
        spans.append(int(hit[-1] - hit[0]) + 1)
    return tuple(spans)


def _conv(
    in_ch: int, out_ch: int, kernel: Sequence[int], stride: Sequence[int] | int = 1
) -> nn.Module:
    padding = tuple(k // 2 if k % 2 else 0 for k in kernel)
    conv = CONV[len(kernel)](in_ch, out_ch, tuple(kernel), stride=stride, padding=padding)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    nn.init.zeros_(conv.bias)
    return conv


def _double(in_ch: int, out_ch: int, kernel: tuple[int, ...]) -> nn.Module:
    layer = TRANSPOSE[len(kernel)](in_ch, out_ch, kernel, stride=kernel)
    # Kernel = stride: each output pixel reads every input channel exactly once.
    nn.init.normal_(layer.weight, std=in_ch**-0.5)
    nn.init.zeros_(layer.bias)
    return layer


def _norm(ch: int, kind: str | None, dims: int) -> nn.Module:
    if kind is None:
        return nn.Identity()
    if kind == "batch":
        return BATCH[dims](ch)
    # Groups of four channels or more: on a map of one pixel a group of one channel would be zero.
    return nn.GroupNorm(max(g for g in range(1, 9) if ch % g == 0 and (g == 1 or ch // g >= 4)), ch)


def _log2(height: int) -> int:
    depth = int(math.log2(height)) if height >= 2 else 0
    if depth == 0 or 2**depth != height:
        raise ValueError(f"height must be a power of two, at least 2, got {height}")
    return depth


def _dropped(drop: int | Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    axes = (drop,) if isinstance(drop, int) else tuple(drop)
    if not 0 < len(set(axes)) == len(axes) < spatial_dims or not set(axes) <= {
        *range(spatial_dims)
    }:
        raise ValueError(
            f"drop must name some of the axes 0 to {spatial_dims - 1}, and not all, got {drop!r}"
        )
    return tuple(sorted(axes))
