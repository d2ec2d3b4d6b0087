import torch

from medseg_core.papers.selected_dimensions_oct.experiment import SETTINGS
from medseg_core.papers.selected_dimensions_oct.lab import (
    clearest_atrophy,
    drusen_scan,
    highest_druse,
    streaks_apart,
)

S = SETTINGS["smoke"]
DRUSE = {"height": 0.1, "sigma": 4.0, "fade": 1.0, "speckle": 0.3}


def test_a_druse_is_as_high_as_asked_and_stands_in_the_middle():
    flat, high = (drusen_scan(S, 0, **DRUSE | {"height": h})["surfaces"][0] for h in (0.05, 0.1))
    lift = flat[1] - high[1]  # rows count downwards
    assert abs(int(lift.argmax()) - S.width // 2) <= 1
    assert abs(float(lift.max()) - 0.05 * S.height) < 0.05 * S.height * 0.2
    assert torch.equal(flat[2], high[2])  # BM lies under it as before


def test_fading_darkens_bm_under_the_druse_alone():
    lit, faded = (drusen_scan(S, 0, **DRUSE | {"fade": f})["image"] for f in (0.0, 1.0))
    change = (lit - faded)[0, 0].abs().amax(0)
    assert change[S.width // 2] > 0 and change[0] == 0


def test_the_same_eye_every_time():
    assert torch.equal(drusen_scan(S, 1, **DRUSE)["image"], drusen_scan(S, 1, **DRUSE)["image"])
    assert not torch.equal(drusen_scan(S, 2, **DRUSE)["image"], drusen_scan(S, 1, **DRUSE)["image"])


def test_the_highest_druse():
    surfaces = torch.zeros(3, 3, 8)
    surfaces[1, 2, 4], surfaces[2, 2, 1] = 9.0, torch.nan
    assert highest_druse({"surfaces": surfaces}) == 1


def atrophies():
    """Three B-scans of 32 columns: a streak inside, one far away, none."""
    clean = torch.zeros(3, 32).bool()
    clean[:, 10:20] = True
    image = torch.zeros(3, 1, 8, 32)
    image[1, 0, 4:, 28] = 1
    streaks = ([(12, 2.0)], [(20, 2.0), (2, 2.0), (28, 2.0)], [])
    params = [{"streaks": s, "atrophy_degree": d} for s, d in zip(streaks, (9, 1, 5), strict=True)]
    return {"image": image, "params": params, "hidden": {"columns_clean": clean}}


def test_a_decoy_lies_far_from_all_atrophy_the_brightest_first():
    data = atrophies()
    assert streaks_apart(data, 0) == []
    assert streaks_apart(data, 1) == [28, 2]  # the one at 20 touches the atrophy


def test_the_clearest_atrophy_has_a_decoy():
    assert clearest_atrophy(atrophies()) == 1
