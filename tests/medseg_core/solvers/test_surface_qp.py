"""Oracles: every active set enumerated, scipy's isotonic regression, scipy's NNLS on the dual."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression, nnls

from medseg_core.solvers.surface_qp import interior_point, ordered_surfaces

METHODS = ("pav", "ipm")


def batch(x, dtype=torch.float64):
    """(N,C) to (1,N,C)."""
    return torch.as_tensor(np.asarray(x), dtype=dtype)[None]


def isotonic(mu, sigma2):
    pairs = zip(mu.T, sigma2.T, strict=True)
    return np.stack([isotonic_regression(y, weights=1 / v).x for y, v in pairs], 1)


def enumerated(mu, sigma2, low, high):
    """One column: each pair free, at its minimum or at its maximum; the best that fits."""
    n, best, least = len(mu), None, np.inf
    for state in itertools.product(range(3), repeat=n - 1):
        gap = np.where(np.array(state) == 1, low, high)
        if any(k == 2 and np.isinf(g) for k, g in zip(state, high, strict=True)):
            continue
        free = np.flatnonzero(np.r_[1, np.array(state) == 0, 1])
        s = np.empty(n)
        for a, b in itertools.pairwise(free):
            place = np.r_[0, gap[a : b - 1].cumsum()]
            s[a:b] = place + np.average(mu[a:b] - place, weights=1 / sigma2[a:b])
        gaps, value = np.diff(s), ((s - mu) ** 2 / sigma2).sum()
        if (gaps >= low - 1e-10).all() and (gaps <= high + 1e-10).all() and value < least:
            best, least = s, value
    return best


def least_distance(mu, sigma2, low, high):
    """One column by Lawson and Hanson's least distance programming, an exact active-set method."""
    n, sd = len(mu), np.sqrt(sigma2)
    difference = np.diff(np.eye(n), axis=0)
    limited = np.isfinite(high)
    g = np.concatenate([difference * sd, (-difference * sd)[limited]])
    h = np.concatenate([low - difference @ mu, (difference @ mu - high)[limited]])
    u, _ = nnls(np.concatenate([g.T, h[None]]), np.r_[np.zeros(n), 1.0], maxiter=500)
    r = np.concatenate([g.T @ u, [h @ u - 1]])
    return mu - sd * r[:n] / r[n]


def random_columns(rng, kind, n, count):
    mu = rng.normal(0, rng.choice([0.1, 3, 40]), (n, count)) + 3 * np.arange(n)[:, None] + 200
    if kind == "ties":
        mu = np.round(mu)
    if kind == "equal":
        mu[:] = mu[:1]
    if kind == "ordered":
        mu.sort(0)
    sigma2 = 10 ** rng.uniform(-3, 3, mu.shape)
    return mu, sigma2


@pytest.mark.parametrize("kind", ["random", "ties", "equal", "ordered"])
@pytest.mark.parametrize("method", METHODS)
def test_ten_thousand_columns_against_scipy(method, kind):
    rng = np.random.default_rng(0)
    for n in range(1, 13):
        mu, sigma2 = random_columns(rng, kind, n, 105)  # 2 × 4 × 12 × 105 columns
        s, info = ordered_surfaces(batch(mu), batch(sigma2), method=method)
        error = np.abs(s[0].numpy() - isotonic(mu, sigma2)).max()
        assert error <= (1e-10 if method == "pav" else 1e-6)
        assert (s.diff(dim=1) >= -1e-6).all() and info.converged.all()
        if kind == "ordered":
            assert torch.equal(s, batch(mu)) and (info.iterations == 0).all()
        single, _ = ordered_surfaces(
            batch(mu, torch.float32), batch(sigma2, torch.float32), method=method
        )
        assert single.dtype == torch.float32
        assert (single.diff(dim=1) >= -1e-3).all()
        np.testing.assert_allclose(single[0], s[0], atol=1e-3)


