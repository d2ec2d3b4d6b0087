"""How far a network looks."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from medseg_core.papers.selected_dimensions_oct.experiment import Settings, network
from medseg_core.papers.selected_dimensions_oct.network import SelectedDimNet

NORM_LAYERS = (nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm)


def receptive_field(model: SelectedDimNet, size: Sequence[int]) -> tuple[int, ...]:
    """How far the input may lie, in pixels along each kept axis, from which a centre answer comes.

    Counted by the gradient of a copy with positive weights and without norms and activations, so
    that nothing cancels and nothing is switched off: the extent of what the convolutions join. (The
    mean and variance of ``norm="group"`` see the whole map on top of it.) An image too small for
    the field cuts it off.

    Args:
        model: the network.
        size: of the image's spatial axes, as ``forward`` takes it.

    Taught in: selected-dimensions-oct.
    """
    linear = copy.deepcopy(model).cpu().double()
    for module in linear.modules():
        for name, child in module.named_children():
            if isinstance(child, (*NORM_LAYERS, nn.ReLU)):
                setattr(module, name, nn.Identity())
    with torch.no_grad():
        for p in linear.parameters():
            p.fill_(1 / p[0].numel() if p.ndim > 1 else 0.0)  # averages: no overflow
    x = torch.zeros(1, 1, *size, dtype=torch.float64, requires_grad=True)
    out = linear(x)[0, 0]
    out[tuple(n // 2 for n in out.shape)].backward()
    reached = x.grad[0, 0] > 0  # (*S)
    kept = [axis for axis in range(reached.ndim) if axis not in model.drop]
    spans = []
    for axis in kept:
        hit = reached.any([a for a in range(reached.ndim) if a != axis]).nonzero()[:, 0]
        spans.append(int(hit[-1] - hit[0]) + 1)
    return tuple(spans)


def influence(
    model: SelectedDimNet, images: Tensor, layer: int, column: int, off: Collection[int] = ()
) -> Tensor:
    """How much one column's answer changes with each pixel: the effective receptive field.

    Args:
        model: the network, in 2-D.
        images: (N, 1, H, W).
        layer, column: of the answer.
        off: levels whose funnel is switched off.

    Returns:
        (N, H, W) absolute gradient, in units of the answer per unit of grey.

    Taught in: selected-dimensions-oct.
    """
    x = images.clone().requires_grad_()
    answer = model(x, off=off)[:, layer, column].sum()
    return torch.autograd.grad(answer, x)[0][:, 0].abs()


def columns_seen(kind: str, s: Settings, height: int, width: int) -> int:
    """Receptive field of a network of the experiment, in columns, for images of this size.

    It does not depend on the number of channels, so a thin network is asked.

    Taught in: selected-dimensions-oct.
    """
    thin = replace(s, height=height, ch=(2,) * height.bit_length(), head_ch=2)
    return receptive_field(network(kind, "layers", thin), (height, width))[0]
