import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from medseg_core.training.patches import crop_subpixel


def ramp(*size):
    """Value 100·row + column (or 10 000·slice + ...): linear, so interpolation is exact."""
    grids = torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij")
    return sum(100.0**k * g for k, g in enumerate(reversed(grids)))[None, None]


def test_integer_centre_and_odd_side_copy_pixels():
    x = torch.randn(2, 3, 9, 11)
    patch = crop_subpixel(x, torch.tensor([1]), torch.tensor([[4.0, 5.0]]), 5, 5)
    torch.testing.assert_close(patch[0], x[1, :, 2:7, 3:8])


def test_positions_by_hand():
    # Field 4 around (5, 6), two samples per axis: cell centres one pixel to either side.
    patch = crop_subpixel(ramp(12, 12), torch.tensor([0]), torch.tensor([[5.0, 6.5]]), 4.0, 2)
    expected = torch.tensor([[405.5, 407.5], [605.5, 607.5]])
    torch.testing.assert_close(patch[0, 0], expected)
    wide = crop_subpixel(
        ramp(12, 12), torch.tensor([0]), torch.tensor([[5.0, 5.0]]), (2.0, 6.0), (1, 3)
    )
    torch.testing.assert_close(wide[0, 0], torch.tensor([[503.0, 505.0, 507.0]]))


def test_three_dimensions():
    centre = torch.tensor([[3.25, 4.5, 2.0]])
    patch = crop_subpixel(ramp(8, 9, 7), torch.tensor([0]), centre, 1, 1)
    torch.testing.assert_close(patch.flatten(), torch.tensor([32_500.0 + 450 + 2]))


@settings(max_examples=25, deadline=None)
@given(
    row=st.floats(0, 8), column=st.floats(0, 10), field=st.floats(0.5, 12), out=st.integers(1, 6)
)
def test_agrees_with_scipy_inside_and_beyond_the_border(row, column, field, out):
    x = torch.randn(1, 1, 9, 11, generator=torch.Generator().manual_seed(0))
    patch = crop_subpixel(x, torch.tensor([0]), torch.tensor([[row, column]]), field, out)
    steps = ((torch.arange(out) + 0.5) / out - 0.5) * field
    at = torch.meshgrid(row + steps, column + steps, indexing="ij")
    clamped = torch.stack((at[0].clamp(0, 8), at[1].clamp(0, 10))).numpy()
    expected = torch.as_tensor(map_coordinates(x[0, 0].numpy(), clamped, order=1))
    torch.testing.assert_close(patch[0, 0], expected.float(), atol=1e-4, rtol=1e-4)


def test_zeros_outside_and_nearest():
    x = torch.ones(1, 1, 4, 4)
    far = torch.tensor([[-20.0, 2.0]])
    assert crop_subpixel(x, torch.tensor([0]), far, 3, 3, padding="zeros").abs().max() == 0
    labels = torch.arange(16.0).reshape(1, 1, 4, 4)
    centre = torch.tensor([[1.4, 2.6]])
    assert crop_subpixel(labels, torch.tensor([0]), centre, 1, 1, mode="nearest").item() == 7.0


def test_gradients_reach_image_and_centres():
    x, centres = ramp(8, 8).requires_grad_(), torch.tensor([[3.3, 4.4]], requires_grad=True)
    crop_subpixel(x, torch.tensor([0]), centres, 3, 3).mean().backward()
    torch.testing.assert_close(centres.grad, torch.tensor([[100.0, 1.0]]), rtol=1e-3, atol=1e-2)
    assert x.grad.sum().item() == pytest.approx(1, abs=1e-4)


def test_no_patches():
    empty = crop_subpixel(ramp(8, 8), torch.zeros(0, dtype=torch.long), torch.zeros(0, 2), 3, 3)
    assert empty.shape == (0, 1, 3, 3)


def test_bad_input_is_refused():
    x, one, centre = ramp(8, 8), torch.tensor([0]), torch.tensor([[3.0, 3.0]])
    with pytest.raises(ValueError, match=r"index must lie in 0\.\.0"):
        crop_subpixel(x, torch.tensor([1]), centre, 3, 3)
    with pytest.raises(ValueError, match="centres"):
        crop_subpixel(x, one, torch.zeros(1, 3), 3, 3)
    with pytest.raises(ValueError, match="centres must be finite"):
        crop_subpixel(x, one, torch.full((1, 2), float("nan")), 3, 3)
    with pytest.raises(ValueError, match="field must be > 0"):
        crop_subpixel(x, one, centre, 0, 3)
    with pytest.raises(ValueError, match="one for each of 2 axes"):
        crop_subpixel(x, one, centre, (1, 2, 3), 3)
    with pytest.raises(ValueError, match="mode"):
        crop_subpixel(x, one, centre, 3, 3, mode="cubic")
