import math

import numpy as np
import pytest
import torch

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
