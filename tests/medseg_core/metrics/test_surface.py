import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy import ndimage

from medseg_core.metrics.surface import KINDS, surface_distance


def zeros(*size):
    return torch.zeros(1, 1, *size, dtype=torch.bool)


def blobs(seed, shape=(3, 1, 20, 24)):
    noise = np.random.default_rng(seed).normal(size=shape)
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 0, *[2.0] * (len(shape) - 2))) > 0)


def oracle(pred, ref, spacing):
    """Directed border distances by distance transforms, one sample (*S)."""
    edges = [x & ~ndimage.binary_erosion(x) for x in (pred.numpy(), ref.numpy())]
    to_p, to_r = (ndimage.distance_transform_edt(~e, sampling=spacing) for e in edges)
    a, b = to_r[edges[0]], to_p[edges[1]]
    return {
        "hd": max(a.max(), b.max()),
        "hd95": max(np.percentile(a, 95), np.percentile(b, 95)),
        "assd": np.concatenate([a, b]).mean(),
        "mcd": (a.mean() + b.mean()) / 2,
        "avd": max(a.mean(), b.mean()),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_two_pixels(kind):
    pred, ref = zeros(5, 9), zeros(5, 9)
    pred[..., 1, 2] = ref[..., 4, 6] = True
    assert surface_distance(pred, ref, spacing=None, kind=kind).item() == 5
    got = surface_distance(pred, ref, spacing=(2.0, 0.5), kind=kind)
    assert got.item() == pytest.approx(math.hypot(6, 2))


def test_shifted_square_by_hand():
    ref = zeros(12, 12)
    ref[..., 3:7, 3:7] = True  # 12 border pixels
    pred = ref.roll(1, dims=-1)
    # To the other border: the 4 outer pixels of one side and the 2 inner ones of the side opposite
    # lie 1 px off (their neighbours), the remaining 6 on it; likewise back.
    for kind, want in (("hd", 1), ("hd95", 1), ("assd", 0.5), ("mcd", 0.5), ("avd", 0.5)):
        assert surface_distance(pred, ref, spacing=None, kind=kind).item() == want
    got = surface_distance(pred, ref, spacing=(1.0, 3.0), kind="hd").item()
    assert got == 3


def test_directions_are_combined_as_named():
    pred, ref = zeros(1, 20), zeros(1, 20)
    pred[..., 0] = True
    ref[..., [0, 6, 12]] = True  # pred to ref: 0; ref to pred: 0, 6, 12
    got = {k: surface_distance(pred, ref, spacing=None, kind=k).item() for k in KINDS}
    want = {"hd": 12, "hd95": 11.4, "assd": 18 / 4, "mcd": (0 + 6) / 2, "avd": 6}
    assert got == pytest.approx(want)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((3, 1, 20, 24), (1.5, 0.8)), ((2, 1, 7, 10, 9), (3.0, 1.0, 0.7))]
)
def test_equals_distance_transforms_and_monai(shape, spacing):
    pred, ref = blobs(0, shape), blobs(1, shape)
    got = {k: surface_distance(pred, ref, spacing=spacing, kind=k) for k in KINDS}
    for i in range(len(pred)):
        want = oracle(pred[i, 0], ref[i, 0], spacing)
        assert {k: got[k][i].item() for k in KINDS} == pytest.approx(want, rel=1e-5)
    common = {"include_background": True, "spacing": list(spacing)}
    mean = compute_average_surface_distance(pred, ref, symmetric=True, **common)
    torch.testing.assert_close(got["assd"], mean[:, 0], check_dtype=False)
    for kind, percentile in (("hd", None), ("hd95", 95)):
        want = compute_hausdorff_distance(pred, ref, percentile=percentile, **common)
        torch.testing.assert_close(got[kind], want[:, 0], check_dtype=False)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_masks(kind):
    some, none = zeros(6, 8), zeros(6, 8)
    some[..., 2, 2] = True
    pred, ref = torch.cat([some, none, none]), torch.cat([none, some, none])

    found = surface_distance(pred, ref, spacing=(2.0, 2.0), kind=kind)
    assert found.isnan().all()


def test_a_mask_that_fills_the_image_has_the_frame_as_its_border():
    full, centre = ~zeros(5, 5), zeros(5, 5)
    centre[..., 2, 2] = True
    assert surface_distance(centre, full, spacing=None, kind="hd").item() == pytest.approx(8**0.5)
    assert surface_distance(full, full, spacing=None, kind="hd").item() == 0


@given(a=st.integers(0, 999), b=st.integers(0, 999), kind=st.sampled_from(list(KINDS)))
@settings(deadline=None, max_examples=20)
def test_symmetric_zero_on_itself_and_scales_with_spacing(a, b, kind):
    pred, ref = blobs(a, (1, 1, 9, 8)), blobs(b, (1, 1, 9, 8))
    d = surface_distance(pred, ref, spacing=None, kind=kind)
    back = surface_distance(ref, pred, spacing=None, kind=kind)
    torch.testing.assert_close(d, back, equal_nan=True)
    assert not surface_distance(pred, pred, spacing=None, kind=kind).nansum()
    scaled = surface_distance(pred, ref, spacing=(2.0, 2.0), kind=kind)
    torch.testing.assert_close(scaled, 2 * d, equal_nan=True)


def test_no_warnings(recwarn):
    surface_distance(zeros(4, 4), zeros(4, 4), spacing=None)
    surface_distance(~zeros(4, 4), ~zeros(4, 4), spacing=None)
    assert not [w for w in recwarn if w.category in (FutureWarning, UserWarning)]


def test_bad_input():
    m = zeros(4, 4)
    with pytest.raises(TypeError, match="pred must be a bool tensor"):
        surface_distance(m.int(), m, spacing=None)
    with pytest.raises(ValueError, match="one shape"):
        surface_distance(m, zeros(4, 5), spacing=None)
    with pytest.raises(ValueError, match="pred must have the shape"):
        surface_distance(m[:, 0], m[:, 0], spacing=None)
    with pytest.raises(ValueError, match="kind must be one of"):
        surface_distance(m, m, spacing=None, kind="asd")
    for spacing in ((1.0,), (1.0, 0.0), (1.0, math.nan)):
        with pytest.raises(ValueError, match="spacing must be 2 positive numbers"):
            surface_distance(m, m, spacing=spacing)
