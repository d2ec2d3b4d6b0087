"""Oracles: enumeration of all labellings of small grids, and the energy written once more."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from medseg_core.papers.max_margin_crf.crf import MaxMarginCRF
from medseg_core.papers.max_margin_crf.cutting_planes import Programme, algorithm_1
from medseg_core.papers.max_margin_crf.qp import optimality

H, W = 3, 4
EVERY = np.array(list(itertools.product((0, 1), repeat=H * W))).reshape(-1, H, W)


def problem(seed, n=2, size=(H, W), noise=1.0, channels=1):
    """Images, blob-like truths, and logits that follow them with noise."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[: size[0], : size[1]]
    angle, level = rng.uniform(0, 2 * np.pi, (n, 1, 1)), rng.uniform(-0.8, 0.8, (n, 1, 1))
    yy, xx = yy - (size[0] - 1) / 2, xx - (size[1] - 1) / 2
    target = np.cos(angle) * yy + np.sin(angle) * xx > level
    image = target[:, None] + 0.5 * rng.normal(size=(n, channels, *size))
    logits = (2 * target - 1) * 0.7 + noise * rng.normal(size=target.shape)
    return (
        torch.from_numpy(image),
        torch.from_numpy(target).long(),
        torch.from_numpy(logits)[:, None],
    )


def pairs(image, connectivity):
    """The neighbours of an image (C,H,W) as (p, q, 1/distance, e) in a plain loop."""
    h, w = image.shape[1:]
    steps = [(0, 1), (1, 0)] + ([(1, 1), (1, -1)] if connectivity == 8 else [])
    found = []
    for y, x, (dy, dx) in itertools.product(range(h), range(w), steps):
        if 0 <= y + dy < h and 0 <= x + dx < w:
            change = float(((image[:, y, x] - image[:, y + dy, x + dx]) ** 2).sum())
            found.append(((y, x), (y + dy, x + dx), 1 / math.hypot(dy, dx), change))
    mean = np.mean([change for *_, change in found])
    return [(p, q, near, math.exp(-change / (2 * mean))) for p, q, near, change in found]


def energies(labels, image, logits, w, connectivity=4):
    """E of labels (M,H,W) for one image, from the probabilities."""
    z = 1 / (1 + np.exp(-logits))
    total = -w[0] * np.where(labels == 1, np.log(z), np.log(1 - z)).sum((1, 2))
    for p, q, near, e in pairs(image, connectivity):
        differ = labels[:, p[0], p[1]] != labels[:, q[0], q[1]]
        total = total + differ * (w[1] + w[2] * e) * near
    return total


def violations(fit, image, target, logits, connectivity=4):
    """How far every labelling of every image breaks its row, (N,2^P)."""
    w, result = fit.w.numpy(), []
    for x, y, a, xi in zip(image, target, logits[:, 0], fit.xi, strict=True):
        e = energies(EVERY, x.numpy(), a.numpy(), w, connectivity)
        truth = energies(y.numpy()[None], x.numpy(), a.numpy(), w, connectivity)
        delta = (y.numpy() != EVERY).sum((1, 2))
        result.append(delta - (e - truth) - float(xi))
    return np.array(result)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_energy_rows_and_cuts_are_those_of_enumeration(connectivity, channels):
    for seed in range(8):
        image, target, logits = problem(seed, n=3, channels=channels)
        crf = MaxMarginCRF.from_images(image, target, connectivity=connectivity)
        rng = np.random.default_rng(seed)
        for w in ((1, 0.1, 0.1), rng.uniform(0, 2, 3), (-0.7, 0.3, 0), (0, 0, 0), (0, 0.4, 1)):
            w = np.array(w, float)
            augmented, plain = crf.most_violated(logits, w), crf.infer(logits, w)
            assert augmented.dtype == plain.dtype == torch.int64
            rows, delta = crf.rows(augmented, logits)
            for n in range(3):
                x, a, y = image[n].numpy(), logits[n, 0].numpy(), target[n].numpy()
                e = energies(EVERY, x, a, w, connectivity)
                wrong = (y != EVERY).sum((1, 2))
                worst, best, truth = (
                    energies(labels[None], x, a, w, connectivity)[0]
                    for labels in (augmented[n].numpy(), plain[n].numpy(), y)
                )
                assert delta[n] == (augmented[n] != target[n]).sum()
                np.testing.assert_allclose(worst - delta[n], (e - wrong).min(), atol=1e-9)
                np.testing.assert_allclose(best, e.min(), atol=1e-9)
                np.testing.assert_allclose(rows[n].numpy() @ w, truth - worst, atol=1e-9)


