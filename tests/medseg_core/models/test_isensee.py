import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medseg_core.models.isensee import IsenseeUNet

CONVS = (nn.Conv2d, nn.Conv3d)
NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)


def every(module, kinds):
    return [m for m in module.modules() if isinstance(m, kinds)]


def test_the_published_network_has_30_convolutions_and_27_instance_norms():
    net = IsenseeUNet(3, 4, 3)
    assert (len(every(net, CONVS)), len(every(net, NORMS))) == (30, 27)
    assert [c.out_channels for c in net.entries] == [16, 32, 64, 128, 256]
    assert [c.stride[0] for c in net.entries] == [1, 2, 2, 2, 2]
    assert [s.in_channels for s in net.segmentations] == [64, 32, 16]
    assert [d.p for d in every(net, nn.Dropout3d)] == [0.3] * 5
    # 27 kernels of the residual modules, entries, decoder; affine norms; segmentation layers
    w = [16, 32, 64, 128, 256]
    hand = sum(2 * 27 * c * c for c in w) + sum(
        27 * a * b for a, b in zip([4, *w], w, strict=False)
    )
    hand += sum(27 * 2 * c * c + 27 * 4 * c * c + 2 * c * c for c in w[:-1])
    hand += sum(2 * 3 * c for c in w) + sum(2 * (c + 2 * c + c) for c in w[:-1])
    hand += sum(3 * c + 3 for c in w[:3])
    assert sum(p.numel() for p in net.parameters()) == hand


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("dims", [2, 3])
def test_any_depth_gives_logits_of_the_images_size_and_gradients_everywhere(dims, depth):
    torch.manual_seed(0)
    net = IsenseeUNet(dims, 2, 3, width=3, depth=depth).eval()  # no dropout
    assert len(every(net, CONVS)) == 6 * depth - 3 + min(3, depth - 1)
    size = (16, 24, 8)[:dims]
    logits = net(torch.randn(2, 2, *size))
    assert logits.shape == (2, 3, *size)
    logits.square().mean().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


def test_the_forward_pass_written_out_for_two_levels():
    torch.manual_seed(1)
    net = IsenseeUNet(2, 1, 2, width=4, depth=2).eval()
    for p in net.parameters():  # the affine norms too must matter
        nn.init.normal_(p, std=0.5)
    w = dict(net.named_parameters())

    def conv(x, name, stride=1):
        kernel = w[f"{name}.weight"]
        padding = kernel.shape[-1] // 2
        return F.conv2d(x, kernel, w.get(f"{name}.bias"), stride=stride, padding=padding)

    def norm(x, name):
        mean = x.mean((2, 3), keepdim=True)
        x = (x - mean) / (x.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
        x = x * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]
        return torch.where(x > 0, x, 0.01 * x)

    def context(x, name):
        y = conv(norm(x, f"{name}.residual.0.0"), f"{name}.residual.1")
        y = conv(norm(y, f"{name}.residual.3.0"), f"{name}.residual.4")
        return norm(x + y, f"{name}.leave.0")

    x = torch.randn(2, 1, 12, 8)
    fine = context(conv(x, "entries.0"), "contexts.0")
    deep = context(conv(fine, "entries.1", stride=2), "contexts.1")
    up = deep.repeat_interleave(2, 2).repeat_interleave(2, 3)
    up = norm(conv(up, "ups.0.0"), "ups.0.1.0")
    y = torch.cat((up, fine), 1)
    y = norm(conv(y, "localisations.0.0.0"), "localisations.0.0.1.0")
    y = norm(conv(y, "localisations.0.1.0"), "localisations.0.1.1.0")
    torch.testing.assert_close(net(x), conv(y, "segmentations.0"), rtol=1e-4, atol=1e-4)


def test_segmentation_maps_are_summed_before_any_activation():
    net = IsenseeUNet(3, 1, 1, width=4, depth=4).eval()
    x = torch.randn(1, 1, 16, 16, 16)
    full = net(x)
    parts = []
    for keep in range(3):
        saved = {k: v.clone() for k, v in net.segmentations.state_dict().items()}
        for i, layer in enumerate(net.segmentations):
            if i != keep:
                nn.init.zeros_(layer.weight)
        parts.append(net(x))
        net.segmentations.load_state_dict(saved)
    torch.testing.assert_close(sum(parts), full)  # linear in each map
    coarse = parts[0][0, 0]  # the level at a quarter of the resolution: blocks of 4 voxels
    assert torch.equal(
        coarse,
        coarse[::4, ::4, ::4]
        .repeat_interleave(4, 0)
        .repeat_interleave(4, 1)
        .repeat_interleave(4, 2),
    )


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_head_on_cached_features_is_the_network(depth):
    torch.manual_seed(2)
    net = IsenseeUNet(3, 1, 1, width=4, depth=depth).eval()
    x = torch.randn(2, 1, 16, 8, 24)
    with torch.no_grad():
        features = net.features(x)
    assert len(features) == depth - 1
    assert features[-1].shape == (2, 8, 16, 8, 24)
    logits = net.head(features)
    assert torch.equal(logits, net(x))
    logits.square().mean().backward()
    trained = {name for name, p in net.named_parameters() if p.grad is not None}
    assert trained == set(net.last_block)
    assert 0 < len(trained) < len(list(net.parameters()))


def test_dropout_is_the_only_difference_between_train_and_eval():
    torch.manual_seed(3)
    net = IsenseeUNet(2, 1, 1, width=4, depth=3)
    x = torch.randn(2, 1, 16, 16)
    assert not torch.equal(net.train()(x), net(x))
    expected = net.eval()(x)
    for layer in every(net, nn.Dropout2d):
        layer.p = 0.0
    assert torch.equal(net.train()(x), expected)


def test_it_learns_a_disc():
    torch.manual_seed(4)
    r, c = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    centres = torch.tensor([[6.0, 6.0], [9.0, 8.0], [7.0, 10.0], [8.0, 5.0]])
    d2 = (r - centres[:, 0, None, None]) ** 2 + (c - centres[:, 1, None, None]) ** 2
    target = (d2 < 16)[:, None].float()
    net = IsenseeUNet(2, 1, 1, width=4, depth=2).eval()
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(40):
        loss = F.binary_cross_entropy_with_logits(net(target + 0.3), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1


def test_refusals():
    net = IsenseeUNet(3, 1, 1, width=2, depth=3)
    with pytest.raises(
        ValueError, match=r"\(16, 18, 16\) must be divisible by 4 .* \(16, 20, 16\)"
    ):
        net(torch.zeros(1, 1, 16, 18, 16))
    with pytest.raises(ValueError, match="one pixel at depth 3"):
        net(torch.zeros(1, 1, 4, 4, 4))
    with pytest.raises(ValueError, match="must have 5 axes"):
        net(torch.zeros(1, 1, 16, 16))
    for options in ({"depth": 1}, {"width": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            IsenseeUNet(3, 1, 1, **options)
    with pytest.raises(ValueError, match="spatial_dims must be one of 2, 3"):
        IsenseeUNet(1, 1, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu():
    torch.manual_seed(5)
    net = IsenseeUNet(3, 1, 1, width=4, depth=3).eval()
    x = torch.randn(2, 1, 16, 16, 16)
    want = net(x)
    torch.testing.assert_close(net.cuda()(x.cuda()).cpu(), want, rtol=1e-2, atol=1e-2)
