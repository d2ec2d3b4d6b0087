"""Three ways to one gradient: the optimality conditions, the envelope, finite differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medseg_core.papers.max_margin_crf.crf import MaxMarginCRF
from medseg_core.papers.max_margin_crf.gradient import (
    envelope_gradient,
    hinge_subgradient,
    kkt_gradient,
    kkt_matrix,
    kkt_right_side,
    margin_loss,
)
from medseg_core.papers.max_margin_crf.qp import optimality, solve_margin_qp

EPS = 1e-9


def problem(seed, n=2, size=(3, 4)):
    """A random small programme: images, truths with a straight border, noisy logits."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[: size[0], : size[1]]
    yy, xx = yy - (size[0] - 1) / 2, xx - (size[1] - 1) / 2
    angle, level = rng.uniform(0, 2 * np.pi, (n, 1, 1)), rng.uniform(-0.8, 0.8, (n, 1, 1))
    target = np.cos(angle) * yy + np.sin(angle) * xx > level
    image = torch.from_numpy(target[:, None] + 0.5 * rng.normal(size=(n, 1, *size)))
    logits = (2 * target - 1) * rng.uniform(0.3, 1) + rng.normal(size=target.shape)
    crf = MaxMarginCRF.from_images(
        image,
        torch.from_numpy(target).long(),
        C=float(10 ** rng.uniform(-0.5, 1.5)),
        connectivity=int(rng.choice([4, 8])),
        contrast=bool(rng.random() < 0.8),
    )
    return crf, torch.from_numpy(logits)[:, None]


def slope(crf, logits, direction, step=1e-5):
    """Central difference of γ along `direction`, Algorithm 1 run to its end at both points."""
    gammas = [crf.fit(logits + s * direction, eps=EPS).gamma for s in (step, -step)]
    return (gammas[0] - gammas[1]) / (2 * step)


@pytest.mark.parametrize("seed", range(60))
def test_three_gradients_agree(seed):
    crf, logits = problem(seed)
    fit = crf.fit(logits, eps=EPS)
    assert fit.converged and fit.largest_violation <= EPS
    errors = optimality(fit.qp, fit.optimum)
    assert errors["complementarity"] <= 1e-6 and errors["stationarity"] <= 1e-6
    assert errors["negative"] == 0 and (fit.multipliers >= 0).all()
    envelope, kkt = envelope_gradient(fit, logits), kkt_gradient(fit, logits)
    size = float(envelope.abs().max())
    assert size > 1e-3
    torch.testing.assert_close(kkt, envelope, rtol=0, atol=1e-6 * size)
    z = logits.sigmoid()
    by_z = kkt_gradient(fit, logits, wrt="z")
    torch.testing.assert_close(by_z * z * (1 - z), kkt)
    gen = torch.Generator().manual_seed(seed)
    pixels = torch.zeros(24, dtype=logits.dtype).index_fill_(
        0, torch.randperm(24, generator=gen)[:1], 1.0
    )
    anywhere = torch.randn(24, generator=gen, dtype=logits.dtype)
    for direction in (pixels, anywhere, envelope.flatten() / size):
        direction = direction.view_as(logits)
        expected = float((envelope * direction).sum())
        assert slope(crf, logits, direction) == pytest.approx(expected, rel=1e-4, abs=1e-4 * size)


@pytest.mark.parametrize("seed", [100, 101])
def test_every_pixel_by_finite_differences_and_in_z(seed):
    crf, logits = problem(seed)
    fit = crf.fit(logits, eps=EPS)
    kkt = kkt_gradient(fit, logits, wrt="z")
    z = logits.sigmoid()
    numeric = torch.zeros_like(z)
    for i in range(z.numel()):
        step = torch.zeros_like(z).view(-1).index_fill_(0, torch.tensor([i]), 1e-6).view_as(z)
        gammas = [crf.fit(torch.logit(z + s * step), eps=EPS).gamma for s in (1, -1)]
        numeric.view(-1)[i] = (gammas[0] - gammas[1]) / 2e-6
    torch.testing.assert_close(kkt, numeric, rtol=1e-4, atol=1e-4 * float(kkt.abs().max()))


