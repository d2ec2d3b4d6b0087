import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.papers.selected_dimensions_oct.scores import (
    _quantile,
    boundary_mae,
    column_dice,
    hard_share,
    layer_errors,
    shifted_dice,
)


def test_dice_by_hand():
    pred = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]).bool()
    ref = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    # Volume 7: TP 2, FP 1, FN 1 over its two B-scans. Volume 9 has no reference.
    got = column_dice(pred, ref, torch.tensor([7, 7, 9]))
    torch.testing.assert_close(got, torch.tensor([2 / 3, torch.nan]), equal_nan=True)
    # One by one: 2/3 and 2/3, not the same as pooled in general.
    each = column_dice(pred, ref, torch.arange(3))
    torch.testing.assert_close(each[:2], torch.tensor([2 / 3, 2 / 3]))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 6), w=st.integers(1, 8), k=st.integers(1, 3), seed=st.integers(0, 999))
def test_against_loops(n, w, k, seed):
    random = np.random.default_rng(seed)
    a, b = random.random((2, n, w)) < 0.4
    group = random.integers(0, 3, n)
    volumes = sorted(set(group.tolist()))
    got = column_dice(torch.tensor(a), torch.tensor(b), torch.tensor(group)).numpy()
    for i, g in enumerate(volumes):
        x, y = a[group == g], b[group == g]
        expected = 2 * (x & y).sum() / (x.sum() + y.sum()) if y.any() else np.nan
        np.testing.assert_allclose(got[i], expected, rtol=1e-6)

    pred, ref = random.normal(size=(2, n, k, w))
    valid = random.random((n, w)) < 0.6
    got = boundary_mae(*map(torch.tensor, (pred, ref, valid, group))).numpy()
    for i, g in enumerate(volumes):
        for layer in range(k):
            errors = [
                abs(pred[r, layer, c] - ref[r, layer, c])
                for r in range(n)
                for c in range(w)
                if group[r] == g and valid[r, c]
            ]
            expected = np.mean(errors) if errors else np.nan
            np.testing.assert_allclose(got[i, layer], expected, rtol=1e-6)


def test_mae_by_hand():
    pred = torch.tensor([[[1.0, 2.0], [5.0, 5.0]], [[0.0, 0.0], [1.0, 9.0]]])
    ref = torch.tensor([[[2.0, 2.0], [5.0, 8.0]], [[0.0, torch.nan], [1.0, torch.nan]]])
    valid = torch.tensor([[True, True], [True, False]])
    one = boundary_mae(pred, ref, valid, torch.tensor([0, 0]))
    torch.testing.assert_close(one, torch.tensor([[1 / 3, 1.0]]).double())
    each = boundary_mae(pred, ref, valid)
    torch.testing.assert_close(each, torch.tensor([[0.5, 1.5], [0.0, 0.0]]).double())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), shift=st.floats(-5, 5))
def test_mae_of_a_shift_is_the_shift(seed, shift):
    ref = torch.randn(3, 2, 7, generator=torch.Generator().manual_seed(seed)).double()
    got = boundary_mae(ref + shift, ref, torch.ones(3, 7).bool())
    torch.testing.assert_close(got, torch.full((3, 2), abs(shift)).double(), atol=1e-6, rtol=0)


def test_the_order_of_volumes_is_that_of_their_numbers():
    pred = torch.zeros(3, 1, 2)
    worse = pred + torch.tensor([3.0, 1.0, 2.0]).view(3, 1, 1)
    got = boundary_mae(worse, pred, torch.ones(3, 2).bool(), torch.tensor([30, 10, 20]))
    assert got[:, 0].tolist() == [1, 2, 3]


def test_nothing_annotated_is_nan():
    x = torch.zeros(1, 2, 3)
    assert boundary_mae(x, x, torch.zeros(1, 3).bool()).isnan().all()


def volumes():
    """Three volumes of one B-scan, two borders, two columns; the second volume has AMD."""
    return {
        "surfaces": torch.tensor([[[1.0, 1], [5, 5]], [[1, 1], [5, 5]], [[2, torch.nan], [6, 6]]]),
        "surface_names": ("ILM", "BM"),
        "valid": torch.tensor([[1, 1], [1, 1], [1, 0]]).bool(),
        "group": torch.tensor([4, 7, 9]),
        "amd": torch.tensor([False, True, False]),
    }


