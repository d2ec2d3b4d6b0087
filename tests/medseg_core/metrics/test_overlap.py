import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice, compute_iou
from sklearn.metrics import f1_score

from medseg_core.metrics import overlap

ALL = (overlap.dice, overlap.jaccard)


def mask(*rows):
    return torch.tensor([[[[c == "#" for c in row] for row in rows]]])  # (1, 1, H, W)


def random_labels(seed, n_classes=3, shape=(4, 6, 5)):
    gen = torch.Generator().manual_seed(seed)
    return torch.randint(0, n_classes, shape, generator=gen)


def test_worked_out_by_hand():
    pred, ref = mask("##.", "##."), mask(".##", ".#.")  # TP 2, FP 2, FN 1
    assert overlap.dice(pred, ref).item() == pytest.approx(4 / 7)
    assert overlap.jaccard(pred, ref).item() == pytest.approx(2 / 5)


def test_square_shifted_by_one():
    ref = torch.zeros(1, 1, 20, 20, dtype=torch.bool)
    ref[..., 5:15, 5:15] = True
    pred = ref.roll(1, dims=-1)
    assert overlap.dice(pred, ref).item() == pytest.approx(0.9)
    assert overlap.jaccard(pred, ref).item() == pytest.approx(90 / 110)


@pytest.mark.parametrize("shape", [(4, 6, 5), (2, 4, 5, 3)])
def test_equals_monai_on_label_maps(shape):
    pred, ref = random_labels(0, 4, shape), random_labels(1, 4, shape)
    ref[0][ref[0] == 3] = 0  # an absent class
    hot = [torch.nn.functional.one_hot(x, 4).movedim(-1, 1) for x in (pred, ref)]
    for got, theirs in (
        (overlap.dice(pred, ref, 4), compute_dice),
        (overlap.jaccard(pred, ref), compute_iou),
    ):
        want = theirs(*hot, include_background=False)
        assert got.shape == (shape[0], 3)
        torch.testing.assert_close(got, want, equal_nan=True, check_dtype=False)


def test_equals_sklearn():
    pred, ref = random_labels(2), random_labels(3)
    want = [f1_score(r.ravel(), p.ravel(), average=None, labels=[1, 2])
            for p, r in zip(pred, ref, strict=True)]  # fmt: skip
    torch.testing.assert_close(
        overlap.dice(pred, ref, 3), torch.tensor(np.array(want)), check_dtype=False
    )


def test_empty_masks():
    some, none = mask("##"), mask("..")
    for metric in ALL:
        assert metric(none, none).isnan().all() and metric(some, none).isnan().all()
        assert metric(none, some).item() == 0  # a missed object stays in the mean
    assert overlap.dice(none, none, empty="one").item() == 1
    assert overlap.dice(some, none, empty="one").item() == 0
    assert overlap.dice(none, some, empty="one").item() == 0


def test_ignored_pixels_count_nowhere():
    pred = torch.tensor([[[1, 1, 2, 0]]])
    ref = torch.tensor([[[1, 255, 2, 255]]])
    assert overlap.dice(pred, ref, 3).tolist() == [[1, 1]]
    pred[..., 3] = 255  # whatever is predicted there
    assert overlap.dice(pred, ref).tolist() == [[1, 1]]
    assert overlap.jaccard(pred, ref).tolist() == [[1, 1]]
    assert overlap.dice(pred, torch.full_like(ref, 255), 3).isnan().all()


def test_a_mask_and_its_label_map_agree():
    pred, ref = random_labels(4, 2), random_labels(5, 2)
    for metric in ALL:
        assert metric(pred, ref).equal(metric(pred[:, None] > 0, ref[:, None] > 0))


@given(a=st.integers(0, 999), b=st.integers(0, 999), empty=st.sampled_from(overlap.EMPTY))
@settings(deadline=None, max_examples=30)
def test_identities(a, b, empty):
    pred, ref = random_labels(a, 3, (2, 2, 3)), random_labels(b, 3, (2, 2, 3))
    pred[:, 0, 0], ref[:, 0, 0] = 2, 2  # both then have all their columns
    d, j = overlap.dice(pred, ref), overlap.jaccard(pred, ref)
    torch.testing.assert_close(d, 2 * j / (1 + j), equal_nan=True)
    one = overlap.dice(pred, ref, 3, empty=empty)
    assert torch.equal(one[~d.isnan()], d[~d.isnan()])
    if empty == "one":
        assert torch.equal(overlap.dice(ref, pred, 3, empty=empty), one)


def test_bad_input():
    label, m = random_labels(0), random_labels(0, 2)[:, None] > 0
    with pytest.raises(TypeError, match=r"pred must be a label map.*float32"):
        overlap.dice(label.float(), label)
    with pytest.raises(TypeError, match="both"):
        overlap.dice(label, m)
    with pytest.raises(ValueError, match="one shape"):
        overlap.dice(label, label[:2])
    with pytest.raises(ValueError, match=r"ref must hold labels 0\.\.1 or 255 \(ignore\), got 2"):
        overlap.dice(label.clamp(max=1), label, 2)
    with pytest.raises(ValueError, match=r"pred must hold labels 0\.\.2, got -1"):
        overlap.dice(label - 1, label, 3)
    with pytest.raises(ValueError, match="empty must be one of"):
        overlap.dice(label, label, empty="zero")
    with pytest.raises(ValueError, match="n_classes=3, but the masks have 1"):
        overlap.dice(m, m, 3)
    with pytest.raises(ValueError, match="n_classes"):
        overlap.dice(label, label, 1)
    with pytest.raises(TypeError, match="tensor"):
        overlap.dice(label.numpy(), label)
