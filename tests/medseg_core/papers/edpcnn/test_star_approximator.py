import pytest
import torch

from medseg_core.papers.edpcnn.star_approximator import StarApproximator


@pytest.mark.parametrize(("n", "m"), [(32, 28), (50, 65), (24, 24), (5, 3), (12, 1), (3, 2)])
@pytest.mark.parametrize("circular", [True, False])
def test_any_number_of_lines_and_points(n, m, circular):
    net = StarApproximator(width=4, circular=circular)
    g = torch.randn(3, n, m + 1, requires_grad=True)
    logits = net(g)
    assert logits.shape == (3, n, m)
    logits.square().sum().backward()
    assert torch.isfinite(g.grad).all()


def test_a_constant_per_line_does_not_matter():
    net = StarApproximator(width=4).eval()
    g = torch.randn(2, 16, 13, dtype=torch.float64)
    net.double()
    torch.testing.assert_close(net(g + torch.randn(2, 16, 1).double()), net(g))


def test_turning_the_star_turns_the_answer():
    torch.manual_seed(0)
    net = StarApproximator(width=4).eval()
    g = torch.randn(2, 32, 29)
    turned = net(g.roll(8, 1))
    torch.testing.assert_close(turned, net(g).roll(8, 1), atol=1e-5, rtol=1e-4)
    zero_padded = StarApproximator(width=4, circular=False).eval()
    assert not torch.allclose(zero_padded(g.roll(8, 1)), zero_padded(g).roll(8, 1), atol=1e-3)


def test_first_line_sees_the_last_one():
    """Also where N is no multiple of eight: the repeated lines carry the neighbours over."""
    torch.manual_seed(0)
    net = StarApproximator(width=4).eval()
    g = torch.randn(1, 50, 29, requires_grad=True)
    net(g)[0, 0].sum().backward()
    assert g.grad[0, -1].abs().sum() > 0


def test_missing_lines_are_repeated_and_missing_points_replicated():
    image = torch.arange(6.0).reshape(1, 1, 2, 3)
    padded = StarApproximator(width=4)._pad(image, 2, 3, 0, 1)
    assert padded[0, 0, 0].tolist() == [1, 2, 0, 1, 2, 0, 1, 2]
    assert torch.equal(padded[0, 0, 1], padded[0, 0, 2]) and padded.shape[2] == 3
    zeros = StarApproximator(width=4, circular=False)._pad(image, 1, 1, 0, 0)
    assert zeros[0, 0, 1].tolist() == [0, 3, 4, 5, 0]


def test_parameters():
    assert sum(p.numel() for p in StarApproximator().parameters()) == 121_033
    assert StarApproximator(width=4).unet.widths == (4, 8, 16, 32)


@pytest.mark.parametrize("shape", [(32, 29), (1, 32, 1), (1, 1, 32, 29)])
def test_wrong_maps_are_refused(shape):
    with pytest.raises(ValueError, match=r"g must be \(B, N, M \+ 1\)"):
        StarApproximator()(torch.zeros(shape))
