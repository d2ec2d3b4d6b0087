"""Oracles: weight maps worked out by hand, every labelling of a tiny image."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.papers.bifseg_interactive.interactive import (
    crf_graphcut,
    crf_unary,
    merge_scribbles,
    scribble_distance,
    uncertainty_weights,
)
from medseg_core.solvers.grid_cut import GridCut

NONE = 255


def row(*values, dtype=torch.float64):
    return torch.tensor([[[values]]], dtype=dtype)  # (1,1,1,W)


def marks(*values):
    return torch.tensor([[values]])  # (1,1,W)


def energy(labels, prob, image, lam, sigma, spacing, full):
    """The module's energy, written once more with loops over pixels."""
    total = 0.0
    places = list(itertools.product(*map(range, labels.shape)))
    for i in places:
        p = min(max(float(prob[i]), 1e-4), 1 - 1e-4)
        total -= math.log(p if labels[i] else 1 - p)
        for j in places:
            step = [b - a for a, b in zip(i, j, strict=True)]
            near = max(map(abs, step)) == 1 and (full or sum(map(abs, step)) == 1)
            if j > i and near and labels[i] != labels[j]:
                r = math.hypot(*(k * s for k, s in zip(step, spacing, strict=True)))
                total += lam * math.exp(-(float(image[i] - image[j]) ** 2) / (2 * sigma**2)) / r
    return total


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([((2, 4), 4), ((3, 3), 8), ((2, 2, 2), 6), ((2, 2, 2), 26)]),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.2, 1.0, 5.0]),
)
def test_least_energy_of_all_labels_that_obey_the_scribbles(kind, seed, lam):
    (size, connectivity), gen = kind, torch.Generator().manual_seed(seed)
    prob, image = (torch.rand(1, 1, *size, generator=gen, dtype=torch.float64) for _ in range(2))
    prob = (1.5 * prob - 0.25).clamp(0, 1)  # some are 0 or 1
    scribbles = torch.randint(0, 8, (1, *size), generator=gen)
    scribbles[scribbles > 1] = NONE
    spacing = torch.rand(len(size), generator=gen).add(0.5).tolist()
    rest = (lam, 0.3, spacing, connectivity in (8, 26))
    every = []
    for bits in itertools.product((0, 1), repeat=math.prod(size)):
        y = torch.tensor(bits).reshape(size)
        if (y == scribbles[0])[scribbles[0] != NONE].all():
            every.append((energy(y, prob[0, 0], image[0, 0], *rest), y))
    found = crf_graphcut(
        *(prob, image),
        **{"lam": lam, "sigma": 0.3, "scribbles": scribbles},
        **{"spacing": spacing, "connectivity": connectivity},
    )
    assert found.shape == (1, *size) and found.dtype == torch.int64
    assert (found == scribbles)[scribbles != NONE].all()
    least = min(e for e, _ in every)
    assert energy(found[0], prob[0, 0], image[0, 0], *rest) == pytest.approx(least, abs=1e-9)


def test_eight_and_six_neighbours_are_the_default():
    gen = torch.Generator().manual_seed(0)
    for size, default in (((6, 6), 8), ((4, 4, 4), 6)):
        prob, image = (torch.rand(1, 1, *size, generator=gen) for _ in range(2))
        rest = {"lam": 0.4, "sigma": 0.5}
        want = crf_graphcut(prob, image, connectivity=default, **rest)
        assert torch.equal(crf_graphcut(prob, image, **rest), want)
        other = {8: 4, 6: 26}[default]
        assert not torch.equal(crf_graphcut(prob, image, connectivity=other, **rest), want)


def test_without_boundary_terms_the_cut_is_a_threshold():
    gen = torch.Generator().manual_seed(0)
    prob, image = (torch.rand(2, 1, 7, 9, generator=gen) for _ in range(2))
    found = crf_graphcut(prob, image, lam=0.0, sigma=0.1)
    assert torch.equal(found, (prob[:, 0] > 0.5).long())


