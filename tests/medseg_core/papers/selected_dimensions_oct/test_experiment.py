from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.io import savemat

from medseg_core.datasets import DukeAMD
from medseg_core.papers.selected_dimensions_oct.experiment import (
    KINDS,
    SETTINGS,
    UNET,
    ga_arm,
    layers_arm,
    load_duke,
    load_phantom,
    load_spectralis,
    network,
    predict,
)
from medseg_core.papers.selected_dimensions_oct.losses import hard_column_mse
from medseg_core.papers.selected_dimensions_oct.pixel_reference import region_step
from medseg_core.papers.selected_dimensions_oct.scores import layer_errors
from medseg_core.rng import seed_all

S = replace(
    SETTINGS["smoke"], n_train=4, n_validation=2, n_test=4, ch=(4,) * 6, steps=3, ga_steps=3,
    validate_every=2,
)  # fmt: skip
CPU = torch.device("cpu")


def step(model, batch, sampler):
    """As the notebook's: a loss per image, of which the sampler hears."""
    losses = hard_column_mse(model(batch["image"]), batch["surfaces"] / S.height, batch["valid"])
    sampler.update(batch["index"], losses)
    return losses.mean()


@pytest.fixture(scope="module")
def layers():
    return load_phantom("layers", S, seed=0)


@pytest.fixture(scope="module")
def ga():
    return load_phantom("ga", S, seed=0)


def run(arm, seed=0):
    seed_all(seed)
    return arm(seed)


# --- settings


@pytest.mark.parametrize("scale", ["smoke", "lesson", "paper"])
def test_every_network_fits_every_scale(scale):
    s = SETTINGS[scale]
    assert 2 ** (len(s.ch) - 1) == s.height
    assert s.width % s.height == s.ga_width % s.height == 0
    thin = replace(s, ch=(2,) * len(s.ch), head_ch=4)
    for kind in KINDS:
        layers, ga = (network(kind, task, thin) for task in ("layers", "ga"))
        sizes = [sum(p.numel() for p in model.parameters()) for model in (layers, ga)]
        # The two tasks differ in the head alone: three answers or one.
        assert sizes[0] - sizes[1] == 2 * ((4 if kind == "base 1" else 2) + 1)


def test_the_papers_settings():
    s = SETTINGS["paper"]
    assert (s.height, s.head_ch, s.steps, s.ga_steps) == (512, 1024, 400_000, 20_000)
    assert (s.batch, s.ga_batch, s.rates, s.ga_rates) == (1, 4, (2e-5,), (1e-5,))
    assert s.steps / (s.halvings + 1) == 100_000 and s.ga_steps / (s.ga_halvings + 1) == 10_000
    assert s.duke == ((159, 5), (10, 10), (100, 100)) and (s.window, s.boost) == (100, 2)


# --- data


@pytest.mark.parametrize("task", ["layers", "ga"])
def test_the_phantoms_parts_are_disjoint_and_follow_the_seed(task, layers, ga):
    parts = {"layers": layers, "ga": ga}[task]
    assert [len(part["image"]) for part in parts] == [4, 2, 4]
    groups = [set(part["group"].tolist()) for part in parts]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 5
    again, other = (load_phantom(task, S, seed) for seed in (0, 1))
    for part, same, new in zip(parts, again, other, strict=True):
        assert torch.equal(part["image"], same["image"])
        assert not torch.isclose(part["image"], new["image"]).all(-1).any()
    more = load_phantom(task, replace(S, n_test=6), 0)
    assert torch.equal(more.train["image"], parts.train["image"])
    assert torch.equal(more.test["image"][:4], parts.test["image"])


def test_what_the_two_tasks_have(layers, ga):
    assert layers.test["surfaces"].shape == (4, 3, S.width) and layers.test["amd"].any()
    assert layers.test["surface_names"] == ("ILM", "RPEDC", "BM")
    assert ga.test["columns"].shape == (4, S.ga_width) and ga.test["columns"].dtype == torch.bool
    moved = load_phantom("ga", replace(S, registration=0), 0).test
    assert torch.equal(moved["columns"], moved["hidden"]["columns_clean"])


def test_duke_volume_by_volume(tmp_path):
    maps = np.full((4, 40, 3), [20.0, 30.0, 34.0])
    for k in range(3):
        for kind in ("AMD", "Control"):
            grey = np.random.default_rng(k).integers(0, 255, (48, 40, 4), np.uint8)
            content = {"images": grey, "layerMaps": maps, "Age": np.array([[70]])}
            savemat(tmp_path / f"{kind}_{1001 + k}.mat", content)
    s = replace(S, duke=((1, 0), (0, 1), (2, 2)), every=3)
    parts = load_duke(s, DukeAMD(tmp_path))
    patients = [dict.fromkeys(part["patient"]) for part in parts]
    assert [list(p) for p in patients] == [
        ["AMD_1001"], ["Control_1001"], ["AMD_1002", "AMD_1003", "Control_1002", "Control_1003"]
    ]  # fmt: skip
    assert [len(part["image"]) for part in parts] == [2, 2, 6]  # of 4, 4 and 16 every third
    assert parts.train["image"].shape[2:] == (S.height, S.width)
    with pytest.raises(ValueError, match="AMD"):
        load_duke(replace(s, duke=((2, 0), (0, 1), (2, 2))), DukeAMD(tmp_path))


