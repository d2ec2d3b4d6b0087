"""The contract of every generator: what a sample depends on, its layout, what training may read.

A case is a generator with options; what is peculiar to one generator has a file of its own.
"""

import math
from dataclasses import dataclass, field

import pytest
import torch

from medseg_core import checks, phantoms
from medseg_core.rng import generator
from medseg_core.training.samplers import batches

# Of each key that may hold a tensor: its dtype and axes. *S: the image's, W: its last.
LAYOUT = {
    "image": (torch.float32, "N 1 *S"),
    "mask": (torch.bool, "N 1 *S"),
    "sector": (torch.bool, "N 1 *S"),
    "label": (torch.int64, "N *S"),
    "surfaces": (torch.float32, "N L W"),
    "columns": (torch.bool, "N W"),
    "valid": (torch.bool, "N W"),
    "centre": (torch.float32, "N 2"),
    "boxes": (torch.int64, "N 6"),
    "kind": (torch.int64, "N"),
    "amd": (torch.bool, "N"),
    "group": (torch.int64, "N"),
}


@dataclass
class Case:
    """Args:
    size: of the images.
    truth: keys that a change of the noise leaves as they are.
    options: of the generator.
    per_group: samples that belong to one patient or volume.
    least: the smallest side.
    leak: what must not be told by pixels and places without anatomy: data -> {name: (N,)}.
    refused: further options that are refused.
    """

    size: tuple
    truth: tuple
    options: dict = field(default_factory=dict)
    per_group: int = 1
    least: int = 32
    leak: object = None
    refused: tuple = ()


def area(key, value=True):
    return lambda data: {"area": (data[key] == value).flatten(1).float().mean(1)}


def mean_rows(data):
    return {f"surface {k}": s for k, s in enumerate(data["surfaces"].mean(2).T)}


NAN = math.nan
CASES = {
    "cardiac_sax": Case(
        (40, 48), ("label", "centre"), per_group=2, leak=area("label", 3),
        refused=({"snr": 0}, {"bias": 1.5}),
    ),
    "ivus_polar": Case((48, 64), ("label", "surfaces"), leak=mean_rows),
    "oct_bscan": Case(
        (64, 48), ("label", "surfaces", "valid"), leak=mean_rows,
        refused=({"layers": 7}, {"slices": 0}, {"slices": 2.5}, {"pathology": "amd"},
                 {"bm_fade": 1.5}, {"speckle": -0.1}, {"registration_error": -1},
                 {"registration_error": 40}, {"registration_error": 1.5},
                 {"layers": 5, "pathology": "ga"}),
    ),
    "oct_bscan: five layers, volumes": Case(
        (64, 48), ("label", "surfaces"), {"layers": 5, "slices": 3}, per_group=3
    ),
    "oct_bscan: drusen": Case(
        (64, 48), ("label", "surfaces", "amd"), {"pathology": "drusen", "slices": 4}, per_group=4
    ),
    "oct_bscan: atrophy": Case(
        (64, 48), ("columns",), {"pathology": "ga", "slices": 3, "registration_error": 3},
        per_group=3,
    ),
    "thorax_ct": Case(
        (64, 64), ("mask",), least=64,
        refused=({"size": 300}, {"size": (64, 96)}, {"contrast_agent": (0.5, 0.2)},
                 {"contrast_agent": (0.0, 1.2)}, {"level": (0.2, 3.0)}, {"level": (NAN, 1.0)}),
    ),
    "ultrasound_bmode": Case(
        (48, 56), ("mask", "sector"), leak=area("mask"),
        refused=({"dropout": 1.2}, {"speckle": -0.1}, {"speckle": NAN}),
    ),
    "organ_in_context": Case(
        (20, 24, 16), ("mask", "boxes", "kind"), least=16,
        refused=({"kind": 5}, {"kind": ()}, {"kind": (0, 7)}, {"contrast": -0.1},
                 {"contrast": NAN}, {"n_distractors": (4, 2)}, {"n_distractors": (-1, 2)},
                 {"n_distractors": (1, 2, 3)}),
    ),
    "organ_in_context: one kind": Case(
        (20, 20, 20), ("mask",), {"kind": 2}, least=16, leak=area("mask")
    ),
}  # fmt: skip
EVERY = pytest.mark.parametrize("name", CASES)


def functions(name):
    """Generator, its parameters, its renderer."""
    kind = name.partition(":")[0]
    return tuple(getattr(phantoms, f.format(kind)) for f in ("{}", "{}_params", "render_{}"))


def draw(name, n, seed=1, **more):
    case = CASES[name]
    return functions(name)[0](n, case.size, seed, **case.options, **more)


@pytest.fixture(scope="module", params=CASES)
def seven(request):
    """Samples 0 … 6 of a case."""
    return request.param, draw(request.param, 7)


