import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from medseg_core.papers.ipm_surfaces.surface_net import (
    SurfaceNet,
    gradient_channels,
    region_boundaries,
    running_maximum,
)


def boundaries_by_hand(column, n):
    """The definition, read off one column of regions."""
    height = len(column)
    in_order = sorted(column)
    gamma = [sum(1 for region in in_order if region <= i) - 0.5 for i in range(n)]
    agree = [column[z] == max(column[: z + 1]) for z in range(height)]
    return gamma, sum(agree) / height


class TestRegionBoundaries:
    def test_ordered(self):
        label = torch.tensor([0, 0, 1, 1, 2, 2, 2])[None, :, None]
        gamma, c = region_boundaries(label, 2)
        assert gamma[0, :, 0].tolist() == [1.5, 3.5] and c.item() == 1

    def test_a_stray_pixel_moves_a_boundary_by_one_row(self):
        column = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2, 0])
        gamma, c = region_boundaries(column[None, :, None], 2)
        assert gamma[0, :, 0].tolist() == [2.5, 5.5] and c.item() == pytest.approx(0.9)

    def test_missing_regions_meet(self):
        label = torch.tensor([0, 0, 3, 3])[None, :, None]
        gamma, c = region_boundaries(label, 3)
        assert gamma[0, :, 0].tolist() == [1.5, 1.5, 1.5] and c.item() == 1

    def test_extremes(self):
        top = region_boundaries(torch.full((1, 4, 1), 2), 2)[0]
        bottom = region_boundaries(torch.zeros(1, 4, 1, dtype=torch.long), 2)[0]
        assert top.flatten().tolist() == [-0.5, -0.5] and bottom.flatten().tolist() == [3.5, 3.5]

    @settings(deadline=None, max_examples=100)
    @given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**31 - 1))
    def test_definition_and_order(self, n, height, seed):
        label = np.random.default_rng(seed).integers(0, n + 1, (2, height, 3))
        gamma, c = region_boundaries(torch.from_numpy(label), n)
        for b, w in np.ndindex(2, 3):
            expected, share = boundaries_by_hand(label[b, :, w], n)
            np.testing.assert_allclose(gamma[b, :, w], expected)
            assert c[b, 0, w].item() == pytest.approx(share)
        assert (gamma.diff(dim=1) >= 0).all()
        in_order = torch.from_numpy((np.diff(label, axis=1) >= 0).all(1))
        assert ((c[:, 0] == 1) == in_order).all()

    def test_refuses(self):
        with pytest.raises(ValueError, match="label must lie in 0 … 2"):
            region_boundaries(torch.full((1, 3, 1), 3), 2)
        with pytest.raises(ValueError, match="label"):
            region_boundaries(torch.zeros(3, 3), 2)


