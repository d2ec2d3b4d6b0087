import torch
from torch import nn

from medseg_core.papers.edpcnn.evaluation import disc
from medseg_core.papers.edpcnn.maps import look_inside, output_maps
from medseg_core.papers.edpcnn.star_approximator import StarApproximator
from medseg_core.papers.edpcnn.synthetic_gradient import SyntheticGradient
from medseg_core.solvers.star_pattern import star_pattern


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1))


def test_output_maps_do_not_depend_on_the_batch_and_move_no_statistics():
    model, images = network(), torch.randn(5, 1, 8, 8)
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    maps = output_maps(model, images, 2)
    torch.testing.assert_close(maps, output_maps(model, images, 5))
    assert maps.shape == images.shape and not maps.requires_grad and not model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_look_inside_changes_nothing_and_shows_the_outer_loss():
    model, f = network().train(), StarApproximator(width=4)
    optimizer = torch.optim.Adam(f.parameters())
    gen = torch.Generator().manual_seed(0)

    def solver(g):
        return g.diff(dim=-1).argmin(-1)

    sg = SyntheticGradient(f, solver, optimizer, gen, sigma=1.0, n_steps=1)
    centre = torch.tensor([[8.0, 8.0], [7.0, 9.0]])
    image, mask = torch.randn(2, 1, 17, 17), disc(centre, 3.2, 17)
    before = {k: v.clone() for net in (model, f) for k, v in net.state_dict().items()}
    look = look_inside(model, sg, image, mask, star_pattern(centre, 8, 6, 6.0))
    after = {k: v for net in (model, f) for k, v in net.state_dict().items()}
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert model.training and gen.get_state().equal(torch.Generator().manual_seed(0).get_state())
    assert look["maps"].shape == (2, 1, 17, 17) and look["g"].shape == (2, 8, 7)
    assert torch.equal(look["dp"], solver(look["g"]))
    # Along the axes the first sample beyond a radius of 3.2 is the fourth.
    assert look["v_star"][:, ::2].eq(4).all()
    torch.testing.assert_close(look["softmax"].sum(-1), torch.ones(2, 8))
    torch.testing.assert_close(look["gradient"], sg.gradient(look["g"], look["v_star"] - 1))
