import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core import rng
from medseg_core.physics.acoustics import log_compress, scan_convert, speckle_envelope


def gen(index=0):
    return rng.generator(3, index, "test")


def test_log_compress_by_hand():
    amplitude = torch.tensor([1.0, 0.1, 1e-3, 1e-4, 0.0, 7.0])
    expected = torch.tensor([1.0, 2 / 3, 0.0, 0.0, 0.0, 1.0])
    assert torch.allclose(log_compress(amplitude, 60), expected, atol=1e-6)
    assert float(log_compress(torch.tensor(0.1), 40)) == pytest.approx(0.5)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 10), min_size=2, max_size=8), st.floats(20, 90), st.floats(0.01, 100))
def test_log_compress_keeps_order_and_turns_gain_into_a_shift(values, range_db, gain):
    x = torch.tensor(sorted(values), dtype=torch.float64)
    y = log_compress(x, range_db)
    assert (y.diff() >= 0).all() and float(y.min()) >= 0 and float(y.max()) <= 1
    shift = 20 * math.log10(gain) / range_db
    both = (y > 1e-9) & (y < 1) & (y + shift > 1e-9) & (y + shift < 1)
    assert torch.allclose(log_compress(gain * x, range_db)[both], (y + shift)[both], atol=1e-9)


@pytest.mark.parametrize(
    "kind",
    [
        {"dynamic_range_db": 0},
        {"dynamic_range_db": math.nan},
        {"envelope": torch.tensor([-0.1])},
        {"envelope": torch.tensor([math.inf])},
    ],
)
def test_log_compress_refuses(kind):
    with pytest.raises(ValueError, match=next(iter(kind))):
        log_compress(**({"envelope": torch.ones(2), "dynamic_range_db": 60} | kind))


RADII, ANGLES = torch.linspace(5, 60, 23), torch.linspace(-0.7, 0.6, 31)


def test_scan_convert_puts_each_echo_at_its_distance_and_angle():
    """Images that are linear in r and a survive bilinear interpolation exactly."""
    polar = torch.stack([RADII[:, None].expand(-1, 31), ANGLES.expand(23, -1)])[None]
    image = scan_convert(polar, RADII, ANGLES, (40, 50), (1.5, 2.0), apex=(1.0, 20.0))
    row, column = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    down, right = 1.5 * (row - 1), 2.0 * (column - 20)
    r, a = (down**2 + right**2).sqrt(), torch.atan2(right, down)
    inside = (r >= 5) & (r <= 60) & (a >= -0.7) & (a <= 0.6)
    assert 300 < int(inside.sum()) < 1700
    assert torch.allclose(image[0, 0], torch.where(inside, r, 0), atol=1e-3)
    assert torch.allclose(image[0, 1], torch.where(inside, a, 0), atol=1e-4)


def test_scan_convert_agrees_with_map_coordinates():
    polar = torch.rand(2, 1, 23, 31, generator=gen())
    image = scan_convert(polar, RADII, ANGLES, 48, 1.3)
    row, column = np.mgrid[:48, :48] * 1.3
    column = column - 23.5 * 1.3  # the apex is in the middle of the first row
    at = [
        (np.hypot(row, column) - 5) / float(RADII[1] - RADII[0]),
        (np.arctan2(column, row) + 0.7) / float(ANGLES[1] - ANGLES[0]),
    ]
    for k in (0, 1):
        expected = scipy.ndimage.map_coordinates(polar[k, 0].numpy(), at, order=1, cval=0)
        assert np.abs(image[k, 0].numpy() - expected).max() < 1e-4


def test_scan_convert_mirrors_and_passes_gradients():
    polar = torch.rand(1, 1, 12, 15, generator=gen()).double().requires_grad_()
    angles = torch.linspace(-0.6, 0.6, 15)
    radii = torch.linspace(0, 30, 12)
    image = scan_convert(polar, radii, angles, (30, 31), 1.0)
    assert torch.allclose(scan_convert(polar.flip(3), radii, angles, (30, 31), 1.0).flip(3), image)
    image.sum().backward()
    assert float(polar.grad.sum()) == pytest.approx(float((image > 0).sum()))