def tensors(data, prefix=""):
    for key, value in data.items():
        if isinstance(value, dict):
            yield from tensors(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            yield prefix + key, value


def plain(x):
    """Parameters with their tensors as lists, so that they can be compared."""
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [plain(v) for v in x]
    return x.tolist() if isinstance(x, torch.Tensor) else x


def test_no_generator_is_forgotten():
    made = {n.removesuffix("_params") for n in dir(phantoms) if n.endswith("_params")}
    assert made == {name.partition(":")[0] for name in CASES}


def test_a_sample_depends_neither_on_n_nor_on_start(seven):
    name, more = seven
    one, later = draw(name, 1), draw(name, 3, start=4)
    for key, value in tensors(more):
        assert torch.equal(dict(tensors(one))[key], value[:1]), key
        assert torch.equal(dict(tensors(later))[key], value[4:]), key
    assert plain(later["params"]) == plain(more["params"][4:])


def test_a_sample_is_its_parameters_rendered_with_its_noise(seven):
    name, more = seven
    _, params, render = functions(name)
    drawn = params(1, 5, size=CASES[name].size, **CASES[name].options)
    noise = generator(1, 5, f"{name.partition(':')[0]}.noise")
    rendered = dict(tensors(render(drawn, gen=noise)))
    for key, value in tensors(more):
        assert torch.equal(rendered[key], value[5:6]), key


def test_the_seed_decides(seven):
    name, more = seven
    again, other = draw(name, 1), draw(name, 1, seed=2)
    assert torch.equal(again["image"], more["image"][:1])
    assert not torch.equal(other["image"], again["image"])
    assert plain(other["params"]) != plain(again["params"])
    assert len(more["image"].flatten(1).unique(dim=0)) == 7


def test_layout(seven):
    name, data = seven
    case = CASES[name]
    known = {"N": 7, "S": case.size, "W": case.size[-1]}
    found = {key: value for key, value in data.items() if isinstance(value, torch.Tensor)}
    assert {"image", "group", *case.truth} <= set(found) <= set(LAYOUT)
    for key, value in found.items():
        dtype, axes = LAYOUT[key]
        assert value.dtype == dtype and value.is_contiguous(), key
        checks.shape(value, key, axes, **known)
    assert bool(data["image"].isfinite().all())
    assert float(data["image"].min()) >= 0 and 0.3 < float(data["image"].max()) <= 1
    if "label" in found:
        assert int(data["label"].min()) == 0
    assert data["group"].tolist() == [i // case.per_group for i in range(7)]
    assert [p["size"] for p in data["params"]] == [case.size] * 7
    assert data["hidden"]["noise_free"].shape == data["image"].shape


def test_spacing_belongs_to_the_size(seven):
    name, data = seven
    case = CASES[name]
    twice = tuple(2 * side for side in case.size)
    larger = functions(name)[0](1, twice, 1, **case.options)
    assert data["spacing"] == pytest.approx([2 * mm for mm in larger["spacing"]])
    assert all(0 < mm < math.inf for mm in data["spacing"])
    square = functions(name)[0](1, 64, 1, **case.options)
    assert square["image"].shape == (1, 1, *(64,) * len(case.size))


def test_training_reads_nothing_hidden(seven):
    _, data = seven
    (batch,) = batches(data, 7, steps=1, seed=0)
    assert set(batch) == {key for key in data if key in LAYOUT} | {"index"}
    # Healthy retinas are annotated completely: there the hidden anatomy is the truth itself.
    hidden = {key: value for key, value in data["hidden"].items() if key != "surfaces"}
    for key, value in hidden.items():
        assert key not in batch
        for name in set(batch) - {"index"}:
            seen = data[name]
            assert seen.shape != value.shape or not torch.equal(seen.to(value.dtype), value), name


def test_another_noise_keeps_the_anatomy(seven):
    name, _ = seven
    _, params, render = functions(name)
    drawn = params(1, 4, size=CASES[name].size, **CASES[name].options)
    a, b = (render(drawn, gen=generator(9, k)) for k in (0, 1))
    assert not torch.equal(a["image"], b["image"])
    for key in CASES[name].truth:
        assert torch.equal(a[key], b[key]), key


@EVERY
def test_refuses(name):
    case, make = CASES[name], functions(name)[0]
    bad = [
        {"n": 0}, {"start": -1}, {"seed": -1}, {"n": 1.5}, {"start": "0"}, {"size": 1.5},
        {"size": case.least - 1}, {"size": (*case.size[:-1], case.least - 1)},
        {"size": (*case.size, 64)}, {"size": case.size[:-1]}, {"colour": 3}, *case.refused,
    ]  # fmt: skip
    for change in bad:
        options = {"n": 1, "size": case.size} | case.options | change
        with pytest.raises((ValueError, TypeError), match=next(iter(change))):
            make(**options)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.leak])
def test_no_truth_from_corners_mean_intensity_or_order(name):
    """Cross-validated R² of the truth from what carries no anatomy: next to nothing."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold, cross_val_score

    data = draw(name, 80 * CASES[name].per_group, seed=5)
    data = {k: v[:: CASES[name].per_group] for k, v in data.items() if k in LAYOUT}
    image = data["image"][:, 0]
    ends = torch.tensor([0, 1, -2, -1])
    corners = image
    for axis in range(1, image.ndim):
        corners = corners.index_select(axis, ends % image.shape[axis])
    features = {
        "corners": corners.flatten(1)[:, :: max(1, corners[0].numel() // 16)],
        "mean intensity": image.flatten(1).mean(1)[:, None],
        "order": torch.arange(80.0)[:, None],
    }
    folds = KFold(5, shuffle=True, random_state=0)
    for what, y in CASES[name].leak(data).items():
        for feature, x in features.items():
            unit = (x - x.mean(0)) / (x.std(0) + 1e-9)
            r2 = cross_val_score(Ridge(3.0), unit.numpy(), y.numpy(), cv=folds, scoring="r2").mean()
            assert r2 < 0.3, (what, feature, r2)