@pytest.mark.parametrize("method", ["auto", "ipm"])
@pytest.mark.parametrize("kind", ["random", "ties", "equal"])
def test_both_gaps_against_every_active_set(method, kind):
    rng = np.random.default_rng(1)
    for n in range(2, 7):
        mu, sigma2 = random_columns(rng, kind, n, 12)
        low = rng.uniform(0, 2, (n - 1, 12))
        high = low + 10 ** rng.uniform(-3, 1, low.shape)
        if kind == "ties":
            low, high = np.round(low), np.ceil(high)
        high[rng.random(high.shape) < 0.2] = np.inf
        rigid = rng.random(high.shape) < 0.15
        high[rigid] = low[rigid]
        s, info = ordered_surfaces(
            batch(mu), batch(sigma2), min_gap=batch(low), max_gap=batch(high), method=method
        )
        gaps = s.diff(dim=1)[0].numpy()
        assert (gaps >= low - 1e-6).all() and (gaps <= high + 1e-6).all()
        assert info.converged.all()
        for c in range(12):
            best = enumerated(mu[:, c], sigma2[:, c], low[:, c], high[:, c])
            np.testing.assert_allclose(s[0, :, c], best, rtol=0, atol=1e-7)


def test_both_gaps_of_many_surfaces_against_nnls():
    rng = np.random.default_rng(2)
    for n in (9, 12):
        mu = rng.normal(0, 4, (n, 40)) + 3 * np.arange(n)[:, None]
        sigma2 = 10 ** rng.uniform(-1, 1, mu.shape)
        low = rng.uniform(0, 2, (n - 1, 40))
        high = low + rng.uniform(0.5, 4, low.shape)
        s, info = ordered_surfaces(
            batch(mu), batch(sigma2), min_gap=batch(low), max_gap=batch(high)
        )
        assert info.active_min.any() and info.active_max.any()
        for c in range(40):
            exact = least_distance(mu[:, c], sigma2[:, c], low[:, c], high[:, c])
            np.testing.assert_allclose(s[0, :, c], exact, rtol=0, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(0, 10**6), st.floats(0, 3), st.floats(0, 5), st.booleans())
def test_optimality_conditions(n, seed, low, width, closed):
    rng = np.random.default_rng(seed)
    mu, sigma2 = rng.normal(0, 5, (n, 4)) + 2 * np.arange(n)[:, None], rng.uniform(0.5, 9, (n, 4))
    high = low + width if closed else None
    s, info = ordered_surfaces(batch(mu), batch(sigma2), min_gap=low, max_gap=high)
    gaps = s.diff(dim=1)
    assert (gaps >= low - 1e-6).all() and (high is None or (gaps <= high + 1e-6).all())
    assert (info.multipliers_min >= 0).all() and (info.multipliers_max >= 0).all()
    assert (info.multipliers_min[~info.active_min].abs() < 1e-6).all()
    assert (info.multipliers_max[~info.active_max].abs() < 1e-6).all()
    assert info.residual.max() < 1e-8 and info.duality_gap.abs().max() < 1e-6
    force = torch.nn.functional.pad(info.multipliers_min - info.multipliers_max, (0, 0, 1, 1))
    torch.testing.assert_close((s - batch(mu)) / batch(sigma2), -force.diff(dim=1), atol=1e-8,
                               rtol=0)  # fmt: skip
    again, _ = ordered_surfaces(s, batch(sigma2), min_gap=low - 1e-9, max_gap=high)
    torch.testing.assert_close(again, s, rtol=0, atol=1e-6)  # a projection


def test_two_surfaces_by_hand():
    mu, sigma2 = batch([[5.0], [1.0]]), batch([[3.0], [1.0]])
    for method in METHODS:
        s, info = ordered_surfaces(mu, sigma2, method=method)
        assert s[0, :, 0].tolist() == pytest.approx([2, 2])  # the surer one moves less
        assert info.multipliers_min.item() == pytest.approx(1)  # (5 − 2)/3
        assert info.active_min.all() and not info.active_max.any()
        assert info.method == method
        s, _ = ordered_surfaces(mu, sigma2, min_gap=4.0, method=method)
        assert s[0, :, 0].tolist() == pytest.approx([-1, 3])
    s, info = ordered_surfaces(mu.flip(1), sigma2, max_gap=2.0)
    assert s[0, :, 0].tolist() == pytest.approx([2.5, 4.5])
    assert info.multipliers_max.item() == pytest.approx(0.5) and info.method == "ipm"