def test_images_with_many_labellings():
    crf, logits = problem(11, n=3, size=(20, 24))
    fit = crf.fit(logits, eps=1e-7)
    assert fit.converged and np.bincount(fit.qp.image).max() > 8  # more than a byte per pixel
    assert optimality(fit.qp, fit.optimum)["complementarity"] <= 1e-6
    envelope, kkt = envelope_gradient(fit, logits), kkt_gradient(fit, logits)
    size = float(envelope.abs().max())
    torch.testing.assert_close(kkt, envelope, rtol=0, atol=1e-6 * size)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).double()
    gammas = [crf.fit(logits + h * direction, eps=1e-7).gamma for h in (1e-4, -1e-4)]
    numeric, expected = (gammas[0] - gammas[1]) / 2e-4, float((envelope * direction).sum())
    assert numeric == pytest.approx(expected, rel=1e-4)


def test_the_system_of_one_row_by_hand():
    # One pixel, truth 1: the only wrong labelling has ΣU = −a, so γ(a) is ½/a² where that is cheap.
    image, target = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, dtype=torch.long)
    crf = MaxMarginCRF.from_images(image, target)
    logits = torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64)
    fit = crf.fit(logits, eps=EPS)
    assert fit.gamma == pytest.approx(0.125) and fit.w[0] == pytest.approx(0.5)
    assert fit.multipliers.tolist() == pytest.approx([0.25])  # λ = 1/a²
    assert envelope_gradient(fit, logits).item() == pytest.approx(-0.125)  # −1/a³
    assert kkt_gradient(fit, logits).item() == pytest.approx(-0.125)
    # unknowns: ∂w₁ ∂w₂ ∂w₃ ∂ξ ∂λ ∂λ_(1) ∂λ_w2 ∂λ_w3; w₂ = w₃ = 0 without force count as passive
    expected = [
        [1, 0, 0, 0, -2, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, -1, 0],
        [0, 0, 1, 0, 0, 0, 0, -1],
        [0, 0, 0, 0, -1, -1, 0, 0],
        [-2, 0, 0, -1, 0, 0, 0, 0],
        [0, 0, 0, -1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 1],
    ]
    np.testing.assert_allclose(kkt_matrix(fit), expected, atol=1e-9)
    np.testing.assert_allclose(
        kkt_right_side(fit).ravel(), [-0.25, 0, 0, 0, -0.5, 0, 0, 0], atol=1e-9
    )


def test_a_row_twice_makes_the_system_singular_and_changes_no_gradient():
    crf, logits = problem(3)
    fit = crf.fit(logits, eps=EPS)
    reference = kkt_gradient(fit, logits)
    order = np.concatenate([np.tile(np.flatnonzero(fit.qp.image == n), 2) for n in range(2)])
    rows, delta, image = (x[order] for x in (fit.qp.rows, fit.qp.delta, fit.qp.image))
    qp = replace(fit.qp, rows=rows, delta=delta, image=image)
    packed = tuple(np.r_[p, p] for p in fit.packed)
    optimum = solve_margin_qp(qp)
    twice = replace(fit, qp=qp, packed=packed, optimum=optimum, image=torch.from_numpy(qp.image))
    matrix = kkt_matrix(twice)
    assert np.linalg.matrix_rank(matrix) < len(matrix)
    size = float(reference.abs().max())
    for f in (envelope_gradient, kkt_gradient):
        torch.testing.assert_close(f(twice, logits), reference, rtol=0, atol=1e-6 * size)


def test_gradient_is_bounded_by_the_price_of_slack():
    for seed in range(10):
        crf, logits = problem(seed, n=3)
        fit = crf.fit(logits, eps=EPS)
        bound = abs(float(fit.w[0])) * crf.C / 3
        assert envelope_gradient(fit, logits).abs().max() <= bound + 1e-9


