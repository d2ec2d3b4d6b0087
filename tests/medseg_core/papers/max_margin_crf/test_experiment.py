"""Settings, loaders, network and pre-training of the chapter."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

from medseg_core.papers.max_margin_crf import experiment
from medseg_core.papers.max_margin_crf.experiment import SETTINGS, Bench, Parts, Settings
from medseg_core.papers.max_margin_crf.scores import mean_overlap

TINY = Settings(
    size=32, n_train=3, n_small=2, n_large=4, n_validation=2, n_test=2, widths=(4,) * 5,
    convs=(1,) * 5, fc=4, batch=2, pre_steps=4, pre_rate=1e-2, validate_every=2, grid=(0.0, 1.0),
)  # fmt: skip
CPU = torch.device("cpu")


def change(**settings):
    return dataclasses.replace(TINY, **settings)


@pytest.fixture(scope="module")
def bench():
    return Bench(
        TINY, Parts(*map(experiment.prepared, experiment.load("ultrasound", TINY, 0))), CPU
    )


def test_the_table_has_three_scales():
    assert list(SETTINGS) == ["smoke", "lesson", "paper"]


@pytest.mark.parametrize("scale", ["smoke", "lesson", "paper"])
class TestScales:
    def test_the_network_takes_the_images(self, scale):
        s = SETTINGS[scale]
        assert s.size % 32 == 0 and len(s.widths) == len(s.convs) == 5
        assert not any(width % 4 for width in (*s.widths, s.fc))  # groups of the norm

    def test_the_three_sizes_differ_and_some_weights_are_validated(self, scale):
        s = SETTINGS[scale]
        assert s.n_small < s.n_train < s.n_large and s.validate_every <= s.pre_steps
        assert s.epochs >= 2  # γ is compared between the first and the last

    def test_smoke_asks_for_the_least(self, scale):
        s, smoke = SETTINGS[scale], SETTINGS["smoke"]
        for name in ("size", "n_large", "n_test", "pre_steps", "epochs", "n_seeds", "fc"):
            assert getattr(smoke, name) <= getattr(s, name)
        assert len(smoke.grid) <= len(s.grid) and smoke.eps >= s.eps


@pytest.mark.parametrize(("dataset", "size"), [("ultrasound", 32), ("ct", 64)])
class TestPhantoms:
    def test_parts_are_disjoint_and_as_large_as_asked(self, dataset, size):
        parts = experiment.load(dataset, change(size=size), 0)
        assert [len(part["image"]) for part in parts] == [4, 2, 2]
        images = torch.cat([part["image"] for part in parts]).flatten(1)
        assert len(images.unique(dim=0)) == 8
        assert len(torch.cat([part["group"] for part in parts]).unique()) == 8

    def test_another_seed_draws_other_images_the_same_seed_the_same(self, dataset, size):
        one, again, other = (experiment.load(dataset, change(size=size), k) for k in (0, 0, 1))
        assert torch.equal(one.train["image"], again.train["image"])
        assert not torch.equal(one.test["image"], other.test["image"])
        assert not torch.equal(one.train["mask"], other.train["mask"])

    def test_smaller_sets_are_the_beginning_of_larger_ones(self, dataset, size):
        few, more = (experiment.load(dataset, change(size=size, n_large=n), 0) for n in (4, 6))
        assert torch.equal(more.train["image"][:4], few.train["image"])
        assert torch.equal(more.test["image"], few.test["image"])


@pytest.mark.parametrize("name", ["n_train", "n_small", "n_large", "n_validation", "n_test"])
def test_an_empty_part_and_one_that_reaches_into_the_next_are_refused(name):
    for n in (0, 5001):
        with pytest.raises(ValueError, match=name):
            experiment.load("ultrasound", change(**{name: n}), 0)


def test_another_data_set_is_refused():
    with pytest.raises(ValueError, match="dataset must be one of"):
        experiment.load("horses", TINY, 0)


class Reader:
    """One frame per patient; a pixel tells the patient."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def fit_spacing(self, size):
        return 10 / size

    def split(self, fractions, seed):
        self.fractions, ends = fractions, [0]
        for fraction in fractions:
            ends.append(ends[-1] + math.ceil(fraction * self.n - 1e-9))
        order = [(i + seed) % self.n for i in range(self.n)]
        return [order[a:b] for a, b in itertools.pairwise(ends)]

    def load(self, indices, *, size, spacing):
        self.asked = (size, spacing)
        image = torch.tensor(indices).float()[:, None, None, None].expand(-1, 1, size, size)
        return {"image": image, "mask": image > 0, "group": torch.tensor(indices)}


