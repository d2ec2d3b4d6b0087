"""The classical interactive methods: models of intensity from seeds, and the same cut.

Both put P(object | intensity) in the place of the network's P in the energy of `interactive`, so
that they differ from it in that probability alone (chapter `bifseg-interactive`). Where object and
background have the same intensities no such model can tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medseg_core import checks
from medseg_core.papers.bifseg_interactive.interactive import NONE, crf_graphcut, crf_unary
from medseg_core.rng import numpy_rng
from medseg_core.solvers.graphcut import GridCut, contrast_weights
from medseg_core.solvers.grid_checks import checked_connectivity, checked_image, checked_scribbles

MOST_SAMPLES = 20_000  # of a mixture's fit


def boykov_jolly(
    image: Tensor,
    scribbles: Tensor,
    *,
    lam: float,
    sigma: float,
    bins: int = 32,
    smoothing: float = 1.0,
    floor: float = 0.05,
    box: Tensor | None = None,
    rim: int = 1,
    spacing: Sequence[float] | None = None,
    connectivity: int | None = None,
) -> Tensor:
    """Graph cut with the seeds' intensity histograms (Boykov and Jolly 2001): labels ``(N,*S)``.

    Args:
        image: ``(N,1,*S)``.
        scribbles: ``(N,*S)``: 1 object, 0 background, 255 none; seeds and hard constraints.
        bins, smoothing, floor: of `histogram_prob`.
        box: ``(N,2·ndim)`` half-open boxes (r0,c0,r1,c1) or (z0,r0,c0,z1,r1,c1) round the object;
            what lies outside is background, as if scribbled. None: no box.
        rim: without a box the image is a crop round the object, and so many of its outermost
            pixels are samples of the background, but no constraint; 0: none.
        lam, sigma, spacing, connectivity: as in `crf_graphcut`.

    Raises:
        ValueError: as `crf_graphcut`; an empty box, or an object's scribble outside it.
    """
    known = _known(image, scribbles, box)
    prob = histogram_prob(
        image,
        known.where(known != NONE, _rim(known, rim if box is None else 0)),
        bins=bins,
        smoothing=smoothing,
        floor=floor,
    )
    cut = {"lam": lam, "sigma": sigma, "spacing": spacing, "connectivity": connectivity}
    return crf_graphcut(prob, image, scribbles=known, **cut)


def histogram_prob(
    image: Tensor, samples: Tensor, *, bins: int = 32, smoothing: float = 1.0, floor: float = 0.05
) -> Tensor:
    """P(object | intensity) of labelled samples by histograms, both labels equally likely before.

        P = h₁ / (h₀ + h₁),   h = (1 − floor) · (smoothed, normalised histogram) + floor / bins

    A label without samples takes those pixels that are unknown in their place: what is not a sample
    of the background holds the object, among other things.

    Args:
        image: ``(N,1,*S)``.
        samples: ``(N,*S)``: 1 object, 0 background, 255 unknown.
        bins: ≥ 1, of equal width from the image's least to its largest value.
        smoothing: standard deviation in bins of the Gaussian that smooths the histograms, ≥ 0.
        floor: share of the uniform distribution, in (0,1]: no intensity is impossible.

    Returns:
        ``(N,1,*S)`` in the image's dtype.
    """
    from scipy.ndimage import gaussian_filter1d

    checked_image(image, "image")
    checked_scribbles(samples, image, "samples")
    checks.between(bins, "bins", 1, None)
    checks.between(checks.finite(smoothing, "smoothing"), "smoothing", 0, None)
    checks.between(floor, "floor", np.nextafter(0, 1), 1)
    prob = torch.empty_like(image)
    for out, one, label in zip(prob, image.detach(), samples, strict=True):
        low, high = one.min(), one.max()
        width = (high - low).clamp_min(torch.finfo(one.dtype).tiny)
        index = ((one[0] - low) / width * bins).long().clamp_max(bins - 1)  # (*S)
        heights = []
        for which in (0, 1):
            chosen = label == which if bool((label == which).any()) else label == NONE
            count = torch.bincount(index[chosen], minlength=bins).cpu().double().numpy()
            count = count if count.sum() else np.ones(bins)
            # A Gaussian narrower than 1/8 of a bin stays inside it.
            share = gaussian_filter1d(count, smoothing) if smoothing >= 0.125 else count
            heights.append((1 - floor) * share / share.sum() + floor / bins)
        posterior = heights[1] / (heights[0] + heights[1])
        out[0] = torch.from_numpy(posterior).to(one)[index]
    return prob


def grabcut(
    image: Tensor,
    scribbles: Tensor | None = None,
    *,
    lam: float,
    sigma: float,
    n_components: int = 5,
    n_iter: int = 5,
    box: Tensor | None = None,
    rim: int = 1,
    spacing: Sequence[float] | None = None,
    connectivity: int | None = None,
) -> Tensor:
    """Gaussian mixtures of both labels and the cut by turns (Rother et al. 2004): ``(N,*S)``.

    The first models take everything inside the box for the object, further ones the labels of the
    last cut, until no label changes. Unlike the publication, which gives each pixel one component,
    a mixture is fitted by expectation and maximisation, to at most 20 000 pixels of a label.

    Args:
        image, scribbles, box, lam, sigma, spacing, connectivity: as in `boykov_jolly`; scribbles
            may be None.
        n_components: Gaussians per label; fewer where a label has fewer intensities.
        n_iter: at most so many fits and cuts, ≥ 1.
        rim: without a box, so many of the outermost pixels start as background, but may change.

    Returns:
        ``(N,*S)`` int64. A label that lost its last pixel ends the turns.

    Raises:
        ValueError: as `boykov_jolly`; no background to start from.
    """
    checks.between(n_components, "n_components", 1, None)
    checks.between(n_iter, "n_iter", 1, None)
    size = checked_image(image, "image")
    if scribbles is None:
        scribbles = torch.full((len(image), *size), NONE, device=image.device)
    known = _known(image, scribbles, box)
    start = known.where(known != NONE, _rim(known, rim if box is None else 0))
    labels = (start != 0).long()  # what is not known to be background
    if not bool((labels == 0).flatten(1).any(1).all()):
        raise ValueError("box, scribbles and rim must leave some background to start from")
    neighbours = checked_connectivity(connectivity, len(size), (8, 6))
    links = contrast_weights(image, neighbours, lam=lam, sigma=sigma, spacing=spacing)
    for n, label in enumerate(labels):
        grid = GridCut(size, neighbours)
        for turn in range(n_iter):
            if not 0 < int(label.sum()) < label.numel():
                break
            prob = _mixture_prob(image[n, 0], label, n_components)[None, None]
            unary = crf_unary(prob, known[n : n + 1])[0]
            found = grid.cut(unary, links[n] if turn == 0 else None)[0]
            if torch.equal(found, label):
                break
            label.copy_(found)
    return labels


def _mixture_prob(image: Tensor, label: Tensor, n_components: int) -> Tensor:
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
            min(n_components, len(np.unique(values))),
            reg_covar=max(grey_level**2, 1e-12),
            random_state=0,
        )
        mixture.fit(values[:, None] if len(values) > 1 else np.repeat(values, 2)[:, None])
        scores.append(mixture.score_samples(levels[:, None]))
    odds = torch.from_numpy((scores[1] - scores[0])[inverse].reshape(x.shape))
    return odds.sigmoid().to(image)


def _known(image: Tensor, scribbles: Tensor, box: Tensor | None) -> Tensor:
    """The scribbles, and 0 outside the box."""
    size = checked_image(image, "image")
    checked_scribbles(scribbles, image)
    if box is None:
        return scribbles.long()
    checks.shape(box, "box", f"N {2 * len(size)}", N=len(image))
    known = torch.zeros_like(scribbles, dtype=torch.int64)
    for n, corners in enumerate(box.tolist()):
        low, high = corners[: len(size)], corners[len(size) :]
        place = tuple(
            slice(max(0, round(a)), max(0, round(b))) for a, b in zip(low, high, strict=True)
        )
        known[n][place] = NONE
        if not bool((known[n] == NONE).any()):
            raise ValueError(f"box {n} holds no pixel of the image {tuple(size)}, got {corners}")
    outside = (known == 0) & (scribbles == 1)
    if bool(outside.any()):
        where = [int(i) for i in outside.nonzero()[0]]
        raise ValueError(f"scribbles must mark no object outside the box, got one at index {where}")
    return scribbles.long().where(scribbles != NONE, known)


def _rim(like: Tensor, width: int) -> Tensor:
    """0 on the `width` outermost pixels, 255 within."""
    checks.between(width, "rim", 0, None)
    rim = torch.zeros_like(like)
    within = tuple(slice(width, max(width, s - width)) for s in like.shape[1:])
    rim[(slice(None), *within)] = NONE
    return rim