def test_the_loss_backpropagates_once():
    crf, logits = problem(4)
    x = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).double()
    x.requires_grad_()
    gamma, fit = margin_loss(logits + 0.1 * x, crf, eps=EPS)
    assert gamma.item() == fit.gamma and fit.converged
    (3 * gamma).backward()
    expected = 0.3 * envelope_gradient(fit, logits)
    torch.testing.assert_close(x.grad, expected)
    a = logits.clone().requires_grad_()
    other, _ = margin_loss(a, crf, eps=EPS)
    (grad,) = torch.autograd.grad(other.square(), a, create_graph=True)
    assert grad.shape == a.shape
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
    with torch.no_grad():
        assert not margin_loss(a, crf)[0].requires_grad
    assert not margin_loss(logits, crf)[0].requires_grad
    assert torch.autograd.gradcheck(lambda v: margin_loss(v, crf, eps=EPS)[0], a, eps=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    crf, logits = problem(5)
    a = logits.to(dtype).requires_grad_()
    gamma, _ = margin_loss(a, crf, eps=1e-6)
    assert gamma.dtype == torch.promote_types(dtype, torch.float32)
    gamma.backward()
    assert a.grad.dtype == dtype and a.grad.any()
    fit = crf.solve(a)  # Algorithm 1 was run to its end: nothing is missing
    assert fit.gamma == pytest.approx(gamma.item(), rel=1e-6)
    assert torch.equal(envelope_gradient(fit, a), a.grad)


def test_later_changes_of_the_sets_do_not_reach_an_earlier_loss():
    crf, logits = problem(6)
    a = logits.clone().requires_grad_()
    gamma, fit = margin_loss(a, crf, eps=EPS)
    expected = envelope_gradient(fit, a)
    crf.fit(-logits, eps=EPS)
    crf.reset()
    gamma.backward()
    torch.testing.assert_close(a.grad, expected)
    torch.testing.assert_close(envelope_gradient(fit, a), expected)


def test_descent_lowers_gamma():
    crf, logits = problem(7)
    a, gammas = logits.clone().requires_grad_(), []
    for _ in range(15):
        gamma, _ = margin_loss(a, crf, eps=1e-6)
        gammas.append(gamma.item())
        (grad,) = torch.autograd.grad(gamma, a)
        with torch.no_grad():
            a -= 0.3 * grad
    assert gammas[-1] < 0.8 * gammas[0]


def test_saturated_logits_need_no_clipping():
    crf, logits = problem(8)
    a = 50 * logits.sign()
    fit = crf.fit(a, eps=1e-6)
    assert torch.isfinite(envelope_gradient(fit, a)).all()
    for wrt in ("logits", "z"):
        assert torch.isfinite(kkt_gradient(fit, a, wrt=wrt)).all()


def test_nothing_to_learn_gives_no_gradient():
    crf, logits = problem(9)
    fit = crf.solve(logits)  # empty sets
    assert fit.gamma == 0 and not fit.w.any()
    assert not envelope_gradient(fit, logits).any() and not kkt_gradient(fit, logits).any()
    flat = 0 * logits  # w₁ = 0: the batch teaches nothing
    fit = crf.fit(flat, eps=1e-6)
    assert fit.w[0] == 0 and not envelope_gradient(fit, flat).any()
    assert kkt_gradient(fit, flat).abs().max() < 1e-9


def test_hinge_subgradient_is_that_of_the_hinge():
    crf, logits = problem(10, n=3)
    w = torch.tensor([0.8, 0.3, 0.2], dtype=torch.float64)

    def hinge(a):
        rows, delta = crf.rows(crf.most_violated(a, w), a)
        return float((rows @ w + delta).sum()) * crf.C / 3

    grad = hinge_subgradient(logits, crf, w)
    assert grad.shape == logits.shape
    gen = torch.Generator().manual_seed(0)
    for _ in range(10):
        direction = torch.randn(logits.shape, generator=gen).double()
        numeric = (hinge(logits + 1e-6 * direction) - hinge(logits - 1e-6 * direction)) / 2e-6
        assert numeric == pytest.approx(float((grad * direction).sum()), rel=1e-5, abs=1e-6)


def test_bad_input_is_refused_by_name():
    crf, logits = problem(0)
    fit = crf.fit(logits)
    with pytest.raises(ValueError, match="wrt must be one of 'logits', 'z'; got 'w'"):
        kkt_gradient(fit, logits, wrt="w")
    for f in (envelope_gradient, kkt_gradient):
        with pytest.raises(ValueError, match=r"logits must have the shape \(N 1 H W\)"):
            f(fit, logits[:1])
    with pytest.raises(ValueError, match="logits must be finite, got nan"):
        margin_loss(logits * np.nan, crf)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_gradient_of_the_cpu():
    crf, logits = problem(1)
    grads = []
    for device in ("cpu", "cuda"):
        a = logits.to(device, torch.float32).requires_grad_()
        gamma, _ = margin_loss(a, crf, eps=1e-6)
        gamma.backward()
        assert (
            gamma.device.type == a.grad.device.type == crf.infer(a, (1, 1, 1)).device.type == device
        )
        grads.append(a.grad.cpu())
    torch.testing.assert_close(*grads)
