"""Cuts with another formula for the links; with the formula that is meant they are the CRF's."""

import numpy as np
import pytest
import torch

from medseg_core import rng
from medseg_core.papers.bifseg_interactive.crf import Cut, crf_graphcut
from medseg_core.papers.bifseg_interactive.methods import Case
from medseg_core.papers.bifseg_interactive.misprint import links, mean_dice
from medseg_core.papers.bifseg_interactive.sessions import overlap


def test_links_by_hand():
    image = torch.tensor([[0.1, 0.4], [0.5, 0.9]])[None, None, None]  # (1,1,1,2,2)
    found = links(image, lambda a, b, r: (b - a) / r, 6)
    assert found.shape == (1, 3, 1, 2, 2)
    pairs = [found[0, :, 0, 0, 0].tolist(), found[0, :, 0, 1, 0].tolist()]
    assert any(x == pytest.approx(0.3) for x in pairs[0])  # to the right
    assert any(x == pytest.approx(0.4) for x in pairs[0])  # down
    assert any(x == pytest.approx(0.4) for x in pairs[1])  # 0.9 − 0.5


@pytest.mark.parametrize("connectivity", [6, 26])
def test_as_meant_it_is_the_cut_of_the_chapter(connectivity):
    gen = rng.generator(0)
    prob, images = (torch.rand(2, 1, 5, 6, 7, generator=gen) for _ in range(2))
    truth = torch.rand(2, 1, 5, 6, 7, generator=gen) > 0.5
    cases = [Case(torch.nn.Identity(), x[None], p[None]) for x, p in zip(images, prob, strict=True)]
    cut = Cut(0.4, 0.3, connectivity)

    def meant(here, there, r):
        return torch.exp(-((here - there) ** 2) / (2 * cut.sigma**2)) / r

    own = [crf_graphcut(c.prob, c.image, cut) for c in cases]
    expected = np.mean([float(overlap(y, t[0])) for y, t in zip(own, truth, strict=True)])
    data = {"mask": truth}
    assert mean_dice(meant, cut.lam, cases, data, connectivity) == pytest.approx(expected)
    assert mean_dice(meant, 0.0, cases, data, connectivity) != pytest.approx(expected)
