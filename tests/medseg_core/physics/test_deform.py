import math
import warnings

import pytest
import torch
from skimage.transform import warp_polar

from medseg_core import rng
from medseg_core.physics import deform
from medseg_core.physics.noise import gaussian_field


def image(size=(17, 20), channels=1):
    g = rng.generator(1)
    return torch.stack([gaussian_field(size, g, sigma_px=1.5) for _ in range(channels)])[None]


def test_warp_by_a_known_shift():
    x = image(channels=2)
    disp = torch.zeros(1, 2, 17, 20)
    disp[:, 0], disp[:, 1] = 2, -1  # warped(p) = x(p + (2, −1))
    assert torch.allclose(deform.warp(x, disp)[:, :, :15, 1:], x[:, :, 2:, :-1], atol=1e-5)


def test_warp_agrees_with_monai():
    from monai.networks.blocks import Warp

    x = image()
    disp = torch.stack(
        [gaussian_field((17, 20), rng.generator(2, k), sigma_px=3.0) for k in (0, 1)]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = Warp(mode="bilinear", padding_mode="border")(x, disp[None])
    assert torch.allclose(deform.warp(x, disp[None]), expected, atol=1e-5)


def test_warp_in_3d_nearest_keeps_labels_and_zeros_padding_pads():
    x = torch.randint(0, 4, (1, 1, 6, 7, 8)).float()
    disp = torch.full((1, 3, 6, 7, 8), 0.4)
    assert torch.equal(deform.warp(x, disp, mode="nearest"), x)
    far = torch.full((1, 3, 6, 7, 8), 50.0)
    assert float(deform.warp(x, far, padding="zeros").abs().max()) == 0
    with pytest.raises(ValueError, match="disp must be"):
        deform.warp(x, far[:, :2])


def test_rigid_warp_shifts_in_millimetres_and_turns_column_towards_row():
    x = torch.zeros(1, 1, 11, 11)
    x[0, 0, 5, 8] = 1  # three columns right of the centre
    moved = deform.rigid_warp(x, torch.tensor([[2.0, 0.0, 0.0]]), (2.0, 1.0))
    assert float(moved[0, 0, 6, 8]) == pytest.approx(1, abs=1e-5)
    turned = deform.rigid_warp(x, torch.tensor([[0.0, 0.0, math.pi / 2]]), (1.0, 1.0))
    assert float(turned[0, 0, 8, 5]) == pytest.approx(1, abs=1e-4)


def test_rigid_warp_there_and_back():
    x = image((41, 41))
    pose = torch.tensor([[1.5, -2.0, 0.3]])
    there = deform.rigid_warp(x, pose, (1.0, 1.0))
    # The inverse of p ↦ R·p + t is p ↦ Rᵀ·p − Rᵀ·t.
    c, s = math.cos(0.3), math.sin(0.3)
    back = torch.tensor([[-(c * 1.5 - s * -2.0), -(s * 1.5 + c * -2.0), -0.3]])
    again = deform.rigid_warp(there, back, (1.0, 1.0))
    centre = (slice(None), slice(None), slice(12, 29), slice(12, 29))
    assert float((again[centre] - x[centre]).abs().mean()) < 0.1


def test_random_displacement_is_bounded_smooth_and_invertible():
    field = deform.random_displacement(
        (32, 32), rng.generator(0), sigma_px=4, amplitude_px=6, diffeomorphic=False
    )
    assert float(field.norm(dim=1).max()) == pytest.approx(6, rel=1e-4)
    disp = deform.random_displacement((32, 32), rng.generator(0), sigma_px=4, amplitude_px=6)
    rows = 1 + disp[0, 0].diff(dim=0)[:, :-1]
    columns = 1 + disp[0, 1].diff(dim=1)[:-1]
    cross = disp[0, 0].diff(dim=1)[:-1] * disp[0, 1].diff(dim=0)[:, :-1]
    assert float((rows * columns - cross).min()) > 0  # no folding


def test_random_displacement_integrates_like_monai():
    from monai.networks.blocks import DVF2DDF

    velocity = deform.random_displacement(
        (24, 24), rng.generator(4), sigma_px=3, amplitude_px=2, diffeomorphic=False
    )
    ours = deform.random_displacement((24, 24), rng.generator(4), sigma_px=3, amplitude_px=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = DVF2DDF(num_steps=4, padding_mode="border")(velocity)
    assert torch.allclose(ours, theirs, atol=0.02)


def test_to_polar_agrees_with_skimage():
    x = image((31, 33))
    polar = deform.to_polar(x, torch.tensor([[15.2, 16.1]]), 12, 12, 40)
    expected = warp_polar(x[0, 0].numpy(), center=(15.2, 16.1), radius=12, output_shape=(40, 12))
    assert torch.allclose(polar[0, 0], torch.from_numpy(expected.T).float(), atol=1e-4)


def test_from_polar_puts_rows_at_radii_and_columns_at_angles():
    """By hand: 4 rows at radii 0 … 3 px, 4 columns at right, down, left, up."""
    polar = torch.arange(16.0).reshape(1, 1, 4, 4)
    got = deform.from_polar(polar, torch.tensor([[3.0, 4.0]]), 4.0, (9, 9), fill=-1.0)[0, 0]
    for row in (1, 2, 3):
        for column, (down, right) in enumerate([(0, 1), (1, 0), (0, -1), (-1, 0)]):
            value = float(got[3 + row * down, 4 + row * right])
            assert value == pytest.approx(4 * row + column, abs=1e-4)
    assert float(got[3, 8]) == -1  # radius 4, beyond the last row at 3
    assert float(got[8, 8]) == -1
    # Half-way between the last column (up, 7) and the first (right, 4), both at radius √2.
    r = math.sqrt(2)
    assert float(got[2, 5]) == pytest.approx((4 * r + 3 + 4 * r) / 2, abs=1e-4)


def test_from_polar_is_the_inverse_of_to_polar():
    x = image((41, 41), channels=2)
    centre = torch.tensor([[19.7, 20.4]])
    polar = deform.to_polar(x, centre, 16, 64, 256)
    back = deform.from_polar(polar, centre, 16, (41, 41), fill=math.nan)
    inside = ~back.isnan()
    distance = (deform.identity_grid((41, 41)) - centre[0]).norm(dim=-1)
    assert torch.equal(inside[0, 0], distance * 4 <= 63.5)
    assert float((back - x)[inside].abs().mean()) < 0.03 * float(x.std())


def test_from_polar_turns_with_its_columns():
    """A quarter turn of the columns is a quarter turn of the image: no seam anywhere."""
    polar = gaussian_field((12, 40), rng.generator(3), sigma_px=1.0)[None, None]
    polar[..., 0, :] = 0.5  # radius 0 is one point, whatever its angle
    centre = torch.tensor([[12.0, 12.0]])
    one = deform.from_polar(polar, centre, 12.0, (25, 25))
    turned = deform.from_polar(polar.roll(10, -1), centre, 12.0, (25, 25))
    assert torch.allclose(turned, one.rot90(-1, (2, 3)), atol=1e-4)  # +column towards +row


def test_from_polar_keeps_labels_and_lets_the_gradient_through():
    label = torch.randint(0, 3, (2, 1, 8, 12)).float()
    centre = torch.tensor([[7.0, 7.0], [6.0, 8.5]])
    there = deform.from_polar(label, centre, 7.0, (15, 15), mode="nearest", fill=9.0)
    assert set(there.unique().tolist()) <= {0.0, 1.0, 2.0, 9.0}
    polar = torch.rand(2, 1, 8, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 1, 15, 15, dtype=torch.float64)
    out = deform.from_polar(polar, centre.double(), 7.0, (15, 15))
    (out * weight).sum().backward()
    # Linear in the polar image, with zeros filled in: ⟨weight, out⟩ = ⟨gradient, polar⟩.
    assert torch.allclose((polar.grad * polar).sum(), (out * weight).sum())


def test_from_polar_refuses():
    polar = torch.rand(1, 1, 8, 12)
    with pytest.raises(ValueError, match="centre must have the shape"):
        deform.from_polar(polar, torch.zeros(2, 2), 7.0, (15, 15))
    with pytest.raises(ValueError, match="polar must have the shape"):
        deform.from_polar(polar[0], torch.zeros(1, 2), 7.0, (15, 15))
    with pytest.raises(ValueError, match="radius_px must be positive"):
        deform.from_polar(polar, torch.zeros(1, 2), 0.0, (15, 15))
    with pytest.raises(ValueError, match="mode must be one of"):
        deform.from_polar(polar, torch.zeros(1, 2), 7.0, (15, 15), mode="cubic")
