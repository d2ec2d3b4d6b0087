"""Oracles: every labelling of a tiny image, written out by hand."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.papers.bifseg_interactive.crf import Cut, crf_graphcut, crf_links, crf_unary

NONE = 255


def row(*values, dtype=torch.float64):
    return torch.tensor([[[values]]], dtype=dtype)  # (1,1,1,W)


def marks(*values):
    return torch.tensor([[values]])  # (1,1,W)


def energy(labels, prob, image, lam, sigma, full):
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
                contrast = math.exp(-(float(image[i] - image[j]) ** 2) / (2 * sigma**2))
                total += lam * contrast / math.hypot(*step)
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
    rest = (lam, 0.3, connectivity in (8, 26))
    every = []
    for bits in itertools.product((0, 1), repeat=math.prod(size)):
        y = torch.tensor(bits).reshape(size)
        if (y == scribbles[0])[scribbles[0] != NONE].all():
            every.append((energy(y, prob[0, 0], image[0, 0], *rest), y))
    found = crf_graphcut(prob, image, Cut(lam, 0.3, connectivity), scribbles)
    assert found.shape == (1, *size) and found.dtype == torch.int64
    assert (found == scribbles)[scribbles != NONE].all()
    least = min(e for e, _ in every)
    assert energy(found[0], prob[0, 0], image[0, 0], *rest) == pytest.approx(least, abs=1e-9)


def test_eight_and_six_neighbours_are_the_default():
    gen = torch.Generator().manual_seed(0)
    for size, default in (((6, 6), 8), ((4, 4, 4), 6)):
        prob, image = (torch.rand(1, 1, *size, generator=gen) for _ in range(2))
        want = crf_graphcut(prob, image, Cut(0.4, 0.5, default))
        assert torch.equal(crf_graphcut(prob, image, Cut(0.4, 0.5)), want)
        other = {8: 4, 6: 26}[default]
        assert not torch.equal(crf_graphcut(prob, image, Cut(0.4, 0.5, other)), want)


def test_without_boundary_terms_the_cut_is_a_threshold():
    gen = torch.Generator().manual_seed(0)
    prob, image = (torch.rand(2, 1, 7, 9, generator=gen) for _ in range(2))
    assert torch.equal(crf_graphcut(prob, image, Cut(0.0, 0.1)), (prob[:, 0] > 0.5).long())


def test_a_boundary_on_the_edge_of_the_image_is_cheap():
    image = row(0.0, 0.0, 1.0, 1.0, 1.0)
    prob = row(0.05, 0.4, 0.4, 0.6, 0.9)
    assert crf_graphcut(prob, image, Cut(0.0, 0.2)).tolist() == [[[0, 0, 0, 1, 1]]]
    assert crf_graphcut(prob, image, Cut(2.0, 0.2)).tolist() == [[[0, 0, 1, 1, 1]]]


def test_certain_probabilities_do_not_outweigh_scribbles():
    prob = row(0.0, 1.0, 1.0, 1.0, 0.0)
    image = torch.zeros_like(prob)
    scribbles = marks(1, NONE, 0, NONE, NONE)
    # Each pixel wants its certain label; only where the user spoke does another stand.
    found = crf_graphcut(prob, image, Cut(0.1, 0.1), scribbles)
    assert found.tolist() == [[[1, 1, 0, 1, 0]]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 1e6]))
def test_scribbles_are_always_obeyed(seed, lam):
    gen = torch.Generator().manual_seed(seed)
    prob, image = (torch.rand(1, 1, 5, 5, generator=gen) for _ in range(2))
    scribbles = torch.tensor([0, 1, NONE])[torch.randint(0, 3, (1, 5, 5), generator=gen)]
    found = crf_graphcut(prob, image, Cut(lam, 0.1), scribbles)
    assert (found == scribbles)[scribbles != NONE].all()


def test_a_batch_is_its_images():
    gen = torch.Generator().manual_seed(0)
    prob, image = (torch.rand(3, 1, 6, 7, generator=gen) for _ in range(2))
    scribbles = torch.full((3, 6, 7), NONE)
    scribbles[1, 2, 3], scribbles[2, 0, 0] = 1, 0
    whole = crf_graphcut(prob, image, Cut(1.0, 0.2), scribbles)
    for n in range(3):
        one = slice(n, n + 1)
        found = crf_graphcut(prob[one], image[one], Cut(1.0, 0.2), scribbles[one])
        assert torch.equal(found, whole[one])


def test_unary_and_links_by_hand():
    found = crf_unary(row(0.0, 0.25, 1.0, 0.5), marks(NONE, NONE, 0, 1))
    want = [[-math.log1p(-1e-4), -math.log(0.75), -math.log(1e-4), math.inf]]
    want.append([-math.log(1e-4), -math.log(0.25), math.inf, -math.log(0.5)])
    torch.testing.assert_close(found[0, :, 0], torch.tensor(want, dtype=torch.float64))
    links, connectivity = crf_links(row(0.0, 0.0, 0.2), Cut(2.0, 0.1))
    assert connectivity == 8 and links.shape == (1, 4, 1, 3)
    assert links[0, 0, 0].tolist() == pytest.approx([2, 2 * math.exp(-2), 0])
    assert links[0, 1:].abs().sum() == 0  # a single row has no other neighbours


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
        ({"prob": PROB[0], "image": IMAGE[0]}, ValueError, "1"),
        ({"image": IMAGE.long()}, TypeError, "image.*floating"),
        ({"scribbles": MARKED[..., 1:]}, ValueError, "scribbles must have the shape"),
        ({"scribbles": MARKED.double()}, TypeError, "scribbles must be an integer"),
        ({"scribbles": MARKED == 1}, TypeError, "scribbles must be an integer"),
        ({"scribbles": MARKED.clone().fill_(2)}, ValueError, r"got 2 at index \[0, 0, 0\]"),
        ({"cut": Cut(-1.0, 0.1)}, ValueError, "lam"),
        ({"cut": Cut(math.nan, 0.1)}, ValueError, "lam"),
        ({"cut": Cut(1.0, 0.0)}, ValueError, "sigma must be positive"),
        ({"cut": Cut(1.0, 0.1, 6)}, ValueError, "connectivity"),
    ],
)
def test_crf_graphcut_refuses(change, error, match):
    with pytest.raises(error, match=match):
        crf_graphcut(**{"prob": PROB, "image": IMAGE, "cut": Cut(1.0, 0.1)} | change)
