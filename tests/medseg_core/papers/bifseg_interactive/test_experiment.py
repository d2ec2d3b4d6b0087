"""Settings, loaders and training of the chapter."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from medseg_core import rng
from medseg_core.papers.bifseg_interactive import experiment
from medseg_core.papers.bifseg_interactive.experiment import SEEN, SETTINGS, UNSEEN

CPU = torch.device("cpu")
S = dataclasses.replace(SETTINGS["smoke"], size=16)


@pytest.mark.parametrize("scale", ["smoke", "lesson", "paper"])
def test_three_scales_that_fit_together(scale):
    s = SETTINGS[scale]
    assert max(s.tune_at) <= s.n_scribbles and max(s.early, s.many) <= s.n_scribbles
    assert s.size % 2 ** (s.depth - 1) == 0
    assert s.n_transfer[0] <= -(-s.n_unseen // len(UNSEEN))  # crops of one unseen kind
    assert s.steps >= s.validate_every and s.transfer_steps >= s.transfer_every
    assert list(s.lams) == sorted(s.lams) and list(s.sigmas) == sorted(s.sigmas)
    assert set(s.finetune) <= {"last", "all"} and 1 <= s.n_sessions <= s.n_seeds


@pytest.mark.parametrize("scale", ["smoke", "lesson", "paper"])
def test_parts_of_the_phantom_are_disjoint(monkeypatch, scale):
    drawn, s = [], SETTINGS[scale]

    def generator(n, size, seed, *, start, kind):
        assert (size, seed) == (s.size, 7)
        drawn.append((set(range(start, start + n)), kind))
        return {"n": n}

    monkeypatch.setattr(experiment, "organ_in_context", generator)
    parts = experiment.load_phantom(s, 7)
    assert {part: d["n"] for part, d in parts.items()} == experiment.part_sizes(s)
    assert sum(len(samples) for samples, _ in drawn) == len(set.union(*(d[0] for d in drawn)))
    assert [kind for _, kind in drawn] == [SEEN, SEEN, SEEN, UNSEEN, UNSEEN[:1]]


def test_the_phantom_follows_the_seed():
    one = {f"n_{part}": 1 for part in ("train", "tune", "seen", "unseen")}
    s = dataclasses.replace(S, **one, n_transfer=(1, 1))
    parts, other = (experiment.load_phantom(s, seed) for seed in (0, 1))
    images = [d["image"] for d in (*parts.values(), *other.values())]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(images, 2))
    assert [int(d["kind"]) for d in parts.values()] == [0, 2, 1, 3, 3]  # kind i % 3, or i % 2


def test_a_part_ends_where_the_next_begins():
    with pytest.raises(ValueError, match=r"number of crops in 'seen' must be in \[1, 2000\]"):
        experiment.load_phantom(dataclasses.replace(S, n_seen=2001), 0)
    with pytest.raises(ValueError, match="number of crops in 'tune'"):
        experiment.load_phantom(dataclasses.replace(S, n_tune=0), 0)


class Organ:
    """A reader of n made-up volumes; each crop is full of its volume's number."""

    def __init__(self, n, first=0):
        self.n, self.first, self.asked = n, first, []

    def __len__(self):
        return self.n

    def split(self, counts, seed):
        assert sum(counts) <= self.n and min(counts) >= 1
        order = rng.numpy_rng(seed).permutation(self.n)
        return np.split(order, np.cumsum(counts))[: len(counts)]

    def crops(self, chosen, *, size, seed):
        self.asked += list(chosen)
        image = torch.ones(len(chosen), 1, size, size, size)
        image *= torch.as_tensor(chosen).view(-1, 1, 1, 1, 1) + self.first
        return {"image": image, "mask": image > 0, "id": ["x"] * len(chosen)}


