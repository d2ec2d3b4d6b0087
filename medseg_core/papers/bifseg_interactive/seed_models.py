"""The classical interactive methods: models of intensity from seeds, and the same cut.

Both put P(object | intensity) in the place of the network's P in the energy of `crf`, so that they
differ from it in that probability alone. The image is a crop round the object: its outermost pixels
are samples of the background. Where object and background have the same intensities no such model
can tell them apart.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.papers.bifseg_interactive.crf import NONE, Cut, crf_graphcut, crf_links, crf_unary
from medseg_core.rng import numpy_rng
from medseg_core.solvers.grid_checks import checked_image, checked_scribbles
from medseg_core.solvers.grid_cut import GridCut

BINS = 32  # of a histogram
SMOOTHING = 1.0  # standard deviation, in bins, of the Gaussian that smooths it
FLOOR = 0.05  # share of the uniform distribution in it: no intensity is impossible
COMPONENTS = 5  # Gaussians of a mixture; fewer where a label has fewer intensities
MOST_SAMPLES = 20_000  # of a mixture's fit


def boykov_jolly(image: Tensor, scribbles: Tensor, cut: Cut) -> Tensor:
    """Graph cut with the seeds' intensity histograms (Boykov and Jolly 2001): labels ``(N,*S)``.

    Args:
        image: ``(N,1,*S)``.
        scribbles: ``(N,*S)``: 1 object, 0 background, 255 none; seeds and hard constraints. The
            image's outermost pixels are seeds of the background, but no constraint.
        cut: λ, σ and the neighbours of a pixel.

    Raises:
        ValueError, TypeError: as `crf_graphcut`.

    Taught in: bifseg-interactive.
    """
    return crf_graphcut(histogram_prob(image, _with_rim(image, scribbles)), image, cut, scribbles)


def histogram_prob(image: Tensor, samples: Tensor) -> Tensor:
    """P(object | intensity) of labelled samples by histograms, both labels equally likely before.

        P = h₁ / (h₀ + h₁),   h = (1 − floor) · (smoothed, normalised histogram) + floor / bins

    A label without samples takes those pixels that are unknown in their place: what is not a sample
    of the background holds the object, among other things. The bins have equal widths from the
    image's least to its largest value.

    Args:
        image: ``(N,1,*S)``.
        samples: ``(N,*S)``: 1 object, 0 background, 255 unknown.

    Returns:
        ``(N,1,*S)`` in the image's dtype.

    Raises:
        ValueError, TypeError: an image or samples that `crf_graphcut` would not take either.

    Taught in: bifseg-interactive.
    """
    from scipy.ndimage import gaussian_filter1d

    checked_image(image, "image")
    checked_scribbles(samples, image, "samples")
    prob = torch.empty_like(image)
    for out, one, label in zip(prob, image.detach(), samples, strict=True):
        low, high = one.min(), one.max()
        width = (high - low).clamp_min(torch.finfo(one.dtype).tiny)
        index = ((one[0] - low) / width * BINS).long().clamp_max(BINS - 1)  # (*S)
        heights = []
        for which in (0, 1):
            chosen = label == which if bool((label == which).any()) else label == NONE
            count = torch.bincount(index[chosen], minlength=BINS).cpu().double().numpy()
            share = gaussian_filter1d(count if count.sum() else np.ones(BINS), SMOOTHING)
            heights.append((1 - FLOOR) * share / share.sum() + FLOOR / BINS)
        posterior = heights[1] / (heights[0] + heights[1])
        out[0] = torch.from_numpy(posterior).to(one)[index]
    return prob


def grabcut(image: Tensor, scribbles: Tensor, cut: Cut, *, n_iter: int) -> Tensor:
    """Gaussian mixtures of both labels and the cut by turns (Rother et al. 2004): ``(N,*S)``.

    The first models take everything for the object that is neither scribbled background nor an
    outermost pixel, further ones the labels of the last cut, until no label changes. Unlike the
    publication, which gives each pixel one component, a mixture is fitted by expectation and
    maximisation, to at most 20 000 pixels of a label.

    Args:
        image, scribbles, cut: as in `boykov_jolly`.
        n_iter: at most so many fits and cuts, ≥ 1.

    Returns:
        ``(N,*S)`` int64. A label that lost its last pixel ends the turns.

    Raises:
        ValueError, TypeError: as `boykov_jolly`; no background to start from.

    Taught in: bifseg-interactive.
    """
    checks.between(n_iter, "n_iter", 1, None)
    labels = (_with_rim(image, scribbles) != 0).long()  # what is not known to be background
    if not bool((labels == 0).flatten(1).any(1).all()):
        raise ValueError("scribbles must leave some background to start from")
    links, connectivity = crf_links(image, cut)
    for n, label in enumerate(labels):
        grid = GridCut(label.shape, connectivity)
        for turn in range(n_iter):
            if not 0 < int(label.sum()) < label.numel():
                break
            unary = crf_unary(_mixture_prob(image[n, 0], label)[None, None], scribbles[n : n + 1])
            found = grid.cut(unary[0], links[n] if turn == 0 else None)[0]
            if torch.equal(found, label):
                break
            label.copy_(found)
    return labels


def _mixture_prob(image: Tensor, label: Tensor) -> Tensor:
    """P(object | intensity) ``(*S)`` of one image by a Gaussian mixture of each label."""
    from sklearn.mixture import GaussianMixture

    x = image.detach().cpu().double().numpy()
    where = label.cpu().numpy()
    grey_level = np.ptp(x) / 256  # no Gaussian is narrower
    levels, inverse = np.unique(x, return_inverse=True)
    scores = []
    for which in (0, 1):
        values = x[where == which]
        if len(values) > MOST_SAMPLES:
            values = numpy_rng(0, which, "mixture").choice(values, MOST_SAMPLES, replace=False)
        mixture = GaussianMixture(
            min(COMPONENTS, len(np.unique(values))),
            reg_covar=max(grey_level**2, 1e-12),
            random_state=0,
        )
        mixture.fit(values[:, None] if len(values) > 1 else np.repeat(values, 2)[:, None])
        scores.append(mixture.score_samples(levels[:, None]))
    odds = torch.from_numpy((scores[1] - scores[0])[inverse].reshape(x.shape))
    return odds.sigmoid().to(image)


def _with_rim(image: Tensor, scribbles: Tensor) -> Tensor:
    """The scribbles, and the image's outermost pixels as background where there are none."""
    checked_image(image, "image")
    checked_scribbles(scribbles, image)
    rim = torch.zeros_like(scribbles)
    rim[(slice(None), *(slice(1, max(1, n - 1)) for n in image.shape[2:]))] = NONE
    return scribbles.where(scribbles != NONE, rim)
