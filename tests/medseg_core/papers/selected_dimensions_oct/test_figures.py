import matplotlib
import numpy as np
import pytest
import torch

from medseg_core.papers.selected_dimensions_oct import figures

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = dict.fromkeys(
    ("ILM", "RPEDC", "BM", "truth", "proposed", "base 1", "base 2", "encoder", "funnels"), "red"
) | {"decoder": "red", "here": "red"}


@pytest.fixture
def axes():
    figure, axes = plt.subplots(2, 3)
    yield axes
    plt.close(figure)


def volumes(n=3, h=16, w=8):
    rows = torch.tensor([2.0, 8.0, 10.0]).view(1, 3, 1).repeat(n, 1, w)
    valid = torch.ones(n, w).bool()
    valid[:, 0] = False
    return {
        "image": torch.rand(n, 1, h, w),
        "surfaces": rows,
        "surface_names": ("ILM", "RPEDC", "BM"),
        "valid": valid,
        "amd": torch.tensor([True, False, True]),
    }


def test_borders_end_where_the_annotation_ends(axes):
    data = volumes()
    shown = figures.marked(data, 1)
    assert list(shown) == ["ILM", "RPEDC", "BM"]
    assert shown["BM"].isnan().tolist() == [True] + [False] * 7
    figures.scan(axes[0, 0], data["image"][1], COLOURS, shown, data["surfaces"][1])
    assert len(axes[0, 0].lines) == 6  # three borders, three dotted ones of the truth


def test_stairs_are_the_means_of_their_columns(axes):
    data = volumes()
    data["surfaces"][0, 1] = torch.tensor([0.0, 4, 2, 4, 6, 8, 6, 8])
    figures.stairs(axes[0, 0], data, 0, level=2, reach=5, colours=COLOURS)
    steps = axes[0, 0].lines[-1].get_ydata()
    assert np.allclose(steps[:4], (4 + 2 + 4) / 3) and np.allclose(steps[4:], 7)
    title = axes[0, 0].get_title()
    assert "per 4 columns" in title and "sees 5 of 8" in title


@pytest.mark.parametrize("levels", [1, 5])
def test_the_network_has_a_box_for_every_map(axes, levels):
    figures.triangle(axes[0, 0], levels, COLOURS)
    # A triangle of (levels + 1)(levels + 2) / 2 maps, and the decoder's levels + 1.
    assert len(axes[0, 0].patches) == (levels + 1) * (levels + 2) // 2 + levels + 1


def test_ratios_are_those_to_the_proposed_network(axes):
    errors = {"proposed": [[1.0, 2.0]], "base 1": [[2.0, 2.0]], "base 2": [[3.0, 3.0]]}
    errors = {arm: np.array(found) for arm, found in errors.items()}
    figures.ratios(axes[0, 0], errors, ["BM"], COLOURS)
    dots = [line.get_xdata()[0] for line in axes[0, 0].lines[:2]]
    assert dots == [1.5, 2.25]


def test_the_best_and_the_worst_case_of_the_first_network(axes):
    data = volumes()
    off = torch.tensor([2.0, 0.0, 1.0]).view(3, 1, 1)
    preds = {"proposed": data["surfaces"] + off, "base 1": data["surfaces"]}
    figures.cases(axes, data, preds, COLOURS)
    titles = [axis.get_title() for axis in axes[0]]
    assert titles == ["best: 0.00 px (control)", "median: 1.00 px (AMD)", "worst: 2.00 px (AMD)"]
    worst = axes[1, 2].lines[0].get_ydata()
    assert np.isnan(worst[0]) and (worst[1:] == 2).all()  # below the truth is positive


def test_volumes_without_atrophy_are_no_case():
    figure, axes = plt.subplots(3, 3)
    columns = torch.zeros(8, 4).bool()
    columns[:6] = True
    data = {"columns": columns, "hidden": {"columns_clean": columns}}
    data["group"] = torch.arange(4).repeat_interleave(2)
    dice = {"proposed": np.array([0.2, 0.9, 0.5, np.nan])}
    figures.en_face(axes, data, {"proposed": torch.rand(8, 4)}, dice)
    assert [line[2].get_title()[-4:] for line in axes] == ["0.90", "0.50", "0.20"]
    plt.close(figure)


def test_a_border_that_the_device_lacks_is_not_compared(axes):
    data = volumes()
    real = {
        "image": data["image"],
        "surfaces": data["surfaces"][:, [0, 2]],
        "surface_names": ("ILM", "BM"),
        "valid": torch.ones(3, 2, 8).bool(),
        "scan": ["a", "b", "c"],
    }
    found = dict(zip(data["surface_names"], (data["surfaces"] + 1).unbind(1), strict=True))
    figures.beside_device(axes[0], real, found, COLOURS)
    assert axes[0, 1].get_title() == "b:\nILM 1.0 px, BM 1.0 px"
