"""Each recipe switches what it says, and nothing else."""

import dataclasses

import pytest
import torch

from medseg_core.papers.ipm_surfaces import losses, recipes
from medseg_core.papers.ipm_surfaces.recipes import EXTENDED, RECIPES, Recipe
from medseg_core.papers.ipm_surfaces.surface_net import gradient_channels

ALL = RECIPES | EXTENDED
OUT = {
    "mu": torch.tensor([[[5.0], [3.0], [9.0]]]),
    "xi": torch.tensor([[[6.0], [2.0], [7.0]]]),
    "sigma2": torch.tensor([[[1.0], [3.0], [1.0]]]),
}


def example(height=12, n=3, width=4, seed=0):
    """What a network could say, and a batch with an unknown column."""
    gen = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=gen)

    out = {
        "region_logits": random(2, n + 1, height, width),
        "log_p": random(2, n, height, width).log_softmax(2),
        "sigma2": random(2, n, width).square() + 1,
    }
    surfaces = (torch.arange(1.0, n + 1)[:, None] * 3 + 0.4).expand(2, n, width).clone()
    valid = torch.ones(2, n, width, dtype=torch.bool)
    valid[0, 0, 1] = False
    surfaces[0, 0, 1] = torch.nan
    rows = torch.arange(height)[:, None]
    batch = {
        "image": random(2, 1, height, width).sigmoid(),
        "surfaces": surfaces,
        "valid": valid,
        "label": (rows >= surfaces.nan_to_num(1e9)[:, :, None]).sum(1),
    }
    return out, 6 + random(2, n, width), batch


def losses_of(name, late=True, **changes):
    out, placed, batch = example()
    options = {"sigma": 2.0, "l1_weight": 10.0, "late": late, "circular": False} | changes
    return recipes.training_losses(out, placed, batch, ALL[name], **options)


class TestPlace:
    def test_three_ways_by_hand(self):
        layer = recipes.place(OUT, Recipe(), 1e-8)
        # The first two meet at the mean of 5 and 3, weighted 1 : 1/3.
        assert layer.flatten().tolist() == pytest.approx([4.5, 4.5, 9.0])
        assert recipes.place(OUT, Recipe(order="none"), 1e-8) is OUT["mu"]
        rival = recipes.place(OUT, Recipe(order="running maximum"), 1e-8)
        assert rival.flatten().tolist() == [6.0, 6.0, 7.0]

    @pytest.mark.parametrize(
        ("name", "order"),
        [(n, {"no IPM": "none", "soft-argmax": "none", "FCBR": "running maximum"}) for n in ALL],
    )
    def test_of_each_recipe(self, name, order):
        assert ALL[name].order == order.get(name, "layer")


class TestNetwork:
    @pytest.mark.parametrize("name", ALL)
    def test_input_and_fusion(self, name):
        recipe = ALL[name]
        model = recipes.network(recipe, 3, (4, 8), 2.0, False).eval()
        images = torch.rand(1, 1, 16, 8)
        x = recipes.channels(images, recipe, False)
        assert x.shape[1] == (1 if name == "one channel" else 5)
        assert torch.equal(x[:, :1], images)
        with torch.no_grad():
            out = model(x)
        fused = not torch.equal(out["mu"], out["xi"])
        assert fused == (name not in ("FCBR", "soft-argmax", "no region μ"))

    def test_circular_reaches_the_channels(self):
        images = torch.rand(1, 1, 16, 8)
        closed, plain = (recipes.channels(images, Recipe(), circular) for circular in (True, False))
        assert not torch.equal(closed[..., 0], plain[..., 0])
        assert torch.equal(closed[..., 1:-1], plain[..., 1:-1])


