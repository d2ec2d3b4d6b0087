"""From echoes to a picture: speckle of an ultrasound beam, log-compression, scan conversion.

A *polar* image holds one beam per column: row i is the distance ``radii_mm[i]`` from the sector's
apex, column j the angle ``angles[j]`` from the +row direction, positive towards +column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.physics.deform import identity_grid, sample


def log_compress(envelope: Tensor, dynamic_range_db: float) -> Tensor:
    """Brightness of an echo amplitude e: clip(1 + 20·log₁₀(e) / range, 0, 1).

    Args:
        envelope: amplitudes ≥ 0, any shape; 1 is shown white.
        dynamic_range_db: decibels from black to white, > 0.

    Raises:
        ValueError: a negative or non-finite amplitude, a range that is not positive.
    """
    checks.positive(dynamic_range_db, "dynamic_range_db")
    checks.finite(envelope, "envelope")
    checks.between(envelope, "envelope", 0, None)
    black = 10 ** (-dynamic_range_db / 20)
    db = 20 * torch.log10(envelope.clamp_min(black))
    return (1 + db / dynamic_range_db).clamp(0, 1)


def scan_convert(
    polar: Tensor,
    radii_mm: Tensor,
    angles: Tensor,
    size: int | Sequence[int],
    spacing: float | Sequence[float],
    *,
    apex: Sequence[float] | None = None,
) -> Tensor:
    """Sector image from beams: the value at distance r and angle a, bilinear, 0 outside the sector.

    The pixel (r·cos a, r·sin a) mm down and to the right of the apex shows the echo (r, a). A pixel
    is inside if its centre lies between the first and the last radius and angle.

    Args:
        polar: ``(N,1,R,A)``; any number of channels.
        radii_mm: ``(R,)`` rising in equal steps, ≥ 0, R ≥ 2.
        angles: ``(A,)`` radians in ±π, rising in equal steps, A ≥ 2.
        size: ``(H, W)`` of the result; one number gives both.
        spacing: mm per pixel (row, column); one number gives both.
        apex: its place (row, column) in pixels; the middle of the first row if None.

    Returns:
        ``(N,1,H,W)``, differentiable in ``polar``.

    Raises:
        ValueError: radii or angles of another length or not in equal rising steps, a size or
            spacing that is not positive.
    """
    n_radii, n_beams = polar.shape[2:] if polar.ndim == 4 else (None, None)
    checks.shape(polar, "polar", "N C R A")
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    mm = (spacing, spacing) if isinstance(spacing, int | float) else tuple(spacing)
    checks.between([height, width], "size", 1, None)
    if not all(0 < s < math.inf for s in mm):
        raise ValueError(f"spacing must be positive and finite, got {spacing}")
    r0, dr = _even_steps(radii_mm, "radii_mm", n_radii)
    a0, da = _even_steps(angles, "angles", n_beams)
    checks.between(r0, "radii_mm[0]", 0, None)
    checks.between([a0, a0 + da * (n_beams - 1)], "angles", -math.pi, math.pi)

    row0, column0 = (0.0, (width - 1) / 2) if apex is None else apex
    kind = {"dtype": torch.float64, "device": polar.device}
    grid = identity_grid((height, width), torch.empty(0, **kind))  # (H,W,2)
    down = (grid[..., 0] - row0) * mm[0]
    right = (grid[..., 1] - column0) * mm[1]
    row = (torch.hypot(down, right) - r0) / dr
    column = (torch.atan2(right, down) - a0) / da
    slack = 1e-6  # a pixel on the border is inside
    inside = (row >= -slack) & (row <= n_radii - 1 + slack)
    inside &= (column >= -slack) & (column <= n_beams - 1 + slack)
    points = torch.stack([row, column], -1).to(polar.dtype).expand(len(polar), -1, -1, -1)
    return sample(polar, points).masked_fill(~inside, 0)


def _even_steps(x: Tensor, name: str, length: int | None) -> tuple[float, float]:
    """First value and step of a line of numbers that rises in equal steps."""
    x = torch.as_tensor(x).detach().cpu().double()
    checks.finite(x, name)
    if x.ndim != 1 or len(x) != length or len(x) < 2:
        raise ValueError(
            f"{name} must hold {length} values, one per row or column of polar and at least 2, "
            f"got the shape {tuple(x.shape)}"
        )
    first, step = float(x[0]), float(x[-1] - x[0]) / (len(x) - 1)
    off = (x - first - step * torch.arange(len(x))).abs().max()
    if step <= 0 or off > 1e-3 * step:
        raise ValueError(f"{name} must rise in equal steps, got {x[:3].tolist()} …")
    return first, step


def speckle_envelope(
    echo: Tensor,
    gen: torch.Generator,
    *,
    axial_px: float,
    lateral_px: float | Tensor,
    share: float = 1.0,
) -> Tensor:
    r"""Envelope that an imaging pulse sees of tissue with many scatterers per resolution cell.

    .. math:: e = \Bigl|\sqrt{1-s}\;\frac{h*a}{\sum h}
              + \sqrt{s}\;\frac{h*(a\,g)}{\sqrt{\sum h^2}}\Bigr|

    with the echo strength a, complex white noise g of power 1, and a Gaussian point spread h. With
    s = 1 the speckle is fully developed: e is Rayleigh distributed wherever a is even; a smaller
    share s of diffuse power gives Rice's law. The power :math:`E[e^2]` is :math:`a^2` for every s.

    Args:
        echo: ``(N,1,R,A)`` polar, amplitudes ≥ 0.
        gen: generator of g; must live on the device of ``echo``.
        axial_px: σ of h along the beam, in rows.
        lateral_px: σ of h across the beams, in columns: one number, or ``(R,)``, one per row
            (a beam that spreads more slowly than the sector covers fewer columns with depth).
        share: s in [0, 1].

    Beyond the first and last row and beam the tissue goes on as it is there.

    Raises:
        ValueError: a negative echo or width, a share outside [0, 1].

    Source: Wagner et al., Statistics of speckle in ultrasound B-scans, 1983.
    """
    checks.shape(echo, "echo", "N C R A")
    checks.between(echo, "echo", 0, None)
    checks.between(share, "share", 0, 1)
    checks.between(axial_px, "axial_px", 0, None)
    n_radii, n_beams = echo.shape[2:]
    lateral = torch.as_tensor(lateral_px, device=echo.device, dtype=echo.dtype).expand(n_radii)
    checks.between(lateral, "lateral_px", 0, None)
    more_rows, more_beams = math.ceil(4 * axial_px), math.ceil(4 * float(lateral.max()))

    def go_on(x: Tensor, axis: int, more: int) -> Tensor:
        index = torch.arange(-more, x.shape[axis] + more, device=x.device)
        return x.index_select(axis, index.clamp(0, x.shape[axis] - 1))

    wide = go_on(go_on(echo, 2, more_rows), 3, more_beams)
    along = _transfer(wide.shape[2], torch.as_tensor(axial_px).to(lateral))[:, None]  # (R',1)
    across = _transfer(wide.shape[3], go_on(lateral[:, None], 0, more_rows))  # (R',A')

    def seen(x: Tensor, gain: Tensor | float) -> Tensor:
        """x through the point spread: first across the beams, then along them."""
        x = torch.fft.ifft(torch.fft.fft(x) * across) * gain
        x = torch.fft.ifft(torch.fft.fft(x, dim=2) * along, dim=2)
        return x[:, :, more_rows : more_rows + n_radii, more_beams : more_beams + n_beams]

    regular = seen(wide, math.sqrt(1 - share)).real.clamp_min(0)
    if share == 0:
        return regular
    g = torch.randn((*wide.shape, 2), generator=gen, device=echo.device, dtype=echo.dtype)
    power = across.square().mean(-1, keepdim=True) * along.square().mean()  # that is left of g's
    return (regular + seen(wide * torch.view_as_complex(g), (share / 2 / power).sqrt())).abs()


def _transfer(n: int, sigma: Tensor) -> Tensor:
    """exp(−2π²σ²f²) at the n frequencies of a line: a Gaussian kernel of weight 1."""
    f = torch.fft.fftfreq(n, device=sigma.device, dtype=sigma.dtype)
    return torch.exp(-2 * (math.pi * sigma * f) ** 2)
