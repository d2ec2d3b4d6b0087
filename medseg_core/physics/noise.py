"""Noise laws and random fields of imaging physics; every draw comes from the generator given."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medseg_core import checks

RAYLEIGH_SD = math.sqrt(4 / math.pi - 1)  # of a Rayleigh law with mean 1
RAMP_CUTOFF = 0.3  # cycles per pixel
BIAS_ORDER = 3  # total degree of the polynomial of a bias field


def gaussian_field(
    shape: Sequence[int],
    gen: torch.Generator,
    *,
    sigma_px: float,
    anisotropy: Sequence[float] | None = None,
    periodic: Sequence[int] = (),
) -> Tensor:
    """Stationary Gaussian random field with zero mean and unit variance.

    White noise w is filtered in the Fourier domain, x = F⁻¹(H·F(w)) / √mean|H|², with
    H(f) = exp(−2π²σ²|f|²), a Gaussian kernel: correlation exp(−d²/4σ²) at distance d. The field is
    drawn on a larger grid and cropped, so that opposite borders are independent, except along
    ``periodic`` axes (the angle of a polar image), where the last value is the first one's
    neighbour. Variance 1 holds for the ensemble, not for each draw.

    Args:
        shape: size of the field, 1 to 3 axes.
        gen: generator of the white noise; the field lives on its device.
        sigma_px: standard deviation of the kernel in pixels; 0 gives white noise.
        anisotropy: factor on ``sigma_px`` for each axis.
        periodic: axes that close on themselves.

    Returns:
        float32 tensor of ``shape``.

    Raises:
        ValueError: ``sigma_px`` < 0, another number of factors than axes, a ``periodic`` axis that
            the field has not.
    """
    checks.between(sigma_px, "sigma_px", 0, None)
    stretch = [1.0] * len(shape) if anisotropy is None else list(anisotropy)
    if len(stretch) != len(shape):
        raise ValueError(f"anisotropy needs one factor per axis of {tuple(shape)}, got {stretch}")

    padded = [n + math.ceil(6 * sigma_px * a) for n, a in zip(shape, stretch, strict=True)]
    for axis in periodic:
        checks.choice(axis, "periodic", range(len(shape)))
        padded[axis] = shape[axis]
    f2 = torch.zeros(padded, device=gen.device)
    for axis, (n, a) in enumerate(zip(padded, stretch, strict=True)):
        line = torch.fft.fftfreq(n, device=gen.device) * a
        f2 = f2 + (line**2).reshape([-1 if k == axis else 1 for k in range(len(padded))])
    transfer = torch.exp(-2 * math.pi**2 * sigma_px**2 * f2)
    white = torch.randn(padded, generator=gen, device=gen.device)
    field = torch.fft.ifftn(torch.fft.fftn(white) * transfer).real / transfer.square().mean().sqrt()
    return field[tuple(slice(0, n) for n in shape)].contiguous()


def ramp_field(shape: Sequence[int], gen: torch.Generator) -> Tensor:
    """CT noise of variance 1: its power rises with the frequency, P(f) ∝ |f|·exp(−(f/f_c)²).

    Filtered back-projection of white noise in the projections leaves |f|·W², W its smoothing
    window (Riederer, Pelc and Chesler, The noise power spectrum in computed X-ray tomography,
    1978), so that neighbouring pixels are correlated, but no slow variation is left. The window
    falls at f_c = 0.3 cycles per pixel.

    Args:
        shape: size of the field, 2 or 3 axes; drawn on a larger grid, as in `gaussian_field`.
        gen: generator of the white noise; the field lives on its device.

    Returns:
        float32 tensor of ``shape``.
    """
    padded = [n + 16 for n in shape]
    lines = [torch.fft.fftfreq(n, device=gen.device) for n in padded]
    f = torch.stack(torch.meshgrid(*lines, indexing="ij")).norm(dim=0)
    transfer = (f * torch.exp(-((f / RAMP_CUTOFF) ** 2))).sqrt()
    white = torch.randn(padded, generator=gen, device=gen.device)
    field = torch.fft.ifftn(torch.fft.fftn(white) * transfer).real / transfer.square().mean().sqrt()
    return field[tuple(slice(0, n) for n in shape)].contiguous()


def bias_field(shape: Sequence[int], gen: torch.Generator, strength: float) -> Tensor:
    """Smooth multiplicative coil shading b = 1 + s·p, p a random cubic scaled to max|p| = 1.

    Args:
        shape: size of the field, any number of axes.
        gen: generator of the coefficients.
        strength: s in [0, 1): the largest deviation from 1.

    Returns:
        float32 tensor of ``shape``; its mean is 1, its values lie in [1 − s, 1 + s].
    """
    checks.between(strength, "strength", 0, 0.999)
    axes = [torch.linspace(-1, 1, n, device=gen.device) for n in shape]
    grid = torch.meshgrid(*axes, indexing="ij")
    p = torch.zeros(tuple(shape), device=gen.device)
    for degree in torch.cartesian_prod(*[torch.arange(BIAS_ORDER + 1)] * len(shape)).reshape(
        -1, len(shape)
    ):
        if 1 <= int(degree.sum()) <= BIAS_ORDER:
            weight = torch.randn((), generator=gen, device=gen.device)
            term = torch.ones_like(p)
            for x, d in zip(grid, degree.tolist(), strict=True):
                term = term * x**d
            p = p + weight * term
    p = p - p.mean()
    return 1 + strength * p / p.abs().max().clamp_min(1e-12)


def rician(x: Tensor, sigma: float, gen: torch.Generator) -> Tensor:
    """Magnitude MR noise: |x + σ(n₁ + i·n₂)| with independent standard normal n₁, n₂.

    Args:
        x: noise-free magnitude, any shape, ≥ 0.
        sigma: standard deviation σ of each channel, in the units of ``x``.
        gen: generator; must live on the device of ``x``.

    Source: Gudbjartsson and Patz, The Rician distribution of noisy MRI data, 1995.
    """
    checks.between(sigma, "sigma", 0, math.inf)
    real = x + sigma * torch.randn(x.shape, generator=gen, device=x.device)
    imaginary = sigma * torch.randn(x.shape, generator=gen, device=x.device)
    return torch.hypot(real, imaginary)


def speckle(
    x: Tensor,
    gen: torch.Generator,
    *,
    law: str,
    strength: float,
    grain_px: float | Sequence[float] = 0,
    periodic: Sequence[int] = (),
) -> Tensor:
    """Multiplicative speckle of coherent imaging: y = x·m, m of mean 1 and SD ``strength``.

    A standard normal field z (white, or with grain) is carried to the law by its quantile function,
    m = Q(Φ(z)), so that every law has the same grain and exact marginals. Laws: "gamma" with shape
    1/strength² (an average of as many looks at intensity speckle: optical coherence tomography),
    and "rayleigh" (one look at the amplitude: ultrasound; its SD is √(4/π − 1) ≈ 0.523, and a
    smaller strength draws m towards 1).

    Args:
        x: ``(N,C,*S)`` of 1 to 3 spatial axes; any shape if ``grain_px`` is 0.
        gen: generator; must live on the device of ``x``.
        law: "gamma" or "rayleigh".
        strength: standard deviation of m (its mean is 1), ≥ 0.
        grain_px: σ in pixels of the Gaussian kernel behind z, whose correlation at distance d is
            exp(−d²/4σ²); one number or one per spatial axis. 0: independent pixels.
        periodic: spatial axes (0 is the first after N and C) along which the grain closes on
            itself.

    Raises:
        ValueError: an unknown law, a strength < 0 (or above 0.523 with "rayleigh"), a grain < 0.

    Taught in: ipm-surfaces, selected-dimensions-oct.
    """
    checks.choice(law, "law", ("gamma", "rayleigh"))
    checks.between(strength, "strength", 0, RAYLEIGH_SD + 1e-9 if law == "rayleigh" else math.inf)
    if strength == 0:
        return x
    z = _normal(x, gen, grain_px, periodic)
    if law == "gamma":
        m = _gamma_quantile(z, 1 / strength**2)
    else:  # Rayleigh of mean 1: Q(p) = √(−4/π·log(1 − p)), and 1 − Φ(z) = Φ(−z)
        r = (-4 / math.pi * torch.special.log_ndtr(-z)).sqrt()
        m = 1 + strength / RAYLEIGH_SD * (r - 1)
    return x * m.to(x.dtype)


def _normal(
    x: Tensor,
    gen: torch.Generator,
    grain_px: float | Sequence[float],
    periodic: Sequence[int] = (),
) -> Tensor:
    """Standard normal field of the shape of ``x``, independent between samples and channels."""
    checks.between(grain_px, "grain_px", 0, math.inf)
    grain = grain_px if isinstance(grain_px, Sequence) else [grain_px] * max(x.ndim - 2, 1)
    if not any(grain):
        return torch.randn(x.shape, generator=gen, device=x.device)
    if not 3 <= x.ndim <= 5 or len(grain) != x.ndim - 2:
        raise ValueError(
            f"grain_px must be one number or one per spatial axis of x (N,C,*S), got {grain_px} "
            f"for a shape of {tuple(x.shape)}"
        )
    fields = [
        gaussian_field(x.shape[2:], gen, sigma_px=1.0, anisotropy=grain, periodic=periodic)
        for _ in range(x.shape[0] * x.shape[1])
    ]
    return torch.stack(fields).reshape(x.shape)


def _gamma_quantile(z: Tensor, shape: float) -> Tensor:
    """Q(Φ(z)) of the gamma law with mean 1, from a table with an error of 1e-5."""
    import numpy as np
    from scipy.special import gammainccinv, gammaincinv, ndtr

    grid = np.linspace(-6, 6, 1025)
    upper = grid > 0  # each tail from its own end: 1 − Φ(6) has no digits left
    values = np.where(
        upper, gammainccinv(shape, ndtr(-np.abs(grid))), gammaincinv(shape, ndtr(-np.abs(grid)))
    )
    table = torch.from_numpy(values / shape).to(z.device, z.dtype)
    position = ((z + 6) * (1024 / 12)).clamp(0, 1024)
    low = position.floor().clamp_max(1023).long()
    return torch.lerp(table[low], table[low + 1], position - low)


def blur(x: Tensor, sigma_px: float) -> Tensor:
    """Gaussian blur with edge replication, separable, kernel cut at 4σ.

    Args:
        x: ``(N,C,*S)``, 1 to 3 spatial axes.
        sigma_px: standard deviation in pixels; 0 returns ``x``.
    """
    checks.between(sigma_px, "sigma_px", 0, math.inf)
    if sigma_px == 0:
        return x
    radius = math.ceil(4 * sigma_px)
    taps = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (taps / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    for axis in range(2, x.ndim):
        y = x.movedim(axis, -1)
        lines = y.reshape(-1, 1, y.shape[-1])  # (N·C·other axes, 1, length)
        # Replication by index: F.pad refuses a pad that is longer than the line.
        index = torch.arange(-radius, lines.shape[-1] + radius, device=x.device)
        padded = lines[..., index.clamp(0, lines.shape[-1] - 1)]
        x = F.conv1d(padded, kernel.view(1, 1, -1)).reshape(y.shape).movedim(-1, axis)
    return x.contiguous()
