import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import ResizeWithPadOrCrop
from scipy import ndimage
from skimage.transform import rescale

from medseg_core.datasets import preprocess as pp


def disc(size, radius, centre=None):
    rows, columns = np.mgrid[:size, :size]
    r, c = centre or ((size - 1) / 2, (size - 1) / 2)
    return torch.from_numpy(np.hypot(rows - r, columns - c) < radius)


def smooth_image(*shape, seed=0):
    noise = np.random.default_rng(seed).normal(size=shape)
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0,) * (len(shape) - 2) + (3, 3)))


def test_resample_by_hand():
    # Centres of the halved grid lie between old centres: 0.5, 2.5 (no smoothing when growing).
    x = torch.tensor([[0.0, 2.0]])
    fine = pp.resample(x, (1.0, 1.0), (1.0, 0.5))
    assert torch.allclose(fine, torch.tensor([[0.0, 0.5, 1.5, 2.0]]))


@pytest.mark.parametrize("order", [0, 1, 3])
def test_resample_refines_like_scipy_zoom_with_pixel_areas(order):
    x = smooth_image(2, 1, 20, 24)
    ours = pp.resample(x, (2.0, 2.0), (0.5, 1.0), order)
    for n in range(2):
        theirs = ndimage.zoom(x[n, 0], (4, 2), order=order, mode="nearest", grid_mode=True)
        assert ours.shape[-2:] == theirs.shape
        assert np.allclose(ours[n, 0], theirs, atol=1e-9)


def test_resample_coarsens_like_skimage_with_anti_aliasing():
    x = smooth_image(36, 48)
    theirs = rescale(x.numpy(), 1 / 3, order=1, anti_aliasing=True, mode="edge")
    assert np.allclose(pp.resample(x, (1.0, 1.0), (3.0, 3.0)), theirs, atol=1e-6)


def test_resample_works_on_three_axes_and_several_channels():
    x = torch.arange(4.0)[None, None, :, None, None].expand(1, 2, 4, 6, 6)
    out = pp.resample(x, (2.0, 1.0, 1.0), (2.0, 2.0, 3.0))
    assert out.shape == (1, 2, 4, 3, 2)
    assert torch.allclose(out[0, 1, :, 1, 1], torch.arange(4.0))


@settings(deadline=None, max_examples=30)
@given(
    spacing=st.floats(0.6, 2.0),
    new=st.floats(0.6, 2.0),
    size=st.integers(8, 40),
)
def test_resample_keeps_a_linear_ramp_where_it_was(spacing, new, size):
    # Position is about the image's centre, so the ramp's value tells where a sample was taken.
    old = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) * spacing
    out = pp.resample(old[None].expand(3, size), (1.0, spacing), (1.0, new))
    n = out.shape[-1]
    expected = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * new
    inner = expected.abs() < old[-1] - 2 * max(spacing, new)
    assert torch.allclose(out[1][inner], expected[inner], atol=1e-6)
    assert abs(n * new - size * spacing) <= new / 2 + 1e-6


def test_resample_fills_beyond_the_field_of_view_only():
    x = torch.ones(1, 1, 10, 10)
    out = pp.resample(x, (1.0, 1.0), (0.5, 0.5), size=(30, 20), fill=-1.0)
    assert (out[0, 0, :5] == -1).all() and (out[0, 0, 25:] == -1).all()
    assert torch.allclose(out[0, 0, 5:25], torch.ones(20, 20))


def test_resample_to_the_same_grid_is_the_identity():
    x = smooth_image(1, 1, 9, 12)
    assert torch.allclose(pp.resample(x, (1.4, 1.4), (1.4, 1.4)), x)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0, 3.0])
def test_resample_labels_keeps_place_and_area(factor):
    label = torch.where(disc(96, 24), 3, 0)[None]
    out = pp.resample_labels(label, (1.0, 1.0), (factor, factor))
    assert out.dtype == torch.int64 and set(out.unique().tolist()) == {0, 3}
    area = (out == 3).sum().item() * factor**2
    assert area == pytest.approx((label == 3).sum().item(), rel=0.05)
    # What is symmetric stays so: no shift, as the nearest pixel would bring at a factor of 2.
    assert torch.equal(out, out.flip(1, 2))


def test_resample_labels_majority_by_hand():
    label = torch.tensor([[1, 1, 2, 2, 255, 255]])
    assert pp.resample_labels(label, (1.0, 1.0), (1.0, 2.0)).tolist() == [[1, 2, 255]]
    for tie in ([[3, 1]], [[1, 3]]):
        assert pp.resample_labels(torch.tensor(tie), (1.0, 1.0), (1.0, 2.0)).tolist() == [[1]]
    wide = pp.resample_labels(label, (1.0, 1.0), (1.0, 1.0), size=(1, 8))
    assert wide.tolist() == [[0, 1, 1, 2, 2, 255, 255, 0]]


