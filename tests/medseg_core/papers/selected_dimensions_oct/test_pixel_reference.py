import math

import torch
from torch.nn import functional as F

from medseg_core.papers.selected_dimensions_oct.pixel_reference import region_borders, region_step
from medseg_core.papers.selected_dimensions_oct.sampler import LossHistorySampler


def test_borders_by_hand():
    # One column of five pixels: regions 0 0 1 2 2, so borders above pixels 2 and 3.
    logits = F.one_hot(torch.tensor([0, 0, 1, 2, 2]), 3).T.float().view(1, 3, 5, 1)
    assert region_borders(logits).flatten().tolist() == [1.5, 2.5]
    assert region_borders(torch.eye(3)[0].view(1, 3, 1, 1).expand(1, 3, 5, 1)).tolist() == [
        [[4.5], [4.5]]
    ]


def test_a_sure_network_finds_its_borders_again():
    rows = torch.tensor([[[3.0, 4.0, 2.0], [6.0, 6.0, 7.0]]])  # whole rows: a region starts there
    region = (rows[:, :, None] <= torch.arange(10).view(1, 1, -1, 1)).sum(1)
    logits = F.one_hot(region, 3).movedim(-1, 1).float()
    assert torch.equal(region_borders(logits), rows - 0.5)


def test_the_step_by_loops():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5)
    batch = {
        "image": torch.zeros(2, 1, 4, 5),
        "surfaces": torch.tensor([1.0, 2.5]).view(1, 2, 1).expand(2, 2, 5),
        "valid": torch.rand(2, 2, 5) < 0.8,
        "index": torch.tensor([3, 0]),
    }
    sampler = LossHistorySampler(4)
    got = region_step(lambda image: logits, batch, sampler)
    expected = []
    for p, valid in zip(logits, batch["valid"], strict=True):
        total = []
        for w in range(5):
            if not valid[:, w].all():
                continue
            for h, region in enumerate([0, 1, 1, 2]):
                exp = [math.exp(x) for x in p[:, h, w].tolist()]
                total.append(-math.log(exp[region] / sum(exp)))
        expected.append(sum(total) / len(total))
    torch.testing.assert_close(got, torch.tensor(sum(expected) / 2))
    hard = 3 if expected[0] > expected[1] else 0  # above the median of the two
    assert sampler.weights[hard] == 2 and sampler.weights.sum() == 5


def test_no_valid_column_adds_nothing():
    batch = {
        "image": torch.zeros(1, 1, 4, 5),
        "surfaces": torch.ones(1, 2, 5),
        "valid": torch.zeros(1, 2, 5).bool(),
        "index": torch.tensor([0]),
    }
    logits = torch.randn(1, 3, 4, 5, requires_grad=True)
    loss = region_step(lambda image: logits, batch, LossHistorySampler(1))
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()
