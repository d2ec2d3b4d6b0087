import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from medseg_core.losses.partial import weighted_cross_entropy


def case(seed, n=2, k=3, size=(4, 5)):
    gen = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, k, *size, generator=gen)
    target = torch.randint(0, max(k, 2), (n, *size), generator=gen)
    target[torch.rand(target.shape, generator=gen) < 0.3] = 255
    weight = torch.rand(target.shape, generator=gen) * 5
    return logits, target, weight


@pytest.mark.parametrize("size", [(7,), (4, 5), (2, 3, 4)])
@pytest.mark.parametrize("k", [2, 4])
def test_without_weights_it_is_torchs_cross_entropy(k, size):
    logits, target, _ = case(0, 2, k, size)
    want = F.cross_entropy(logits, target, ignore_index=255)
    for normalise in ("valid", "weights"):
        got = weighted_cross_entropy(logits, target, normalise=normalise)
        torch.testing.assert_close(got, want)


def test_one_channel_is_torchs_binary_cross_entropy_with_its_weight():
    logits, target, weight = case(1, k=1)
    valid = target != 255
    args = logits[:, 0][valid], target[valid].float(), weight[valid]
    want = F.binary_cross_entropy_with_logits(*args)  # the mean of w·loss over the pixels
    torch.testing.assert_close(weighted_cross_entropy(logits, target, weight), want)
    torch.testing.assert_close(
        weighted_cross_entropy(logits, target, weight, normalise="weights"),
        want * valid.sum() / weight[valid].sum(),
    )


def test_values_by_hand():
    # p(object) = 0.9, 0.9, 0.5, and one pixel without a label
    logits = torch.tensor([[[math.log(9), math.log(9), 0.0, 7.0]]])
    target = torch.tensor([[1, 0, 0, 255]])
    weight = torch.tensor([[5.0, 1.0, 0.0, 3.0]])
    total = -5 * math.log(0.9) - math.log(0.1)
    assert float(weighted_cross_entropy(logits, target, weight)) == pytest.approx(total / 3)
    by_weight = weighted_cross_entropy(logits, target, weight, normalise="weights")
    assert float(by_weight) == pytest.approx(total / 6)


def test_two_channels_are_one_channel_of_their_difference():
    logits, target, weight = case(2, k=2)
    one = logits[:, 1:] - logits[:, :1]
    for normalise in ("valid", "weights"):
        torch.testing.assert_close(
            weighted_cross_entropy(logits, target, weight, normalise=normalise),
            weighted_cross_entropy(one, target, weight, normalise=normalise),
        )


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 3), scale=st.floats(0.01, 100))
def test_scaling_the_weights_scales_one_normalisation_and_not_the_other(seed, k, scale):
    logits, target, weight = case(seed, k=k)
    weight = weight + 0.1
    for normalise, factor in (("valid", scale), ("weights", 1.0)):
        a = weighted_cross_entropy(logits, target, weight, normalise=normalise)
        b = weighted_cross_entropy(logits, target, scale * weight, normalise=normalise)
        torch.testing.assert_close(b, factor * a, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("normalise", ["valid", "weights"])
def test_pixels_without_label_or_weight_get_no_gradient(k, normalise):
    logits, target, weight = case(3, k=k)
    weight[0, 0] = 0
    logits.requires_grad_()
    weighted_cross_entropy(logits, target, weight, normalise=normalise).backward()
    out = ((target == 255) | (weight == 0))[:, None].expand_as(logits)
    assert (logits.grad[out] == 0).all() and (logits.grad[~out] != 0).all()


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("normalise", ["valid", "weights"])
@pytest.mark.parametrize("empty", ["labels", "weights"])
def test_nothing_to_learn_from_is_zero_with_a_graph(k, normalise, empty):
    logits, target, weight = case(4, k=k)
    logits.requires_grad_()
    if empty == "labels":
        target = torch.full_like(target, 255)
    else:
        weight = torch.zeros_like(weight)
    loss = weighted_cross_entropy(logits, target, weight, normalise=normalise)
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()


def test_a_bool_target():
    logits, target, _ = case(5, k=1)
    target = target % 2
    torch.testing.assert_close(
        weighted_cross_entropy(logits, target.bool()), weighted_cross_entropy(logits, target)
    )
    ones_alone = weighted_cross_entropy(logits, target.masked_fill(target == 0, 255))
    torch.testing.assert_close(ones_alone, F.softplus(-logits[:, 0][target == 1]).mean())


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[[1e4, -1e4]]], requires_grad=True)
    loss = weighted_cross_entropy(logits, torch.tensor([[0, 0]]))
    loss.backward()
    assert loss.item() == pytest.approx(5e3) and logits.grad.isfinite().all()


def test_refusals():
    logits, target, weight = case(6)
    with pytest.raises(ValueError, match="target must have the shape"):
        weighted_cross_entropy(logits, target[:, None])
    with pytest.raises(ValueError, match=r"target must be in \[0, 2\], got 3 at index \[0, 0, 0\]"):
        weighted_cross_entropy(logits, torch.full_like(target, 3))
    with pytest.raises(ValueError, match=r"target must be in \[0, 1\], got 2"):
        weighted_cross_entropy(logits[:, :1], torch.full_like(target, 2))
    with pytest.raises(TypeError, match="target must hold integers"):
        weighted_cross_entropy(logits, target.float())
    with pytest.raises(ValueError, match="weight and target"):
        weighted_cross_entropy(logits, target, weight[:1])
    with pytest.raises(ValueError, match="weight must be at least 0"):
        weighted_cross_entropy(logits, target, -weight)
    with pytest.raises(ValueError, match="weight must be finite"):
        weighted_cross_entropy(logits, target, weight * float("nan"))
    with pytest.raises(ValueError, match="normalise must be one of"):
        weighted_cross_entropy(logits, target, normalise="mean")
