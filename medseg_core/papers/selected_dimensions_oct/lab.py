"""B-scans made to order, and those of a test set that show most: for the chapter's pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg_core import rng
from medseg_core.papers.selected_dimensions_oct.experiment import Settings
from medseg_core.phantoms import oct_bscan_params, render_oct_bscan

VOLUME = 20_000  # far from the volumes of training and test


def drusen_scan(
    s: Settings, seed: int, *, height: float, sigma: float, fade: float, speckle: float
) -> dict[str, Any]:
    """One druse in the middle of a control: always the same eye and the same random numbers.

    Args:
        s: the settings, for the image's size.
        seed: of the eye.
        height, sigma: of the druse, as a share of the image's height and in columns.
        fade: how far BM fades under it, 0 to 1.
        speckle: strength of the image's grain.

    Taught in: selected-dimensions-oct.
    """
    eye = oct_bscan_params(
        seed,
        VOLUME * s.slices,
        size=(s.height, s.width),
        slices=s.slices,
        pathology="drusen",
        speckle=s.speckle,
    )
    druse = (s.width / 2, sigma, height * s.height)
    change = {"drusen": [druse], "bm_fade": fade, "speckle": speckle, "band": None}
    return render_oct_bscan(eye | change, gen=rng.generator(seed, stream="lab"))


def highest_druse(data: Mapping[str, Any]) -> int:
    """The B-scan with the highest druse.

    Taught in: selected-dimensions-oct.
    """
    gap = data["surfaces"][:, 2] - data["surfaces"][:, 1]
    return int(gap.nan_to_num().amax(1).argmax())


def streaks_apart(data: Mapping[str, Any], k: int) -> list[float]:
    """Columns of B-scan k's streaks that are far from any atrophy, the brightest first.

    Taught in: selected-dimensions-oct.
    """
    clean, apart = data["hidden"]["columns_clean"][k], data["image"].shape[3] // 16
    bright = data["image"][k, 0, data["image"].shape[2] // 2 :].mean(0)
    at = sorted((c for c, _ in data["params"][k]["streaks"]), key=lambda c: -bright[int(c)])
    return [c for c in at if not clean[max(0, int(c) - apart) : int(c) + apart + 1].any()]


def clearest_atrophy(data: Mapping[str, Any]) -> int:
    """The B-scan with the most advanced atrophy, of those with a fair part of it and a decoy.

    Taught in: selected-dimensions-oct.
    """

    def clarity(k: int) -> float:
        share = data["hidden"]["columns_clean"][k].float().mean()
        fair = 0.15 < share < 0.4 and len(streaks_apart(data, k)) > 0
        return data["params"][k]["atrophy_degree"] * fair

    return max(range(len(data["image"])), key=clarity)
