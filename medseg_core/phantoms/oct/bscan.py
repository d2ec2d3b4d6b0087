"""Retinal OCT: B-scans with layers, fovea, vessel shadows and speckle; drusen; geographic atrophy.

Sample i is slice i mod ``slices`` of volume i // ``slices``; geometry varies smoothly from slice
to slice. Row = depth, downwards. Taught in the chapters `ipm-surfaces` (layers) and
`selected-dimensions-oct` (drusen, geographic atrophy).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from medseg_core import checks, rng
from medseg_core.phantoms._draw import Draw
from medseg_core.phantoms.oct import anatomy
from medseg_core.phantoms.oct.signal import back_scatter, draw_reflectivity, point_spread
from medseg_core.physics import noise
from medseg_core.physics.shapes import region_label
from medseg_core.stacking import stack

PATHOLOGIES = (None, "drusen", "ga")
# Which of the nine surfaces are annotated.
ANNOTATED = {9: tuple(range(9)), 5: (0, 1, 4, 6, 8), "drusen": (0, 7, 8)}
AXIAL_MM_AT_128, FIELD_MM = 0.0039, 6.0


def oct_bscan(
    n: int,
    size: int | Sequence[int] = (128, 128),
    seed: int = 0,
    *,
    start: int = 0,
    layers: int = 9,
    slices: int = 1,
    pathology: str | None = None,
    shadows: bool = True,
    pinch: bool = True,
    bm_fade: float = 1.0,
    speckle: float = 0.5,
    registration_error: int = 0,
    share_amd: float = 0.5,
) -> dict:
    """Phantom of retinal OCT B-scans, samples start … start + n − 1 of ``seed``.

    Args:
        n: number of B-scans, ≥ 1.
        size: ``(H, W)`` or one side, at least 32; lengths scale with it.
        seed: ≥ 0; sample i depends on (seed, i) and the options alone, never on n or start.
        layers: surfaces annotated in a healthy retina: 9 (ILM to BM, the eight layers between
            them), or 5 of these (ILM, RNFL-GCL, OPL-ONL, IS-OS, BM).
        slices: B-scans per volume.
        pathology: None; "drusen" (age-related macular degeneration and controls); "ga"
            (geographic atrophy).
        shadows: vessel shadows and, in a fifth of the B-scans, a band of low signal.
        pinch: the foveal pit, where the inner layers thin out to 0.1–0.5 px.
        bm_fade: how far Bruch's membrane fades to noise under large drusen and vessels, 0 to 1
            ("drusen" alone).
        speckle: strength of the gamma speckle; 0.5 stands for shapes of 3 to 4, drawn per B-scan.
        registration_error: largest shift, in columns, of the "ga" reference, drawn per volume.
        share_amd: share of the "drusen" volumes that have drusen; the others are controls.

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
        ValueError: an argument out of range. TypeError: a count that is no integer.
    """
    checks.between(n, "n", 1, math.inf)
    checks.between(start, "start", 0, math.inf)
    options = {
        "size": size,
        "layers": layers,
        "slices": slices,
        "pathology": pathology,
        "shadows": shadows,
        "pinch": pinch,
        "bm_fade": bm_fade,
        "speckle": speckle,
        "registration_error": registration_error,
        "share_amd": share_amd,
    }
    options = _checked(**options)
    samples, volume = [], None
    for index in range(start, start + n):
        if volume is None or volume["number"] != index // slices:
            volume = _draw_volume(seed, index // slices, **options)
        params = _draw_slice(seed, index, volume, **options)
        samples.append(render_oct_bscan(params, gen=rng.generator(seed, index, "oct_bscan.noise")))
    return stack(samples)


def oct_bscan_params(seed: int, index: int, **options) -> dict:
    """Everything that is drawn for sample ``index``; change an entry and render again.

    ``options`` are those of :func:`oct_bscan`, ``size`` among them. Worth changing: ``drusen``
    (column, σ, height), ``shadows`` (column, width, factor), ``pit_depth``, ``bm_fade``,
    ``speckle``, ``noise``, ``reflectivity``, ``streaks``, ``atrophy_degree`` (0 none, 1 complete),
    ``gain``.
    """
    options = _checked(**options)
    volume = _draw_volume(seed, index // options["slices"], **options)
    return _draw_slice(seed, index, volume, **options)


def _checked(
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
    share_amd: float = 0.5,
) -> dict:
    options = dict(locals())
    options["size"] = (size, size) if isinstance(size, int) else tuple(size)
    checks.between(options["size"], "size", 32, math.inf)
    if len(options["size"]) != 2:
        raise ValueError(f"size must be (H, W) or one number, got {size}")
    checks.choice(pathology, "pathology", PATHOLOGIES)
    checks.choice(layers, "layers", (5, 9))
    if pathology is not None and layers != 9:
        raise ValueError(f"layers={layers} belongs to pathology=None, got {pathology!r}")
    for name, least in (("layers", 5), ("slices", 1), ("registration_error", 0)):
        if not isinstance(options[name], int) or isinstance(options[name], bool):
            raise TypeError(f"{name} must be an integer, got {options[name]!r}")
        checks.between(options[name], name, least, math.inf)
    checks.between(bm_fade, "bm_fade", 0, 1)
    checks.between(speckle, "speckle", 0, 2)
    checks.between(registration_error, "registration_error", 0, options["size"][1] // 2)
    checks.between(share_amd, "share_amd", 0, 1)
    return options


def _draw_volume(seed: int, number: int, **o) -> dict:
    """What the slices of a volume share, and the geometry of all of them."""
    draw = Draw(rng.generator(seed, number, "oct_bscan.volume"))
    size, slices, pathology = o["size"], o["slices"], o["pathology"]
    width, thin = size[1], pathology is not None
    volume = anatomy.draw_retina(draw, size, slices, thin=thin, pinch=o["pinch"])
    volume["number"] = number
    volume["gain"], volume["floor"] = draw.uniform(0.6, 0.9), draw.uniform(0.07, 0.11)
    volume["reflectivity"] = draw_reflectivity(draw)
    volume["attenuation"] = draw.uniform(0.2, 0.6)  # optical depth of the whole retina
    volume["choroid_px"] = draw.uniform(0.12, 0.25) * size[0] * (0.6 if thin else 1.0)
    # Healthy retinas: 2 to 8 columns at W = 64. Volumes: the 2 to 6 columns of W = 128.
    wide = (2 * width / 128, 6 * width / 128) if thin else (2 * width / 64, 8 * width / 64)
    found = anatomy.draw_shadows(draw, size, slices, (1, 4), wide)
    volume["shadows"] = found if o["shadows"] else [[]] * slices
    # Exactly the share of any run of volumes, whatever its start.
    amd = math.floor((number + 1) * o["share_amd"]) > math.floor(number * o["share_amd"])
    volume["amd"] = pathology == "drusen" and amd
    found = anatomy.draw_drusen(draw, size, slices)
    volume["drusen"] = found if volume["amd"] else [[]] * slices
    if pathology == "ga":
        volume["atrophy"] = anatomy.draw_atrophy(draw, size, slices)
        volume["atrophy_degree"] = draw.uniform(0.2, 0.8)  # how far it has gone
    # The graders' error is no part of the anatomy: a stream of its own.
    grader = Draw(rng.generator(seed, number, "oct_bscan.annotation"))
    volume["registration_px"] = grader.integer(-o["registration_error"], o["registration_error"])
    return volume


def _draw_slice(seed: int, index: int, volume: dict, **o) -> dict:
    """The volume at one slice, and what belongs to this B-scan alone."""
    draw = Draw(rng.generator(seed, index, "oct_bscan.slice"))
    k, width = index % o["slices"], o["size"][1]
    shared = ("gain", "floor", "reflectivity", "attenuation", "choroid_px", "amd", "pit")
    params = {key: volume[key] for key in shared} | {
        "size": o["size"],
        "layers": o["layers"],
        "pathology": o["pathology"],
        "volume": volume["number"],
        "slice": k,
        "bm": volume["bm"][k],
        "thickness": volume["thickness"][:, k],
        "pit_depth": float(volume["pit_depth"][k]),
        "shadows": list(volume["shadows"][k]),
        "drusen": list(volume["drusen"][k]),
        "registration_px": volume["registration_px"],
        "bm_fade": o["bm_fade"],
        "noise": 0.05,
        "texture": 0.02,
        "blotches": 0.3,
        "psf_px": 0.8,
    }
    params["speckle"] = o["speckle"] * draw.uniform(1.0, 2 / math.sqrt(3))  # 0.5: shape 4 to 3
    # A band where the beam was clipped or the eye dry.
    has_band, scale = draw.uniform(0, 1) < 0.2, width / 64
    band = (draw.uniform(0, width - 1), draw.uniform(10, 20) * scale, draw.uniform(0.2, 0.4))
    params["band"] = band if has_band and o["shadows"] else None
    params["streaks"] = []
    if o["pathology"] == "ga":
        params["atrophy"] = volume["atrophy"][k]
        params["atrophy_degree"] = volume["atrophy_degree"]
        params["streaks"] = [
            (draw.integer(0, width - 1), draw.uniform(1.5, 2.5)) for _ in range(draw.integer(2, 6))
        ]
    return params


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