def test_cuts_at_zero_weights_and_ties():
    image, target, logits = problem(0)
    crf = MaxMarginCRF.from_images(image, target)
    assert torch.equal(crf.most_violated(logits, (0, 0, 0)), 1 - target)
    assert not crf.infer(logits, (0, 0, 0)).any()  # ties: background
    assert not crf.infer(0 * logits, (1, 1, 1)).any()
    assert torch.equal(crf.infer(logits, (1, 0, 0)), (logits[:, 0] > 0).long())
    assert torch.equal(crf.infer(logits, (1, -1e-12, 0)), (logits[:, 0] > 0).long())


def test_contrast_has_no_units_and_may_be_left_out():
    image, target, logits = problem(1, channels=3)
    a = MaxMarginCRF.from_images(image, target)
    b = MaxMarginCRF.from_images(255 * image - 7, target)
    for x, y in zip(a.images, b.images, strict=True):
        np.testing.assert_allclose(x.pairs, y.pairs, atol=1e-12)
    flat = MaxMarginCRF.from_images(torch.full_like(image, 0.3), target)
    pair = flat.images[0].pairs
    np.testing.assert_array_equal(pair[0], pair[1])  # e = 1
    none = MaxMarginCRF.from_images(image, target, contrast=False)
    fit = none.fit(logits, eps=1e-6)
    assert fit.w[2] == 0 and fit.converged
    assert not fit.qp.rows[:, 2].any()


def slsqp(qp):
    n = qp.n_images
    matrix = np.hstack([-qp.rows, np.eye(n)[qp.image]])
    limit = {"type": "ineq", "fun": lambda x: matrix @ x - qp.delta, "jac": lambda x: matrix}
    return minimize(
        lambda x: qp.objective(x[:3], x[3:]),
        np.r_[np.zeros(3), qp.slack(np.zeros(3))],
        jac=lambda x: np.r_[x[:3], np.full(n, qp.price)],
        bounds=[(None, None)] + [(0, None)] * (2 + n),
        constraints=[limit],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )


@pytest.mark.parametrize(("seed", "connectivity"), [(0, 4), (1, 8), (2, 4)])
def test_algorithm_1_is_the_programme_with_every_row(seed, connectivity):
    image, target, logits = problem(seed)
    crf = MaxMarginCRF.from_images(image, target, connectivity=connectivity, C=10)
    fit = crf.fit(logits, eps=1e-6)
    assert fit.w[0] > 0.01 and fit.w[1:].sum() > 0.01  # the programme is not trivial
    full = MaxMarginCRF.from_images(image, target, connectivity=connectivity, C=10)
    for x in full.images:
        for _ in range(2):  # the second time all of them are duplicates
            for y in EVERY.astype(bool):
                x.add(y)
            assert len(x) == 2 ** (H * W) - 1  # all but the truth
    whole = full.solve(logits)
    assert len(whole.multipliers) == 2 * 4095 > 20 * len(fit.multipliers)
    assert fit.gamma == pytest.approx(whole.gamma, rel=1e-7)
    torch.testing.assert_close(fit.w, whole.w, rtol=0, atol=1e-4)
    torch.testing.assert_close(fit.xi, whole.xi, rtol=0, atol=1e-4)
    other = slsqp(whole.qp)
    assert fit.gamma == pytest.approx(other.fun, rel=1e-6)
    np.testing.assert_allclose(fit.w, other.x[:3], atol=1e-4)


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 10**6),
    st.sampled_from([4, 8]),
    st.sampled_from([1.0, 0.1, 1e-4]),
    st.sampled_from([0.3, 1.0, 30.0]),
    st.integers(1, 3),
)
def test_nothing_is_violated_at_the_end(seed, connectivity, eps, C, n):
    image, target, logits = problem(seed, n=n)
    crf = MaxMarginCRF.from_images(image, target, connectivity=connectivity, C=C)
    fit = crf.fit(logits, eps=eps)
    worst = violations(fit, image, target, logits, connectivity).max()
    assert fit.converged and worst <= eps + 1e-9
    assert fit.largest_violation == pytest.approx(max(worst, 0), abs=1e-8)
    errors = optimality(fit.qp, fit.optimum)
    assert errors["complementarity"] <= 1e-6 and errors["negative"] == 0
    assert (fit.multipliers >= 0).all() and (fit.w[1:] >= 0).all() and (fit.xi >= 0).all()
    gammas = [r.gamma for r in fit.trace]
    assert all(b >= a - 1e-9 * max(1, a) for a, b in itertools.pairwise(gammas))
    exact = crf.fit(logits, eps=1e-7)  # goes on from the sets
    assert fit.gamma - 1e-9 <= exact.gamma <= fit.gamma + C * eps + 1e-9


