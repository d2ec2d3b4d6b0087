"""Retinal OCT: B-scans with layers, fovea, vessel shadows and speckle; drusen; geographic atrophy.

Sample i is slice i mod ``slices`` of volume i // ``slices``; geometry varies smoothly from slice
to slice. Row = depth, downwards. The chapter `ipm-surfaces` uses the layers,
`selected-dimensions-oct` drusen and geographic atrophy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from medseg_core import checks, rng
from medseg_core.phantoms._draw import Draw
from medseg_core.phantoms._series import series, sides
from medseg_core.phantoms.oct import anatomy
from medseg_core.phantoms.oct.signal import back_scatter, draw_reflectivity, point_spread
from medseg_core.physics import noise
from medseg_core.physics.shapes import region_label

PATHOLOGIES = (None, "drusen", "ga")
# Which of the nine surfaces are annotated.
ANNOTATED = {9: tuple(range(9)), 5: (0, 1, 4, 6, 8), "drusen": (0, 7, 8)}
AXIAL_MM_AT_128, FIELD_MM = 0.0039, 6.0


def oct_bscan(
    n: int, size: int | Sequence[int] = (128, 128), seed: int = 0, *, start: int = 0, **options: Any
) -> dict:
    """Phantom of retinal OCT B-scans, samples start … start + n − 1 of ``seed``.

    Args:
        n: number of B-scans, ≥ 1.
        size: ``(H, W)`` or one side, at least 32; lengths scale with it.
        seed: ≥ 0; sample i depends on (seed, i) and the options alone, never on n or start.
        start: number of the first sample.
        **options: those of `oct_bscan_params`.

    Returns:
        ``image (N,1,H,W)`` in [0, 1]; ``spacing`` (mm); ``group (N,)``: volume; ``params``: list
        of what was drawn; ``valid (N,W)`` bool: annotated columns.
        ``hidden["noise_free"] (N,1,H,W)``, ``hidden["surfaces"] (N,9,W)``: all of the anatomy.

        With None and "drusen": ``surfaces (N,L,W)`` rows, sub-pixel, non-decreasing in L;
        ``surface_names``; ``label (N,H,W)``: the number of surfaces at or above each pixel's
        centre, 0 … L. "drusen" has L = 3: ILM, RPEDC (the upper border of the RPE with what lifts
        it), BM, valid in the central 80 % of the columns; ``amd (N,)`` bool.

        With "ga": ``columns (N,W)`` bool, the graders' reference, displaced as a registration to
        en-face images would displace it, and ``hidden["columns_clean"]``, where it was drawn.

    Raises:
        ValueError: an argument out of range.
        TypeError: a count that is no integer, an unknown option.

    Taught in: ipm-surfaces, selected-dimensions-oct.
    """
    return series(
        "oct_bscan", oct_bscan_params, render_oct_bscan, n, seed, start, size=size, **options
    )


def oct_bscan_params(
    seed: int,
    index: int,
    *,
    size: int | Sequence[int] = (128, 128),
    layers: int = 9,
    slices: int = 1,
    pathology: str | None = None,
    shadows: bool = True,
    pinch: bool = True,
    bm_fade: float = 1.0,
    speckle: float = 0.5,
    registration_error: int = 0,
) -> dict:
    """Everything that is drawn for sample ``index``; change an entry and render again.

    Worth changing: ``drusen`` (column, σ, height), ``shadows`` (column, width, factor),
    ``pit_depth``, ``bm_fade``, ``speckle``, ``noise``, ``reflectivity``, ``streaks``,
    ``atrophy_degree`` (0 none, 1 complete), ``gain``.

    Args:
        seed: ≥ 0.
        index: of the sample, ≥ 0.
        size: ``(H, W)`` or one side, at least 32; lengths scale with it.
        layers: surfaces annotated in a healthy retina: 9 (ILM to BM, the eight layers between
            them), or 5 of these (ILM, RNFL-GCL, OPL-ONL, IS-OS, BM).
        slices: B-scans per volume.
        pathology: None; "drusen" (age-related macular degeneration in every other volume, the
            others are controls); "ga" (geographic atrophy).
        shadows: vessel shadows and, in a fifth of the B-scans, a band of low signal.
        pinch: the foveal pit, where the inner layers thin out to 0.1–0.5 px.
        bm_fade: how far Bruch's membrane fades to noise under large drusen and vessels, 0 to 1
            ("drusen" alone).
        speckle: strength of the gamma speckle; 0.5 stands for shapes of 3 to 4, drawn per B-scan.
        registration_error: largest shift, in columns, of the "ga" reference, drawn per volume.

    Raises:
        ValueError: an argument out of range.
        TypeError: a count that is no integer.
    """
    size = sides(size, 2, 32)
    checks.choice(pathology, "pathology", PATHOLOGIES)
    checks.choice(checks.integer(layers, "layers"), "layers", (5, 9))
    if pathology is not None and layers != 9:
        raise ValueError(f"layers={layers} belongs to pathology=None, got {pathology!r}")
    checks.integer(slices, "slices", 1)
    checks.integer(registration_error, "registration_error", 0, size[1] // 2)
    checks.between(bm_fade, "bm_fade", 0, 1)
    checks.between(speckle, "speckle", 0, 2)

    # A copy: nobody's changes reach the next slice of the volume.
    volume = copy.deepcopy(
        _draw_volume(seed, index // slices, size, slices, pathology, registration_error)
    )
    draw = Draw(rng.generator(seed, index, "oct_bscan.slice"))
    k, width = index % slices, size[1]
    shared = ("gain", "floor", "reflectivity", "attenuation", "choroid_px", "amd", "pit")
    params = {key: volume[key] for key in shared} | {
        "size": size,
        "layers": layers,
        "pathology": pathology,
        "volume": index // slices,
        "slice": k,
        "bm": volume["bm"][k],
        "thickness": volume["thickness"][:, k],
        "pit_depth": float(volume["pit_depth"][k]) if pinch else 0.0,
        "shadows": volume["shadows"][k] if shadows else [],
        "drusen": volume["drusen"][k],
        "registration_px": volume["registration_px"],
        "bm_fade": bm_fade,
        "noise": 0.05,
        "texture": 0.02,
        "blotches": 0.3,
        "psf_px": 0.8,
    }
    params["speckle"] = speckle * draw.uniform(1.0, 2 / math.sqrt(3))  # 0.5: shape 4 to 3
    # A band where the beam was clipped or the eye dry.
    has_band, scale = draw.uniform(0, 1) < 0.2, width / 64
    band = (draw.uniform(0, width - 1), draw.uniform(10, 20) * scale, draw.uniform(0.2, 0.4))
    params["band"] = band if has_band and shadows else None
    params["streaks"] = []
    if pathology == "ga":
        params["atrophy"] = volume["atrophy"][k]
        params["atrophy_degree"] = volume["atrophy_degree"]
        params["streaks"] = [
            (draw.integer(0, width - 1), draw.uniform(1.5, 2.5)) for _ in range(draw.integer(2, 6))
        ]
    return params


@lru_cache(maxsize=1)  # the slices of a volume come one after the other
def _draw_volume(
    seed: int,
    number: int,
    size: tuple[int, int],
    slices: int,
    pathology: str | None,
    registration_error: int,
) -> dict:
    """What the slices of a volume share, and the geometry of all of them."""
    draw = Draw(rng.generator(seed, number, "oct_bscan.volume"))
    width, thin = size[1], pathology is not None
    volume = anatomy.draw_retina(draw, size, slices, thin=thin)
    volume["gain"], volume["floor"] = draw.uniform(0.6, 0.9), draw.uniform(0.07, 0.11)
    volume["reflectivity"] = draw_reflectivity(draw)
    volume["attenuation"] = draw.uniform(0.2, 0.6)  # optical depth of the whole retina
    volume["choroid_px"] = draw.uniform(0.12, 0.25) * size[0] * (0.6 if thin else 1.0)
    # Healthy retinas: 2 to 8 columns at W = 64. Volumes: the 2 to 6 columns of W = 128.
    wide = (2 * width / 128, 6 * width / 128) if thin else (2 * width / 64, 8 * width / 64)
    volume["shadows"] = anatomy.draw_shadows(draw, size, slices, (1, 4), wide)
    volume["amd"] = pathology == "drusen" and number % 2 == 1
    drusen = anatomy.draw_drusen(draw, size, slices)
    volume["drusen"] = drusen if volume["amd"] else [[]] * slices
    if pathology == "ga":
        volume["atrophy"] = anatomy.draw_atrophy(draw, size, slices)
        volume["atrophy_degree"] = draw.uniform(0.2, 0.8)  # how far it has gone
    # The graders' error is no part of the anatomy: a stream of its own.
    grader = Draw(rng.generator(seed, number, "oct_bscan.annotation"))
    volume["registration_px"] = grader.integer(-registration_error, registration_error)
    return volume


def render_oct_bscan(params: dict, *, gen: torch.Generator) -> dict:
    """One sample (N = 1) from its parameters; ``gen`` draws texture, speckle and noise only."""
    height, width = params["size"]
    surfaces, rpe_lower = anatomy.bscan_surfaces(params)
    signal = params["gain"] * back_scatter(params, surfaces, rpe_lower, gen)  # (H, W)
    grainy = noise.speckle(signal, gen, law="gamma", strength=params["speckle"])
    clean = params["floor"] + point_spread(signal, params["psf_px"])
    noisy = params["floor"] + point_spread(grainy, params["psf_px"])
    noisy = noisy + params["noise"] * torch.randn(clean.shape, generator=gen)

    sample = {
        "image": noisy.clamp(0, 1).float(),
        "valid": torch.ones(1, width, dtype=torch.bool),
        "spacing": (AXIAL_MM_AT_128 * 128 / height, FIELD_MM / width),
        "group": torch.tensor([params["volume"]]),
        "params": [params],
        "hidden": {"noise_free": clean.clamp(0, 1).float(), "surfaces": surfaces[None].float()},
    }
    if params["pathology"] == "ga":
        at = (torch.arange(width) - params["registration_px"]).clamp(0, width - 1)
        sample["columns"] = params["atrophy"][at][None]
        sample["hidden"]["columns_clean"] = params["atrophy"][None].clone()
        return sample
    kind = params["pathology"] or params["layers"]
    chosen = surfaces[list(ANNOTATED[kind])].float()
    sample["surfaces"] = chosen[None]
    sample["surface_names"] = surface_names(kind)
    sample["label"] = region_label(chosen, height)[None]
    if kind == "drusen":
        margin = round(0.1 * width)  # graders annotate the middle of the scan
        sample["valid"][:, :margin] = sample["valid"][:, width - margin :] = False
        sample["amd"] = torch.tensor([params["amd"]])
    return sample


def surface_names(kind: int | str) -> tuple[str, ...]:
    """Names of the annotated surfaces, from the vitreous down; ``kind`` is 9, 5 or "drusen"."""
    checks.choice(kind, "kind", tuple(ANNOTATED))
    names = tuple(anatomy.SURFACES[i] for i in ANNOTATED[kind])
    return tuple("RPEDC" if name == "OS-RPE" and kind == "drusen" else name for name in names)
