"""Oracles: weight maps worked out by hand, and pixel by pixel."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.papers.bifseg_interactive.weight_map import (
    Doubt,
    scribble_distance,
    uncertainty_weights,
)

NONE = 255


def row(*values, dtype=torch.float64):
    return torch.tensor([[[values]]], dtype=dtype)  # (1,1,1,W)


def marks(*values):
    return torch.tensor([[values]])  # (1,1,W)


def test_weight_map_of_one_row_by_hand():
    image = row(0.0, 0.1, 0.5, 0.55, 0.6)
    prob = row(0.9, 0.8, 0.6, 0.1, 0.05)

    def weights(*scribbles, **doubt):
        return uncertainty_weights(prob, image, marks(*scribbles), Doubt(**doubt)).tolist()

    # Only 0.6 lies in (0.2, 0.7).
    assert weights(NONE, NONE, NONE, NONE, NONE) == [[[1, 1, 0, 1, 1]]]
    assert uncertainty_weights(prob, image, None).tolist() == [[[1, 1, 0, 1, 1]]]
    # Background scribbled on the left: its neighbour, 0.1 away, is called object: in doubt.
    assert weights(0, NONE, NONE, NONE, NONE) == [[[5, 0, 0, 1, 1]]]
    # Object scribbled there: the same neighbour is confirmed. Background is too far away, 0.55.
    assert weights(1, NONE, NONE, NONE, NONE) == [[[5, 1, 0, 1, 1]]]
    assert weights(1, NONE, NONE, NONE, NONE, eps=0.58) == [[[5, 1, 0, 0, 1]]]
    # Object scribbled on the right, where the network says background: 0.05 and 0.1 away.
    assert weights(NONE, NONE, NONE, NONE, 1, omega=7.5) == [[[1, 1, 0, 0, 7.5]]]
    # The scribble comes first, also where the network is in doubt.
    assert weights(NONE, NONE, 1, NONE, NONE) == [[[1, 1, 5, 0, 0]]]
    assert weights(NONE, NONE, 0, 1, NONE) == [[[1, 1, 5, 5, 0]]]  # side by side: both stay
    assert weights(NONE, NONE, 0, 1, NONE, eps=0.0) == [[[1, 1, 5, 5, 1]]]


def test_the_interval_of_doubt_is_open():
    prob = row(0.2, 0.25, 0.5, 0.7, 0.75)
    image = torch.zeros_like(prob)
    assert uncertainty_weights(prob, image, None).tolist() == [[[1, 0, 0, 1, 1]]]
    found = uncertainty_weights(prob, image, None, Doubt(t0=0.5, t1=0.5))
    assert found.tolist() == [[[1, 1, 1, 1, 1]]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(4, 5), (3, 3, 3)]))
def test_precedence_and_the_opposite_label_alone(seed, size):
    gen = torch.Generator().manual_seed(seed)
    prob, image = (torch.rand(2, 1, *size, generator=gen) for _ in range(2))
    scribbles = torch.randint(0, 6, (2, *size), generator=gen)
    scribbles[scribbles > 1] = NONE
    doubt = Doubt(omega=3.0)
    found = uncertainty_weights(prob, image, scribbles, doubt)
    distance = scribble_distance(image, scribbles, math.inf)
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
    kept = uncertainty_weights(prob, image, scribbles, doubt, distance=distance)
    assert torch.equal(kept, found)


IMAGE, PROB = torch.zeros(1, 1, 3, 4), torch.full((1, 1, 3, 4), 0.5)
MARKED = torch.full((1, 3, 4), NONE)


def nan_at(x, *place):
    x = x.clone()
    x[(0, 0, *place)] = math.nan
    return x


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"image": nan_at(IMAGE, 2, 1)}, ValueError, r"image must be finite.*\[0, 0, 2, 1\]"),
        ({"prob": nan_at(PROB, 1, 0)}, ValueError, r"prob must be finite.*\[0, 0, 1, 0\]"),
        ({"prob": PROB + 1}, ValueError, r"prob must be in \[0, 1\], got 1.5"),
        ({"prob": PROB[..., 1:]}, ValueError, "one shape"),
        ({"prob": PROB[..., :0], "image": IMAGE[..., :0]}, ValueError, "at least one pixel"),
        ({"image": IMAGE.long()}, TypeError, "image.*floating"),
        ({"scribbles": MARKED[..., 1:]}, ValueError, "scribbles must have the shape"),
        ({"scribbles": MARKED.double()}, TypeError, "scribbles must be an integer"),
        ({"scribbles": MARKED.clone().fill_(2)}, ValueError, r"got 2 at index \[0, 0, 0\]"),
        ({"distance": torch.zeros(1, 1, 3, 4)}, ValueError, "distance must have the shape"),
    ],
)
def test_uncertainty_weights_refuse(change, error, match):
    with pytest.raises(error, match=match):
        uncertainty_weights(**{"prob": PROB, "image": IMAGE, "scribbles": MARKED} | change)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"t0": 0.8}, "t1"),
        ({"t0": -0.1}, "t0"),
        ({"t1": 1.1}, "t1"),
        ({"eps": -0.1}, "eps"),
        ({"omega": -1.0}, "omega"),
        ({"omega": math.inf}, "omega"),
    ],
)
def test_doubt_refuses(bad, match):
    with pytest.raises(ValueError, match=match):
        Doubt(**bad)
