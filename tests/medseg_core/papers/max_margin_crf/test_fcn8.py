import pytest
import torch
from torch.nn import functional as F

from medseg_core.papers.max_margin_crf.fcn8 import FCN8, bilinear_upsampling

SMALL = {"widths": (16, 32, 64, 64, 64), "convs": (1, 1, 2, 2, 2), "fc": 128, "fc_kernel": 3}


def test_the_published_network_by_layer():
    """VGG-16's 13 convolutions, two dense layers as convolutions, three scores and upsamplings."""
    net = FCN8(3, 2)
    weights = {n: tuple(p.shape) for n, p in net.named_parameters() if p.ndim == 4}
    stages = [s[:2] for n, s in weights.items() if n.startswith("stages")]
    assert stages == [(64, 3), (64, 64), (128, 64), (128, 128), (256, 128), (256, 256), (256, 256),
                      (512, 256), *[(512, 512)] * 5]  # fmt: skip
    assert [s for n, s in weights.items() if n.startswith("fc")] == [
        (4096, 512, 7, 7), (4096, 4096, 1, 1)]  # fmt: skip
    assert [s[:2] for n, s in weights.items() if n.startswith("scores")] == [
        (2, 4096), (2, 512), (2, 256)]  # fmt: skip
    assert [s for n, s in weights.items() if n.startswith("ups")] == [
        (2, 2, 4, 4), (2, 2, 4, 4), (2, 2, 16, 16)]  # fmt: skip


def test_every_convolution_but_the_scores_is_normalised_by_four_groups():
    net = FCN8(1, **SMALL)
    norms = [m for m in net.modules() if isinstance(m, torch.nn.GroupNorm)]
    convs = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {m.num_groups for m in norms} == {4}
    assert len(norms) == sum(SMALL["convs"]) + 2 == len(convs) - 3


@pytest.mark.parametrize("factor", [2, 8])
def test_upsampling_starts_bilinear(factor):
    x = torch.randn(2, 3, 6, 7)
    up = bilinear_upsampling(3, factor)(x)
    reference = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = slice(factor, -factor)  # at the border one pads with zeros, the other repeats
    torch.testing.assert_close(up[..., inner, inner], reference[..., inner, inner])


def test_scores_start_at_zero_and_all_three_reach_the_logits():
    torch.manual_seed(0)
    net = FCN8(1, **SMALL).eval()
    x = torch.randn(1, 1, 160, 128)
    assert net(x).shape == (1, 2, 160, 128) and not net(x).any()
    for score in net.scores:
        with torch.no_grad():
            score.bias[1] = 1.0
        out = net(x)[0]
        torch.testing.assert_close(out[1, 64:96, 48:80], torch.ones(32, 32))
        assert not out[0].any()
        with torch.no_grad():
            score.bias.zero_()


def test_each_score_is_spread_by_the_upsamplings_after_it():
    """One entry of a score covers 16 pixels through the ×8 (its kernel); 4 entries of stride 8 and
    that kernel, 3·8 + 16 = 40, through one ×2 before it; 3·2 + 4 = 10 entries, 88, through two."""
    net = FCN8(1, **SMALL)
    reach = []
    for stage in range(3):
        total = torch.zeros(1, 2, 12, 12)
        total[0, 1, 6, 6] = 1
        with torch.no_grad():
            for up in list(net.ups)[stage:]:
                total = up(total)
        reach.append(int((total[0, 1].amax(0) > 0).sum()))
        assert not total[0, 0].any()  # the classes are kept apart at first
    assert reach == [88, 40, 16]


def test_one_dropout_mask_per_forward_and_none_in_eval():
    torch.manual_seed(0)
    net = FCN8(1, **SMALL)
    torch.nn.init.normal_(net.scores[0].weight)
    x = torch.randn(2, 1, 64, 64)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_gradients_reach_every_weight_once_the_scores_are_not_zero():
    torch.manual_seed(0)
    net = FCN8(1, **SMALL)
    for score in net.scores:
        torch.nn.init.normal_(score.weight)
    net(torch.randn(2, 1, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"widths": (8, 8)}, "five"), ({"fc_kernel": 4}, "odd"), ({"dropout": 1.5}, "dropout")],
)
def test_wrong_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        FCN8(1, **(SMALL | change))


@pytest.mark.parametrize("shape", [(1, 1, 48, 64), (1, 64, 64)])
def test_wrong_sizes_are_refused(shape):
    with pytest.raises(ValueError, match="32"):
        FCN8(1, **SMALL)(torch.zeros(shape))


@pytest.mark.gpu
def test_cuda_agrees_with_cpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.manual_seed(0)
    net = FCN8(1, **SMALL).eval()
    for score in net.scores:
        torch.nn.init.normal_(score.weight)
    x = torch.randn(2, 1, 64, 64)
    cpu = net(x)
    torch.testing.assert_close(net.cuda()(x.cuda()).cpu(), cpu, atol=1e-3, rtol=1e-3)
