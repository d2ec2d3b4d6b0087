import pytest
import torch
from torch import nn

from medseg_core.papers.selected_dimensions_oct.blocks import Funnel, ResBlock
from medseg_core.papers.selected_dimensions_oct.network import SelectedDimNet
from medseg_core.papers.selected_dimensions_oct.receptive_field import influence, receptive_field

CH = (4, 4, 8, 8)
KINDS = {
    "proposed": {},
    "base 1": {"encoder": False, "funnels": "first", "head_ch": 16},
    "base 2": {"funnels": "none"},
    "one funnel": {"funnels": "first"},
}


def net(**options):
    torch.manual_seed(0)
    return SelectedDimNet(8, CH, 2, **options)


def linear(model):
    """The model without what mixes or cuts off: its convolutions alone."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, (nn.BatchNorm2d, nn.GroupNorm, nn.ReLU)):
                setattr(module, name, nn.Identity())
    return model.double()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [8, 24])
def test_one_answer_per_column(kind, width):
    model = net(**KINDS[kind])
    x = torch.randn(3, 1, 8, width, requires_grad=True)
    y = model(x)
    assert y.shape == (3, 2, width)
    y.square().sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad.abs().sum((1, 2, 3)) > 0).all()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert not unused


def test_the_papers_net_has_45_funnel_steps():
    model = SelectedDimNet(512, [4] * 10, 1)
    steps = {int(level): len(funnel.steps) // 2 for level, funnel in model.funnels.items()}
    assert steps == {level: 9 - level for level in range(9)} and sum(steps.values()) == 45
    halvings = [m for m in model.funnels["0"].steps if isinstance(m, nn.Conv2d)]
    assert all(m.kernel_size == m.stride == (2, 1) for m in halvings)
    assert [m.kernel_size for m in model.downs] == [(2, 2)] * 9
    kernels = {
        part: {m.kernel_size for m in blocks.modules() if isinstance(m, nn.Conv2d)}
        for part, blocks in (
            ("encoder", model.blocks),
            ("bottom", model.bottom),
            ("decoder", model.decoders),
        )
    }
    assert kernels == {"encoder": {(3, 3)}, "bottom": {(1, 1)}, "decoder": {(1, 3)}}
    assert len(model.bottom) == 2


def test_parameters():
    """By hand: a ResBlock of c channels with n taps has 2(nc² + c) weights and 4c of its norms."""

    def block(c, taps):
        return 2 * (taps * c * c + c) + 4 * c

    stem, head = 4 * 9 + 4, 2 * 4 + 2
    funnel = 3 * (2 * 16 + 4 + block(4, 9))  # 8 rows: three steps
    classifier = 16 * 4 + 16 + 2 * block(16, 1) + 2 * 16 + 2
    count = sum(p.numel() for p in net(**KINDS["base 1"]).parameters())
    assert count == stem + block(4, 9) + funnel + classifier
    encoder = 2 * block(4, 9) + 2 * block(8, 9)
    downs = (4 * 16 + 4) + (4 * 32 + 8) + (4 * 64 + 8)
    ups = (2 * 64 + 8) + (2 * 32 + 4) + (2 * 16 + 4)
    decoders = 2 * block(4, 3) + block(8, 3)
    count = sum(p.numel() for p in net(**KINDS["base 2"]).parameters())
    assert count == stem + encoder + downs + 2 * block(8, 1) + ups + decoders + head


@pytest.mark.parametrize("kind", KINDS)
def test_which_axis_is_dropped_is_a_matter_of_names(kind):
    """The same weights, turned, give the same answers for the turned image."""
    rows, columns = net(**KINDS[kind]).double(), net(drop=(1,), **KINDS[kind]).double()
    state = {k: v.transpose(2, 3) if v.ndim == 4 else v for k, v in rows.state_dict().items()}
    columns.load_state_dict(state)
    x = torch.randn(2, 1, 8, 16, dtype=torch.float64)
    torch.testing.assert_close(columns(x.transpose(2, 3)), rows(x))


@pytest.mark.parametrize(
    ("drop", "size", "left"),
    [((0,), (8, 16, 24), (16, 24)), ((2,), (16, 24, 8), (16, 24)), ((0, 1), (8, 8, 16), (16,))],
)
def test_three_dimensions(drop, size, left):
    model = SelectedDimNet(8, CH, 2, spatial_dims=3, drop=drop)
    assert model(torch.randn(1, 1, *size)).shape == (1, 2, *left)


def test_funnel_against_a_loop_over_columns():
    """Halving alone is a 2×1 convolution: a matrix product over pairs of rows, column by column."""
    funnel = Funnel(3, 2)
    x = torch.randn(2, 3, 4, 5)
    expected = x
    for step in (0, 2):
        conv, block = funnel.steps[step], funnel.steps[step + 1]
        pairs = expected.reshape(2, 3, -1, 2, 5)  # rows 2i and 2i + 1
        mixed = torch.einsum("oip,bihpw->bohw", conv.weight[..., 0], pairs)
        expected = block(mixed + conv.bias.view(1, -1, 1, 1))
    torch.testing.assert_close(funnel(x), expected, atol=1e-5, rtol=1e-4)
    assert funnel(x).shape == (2, 3, 1, 5)
    assert Funnel(3, 0)(x) is x


def test_res_block_by_hand():
    """(3, 1): norm (1, −1), relu (1, 0), first convolution (1, 2), norm (−1, 1), relu (0, 1)."""
    block = ResBlock(2, (1, 1), norm="group")
    with torch.no_grad():
        block.layers[2].weight[..., 0, 0] = torch.tensor([[1.0, 1.0], [2.0, 0.0]])
        block.layers[5].weight[..., 0, 0] = torch.tensor([[7.0, 2.0], [7.0, 5.0]])
        block.layers[5].bias[:] = torch.tensor([0.0, 0.5])
    y = block(torch.tensor([3.0, 1.0]).view(1, 2, 1, 1))
    torch.testing.assert_close(y.flatten(), torch.tensor([5.0, 6.5]), atol=1e-3, rtol=0)
    block = ResBlock(4, (3, 3)).double()
    nn.init.zeros_(block.layers[-1].weight)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(block(x), x)


def test_a_map_of_one_pixel_still_tells_images_apart():
    """Norm groups of one channel would be all zero there."""
    block = ResBlock(8, (1, 1), norm="group")
    x = torch.randn(2, 8, 1, 1)
    added = block(x) - x
    assert (added[0] - added[1]).abs().max() > 1e-3


def test_receptive_field_by_hand():
    """Each 3×3 convolution adds two columns: a stem, and two in each of 1 + log2(height) blocks."""
    assert receptive_field(net(**KINDS["base 1"]), (8, 64)) == (1 + 2 * (1 + 2 * 4),)
    deep = SelectedDimNet(512, [4] * 10, 1, encoder=False, funnels="first", head_ch=4)
    assert receptive_field(deep, (512, 64)) == (43,)
    assert receptive_field(net(**KINDS["base 1"]), (8, 8)) == (8,)  # cut off by the image
    assert receptive_field(net(), (8, 64)) > (19,)
    volume = SelectedDimNet(4, CH[:3], 1, False, "first", spatial_dims=3, drop=(1,), head_ch=4)
    assert receptive_field(volume, (20, 4, 24)) == (15, 15)


@pytest.mark.parametrize("kind", KINDS)
def test_receptive_field_against_nudging_every_column(kind):
    model = linear(net(**KINDS[kind]))
    x = torch.randn(1, 1, 8, 64, dtype=torch.float64)
    with torch.no_grad():
        before, moved = model(x)[0, :, 32], []
        for column in range(64):
            nudged = x.clone()
            nudged[..., column] += 1
            moved.append(bool(((model(nudged)[0, :, 32] - before).abs() > 1e-12).any()))
    hit = torch.tensor(moved).nonzero()[:, 0]
    assert receptive_field(net(**KINDS[kind]), (8, 64)) == (int(hit[-1] - hit[0]) + 1,)


def test_a_funnel_that_is_off_has_no_say():
    model = net()
    x = torch.randn(1, 1, 8, 16)
    before = model(x, off=(1,))
    assert not torch.allclose(before, model(x))
    with torch.no_grad():
        for p in model.funnels["1"].parameters():
            p.normal_()
    torch.testing.assert_close(model(x, off=(1,)), before)
    # All off: what is left is the decoder behind zeros.
    silent = model(x, off=range(3))
    with torch.no_grad():
        for level, join in enumerate(model.joins):
            join.weight[:, CH[level] :] = 0
    torch.testing.assert_close(model(x), silent)


def test_norms():
    """A single pixel cannot be normalised over the batch; by groups, or not at all, it can."""
    x = torch.randn(1, 1, 8, 8)
    with pytest.raises(ValueError, match="x must hold more than one image: at the bottom"):
        net(norm="batch").train()(x)
    assert net(norm="group").train()(x).shape == (1, 2, 8)
    model = net(norm="batch").eval()
    two = torch.cat([x, torch.randn(1, 1, 8, 8)])
    torch.testing.assert_close(model(two)[:1], model(x))
    # The reach of base 1 is its convolutions' alone, unless the group norm carries word further.
    wide = torch.randn(1, 1, 8, 64, requires_grad=True)
    for norm, everywhere in (("batch", False), ("group", True)):
        base1 = net(norm=norm, **KINDS["base 1"]).eval()
        grad = torch.autograd.grad(base1(wide)[0, 0, 32], wide)[0]
        assert bool((grad[..., :20] != 0).any()) is everywhere


def test_it_learns_where_a_bright_row_lies():
    """Degenerate but telling: 16 images, one bright row, its height to be found in each column."""
    torch.manual_seed(0)
    row = torch.randint(1, 7, (16, 1, 16))
    x = (torch.arange(8).view(1, 8, 1) == row).float()[:, None]
    model = SelectedDimNet(8, CH, 1)
    opt = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        loss = (model(x) - row / 8).square().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    assert loss < 0.005  # the truth's variance: 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 12}, "height must be a power of two"),
        ({"height": 1}, "height must be a power of two"),
        ({"ch": (4, 4)}, r"ch must have log2\(height\) \+ 1 = 4 entries"),
        ({"ch": (4, 4, 0, 4)}, "at least 1"),
        ({"out_ch": 0}, "at least 1"),
        ({"funnels": "some"}, "funnels must be one of 'all', 'first', 'none'; got 'some'"),
        ({"encoder": False}, "funnels must be \"first\", got 'all'"),
        ({"norm": "layer"}, "norm must be one of 'batch', 'group'"),
        ({"spatial_dims": 4}, "spatial_dims must be one of 2, 3"),
        ({"drop": (2,)}, "drop must name some of the axes 0 to 1"),
        ({"drop": (0, 1)}, "and not all"),
        ({"drop": ()}, "drop must name some"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SelectedDimNet(**({"height": 8, "ch": CH, "out_ch": 2} | options))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 16), "x must have the shape"),
        ((1, 2, 8, 16), "2, not 1"),
        ((1, 1, 16, 16), "height = 8 pixels in its dropped axis 0, got 16"),
        ((1, 1, 8, 20), r"multiple of height = 8 pixels in its kept axis 1, got 20.*24"),
    ],
)
def test_wrong_images_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        net()(torch.zeros(shape))


def test_unknown_funnels_are_refused():
    with pytest.raises(ValueError, match="off must name levels"):
        net()(torch.zeros(2, 1, 8, 8), off=(3,))
    with pytest.raises(ValueError, match="n_steps must be at least 0"):
        Funnel(2, -1)


def test_influence_is_the_slope_of_the_answer():
    model = net().eval().double()
    x = torch.randn(2, 1, 8, 16, dtype=torch.float64)
    got = influence(model, x, layer=1, column=5)
    assert got.shape == (2, 8, 16)
    nudged, h = x.clone(), 1e-6
    nudged[1, 0, 3, 6] += h
    with torch.no_grad():
        slope = (model(nudged)[1, 1, 5] - model(x)[1, 1, 5]) / h
    torch.testing.assert_close(got[1, 3, 6], slope.abs(), rtol=1e-3, atol=1e-8)
    assert not torch.allclose(influence(model, x, 1, 5, off=(0,)), got)
