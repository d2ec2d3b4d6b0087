"""Oracles: paths worked out by hand, Bellman and Ford's relaxation."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.solvers import geodesic


def geodesic_distance(image, seeds, *, eps=geodesic.EPS, **options):
    """With another price of a unit of length than the module's, whose 1e-6 would hide errors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geodesic, "EPS", eps)
        return geodesic.geodesic_distance(image, seeds, **options)


def line(*values):
    return torch.tensor([[[values]]], dtype=torch.float64)  # (1,1,1,W)


def seeds_at(image, *places):
    seeds = torch.zeros(image.shape, dtype=torch.bool)
    for place in places:
        seeds[(0, 0, *place)] = True
    return seeds


def relaxed(image, seeds, eps):
    """Bellman and Ford: lower every distance by its neighbours' until none changes. (*S) arrays."""
    steps = [o for o in itertools.product((-1, 0, 1), repeat=image.ndim) if any(o)]
    distance = np.where(seeds, 0.0, math.inf)
    while True:
        before = distance.copy()
        for place in np.ndindex(image.shape):
            for step in steps:
                other = tuple(np.add(place, step))
                if all(0 <= k < n for k, n in zip(other, image.shape, strict=True)):
                    length = np.linalg.norm(step)
                    price = abs(image[place] - image[other]) + eps * length
                    distance[place] = min(distance[place], distance[other] + price)
        if (distance == before).all():
            return distance


def test_a_line_by_hand():
    image = line(0.0, 0.5, 0.25, 1.0)
    found = geodesic_distance(image, seeds_at(image, (0, 0)), eps=0.125)
    assert found.tolist() == line(0, 0.625, 0.625 + 0.375, 1 + 0.875).tolist()


def test_the_way_round_a_wall_by_hand():
    image = torch.tensor([[[[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.25, 0.0]]]]).double()
    seeds = seeds_at(image, (0, 0))
    # Down, across the low part of the wall (0.25 up and down), and up again: by diagonals.
    found = geodesic_distance(image, seeds, eps=2.0**-20)
    ways = 2 * (1 + math.sqrt(2))
    assert found[0, 0, 0, 2] == pytest.approx(0.5 + ways * 2.0**-20, abs=1e-12)
    # A dear millimetre makes the way through the wall the cheaper one.
    found = geodesic_distance(image, seeds, eps=1.0)
    assert found[0, 0, 0, 2] == pytest.approx(2 + 2)


def test_a_diagonal_step_is_longer():
    even = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    found = geodesic_distance(even, seeds_at(even, (0, 0)), eps=1.0)[0, 0]
    assert found.flatten().tolist() == pytest.approx([0, 1, 1, math.sqrt(2)])
    solid = torch.zeros(1, 1, 2, 2, 2, dtype=torch.float64)
    found = geodesic_distance(solid, seeds_at(solid, (0, 0, 0)), eps=1.0)[0, 0]
    assert float(found[1, 1, 1]) == pytest.approx(math.sqrt(3))


SIZES = [(1, 1), (1, 5), (4, 1), (4, 5), (1, 3, 2), (2, 3, 3), (3, 1, 3)]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(SIZES),
    st.integers(0, 10**6),
    st.sampled_from([1e-6, 0.3]),
    st.booleans(),
)
def test_equals_bellman_ford(size, seed, eps, levels):
    rng = np.random.default_rng(seed)
    # Few levels: many steps cost nothing but eps.
    image = rng.integers(0, 3, size) / 2 if levels else rng.random(size)
    seeds = rng.random(size) < 0.2
    found = geodesic_distance(
        torch.from_numpy(image)[None, None],
        torch.from_numpy(seeds)[None, None],
        eps=eps,
    )
    want = relaxed(image, seeds, eps)
    np.testing.assert_allclose(found[0, 0].numpy(), want, rtol=1e-12, atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([(4, 5), (3, 3, 3)]), st.integers(0, 10**6))
