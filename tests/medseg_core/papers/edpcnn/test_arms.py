import torch

from medseg_core.papers.edpcnn import arms as module
from medseg_core.papers.edpcnn.arms import FEEDS, Arms, moments
from medseg_core.papers.edpcnn.experiment import SETTINGS
from medseg_core.solvers import star_dp
from medseg_core.solvers.star_pattern import warp


def through_f(sg, maps, points, v_star):
    g = warp(maps, points)
    sg.step(g)
    return {"loss": sg.loss(g, v_star - 1)}


def arms_of(bench):
    return Arms(bench, through_f, lambda g: star_dp.circular_dp(g, 2) - 1)


def test_moments_are_updates_of_the_training():
    assert moments(SETTINGS["lesson"]) == [0, 4, 12, 24, 48, 96, 144, 192]
    assert moments(SETTINGS["smoke"]) == [0, 1, 2, 4]


def test_feeds_by_hand():
    logits = torch.tensor([-1.0, 0.0, 3.0])
    fed = {name: feed(logits).tolist() for name, feed in FEEDS.items()}
    assert fed["mask"] == [0, 0, 1] and fed["logits"] == [-1, 0, 3] and fed["probability"][1] == 0.5


def test_names_of_the_arms_and_what_extended_adds(bench):
    arms = arms_of(bench)
    same = list(arms.compared([2, 4], ("CE", 0.1), ("CE", 0.1), 0.1))
    assert same == [
        *("U-Net (2)", "EDPCNN (2)", "U-Net (4)", "EDPCNN (4)"),
        *("EDPCNN, σ = 0 (2)", "smoothed DP (2)"),
    ]
    other = arms.compared([2], ("CE", 0.1), ("CE", 0.2), 0.1, extended=True)
    assert "U-Net for the DP (2)" in other and len(other) == 5 + 3


def test_arms_differ_in_what_their_names_say(bench, monkeypatch):
    made = {}
    monkeypatch.setattr(module, "unet_arm", lambda *a: ("unet", *a))
    monkeypatch.setattr(module, "contour_arm", lambda *a, **k: ("contour", a, k))
    made = arms_of(bench).compared([2, 4], ("CE", 0.1), ("CE + Dice", 0.2), 0.3, extended=True)
    assert made["U-Net (4)"][1:3] == (4, 0.1) and made["U-Net for the DP (4)"][1:3] == (4, 0.2)
    settings = {name: arm[1][4].s for name, arm in made.items() if arm[0] == "contour"}
    assert settings["EDPCNN, σ = 0 (2)"].sigma == 0 and settings["EDPCNN (2)"].sigma == 1
    assert settings["EDPCNN, S = 10 (2)"].n_steps == 10
    options = {name: arm[2] for name, arm in made.items() if name in settings}
    assert options["EDPCNN (2)"]["watch"] and not options["EDPCNN (4)"]["watch"]
    assert not options["EDPCNN, F not closed (2)"]["circular"]
    assert not options["EDPCNN, stars not moved (2)"]["move"]
    assert made["smoothed DP (2)"][1][3] is None  # there is no F


def test_three_times_the_updates_and_an_arm_that_runs(bench):
    torch.manual_seed(0)
    assert arms_of(bench).unet(2, "CE", 1e-3, times=3)(0)["updates"] == 6
    assert arms_of(bench).edpcnn(2, 1e-3)(0)["updates"] == 2