def test_trace_and_rows_tell_what_happened():
    image, target, logits = problem(5, n=3)
    crf = MaxMarginCRF.from_images(image, target, C=10)
    fit = crf.fit(logits, eps=1e-5)
    assert len(fit.trace) == fit.rounds + 1 and not fit.trace[-1].added
    assert fit.largest_violation <= 1e-5
    added = [pair for r in fit.trace for pair in r.added]
    assert len(added) == len(set(added)) == len(fit.multipliers) == sum(map(len, crf.images))
    assert torch.equal(fit.trace[-1].w, fit.w) and fit.trace[-1].gamma == fit.gamma
    assert all(r.seconds_cut > 0 and r.seconds_qp >= 0 for r in fit.trace)
    assert (fit.image.diff() >= 0).all()
    for n in range(3):
        labels = torch.from_numpy(fit.labels(n)).long()
        assert len(np.unique(labels.flatten(1), axis=0)) == len(labels) == (fit.image == n).sum()
        own = torch.from_numpy(fit.qp.rows)[fit.image == n]
        for row, y in zip(own, labels, strict=True):
            every = torch.stack([y] * 3)
            torch.testing.assert_close(crf.rows(every, logits)[0][n], row)
    crf.reset()
    assert not any(map(len, crf.images)) and len(fit.labels(0)) > 0  # the fit keeps its own


def from_weights(w0, image, target, logits, **way):
    """Algorithm 1 from other first weights, and the last of its programme's answers."""
    crf = MaxMarginCRF.from_images(image, target, C=10)
    programme = Programme(crf.images, logits[:, 0].numpy(), crf.C, margin=1.0)
    how = {"eps": 1e-7, "max_rounds": 50, "augment": True, "each_image": False} | way
    return algorithm_1(programme, np.array(w0, float), **how)


def test_every_way_ends_at_one_optimum():
    image, target, logits = problem(7, n=3)
    fits = [
        MaxMarginCRF.from_images(image, target, C=10).fit(logits, eps=1e-7, solve_after=after)
        for after in ("round", "image")
    ]
    fits += [
        from_weights((-3, 0, 0), image, target, logits),
        from_weights((0.01, 5, 5), image, target, logits, each_image=True),
        from_weights((50, 0, 0), image, target, logits),
    ]
    for fit in fits[1:]:
        assert fit.gamma == pytest.approx(fits[0].gamma, rel=1e-7)
        torch.testing.assert_close(fit.w, fits[0].w, rtol=0, atol=1e-4)
    assert fits[1].rounds != fits[0].rounds or fits[1].trace[0].gamma != fits[0].trace[0].gamma


def test_the_first_weights_are_never_the_answer():
    # Under these every truth wins by more than its margin; still γ is that of the programme.
    image, target, _ = problem(0)
    logits = (2.0 * target - 1)[:, None].double() * 9
    fits = [from_weights(w0, image, target, logits) for w0 in ((50, 0, 0), (1, 0.1, 0.1))]
    assert fits[0].gamma == pytest.approx(fits[1].gamma, rel=1e-6) and 0 < fits[0].gamma < 1
    torch.testing.assert_close(fits[0].w, fits[1].w, rtol=0, atol=1e-5)


