import math

import pytest
import torch
from scipy import ndimage

from medseg_core import rng
from medseg_core.physics import deform
from medseg_core.physics.noise import gaussian_field


def image(size=(17, 20), channels=1):
    g = rng.generator(1)
    return torch.stack([gaussian_field(size, g, sigma_px=1.5) for _ in range(channels)])[None]


def warp(x, disp):
    """Image at p + disp(p), disp (N,ndim,*S)."""
    return deform.sample(x, deform.identity_grid(x.shape[2:]) + disp.movedim(1, -1))


def test_a_known_shift():
    x = image(channels=2)
    disp = torch.zeros(1, 2, 17, 20)
    disp[:, 0], disp[:, 1] = 2, -1  # (row, column)
    assert torch.allclose(warp(x, disp)[:, :, :15, 1:], x[:, :, 2:, :-1], atol=1e-5)


@pytest.mark.parametrize("size", [(17, 20), (7, 9, 8)])
def test_sample_agrees_with_scipy_inside_and_repeats_the_edge(size):
    x = torch.rand(1, 1, *size, generator=rng.generator(2))
    points = torch.rand(1, *(5,) * len(size), len(size), generator=rng.generator(3))
    points = points * (torch.tensor(size) + 3.0) - 2  # some outside
    for mode, order in (("bilinear", 1), ("nearest", 0)):
        got = deform.sample(x, points, mode=mode)[0, 0]
        want = ndimage.map_coordinates(
            x[0, 0].numpy(), points[0].movedim(-1, 0).numpy(), order=order, mode="nearest"
        )
        assert torch.allclose(got, torch.from_numpy(want), atol=1e-5)
    with pytest.raises(ValueError, match="mode must be one of"):
        deform.sample(x, points, mode="cubic")


def test_from_polar_puts_rows_at_radii_and_columns_at_angles():
    """By hand: 4 rows at radii 0 … 3 px, 4 columns at right, down, left, up."""
    polar = torch.arange(16.0).reshape(1, 1, 4, 4)
    got = deform.from_polar(polar + 1, torch.tensor([[3.0, 4.0]]), 4.0, (9, 9))[0, 0] - 1
    for row in (1, 2, 3):
        for column, (down, right) in enumerate([(0, 1), (1, 0), (0, -1), (-1, 0)]):
            value = float(got[3 + row * down, 4 + row * right])
            assert value == pytest.approx(4 * row + column, abs=1e-4)
    assert float(got[3, 8]) == -1  # radius 4, beyond the last row at 3
    assert float(got[8, 8]) == -1
    # Half-way between the last column (up, 7) and the first (right, 4), both at radius √2.
    r = math.sqrt(2)
    assert float(got[2, 5]) == pytest.approx((4 * r + 3 + 4 * r) / 2, abs=1e-4)


def test_from_polar_inverts_a_polar_reading():
    x = image((41, 41), channels=2)
    centre = torch.tensor([[19.7, 20.4]])
    r, a = torch.arange(64.0)[:, None] / 4, torch.arange(256.0) * (2 * math.pi / 256)
    points = centre[0] + torch.stack([r * a.sin(), r * a.cos()], -1)  # (64, 256, 2)
    polar = deform.sample(x, points[None])
    back = deform.from_polar(polar + 100, centre, 16, (41, 41)) - 100
    inside = back > -50
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


def test_from_polar_lets_the_gradient_through():
    centre = torch.tensor([[7.0, 7.0], [6.0, 8.5]])
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