def test_a_boundary_on_the_edge_of_the_image_is_cheap():
    image = row(0.0, 0.0, 1.0, 1.0, 1.0)
    prob = row(0.05, 0.4, 0.4, 0.6, 0.9)
    assert crf_graphcut(prob, image, lam=0.0, sigma=0.2).tolist() == [[[0, 0, 0, 1, 1]]]
    assert crf_graphcut(prob, image, lam=2.0, sigma=0.2).tolist() == [[[0, 0, 1, 1, 1]]]


def test_certain_probabilities_do_not_outweigh_scribbles():
    prob = row(0.0, 1.0, 1.0, 1.0, 0.0)
    image = torch.zeros_like(prob)
    scribbles = marks(1, NONE, 0, NONE, NONE)
    # Each pixel wants its certain label; only where the user spoke does another stand.
    found = crf_graphcut(prob, image, lam=0.1, sigma=0.1, scribbles=scribbles)
    assert found.tolist() == [[[1, 1, 0, 1, 0]]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 1e6]))
def test_scribbles_are_always_obeyed(seed, lam):
    gen = torch.Generator().manual_seed(seed)
    prob, image = (torch.rand(1, 1, 5, 5, generator=gen) for _ in range(2))
    scribbles = torch.tensor([0, 1, NONE])[torch.randint(0, 3, (1, 5, 5), generator=gen)]
    found = crf_graphcut(prob, image, lam=lam, sigma=0.1, scribbles=scribbles)
    assert (found == scribbles)[scribbles != NONE].all()


def test_a_kept_grid_and_a_batch_give_the_same_labels():
    gen = torch.Generator().manual_seed(0)
    prob, image = (torch.rand(3, 1, 6, 7, generator=gen) for _ in range(2))
    scribbles = torch.full((3, 6, 7), NONE)
    scribbles[1, 2, 3], scribbles[2, 0, 0] = 1, 0
    rest = {"lam": 1.0, "sigma": 0.2}
    whole = crf_graphcut(prob, image, scribbles=scribbles, **rest)
    grid = GridCut((6, 7), 8)
    for n in (0, 1, 2, 2, 0):
        one = slice(n, n + 1)
        found = crf_graphcut(prob[one], image[one], scribbles=scribbles[one], grid=grid, **rest)
        assert torch.equal(found, whole[one])
    for bad, match in ((GridCut((6, 7), 4), "connectivity 4"), (GridCut((7, 6), 8), "not fit")):
        with pytest.raises(ValueError, match=match):
            crf_graphcut(prob[:1], image[:1], grid=bad, **rest)
    with pytest.raises(ValueError, match="does not fit"):
        crf_graphcut(prob, image, grid=grid, **rest)


def test_a_kept_grid_builds_anew_only_for_new_weights():
    handed = []

    class Spy(GridCut):
        def cut(self, unary, pairwise=None):
            handed.append(pairwise is not None)
            return super().cut(unary, pairwise)

    gen = torch.Generator().manual_seed(0)
    prob, image = (torch.rand(1, 1, 6, 7, generator=gen) for _ in range(2))
    scribbles = torch.full((1, 6, 7), NONE)
    grid, other = Spy((6, 7), 8), image.clone()
    other[..., -1, -1] += 0.5
    calls = [({}, True), ({}, False), ({"lam": 2.0}, True), ({"lam": 2.0}, False)]
    calls += [({"image": other}, True), ({"spacing": (2.0, 1.0)}, True), ({}, True)]
    for i, (change, new) in enumerate(calls):
        scribbles[0, i % 6, 3] = i % 2  # costs may change
        options = {"image": image, "lam": 1.0, "sigma": 0.2, "scribbles": scribbles} | change
        found = crf_graphcut(prob, grid=grid, **options)
        assert handed[-1] == new
        assert torch.equal(found, crf_graphcut(prob, **options))