def problem(n=6, count=5, seed=0):
    """Columns with free, minimum and maximum gaps in play, away from kinks."""
    rng = np.random.default_rng(seed)
    mu = rng.normal(0, 3, (n, count)) + 2 * np.arange(n)[:, None]
    low = rng.uniform(0.1, 0.6, (n - 1, count))
    return [batch(x) for x in (mu, rng.uniform(0.5, 9, mu.shape), low, low + 2.5)]


@pytest.mark.parametrize("method", ["auto", "ipm"])
def test_gradients_in_everything_by_finite_differences_of_another_solver(method):
    parts = [x.requires_grad_() for x in problem(5, 4)]
    mu, sigma2, low, high = parts
    s, info = ordered_surfaces(mu, sigma2, min_gap=low, max_gap=high, method=method)
    assert info.active_min.any() and info.active_max.any()
    target = torch.randn(s.shape, generator=torch.Generator().manual_seed(0), dtype=s.dtype)
    (s * target).sum().backward()
    arrays = [x.detach()[0].numpy() for x in parts]
    for part, array in zip(parts, arrays, strict=True):
        for i, c in itertools.product(*map(range, array.shape)):
            keep, values = array[i, c], []
            for step in (1e-5, -1e-5):
                array[i, c] = keep + step
                s = enumerated(*(a[:, c] for a in arrays))
                values.append((s * target[0, :, c].numpy()).sum())
            array[i, c] = keep
            slope = (values[0] - values[1]) / 2e-5
            np.testing.assert_allclose(part.grad[0, i, c], slope, atol=1e-5)


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_gradcheck(method):
    mu, sigma2, low, high = problem(4, 3, seed=1)
    pairs = low.mean((0, 2))
    shapes = [low, pairs, low.mean()]  # per column, per pair, one number
    for gap in shapes:
        inputs = [x.clone().requires_grad_() for x in (mu, sigma2, gap)]
        assert torch.autograd.gradcheck(
            lambda m, v, g: ordered_surfaces(m, v, min_gap=g, method=method)[0], inputs
        )
    if method != "pav":
        for least, most in ((pairs, high), (low, high.mean((0, 2)) + 1), (pairs, pairs.mean() + 3)):
            inputs = [x.detach().clone().requires_grad_() for x in (mu, sigma2, least, most)]
            assert torch.autograd.gradcheck(
                lambda m, v, a, b: ordered_surfaces(m, v, min_gap=a, max_gap=b, method=method)[0],
                inputs,
            )


def test_interior_point_and_closed_form_have_one_gradient_the_mean_over_the_block():
    rng = np.random.default_rng(3)
    mu, sigma2 = (batch(x) for x in random_columns(rng, "random", 9, 200))
    upstream = batch(rng.normal(size=(9, 200)))
    grads = []
    for method in METHODS:
        a, b = mu.clone().requires_grad_(), sigma2.clone().requires_grad_()
        s, _ = ordered_surfaces(a, b, method=method)
        grads.append(torch.autograd.grad(s, (a, b), upstream))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-8, atol=1e-10)
    s = s.detach()[0].numpy()
    for c in range(200):  # the formula: wᵢ/W · the sum of the block's upstream gradient
        for value in np.unique(s[:, c].round(9)):
            block = np.abs(s[:, c] - value) < 1e-8
            weight = 1 / sigma2[0, block, c].numpy()
            expected = weight / weight.sum() * upstream[0, block, c].sum().item()
            np.testing.assert_allclose(grads[1][0][0, block, c], expected, atol=1e-9)


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_ordered_input_is_the_identity_with_its_gradient(method):
    mu = (torch.randn(2, 7, 6, dtype=torch.float64).sort(1).values * 9).requires_grad_()
    sigma2 = (torch.rand(2, 7, 6, dtype=torch.float64) + 0.1).requires_grad_()
    s, info = ordered_surfaces(mu, sigma2, method=method)
    assert torch.equal(s, mu) and (info.iterations == 0).all()
    assert (info.multipliers_min == 0).all() and (info.duality_gap == 0).all()
    upstream = torch.randn_like(s)
    grads = torch.autograd.grad(s, (mu, sigma2), upstream)
    torch.testing.assert_close(grads[0], upstream, rtol=1e-15, atol=0)
    assert not grads[1].any()