def test_an_export_looks_like_the_phantom(layers):
    class Export:
        def load(self, **grid):
            self.grid = grid
            return {"image": torch.rand(2, 1, 32, 64) / 4, "scan": ["a", "b"]}

    reader, like = Export(), layers.train
    real = load_spectralis(S, reader, like)
    torch.testing.assert_close(real["image"].mean(), like["image"].mean())
    torch.testing.assert_close(real["image"].std(), like["image"].std())
    thick = (like["surfaces"][:, 2] - like["surfaces"][:, 0])[like["valid"]].mean()
    assert reader.grid["spacing"][0] * float(thick) == pytest.approx(0.3)
    assert reader.grid["size"] == (S.height, S.width) and real["scan"] == ["a", "b"]


# --- arms


@pytest.mark.parametrize("kind", ["proposed", "base 1", UNET])
def test_an_arm_of_the_layers(kind, layers):
    taught = region_step if kind == UNET else step
    arm = layers_arm(kind, 3e-3, taught, s=S, parts=layers, device=CPU, keep=0)
    out = run(arm)
    assert (out["updates"], out["images"]) == (3, 3 * S.batch)
    extras = out.pop("extras")
    scores = layer_errors(extras["test"], layers.test)
    assert {k: out[k] for k in scores} == scores
    assert set(out) == {*scores, "updates", "images"} and len(scores) == 8
    assert [at for at, _ in extras["history"].validation] == [2, 3]
    # Another run gives the same, another seed does not, and its weights are not kept.
    again, other = run(arm), run(arm, 1)
    assert torch.equal(again["extras"]["test"], extras["test"])
    assert not torch.equal(other["extras"]["test"], extras["test"])
    assert "state" in extras and "state" not in other["extras"]


def test_the_kept_weights_are_those_of_the_best_validation_error(layers):
    arm = layers_arm("base 2", 3e-3, step, s=S, parts=layers, device=CPU, keep=0)
    extras = run(arm)["extras"]
    model = network("base 2", "layers", S)
    model.load_state_dict(extras["state"])
    torch.testing.assert_close(S.height * predict(model, layers.test["image"], S), extras["test"])
    found = S.height * predict(model, layers.validation["image"], S)
    best = max(score for _, score in extras["history"].validation)
    assert extras["history"].best[1] == best
    assert layer_errors(found, layers.validation)["overall"] == pytest.approx(-best)


def test_training_sees_what_it_may_and_starts_at_the_mean(layers):
    keys = []

    def spy(model, batch, sampler):
        keys.append(set(batch))
        return step(model, batch, sampler)

    arm = layers_arm("base 1", 1e-9, spy, s=S, parts=layers, device=CPU, keep=0)
    found = run(arm)["extras"]["test"]
    assert keys == [{"image", "valid", "surfaces", "index"}] * 3
    for k in range(3):
        rows = layers.train["surfaces"][:, k][layers.train["valid"]]
        assert abs(found[:, k].mean() - rows.mean()) < 3


def test_an_arm_of_the_atrophy(ga):
    arm = ga_arm("proposed", 3e-3, s=S, parts=ga, device=CPU, keep=0)
    out = run(arm)
    assert (out["updates"], out["images"]) == (3, 3 * S.ga_batch)
    found = out["extras"]["test"][:, 0].numpy() > 0
    group = ga.test["group"].numpy()
    for name, ref in (("dice", ga.test["columns"]), ("clean", ga.test["hidden"]["columns_clean"])):
        expected = []
        for g in np.unique(group):
            a, b = found[group == g], ref.numpy()[group == g]
            expected.append(2 * (a & b).sum() / (a.sum() + b.sum()) if b.any() else np.nan)
        np.testing.assert_allclose(out[name], expected, rtol=1e-6)
    assert torch.equal(run(arm)["extras"]["test"], out["extras"]["test"])


# --- bad input


def test_wrong_names_are_refused_before_anything_is_trained(layers, ga):
    more = {"s": S, "device": CPU, "keep": 0}
    with pytest.raises(ValueError, match="task must be one of 'layers', 'ga'; got 'layer'"):
        load_phantom("layer", S, 0)
    with pytest.raises(ValueError, match="task must be one of"):
        network("proposed", "atrophy", S)
    with pytest.raises(ValueError, match=r"kind must be one of .*got 'base 3'"):
        network("base 3", "layers", S)
    with pytest.raises(ValueError, match=r"kind must be one of .*got 'base 3'"):
        layers_arm("base 3", 1e-3, step, parts=layers, **more)
    with pytest.raises(ValueError, match=r"kind must be one of .*got '2-D U-Net'"):
        ga_arm(UNET, 1e-3, parts=ga, **more)


def test_wrong_settings_are_refused(layers):
    with pytest.raises(ValueError, match=r"n_train must be in \[1, 5000\], got 5001"):
        load_phantom("ga", replace(S, n_train=5001), 0)
    with pytest.raises(ValueError, match=r"ch must have log2\(height\) \+ 1 = 6 entries"):
        network("proposed", "ga", replace(S, ch=(4, 4)))
