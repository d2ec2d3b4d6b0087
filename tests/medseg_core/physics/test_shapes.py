import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import regionprops

from medseg_core import rng
from medseg_core.physics import shapes


def test_coverage_is_half_on_the_border_and_clipped_away_from_it():
    sd = torch.tensor([-2.0, -0.25, 0.0, 0.25, 2.0])
    assert shapes.coverage(sd).tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert shapes.coverage(sd, width=4).tolist() == pytest.approx([1, 0.5625, 0.5, 0.4375, 0])
    with pytest.raises(ValueError, match="width"):
        shapes.coverage(sd, 0)


def test_coverage_of_a_disc_sums_to_its_area():
    grid = torch.arange(41.0) - 20.3
    sd = torch.hypot(grid[:, None], grid[None]) - 11.4
    assert float(shapes.coverage(sd).sum()) == pytest.approx(math.pi * 11.4**2, rel=2e-3)


def test_fourier_outline_without_harmonics_is_a_circle_from_plus_column_towards_plus_row():
    points = shapes.fourier_outline(rng.generator(0), 5.0, 0, 0.1, 4)
    expected = torch.tensor([[0.0, 5], [5, 0], [0, -5], [-5, 0]])
    assert torch.allclose(points, expected, atol=1e-5)


def test_fourier_outline_stays_near_its_radius_and_keeps_its_centre():
    for i in range(20):
        points = shapes.fourier_outline(rng.generator(0, i), 10.0, 4, 0.1, 256)
        radius = points.norm(dim=1)
        assert float(radius.min()) > 7.5 and float(radius.max()) < 12.5
        assert float(radius.mean()) == pytest.approx(10, rel=1e-3)


def test_polygon_mask_of_a_square_and_outside_the_image():
    square = torch.tensor([[1.5, 1.5], [1.5, 4.5], [4.5, 4.5], [4.5, 1.5]])
    mask = shapes.polygon_mask(square, (7, 8))
    expected = torch.zeros(7, 8, dtype=torch.bool)
    expected[2:5, 2:5] = True
    assert torch.equal(mask, expected)
    assert not shapes.polygon_mask(square + 50, (7, 8)).any()


@pytest.mark.parametrize(
    "points", [torch.zeros(2, 2), torch.zeros(4, 3), torch.full((4, 2), math.nan)]
)
def test_polygon_mask_refuses(points):
    with pytest.raises(ValueError, match="points"):
        shapes.polygon_mask(points, (5, 5))


def test_draw_curve_against_brute_force_distance():
    points = torch.tensor([[2.0, 2.0], [10.0, 5.0], [10.0, 14.0]])
    drawn = shapes.draw_curve(points, torch.full((3,), 1.5), (16, 18))
    dense = np.concatenate([np.linspace(points[k], points[k + 1], 4000) for k in range(2)])
    grid = np.stack(np.meshgrid(np.arange(16), np.arange(18), indexing="ij"), -1)
    d = np.sqrt(((grid[:, :, None] - dense) ** 2).sum(-1)).min(-1)
    assert np.allclose(drawn.numpy(), np.exp(-0.5 * (d / 1.5) ** 2), atol=2e-3)


def test_draw_curve_of_one_point_is_a_ball_in_3d():
    ball = shapes.draw_curve(torch.tensor([[4.0, 4, 4]]), torch.tensor([3.0]), (9, 9, 9), "disc")
    assert float(ball.sum()) == pytest.approx(4 / 3 * math.pi * 27, rel=0.05)
    with pytest.raises(ValueError, match="radius_px"):
        shapes.draw_curve(torch.zeros(1, 2), torch.zeros(1), (4, 4))


