"""The start of a chapter and the shared loop keep to the device that is named."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from medseg_book.page import scales
from medseg_core.rng import generator
from medseg_core.training.device import pick
from medseg_core.training.fit import fit

CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=CUDA)])
def device(request):
    return request.param


def test_a_chapter_starts_on_its_device(device):
    @dataclass
    class Settings:
        n_seeds: int = 3
        n_seeds_cpu: int = 1

    table = dict.fromkeys(("smoke", "lesson", "paper"), Settings())
    run = scales.begin("x", table, scale="smoke", seed=0, device=device, overrides={})
    assert run.device.type == device == pick(device).type
    assert len(run.seeds) == (1 if device == "cpu" else 3)
    weight = nn.Linear(2, 2).to(run.device).weight
    assert weight.device.type == device


def test_the_shared_loop_trains_where_the_network_is(device):
    def trained(on):
        torch.manual_seed(0)
        model = nn.Linear(3, 1).to(on)
        batches = [{"x": torch.randn(8, 3, generator=generator(0, i))} for i in range(5)]

        def loss(model, batch):
            return (model(batch["x"]) - batch["x"].sum(1, keepdim=True)).square().mean()

        history = fit(model, batches, loss, steps=5, lr=0.1)
        assert model.weight.device.type == on
        return history, model.weight.detach().cpu()

    torch.testing.assert_close(trained(device)[1], trained("cpu")[1], rtol=1e-4, atol=1e-5)
