"""The residual U-Net of Isensee et al. (BraTS 2017), with segmentation layers at several depths."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg_core import checks
from medseg_core.models.unet_blocks import CONV

INSTANCE = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}
P_DROP = 0.3  # probability of dropping a whole channel inside a residual module
SEG_LEVELS = 3  # decoder levels with a segmentation layer, from the finest, where there are so many
SLOPE = 0.01  # of the leaky ReLU


class IsenseeUNet(nn.Module):
    r"""Residual context path, localisation path, segmentation layers summed before the activation.

    Context path: level l has ``width·2^l`` channels; a 3×3×3 convolution (stride 2 from the second
    level) enters a pre-activation residual module x + f(x), f = two times (instance norm, leaky
    ReLU, 3×3×3 convolution) with spatial dropout between. Localisation path: nearest ×2 and a
    3×3×3 convolution that halves the channels, the skip beside it, a 3×3×3 and a 1×1×1 convolution
    that halves them again. The three finest levels each have a segmentation layer (1×1×1); their
    maps are upsampled (nearest) and SUMMED to the logits, so that every level is supervised.
    Source: Isensee et al. 2017, figure 1 and section 2.2.

    At the default there are 30 convolutions and 27 instance norms: one norm for each convolution
    but the segmentation layers. Instance norm keeps no running statistics, so ``eval()`` only
    switches dropout off.

    ``forward(x)`` is ``head(features(x))``. ``head``, the finest localisation module with all the
    segmentation layers, is small and reads features at their final resolution: fine-tune it on one
    image with the features computed once.

    Args:
        spatial_dims: 2 or 3.
        in_ch: channels of the image.
        out_ch: channels of the logits; 1 with a sigmoid outside is binary segmentation.
        width: channels of the first level.
        depth: levels, at least 2; every axis of an image must be divisible by 2^(depth−1).

    Initialisation: Kaiming normal (fan-in, gain of the leaky ReLU of slope 0.01); the segmentation
    layers with gain 1 and zero biases.

    Raises:
        ValueError: an option out of range; an image whose size does not fit the levels.

    Taught in: bifseg-interactive.

    >>> net = IsenseeUNet(3, 1, 1, width=8, depth=3)
    >>> sum(p.numel() for p in net.parameters())
    143106
    >>> net(torch.zeros(1, 1, 16, 16, 16)).shape
    torch.Size([1, 1, 16, 16, 16])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_ch: int,
        out_ch: int,
        width: int = 16,
        depth: int = 5,
    ) -> None:
        super().__init__()
        checks.choice(spatial_dims, "spatial_dims", (2, 3))
        checks.between(depth, "depth", 2, None)
        for name, value in (("in_ch", in_ch), ("out_ch", out_ch), ("width", width)):
            checks.between(value, name, 1, None)
        self.spatial_dims, self.depth = spatial_dims, depth
        self.seg_levels = min(SEG_LEVELS, depth - 1)
        widths = [width * 2**level for level in range(depth)]

        self.entries, self.contexts = nn.ModuleList(), nn.ModuleList()
        for level, w in enumerate(widths):
            before = widths[level - 1] if level else in_ch
            self.entries.append(_conv(spatial_dims, before, w, stride=2 if level else 1))
            self.contexts.append(_Context(spatial_dims, w))
        # From the coarsest decoder level to the finest, as they run.
        self.ups, self.localisations = nn.ModuleList(), nn.ModuleList()
        self.segmentations = nn.ModuleList()
        for level in reversed(range(depth - 1)):
            w = widths[level]
            self.ups.append(_conv_norm_act(spatial_dims, 2 * w, w))
            self.localisations.append(
                nn.Sequential(
                    _conv_norm_act(spatial_dims, 2 * w, 2 * w),
                    _conv_norm_act(spatial_dims, 2 * w, w, kernel=1),
                )
            )
            if level < self.seg_levels:
                self.segmentations.append(_segmentation(spatial_dims, w, out_ch))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_ch, *S) -> logits (N, out_ch, *S)."""
        return self.head(self.features(x))

    def features(self, x: Tensor) -> list[Tensor]:
        """What ``head`` reads: ``seg_levels`` maps, coarse to fine.

        The last is the input of the finest localisation module (N, 2·width, *S); those before it
        are the outputs of the coarser decoder levels that have a segmentation layer.
        """
        self._check(x)
        skips = []
        for entry, context in zip(self.entries, self.contexts, strict=True):
            x = context(entry(x))
            skips.append(x)
        skips.pop()
        maps = []
        for up, localise in zip(self.ups[:-1], self.localisations[:-1], strict=True):
            x = localise(torch.cat((up(_double(x)), skips.pop()), 1))
            maps.append(x)
        maps.append(torch.cat((self.ups[-1](_double(x)), skips.pop()), 1))
        return maps[-self.seg_levels :]

    def head(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (N, out_ch, *S) from ``features(x)``: the network's last block."""
        *coarse, fine = features
        maps = [*coarse, self.localisations[-1](fine)]
        logits = self.segmentations[0](maps[0])
        for segment, m in zip(self.segmentations[1:], maps[1:], strict=True):
            logits = _double(logits) + segment(m)
        return logits

    @property
    def last_block(self) -> tuple[str, ...]:
        """Names, as in ``named_parameters()``, of all parameters that ``head`` uses."""
        finest = f"localisations.{self.depth - 2}."
        names = (name for name, _ in self.named_parameters())
        return tuple(n for n in names if n.startswith((finest, "segmentations.")))

    def _check(self, x: Tensor) -> None:
        if x.ndim != self.spatial_dims + 2:
            raise ValueError(
                f"x must have {self.spatial_dims + 2} axes (N, C, *S), got shape {tuple(x.shape)}"
            )
        size, step = tuple(x.shape[2:]), 2 ** (self.depth - 1)
        if any(s < 1 or s % step for s in size):
            raise ValueError(
                f"image size {size} must be divisible by {step} (depth {self.depth}); next size: "
                f"{tuple(max(1, -(-s // step)) * step for s in size)}"
            )
        if math.prod(size) == step ** len(size):
            raise ValueError(
                f"image size {size} leaves one pixel at depth {self.depth}, whose variance is no "
                f"norm; take a larger image or a smaller depth"
            )


class _Context(nn.Module):
    """x + f(x), then the norm and activation with which the map leaves its level."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _norm_act(dims, width),
            _conv(dims, width, width),
            DROPOUT[dims](P_DROP),
            _norm_act(dims, width),
            _conv(dims, width, width),
        )
        self.leave = _norm_act(dims, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(x + self.residual(x))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _conv(dims: int, in_ch: int, out_ch: int, *, kernel: int = 3, stride: int = 1) -> nn.Module:
    # No bias: an instance norm follows each of them, if only after the residual sum.
    conv = CONV[dims](in_ch, out_ch, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, a=SLOPE, nonlinearity="leaky_relu")
    return conv


def _norm_act(dims: int, channels: int) -> nn.Module:
    norm = INSTANCE[dims](channels, affine=True)
    return nn.Sequential(norm, nn.LeakyReLU(SLOPE, inplace=True))


def _conv_norm_act(dims: int, in_ch: int, out_ch: int, *, kernel: int = 3) -> nn.Module:
    return nn.Sequential(_conv(dims, in_ch, out_ch, kernel=kernel), _norm_act(dims, out_ch))


def _segmentation(dims: int, in_ch: int, out_ch: int) -> nn.Module:
    layer = CONV[dims](in_ch, out_ch, 1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    nn.init.zeros_(layer.bias)
    return layer