@pytest.mark.parametrize(
    "name, kind",
    [
        ("polar", {"polar": torch.ones(23, 31)}),
        ("radii_mm", {"radii_mm": RADII[:-1]}),
        ("radii_mm", {"radii_mm": RADII - 10}),
        ("radii_mm", {"radii_mm": RADII**2}),
        ("radii_mm", {"radii_mm": RADII.clone().fill_(math.nan)}),
        ("angles", {"angles": ANGLES.flip(0)}),
        ("angles", {"angles": ANGLES * 10}),
        ("spacing", {"spacing": 0.0}),
        ("size", {"size": (0, 4)}),
    ],
)
def test_scan_convert_refuses(name, kind):
    given = {"polar": torch.ones(1, 1, 23, 31), "radii_mm": RADII, "angles": ANGLES}
    with pytest.raises(ValueError, match=name):
        scan_convert(**(given | {"size": 8, "spacing": 1.0} | kind))


def envelope(echo, share, n=40, axial=1.2, lateral=1.6):
    many = echo.expand(n, -1, -1, -1)
    return speckle_envelope(many, gen(), axial_px=axial, lateral_px=lateral, share=share)


def test_fully_developed_speckle_follows_the_rayleigh_law():
    e = envelope(torch.full((1, 1, 48, 48), 2.0), 1.0)[:, :, ::8, ::8].flatten()  # independent
    assert scipy.stats.kstest(e.numpy(), "rayleigh", (0, 2 / math.sqrt(2))).pvalue > 0.01


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_share_of_diffuse_power_gives_rices_law(share):
    e = envelope(torch.full((1, 1, 48, 48), 2.0), share)[:, :, ::8, ::8].flatten()
    sigma = 2 * math.sqrt(share / 2)
    law = scipy.stats.rice(2 * math.sqrt(1 - share) / sigma, scale=sigma)
    assert scipy.stats.kstest(e.numpy(), law.cdf).pvalue > 0.01
    assert scipy.stats.kstest(e.numpy(), "rayleigh", (0, math.sqrt(2))).pvalue < 1e-3


def test_the_power_is_the_echos_for_every_share_also_at_the_borders():
    for share in (0.3, 1.0):
        power = envelope(torch.full((1, 1, 24, 24), 3.0), share, n=1500).square().mean((0, 1))
        for part in (power, power[0], power[-1], power[:, 0], power[:, -1]):
            assert float(part.mean()) == pytest.approx(9, rel=0.05)


def test_the_grain_is_the_point_spreads_in_each_row():
    """Intensity of a Gaussian field: its correlation at distance d is exp(−d²/2σ²)."""
    lateral = torch.linspace(1, 4, 40)
    ones = torch.ones(400, 1, 40, 64)
    i = speckle_envelope(ones, gen(), axial_px=1.5, lateral_px=lateral).square() - 1
    for d in (1, 2, 3):
        along = (i[:, :, d:] * i[:, :, :-d])[:, :, 10:].mean()
        # Rows of unlike lateral width are a little less alike than exp(−d²/2σ²) says.
        assert float(along) == pytest.approx(math.exp(-(d**2) / (2 * 1.5**2)), abs=0.06)
        for row in (0, 20, 39):
            across = (i[:, 0, row, d:] * i[:, 0, row, :-d]).mean()
            expected = math.exp(-(d**2) / (2 * float(lateral[row]) ** 2))
            # The axial part mixes neighbouring rows, and with them their widths.
            assert float(across) == pytest.approx(expected, abs=0.1)


def test_without_diffuse_power_it_is_a_gaussian_blur_and_draws_nothing():
    echo = torch.rand(1, 1, 30, 40, generator=gen())
    g = gen(1)
    before = g.get_state()
    clean = speckle_envelope(echo, g, axial_px=2.0, lateral_px=1.5, share=0.0)
    expected = scipy.ndimage.gaussian_filter(echo[0, 0].numpy(), (2.0, 1.5), mode="nearest")
    assert np.abs(clean[0, 0].numpy() - expected).max() < 2e-3
    assert torch.equal(g.get_state(), before)
    same = speckle_envelope(echo, g, axial_px=0.0, lateral_px=0.0, share=0.0)
    assert torch.allclose(same, echo, atol=1e-5)


def test_no_echo_no_speckle():
    assert float(envelope(torch.zeros(1, 1, 8, 8), 1.0).max()) == 0


@pytest.mark.parametrize(
    "name, kind",
    [
        ("echo", {"echo": torch.ones(8, 8)}),
        ("echo", {"echo": -torch.ones(1, 1, 8, 8)}),
        ("share", {"share": 1.2}),
        ("axial_px", {"axial_px": -1.0}),
        ("lateral_px", {"lateral_px": math.nan}),
    ],
)
def test_speckle_envelope_refuses(name, kind):
    with pytest.raises(ValueError, match=name):
        speckle_envelope(
            **({"echo": torch.ones(1, 1, 8, 8), "axial_px": 1.0, "lateral_px": 1.0} | kind),
            gen=gen(),
        )
