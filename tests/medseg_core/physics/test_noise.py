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


@pytest.mark.parametrize(
    "kind",
    [
        {"sigma_px": -1.0},
        {"sigma_px": math.nan},
        {"sigma_px": 1.0, "anisotropy": (1.0,)},
    ],
)
def test_gaussian_field_refuses(kind):
    with pytest.raises(ValueError, match=r"sigma_px|anisotropy"):
        noise.gaussian_field((8, 8), gen(), **kind)


def test_ramp_field_has_variance_one_and_the_stated_spectrum():
    fields = torch.stack([noise.ramp_field((64, 64), gen(i)) for i in range(150)])
    assert abs(float(fields.mean())) < 0.002  # nothing is left at frequency 0
    assert float(fields.var()) == pytest.approx(1, abs=0.02)
    # Correlation at a distance, from the spectrum by numerical integration over the plane.
    line = np.fft.fftfreq(512)
    f = np.hypot(line[:, None], line)
    power = f * np.exp(-((f / 0.3) ** 2))
    for distance in (1, 2, 3, 5):
        expected = (power * np.cos(2 * np.pi * line * distance)).sum() / power.sum()
        for a, b in (
            (fields[:, :, :-distance], fields[:, :, distance:]),
            (fields[:, :-distance], fields[:, distance:]),
        ):
            assert float((a * b).mean()) == pytest.approx(expected, abs=0.02)


def test_ramp_field_grows_with_the_frequency_below_the_cutoff():
    fields = torch.stack([noise.ramp_field((64, 64), gen(i)) for i in range(100)])
    taper = torch.hann_window(64)[:, None] * torch.hann_window(64)
    power = (torch.fft.fft2(fields * taper).abs() ** 2).mean(0).numpy()
    line = np.fft.fftfreq(64)
    f = np.hypot(line[:, None], line)
    expected = f * np.exp(-((f / 0.3) ** 2))
    rings = [(f >= low) & (f < low + 0.08) for low in (0.05, 0.13, 0.21, 0.29, 0.37)]
    got = np.array([power[ring].mean() for ring in rings])
    want = np.array([expected[ring].mean() for ring in rings])
    assert got / got.mean() == pytest.approx(want / want.mean(), rel=0.04)


def test_bias_field_has_mean_one_and_stays_in_its_range():
    for i in range(10):
        b = noise.bias_field((20, 30), gen(i), strength=0.3)
        assert float(b.mean()) == pytest.approx(1, abs=1e-5)
        assert float((b - 1).abs().max()) == pytest.approx(0.3, abs=1e-5)
    assert torch.equal(noise.bias_field((5, 5), gen(), strength=0.0), torch.ones(5, 5))


def test_rician_follows_scipys_law_and_is_rayleigh_without_signal():
    x = noise.rician(torch.full((20_000,), 1.5), 0.5, gen()).numpy()
    assert scipy.stats.kstest(x, scipy.stats.rice(b=3.0, scale=0.5).cdf).pvalue > 1e-3
    zero = noise.rician(torch.zeros(20_000), 0.5, gen()).numpy()
    assert zero.mean() == pytest.approx(0.5 * math.sqrt(math.pi / 2), rel=0.02)


@pytest.mark.parametrize("shape", [(2, 3, 17), (1, 2, 20, 13), (1, 1, 8, 9, 7)])
def test_blur_equals_scipy(shape):
    x = torch.randn(shape, generator=gen(), dtype=torch.float64)
    sigma = [0, 0] + [1.3] * (len(shape) - 2)
    expected = scipy.ndimage.gaussian_filter(x.numpy(), sigma, mode="nearest", truncate=6 / 1.3)
    assert torch.allclose(noise.blur(x, 1.3), torch.from_numpy(expected), atol=1e-6)
    assert noise.blur(x, 0) is x


@pytest.mark.parametrize("grain", [0, 1.2])
@pytest.mark.parametrize("law", ["gamma", "rayleigh"])
def test_speckle_follows_its_law_with_mean_one_and_the_stated_strength(law, grain):
    strength = noise.RAYLEIGH_SD if law == "rayleigh" else 0.4
    m = noise.speckle(
        torch.ones(6, 2, 96, 96), gen(), law=law, strength=strength, grain_px=grain
    ).double()
    assert float(m.mean()) == pytest.approx(1, abs=0.01)
    assert float(m.std()) == pytest.approx(strength, rel=0.02)
    expected = {
        "gamma": scipy.stats.gamma(a=1 / 0.4**2, scale=0.4**2),
        "rayleigh": scipy.stats.rayleigh(scale=math.sqrt(2 / math.pi)),
    }[law]
    independent = m[:, :, ::8, ::8].flatten().numpy()
    assert scipy.stats.kstest(independent, expected.cdf).pvalue > 1e-3