def test_resample_labels_goes_there_and_back():
    label = torch.where(disc(60, 15), 3, torch.where(disc(60, 20), 2, 0))[None]
    there = pp.resample_labels(label, (1.0, 1.0), (0.7, 0.7), size=(101, 95))
    back = pp.resample_labels(there, (0.7, 0.7), (1.0, 1.0), size=(60, 60))
    assert (back != label).float().mean() < 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: pp.resample(x, (1.0, 0.0), (1.0, 1.0)), "spacing must"),
        (lambda x: pp.resample(x, (1.0, 1.0), (1.0, float("nan"))), "new_spacing must"),
        (lambda x: pp.resample(x, (1.0,), (1.0, 1.0)), "one number for each"),
        (lambda x: pp.resample(x, (1.0, 1.0), (1.0, 1.0), 7), "order"),
        (lambda x: pp.resample(x.long(), (1.0, 1.0), (1.0, 1.0)), "resample_labels"),
        (lambda x: pp.resample(x, (1.0, 1.0), (1.0, 1.0), size=(0, 4)), "size"),
        (lambda x: pp.resample(x, (1.0, 1.0), (1.0, 1.0), size=(4,)), "size"),
        (lambda x: pp.resample(x / x.new_zeros(()), (1.0, 1.0), (2.0, 2.0)), "finite"),
        (lambda x: pp.resample_labels(x, (1.0, 1.0), (2.0, 2.0)), "integers"),
        (lambda x: pp.crop_or_pad(x, (1, 2, 3, 4, 5)), "size"),
        (lambda x: pp.crop_or_pad(x, -2), "size"),
        (lambda x: pp.crop_or_pad(x, (2.5, 3)), "size"),
    ],
)
def test_bad_grids_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 1, 6, 6))


@pytest.mark.parametrize("size", [(5, 5), (12, 5), (7, 16), (8, 9)])
def test_crop_or_pad_agrees_with_monai(size):
    x = torch.arange(2 * 8 * 10.0).reshape(1, 2, 8, 10)
    theirs = ResizeWithPadOrCrop(size, value=-1, constant_values=-1)(x[0])
    ours = pp.crop_or_pad(x, size, value=-1)
    even = all((a - b) % 2 == 0 for a, b in zip(size, (8, 10), strict=True))
    if even or ours.sub(theirs).abs().max() == 0:
        assert torch.equal(ours[0], torch.as_tensor(theirs))
    assert ours.shape == (1, 2, *size)


@settings(deadline=None, max_examples=50)
@given(h=st.integers(1, 9), w=st.integers(1, 9), dh=st.integers(0, 5), dw=st.integers(0, 5))
def test_cropping_undoes_padding(h, w, dh, dw):
    x = torch.rand(2, h, w)
    assert torch.equal(pp.crop_or_pad(pp.crop_or_pad(x, (h + dh, w + dw)), (h, w)), x)


def test_crop_or_pad_by_hand():
    x = torch.arange(5)[None]
    assert pp.crop_or_pad(x, (1, 3)).tolist() == [[1, 2, 3]]
    assert pp.crop_or_pad(x, (1, 2)).tolist() == [[1, 2]]
    assert pp.crop_or_pad(x, (3, 5), value=9)[0].tolist() == [9] * 5
    assert pp.crop_or_pad(torch.zeros(2, 3, 8, 8), 4).shape == (2, 3, 4, 4)


def test_zscore_is_per_slice():
    x = torch.rand(3, 2, 8, 9) * torch.tensor([1.0, 100.0, 1e-3])[:, None, None, None] + 5
    z = pp.zscore(x)
    assert torch.allclose(z.mean((2, 3)), torch.zeros(3, 2), atol=1e-5)
    assert torch.allclose(z.std((2, 3), correction=0), torch.ones(3, 2), atol=1e-5)
    assert z.dtype == torch.float32


def test_zscore_by_hand():
    assert pp.zscore(torch.tensor([[[[1.0, 3.0]]]])).tolist() == [[[[-1.0, 1.0]]]]


def test_constant_images_become_zero():
    flat = torch.full((1, 1, 4, 4), 0.1)
    assert (pp.zscore(flat) == 0).all()
    assert (pp.scale_percentile(flat) == 0).all()


def test_scale_percentile_agrees_with_numpy():
    x = torch.rand(2, 1, 20, 20) * 300
    y = pp.scale_percentile(x, None, 5, 95)
    for n in range(2):
        lo, hi = np.percentile(x[n].double(), (5, 95))
        assert np.allclose(y[n], ((x[n].double() - lo) / (hi - lo)).clamp(0, 1), atol=1e-6)
    mask = torch.zeros(2, 1, 20, 20, dtype=torch.bool)
    mask[..., :2] = True
    inside = pp.scale_percentile(x, mask, 0, 100)[..., :2]
    assert inside.amin((1, 2, 3)).tolist() == [0, 0] and inside.amax((1, 2, 3)).tolist() == [1, 1]


@pytest.mark.parametrize("function", [pp.zscore, pp.scale_percentile])
def test_nan_is_refused_with_its_place(function):
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 2, 3] = float("nan")
    with pytest.raises(ValueError, match=r"x must be finite.*2, 3"):
        function(x)


@pytest.mark.parametrize(("lo", "hi"), [(-1, 99), (50, 50), (1, 101)])
def test_bad_percentiles_are_refused(lo, hi):
    with pytest.raises(ValueError, match="lo and hi"):
        pp.scale_percentile(torch.zeros(1, 1, 4, 4), None, lo, hi)


def test_centre_of_mass():
    label = torch.zeros(2, 6, 6, dtype=torch.long)
    label[0, 1:3, 2:5] = 3
    centre = pp.centre_of_mass(label, 3)
    assert centre[0].tolist() == [1.5, 3.0]
    assert centre[1].isnan().all()
