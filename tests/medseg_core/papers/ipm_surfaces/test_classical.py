"""Surfaces without learning, on images whose edges are known."""

import pytest
import torch

from medseg_core.papers.ipm_surfaces import classical
from medseg_core.papers.ipm_surfaces.experiment import Task, prepared
from medseg_core.papers.ipm_surfaces.scores import masd


def stripes(n, seed, width=12, height=40):
    """A bright band on a dark ground; its borders lie half-way between two rows."""
    gen = torch.Generator().manual_seed(seed)
    top = torch.randint(10, 16, (n, 1, 1), generator=gen) - 0.5
    borders = torch.cat([top, top + 8], 1).repeat(1, 1, width).float()
    rows = torch.arange(height)[:, None]
    inside = (rows > borders[:, 0, None]) & (rows < borders[:, 1, None])
    return prepared({"image": inside[:, None].float(), "surfaces": borders})


@pytest.fixture(scope="module")
def task():
    return Task(stripes(4, 0), stripes(3, 1), stripes(3, 2), steps=1)


def test_the_band_brightens_and_darkens(task):
    assert classical.polarity(task.train).tolist() == [1, -1]


def test_mean_depth_leaves_gaps_out():
    data = stripes(2, 0)
    known = data["surfaces"].clone()
    data["valid"][0] = False
    data["surfaces"][0] = torch.nan
    assert torch.equal(classical.mean_depth(data)[:, 0], known[1, :, 0])


def test_the_steepest_change_is_the_border(task):
    signs, depth = classical.polarity(task.train), classical.mean_depth(task.train)
    found = classical.steepest(task.test["image"], signs, depth, 8.0)
    assert found.shape == (3, 2, 12)
    assert (found - task.test["surfaces"]).abs().max() <= 0.5
    near = classical.steepest(task.test["image"], signs, depth, 1.0)
    assert (near - depth).abs().max() <= 1.0


def test_the_range_of_gaps_holds_the_truth():
    low, high = classical.gap_range(stripes(4, 0))
    assert (low, high) == (8.0, 8.0)
    data = stripes(500, 0)
    data["surfaces"][0, 1, 0] += 9  # one column of 6000: less than 0.1 %
    data["surfaces"][1, 1, :] += 3  # twelve: more
    assert classical.gap_range(data)[1] == pytest.approx(11.0)


def test_graph_search_finds_the_borders_and_says_how(task):
    placed, blur_px = classical.tuned_graph_search(task)
    assert masd(placed, task.test).max() < 0.3
    assert blur_px in classical.BLURS_PX
    signs = [1, -1]
    errors = {
        blur: masd(classical.by_graph(task, task.validation, signs, blur), task.validation).mean()
        for blur in classical.BLURS_PX
    }
    assert errors[blur_px] == min(errors.values())


def test_graph_search_does_nothing_that_the_truth_never_does(task):
    wide = stripes(3, 2)
    wide["image"] = wide["image"].roll(-2, 2) + wide["image"]  # a band of ten rows, two edges each
    placed = classical.by_graph(task, wide, [1, -1], 1.0)
    gaps = placed.diff(dim=1)
    assert gaps.min() > 6.9 and gaps.max() < 9.1  # 8, and the refinement below the row


def test_a_closed_surface_has_no_seam():
    task = Task(stripes(4, 0), stripes(3, 1), stripes(3, 2), steps=1, circular=True)
    data = task.test | {"image": task.test["image"] + 0.2 * torch.rand(3, 1, 40, 12)}
    moved = data | {"image": data["image"].roll(5, 3)}
    a, b = (classical.by_graph(task, d, [1, -1], 1.0) for d in (data, moved))
    torch.testing.assert_close(a.roll(5, 2), b, atol=1e-4, rtol=0)
