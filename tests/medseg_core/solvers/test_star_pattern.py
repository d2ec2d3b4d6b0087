import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.solvers.star_dp import circular_dp
from medseg_core.solvers.star_pattern import (
    contour_points,
    contour_to_mask,
    indices_to_radii,
    share_outside,
    smooth_indices,
    star_pattern,
    star_truth,
    warp,
)


def disc(radius, centre, size=64):
    r, c = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((r - centre[0]) ** 2 + (c - centre[1]) ** 2 <= radius**2)[None, None]


def dice(a, b):
    return (2 * (a & b).sum() / (a.sum() + b.sum())).item()


def test_pattern_of_four_lines_by_hand():
    points = star_pattern(torch.tensor([[10.0, 20.0]]), 4, 2, 6.0)
    assert points.shape == (1, 4, 3, 2)
    expected = torch.tensor(
        [
            [[10, 20], [10, 23], [10, 26]],  # angle 0: +column
            [[10, 20], [13, 20], [16, 20]],  # π/2: +row
            [[10, 20], [10, 17], [10, 14]],
            [[10, 20], [7, 20], [4, 20]],
        ]
    )
    torch.testing.assert_close(points[0], expected.float(), atol=1e-5, rtol=0)


def test_angle0_turns_each_sample_of_the_batch():
    centre = torch.tensor([[10.0, 20.0], [3.0, 4.0]])
    turned = star_pattern(centre, 8, 5, 5.0, torch.tensor([0.0, math.pi / 2]))
    straight = star_pattern(centre, 8, 5, 5.0)
    torch.testing.assert_close(turned[0], straight[0])
    torch.testing.assert_close(turned[1], straight[1].roll(-2, 0), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        star_pattern(centre, 8, 5, 5.0, 0.3)[1, 0, 5] - centre[1],
        5 * torch.tensor([math.sin(0.3), math.cos(0.3)]),
    )


def test_warp_reads_pixels_and_clamps_at_the_border():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    points = torch.tensor([[[[0, 0], [1.4, 2.6], [0.5, 0], [-5, -5], [9, 9], [2.49, 3.49]]]])
    assert warp(image, points).tolist() == [[[0.0, 7.0, 4.0, 0.0, 11.0, 11.0]]]


def test_gradient_reaches_the_sampled_pixels_only():
    image = torch.zeros(1, 1, 5, 5, requires_grad=True)
    warp(image, star_pattern(torch.tensor([[2.0, 2.0]]), 4, 2, 2.0)).sum().backward()
    expected = torch.zeros(5, 5)
    expected[2], expected[:, 2], expected[2, 2] = 1, 1, 4  # the centre once per line
    torch.testing.assert_close(image.grad[0, 0], expected)


def test_share_outside():
    points = torch.tensor([[0.0, 0.0], [-0.6, 0.0], [4.6, 0.0], [4.4, 2.0]])
    assert share_outside(points, (5, 3)) == 0.5
    assert share_outside(star_pattern(torch.tensor([[20.0, 20.0]]), 9, 9, 10.0), (41, 41)) == 0


def test_truth_is_the_first_sample_outside():
    mask = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    mask[0, 0, 4, 4:7] = True  # +column: inside at 0, 1, 2
    mask[0, 0, 8, 4] = True  # further out along +row: the first border counts
    v, uncovered = star_truth(mask, star_pattern(torch.tensor([[4.0, 4.0]]), 4, 4, 4.0))
    assert v.tolist() == [[3, 1, 1, 1]]
    assert uncovered == 0
    v, uncovered = star_truth(mask, star_pattern(torch.tensor([[4.0, 4.0]]), 4, 2, 2.0))
    assert v.tolist() == [[2, 1, 1, 1]]  # never leaves along line 0: last sample, counted
    assert uncovered == 0.25
    v, _ = star_truth(mask, star_pattern(torch.tensor([[0.0, 0.0]]), 4, 2, 2.0))
    assert v.tolist() == [[1, 1, 1, 1]]  # a centre outside the object
    v, uncovered = star_truth(torch.ones(1, 1, 5, 5), star_pattern(torch.ones(1, 2) * 2, 3, 9, 9.0))
    assert uncovered == 0  # the image's edge ends the object
    assert v.max() <= 4


def test_truth_is_what_the_solver_finds_on_the_mask():
    centre = torch.tensor([[31.3, 30.8]])
    mask = disc(14.0, centre[0])
    points = star_pattern(centre, 50, 28, 28.0)
    v, _ = star_truth(mask, points)
    torch.testing.assert_close(circular_dp(warp(mask.float(), points), 2), v)