class TestSurfaceNet:
    def test_fusion_by_hand(self):
        torch.manual_seed(0)
        net = SurfaceNet(3, 1, (4, 8)).eval()
        with torch.no_grad():
            out = net(torch.rand(2, 1, 16, 8))
        p, z = out["log_p"].exp(), torch.arange(16.0)[:, None]
        torch.testing.assert_close(p.sum(2), torch.ones(2, 3, 8))
        torch.testing.assert_close(out["xi"], (z * p).sum(2), rtol=1e-4, atol=1e-4)
        gamma, c = region_boundaries(out["region_logits"].argmax(1), 3)
        mu = (c * gamma + (2 - c) * out["xi"]) / 2
        torch.testing.assert_close(out["mu"], mu)
        sigma2 = (p * (z - mu[:, :, None]) ** 2).sum(2).clamp_min(0.25)
        torch.testing.assert_close(out["sigma2"], sigma2, rtol=1e-3, atol=1e-3)
        assert (out["sigma2"] + 1e-3 >= (mu - out["xi"]) ** 2).all()

    def test_regions_pass_no_gradient_and_damp_it(self):
        torch.manual_seed(0)
        net = SurfaceNet(2, 1, (4, 8))
        out = net(torch.rand(1, 1, 16, 8))
        out["xi"].retain_grad()
        out["mu"].sum().backward()
        torch.testing.assert_close(out["xi"].grad, ((2 - out["c"]) / 2).expand_as(out["xi"]))
        assert all(p.grad is None for p in net.region_conv.parameters())

    def test_without_regions(self):
        net = SurfaceNet(2, 1, (4, 8), regions=False)
        out = net(torch.rand(1, 1, 16, 8))
        assert torch.equal(out["mu"], out["xi"])

    def test_circular_columns_have_no_seam(self):
        torch.manual_seed(0)
        net = SurfaceNet(2, 1, (4, 8), circular=True).eval()
        x = torch.rand(1, 1, 16, 16)
        with torch.no_grad():
            moved, plain = net(x.roll(6, 3))["xi"], net(x)["xi"]
        torch.testing.assert_close(moved, plain.roll(6, 2), rtol=1e-4, atol=1e-4)

    def test_floor_and_one_surface(self):
        net = SurfaceNet(1, 1, (4, 8))
        with torch.no_grad():
            net.surface_conv[-1].weight.mul_(1e4)  # a certain network
            out = net(torch.rand(1, 1, 16, 8))
        assert out["mu"].shape == (1, 1, 8) and out["sigma2"].min() == 0.25

    @pytest.mark.parametrize("bad", [{"n_surfaces": 0}, {"kappa": 1.5}])
    def test_refuses(self, bad):
        with pytest.raises(ValueError, match=next(iter(bad))):
            SurfaceNet(**({"n_surfaces": 2} | bad))


class TestGradientChannels:
    def test_is_numpys(self):
        image = torch.rand(2, 1, 6, 7, dtype=torch.float64)
        x = gradient_channels(image)
        down, across = np.gradient(image[:, 0].numpy(), axis=(1, 2))
        expected = np.stack(
            [image[:, 0], down, across, np.hypot(down, across), np.arctan2(down, across) / np.pi], 1
        )
        np.testing.assert_allclose(x, expected, atol=1e-12)

    def test_circular(self):
        image = torch.rand(1, 1, 5, 8)
        moved = gradient_channels(image.roll(3, 3), circular=True)
        closed, plain = gradient_channels(image, circular=True), gradient_channels(image)
        torch.testing.assert_close(moved, closed.roll(3, 3))
        torch.testing.assert_close(closed[..., 1:-1], plain[..., 1:-1])

    def test_refuses(self):
        with pytest.raises(ValueError, match="image"):
            gradient_channels(torch.zeros(1, 3, 4, 4))


class TestRunningMaximum:
    @settings(deadline=None, max_examples=50)
    @given(st.integers(1, 8), st.integers(0, 2**31 - 1))
    def test_is_the_sequential_relu(self, n, seed):
        gen = torch.Generator().manual_seed(seed)
        xi = torch.randn(2, n, 3, generator=gen, dtype=torch.float64).requires_grad_()
        s = [xi[:, 0]]
        for i in range(1, n):
            s.append(s[-1] + F.relu(xi[:, i] - s[-1]))
        s = torch.stack(s, 1)
        ours = running_maximum(xi)
        torch.testing.assert_close(ours, s)
        weight = torch.randn(2, n, 3, generator=gen, dtype=torch.float64)
        grads = [
            torch.autograd.grad((y * weight).sum(), xi, retain_graph=True)[0] for y in (ours, s)
        ]
        torch.testing.assert_close(*grads)

    def test_the_pushed_surface_gets_no_gradient(self):
        xi = torch.tensor([[[5.0], [3.0]]], requires_grad=True)
        s = running_maximum(xi)
        s[:, 1].sum().backward()
        assert s.flatten().tolist() == [5, 5] and xi.grad.flatten().tolist() == [1, 0]
