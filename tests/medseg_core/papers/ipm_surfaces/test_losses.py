import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from medseg_core.papers.ipm_surfaces import losses as L


def log_p_of(seed, B=2, N=3, H=12, W=5):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(B, N, H, W, generator=gen, dtype=torch.float64).log_softmax(2)


def known(B=2, N=3, W=5):
    return torch.ones(B, N, W, dtype=torch.bool)


def surfaces_of(seed, B=2, N=3, H=12, W=5):
    gen = torch.Generator().manual_seed(seed)
    return (torch.rand(B, N, W, generator=gen, dtype=torch.float64) * (H - 1)).sort(1).values


class TestGaussianTarget:
    def test_by_hand(self):
        g = L.gaussian_target(torch.tensor([[[1.0]]], dtype=torch.float64), 3, 1.0)
        e = math.exp(-0.5)
        expected = torch.tensor([e, 1, e], dtype=torch.float64) / (1 + 2 * e)
        torch.testing.assert_close(g[0, 0, :, 0], expected)

    def test_normalised_even_far_outside_of_the_image(self):
        g = L.gaussian_target(torch.tensor([[[-500.0, 900.0]]]), 16, 2.0)
        torch.testing.assert_close(g.sum(2), torch.ones(1, 1, 2))
        assert g[0, 0, 0, 0] > 0.99 and g[0, 0, -1, 1] > 0.99

    def test_sigma_per_point(self):
        s = surfaces_of(0)
        sigma = torch.rand_like(s) + 0.5
        both = L.gaussian_target(s, 12, sigma)
        one = L.gaussian_target(s[:1, :1, :1], 12, float(sigma[0, 0, 0]))
        torch.testing.assert_close(both[:1, :1, :, :1], one)

    def test_unknown_is_uniform(self):
        g = L.gaussian_target(torch.tensor([[[math.nan]]]), 4, 1.0)
        torch.testing.assert_close(g[0, 0, :, 0], torch.full((4,), 0.25))

    def test_refuses(self):
        with pytest.raises(ValueError, match="sigma"):
            L.gaussian_target(surfaces_of(0), 12, 0.0)
        with pytest.raises(ValueError, match="surfaces"):
            L.gaussian_target(torch.zeros(3, 4), 12, 1.0)


class TestWeightedDivergence:
    def test_by_hand(self):
        g = torch.tensor([0.5, 0.5], dtype=torch.float64)[None, None, :, None]
        p = torch.tensor([0.25, 0.75], dtype=torch.float64)[None, None, :, None]
        weight = torch.tensor([1.0, 3.0], dtype=torch.float64)[None, None, :, None]
        expected = 0.5 * math.log(2) + 3 * 0.5 * math.log(1.5)
        assert L.weighted_divergence(p.log(), g, weight, known(1, 1, 1)).item() == pytest.approx(
            expected
        )

    @settings(deadline=None, max_examples=25)
    @given(st.integers(0, 10_000))
    def test_not_below_kl_which_is_torchs(self, seed):
        log_p = log_p_of(seed)
        g = L.gaussian_target(surfaces_of(seed + 1), 12, 1.5)
        kl, one = L.kl_divergence(log_p, g, known()), torch.ones(2, 1, 12, 5, dtype=torch.float64)
        # Torch's sum over rows, per column; the floor of g is all that differs.
        theirs = F.kl_div(log_p, g, reduction="sum") / (2 * 3 * 5)
        torch.testing.assert_close(kl, theirs, rtol=1e-4, atol=1e-6)
        plain = L.weighted_divergence(log_p, g, one, known())
        assert plain >= kl - 1e-12
        magnitude = torch.rand(2, 1, 12, 5, dtype=torch.float64)
        weight = L.gradient_weight(magnitude)
        torch.testing.assert_close(weight, 1 + 10 * magnitude)
        assert L.weighted_divergence(log_p, g, weight, known()) >= plain

    def test_zero_where_equal(self):
        g = L.gaussian_target(surfaces_of(3), 12, 4.0)
        weight = torch.full((2, 1, 12, 5), 2.0)
        found = L.weighted_divergence(g.log(), g, weight, known())
        assert found.item() == pytest.approx(0, abs=1e-6)

    def test_unknown_columns_do_not_count(self):
        log_p, s = log_p_of(0), surfaces_of(1)
        valid = known()
        valid[:, :, 2] = False
        s[:, :, 2] = math.nan
        log_p.requires_grad_()
        weight = torch.rand(2, 1, 12, 5, dtype=torch.float64)
        loss = L.weighted_divergence(log_p, L.gaussian_target(s, 12, 2.0), weight, valid)
        keep = [0, 1, 3, 4]
        target = L.gaussian_target(s[..., keep], 12, 2.0)
        only = L.weighted_divergence(log_p[..., keep], target, weight[..., keep], valid[..., keep])
        torch.testing.assert_close(loss, only)
        loss.backward()
        assert (log_p.grad[..., 2] == 0).all() and log_p.grad.isfinite().all()


