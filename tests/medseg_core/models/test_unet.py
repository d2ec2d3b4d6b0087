import itertools

import pytest
import torch
from torch.nn import functional as F

from medseg_core.models.unet import UNet
from medseg_core.models.unet_blocks import CircularColumns

OPTIONS = {
    "act": ("relu", "leaky"),
    "block": ("plain", "residual"),
    "up": ("transpose", "bilinear"),
    "skip": ("concat", "sum"),
    "padding": ("same", "valid", "circular"),
}
SINGLE = [{name: value} for name, values in OPTIONS.items() for value in values]
PAIRS = [
    {"block": b, "skip": s, "padding": p}
    for b, s, p in itertools.product(*(OPTIONS[k] for k in ("block", "skip", "padding")))
]


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("options", SINGLE + PAIRS, ids=str)
def test_every_option_gives_the_promised_shape_and_gradients_everywhere(options):
    net = UNet(2, 3, 2, widths=(4, 8, 8), **options)
    side = 44 if options.get("padding") == "valid" else 16
    x = torch.randn(2, 3, side, side)
    logits = net(x)
    assert logits.shape == (2, 2, *net.output_size((side, side)))
    logits.square().mean().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
        assert p.grad.abs().sum() > 0, name


@pytest.mark.parametrize("padding", ["same", "circular", "valid"])
@pytest.mark.parametrize("up", OPTIONS["up"])
def test_three_dimensions(padding, up):
    net = UNet(3, 1, 2, widths=(2, 4), padding=padding, up=up, block="residual")
    x = torch.randn(1, 1, 18, 20, 22)
    logits = net(x)
    assert logits.shape == (1, 2, *net.output_size((18, 20, 22)))
    logits.sum().backward()


def test_parameters_by_hand():
    def block(a, b):
        return 9 * a * b + 9 * b * b + 4 * b  # two convolutions without bias, two norms

    # encoder 1-4-8, transposed convolution 8 -> 4, decoder 8 -> 4, head 4 -> 2
    hand = block(1, 4) + block(4, 8) + (8 * 4 * 4 + 4) + block(8, 4) + (4 * 2 + 2)
    assert count(UNet(2, 1, 2, widths=(4, 8))) == hand
    assert count(UNet(2, 1, 2, widths=(8, 16, 32, 64))) == 121_042


def test_ronneberger_original():
    """The published network: 31 M weights, 572 -> 388, and 396 -> 212 for the cardiac slices."""
    with torch.device("meta"):
        net = UNet(2, 1, 2, widths=(64, 128, 256, 512, 1024), padding="valid")
    norms = 2 * 2 * (64 + 128 + 256 + 512) + 2 * 1024  # channels behind a 3×3 convolution
    # The published convolutions have a bias each, ours a norm with two numbers a channel.
    assert count(net) - norms == 31_030_658
    assert net.output_size((572, 572)) == (388, 388)
    with torch.device("meta"):
        assert net(torch.empty(1, 1, 396, 396)).shape == (1, 2, 212, 212)


def test_valid_padding_sees_the_centre_of_the_image_only():
    """Valid logits are the central ones of a same-padded net on the same weights."""
    torch.manual_seed(0)
    valid = UNet(2, 1, 1, widths=(4, 8), padding="valid").eval()
    same = UNet(2, 1, 1, widths=(4, 8), padding="same").eval()
    same.load_state_dict(valid.state_dict())
    x = torch.randn(1, 1, 48, 48)
    small = valid(x)
    assert small.shape[-1] == 32
    torch.testing.assert_close(small, same(x)[..., 8:-8, 8:-8], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("up", OPTIONS["up"])
@pytest.mark.parametrize("dims", [2, 3])
def test_circular_columns_commute_with_a_turn(dims, up):
    torch.manual_seed(1)
    net = UNet(dims, 1, 1, widths=(4, 6, 8), padding="circular", up=up).eval()
    x = torch.randn(1, 1, *(8, 12, 16)[3 - dims :])
    turned = net(x.roll(4, -1))  # one step of the deepest level
    torch.testing.assert_close(turned, net(x).roll(4, -1), atol=1e-5, rtol=1e-4)
    rows = net(x.roll(4, -2))
    assert not torch.allclose(rows, net(x).roll(4, -2), atol=1e-3)  # rows do not close


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_circular_columns_equal_torchs_padding(columns):
    x = torch.randn(2, 3, 4, columns, dtype=torch.float64, requires_grad=True)
    wrapped = CircularColumns()(x)
    assert torch.equal(wrapped, F.pad(x, (1, 1, 0, 0), mode="circular"))
    assert torch.autograd.gradcheck(CircularColumns(), x)
    assert torch.autograd.gradgradcheck(CircularColumns(), x)


def test_features_feed_the_head():
    net = UNet(2, 1, 2, widths=(4, 8)).eval()
    x = torch.randn(1, 1, 16, 16)
    features = net.features(x)
    assert features.shape == (1, 4, 16, 16)
    assert torch.equal(net.head(features), net(x))


def test_dropout_acts_in_training_and_only_then():
    net = UNet(2, 1, 1, widths=(4, 8), dropout=0.5)
    x = torch.randn(1, 1, 16, 16)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_residual_block_is_the_activated_shortcut_when_its_convolutions_are_zero():
    first = UNet(2, 3, 1, widths=(3, 4), block="residual").encoders[0]
    for layer in first.layers:
        if hasattr(layer, "weight"):
            torch.nn.init.zeros_(layer.weight)
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(first(x), x.relu())


def test_kaiming_keeps_the_scale_of_the_activations():
    torch.manual_seed(0)
    net = UNet(2, 1, 1, widths=(64, 64), convs=4)
    x = torch.randn(4, 1, 32, 32)
    layers = [m for m in net.encoders[0].layers if not isinstance(m, torch.nn.BatchNorm2d)]
    y = torch.nn.Sequential(*layers)(x).detach()
    assert 0.5 < float(y.square().mean() / (2 * x.square().mean())) < 2


def test_one_level_is_a_plain_stack():
    assert UNet(2, 1, 2, widths=(4,))(torch.randn(1, 1, 7, 5)).shape == (1, 2, 7, 5)


@pytest.mark.parametrize("name", OPTIONS)
def test_unknown_options_are_refused_by_name(name):
    with pytest.raises(ValueError, match=name):
        UNet(2, 1, 1, **{name: "nonsense"})


def test_bad_sizes_say_the_next_good_one():
    with pytest.raises(ValueError, match=r"divisible by 8 .*\(64, 72\)"):
        UNet(2, 1, 1)(torch.zeros(1, 1, 64, 70))
    with pytest.raises(ValueError, match=r"next size: \(44, 48\)"):
        UNet(2, 1, 1, widths=(4, 8, 8), padding="valid")(torch.zeros(1, 1, 9, 46))
    with pytest.raises(ValueError, match="4 axes"):
        UNet(2, 1, 1)(torch.zeros(1, 64, 64))
    with pytest.raises(ValueError, match="widths"):
        UNet(2, 1, 1, widths=())
    with pytest.raises(ValueError, match="spatial_dims"):
        UNet(4, 1, 1)
