"""Oracles: histograms by hand; scenes that intensity does, or does not, tell apart."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.papers.bifseg_interactive.seed_models import boykov_jolly, grabcut, histogram_prob

NONE = 255
CUT = {"lam": 1.0, "sigma": 0.1}


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


def test_histograms_by_hand():
    image = torch.tensor([[[[0.0, 0.1, 0.6, 0.9, 1.0]]]])
    samples = torch.tensor([[[0, 0, 1, 0, NONE]]])
    # Two bins: background 2/3 and 1/3, object 0 and 1; then 0.8 of them and 0.2 · 1/2 each.
    h0, h1 = [0.8 * 2 / 3 + 0.1, 0.8 / 3 + 0.1], [0.1, 0.9]
    low, high = (b / (a + b) for a, b in zip(h0, h1, strict=True))
    found = histogram_prob(image, samples, bins=2, smoothing=0, floor=0.2)
    torch.testing.assert_close(found, torch.tensor([[[[low, low, high, high, high]]]]))
    # No samples of the object: the unknown pixels, here 1/3 and 2/3.
    samples = torch.tensor([[[0, NONE, NONE, 0, NONE]]])
    h0, h1 = [0.5, 0.5], [0.8 / 3 + 0.1, 0.8 * 2 / 3 + 0.1]
    low, high = (b / (a + b) for a, b in zip(h0, h1, strict=True))
    found = histogram_prob(image, samples, bins=2, smoothing=0, floor=0.2)
    torch.testing.assert_close(found, torch.tensor([[[[low, low, high, high, high]]]]))
    # Nor any unknown pixel: the uniform histogram.
    low, high = (0.5 / (0.5 + h) for h in (0.8 * 2 / 5 + 0.1, 0.8 * 3 / 5 + 0.1))
    found = histogram_prob(image, torch.zeros_like(samples), bins=2, smoothing=0, floor=0.2)
    torch.testing.assert_close(found, torch.tensor([[[[low, low, high, high, high]]]]))
    samples[:] = NONE
    assert (histogram_prob(image, samples) == 0.5).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.floats(0, 5), st.sampled_from([0.01, 0.5, 1]))
def test_histogram_probabilities_mirror_and_stay_inside(seed, bins, smoothing, floor):
    gen = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 1, 4, 5, generator=gen, dtype=torch.float64)
    image[1] = 0.25  # one intensity only
    samples = torch.tensor([0, 1, NONE])[torch.randint(0, 3, (2, 4, 5), generator=gen)]
    rest = {"bins": bins, "smoothing": smoothing, "floor": floor}
    found = histogram_prob(image, samples, **rest)
    assert ((found > 0) & (found < 1)).all()
    turned = torch.where(samples == NONE, NONE, 1 - samples)
    torch.testing.assert_close(histogram_prob(image, turned, **rest), 1 - found)
    shifted = histogram_prob(4 * image + 1, samples, **rest)
    assert (shifted[0] - found[0]).abs().median() < 1e-9  # a value on a bin's edge may change bins
    torch.testing.assert_close(found[1], torch.full_like(found[1], 0.5))


def test_smoothing_reaches_intensities_between_the_samples():
    image = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
    samples = torch.full((1, 8, 8), NONE)
    samples[0, 0, 4], samples[0, 7, 4] = 0, 1
    rough, smooth = (histogram_prob(image, samples, smoothing=s) for s in (0, 3))
    assert rough[0, 0, 7, 7] == 0.5 and smooth[0, 0, 7, 7] > 0.6


@pytest.mark.parametrize("size", [(24, 28), (20, 20, 20)])
def test_different_intensities_are_told_apart(size):
    image, truth, scribbles = scene(size=size)
    assert dice(boykov_jolly(image, scribbles, **CUT), truth) > 0.95
    assert dice(grabcut(image, scribbles, **CUT), truth) > 0.95
    assert dice(grabcut(image, **CUT), truth) > 0.95


def test_equal_intensities_are_not():
    """What the deck shows of these methods: the reason for a network."""
    image, truth, scribbles = scene(object_=0.5, rest=0.5)
    for found in (boykov_jolly(image, scribbles, **CUT), grabcut(image, scribbles, **CUT)):
        assert dice(found, truth) < 0.8
        assert (found == scribbles)[scribbles != NONE].all()


def test_scribbles_of_one_label_and_the_rim():
    image, truth, scribbles = scene()
    for label in (0, 1):  # of one label only: the unknown pixels stand for the other
        one = scribbles.where(scribbles == label, torch.tensor(NONE))
        assert dice(boykov_jolly(image, one, **CUT), truth) > 0.95
    assert dice(boykov_jolly(image, one, rim=0, **CUT), truth) > 0.95
    nothing = torch.full_like(scribbles, NONE)
    assert boykov_jolly(image, nothing, rim=0, **CUT).sum() == 0  # ties: background
    # The rim is a sample and no constraint: an object may reach the edge of its crop.
    image, truth, scribbles = (x[..., 8:, :] for x in scene())
    found = boykov_jolly(image, scribbles, **CUT)
    assert dice(found, truth) > 0.9 and dice(found[:, 0], truth[:, 0]) > 0.9


def test_outside_the_box_is_background():
    image, truth, scribbles = scene()
    image[..., 2:6, 18:26] = 0.7  # as bright as the object, outside the box
    box = torch.tensor([[4, 6, 20, 22]])
    inside = torch.zeros_like(truth)
    inside[:, 4:20, 6:22] = True
    for method in (boykov_jolly, grabcut):
        found = method(image, scribbles, box=box, **CUT)
        assert not found[~inside].any()
        assert dice(found, truth) > 0.95
    # A box may reach over the image's edge.
    wide = torch.tensor([[-3, -3, 99, 99]])
    found = boykov_jolly(image, scribbles, box=wide, **CUT)
    assert torch.equal(found, boykov_jolly(image, scribbles, rim=0, **CUT))


def test_a_batch_is_its_images_and_the_same_again():
    scenes = [scene(seed=s, noise=0.2) for s in range(2)]
    image, _, scribbles = (torch.cat(parts) for parts in zip(*scenes, strict=True))
    for method in (boykov_jolly, grabcut):
        whole = method(image, scribbles, **CUT)
        assert whole.dtype == torch.int64 and whole.shape == scribbles.shape
        for n in range(2):
            one = slice(n, n + 1)
            assert torch.equal(whole[one], method(image[one], scribbles[one], **CUT))


def test_grabcut_of_an_even_image_and_of_few_pixels():
    even = torch.full((1, 1, 6, 6), 0.5)
    assert set(grabcut(even, **CUT).unique().tolist()) <= {0, 1}
    tiny = torch.tensor([[[[0.1, 0.9, 0.1]]]])
    box = torch.tensor([[0, 1, 1, 2]])
    assert grabcut(tiny, box=box, **CUT).tolist() == [[[0, 1, 0]]]


def test_grabcut_turns_until_no_label_changes():
    image, truth, _ = scene(noise=0.15)
    one, many, more = (grabcut(image, n_iter=n, n_components=2, **CUT) for n in (1, 20, 21))
    assert not torch.equal(one, many) and torch.equal(many, more)
    assert min(dice(one, truth), dice(many, truth)) > 0.8


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"image": torch.zeros(1, 1, 0, 4)}, ValueError, "at least one pixel"),
        ({"image": torch.full((1, 1, 3, 4), math.nan)}, ValueError, "image must be finite"),
        ({"scribbles": torch.full((1, 3, 4), 3)}, ValueError, "scribbles must be 1"),
        ({"scribbles": torch.full((1, 3, 5), NONE)}, ValueError, "scribbles must have the shape"),
        ({"box": torch.tensor([[1, 1, 1, 3]])}, ValueError, "box 0 holds no pixel"),
        ({"box": torch.tensor([[0, 9, 3, 12]])}, ValueError, "box 0 holds no pixel"),
        ({"box": torch.tensor([[-5, 0, -1, 4]])}, ValueError, "box 0 holds no pixel"),
        ({"box": torch.tensor([[0, 0, 3]])}, ValueError, "box must have the shape"),
        ({"box": torch.tensor([[1, 0, 3, 4]])}, ValueError, r"outside the box.*\[0, 0, 0\]"),
        ({"lam": -1.0}, ValueError, "lam"),
        ({"sigma": 0.0}, ValueError, "sigma"),
        ({"spacing": (0.0, 1.0)}, ValueError, "spacing"),
        ({"rim": -1}, ValueError, "rim"),
    ],
)
@pytest.mark.parametrize("method", [boykov_jolly, grabcut])
def test_refuses(method, change, error, match):
    scribbles = torch.full((1, 3, 4), NONE)
    scribbles[0, 0, 0] = 1
    arguments = {"image": torch.rand(1, 1, 3, 4), "scribbles": scribbles} | CUT | change
    with pytest.raises(error, match=match):
        method(**arguments)


def test_refuses_settings():
    image, scribbles = torch.rand(1, 1, 3, 4), torch.full((1, 3, 4), NONE)
    for bad in ({"bins": 0}, {"smoothing": -1.0}, {"floor": 0.0}, {"floor": 1.5}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            boykov_jolly(image, scribbles, **CUT, **bad)
    for bad in ({"n_components": 0}, {"n_iter": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            grabcut(image, **CUT, **bad)
    with pytest.raises(ValueError, match="leave some background"):
        grabcut(image, rim=0, **CUT)
