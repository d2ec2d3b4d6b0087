"""Two pictures that the chapter begins with: what grey values alone can do, and a toy image.

Taught in: bifseg-interactive.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg_core.papers.bifseg_interactive.crf import Cut
from medseg_core.papers.bifseg_interactive.experiment import Settings
from medseg_core.papers.bifseg_interactive.seed_models import boykov_jolly
from medseg_core.papers.bifseg_interactive.sessions import overlap


def best_grey_cut(image: Tensor, strokes: Tensor, truth: Tensor, s: Settings) -> tuple[Tensor, Cut]:
    """The best of many grey-value cuts, chosen with the truth in hand: labels (1,D,H,W), setting.

    Args:
        image: (1,1,D,H,W).
        strokes: (1,D,H,W): 1 object, 0 background, 255 none.
        truth: (D,H,W) bool; nothing that a user could know chooses better.
        s: every other value of its grids of λ and σ is tried.
    """
    grid = itertools.product(s.lams[1:10:2], s.sigmas[1:-1:2] or s.sigmas)
    cuts = [Cut(lam, sigma, s.connectivity) for lam, sigma in grid]
    tried = [boykov_jolly(image, strokes, cut) for cut in cuts]
    best = max(range(len(cuts)), key=lambda i: float(overlap(tried[i], truth)))
    return tried[best], cuts[best]


def toy_image(gen: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """An organ, a neighbour of its grey that nearly touches it, and a network that knows no better.

    Returns:
        Image and P(object), both (1,1,H,W), and scribbles (1,H,W): one stroke on the organ (1), one
        on the neighbour (0). The network has learnt that bright things are objects.
    """
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(56.0), indexing="ij")
    organ = ((rows - 20) / 13) ** 2 + ((columns - 19) / 12) ** 2 < 1
    neighbour = ((rows - 20) / 9) ** 2 + ((columns - 41) / 8.6) ** 2 < 1
    noise = 0.004 * torch.randn(40, 56, generator=gen)
    image = (0.25 + 0.5 * (organ | neighbour) + noise)[None, None]
    smooth = F.avg_pool2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), 5, 1)
    scribbles = torch.full((1, 40, 56), 255)
    scribbles[0, 14:27, 41], scribbles[0, 12:28, 16] = 0, 1
    return image, torch.sigmoid(9 * (smooth - 0.48)), scribbles
