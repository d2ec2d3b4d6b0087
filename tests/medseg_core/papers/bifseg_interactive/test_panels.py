"""The drawings: what is outlined, marked and named."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from medseg_core.papers.bifseg_interactive import panels
from medseg_core.papers.bifseg_interactive.figures import Pen, largest_slice

INK = {"truth": "#aa3377", "result": "#ddcc00", "object": "#ee7733", "background": "#33bbee"}
PEN = Pen(INK)
TRUTH = torch.zeros(5, 6, 6, dtype=torch.bool)
TRUTH[1:4, 2:4, 2:4] = True
TRUTH[2, 1:5, 1:5] = True


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_outlines_and_strokes_have_the_colours_of_their_roles():
    _, axis = plt.subplots()
    marks = torch.full((6, 6), 255)
    marks[2, 2:4], marks[0, :3] = 1, 0
    PEN.slice(axis, TRUTH[2].float(), "t", truth=TRUTH[2], result=TRUTH[1], strokes=marks)
    drawn = [to_hex(c) for a in axis.collections for c in a.get_edgecolor()]
    drawn += [to_hex(c) for a in axis.collections for c in a.get_facecolor()]
    assert set(INK.values()) <= set(drawn)
    counts = sorted(len(a.get_offsets()) for a in axis.collections if len(a.get_offsets()) > 1)
    assert counts == [2, 3]


def test_a_full_or_an_empty_mask_has_no_outline():
    _, axis = plt.subplots()
    full = torch.ones(6, 6, dtype=torch.bool)
    PEN.slice(axis, torch.zeros(6, 6), truth=full, result=~full)
    assert not axis.collections


def test_weights_black_where_left_out():
    _, axis = plt.subplots()
    PEN.weights(axis, torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[255, 255, 1]]))
    np.testing.assert_allclose(axis.images[0].get_array(), [[0, 0.8, 0.8]])


def test_slices_by_hand():
    assert largest_slice(TRUTH) == 2
    assert panels.slices_of(TRUTH, 3) == [1, 2, 3]
    long = torch.zeros(30, 2, 2, dtype=torch.bool)
    long[5:26] = True  # 21 slices: 0.12 · 20 = 2.4, …, 17.6
    assert panels.slices_of(long, 5) == [7, 11, 15, 19, 23]


def test_curves_are_means_over_volumes_with_two_bands():
    _, axis = plt.subplots()
    curves = {name: np.array([[[0.0, 0.5], [1.0, 0.7]]]) for name in "abc"}
    look = {"a": ("k", "-"), "b": ("r", "-"), "c": ("b", "--")}
    panels.session_curves(axis, curves, look, when=(1,))
    assert [line.get_label() for line in axis.lines[:3]] == ["a", "b", "c"]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [0.5, 0.6])
    band = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(0.5 + 0.5 / np.sqrt(2)) and len(axis.collections) == 2


def test_two_results_show_the_slice_with_most_errors():
    _, axes = plt.subplots(1, 2)
    image = torch.rand(1, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    wrong = TRUTH.long()
    wrong[3] = 1
    marks = torch.full((1, 5, 6, 6), 255)
    panels.two_results(PEN, axes, "worst", image, TRUTH, marks, {"a": TRUTH.long(), "b": wrong})
    assert axes[0].get_title() == "worst crop, 1.000\na"
    np.testing.assert_array_equal(axes[1].images[0].get_array(), image[0, 3])