@pytest.mark.parametrize("rho", [0.5, 1.0])
def test_disc_comes_back_without_bias(rho):
    gen = torch.Generator().manual_seed(0)
    errors, overlaps = [], []
    for radius in torch.arange(8.0, 24.0, 0.73).tolist():
        centre = 31.5 + 6 * (torch.rand(1, 2, generator=gen) - 0.5)
        mask = disc(radius, centre[0])
        v, uncovered = star_truth(mask, star_pattern(centre, 50, int(30 / rho), 30.0))
        assert uncovered == 0
        smooth = smooth_indices(v)
        errors.append((indices_to_radii(smooth, rho) - radius).mean().item())
        overlaps.append(dice(contour_to_mask(contour_points(centre, smooth, rho), (64, 64)), mask))
    assert min(overlaps) > 0.97
    assert abs(sum(errors) / len(errors)) < 0.05  # half a sample off would be 0.25 or 0.5
    assert max(map(abs, errors)) < 0.3


def test_smoothed_circle_stays_that_circle():
    v = torch.full((2, 50), 13)
    torch.testing.assert_close(smooth_indices(v), v.float())
    centre = torch.tensor([[20.0, 30.0], [33.0, 31.0]])
    points = contour_points(centre, smooth_indices(v), 1.0)
    torch.testing.assert_close((points - centre[:, None]).norm(dim=-1), torch.full((2, 50), 12.5))


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 12), st.sampled_from([1, 3, 5]), st.integers(0, 1000))
def test_smoothing_by_hand(n_lines, width, seed):
    v = torch.randint(1, 9, (2, n_lines), generator=torch.Generator().manual_seed(seed))
    if width > n_lines:
        with pytest.raises(ValueError, match=r"width must be odd and in \[1, N = "):
            smooth_indices(v, width)
        return
    half = width // 2
    expected = sum(v.roll(s, 1) for s in range(-half, half + 1)) / width
    torch.testing.assert_close(smooth_indices(v, width), expected)


def test_contour_lies_half_way_between_the_samples():
    centre = torch.tensor([[20.0, 20.0]])
    points = star_pattern(centre, 7, 10, 10.0)
    v = torch.tensor([[3, 4, 5, 6, 7, 8, 9]])
    between = (points[0, torch.arange(7), v[0]] + points[0, torch.arange(7), v[0] - 1]) / 2
    torch.testing.assert_close(contour_points(centre, v, 1.0)[0], between)


def test_mask_of_a_square_contour():
    corners = torch.tensor([[[1.5, 1.5], [1.5, 4.5], [5.5, 4.5], [5.5, 1.5]]])
    mask = contour_to_mask(corners, (8, 8))
    expected = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    expected[..., 2:6, 2:5] = True
    assert mask.dtype == torch.bool
    assert torch.equal(mask, expected)


def test_bad_input_is_refused_by_name():
    centre, image = torch.zeros(1, 2), torch.zeros(1, 1, 5, 5)
    with pytest.raises(ValueError, match="centre must have the shape"):
        star_pattern(torch.zeros(2), 4, 2, 2.0)
    with pytest.raises(ValueError, match="centre must be finite, got nan"):
        star_pattern(torch.full((1, 2), float("nan")), 4, 2, 2.0)
    with pytest.raises(ValueError, match="n_lines must be at least 3, got 2"):
        star_pattern(centre, 2, 2, 2.0)
    with pytest.raises(ValueError, match="n_points must be at least 1, got 0"):
        star_pattern(centre, 4, 0, 2.0)
    with pytest.raises(ValueError, match=r"radius must be positive and finite, got 0\.0"):
        star_pattern(centre, 4, 2, 0.0)
    with pytest.raises(ValueError, match="angle0 must have the shape"):
        star_pattern(centre, 4, 2, 2.0, torch.zeros(3))
    points = star_pattern(centre, 4, 2, 2.0)
    with pytest.raises(ValueError, match="image must have the shape"):
        warp(image[0], points)
    with pytest.raises(ValueError, match="points must have the shape"):
        warp(image, points[0])
    with pytest.raises(ValueError, match="width must be odd"):
        smooth_indices(torch.ones(1, 8), 4)
    with pytest.raises(ValueError, match="corners of points must be at least 3, got 2"):
        contour_to_mask(torch.zeros(1, 2, 2), (5, 5))
    with pytest.raises(ValueError, match=r"points must be finite, got nan at index \[0, 1, 0\]"):
        contour_to_mask(torch.tensor([[[0.0, 0], [float("nan"), 1], [1, 1]]]), (5, 5))
