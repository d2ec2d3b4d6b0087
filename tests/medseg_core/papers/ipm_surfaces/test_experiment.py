"""Settings, loaders and the training arm of the chapter."""

import dataclasses
import math

import pytest
import torch

from medseg_core.papers.ipm_surfaces import experiment, recipes
from medseg_core.papers.ipm_surfaces.experiment import SETTINGS, Settings
from medseg_core.rng import seed_all

TINY = Settings(
    size=(32, 32), n_surfaces=5, n_train=3, n_validation=2, n_test=2, ivus_size=(32, 32),
    ivus_counts=(3, 2, 2), widths=(4, 8), steps=4, ivus_steps=4, validate_every=2, mask_px=32,
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def task():
    return experiment.load("phantom", TINY, 0)


@pytest.mark.parametrize("scale", ["smoke", "lesson", "paper"])
class TestScales:
    def test_the_network_can_halve_the_images(self, scale):
        s = SETTINGS[scale]
        step = 2 ** (len(s.widths) - 1)
        assert all(side % step == 0 for side in (*s.size, *s.ivus_size))

    def test_some_weights_that_have_seen_all_losses_are_validated(self, scale):
        s = SETTINGS[scale]
        for steps in (s.steps, s.ivus_steps):
            assert s.validate_every <= steps and 0 < s.warm_up < 1

    def test_smoke_asks_for_the_least(self, scale):
        s, smoke = SETTINGS[scale], SETTINGS["smoke"]
        for name in ("n_train", "n_test", "steps", "ivus_steps", "n_seeds", "ivus_counts"):
            assert getattr(smoke, name) <= getattr(s, name)


class Reader:
    """B-scans of 40 rows with two surfaces; a pixel tells its B-scan and its column."""

    root = "somewhere"

    def __init__(self, people, width=10, unknown=()):
        self.people, self.width, self.unknown = people, width, unknown

    def __len__(self):
        return len(self.people)

    def __getitem__(self, index):
        return {"spacing": (0.004, 0.01)}

    def split(self):
        train = [i for i, who in enumerate(self.people) if who in ("hc09", "hc10")]
        return train, [i for i in range(len(self)) if i not in train]

    def load(self, indices, *, size, spacing):
        self.asked, indices = (size, spacing), list(indices)
        columns = torch.arange(self.width).float()
        valid = torch.ones(len(indices), self.width, dtype=torch.bool)
        for at, column in self.unknown:
            if at in indices:
                valid[indices.index(at), column] = False
        pixel = torch.stack([100.0 * i + columns for i in indices])
        rows = torch.tensor([10.0, 20.0])[:, None].expand(len(indices), 2, self.width)
        return {
            "image": pixel[:, None, None].expand(-1, 1, size[0], -1),
            "surfaces": rows,
            "valid": valid,
            "patient": [self.people[i] for i in indices],
        }


def places(part):
    """{(B-scan, column)} of a part's pixels."""
    return {(int(x) // 100, int(x) % 100) for x in part["image"].flatten().tolist()}


class TestPhantom:
    def test_parts_are_disjoint_and_as_large_as_asked(self, task):
        parts = [task.train, task.validation, task.test]
        assert [len(p["image"]) for p in parts] == [3, 2, 2]
        images = torch.cat([p["image"] for p in parts]).flatten(1)
        assert len(images.unique(dim=0)) == 7

    def test_another_seed_draws_other_images_the_same_seed_the_same(self, task):
        again, other = (experiment.load("phantom", TINY, seed) for seed in (0, 1))
        assert torch.equal(again.train["image"], task.train["image"])
        assert not torch.equal(other.test["image"], task.test["image"])
        assert not torch.equal(other.train["surfaces"], task.train["surfaces"])

    def test_more_images_change_none(self, task):
        more = experiment.load("phantom", dataclasses.replace(TINY, n_train=4), 0)
        assert torch.equal(more.train["image"][:3], task.train["image"])
        assert torch.equal(more.test["image"], task.test["image"])

    @pytest.mark.parametrize("name", ["n_train", "n_validation", "n_test"])
    def test_refuses_an_empty_part_and_one_that_reaches_into_the_next(self, name):
        part = {"n_train": "training", "n_validation": "validation", "n_test": "test"}[name]
        for n in (0, 5001):
            with pytest.raises(ValueError, match=part):
                experiment.load("phantom", dataclasses.replace(TINY, **{name: n}), 0)

    def test_refuses_another_data_set(self):
        with pytest.raises(ValueError, match="dataset"):
            experiment.load("duke", TINY, 0)


class TestJHU:
    def test_the_people_are_kept_apart(self):
        reader = Reader(["hc09", "hc10", "ms01", "hc10"])
        s = dataclasses.replace(TINY, size=(40, 5), n_train=9, n_validation=9, n_test=9)
        task = experiment.load("jhu", s, 0, reader)
        whose = [{scan for scan, _ in places(p)} for p in (task.train, task.validation, task.test)]
        assert whose == [{1, 3}, {0}, {2}]
        assert task.train["image"].shape == (4, 1, 40, 5)
        # 128 rows of the device on 40 of the network.
        assert reader.asked[0] == (40, None)
        assert reader.asked[1] == pytest.approx((0.004 * 128 / 40, 0.01))

    def test_the_last_piece_is_flush_right_and_overlaps(self):
        s = dataclasses.replace(TINY, size=(40, 4), n_train=9, n_validation=9, n_test=9)
        task = experiment.load("jhu", s, 0, Reader(["hc09", "hc10", "ms01"]))
        first = task.test["image"][:, 0, 0, 0] - 200
        assert first.tolist() == [0, 4, 6]

    def test_a_narrow_scan_is_one_piece(self):
        s = dataclasses.replace(TINY, size=(40, 16), n_train=9, n_validation=9, n_test=9)
        task = experiment.load("jhu", s, 0, Reader(["hc09", "hc10", "ms01"]))
        assert task.test["image"].shape == (1, 1, 40, 10)

    def test_pieces_that_are_mostly_unknown_are_left_out(self):
        s = dataclasses.replace(TINY, size=(40, 5), n_train=9, n_validation=9, n_test=9)
        reader = Reader(["hc09", "hc10", "ms01"], unknown=[(2, 0), (2, 1), (2, 2), (2, 8)])
        task = experiment.load("jhu", s, 0, reader)
        assert places(task.test) == {(2, column) for column in range(5, 10)}
        assert task.test["valid"][0, 0].tolist() == [True, True, True, False, True]

    def test_few_of_many_are_spread_evenly(self):
        people = ["hc09", *["hc10"] * 9, "ms01"]
        s = dataclasses.replace(TINY, size=(40, 10), n_train=3, n_validation=9, n_test=9)
        task = experiment.load("jhu", s, 0, Reader(people))
        assert [int(x) // 100 for x in task.train["image"][:, 0, 0, 0]] == [1, 5, 9]

    def test_refuses_a_part_without_an_image(self):
        s = dataclasses.replace(TINY, size=(40, 10))
        with pytest.raises(ValueError, match="validation"):
            experiment.load("jhu", s, 0, Reader(["hc10", "ms01"]))


class TestSpectralis:
    def test_the_last_scan_tests_and_a_fifth_of_the_other_pieces_validates(self):
        s = dataclasses.replace(TINY, size=(40, 2))
        task = experiment.load("spectralis", s, 0, Reader(["a", "a", "b"]))
        parts = (task.train, task.validation, task.test)
        assert [len(p["image"]) for p in parts] == [8, 2, 5]
        assert {scan for scan, _ in places(task.test)} == {2}
        assert not places(task.train) & places(task.validation)

    def test_refuses_a_single_scan(self):
        with pytest.raises(ValueError, match="two or more"):
            experiment.load("spectralis", TINY, 0, Reader(["a"]))

    def test_refuses_one_piece_alone_for_training_and_validation(self):
        with pytest.raises(ValueError, match="training"):
            experiment.load("spectralis", TINY, 0, Reader(["a", "b"]))


class TestPrepared:
    def test_regions_and_gaps_by_hand(self):
        surfaces = torch.tensor([[[0.5, torch.nan], [2.0, 1.0]]], dtype=torch.float64)
        data = experiment.prepared({"image": torch.zeros(1, 1, 4, 2), "surfaces": surfaces})
        assert data["label"][0].T.tolist() == [[0, 1, 2, 2], [0, 1, 1, 1]]
        assert data["valid"].tolist() == [[[True, False], [True, True]]]
        assert data["surfaces"].dtype == torch.float32

    def test_a_column_that_is_not_known_is_known_for_no_surface(self):
        data = {
            "image": torch.zeros(1, 1, 4, 2),
            "surfaces": torch.ones(1, 3, 2),
            "valid": torch.tensor([[True, False]]),
        }
        assert experiment.prepared(data)["valid"][0].tolist() == [[True, False]] * 3


class TestNoisy:
    def test_the_image_stays_and_the_input_stays_in_range(self):
        image = torch.rand(8, 1, 16, 16)
        batch = experiment.noisy({"image": image}, torch.Generator().manual_seed(0), TINY)
        assert batch["image"] is image
        assert not torch.equal(batch["input"], image)
        assert batch["input"].min() >= 0 and batch["input"].max() <= 1

    def test_without_noise_and_salt_nothing_changes(self):
        image = torch.rand(2, 1, 8, 8)
        s = dataclasses.replace(TINY, noise=0.0, salt=0.0)
        out = experiment.noisy({"image": image}, torch.Generator().manual_seed(0), s)["input"]
        assert torch.equal(out, image)

    def test_salt_and_pepper_alike_and_no_more_than_asked(self):
        image = torch.full((400, 1, 32, 32), 0.5)
        s = dataclasses.replace(TINY, noise=0.0, salt=0.2)
        out = experiment.noisy({"image": image}, torch.Generator().manual_seed(0), s)["input"]
        white, black = (out == 1).float().mean(), (out == 0).float().mean()
        # Half of the largest share on average, one half of that each.
        assert white == pytest.approx(0.05, rel=0.15) and black == pytest.approx(0.05, rel=0.15)


class TestArm:
    def run(self, task, name, seed=0, **changes):
        seed_all(seed)
        s = dataclasses.replace(TINY, **changes)
        return experiment.train(task, recipes.RECIPES[name], 3e-3, s, CPU)(seed)

    def test_what_it_returns(self, task):
        out = self.run(task, "IPM")
        assert (out["updates"], out["images"]) == (4, 16)
        assert out["masd"].shape == (2 * 5,) and out["sd"] > 0 and out["broken"] == 0
        extras = out["extras"]
        assert extras["placed"].shape == (2, 5, 32) and set(extras["out"]) >= {"mu", "sigma2", "xi"}
        assert set(extras["history"].parts) == {"regions", "columns", "smooth", "position"}
        off = (extras["placed"] - task.test["surfaces"]).abs().mean(2).flatten().double()
        assert out["masd"] == pytest.approx(off.numpy(), rel=1e-5)

    def test_weights_from_before_the_end_of_the_warm_up_are_not_kept(self, task):
        out = self.run(task, "no IPM", validate_every=1)
        updates, errors = zip(*out["extras"]["curve"], strict=True)
        assert updates == (1, 2, 3, 4)  # the warm-up ends at 2.6
        history = out["extras"]["history"]
        scores = dict(history.validation)
        assert [math.isnan(scores[u]) for u in updates] == [True, True, False, False]
        late = {u: -e for u, e in zip(updates, errors, strict=True) if u > 2.6}
        assert late == {u: scores[u] for u in (3, 4)}
        assert history.best == max(late.items(), key=lambda pair: pair[1])

    def test_smoothness_and_position_are_silent_in_the_warm_up(self, task):
        parts = self.run(task, "IPM")["extras"]["history"].parts
        for name in ("smooth", "position"):
            assert [x > 0 for x in parts[name]] == [False, False, False, True]

    def test_the_layer_changes_nothing_in_the_warm_up(self, task):
        ipm, none = (self.run(task, name)["extras"]["history"] for name in ("IPM", "no IPM"))
        assert ipm.losses[:3] == none.losses[:3]

    def test_the_seed_decides(self, task):
        one, again, other = (self.run(task, "FCBR", seed) for seed in (0, 0, 1))
        assert torch.equal(one["extras"]["placed"], again["extras"]["placed"])
        assert not torch.equal(one["extras"]["placed"], other["extras"]["placed"])

    def test_the_metrics_that_are_asked_for(self, task):
        def count(placed, data):
            return {"rows": len(placed) + len(data["image"])}

        seed_all(0)
        arm = experiment.train(task, recipes.Recipe(), 3e-3, TINY, CPU, count)
        assert arm(0)["rows"] == 4 and "masd" not in arm(0)
