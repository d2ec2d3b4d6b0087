import math

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


@given(st.integers(0, 10_000), st.sampled_from([(6, 7), (4, 5, 6)]))
@settings(deadline=None, max_examples=60)
def test_mask_to_boxes_is_regionprops(seed, size):
    gen = rng.generator(seed)
    instances = torch.randint(0, 4, size, generator=gen) * 3  # ids 3, 6, 9: with gaps
    boxes = shapes.mask_to_boxes(instances)
    expected = [r.bbox for r in regionprops(instances.numpy())]
    assert boxes.tolist() == [list(b) for b in expected] and boxes.dtype == torch.int64


def test_mask_to_boxes_of_a_mask_and_of_nothing():
    mask = torch.zeros(5, 6, dtype=torch.bool)
    assert shapes.mask_to_boxes(mask).shape == (0, 4)
    assert shapes.mask_to_boxes(mask[None]).shape == (0, 6)
    mask[1, 2] = mask[3, 4] = True
    assert shapes.mask_to_boxes(mask).tolist() == [[1, 2, 4, 5]]


def test_mask_to_boxes_refuses():
    with pytest.raises(TypeError, match="instances"):
        shapes.mask_to_boxes(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="instances"):
        shapes.mask_to_boxes(torch.tensor([[-1, 2]]))