def test_unary_by_hand():
    found = crf_unary(row(0.0, 0.25, 1.0, 0.5), marks(NONE, NONE, 0, 1))
    want = [[-math.log1p(-1e-4), -math.log(0.75), -math.log(1e-4), math.inf]]
    want.append([-math.log(1e-4), -math.log(0.25), math.inf, -math.log(0.5)])
    torch.testing.assert_close(found[0, :, 0], torch.tensor(want, dtype=torch.float64))


def test_weight_map_of_one_row_by_hand():
    image = row(0.0, 0.1, 0.5, 0.55, 0.6)
    prob = row(0.9, 0.8, 0.6, 0.1, 0.05)
    scribbles = marks(NONE, NONE, NONE, NONE, NONE)
    # Only 0.6 lies in (0.2, 0.7).
    assert uncertainty_weights(prob, image, scribbles).tolist() == [[[1, 1, 0, 1, 1]]]
    assert uncertainty_weights(prob, image, None).tolist() == [[[1, 1, 0, 1, 1]]]
    # Background scribbled on the left: its neighbour, 0.1 away, is called object: in doubt.
    scribbles = marks(0, NONE, NONE, NONE, NONE)
    assert uncertainty_weights(prob, image, scribbles).tolist() == [[[5, 0, 0, 1, 1]]]
    # Object scribbled there: the same neighbour is confirmed. Background is too far away, 0.55.
    scribbles = marks(1, NONE, NONE, NONE, NONE)
    assert uncertainty_weights(prob, image, scribbles).tolist() == [[[5, 1, 0, 1, 1]]]
    assert uncertainty_weights(prob, image, scribbles, eps=0.58).tolist() == [[[5, 1, 0, 0, 1]]]
    # Object scribbled on the right, where the network says background: 0.05 and 0.1 away.
    scribbles = marks(NONE, NONE, NONE, NONE, 1)
    found = uncertainty_weights(prob, image, scribbles, omega=7.5)
    assert found.tolist() == [[[1, 1, 0, 0, 7.5]]]
    # The scribble comes first, also where the network is in doubt.
    scribbles = marks(NONE, NONE, 1, NONE, NONE)
    assert uncertainty_weights(prob, image, scribbles).tolist() == [[[1, 1, 5, 0, 0]]]
    scribbles = marks(NONE, NONE, 0, 1, NONE)  # two labels side by side: both stay
    assert uncertainty_weights(prob, image, scribbles).tolist() == [[[1, 1, 5, 5, 0]]]
    assert uncertainty_weights(prob, image, scribbles, eps=0.0).tolist() == [[[1, 1, 5, 5, 1]]]


def test_the_interval_of_doubt_is_open():
    prob = row(0.2, 0.25, 0.5, 0.7, 0.75)
    image = torch.zeros_like(prob)
    assert uncertainty_weights(prob, image, None).tolist() == [[[1, 0, 0, 1, 1]]]
    found = uncertainty_weights(prob, image, None, t0=0.5, t1=0.5)
    assert found.tolist() == [[[1, 1, 1, 1, 1]]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(4, 5), (3, 3, 3)]))
def test_precedence_and_the_opposite_label_alone(seed, size):
    gen = torch.Generator().manual_seed(seed)
    prob, image = (torch.rand(2, 1, *size, generator=gen) for _ in range(2))
    scribbles = torch.randint(0, 6, (2, *size), generator=gen)
    scribbles[scribbles > 1] = NONE
    spacing = (torch.rand(len(size), generator=gen) + 0.5).tolist()
    found = uncertainty_weights(prob, image, scribbles, omega=3.0, spacing=spacing)
    distance = scribble_distance(image, scribbles, spacing=spacing)
    for label in (0, 1):
        assert (distance[:, label][scribbles == label] == 0).all()
    for place in itertools.product(range(2), *map(range, size)):
        n, *where = place
        p = float(prob[(n, 0, *where)])
        opposite = 0 if p > 0.5 else 1
        if scribbles[place] != NONE:
            want = 3.0
        elif 0.2 < p < 0.7 or float(distance[(n, opposite, *where)]) < 0.2:
            want = 0.0
        else:
            want = 1.0
        assert float(found[place]) == want
    kept = uncertainty_weights(prob, image, scribbles, omega=3.0, distance=distance)
    assert torch.equal(kept, found)