def test_gamma_speckle_is_right_far_out_in_both_tails():
    z = torch.tensor([-5.5, -3.0, 0.0, 3.0, 5.5], dtype=torch.float64)
    for shape in (0.7, 4.0, 400.0):
        got = noise._gamma_quantile(z, shape).numpy()
        law = scipy.stats.gamma(a=shape, scale=1 / shape)
        lower, upper = law.ppf(scipy.stats.norm.cdf(z[:3])), law.isf(scipy.stats.norm.sf(z[3:]))
        assert np.allclose(got, np.concatenate([lower, upper]), rtol=1e-3, atol=1e-5)


def test_speckle_grain_is_the_correlation_length_and_zero_is_white():
    def correlation(grain, d, axis):
        x = torch.ones(40, 1, 48, 48)
        # Of a small strength the gamma law is nearly normal.
        z = (noise.speckle(x, gen(), law="gamma", strength=0.05, grain_px=grain) - 1) / 0.05
        moved, kept = (z.narrow(axis, s, 48 - d) for s in (d, 0))
        return float((moved * kept).mean())

    for d in (1, 2, 4):
        assert correlation(1.5, d, 2) == pytest.approx(math.exp(-(d**2) / 9), abs=0.04)
    assert abs(correlation(0, 1, 2)) < 0.02
    assert correlation((2.0, 0.0), 2, 2) == pytest.approx(math.exp(-0.25), abs=0.04)
    assert abs(correlation((2.0, 0.0), 1, 3)) < 0.03


def test_speckle_multiplies_and_is_independent_between_samples():
    x = torch.rand(2, 2, 16, 16, generator=gen()) * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    for grain in (0, 1.0):
        kind = {"law": "gamma", "strength": 0.5, "grain_px": grain}
        m = noise.speckle(torch.ones_like(x), gen(1), **kind)
        assert torch.allclose(noise.speckle(x, gen(1), **kind), x * m)
        flat = m.reshape(4, -1)
        assert float((flat[0] - flat[1]).abs().mean()) > 0.1
    assert float(m.min()) >= 0
    assert noise.speckle(x, gen(), law="gamma", strength=0) is x
    x64 = x.double().requires_grad_()
    y = noise.speckle(x64, gen(), law="gamma", strength=0.5)
    y.sum().backward()
    assert y.dtype == torch.float64 and torch.allclose(x64.grad * x64, y)


@pytest.mark.parametrize(
    "kind, name",
    [
        ({"law": "poisson"}, "law"),
        ({"strength": -0.1}, "strength"),
        ({"law": "rayleigh", "strength": 0.6}, "strength"),
        ({"grain_px": -1.0}, "grain_px"),
        ({"grain_px": (1.0, 1.0, 1.0)}, "grain_px"),
    ],
)
def test_speckle_refuses(kind, name):
    with pytest.raises(ValueError, match=name):
        noise.speckle(torch.ones(1, 1, 8, 8), gen(), **({"law": "gamma", "strength": 0.5} | kind))
    with pytest.raises(ValueError, match="grain_px"):
        noise.speckle(torch.ones(8, 8), gen(), law="gamma", strength=0.5, grain_px=1.0)


def test_same_generator_same_draw():
    a, b = (noise.rician(torch.ones(4), 0.1, gen(5)) for _ in range(2))
    assert torch.equal(a, b)


def test_a_periodic_axis_closes_on_itself_and_the_others_stay_open():
    fields = torch.stack(
        [noise.gaussian_field((12, 16), gen(k), sigma_px=1.5, periodic=(1,)) for k in range(800)]
    )
    assert float(fields.var()) == pytest.approx(1, abs=0.05)
    expected = math.exp(-1 / (4 * 1.5**2))  # correlation of neighbours
    wrap = (fields[..., 0] * fields[..., -1]).mean()
    assert float(wrap) == pytest.approx(expected, abs=0.06)
    assert float((fields[:, 0] * fields[:, -1]).mean()) == pytest.approx(0, abs=0.06)
    ones = torch.ones(800, 1, 8, 16)
    kind = {"law": "gamma", "strength": 0.1, "grain_px": 1.5}
    z = noise.speckle(ones, gen(), periodic=(1,), **kind)[:, 0] - 1
    assert float((z[..., 0] * z[..., -1]).mean()) > 0.8 * expected * 0.01
    assert float((z[:, 0] * z[:, -1]).mean().abs()) < 0.001
    with pytest.raises(ValueError, match="periodic must be one of"):
        noise.gaussian_field((8, 8), gen(), sigma_px=1, periodic=(2,))