def test_organs_in_the_parts_of_the_phantom():
    readers = [Organ(n, 100 * k) for k, n in enumerate((20, 20, 3, 20, 20))]
    s = dataclasses.replace(S, n_train=6, n_tune=3, n_seen=3, n_unseen=4, n_transfer=(1, 2))
    parts = experiment.load_organs(s, 0, readers)
    # Each kind gives its share of a part; the third has 3 volumes only, one for each part.
    kinds = {part: d["kind"].tolist() for part, d in parts.items()}
    assert kinds == {
        "train": [0, 0, 1, 1, 2],
        "tune": [0, 1, 2],
        "seen": [0, 1, 2],
        "unseen": [3, 3, 4, 4],
        "next": [3, 3],
    }
    for reader in readers:
        assert len(set(reader.asked)) == len(reader.asked)  # no volume in two parts
    for d in parts.values():
        assert (d["image"][:, 0, 0, 0, 0] // 100 == d["kind"]).all()
        assert set(d) == {"image", "mask", "kind"} and d["mask"].dtype == torch.bool
    other = experiment.load_organs(s, 1, readers)
    assert any(not torch.equal(parts[p]["image"], other[p]["image"]) for p in parts)


def test_patients_to_train_on_and_others_to_test_on():
    reader = Organ(8)
    train, test = experiment.load_patients(S, 0, reader, 3)
    assert len(train["image"]) == 5 and len(test["image"]) == 3  # 6 wanted, 8 − 3 there
    assert len(set(reader.asked)) == 8
    for bad in (0, 8):
        with pytest.raises(ValueError, match=r"n_test, of 8 patients, must be in \[1, 7\]"):
            experiment.load_patients(S, 0, reader, bad)


def test_what_dice_and_predictions_are():
    mask = torch.zeros(2, 1, 2, 2, 2, dtype=torch.bool)
    mask[0, 0, 0] = True
    prob = torch.where(mask, 0.9, 0.1)
    prob[0, 0, 0, 0, 0] = 0.5  # not above one half
    found = experiment.dice_of(prob, {"mask": mask})
    assert found.tolist() == pytest.approx([2 * 3 / 7, 1])  # an empty one is right
    model, images = torch.nn.Identity(), torch.tensor([-1.0, 0, 1, 2, 3]).view(5, 1, 1, 1, 1)
    model.anchor = torch.nn.Parameter(torch.zeros(1))
    assert torch.equal(experiment.predict(model, images), images.sigmoid())
    assert not model.training


def blobs(n, seed):
    """Bright balls of any radius, made up."""
    gen = rng.generator(seed)
    axes = torch.stack(torch.meshgrid(*[torch.arange(16.0) - 7.5] * 3, indexing="ij"))
    radius = 3 + 3 * torch.rand(n, 1, 1, 1, 1, generator=gen)
    mask = axes.norm(dim=0) < radius
    noise = 0.1 * torch.randn(mask.shape, generator=gen)
    return {"image": (0.3 + 0.5 * mask + noise).clamp(0, 1), "mask": mask}


def test_the_arms_of_training():
    parts = {part: blobs(n, n) for part, n in (("train", 4), ("tune", 2), ("seen", 1), ("next", 3))}
    parts["unseen"] = parts["seen"]
    arm = experiment.generalised(S, parts, CPU)
    rng.seed_all(0)
    out = arm(0)
    assert out["updates"] == S.steps and out["images"] == S.steps * S.batch
    assert out["extras"]["history"].best is not None
    for part in ("tune", "seen", "unseen"):
        want = experiment.dice_of(out["extras"]["prob"][part], parts[part])
        assert torch.equal(out[part], want) and len(want) == len(parts[part]["image"])
    model = experiment.restored(out["extras"]["state"], S, CPU)
    again = experiment.predict(model, parts["seen"]["image"])
    assert torch.equal(again, out["extras"]["prob"]["seen"])

    states = {0: out["extras"]["state"]}
    quick = dataclasses.replace(S, transfer_rates=(1e-9, 1e-9))  # hardly a step
    ends = {}
    for name, starts in (("pretrained", states), ("scratch", None)):
        found = experiment.transfer(quick, parts["train"], parts["next"], starts, CPU)(0)
        ends[name] = found["extras"]["state"]
        assert found["updates"] == S.transfer_steps
        curve = [score for _, score in found["extras"]["curve"]]
        assert found["last"] == curve[-1] and found["area"] == pytest.approx(np.mean(curve))
    name = next(iter(states[0]))
    torch.testing.assert_close(ends["pretrained"][name], states[0][name], atol=1e-6, rtol=1e-4)
    assert not torch.allclose(ends["scratch"][name], states[0][name], atol=1e-2)