def test_layer_errors_by_hand():
    data = volumes()
    pred = torch.tensor([[[1.0, 3], [4, 4]], [[4, 1], [5, 8]], [[2, 9], [9, 9]]])
    got = layer_errors(pred, data)
    # Volume 4: ILM (0 + 2)/2, BM (1 + 1)/2. Volume 7: ILM 3/2, BM 3/2. Volume 9: ILM 0, BM 3.
    cells = {"ILM control": 0.5, "BM control": 2.0, "ILM AMD": 1.5, "BM AMD": 1.5}
    assert {k: got[k] for k in cells} == cells
    assert got["overall"] == 5.5 / 4
    # Of the ten errors 0 0 0 0 1 1 2 3 3 3 the 99th percentile is the last.
    assert got["p99"] == 3.0


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1001])
def test_the_percentile_is_torchs(n):
    error = torch.rand(n, generator=torch.Generator().manual_seed(n))
    data = {
        "surfaces": torch.zeros(1, 1, n),
        "surface_names": ("ILM",),
        "valid": torch.ones(1, n).bool(),
        "group": torch.zeros(1),
        "amd": torch.ones(1).bool(),
    }
    got = layer_errors(error.view(1, 1, n), data)["p99"]
    assert got == float(torch.quantile(error, 0.99))


def test_the_percentile_of_more_values_than_torch_takes():
    ramp = torch.linspace(0, 1, 2**24 + 2)  # in order already, which sorts fast
    with pytest.raises(RuntimeError, match="too large"):
        ramp.quantile(0.99)
    assert _quantile(ramp, 0.99) == pytest.approx(0.99, abs=1e-6)


def test_a_kind_of_eye_that_is_missing_has_no_say():
    data = volumes() | {"amd": torch.zeros(3).bool()}
    got = layer_errors(data["surfaces"].nan_to_num() + 1, data)
    assert np.isnan(got["ILM AMD"]) and got["overall"] == 1


def test_wrong_input_is_refused():
    yes, x = torch.ones(2, 4).bool(), torch.zeros(2, 3, 4)
    with pytest.raises(TypeError, match="pred must be bool"):
        column_dice(yes.float(), yes, torch.zeros(2))
    with pytest.raises(ValueError, match="pred and ref must have one shape"):
        column_dice(yes, yes[:1], torch.zeros(2))
    with pytest.raises(ValueError, match=r"group must have the shape \(N\), N = 2"):
        column_dice(yes, yes, torch.zeros(3))
    with pytest.raises(ValueError, match="at least one B-scan"):
        column_dice(yes[:0], yes[:0], torch.zeros(0))
    with pytest.raises(ValueError, match="pred must have the shape"):
        boundary_mae(x[0], x[0], yes)
    with pytest.raises(ValueError, match="valid must have the shape"):
        boundary_mae(x, x, torch.ones(2, 3, 4).bool())
    with pytest.raises(ValueError, match="pred - ref must be finite, got nan"):
        boundary_mae(x, x * torch.nan, yes)


def test_hard_columns_by_hand():
    ref = torch.zeros(1, 2, 5)
    ref[0, :, 4] = torch.nan  # not annotated
    pred = torch.tensor([[[1.0, 1.0, 1.0, 3.0, 9.0], [2.0, 2.0, 2.0, 2.0, 9.0]]])
    data = {"surfaces": ref, "valid": torch.tensor([[True] * 4 + [False]])}
    # Squared errors 1 1 1 9 (mean 3: the last is hard) and 4 4 4 4 (none exceeds the mean).
    assert hard_share(pred, data) == (pytest.approx(1 / 8), pytest.approx(9 / 28))


def test_a_shifted_prediction_is_found_back():
    ref = torch.zeros(4, 12).bool()
    ref[:2, 4:8], ref[2:, 3:6] = True, True
    data = {"columns": ref, "group": torch.tensor([0, 0, 1, 1])}
    moved = torch.cat([ref[:2].roll(2, 1), ref[2:].roll(-1, 1)])  # each volume its own way
    assert shifted_dice(moved, data, 2) == pytest.approx(1)
    assert shifted_dice(moved, data, 0) < 0.7
