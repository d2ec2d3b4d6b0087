import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.datasets._bscans import bscan, on_bscan_grid, retina_top


def curved(height=200, width=90, tilt=30.0, bend=-25.0, thick=60, seed=0):
    """A bright band along a parabola; its upper and lower border as surfaces."""
    x = torch.linspace(-1, 1, width)
    upper = (height - thick) / 2 + tilt * x / 2 + bend * x**2
    surfaces = torch.stack([upper, upper + thick])
    row = torch.arange(height)[:, None]
    noise = torch.rand(height, width, generator=torch.Generator().manual_seed(seed))
    image = torch.where((row >= surfaces[0]) & (row < surfaces[1]), 0.7, 0.15) * (0.7 + 0.3 * noise)
    return image[None, None], surfaces[None]


def test_gaps_are_bridged_and_marked():
    surfaces = torch.tensor([[[torch.nan, 2, torch.nan, 4, 5], [6.0, 6, 6, torch.nan, 9]]])
    one = bscan(torch.rand(1, 1, 9, 5), surfaces, (1, 2), per_surface=True)
    assert one["surfaces"][0].tolist() == [[2, 2, 3, 4, 5], [6, 6, 6, 7.5, 9]]
    # Row 9 lies outside the 9 rows 0 … 8.
    assert one["valid"][0].tolist() == [[0, 1, 0, 1, 1], [1, 1, 1, 0, 0]]
    assert one["label"][0, :, 1].tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert (one["label"][0, :, [0, 2, 3, 4]] == 255).all()
    together = bscan(torch.rand(1, 1, 9, 5), surfaces, (1, 2))
    assert together["valid"].tolist() == [[False, True, False, False, False]]
    empty = bscan(torch.rand(1, 1, 9, 5), torch.full((1, 2, 5), torch.nan), (1, 2))
    assert (empty["surfaces"] == 0).all() and not empty["valid"].any()


@settings(deadline=None, max_examples=20)
@given(st.floats(-60, 60), st.floats(-30, 30), st.integers(0, 99))
def test_the_cut_holds_a_tilted_and_curved_retina(tilt, bend, seed):
    image, surfaces = curved(tilt=tilt, bend=bend, seed=seed)
    data = on_bscan_grid(bscan(image, surfaces, (1, 1)), (80, None), None)
    assert data["valid"].all()
    assert (data["surfaces"][0, 0] > 3).all() and (data["surfaces"][0, 1] < 76).all()
    assert torch.allclose(data["surfaces"] + data["top"][:, None], surfaces, atol=1e-4)


def test_without_flattening_all_columns_are_cut_at_one_row():
    image, surfaces = curved(tilt=40)
    flat = on_bscan_grid(bscan(image, surfaces, (1, 1)), (80, None), None, flatten=False)
    assert len(flat["top"].unique()) == 1
    assert 0.2 < flat["valid"].float().mean() < 0.9  # the ends of the tilted band are lost


def test_outliers_do_not_bend_the_cut():
    image, _ = curved(bend=0)
    spoilt = image.clone()
    spoilt[..., :30, 10:16] = 1.0  # a bright reflex above the retina
    spoilt[..., 60:140, 10:16] = 0.1  # and its shadow
    change = retina_top(spoilt[0, 0], 80) - retina_top(image[0, 0], 80)
    assert change[30:].abs().max() <= 4


def test_an_image_without_light_is_cut_about_its_middle():
    assert retina_top(torch.zeros(100, 12), 40).unique().tolist() == [30]
    assert retina_top(torch.zeros(40, 12), 40).unique().tolist() == [0]


def test_more_rows_and_columns_are_filled_up():
    image, surfaces = torch.ones(1, 1, 6, 4), torch.full((1, 1, 4), 2.0)
    data = on_bscan_grid(bscan(image, surfaces, (1, 1)), (10, 7), None)
    assert data["image"].shape == (1, 1, 10, 7) and data["image"].sum() == 24
    assert data["top"][0, 1:5].tolist() == [-2] * 4
    assert data["image"][0, 0, 2:8, 1:5].all()
    assert data["valid"][0].tolist() == [False, True, True, True, True, False, False]
    assert (data["surfaces"] == 4).all()


@pytest.mark.parametrize("factor", [0.5, 2, 3])
def test_image_and_surfaces_stay_together_when_resampled(factor):
    """An edge in the image, measured after resampling, lies where the surface says."""
    row = torch.arange(120.0)[:, None]
    line = 40 + 0.5 * torch.arange(60.0)
    image = torch.sigmoid(row - line)[None, None]
    data = on_bscan_grid(bscan(image, line[None, None], (0.5, 2.0)), None, (0.5 * factor, 4.0))
    assert data["image"].shape[2:] == (round(120 / factor), 30)
    assert data["spacing"] == (0.5 * factor, 4.0)
    bright = data["image"][0, 0].numpy()
    for column in range(2, 28):
        edge = np.interp(0.5, bright[:, column], np.arange(len(bright)))
        assert data["surfaces"][0, 0, column].item() == pytest.approx(edge, abs=0.1)


def test_gaps_survive_resampling():
    line = torch.full((1, 1, 60), 5.0)
    line[..., 20:30] = torch.nan
    data = on_bscan_grid(bscan(torch.rand(1, 1, 12, 60), line, (1, 1)), None, (1, 2))
    # New column j lies at 0.5 + 2j, between two old ones.
    assert (~data["valid"][0]).nonzero().flatten().tolist() == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("size", [0, (-1, 3), (2.5, 3), (3, 3, 3)])
def test_bad_sizes_are_refused(size):
    image, surfaces = curved()
    with pytest.raises(ValueError, match="size must be"):
        on_bscan_grid(bscan(image, surfaces, (1, 1)), size, None)