def test_without_polish_the_layer_is_strictly_inside_and_smooth():
    mu, sigma2, low, high = problem(seed=4)
    exact, rough = [], []
    for answers, options in ((exact, {}), (rough, {"polish": False, "tol": 1e-6})):
        inputs = [x.clone().requires_grad_() for x in (mu, sigma2, low, high)]
        s, info = ordered_surfaces(
            *inputs[:2], min_gap=inputs[2], max_gap=inputs[3], method="ipm", **options
        )
        answers += [s.detach(), *torch.autograd.grad(s.square().sum(), inputs)]
    for a, b in zip(exact, rough, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    gaps = rough[0].diff(dim=1)
    moved = (info.iterations > 0).expand_as(gaps)
    assert (gaps > low)[moved].all() and (gaps < high)[moved].all()
    assert not torch.equal(exact[0], rough[0])


def test_rigid_pairs_share_their_gradient():
    mu, sigma2 = batch([[0.0], [5.0], [9.0]]), batch([[1.0], [1.0], [2.0]])
    low = torch.tensor([2.0, 0.0], dtype=torch.float64, requires_grad=True)
    high = torch.tensor([2.0, 20.0], dtype=torch.float64, requires_grad=True)
    for method in ("auto", "ipm"):
        s, info = ordered_surfaces(mu, sigma2, min_gap=low, max_gap=high, method=method)
        assert s[0, :, 0].tolist() == pytest.approx([1.5, 3.5, 9])
        assert info.active_min[0, 0].all() and info.active_max[0, 0].all()
        grads = torch.autograd.grad(s[0, 1, 0], (low, high))  # half a pixel per pixel of gap
        assert grads[0].tolist() == pytest.approx([0.25, 0]) == grads[1].tolist()


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_one_and_two_surfaces(n, method):
    mu = torch.randn(2, n, 3, dtype=torch.float64, requires_grad=True)
    gaps = {} if method == "pav" else {"max_gap": 1.0}
    s, info = ordered_surfaces(mu, torch.ones_like(mu), min_gap=0.2, method=method, **gaps)
    s.sum().backward()
    torch.testing.assert_close(mu.grad, torch.ones_like(mu))  # a shift moves everything
    assert info.multipliers_min.shape == (2, n - 1, 3) and info.iterations.shape == (2, 3)
    if n == 1:
        assert torch.equal(s, mu)
        for stop in ("gap", "residual"):
            raw, info = interior_point(mu.detach(), torch.ones_like(mu), stop=stop, trace=True)
            torch.testing.assert_close(raw, mu.detach())


def test_images_and_columns_stay_where_they_are():
    gen = torch.Generator().manual_seed(0)
    mu = 4 * torch.randn(3, 5, 7, generator=gen, dtype=torch.float64)
    sigma2 = torch.rand(3, 5, 7, generator=gen, dtype=torch.float64) + 0.5
    low = torch.rand(3, 4, 7, generator=gen, dtype=torch.float64)
    for gaps in ({}, {"min_gap": low}, {"min_gap": low, "max_gap": low + 1}):
        s, info = ordered_surfaces(mu, sigma2, **gaps)
        for b, w in ((0, 0), (1, 5), (2, 6)):
            part = {k: v[b : b + 1, :, w : w + 1] for k, v in gaps.items()}
            one, alone = ordered_surfaces(
                mu[b : b + 1, :, w : w + 1], sigma2[b : b + 1, :, w : w + 1], **part
            )
            torch.testing.assert_close(one[0, :, 0], s[b, :, w])
            assert alone.iterations.item() == info.iterations[b, w]
            torch.testing.assert_close(
                alone.multipliers_min[0, :, 0], info.multipliers_min[b, :, w]
            )


def test_kinds_of_gaps_mean_the_same():
    mu, sigma2, *_ = problem()
    full = torch.full((1, 5, 5), 0.5, dtype=torch.float64)
    a, _ = ordered_surfaces(mu, sigma2, min_gap=0.5, max_gap=2)
    for low in (full, full[0, :, 0], [0.5] * 5, np.full(5, 0.5), full.float(), full[:, :1]):
        b, _ = ordered_surfaces(mu, sigma2, min_gap=low, max_gap=torch.full_like(full, 2.0))
        assert torch.equal(a, b)
    free, _ = ordered_surfaces(mu, sigma2, min_gap=0.5)
    unlimited, info = ordered_surfaces(mu, sigma2, min_gap=0.5, max_gap=float("inf"))
    assert torch.equal(free, unlimited) and info.method == "pav"
    crossing, _ = ordered_surfaces(mu, sigma2, min_gap=-100)
    assert torch.equal(crossing, mu)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_dtypes_and_autocast(dtype, method):
    mu = torch.tensor([[[3.0], [1.0], [1.25]]], dtype=dtype, requires_grad=True)
    sigma2 = torch.ones_like(mu)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        s, _ = ordered_surfaces(mu, sigma2, method=method)
    assert s.dtype == torch.promote_types(dtype, torch.float32)
    assert s[0, :, 0].tolist() == pytest.approx([1.75] * 3)
    s[0, 0, 0].backward()
    assert mu.grad.dtype == dtype
    assert mu.grad[0, :, 0].tolist() == pytest.approx([1 / 3] * 3, abs=1e-2)


def test_no_graph_without_gradient_and_no_second_derivative():
    mu, sigma2, *_ = problem()
    with torch.no_grad():
        assert not ordered_surfaces(mu.requires_grad_(), sigma2)[0].requires_grad
    s, info = ordered_surfaces(mu, sigma2)
    assert not info.multipliers_min.requires_grad
    (grad,) = torch.autograd.grad(s.square().sum(), mu, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_interior_point_counts_and_leaves_what_the_paper_says():
    gen = torch.Generator().manual_seed(0)
    mu = 3 * torch.arange(9.0)[:, None] + 2.2 * torch.randn(2, 9, 256, generator=gen)
    mu, sigma2 = mu.double(), 1 + 10 * torch.rand(2, 9, 256, generator=gen).double()
    exact, _ = ordered_surfaces(mu, sigma2)
    printed, info = interior_point(mu, sigma2, stop="residual")
    assert info.converged.all() and info.iterations.max() <= 10  # claim C4
    assert (printed - exact).abs().max() > 0.05  # and yet
    ours, info = interior_point(mu, sigma2, trace=True)
    assert (ours - exact).abs().max() < 1e-5 and info.converged.all()
    steps = len(info.trace.surfaces)
    assert info.trace.surfaces.shape == (steps, 2, 9, 256)
    assert info.trace.residual.shape == info.trace.duality_gap.shape == (steps, 2, 256)
    torch.testing.assert_close(info.trace.surfaces[-1], ours)
    torch.testing.assert_close(info.trace.duality_gap[-1], info.duality_gap)
    # weak duality: ½Σw(s − s*)² is at most the gap
    error = ((info.trace.surfaces - exact) ** 2 / sigma2).sum(2) / 2
    assert (error <= info.trace.duality_gap + info.trace.residual * 1e3 + 1e-9).all()


def test_capped_iterations_are_told():
    gen = torch.Generator().manual_seed(0)
    mu = 30 * torch.randn(1, 9, 20, generator=gen, dtype=torch.float64)
    with pytest.warns(RuntimeWarning, match=r"20 of 20 columns did not reach tol=1e-08 within"):
        s, info = ordered_surfaces(mu, torch.ones_like(mu), method="ipm", max_iter=2, polish=False)
    assert not info.converged.any() and (info.iterations == 2).all()
    assert (s.diff(dim=1) > 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, info = interior_point(mu, torch.ones_like(mu), max_iter=2)
    assert not info.converged.any()


@pytest.mark.parametrize("solve", [ordered_surfaces, interior_point])
def test_bad_input_is_refused_by_name(solve):
    mu, sigma2, low, high = problem()

    def refused(match, *args, error=ValueError, **options):
        with pytest.raises(error, match=match):
            solve(*args, **options)

    for value in (float("nan"), float("inf")):
        bad = mu.clone()
        bad[0, 2, 3] = value
        refused(rf"mu must be finite, got {value} at index \[0, 2, 3\]", bad, sigma2)
        refused(rf"sigma2 must be finite, got {value} at index \[0, 2, 3\]", mu, bad)
    for value in (0.0, -1.0):
        bad = sigma2.clone()
        bad[0, 1, 4] = value
        refused(rf"sigma2 must be positive, got {value} at index \[0, 1, 4\]", mu, bad)
    refused(r"mu must have the shape \(B N W\)", mu[0], sigma2[0])
    refused("mu and sigma2 must have one shape", mu, sigma2[:, 1:])
    refused("mu must hold at least one", mu[:0], sigma2[:0])
    refused("mu must be a floating-point tensor", mu.long(), sigma2, error=TypeError)
    refused("sigma2 must be a floating-point tensor", mu, 1.0, error=TypeError)
    refused("min_gap must be a number, got nan", mu, sigma2, min_gap=float("nan"))
    refused("min_gap must be finite, got inf", mu, sigma2, min_gap=float("inf"))
    refused("max_gap must be a number, got nan", mu, sigma2, max_gap=float("nan"))
    refused(r"min_gap must be a number, \(5,\) or \(B,N-1,W\)", mu, sigma2, min_gap=mu)
    refused(r"max_gap must be a number, \(5,\)", mu, sigma2, max_gap=torch.ones(4))
    wrong = high.clone()
    wrong[0, 3, 2] = -1.0
    refused(
        r"min_gap must not exceed max_gap: .* > -1 between surfaces 3 and 4 in column 2 of image 0",
        mu, sigma2, min_gap=low, max_gap=wrong,
    )  # fmt: skip
    refused("min_gap must not exceed max_gap: 0 > -2", mu, sigma2, max_gap=-2.0)
    refused("tol must be positive and finite", mu, sigma2, tol=0.0)
    refused("max_iter must be at least 1, got 0", mu, sigma2, max_iter=0)
    refused("max_iter must be an integer", mu, sigma2, max_iter=1.5, error=TypeError)


def test_unfit_methods_are_refused():
    mu, sigma2, _, high = problem()
    with pytest.raises(ValueError, match="method must be one of 'auto', 'pav', 'ipm'; got 'qp'"):
        ordered_surfaces(mu, sigma2, method="qp")
    with pytest.raises(ValueError, match="method='pav' takes no max_gap: use method='auto'"):
        ordered_surfaces(mu, sigma2, max_gap=high, method="pav")
    with pytest.raises(ValueError, match="tol must be at least 1e-11"):
        ordered_surfaces(mu, sigma2, tol=1e-13)
    with pytest.raises(ValueError, match="stop must be one of 'gap', 'residual'"):
        interior_point(mu, sigma2, stop="never")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuda_gives_the_answers_of_the_cpu(method, dtype):
    rng = np.random.default_rng(0)
    mu, sigma2 = (batch(x, dtype) for x in random_columns(rng, "random", 9, 300))
    gaps = [{"min_gap": 0.5}] if method == "pav" else [{}, {"min_gap": 0.5, "max_gap": 4.0}]
    for options in gaps:
        grads = []
        for device in ("cpu", "cuda"):
            a = mu.to(device).requires_grad_()
            s, info = ordered_surfaces(a, sigma2.to(device), method=method, **options)
            (grad,) = torch.autograd.grad(s.square().sum(), a)
            assert s.device.type == info.iterations.device.type == device
            grads.append((s.detach().cpu(), grad.cpu()))
        torch.testing.assert_close(*grads, atol=1e-4 if dtype == torch.float32 else 1e-8, rtol=1e-4)