def test_boxes_to_mask_by_hand_in_2d_and_3d():
    mask = shapes.boxes_to_mask(torch.tensor([[0, 1, 2, 3], [1, 2, 4, 6]]), (4, 5))
    expected = torch.zeros(4, 5, dtype=torch.bool)
    expected[0:2, 1:3] = True
    expected[1:4, 2:5] = True  # cut at the image's side
    assert torch.equal(mask, expected)
    solid = shapes.boxes_to_mask(torch.tensor([[1, 0, 2, 3, 4, 3]]), (3, 4, 5))
    assert int(solid.sum()) == 2 * 4 * 1 and bool(solid[1:3, :, 2].all())
    assert not shapes.boxes_to_mask(torch.zeros(0, 4), (3, 3)).any()
    assert not shapes.boxes_to_mask(torch.tensor([[7, 7, 9, 9], [-4, 0, -1, 2]]), (6, 6)).any()


def test_boxes_to_mask_on_a_coarser_grid_takes_pixels_by_their_centre():
    """Box [2, 7) at a quarter of the resolution is [0.5, 1.75): the centre ½ lies in, 1½ too."""
    line = shapes.boxes_to_mask(torch.tensor([[0, 2, 8, 7]]), (2, 3), scale=0.25)
    assert line.tolist() == [[True, True, False]] * 2
    less = shapes.boxes_to_mask(torch.tensor([[0, 2, 8, 5]]), (2, 3), scale=0.25)
    assert less.tolist() == [[True, False, False]] * 2  # [0.5, 1.25): 1½ lies beyond
    small = shapes.boxes_to_mask(torch.tensor([[5, 5, 6, 6]]), (4, 4), scale=0.25)
    assert small.nonzero().tolist() == [[1, 1]]  # less than a pixel, and kept
    fine = shapes.boxes_to_mask(torch.tensor([[1, 0, 2, 1]]), (4, 2), scale=2)
    assert fine.nonzero().tolist() == [[2, 0], [2, 1], [3, 0], [3, 1]]


@given(st.integers(0, 10_000), st.sampled_from([(6, 7), (4, 5, 6)]))
@settings(deadline=None, max_examples=60)
def test_mask_to_boxes_is_regionprops_and_inverts_boxes_to_mask(seed, size):
    gen = rng.generator(seed)
    instances = torch.randint(0, 4, size, generator=gen) * 3  # ids 3, 6, 9: with gaps
    boxes = shapes.mask_to_boxes(instances)
    expected = [r.bbox for r in regionprops(instances.numpy())]
    assert boxes.tolist() == [list(b) for b in expected] and boxes.dtype == torch.int64
    for box in boxes:
        assert torch.equal(shapes.mask_to_boxes(shapes.boxes_to_mask(box[None], size))[0], box)


def test_mask_to_boxes_of_a_mask_and_of_nothing():
    mask = torch.zeros(5, 6, dtype=torch.bool)
    assert shapes.mask_to_boxes(mask).shape == (0, 4)
    assert shapes.mask_to_boxes(mask[None]).shape == (0, 6)
    mask[1, 2] = mask[3, 4] = True
    assert shapes.mask_to_boxes(mask).tolist() == [[1, 2, 4, 5]]


@pytest.mark.parametrize(
    "boxes, scale, match",
    [
        ([[0, 0, 2, 2, 2, 2]], 1, "boxes"),
        ([[0, 0, 2, 2], [1, 3, 2, 3]], 1, "index 1"),
        ([[0.0, 0, 2, math.nan]], 1, "finite"),
        ([[0, 0, 2, 2]], 0, "scale"),
        ([[0, 0, 2, 2]], math.inf, "scale"),
    ],
)
def test_boxes_to_mask_refuses(boxes, scale, match):
    with pytest.raises(ValueError, match=match):
        shapes.boxes_to_mask(torch.tensor(boxes), (4, 4), scale)


def test_mask_to_boxes_refuses():
    with pytest.raises(TypeError, match="instances"):
        shapes.mask_to_boxes(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="instances"):
        shapes.mask_to_boxes(torch.tensor([[-1, 2]]))