class TestCAMUS:
    def test_as_many_patients_as_asked_each_in_one_part(self):
        reader = Reader(20)
        parts = experiment.load("camus", TINY, 3, reader)
        groups = [part["group"].tolist() for part in parts]
        assert list(map(len, groups)) == [4, 2, 2] and len(set().union(*groups)) == 8
        assert groups[0] == [3, 4, 5, 6]  # by the seed
        assert reader.fractions == [0.5, 0.25, 0.25]  # of all patients, in the settings' shares
        assert reader.asked == (32, 10 / 32)

    def test_just_enough_patients(self):
        assert len(experiment.load("camus", TINY, 0, Reader(8)).train["image"]) == 4

    def test_too_few_are_refused_with_the_counts(self):
        with pytest.raises(ValueError, match=r"must hold 8 patients .* n_large.* holds 7; .*--set"):
            experiment.load("camus", TINY, 0, Reader(7))


class TestPrepared:
    def test_each_image_has_mean_0_and_deviation_1(self):
        image = torch.rand(3, 1, 8, 8) * torch.tensor([1.0, 10, 100])[:, None, None, None] + 5
        out = experiment.prepared({"image": image, "mask": torch.zeros(3, 1, 8, 8) > 0, "more": 1})
        assert set(out) == {"image", "target"}
        assert out["image"].mean((1, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
        assert out["image"].std((1, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
        torch.testing.assert_close(out["image"] * image.std((1, 2, 3), keepdim=True)
                                   + image.mean((1, 2, 3), True), image)  # fmt: skip

    def test_the_target_is_the_mask_as_a_class(self):
        mask = torch.tensor([[[[True, False], [False, True]]]])
        target = experiment.prepared({"image": torch.rand(1, 1, 2, 2), "mask": mask})["target"]
        assert target.dtype == torch.int64 and target.tolist() == [[[1, 0], [0, 1]]]

    def test_first(self):
        data = {"image": torch.arange(5), "target": torch.arange(5) + 1}
        assert experiment.first(data, 2)["target"].tolist() == [1, 2]
        assert experiment.first(data, None)["image"].tolist() == [0, 1, 2, 3, 4]


class Linear(nn.Module):
    """Channels (x, 3x), with dropout of everything in training."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 3.0]))
        self.dropout = nn.Dropout(1.0)

    def forward(self, x):
        return self.dropout(x * self.weight[:, None, None])


class TestNetwork:
    def test_logits_are_the_log_odds_of_the_softmax(self):
        image = torch.randn(2, 1, 4, 4)
        model = Linear().eval()
        a = experiment.logits_of(model, image)
        z = model(image).softmax(1)[:, 1:]
        torch.testing.assert_close(a, z.log() - (1 - z).log(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a, 2 * image)

    def test_predictions_know_no_dropout_no_gradient_and_no_batch(self):
        image = torch.randn(5, 1, 4, 4)
        found = experiment.predict(Linear().train(), image, change(batch=2))
        torch.testing.assert_close(found, 2 * image)
        assert not found.requires_grad

    def test_log_likelihood_by_hand(self):
        batch = {"image": torch.full((1, 1, 1, 2), 0.5), "target": torch.tensor([[[1, 0]]])}
        loss = experiment.log_likelihood(Linear().eval(), batch)
        assert loss.item() == pytest.approx((math.log1p(math.exp(-1)) + math.log1p(math.e)) / 2)


class TestPretraining:
    def test_what_it_returns(self, bench):
        out = experiment.pretraining(3, bench)(0)
        assert (out["updates"], out["images"]) == (4, 8)
        history = out["extras"]["history"]
        assert [updates for updates, _ in history.validation] == [2, 4]
        model = experiment.restored(out["extras"]["state"], bench)
        found = experiment.predict(model, bench.parts.validation["image"], TINY)[:, 0] > 0
        score = mean_overlap(found, bench.parts.validation["target"])
        assert score == history.best[1]  # the weights are those of the best validation

    def test_the_seed_decides(self, bench):
        one, again, other = (
            experiment.pretraining(3, bench)(seed)["extras"]["history"].losses for seed in (0, 0, 1)
        )
        assert one == again and one[1:] != other[1:]

    def test_only_the_first_images_are_seen(self, bench):
        train = {k: v.clone() for k, v in bench.parts.train.items()}
        train["image"][2:] = torch.nan
        blind = bench._replace(parts=bench.parts._replace(train=train))
        one, same = (experiment.pretraining(2, b)(0)["extras"]["state"] for b in (bench, blind))
        assert all(torch.equal(one[key], same[key]) for key in one)


def test_a_crf_of_some_images_with_other_options(bench):
    data = bench.parts.train
    crf = experiment.crf_of(data, TINY, 2)
    assert (len(crf), crf.C, crf.images[0].grid.connectivity) == (2, 1.0, 4)
    assert len(experiment.crf_of(data, TINY)) == 4
    other = experiment.crf_of(data, change(C=3.0), C=2.0, connectivity=8, contrast=False)
    assert (other.C, other.images[0].grid.connectivity) == (2.0, 8)
    assert not other.images[0].pairs[1].any()


def test_the_tolerance_is_that_of_the_settings():
    assert experiment.tolerance(change(eps=2.0, max_rounds=7)) == {
        "eps": 2.0, "max_rounds": 7, "solve_after": "image",
    }  # fmt: skip