def test_cross_entropy_is_torchs():
    log_p, s = log_p_of(5), surfaces_of(6)
    ours = L.surface_cross_entropy(log_p, s, known())
    theirs = F.cross_entropy(log_p.transpose(1, 2), s.round().long())  # classes second
    torch.testing.assert_close(ours, theirs)
    weight = torch.full((2, 1, 12, 5), 3.0, dtype=torch.float64)
    torch.testing.assert_close(L.surface_cross_entropy(log_p, s, known(), weight), 3 * theirs)
    outside = torch.full_like(s, 99.0)
    torch.testing.assert_close(
        L.surface_cross_entropy(log_p, outside, known()), -log_p[:, :, -1].mean()
    )


class TestSmooth:
    def test_by_hand(self):
        truth = torch.zeros(1, 2, 3)
        s = torch.tensor([[[0.0, 1.0, 1.0], [0.0, 0.0, 2.0]]])
        # slopes: (1, 0) and (0, 2); thickness: 0, −1, 1
        expected = 1 / 2 + 4 / 2 + 2 / 3
        assert L.smooth_loss(s, truth, known(1, 2, 3)).item() == pytest.approx(expected)
        around = (1 + 0 + 1) / 3 + (0 + 4 + 4) / 3 + 2 / 3
        assert L.smooth_loss(s, truth, known(1, 2, 3), circular=True).item() == pytest.approx(
            around
        )

    @settings(deadline=None, max_examples=25)
    @given(st.integers(0, 10_000), st.floats(-50, 50))
    def test_blind_to_a_common_shift(self, seed, shift):
        s, truth = surfaces_of(seed), surfaces_of(seed + 1)
        for circular in (False, True):
            a = L.smooth_loss(s, truth, known(), circular=circular)
            torch.testing.assert_close(
                a, L.smooth_loss(s + shift, truth, known(), circular=circular)
            )
            rolled = L.smooth_loss(s.roll(2, 2), truth.roll(2, 2), known(), circular=circular)
            if circular:
                torch.testing.assert_close(a, rolled)

    def test_one_surface_one_column(self):
        assert L.smooth_loss(torch.ones(1, 1, 1), torch.zeros(1, 1, 1), known(1, 1, 1)).item() == 0

    def test_gaps_in_the_truth(self):
        s, truth = surfaces_of(0).requires_grad_(), surfaces_of(1)
        valid = torch.ones(2, 3, 5, dtype=torch.bool)
        valid[0, 1, 3] = False
        truth[0, 1, 3] = math.nan
        loss = (
            L.smooth_loss(s, truth, valid)
            + L.l1_loss(s, truth, valid)
            + L.smooth_l1_loss(s, truth, valid)
        )
        loss.backward()
        assert loss.isfinite() and s.grad.isfinite().all() and s.grad[0, 1, 3] == 0

    @pytest.mark.parametrize("circular", [False, True])
    def test_a_step_to_an_unknown_point_does_not_count(self, circular):
        s, truth = torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)
        s[0, 0, 2] = 5.0
        valid = torch.tensor([[[True, True, False, True]]])
        assert L.smooth_loss(s, truth, valid, circular=circular).item() == 0

    def test_refuses(self):
        with pytest.raises(ValueError, match="truth"):
            L.smooth_loss(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4), known(1, 2, 3))


def test_position_losses():
    s, truth = torch.tensor([[[0.0, 3.0]]]), torch.tensor([[[0.5, 1.0]]])
    assert L.l1_loss(s, truth, known(1, 1, 2)).item() == pytest.approx(1.25)
    assert L.smooth_l1_loss(s, truth, known(1, 1, 2)).item() == pytest.approx((0.125 + 1.5) / 2)
    nothing = torch.zeros(1, 1, 2, dtype=torch.bool)
    assert L.l1_loss(s, truth, nothing).item() == 0
