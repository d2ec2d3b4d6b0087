import dataclasses

import pytest
import torch

from medseg_core.papers.edpcnn import experiment
from medseg_core.papers.edpcnn.experiment import SETTINGS, Parts, Settings
from medseg_core.papers.edpcnn.marginal_loss import marginal_loss
from medseg_core.papers.edpcnn.pixel_loss import pixel_loss
from medseg_core.solvers import star_dp
from medseg_core.solvers.star_pattern import (
    contour_points,
    contour_to_mask,
    smooth_indices,
    warp,
)

TINY = dataclasses.replace(
    SETTINGS["smoke"], size=32, radius=12.0, n_points=12, n_lines=8, widths=(4, 8), f_width=4,
    batch=4, steps=2, validate_every=1, n_train=(4, 8), n_validation=2, n_test=4, smooth=3,
)  # fmt: skip
CPU = torch.device("cpu")


def segment(maps, data):
    """The notebook's pipeline, with an explicit star."""
    g = warp(maps, experiment.star(TINY, data["centre"]))
    v = smooth_indices(star_dp.circular_dp(g, TINY.delta), TINY.smooth)
    corners = contour_points(data["centre"], v, TINY.radius / TINY.n_points)
    return contour_to_mask(corners, (TINY.size, TINY.size))


def solver(g):
    return star_dp.circular_dp(g, TINY.delta) - 1


def through_f(sg, maps, points, v_star):
    g = warp(maps, points)
    agreement = torch.tensor(sg.step(g))
    return {"loss": sg.loss(g, v_star - 1), "agreement": agreement}


through_marginals = marginal_loss(TINY.delta, TINY.gamma)


@pytest.fixture(scope="module")
def bench():
    parts = Parts(*map(experiment.prepared, experiment.load_phantom(TINY, seed=0)))
    return experiment.Bench(TINY, parts, segment, CPU)


class FakeReader:
    """Eight patients with two slices each; the image of slice i holds i on a ramp."""

    def __init__(self):
        self.asked = []

    def load(self, indices=None, *, size, spacing):
        self.asked.append((size, spacing))
        index = torch.arange(16) if indices is None else torch.tensor(indices)
        ramp = torch.linspace(0, 1, size * size).view(1, 1, size, size)
        return {
            "image": ramp + index[:, None, None, None],
            "group": index // 2,
            "index": index,
            "pathology": ["normal" if i < 8 else "hypertrophy" for i in index.tolist()],
        }

    def split(self):
        return [0, 1, 2], [3, 4]


def test_the_table_has_three_scales_of_one_kind():
    assert list(SETTINGS) == ["smoke", "lesson", "paper"]
    assert all(type(s) is Settings for s in SETTINGS.values())
    assert SETTINGS["lesson"] == Settings()
    for s in SETTINGS.values():
        assert s.smooth % 2 == 1 and s.smooth <= s.n_lines
        assert s.radius / s.n_points == 1.0  # one sample per pixel


def test_every_data_set_has_a_loader():
    assert list(experiment.SOURCES) == list(experiment.LOADERS)
    assert experiment.SOURCES["phantom"] is None


def test_parts_of_the_phantom_are_disjoint_patients_and_another_seed_draws_others():
    parts = experiment.load_phantom(TINY, seed=0)
    assert [len(part["image"]) for part in parts] == [8, 2, 4]
    patients = [set(part["group"].tolist()) for part in parts]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 7
    for part in parts:
        means = part["image"].mean((1, 2, 3))
        torch.testing.assert_close(means, torch.zeros_like(means), atol=1e-4, rtol=0)
    again, other = experiment.load_phantom(TINY, seed=0), experiment.load_phantom(TINY, seed=1)
    for a, b, c in zip(parts, again, other, strict=True):
        assert torch.equal(a["image"], b["image"]) and not torch.equal(a["image"], c["image"])


@pytest.mark.parametrize(
    "change", [{"n_train": (5001,)}, {"n_validation": 5001}, {"n_validation": 0}]
)
def test_a_part_that_would_reach_into_the_next_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        experiment.load_phantom(dataclasses.replace(TINY, **change), seed=0)


def test_sunnybrook_is_split_by_patients_and_by_disease():
    reader = FakeReader()
    parts = experiment.load_sunnybrook(TINY, 0, reader)
    patients = [set(part["group"].tolist()) for part in parts]
    assert list(map(len, patients)) == [2, 2, 4] and len(set.union(*patients)) == 8
    for part in parts:  # patients 0 to 3 are normal
        assert (
            sum(p < 4 for p in set(part["group"].tolist())) == len(set(part["group"].tolist())) / 2
        )
    assert set(reader.asked) == {(32, 4.0)}  # 32 pixels of 4: the middle 128
    assert parts.test["image"].mean().abs() < 1e-5
    assert any(
        not torch.equal(
            parts.test["index"], experiment.load_sunnybrook(TINY, seed, reader)[2]["index"]
        )
        for seed in (1, 2, 3)
    )


@pytest.mark.parametrize(("size", "spacing"), [(32, 1.3672 * 106 / 32), (212, 1.3672)])
def test_acdc_takes_the_papers_split_and_grid(size, spacing):
    reader = FakeReader()
    parts = experiment.load_acdc(dataclasses.replace(TINY, size=size), 0, reader)
    assert [part["index"].tolist() for part in parts] == [[0, 1, 2], [3, 4], [3, 4]]
    assert all(asked == (size, pytest.approx(spacing)) for asked in reader.asked)


