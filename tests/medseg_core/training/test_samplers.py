import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.training.samplers import batches


def data(n):
    return {"image": torch.arange(n * 2.0).reshape(n, 1, 2), "label": torch.arange(n)}


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 12), size=st.integers(1, 15), passes=st.integers(1, 4))
def test_every_sample_comes_once_per_pass(n, size, passes):
    steps = -(-n * passes // size)
    drawn = list(batches(data(n), size, steps=steps, seed=1))
    assert [len(b["label"]) for b in drawn] == [size] * steps
    row = torch.cat([b["label"] for b in drawn])[: n * passes]
    for one in row.reshape(passes, n):
        assert sorted(one.tolist()) == list(range(n))


def test_rows_stay_together():
    for batch in batches(data(5), 3, steps=4, seed=0):
        assert torch.equal(batch["image"][:, 0, 0], 2.0 * batch["label"])
        assert torch.equal(batch["index"], batch["label"])


def test_order_depends_on_the_seed_alone():
    def order(seed):
        return torch.cat([b["index"] for b in batches(data(9), 4, steps=5, seed=seed)])

    first = order(3)
    torch.manual_seed(1)
    assert torch.equal(first, order(3)) and not torch.equal(first, order(4))


def test_more_steps_do_not_change_the_first_ones():
    short = [b["index"] for b in batches(data(9), 4, steps=3, seed=0)]
    long = [b["index"] for b in batches(data(9), 4, steps=8, seed=0)]
    assert all(torch.equal(a, b) for a, b in zip(short, long, strict=False))


def test_what_training_may_not_read_is_left_out():
    full = data(4) | {"params": [{}] * 4, "spacing": (1.0, 1.0), "hidden": {"x": torch.ones(4)}}
    assert set(next(batches(full, 2, steps=1, seed=0))) == {"image", "label", "index"}


def test_augmentation_gets_a_stream_of_its_own_per_step():
    def noisy(batch, gen):
        return batch | {"image": batch["image"] + torch.randn(batch["image"].shape, generator=gen)}

    one = [b["image"] for b in batches(data(2), 2, steps=3, seed=0, augment=noisy)]
    two = [b["image"] for b in batches(data(2), 2, steps=3, seed=0, augment=noisy)]
    plain = [b["index"] for b in batches(data(2), 2, steps=3, seed=0)]
    kept = [b["index"] for b in batches(data(2), 2, steps=3, seed=0, augment=noisy)]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, kept, strict=True))
    assert len({float((a.sum(-1))[0]) for a in one}) == 3


@pytest.mark.parametrize(
    ("bad", "options"),
    [
        ({}, {}),
        ({"params": [1, 2]}, {}),
        ({"image": torch.zeros(0, 1)}, {}),
        ({"image": torch.zeros(3, 1), "label": torch.zeros(2)}, {}),
        ({"image": torch.zeros(3, 1), "scale": torch.tensor(1.0)}, {}),
        (data(3), {"size": 0}),
        (data(3), {"steps": 0}),
    ],
)
def test_bad_input_is_refused_before_the_first_batch(bad, options):
    with pytest.raises(ValueError):
        batches(bad, options.get("size", 2), steps=options.get("steps", 1), seed=0)
