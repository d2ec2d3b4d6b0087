import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from medseg_core import rng
from medseg_core.physics import noise


def gen(index=0):
    return rng.generator(3, index, "test")


def test_gaussian_field_has_zero_mean_unit_variance_and_the_stated_correlation():
    fields = torch.stack([noise.gaussian_field((48, 48), gen(i), sigma_px=2.0) for i in range(200)])
    assert abs(float(fields.mean())) < 0.02
    assert float(fields.var()) == pytest.approx(1, abs=0.05)
    for distance in (1, 3, 6):
        product = (fields[:, :, :-distance] * fields[:, :, distance:]).mean()
        assert float(product) == pytest.approx(math.exp(-(distance**2) / 16), abs=0.05)


def test_gaussian_field_does_not_wrap_around():
    fields = torch.stack([noise.gaussian_field((24, 24), gen(i), sigma_px=2.0) for i in range(400)])
    assert abs(float((fields[:, 0] * fields[:, -1]).mean())) < 0.1


def test_gaussian_field_of_sigma_zero_is_white_and_anisotropy_stretches_one_axis():
    white = noise.gaussian_field((64, 64), gen(), sigma_px=0.0)
    assert abs(float((white[1:] * white[:-1]).mean())) < 0.05
    long = noise.gaussian_field((256, 256), gen(), sigma_px=1.5, anisotropy=(1, 4))
    along = float((long[:, 4:] * long[:, :-4]).mean())
    across = float((long[4:] * long[:-4]).mean())
    assert along > across + 0.3


def test_gaussian_field_band_holds_only_its_frequencies():
    field = noise.gaussian_field((128,), gen(), band=(0.1, 0.2)).numpy()
    spectrum = np.abs(np.fft.rfft(field * np.hanning(128))) ** 2
    f = np.fft.rfftfreq(128)
    inside = spectrum[(f > 0.08) & (f < 0.22)].sum()
    assert inside > 0.95 * spectrum.sum()


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"sigma_px": 1.0, "band": (0.1, 0.2)},
        {"sigma_px": -1.0},
        {"band": (0.3, 0.2)},
        {"sigma_px": 1.0, "anisotropy": (1.0,)},
    ],
)
def test_gaussian_field_refuses(kind):
    with pytest.raises(ValueError, match=r"sigma_px|band|anisotropy"):
        noise.gaussian_field((8, 8), gen(), **kind)


def test_bias_field_has_mean_one_and_stays_in_its_range():
    for i in range(10):
        b = noise.bias_field((20, 30), gen(i), strength=0.3, order=3)
        assert float(b.mean()) == pytest.approx(1, abs=1e-5)
        assert float((b - 1).abs().max()) == pytest.approx(0.3, abs=1e-5)
    assert torch.equal(noise.bias_field((5, 5), gen(), strength=0.0), torch.ones(5, 5))


def test_rician_follows_scipys_law_and_is_rayleigh_without_signal():
    x = noise.rician(torch.full((20_000,), 1.5), 0.5, gen()).numpy()
    assert scipy.stats.kstest(x, scipy.stats.rice(b=3.0, scale=0.5).cdf).pvalue > 1e-3
    zero = noise.rician(torch.zeros(20_000), 0.5, gen()).numpy()
    assert zero.mean() == pytest.approx(0.5 * math.sqrt(math.pi / 2), rel=0.02)


def test_poisson_gaussian_mean_and_variance():
    y = noise.poisson_gaussian(torch.full((50_000,), 0.4), gen(), photons=100, read_sigma=0.05)
    assert float(y.mean()) == pytest.approx(0.4, abs=0.002)
    assert float(y.var()) == pytest.approx(0.4 / 100 + 0.05**2, rel=0.05)
    with pytest.raises(ValueError, match="x must be >= 0"):
        noise.poisson_gaussian(torch.tensor([-1.0]), gen(), photons=10, read_sigma=0)
    with pytest.raises(ValueError, match="photons"):
        noise.poisson_gaussian(torch.ones(1), gen(), photons=0, read_sigma=0)


@pytest.mark.parametrize("shape", [(2, 3, 17), (1, 2, 20, 13), (1, 1, 8, 9, 7)])
def test_blur_equals_scipy(shape):
    x = torch.randn(shape, generator=gen(), dtype=torch.float64)
    sigma = [0, 0] + [1.3] * (len(shape) - 2)
    expected = scipy.ndimage.gaussian_filter(x.numpy(), sigma, mode="nearest", truncate=6 / 1.3)
    assert torch.allclose(noise.blur(x, 1.3), torch.from_numpy(expected), atol=1e-6)
    assert noise.blur(x, 0) is x


def test_same_generator_same_draw():
    a, b = (noise.rician(torch.ones(4), 0.1, gen(5)) for _ in range(2))
    assert torch.equal(a, b)
