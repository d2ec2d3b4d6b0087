"""What a network draws, and what F makes of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg_core.papers.edpcnn.synthetic_gradient import SyntheticGradient
from medseg_core.solvers.star_pattern import star_truth, warp


@torch.no_grad()
def output_maps(model: nn.Module, images: Tensor, batch: int) -> Tensor:
    """Maps of images (N,1,H,W), ``batch`` at a time and in eval mode: (N,1,H,W) on the CPU.

    Taught in: edpcnn.
    """
    model.eval()
    device = next(model.parameters()).device
    return torch.cat([model(x.to(device)).cpu() for x in images.split(batch)])


def look_inside(
    model: nn.Module, sg: SyntheticGradient, image: Tensor, mask: Tensor, points: Tensor
) -> dict[str, Tensor]:
    """A moment of the training, seen on a few images; the model is left in training mode.

    Args:
        model: the network that F's gradient trains.
        sg: F and its solver.
        image, mask: (B,1,H,W).
        points: (B,N,M+1,2), their stars.

    Returns:
        On the CPU: "maps" (B,1,H,W), "g" (B,N,M+1) the maps read along the stars, "v_star" (B,N)
        the true answers in 1..M, "dp" (B,N) the solver's classes, "softmax" (B,N,M) F's, in eval
        mode as the outer loss has it, and "gradient" (B,N,M+1) the synthetic one.

    Taught in: edpcnn.
    """
    maps = output_maps(model, image, len(image))
    model.train()
    device = next(model.parameters()).device
    g, v_star = warp(maps, points), star_truth(mask, points)[0]
    gradient = sg.gradient(g.to(device), v_star.to(device) - 1)
    with torch.no_grad():
        softmax = sg.approximator.eval()(g.to(device)).softmax(-1)
    found = {"maps": maps, "g": g, "v_star": v_star, "dp": sg.solver(g)}
    return found | {"softmax": softmax.cpu(), "gradient": gradient.cpu()}
