import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.papers.selected_dimensions_oct.losses import hard_column_mse


def by_loops(pred, target, valid):
    """Slow and obvious: one loss per image."""
    losses = []
    for p, t, v in zip(pred, target, valid, strict=True):
        total = 0.0
        for k in range(len(p)):
            errors = [(a - b) ** 2 for a, b, ok in zip(p[k], t[k], v[k], strict=True) if ok]
            if errors:
                hard = [e for e in errors if e > sum(errors) / len(errors)] or errors
                total += sum(hard) / len(hard)
        losses.append(total)
    return losses


@settings(max_examples=40, deadline=None)
@given(b=st.integers(1, 3), k=st.integers(1, 3), w=st.integers(1, 9), seed=st.integers(0, 999))
def test_against_loops(b, k, w, seed):
    random = np.random.default_rng(seed)
    pred, target = random.normal(size=(2, b, k, w))
    valid = random.random((b, k, w)) < 0.7
    got = hard_column_mse(*map(torch.tensor, (pred, target, valid)))
    np.testing.assert_allclose(got, by_loops(pred, target, valid), atol=1e-12)


def test_by_hand():
    """Errors 1, 2, 3 → squares 1, 4, 9, mean 14/3: only the last counts. Layer 2: 0, 0, 4 → 4."""
    pred = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 2.0]]])
    target, every = torch.zeros(1, 2, 3), torch.ones(1, 3).bool()
    assert hard_column_mse(pred, target, every).item() == pytest.approx(13.0)
    assert hard_column_mse(pred, target, every, hard=False).item() == pytest.approx(14 / 3 + 4 / 3)
    # Without the third column: squares 1 and 4, mean 2.5, so 4; and 0, 0 for the second layer.
    valid = torch.tensor([[True, True, False]])
    assert hard_column_mse(pred, target, valid).item() == pytest.approx(4.0)
    two = torch.cat([pred, torch.zeros_like(pred)])
    each = hard_column_mse(two, torch.zeros(2, 2, 3), every.expand(2, 3))
    torch.testing.assert_close(each, torch.tensor([13.0, 0.0]))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), shift=st.floats(-3, 3))
def test_never_below_the_plain_one_and_blind_to_a_common_shift(seed, shift):
    gen = torch.Generator().manual_seed(seed)
    pred, target = torch.randn(2, 2, 3, 8, generator=gen, dtype=torch.float64)
    every = torch.ones(2, 8).bool()
    hard = hard_column_mse(pred, target, every)
    assert (hard >= hard_column_mse(pred, target, every, hard=False)).all()
    torch.testing.assert_close(hard_column_mse(pred + shift, target + shift, every), hard)
    order = torch.randperm(8, generator=gen)
    torch.testing.assert_close(hard_column_mse(pred[..., order], target[..., order], every), hard)


def test_gradient_reaches_only_hard_columns_and_knows_no_mask():
    pred = torch.tensor([[[0.1, 0.2, 2.0, -3.0]]], dtype=torch.float64, requires_grad=True)
    target = torch.zeros(1, 1, 4, dtype=torch.float64)
    hard_column_mse(pred, target, torch.ones(1, 4).bool()).sum().backward()
    # Squares 0.01, 0.04, 4, 9: mean 3.26, so two count: d/dp of (4 + 9)/2 is p.
    torch.testing.assert_close(pred.grad[0, 0], torch.tensor([0, 0, 2.0, -3.0]).double())


def test_what_is_not_valid_may_be_anything():
    pred = torch.randn(2, 3, 6, requires_grad=True)
    target = torch.randn(2, 3, 6)
    valid = torch.rand(2, 6) < 0.5
    valid[:, 0] = True
    loss = hard_column_mse(pred, target, valid)
    spoilt = torch.where(valid[:, None], target, torch.nan)
    torch.testing.assert_close(hard_column_mse(pred, spoilt, valid), loss)
    hard_column_mse(pred, spoilt, valid).sum().backward()
    assert torch.isfinite(pred.grad).all()
    assert (pred.grad.transpose(1, 2)[~valid] == 0).all()
    per_layer = valid[:, None].expand(-1, 3, -1)
    torch.testing.assert_close(hard_column_mse(pred, spoilt, per_layer), loss)


def test_degenerate_cases():
    one, yes = torch.full((1, 1, 1), 0.5), torch.ones(1, 1).bool()
    assert hard_column_mse(one, torch.zeros(1, 1, 1), yes).item() == pytest.approx(0.25)
    alike = torch.full((1, 2, 7), 0.3)
    got = hard_column_mse(alike, torch.zeros(1, 2, 7), yes.expand(1, 7))
    assert got.item() == pytest.approx(0.18)
    pred = torch.randn(2, 2, 5, requires_grad=True)
    none = hard_column_mse(pred, torch.full((2, 2, 5), torch.nan), torch.zeros(2, 5).bool())
    none.sum().backward()
    assert (none == 0).all() and (pred.grad == 0).all()


def test_wrong_input_is_refused():
    x, yes = torch.zeros(2, 3, 4), torch.ones(2, 4).bool()
    with pytest.raises(ValueError, match="pred must have the shape"):
        hard_column_mse(x[0], x[0], yes)
    with pytest.raises(ValueError, match="pred and target must have one shape"):
        hard_column_mse(x, x[:, :2], yes)
    with pytest.raises(ValueError, match="pred and valid must have one shape"):
        hard_column_mse(x, x, torch.ones(2, 1, 4).bool())
