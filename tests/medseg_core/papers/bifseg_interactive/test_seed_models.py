"""Oracles: histograms by hand; scenes that intensity does, or does not, tell apart."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.papers.bifseg_interactive.crf import Cut
from medseg_core.papers.bifseg_interactive.seed_models import boykov_jolly, grabcut, histogram_prob

NONE = 255
CUT = Cut(1.0, 0.1)


def turns(image, scribbles, cut=CUT, n_iter=5):
    return grabcut(image, scribbles, cut, n_iter=n_iter)


def scene(object_=0.7, rest=0.3, noise=0.08, seed=0, size=(24, 28)):
    """A disc on even ground: image (1,1,H,W), truth (1,H,W), scribbles in both."""
    gen = torch.Generator().manual_seed(seed)
    axes = [torch.arange(s) - s // 2 for s in size]
    r2 = sum(a.square() for a in torch.meshgrid(*axes, indexing="ij"))
    truth = (r2 < 49)[None]
    image = torch.where(truth, object_, rest) + noise * torch.randn(truth.shape, generator=gen)
    scribbles = torch.full(truth.shape, NONE)
    middle = tuple(s // 2 for s in size[:-1])
    scribbles[(0, *middle, slice(size[-1] // 2 - 4, size[-1] // 2 + 4))] = 1
    scribbles[(0, *(2 for _ in middle), slice(2, 20))] = 0
    return image.clamp(0, 1)[None], truth, scribbles


def dice(a, b):
    a, b = a.bool(), b.bool()
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def posterior(counts):
    """P(object) per bin, from the counts of both labels: smoothed by hand, 5 % uniform."""
    kernel = np.exp(-(np.arange(-4, 5) ** 2) / 2)
    shares = []
    for count in counts:
        smooth = np.convolve(np.pad(count, 4, mode="symmetric"), kernel, mode="valid")
        shares.append(0.95 * smooth / smooth.sum() + 0.05 / 32)
    return shares[1] / (shares[0] + shares[1])


def bins(*chosen):
    count = np.zeros(32)
    np.add.at(count, list(chosen), 1)
    return count


def test_histograms_by_hand():
    image = torch.tensor([[[[0.0, 0.1, 0.6, 0.9, 1.0]]]], dtype=torch.float64)
    places = [0, 3, 19, 28, 31]  # of 32 bins from 0 to 1

    def found(*samples):
        prob = histogram_prob(image, torch.tensor([[samples]]))
        return prob[0, 0, 0].numpy()

    want = posterior([bins(0, 3, 28), bins(19)])[places]
    np.testing.assert_allclose(found(0, 0, 1, 0, NONE), want)
    # No samples of the object: the unknown pixels.
    want = posterior([bins(0, 28), bins(3, 19, 31)])[places]
    np.testing.assert_allclose(found(0, NONE, NONE, 0, NONE), want)
    # Nor any unknown pixel: the uniform histogram.
    want = posterior([bins(*places), np.ones(32)])[places]
    np.testing.assert_allclose(found(0, 0, 0, 0, 0), want)
    assert (found(NONE, NONE, NONE, NONE, NONE) == 0.5).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_histogram_probabilities_mirror_and_stay_inside(seed):
    gen = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 1, 4, 5, generator=gen, dtype=torch.float64)
    image[1] = 0.25  # one intensity only
    samples = torch.tensor([0, 1, NONE])[torch.randint(0, 3, (2, 4, 5), generator=gen)]
    found = histogram_prob(image, samples)
    assert ((found > 0) & (found < 1)).all()
    turned = torch.where(samples == NONE, NONE, 1 - samples)
    torch.testing.assert_close(histogram_prob(image, turned), 1 - found)
    shifted = histogram_prob(4 * image + 1, samples)
    assert (shifted[0] - found[0]).abs().median() < 1e-9  # a value on a bin's edge may change bins
    torch.testing.assert_close(found[1], torch.full_like(found[1], 0.5))


@pytest.mark.parametrize("size", [(24, 28), (20, 20, 20)])
def test_different_intensities_are_told_apart(size):
    image, truth, scribbles = scene(size=size)
    assert dice(boykov_jolly(image, scribbles, CUT), truth) > 0.95
    assert dice(turns(image, scribbles), truth) > 0.95
    assert dice(turns(image, torch.full_like(scribbles, NONE)), truth) > 0.95


def test_equal_intensities_are_not():
    """What the deck shows of these methods: the reason for a network."""
    image, truth, scribbles = scene(object_=0.5, rest=0.5)
    for found in (boykov_jolly(image, scribbles, CUT), turns(image, scribbles)):
        assert dice(found, truth) < 0.8
        assert (found == scribbles)[scribbles != NONE].all()


def test_scribbles_of_one_label_and_the_rim():
    image, truth, scribbles = scene()
    for label in (0, 1):  # of one label only: the unknown pixels stand for the other
        one = scribbles.where(scribbles == label, torch.tensor(NONE))
        assert dice(boykov_jolly(image, one, CUT), truth) > 0.95
    # The rim is a sample and no constraint: an object may reach the edge of its crop.
    image, truth, scribbles = (x[..., 8:, :] for x in scene())
    found = boykov_jolly(image, scribbles, CUT)
    assert dice(found, truth) > 0.9 and dice(found[:, 0], truth[:, 0]) > 0.9
    # Without a scribble it is the only sample of the background.
    image, truth, scribbles = scene()
    assert dice(boykov_jolly(image, torch.full_like(scribbles, NONE), CUT), truth) > 0.95


def test_a_batch_is_its_images_and_the_same_again():
    scenes = [scene(seed=s, noise=0.2) for s in range(2)]
    image, _, scribbles = (torch.cat(parts) for parts in zip(*scenes, strict=True))
    for method in (boykov_jolly, turns):
        whole = method(image, scribbles, CUT)
        assert whole.dtype == torch.int64 and whole.shape == scribbles.shape
        for n in range(2):
            one = slice(n, n + 1)
            assert torch.equal(whole[one], method(image[one], scribbles[one], CUT))


def test_grabcut_of_an_even_image_and_of_few_pixels():
    even, nothing = torch.full((1, 1, 6, 6), 0.5), torch.full((1, 6, 6), NONE)
    assert set(turns(even, nothing).unique().tolist()) <= {0, 1}
    tiny = torch.full((1, 1, 3, 3), 0.1)
    tiny[..., 1, 1] = 0.9
    assert turns(tiny, nothing[:, :3, :3]).tolist() == [[[0, 0, 0], [0, 1, 0], [0, 0, 0]]]


def test_grabcut_turns_until_no_label_changes():
    image, truth, scribbles = scene(noise=0.15)
    nothing = torch.full_like(scribbles, NONE)
    one, many, more = (turns(image, nothing, n_iter=n) for n in (1, 30, 31))
    assert not torch.equal(one, many) and torch.equal(many, more)
    assert min(dice(one, truth), dice(many, truth)) > 0.8


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"image": torch.zeros(1, 1, 0, 4)}, ValueError, "at least one pixel"),
        ({"image": torch.full((1, 1, 3, 4), math.nan)}, ValueError, "image must be finite"),
        ({"scribbles": torch.full((1, 3, 4), 3)}, ValueError, "scribbles must be 1"),
        ({"scribbles": torch.full((1, 3, 5), NONE)}, ValueError, "scribbles must have the shape"),
        ({"cut": Cut(-1.0, 0.1)}, ValueError, "lam"),
        ({"cut": Cut(1.0, 0.0)}, ValueError, "sigma"),
    ],
)
@pytest.mark.parametrize("method", [boykov_jolly, turns])
def test_refuses(method, change, error, match):
    scribbles = torch.full((1, 3, 4), NONE)
    scribbles[0, 0, 0] = 1
    arguments = {"image": torch.rand(1, 1, 3, 4), "scribbles": scribbles, "cut": CUT} | change
    with pytest.raises(error, match=match):
        method(**arguments)


def test_grabcut_needs_a_turn_and_some_background():
    image, scribbles = torch.rand(1, 1, 3, 4), torch.full((1, 3, 4), 1)
    with pytest.raises(ValueError, match="n_iter"):
        turns(image, scribbles, n_iter=0)
    with pytest.raises(ValueError, match="leave some background"):
        turns(image, scribbles)