def test_prepared_drops_ventricles_below_four_pixels_and_hides_everything_else():
    label = torch.zeros(3, 8, 8, dtype=torch.int64)
    label[0, 2:4, 2:4] = 3  # four pixels
    label[1, 2, 2:5] = 3  # three
    label[2, 1:6, 1:6] = 2  # muscle alone
    data = {
        "image": torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 8, 8),
        "label": label,
        "centre": torch.tensor([[2.5, 2.5], [2.0, 3.0], [3.0, 3.0]]),
        "phase_name": ["ED", "ES", "ED"],
        "spacing": (1.5, 1.5),
        "hidden": {"noise_free": None},
    }
    out = experiment.prepared(data)
    assert set(out) == {"image", "mask", "centre", "phase_name", "spacing"}
    assert out["image"].shape == (1, 1, 8, 8) and out["image"].max() == 0
    assert out["mask"].dtype == torch.bool and out["mask"].shape == (1, 1, 8, 8)
    assert out["mask"].sum() == 4 and out["mask"][0, 0, 2:4, 2:4].all()
    assert out["centre"].tolist() == [[2.5, 2.5]] and out["phase_name"] == ["ED"]
    with pytest.raises(ValueError, match="4 pixels"):
        experiment.prepared(data | {"label": label * 0})


def test_smaller_subsets_lie_inside_larger_ones():
    data = {
        "image": torch.arange(20.0).view(20, 1, 1, 1),
        "mask": torch.arange(20).view(20, 1, 1, 1),
    }
    order = [experiment.subset(data, n, seed=3)["image"].flatten().tolist() for n in (4, 9, 20)]
    assert order[0] == order[1][:4] and order[1] == order[2][:9]
    assert sorted(order[2]) == list(range(20))
    assert experiment.subset(data, 20, seed=4)["image"].flatten().tolist() != order[2]
    masks = experiment.subset(data, 9, seed=3)["mask"]
    assert masks.flatten().tolist() == order[1]
    for n in (0, 21):
        with pytest.raises(ValueError, match=r"n must be in \[1, 20\]"):
            experiment.subset(data, n, seed=3)


def test_network_gives_maps_of_the_images_size_also_without_padding():
    assert experiment.network(TINY)(torch.zeros(2, 1, 32, 32)).shape == (2, 1, 32, 32)
    valid = dataclasses.replace(TINY, padding="valid", size=20, margin=8)
    assert experiment.network(valid)(torch.zeros(1, 1, 20, 20)).shape == (1, 1, 20, 20)


def check_run(out, n_test=4, updates=2, images=8):
    """What `run_arms` demands, and finite Dice for every test image."""
    assert (out["updates"], out["images"]) == (updates, images)
    assert {"dice", "assd", "hd"} < set(out)
    for key in ("dice", "assd", "hd"):
        assert out[key].shape == (n_test,)
    assert ((out["dice"] >= 0) & (out["dice"] <= 1)).all()
    assert out["extras"]["test"].shape == (n_test, 1, 32, 32)
    assert [at for at, _ in out["extras"]["history"].validation] == [1, 2]


def test_unet_arm_keeps_for_each_feed_the_maps_best_through_the_solver(bench):
    feeds = {"mask": lambda x: (x > 0).float(), "logits": lambda x: x}
    torch.manual_seed(0)
    out = experiment.unet_arm(4, 1e-2, pixel_loss("CE"), feeds, bench)(0)
    check_run(out)
    through = out["extras"]["through_dp"]
    assert list(through) == ["mask", "logits"]
    for best, fed in through.values():
        assert 0 <= best <= 1 and fed.shape == (4, 1, 32, 32)
    assert set(through["mask"][1].unique().tolist()) <= {0.0, 1.0}


def test_contour_arm_is_repeatable_and_looks_inside_where_it_is_told_to(bench):
    def run(watch):
        torch.manual_seed(0)
        return experiment.contour_arm(4, 1e-2, through_f, solver, bench, watch=watch)(0)

    out, plain = run(watch=(0, 1)), run(watch=())
    check_run(out)
    assert torch.equal(out["extras"]["test"], plain["extras"]["test"])  # looking changes nothing
    assert set(plain["extras"]) == {"history", "test"}
    assert [look["update"] for look in out["extras"]["seen"]] == [0, 1]
    parts = out["extras"]["history"].parts
    assert set(parts) == {"agreement", "uncovered"} and len(parts["uncovered"]) == 2
    model = experiment.network(TINY)
    model.load_state_dict(out["extras"]["state"])
    maps = experiment.output_maps(model, bench.parts.test["image"], 4)
    assert torch.equal(maps, out["extras"]["test"])  # the weights that were judged are kept


def test_contour_arm_without_a_solver_to_imitate(bench):
    torch.manual_seed(0)
    check_run(experiment.contour_arm(4, 1e-2, through_marginals, None, bench)(0))


def test_arms_refuse_more_images_than_there_are(bench):
    with pytest.raises(ValueError, match="n must be"):
        experiment.contour_arm(99, 1e-2, through_marginals, None, bench)(0)