class TestTrainingLosses:
    def test_which_are_summed(self):
        full = ["regions", "columns", "smooth", "position"]
        for name in ALL:
            kept = [
                part
                for part in full
                if not (part == "regions" and name == "soft-argmax")
                and not (part == "smooth" and name in ("FCBR", "no smooth loss"))
            ]
            assert list(losses_of(name)) == kept

    @pytest.mark.parametrize(
        ("name", "other"),
        [
            ("no IPM", []),
            ("no region μ", []),
            ("one channel", []),
            ("dynamic σ", ["columns"]),
            ("weighted cross entropy", ["columns"]),
            ("plain KL", ["columns"]),
            ("FCBR", ["regions", "columns", "position"]),
        ],
    )
    def test_what_differs_from_ipm(self, name, other):
        ipm, found = losses_of("IPM"), losses_of(name)
        assert [part for part in found if not torch.equal(found[part], ipm[part])] == other

    def test_columns_by_the_losses_themselves(self):
        out, _, batch = example()
        weight = 1 + 10 * gradient_channels(batch["image"])[:, 3:4]
        wide = losses.gaussian_target(batch["surfaces"], 12, out["sigma2"].sqrt())
        expected = {
            "dynamic σ": losses.weighted_divergence(out["log_p"], wide, weight, batch["valid"]),
            "weighted cross entropy": losses.surface_cross_entropy(
                out["log_p"], batch["surfaces"], batch["valid"], weight
            ),
            "FCBR": losses.surface_cross_entropy(out["log_p"], batch["surfaces"], batch["valid"]),
        }
        for name, value in expected.items():
            torch.testing.assert_close(losses_of(name)["columns"], value)

    def test_early_the_surfaces_do_not_count(self):
        for name in ALL:
            early, late = losses_of(name, late=False), losses_of(name)
            for part in early:
                if part in ("smooth", "position"):
                    assert early[part] == 0 and late[part] > 0
                else:
                    assert early[part] == late[part]

    def test_position_has_its_weight_for_all_but_the_rival(self):
        once, thrice = (losses_of("IPM", l1_weight=w)["position"] for w in (1.0, 3.0))
        torch.testing.assert_close(thrice, 3 * once)
        once, thrice = (losses_of("FCBR", l1_weight=w)["position"] for w in (1.0, 3.0))
        assert thrice == once

    def test_circular_reaches_smoothness_and_weight(self):
        closed, plain = (losses_of("IPM", circular=circular) for circular in (True, False))
        assert closed["smooth"] != plain["smooth"] and closed["columns"] != plain["columns"]

    def test_the_predicted_width_gets_no_gradient(self):
        out, placed, batch = example()
        out = {k: v.requires_grad_() for k, v in out.items()}
        recipe = dataclasses.replace(Recipe(), dynamic_sigma=True)
        parts = recipes.training_losses(
            out, placed, batch, recipe, sigma=2.0, l1_weight=10.0, late=True, circular=False
        )
        sum(parts.values()).backward()
        assert out["sigma2"].grad is None and out["log_p"].grad.isfinite().all()


class TestRegionsLoss:
    def certain(self, label, n):
        """Logits of a network that is sure of this label."""
        return 50 * torch.nn.functional.one_hot(label, n + 1).movedim(-1, 1).float()

    def test_nothing_to_learn_where_it_is_right(self):
        batch = {"valid": torch.ones(1, 1, 2, dtype=torch.bool)}
        batch["label"] = torch.tensor([[[0, 0], [0, 1], [1, 1], [1, 1]]])
        for plain in (False, True):
            value = recipes.regions_loss(self.certain(batch["label"], 1), batch, plain=plain)
            assert value.item() == pytest.approx(0, abs=1e-5)

    def test_cross_entropy_by_hand(self):
        # An undecided network: log 2 per pixel. Generalised Dice: 1 − 2·Σ w·n/2 / Σ w·(n + 4), for
        # regions of 3 and 5 of 8 pixels, w = 1/n²: 1 − (1/3 + 1/5) / (7/9 + 9/25).
        batch = {"valid": torch.ones(1, 1, 2, dtype=torch.bool)}
        batch["label"] = torch.tensor([[[0, 0], [0, 1], [1, 1], [1, 1]]])
        value = recipes.regions_loss(torch.zeros(1, 2, 4, 2), batch)
        dice = 1 - (1 / 3 + 1 / 5) / (7 / 9 + 9 / 25)
        assert value.item() == pytest.approx(dice + torch.log(torch.tensor(2.0)).item(), abs=1e-4)

    def test_columns_with_a_gap_do_not_count(self):
        out, _, batch = example()
        before = recipes.regions_loss(out["region_logits"], batch)
        out["region_logits"][0, :, :, 1] += 9 * torch.randn(4, 12)
        torch.testing.assert_close(recipes.regions_loss(out["region_logits"], batch), before)
        out["region_logits"][0, :, :, 2] += 9 * torch.randn(4, 12)
        assert recipes.regions_loss(out["region_logits"], batch) != before


@pytest.mark.parametrize("bad", [{"order": "sorted"}, {"loss": "Dice"}])
def test_refuses(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Recipe(**bad)