def test_sets_persist_and_are_shared():
    image, target, logits = problem(8, n=4)
    whole = MaxMarginCRF.from_images(image, target, C=10)
    exact = whole.fit(logits, eps=1e-7)
    again = whole.fit(logits, eps=1e-7)
    assert again.rounds == 0 and again.gamma == pytest.approx(exact.gamma, rel=1e-9)
    # Algorithm 2: batches fill the sets of the whole, which then starts from them
    crf = MaxMarginCRF.from_images(image, target, C=10)
    for batch in ([2, 0], [1, 3]):
        part = crf.subset(batch)
        fit = part.fit(logits[batch], eps=1e-7)
        alone = MaxMarginCRF.from_images(image[batch], target[batch], C=10).fit(
            logits[batch], eps=1e-7
        )
        assert fit.gamma == pytest.approx(alone.gamma, rel=1e-7)
    assert all(map(len, crf.images))
    stale = crf.solve(logits)
    merged = crf.fit(logits, eps=1e-7)
    assert math.isnan(stale.largest_violation) and stale.gamma <= merged.gamma + 1e-9
    assert merged.gamma == pytest.approx(exact.gamma, rel=1e-7)
    crf.subset([1]).reset()
    assert len(crf.images[1]) == 0 < len(crf.images[0])
    with pytest.raises(ValueError, match=r"indices must be in \[0, 3\], got 4"):
        crf.subset([0, 4])
    for bad in ([], [0, 0]):
        with pytest.raises(ValueError, match="indices must name at least one image, and each once"):
            crf.subset(bad)


def test_rows_follow_the_logits():
    image, target, logits = problem(9)
    crf = MaxMarginCRF.from_images(image, target, C=10)
    crf.fit(logits, eps=1e-6)
    moved = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).double()
    stale = crf.solve(moved)
    fresh = MaxMarginCRF.from_images(image, target, C=10).fit(moved, eps=1e-6)
    assert stale.gamma <= fresh.gamma + 1e-6
    assert crf.fit(moved, eps=1e-6).gamma == pytest.approx(fresh.gamma, rel=1e-6)


def test_ablations():
    image, target, logits = problem(3)
    crf = MaxMarginCRF.from_images(image, target, C=10)
    full = crf.fit(logits, eps=1e-6)
    for start in (crf, MaxMarginCRF.from_images(image, target, C=10)):  # with sets and without
        none = start.fit(logits, eps=1e-6, margin=0.0)
        assert not none.w.any() and none.gamma == 0 and none.converged
    empty = MaxMarginCRF.from_images(image, target, C=10)
    plain = empty.fit(logits, eps=1e-6, augment=False)
    assert plain.converged and plain.gamma <= full.gamma + 1e-9
    half = crf.fit(logits, eps=1e-6, margin=0.5)
    assert half.gamma <= full.gamma


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_truth(n, value):
    image, target, logits = problem(4, n=n)
    target = torch.full_like(target, value)
    crf = MaxMarginCRF.from_images(image, target, C=10)
    fit = crf.fit(logits, eps=1e-6)
    assert fit.converged and violations(fit, image, target, logits).max() <= 1e-6
    assert optimality(fit.qp, fit.optimum)["complementarity"] <= 1e-6
    assert torch.equal(crf.infer(0 * logits + 9 * (2 * value - 1), (1, 1, 1)), target)


def test_grids_of_one_row_and_one_pixel():
    for size in ((1, 1), (1, 7), (5, 1)):
        image, target, logits = problem(0, size=size)
        fit = MaxMarginCRF.from_images(image, target, connectivity=8).fit(logits, eps=1e-6)
        assert fit.converged


def test_useless_logits_give_no_or_negative_w1():
    image, target, _ = problem(6)
    against = -(2.0 * target - 1)[:, None]
    assert MaxMarginCRF.from_images(image, target).fit(against, eps=1e-6).w[0] < 0
    assert MaxMarginCRF.from_images(image, target).fit(0 * against, eps=1e-6).w[0] == 0