def test_a_metric_that_scales_with_the_image(size, seed):
    gen = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 1, *size, generator=gen, dtype=torch.float64)
    places = [tuple(int(torch.randint(n, (), generator=gen)) for n in size) for _ in range(3)]
    a, b = (geodesic_distance(image, seeds_at(image, p), eps=1e-3)[0, 0] for p in places[:2])
    at_a, at_b, at_c = places
    assert a[at_a] == 0 and (a >= 0).all()
    assert a[at_b] == pytest.approx(float(b[at_a]), abs=1e-12)
    assert a[at_c] <= a[at_b] + b[at_c] + 1e-12
    # More seeds: the nearest one counts.
    both = geodesic_distance(image, seeds_at(image, at_a, at_b), eps=1e-3)[0, 0]
    torch.testing.assert_close(both, torch.minimum(a, b))
    scaled = geodesic_distance(3 * image + 5, seeds_at(image, at_a), eps=3e-3)[0, 0]
    torch.testing.assert_close(scaled, 3 * a)
    # At least the plain difference of intensity, and at most that of any way there.
    assert (a >= (image[0, 0] - image[0, 0][at_a]).abs() - 1e-12).all()


def test_limit_leaves_the_near_ones_and_makes_the_rest_infinite():
    image = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(0)).double()
    seeds = seeds_at(image, (4, 4))
    whole = geodesic_distance(image, seeds)
    limit = float(whole.median())
    near = geodesic_distance(image, seeds, limit=limit)
    assert torch.equal(near, torch.where(whole <= limit, whole, math.inf))
    assert torch.equal(
        geodesic_distance(image, seeds, limit=0), torch.where(seeds, 0.0, math.inf).double()
    )


def test_batches_dtypes_and_no_seeds():
    gen = torch.Generator().manual_seed(0)
    image = torch.rand(3, 1, 5, 6, generator=gen)
    seeds = torch.zeros(3, 1, 5, 6, dtype=torch.bool)
    seeds[0, 0, 2, 3] = seeds[2, 0, 0, 0] = True
    kept = image.clone()
    found = geodesic_distance(image, seeds)
    assert found.dtype == torch.float32 and found.shape == image.shape
    assert (found[1] == math.inf).all()
    for n in (0, 2):
        assert torch.equal(found[n : n + 1], geodesic_distance(image[n : n + 1], seeds[n : n + 1]))
    assert torch.equal(image, kept)
    assert geodesic_distance(image[:0], seeds[:0]).shape == (0, 1, 5, 6)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"image": torch.full((1, 1, 2, 2), math.nan)}, ValueError, r"image.*nan at index \[0, 0"),
        ({"image": torch.zeros(1, 1, 0, 2)}, ValueError, "at least one pixel"),
        ({"image": torch.zeros(1, 1, 4)}, ValueError, r"\(N,1,H,W\)"),
        ({"image": torch.zeros(1, 2, 2, 2)}, ValueError, "image must have the shape"),
        ({"image": torch.zeros(1, 1, 2, 2, dtype=torch.int64)}, TypeError, "image.*floating"),
        ({"seeds": torch.zeros(1, 1, 2, 3, dtype=torch.bool)}, ValueError, "seeds"),
        ({"seeds": torch.zeros(1, 1, 2, 2)}, TypeError, "seeds must be a bool"),
        ({"limit": -1.0}, ValueError, "limit"),
    ],
)
def test_refuses(change, error, match):
    given_ = {"image": torch.zeros(1, 1, 2, 2), "seeds": torch.ones(1, 1, 2, 2, dtype=torch.bool)}
    given_.update(change)
    with pytest.raises(error, match=match):
        geodesic_distance(given_.pop("image"), given_.pop("seeds"), **given_)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    image = torch.rand(1, 1, 5, 6)
    seeds = seeds_at(image, (2, 3))
    found = geodesic_distance(image.cuda(), seeds.cuda())
    assert found.is_cuda and torch.equal(found.cpu(), geodesic_distance(image, seeds))