def test_merged_scribbles():
    a = torch.tensor([[True, False, False, True]])
    b = torch.tensor([[False, True, False, False]])
    assert merge_scribbles(a, b).tolist() == [[1, 0, NONE, 1]]
    b[0, 3] = True
    with pytest.raises(ValueError, match=r"contradict each other at index \[0, 3\]$"):
        merge_scribbles(a, b)
    b[0, 0] = True
    with pytest.raises(ValueError, match=r"\[0, 0\] and at 1 more"):
        merge_scribbles(a, b)
    with pytest.raises(ValueError, match="one shape"):
        merge_scribbles(a, b[:, :2])
    with pytest.raises(TypeError, match="background_seeds must be a bool"):
        merge_scribbles(a, b.long())


IMAGE, PROB, SCRIBBLES = torch.zeros(1, 1, 3, 4), torch.full((1, 1, 3, 4), 0.5), None
MARKED = torch.full((1, 3, 4), NONE)


def nan_at(x, *place):
    x = x.clone()
    x[(0, 0, *place)] = math.nan
    return x


SHARED = [
    ({"image": nan_at(IMAGE, 2, 1)}, ValueError, r"image must be finite.*\[0, 0, 2, 1\]"),
    ({"prob": nan_at(PROB, 1, 0)}, ValueError, r"prob must be finite.*\[0, 0, 1, 0\]"),
    ({"prob": PROB + 1}, ValueError, r"prob must be in \[0, 1\], got 1.5"),
    ({"prob": PROB[..., 1:]}, ValueError, "one shape"),
    ({"prob": PROB[..., :0], "image": IMAGE[..., :0]}, ValueError, "at least one pixel"),
    ({"prob": PROB[0], "image": IMAGE[0]}, ValueError, "1"),
    ({"image": IMAGE.long()}, TypeError, "image.*floating"),
    ({"scribbles": MARKED[..., 1:]}, ValueError, "scribbles must have the shape"),
    ({"scribbles": MARKED.double()}, TypeError, "scribbles must be an integer"),
    ({"scribbles": MARKED == 1}, TypeError, "scribbles must be an integer"),
    ({"scribbles": MARKED.clone().fill_(2)}, ValueError, r"got 2 at index \[0, 0, 0\]"),
]


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        *SHARED,
        ({"lam": -1.0}, ValueError, "lam"),
        ({"lam": math.nan}, ValueError, "lam"),
        ({"sigma": 0.0}, ValueError, "sigma must be positive"),
        ({"spacing": (1.0, -1.0)}, ValueError, "spacing must be 2 positive"),
        ({"connectivity": 6}, ValueError, "connectivity"),
    ],
)
def test_crf_graphcut_refuses(change, error, match):
    with pytest.raises(error, match=match):
        crf_graphcut(**{"prob": PROB, "image": IMAGE, "lam": 1.0, "sigma": 0.1} | change)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        *SHARED,
        ({"t0": 0.8}, ValueError, "t1"),
        ({"t0": -0.1}, ValueError, "t0"),
        ({"t1": 1.1}, ValueError, "t1"),
        ({"eps": -0.1}, ValueError, "eps"),
        ({"omega": -1.0}, ValueError, "omega"),
        ({"omega": math.inf}, ValueError, "omega"),
        ({"spacing": (0.0, 1.0)}, ValueError, "spacing must be 2 positive"),
        ({"distance": torch.zeros(1, 1, 3, 4)}, ValueError, "distance must have the shape"),
    ],
)
def test_uncertainty_weights_refuse(change, error, match):
    with pytest.raises(error, match=match):
        uncertainty_weights(**{"prob": PROB, "image": IMAGE, "scribbles": MARKED} | change)
