import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.papers.selected_dimensions_oct.sampler import LossHistorySampler
from medseg_core.rng import generator
from medseg_core.training.samplers import batches


def test_by_hand():
    sampler = LossHistorySampler(4, window=2, boost=3)
    assert sampler.weights.tolist() == [1, 1, 1, 1]
    sampler.update(torch.tensor([0]), torch.tensor([5.0]))
    assert sampler.weights.tolist() == [1, 1, 1, 1]  # not larger than the median, which it is
    sampler.update(torch.tensor([1]), torch.tensor([7.0]))  # 5, 7: the (lower) median is 5
    assert sampler.weights.tolist() == [1, 3, 1, 1]
    sampler.update(torch.tensor([1]), torch.tensor([6.0]))  # 7, 6: the 5 is forgotten
    assert sampler.weights.tolist() == [1, 1, 1, 1]
    sampler.update(torch.tensor([2, 3]), torch.tensor([8.0, 1.0]))  # 6, 8, 1
    assert sampler.weights.tolist() == [1, 1, 3, 1]


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 8), window=st.integers(1, 5), steps=st.integers(1, 12), seed=st.integers(0, 99)
)
def test_against_a_list_of_all_losses(n, window, steps, seed):
    random = np.random.default_rng(seed)
    sampler, past, weights = LossHistorySampler(n, window), [], [1.0] * n
    for _ in range(steps):
        index, losses = random.permutation(n)[: max(1, n // 2)], random.random(max(1, n // 2))
        sampler.update(torch.tensor(index), torch.tensor(losses))
        past.append(losses.astype(np.float32))
        recent = np.sort(np.concatenate(past[-window:]))
        for i, loss in zip(index, losses.astype(np.float32), strict=True):
            weights[i] = 2.0 if loss > recent[(len(recent) - 1) // 2] else 1.0
        assert sampler.weights.tolist() == weights


def test_hard_images_come_boost_times_as_often():
    sampler, gen = LossHistorySampler(4), generator(0)
    sampler.update(torch.arange(4), torch.tensor([0.1, 0.2, 0.3, 0.9]))
    assert sampler.weights.tolist() == [1, 1, 2, 2]
    drawn = torch.cat([sampler.draw(1, gen) for _ in range(6000)])
    share = torch.bincount(drawn, minlength=4) / 6000
    torch.testing.assert_close(share, torch.tensor([1, 1, 2, 2]) / 6, atol=0.02, rtol=0)


def test_a_batch_repeats_no_image_unless_it_must():
    sampler, gen = LossHistorySampler(5), generator(1)
    for _ in range(20):
        assert len(set(sampler.draw(5, gen).tolist())) == 5
    assert sampler.draw(8, gen).shape == (8,)
    assert LossHistorySampler(1).draw(1, gen).tolist() == [0]


def test_boost_of_one_is_uniform():
    sampler = LossHistorySampler(3, boost=1)
    sampler.update(torch.arange(3), torch.tensor([1.0, 2.0, 3.0]))
    assert sampler.weights.tolist() == [1, 1, 1]


def test_batches_learn_from_the_steps_before():
    """The next batch is drawn only when it is asked for."""
    sampler = LossHistorySampler(50, boost=1e9)
    data = {"image": torch.arange(50.0)}
    loader = batches(data, 4, steps=3, seed=0, rows=sampler.draw)
    first = next(loader)
    assert torch.equal(first["image"], first["index"].float())
    sampler.update(torch.arange(50), (torch.arange(50) >= 46).float())
    assert set(next(loader)["index"].tolist()) == {46, 47, 48, 49}
    again = batches(data, 4, steps=3, seed=0, rows=LossHistorySampler(50).draw)
    assert torch.equal(next(again)["index"], first["index"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"window": 0}, "window must be at least 1"),
        ({"boost": 0.5}, "boost must be at least 1, got 0.5"),
        ({"boost": float("nan")}, "boost must be finite"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LossHistorySampler(**({"n": 4} | options))


def test_wrong_losses_are_refused():
    sampler = LossHistorySampler(4)
    with pytest.raises(ValueError, match="index and losses must have one shape"):
        sampler.update(torch.tensor([0, 1]), torch.tensor([0.1]))
    with pytest.raises(ValueError, match=r"losses must be finite, got nan at index \[1\]"):
        sampler.update(torch.tensor([0, 1]), torch.tensor([0.1, float("nan")]))
    with pytest.raises(ValueError, match=r"index must be in \[0, 3\], got 4"):
        sampler.update(torch.tensor([4]), torch.tensor([0.1]))
    with pytest.raises(ValueError, match="size must be at least 1"):
        sampler.draw(0, generator(0))
