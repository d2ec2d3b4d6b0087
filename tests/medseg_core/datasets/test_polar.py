import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import points_in_poly

from medseg_core.datasets._polar import contour_radii


def test_a_square_by_hand():
    square = [(-3, -2), (-3, 2), (5, 2), (5, -2)]  # rows −3 … 5, columns −2 … 2
    r = contour_radii(square, (0, 0), 8)
    # Angle 0 points along +column, π/2 along +row.
    expected = [2, 2 * math.sqrt(2), 5, 2 * math.sqrt(2)]
    expected += [*expected[:2], 3, *expected[3:]]
    assert r == pytest.approx(expected)
    assert contour_radii(np.add(square, 7), (7, 7), 8) == pytest.approx(expected)


@pytest.mark.parametrize("turn", [1, -1])
def test_the_outermost_crossing_counts_whichever_way_round(turn):
    # A finger reaches back over the ray of angle 0: it is crossed at 4, 6 and 8.
    shape = [(-4, -4), (-4, 8), (1, 8), (1, 6), (-1, 6), (-1, 4), (4, 4), (4, -4)]
    assert contour_radii(shape[::turn], (0, 0), 4).tolist() == [8, 4, 4, 4]


def test_a_corner_on_a_ray_counts_once():
    diamond = [(0, 5), (7, 0), (0, -6), (-8, 0)]
    assert contour_radii(diamond, (0, 0), 4) == pytest.approx([5, 7, 6, 8])
    assert contour_radii(diamond[::-1], (0, 0), 4) == pytest.approx([5, 7, 6, 8])


def test_rays_that_meet_nothing_are_interpolated_around_the_circle():
    # A C around the centre, open towards −row (270°) by about 10° on either side; its lip is at 14
    # before the gap and at 10 after it.
    outer = [(-10, 2), (-10, 10), (10, 10), (10, -10), (-14, -10), (-14, -2.6)]
    inner = [(-5, -2), (-5, -5), (5, -5), (5, 5), (-5, 5), (-5, 2)]
    r = contour_radii(outer + inner, (0, 0), 72)
    assert r[[0, 18, 36]] == pytest.approx(10)
    # Rays every 5°: those at 260 … 280° miss it, their neighbours are at 255 and 285°.
    lips = np.array([14, 10]) / math.cos(math.radians(15))
    assert r[51:58] == pytest.approx(np.linspace(*lips, 7))
    turned = [(column, -row) for row, column in outer + inner]  # the opening is at 0° now
    r = contour_radii(turned, (0, 0), 72)
    assert r[[69, 70, 71, 0, 1, 2, 3]] == pytest.approx(np.linspace(*lips, 7))


def test_a_contour_beside_the_centre_is_refused():
    with pytest.raises(ValueError, match="does not go round the centre"):
        contour_radii([(9, 9), (9, 11), (11, 10)], (0, 0), 36)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31 - 1), st.integers(5, 40))
def test_just_inside_and_just_outside_of_a_star_shape(seed, n):
    rng = np.random.default_rng(seed)
    a = 2 * np.pi * (np.arange(n) + rng.uniform(0, 0.9, n)) / n
    corners = rng.uniform(5, 20, n)[:, None] * np.stack([np.sin(a), np.cos(a)], axis=1)
    r = contour_radii(corners + 30, (30, 30), 24)
    angle = 2 * np.pi * np.arange(24) / 24
    ray = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    assert points_in_poly((r - 1e-6)[:, None] * ray + 30, corners + 30).all()
    assert not points_in_poly((r + 1e-6)[:, None] * ray + 30, corners + 30).any()
