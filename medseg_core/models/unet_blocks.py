"""Layers that the U-Net is built from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSE = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAXPOOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
LINEAR = {2: "bilinear", 3: "trilinear"}


class Style:
    """The choices that every layer shares, and the layers made from them."""

    def __init__(self, dims: int, act: str, padding: str) -> None:
        self.dims, self.act, self.padding = dims, act, padding

    def conv(self, in_ch: int, out_ch: int) -> list[nn.Module]:
        """A 3×3 convolution without a bias: a norm follows it."""
        pad = [0 if self.padding == "valid" else 1] * self.dims
        layers: list[nn.Module] = []
        if self.padding == "circular":
            pad[-1] = 0
            layers.append(CircularColumns())
        conv = CONV[self.dims](in_ch, out_ch, 3, padding=tuple(pad), bias=False)
        slope = {"relu": 0.0, "leaky": 0.01}[self.act]
        nn.init.kaiming_normal_(conv.weight, a=slope, nonlinearity="leaky_relu")
        return [*layers, conv]

    def linear(self, in_ch: int, out_ch: int) -> nn.Module:
        conv = CONV[self.dims](in_ch, out_ch, 1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
        nn.init.zeros_(conv.bias)
        return conv

    def normalise(self, channels: int) -> nn.Module:
        return BATCH[self.dims](channels)

    def activate(self) -> nn.Module:
        return nn.ReLU(inplace=True) if self.act == "relu" else nn.LeakyReLU(0.01, inplace=True)


class Block(nn.Module):
    """``convs`` times (convolution, norm, activation), with the shortcut of its ``kind``."""

    def __init__(self, style: Style, in_ch: int, width: int, convs: int, kind: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(convs):
            layers += [*style.conv(in_ch if i == 0 else width, width), style.normalise(width)]
            if i < convs - 1:
                layers.append(style.activate())
        self.kind, self.layers, self.act = kind, nn.Sequential(*layers), style.activate()
        self.shortcut = nn.Identity()
        if kind == "residual" and in_ch != width:
            self.shortcut = style.linear(in_ch, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return self.act(y + self.shortcut(crop(x, y)) if self.kind == "residual" else y)


class CircularColumns(nn.Module):
    """One more column on both sides of the last axis, as if it closed on itself."""

    def forward(self, x: Tensor) -> Tensor:
        return _Wrap.apply(x)


class _Wrap(torch.autograd.Function):
    # Autograd's own backward of three slices fills and adds three full maps; F.pad does the same.
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.cat((x[..., -1:], x, x[..., :1]), -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        inner = grad[..., 1:-1].clone()
        inner[..., -1:] += grad[..., :1]
        inner[..., :1] += grad[..., -1:]
        return inner


class Interpolate(nn.Module):
    """Double every axis by linear interpolation; circular columns stay closed."""

    def __init__(self, mode: str, circular: bool) -> None:
        super().__init__()
        self.mode, self.wrap = mode, CircularColumns() if circular else None

    def forward(self, x: Tensor) -> Tensor:
        if self.wrap is None:
            return F.interpolate(x, scale_factor=2, mode=self.mode, align_corners=False)
        x = F.interpolate(self.wrap(x), scale_factor=2, mode=self.mode, align_corners=False)
        return x[..., 2:-2]


def upsample(style: Style, in_ch: int, out_ch: int, how: str) -> nn.Module:
    if how == "transpose":
        layer = TRANSPOSE[style.dims](in_ch, out_ch, 2, stride=2)
        # Kernel = stride: each output pixel reads every input channel exactly once.
        nn.init.normal_(layer.weight, std=in_ch**-0.5)
        nn.init.zeros_(layer.bias)
        return layer
    double = Interpolate(LINEAR[style.dims], style.padding == "circular")
    return nn.Sequential(style.linear(in_ch, out_ch), double)


def crop(x: Tensor, like: Tensor) -> Tensor:
    """Central part of x with the spatial size of ``like``."""
    if x.shape[2:] == like.shape[2:]:
        return x
    cut = []
    for a, b in zip(x.shape[2:], like.shape[2:], strict=True):
        cut.append(slice((a - b) // 2, (a - b) // 2 + b))
    return x[(..., *cut)]