def test_too_few_rounds_are_told():
    image, target, logits = problem(5)
    crf = MaxMarginCRF.from_images(image, target, C=10)
    with pytest.warns(RuntimeWarning, match="after max_rounds=1 a labelling breaks its row by"):
        fit = crf.fit(logits, eps=1e-3, max_rounds=1)
    assert not fit.converged and fit.rounds == 1 and fit.largest_violation > 1e-3
    worst = violations(fit, image, target, logits).max()
    assert fit.largest_violation == pytest.approx(worst, abs=1e-8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert crf.fit(logits, eps=1e-3).converged


def test_dtypes():
    image, target, logits = problem(2)
    reference = MaxMarginCRF.from_images(image, target).fit(logits.float(), eps=1e-6).gamma
    for y in (target.bool(), target.int(), target.to(torch.uint8)):
        fit = MaxMarginCRF.from_images(image.float(), y).fit(
            logits.float().requires_grad_(), eps=1e-6
        )
        assert fit.gamma == pytest.approx(reference, rel=1e-5)
    assert fit.w.dtype == fit.xi.dtype == fit.multipliers.dtype == torch.float64


def test_bad_input_is_refused_by_name():
    image, target, logits = problem(0)

    def refused(match, call, error=ValueError):
        with pytest.raises(error, match=match):
            call()

    bad = image.clone()
    bad[1, 0, 2, 3] = math.nan
    refused(
        r"image must be finite, got nan at index \[1, 0, 2, 3\]",
        lambda: MaxMarginCRF.from_images(bad, target),
    )
    refused(
        r"image must have the shape \(N C H W\)", lambda: MaxMarginCRF.from_images(image[0], target)
    )
    refused(
        r"target must have the shape \(N H W\)", lambda: MaxMarginCRF.from_images(image, target[:1])
    )
    refused(
        r"target must be in \[0, 1\], got 2", lambda: MaxMarginCRF.from_images(image, 2 * target)
    )
    refused(
        "target must be a tensor of 0 and 1",
        lambda: MaxMarginCRF.from_images(image, target.double()),
        TypeError,
    )
    refused(
        "image must hold at least one pixel",
        lambda: MaxMarginCRF.from_images(image[:0], target[:0]),
    )
    refused(
        "connectivity must be one of 4, 8; got 6",
        lambda: MaxMarginCRF.from_images(image, target, connectivity=6),
    )
    for C in (0, -1, math.inf, math.nan):
        refused(
            f"C must be positive and finite, got {C}",
            lambda C=C: MaxMarginCRF.from_images(image, target, C=C),
        )
    crf = MaxMarginCRF.from_images(image, target)
    wrong = logits.clone()
    wrong[0, 0, 1, 2] = math.inf
    for call in (crf.fit, crf.solve, lambda a: crf.infer(a, (1, 1, 1))):
        refused(r"logits must be finite, got inf at index \[0, 0, 1, 2\]", lambda c=call: c(wrong))
        refused(r"logits must have the shape \(N 1 H W\), N = 2", lambda c=call: c(logits[:1]))
        refused(
            "logits must be a floating-point tensor", lambda c=call: c(target[:, None]), TypeError
        )
    for eps in (0, -1, math.nan):
        refused(f"eps must be positive and finite, got {eps}", lambda e=eps: crf.fit(logits, eps=e))
    refused("max_rounds must be at least 1", lambda: crf.fit(logits, max_rounds=0))
    refused("margin must be at least 0", lambda: crf.fit(logits, margin=-1))
    refused("solve_after must be one of", lambda: crf.fit(logits, solve_after="pixel"))
    refused(r"w must have the shape \(3\)", lambda: crf.infer(logits, (1, 1)))
    refused(r"w\[1:\] \(w2, w3\) must be at least", lambda: crf.infer(logits, (1, -1, 1)))
    refused("w must be finite", lambda: crf.infer(logits, (math.nan, 1, 1)))
    refused(r"labels must have the shape \(N H W\)", lambda: crf.rows(target[0], logits))
    refused(r"labels must be in \[0, 1\]", lambda: crf.rows(3 * target, logits))
