"""Rows of the chapter's table: without training, read off a U-Net's maps, and the paper's."""

import math

import pytest
import torch

from medseg_core.papers.edpcnn import printed, rereading, untrained
from medseg_core.papers.edpcnn.evaluation import mean_dice


def test_mean_disc_has_the_mean_area_of_the_masks(bench):
    masks, test = bench.parts.train["mask"], bench.parts.test
    discs = untrained.mean_disc(masks, test["centre"])
    assert discs.shape == test["mask"].shape
    wanted = masks.sum((1, 2, 3)).float().mean().item()
    assert discs.sum((1, 2, 3)).tolist() == pytest.approx([wanted] * 3, rel=0.1)


def test_floor_takes_what_is_best_on_the_validation_images(bench, monkeypatch):
    asked = []

    def segment(maps, data, delta):
        asked.append((maps.amax().item() == 1, delta, len(maps)))
        return data["mask"] if (maps.amax() == 1 and delta == 3) else ~data["mask"]

    found = untrained.floor(bench._replace(segment=segment))
    assert torch.equal(found, bench.parts.test["mask"])
    assert asked[-1] == (True, 3, 3) and all(n == 2 for *_, n in asked[:-1])
    assert len(asked) == 1 + len(untrained.BLURS_PX) * len(untrained.DELTAS)


def test_ceiling_is_nearly_the_truth_and_rows_have_all_scores(bench):
    assert mean_dice(untrained.ceiling(bench), bench.parts.test) > 0.93
    rows = untrained.rows(bench, 2, seed=0)
    assert list(rows) == ["mean disc", "floor: DP on the image", "ceiling: true answers"]
    assert all(set(row) == {"dice", "assd", "hd"} for row in rows.values())
    assert rows["floor: DP on the image"]["dice"].min() > 0.8  # the image is the mask


def extras(bench, dice):
    test = bench.parts.test
    logits = 2 * test["mask"].float() - 1
    logits[:, :, 0, :] = 1.0  # a bright border, far from every centre
    return {"test": logits, "through_dp": {"mask": (dice, logits), "logits": (0.5, -logits)}}


def test_rows_of_each_feed_and_the_one_that_validation_prefers(bench):
    runs = {("U-Net (4)", k): extras(bench, dice) for k, dice in ((0, 0.9), (1, 0.2))}
    rows, best = rereading.rows(4, [0, 1], runs, "U-Net", bench)
    assert list(rows) == [
        "U-Net in the star's disc (4)",
        "U-Net + DP on mask (4)",
        "U-Net + DP on logits (4)",
    ]
    assert best == "U-Net + DP on mask (4)"  # 0.55 on average against 0.5
    assert all(set(row) == {0, 1} for row in rows.values())
    assert rows["U-Net in the star's disc (4)"][0]["dice"].tolist() == [1, 1, 1]
    assert rows[best][1]["dice"].min() > 0.8 > rows["U-Net + DP on logits (4)"][1]["dice"].max()
    own = {("U-Net for the DP (4)", k): extras(bench, 0.1) for k in (0, 1)}
    assert rereading.rows(4, [0, 1], runs | own, "U-Net for the DP", bench)[1].endswith(
        "logits (4)"
    )


def test_best_through_dp_also_of_an_arm_that_was_validated_through_it(bench):
    class History:
        best = (3, 0.7)

    assert rereading.best_through_dp(extras(bench, 0.9)) == 0.9
    assert rereading.best_through_dp({"history": History}) == 0.7


NAMES = ["U-Net (10)", "EDPCNN (10)", "U-Net for the DP (10)", "U-Net (40)", "U-Net (160)"]
NAMES += [
    "EDPCNN (160)",
    "EDPCNN, σ = 0 (10)",
    "U-Net, 3× the updates, first seed (10)",
    "mean disc",
]
NAMES += ["ceiling: true answers", "floor: DP on the image", "U-Net in the star's disc (10)"]
NAMES += ["U-Net + DP on mask (10)", "U-Net + DP on mask (160)", "U-Net + DP on logits (160)"]


def test_the_table_from_what_knows_nothing_to_the_ceiling():
    labels = ("Dice", "ASSD (mm)", "HD (mm)")
    table = printed.beside(NAMES, 10, 160, "U-Net + DP on logits (160)", labels)
    assert list(table) == [
        "mean disc",
        "floor: DP on the image",
        "U-Net (10)",
        "U-Net in the star's disc (10)",
        "U-Net, 3× the updates, first seed (10)",
        "U-Net + DP on mask (10)",
        "EDPCNN (10)",
        "EDPCNN, σ = 0 (10)",
        "U-Net (160)",
        "U-Net + DP on logits (160)",
        "EDPCNN (160)",
        "ceiling: true answers",
    ]
    assert table["EDPCNN (10)"] == {"Dice": "0.907", "ASSD (mm)": "0.84", "HD (mm)": "10.26"}
    assert table["U-Net + DP on logits (160)"]["HD (mm)"] == "6.19"
    assert set(table["mean disc"].values()) == {None}


def test_the_table_of_a_single_size_has_no_second_half():
    table = printed.beside(["U-Net (10)", "EDPCNN (10)", "ceiling"], 10, 10, "x", "abc")
    assert list(table) == ["U-Net (10)", "EDPCNN (10)", "ceiling"]
    assert math.isclose(float(table["U-Net (10)"]["a"]), 0.695)
