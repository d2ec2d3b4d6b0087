import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.special import eval_legendre

from medseg_core.phantoms import organ_in_context, organ_in_context_params, render_organ_in_context
from medseg_core.phantoms._draw import Draw
from medseg_core.phantoms.abdomen import shapes
from medseg_core.phantoms.abdomen import surroundings as context
from medseg_core.phantoms.abdomen.organ_in_context import (
    FIELD_MM,
    MARGIN,
    MODALITY,
    POLARITY,
)
from medseg_core.physics.shapes import mask_to_boxes
from medseg_core.rng import generator

PLAIN = {"texture": 0.0, "background_texture": 0.0, "bias": 0.0, "zone": 0.0, "inner_vessels": []}
ALONE = {"distractors": [], "vessels": []}


@pytest.fixture(scope="module")
def many():
    return organ_in_context(40, 28, seed=5)


def render(index, changes, *, seed=3, noise=0, **options):
    params = organ_in_context_params(seed, index, **({"size": 32} | options))
    return render_organ_in_context(params | changes, gen=generator(9, noise))


def edge(mask):
    """Voxels of the object that touch its outside by a face."""
    mask = mask.numpy()
    return torch.from_numpy(mask & ~ndimage.binary_erosion(mask, border_value=1))


def test_no_two_samples_are_alike(many):
    for key in ("organ", "margins", "edge_waves", "distractors", "background"):
        drawn = [repr(p[key]) for p in many["params"]]
        assert len(set(drawn)) == 40
    assert len(many["mask"].flatten(1).unique(dim=0)) == 40
    other = organ_in_context_params(6, 0, size=28)
    assert other["organ"] != many["params"][0]["organ"]


def test_kinds_and_crops_of_any_size(many):
    assert many["kind"].tolist() == [0, 1, 2, 3, 4] * 8
    assert many["spacing"] == (FIELD_MM / 28,) * 3
    hidden = many["hidden"]
    assert hidden["strength"].shape == many["image"].shape
    assert hidden["distractors"].shape == (40, 28, 28, 28)
    assert organ_in_context(2, 24, kind=(2, 4), start=1)["kind"].tolist() == [4, 2]
    flat = organ_in_context(1, (16, 40, 24), kind=3)
    assert flat["image"].shape == (1, 1, 16, 40, 24)
    assert flat["spacing"] == (FIELD_MM / 16, FIELD_MM / 40, FIELD_MM / 24)


def test_the_object_fills_its_box_up_to_the_margin(many):
    """Tight box, at most 15 % of its side (and a voxel) from each side; one component."""
    for mask, box in zip(many["mask"][:, 0], many["boxes"], strict=True):
        assert torch.equal(mask_to_boxes(mask)[0], box)
        low, high = box[:3].double(), box[3:].double()
        side = high - low
        assert (
            float((low - MARGIN * side).max()) <= 1
            and float((28 - high - MARGIN * side).max()) <= 1
        )
        assert ndimage.label(mask.numpy())[1] == 1
    drawn = torch.tensor([p["margins"] for p in many["params"]])  # (N,3,2)
    found = torch.stack([many["boxes"][:, :3], 28 - many["boxes"][:, 3:]], -1)
    side = (many["boxes"][:, 3:] - many["boxes"][:, :3])[..., None]
    assert float((found - drawn * side).abs().max()) <= 1.6  # in voxels
    assert float(drawn.min()) < 0.01 and float(drawn.max()) > 0.14


def test_families_differ_in_shape_and_unseen_ones_in_polarity(many):
    share = many["mask"].double().mean((1, 2, 3, 4))
    middle = many["mask"][:, 0, 12:16, 12:16, 12:16].double().mean((1, 2, 3))
    kind = many["kind"]
    full, centre = ([float(v[kind == k].mean()) for k in range(5)] for v in (share, middle))
    assert full[1] > 1.3 * max(full[0], full[2], full[3], full[4])  # the walnut is compact
    assert min(centre[0], centre[1]) > 0.95  # it and the atrium fill the middle of their box
    assert max(centre[2], centre[4]) < 0.9  # curved ones do not
    clean, around = many["hidden"]["noise_free"], ~many["mask"]
    for k in range(5):
        rows = kind == k
        step = clean[rows][many["mask"][rows]].mean() - clean[rows][around[rows]].mean()
        assert float(step) * POLARITY[k] > 0.04
    assert set(POLARITY[:3]) == {1} and set(POLARITY[3:]) == {-1}


def test_truth_agrees_with_the_image():
    """Deep inside and far outside the intensities that were drawn, and half-way at a clear edge."""
    for index in range(5):
        sample = render(index, PLAIN | ALONE | {"edge_rise": 1e-6, "vanishing": 0.0})
        p, clean, mask = sample["params"][0], sample["hidden"]["noise_free"], sample["mask"]
        distance = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
        inside = p["background"] + p["object_contrast"]
        clear = sample["hidden"]["strength"] == 1
        # Beyond the reach of a smeared edge and of the blur.
        deep, far = (clear & torch.from_numpy(d > 6.5) for d in (distance, -distance))
        assert np.allclose(clean[deep], inside, atol=0.005)
        assert np.allclose(clean[far], p["background"], atol=0.005)
        border = torch.from_numpy(np.abs(distance) <= 1)
        half = (clean[border] - p["background"]).mean() / p["object_contrast"]
        assert float(half) == pytest.approx(0.5, abs=0.06)


def test_the_edge_vanishes_on_the_share_that_was_drawn():
    """Contrast from one voxel inside to one outside, along the normal, on an object alone."""
    shares = []
    for index in range(10):
        sample = render(index, PLAIN | ALONE | {"blur_px": 0.0}, size=48)
        p, mask = sample["params"][0], sample["mask"][0, 0]
        clean = sample["hidden"]["noise_free"][0, 0].numpy()
        assert 0.10 <= p["vanishing"] <= 0.25
        sd = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
        normal = np.stack(np.gradient(ndimage.gaussian_filter(sd, 1.0)))
        normal /= np.linalg.norm(normal, axis=0).clip(1e-6)
        at = np.argwhere(edge(mask).numpy()).T
        n = normal[:, at[0], at[1], at[2]]
        inner, outer = (
            ndimage.map_coordinates(clean, at + s * n, order=1, mode="nearest") for s in (1.5, -2)
        )
        seen = (inner - outer) / p["object_contrast"]
        shares.append((np.abs(seen) < 0.1).mean())
        strength = sample["hidden"]["strength"][0, 0][edge(mask)].numpy()
        assert np.corrcoef(seen, strength)[0, 1] > 0.7
        assert (strength == 0).mean() == pytest.approx(p["vanishing"], abs=0.06)
    assert min(shares) > 0.05 and max(shares) < 0.32
    assert 0.10 < np.mean(shares) < 0.25


def test_contrast_scales_the_edge_and_two_makes_all_of_it_clear():
    for index in (0, 3):
        steps = {}
        for contrast in (0.0, 0.5, 1.0, 2.0):
            sample = render(index, PLAIN | ALONE, contrast=contrast)
            clean, mask = sample["hidden"]["noise_free"], sample["mask"]
            steps[contrast] = float(clean[mask].mean() - clean[~mask].mean())
            strength = sample["hidden"]["strength"][0, 0][edge(mask[0, 0])]
            assert (float(strength.min()) == 1) == (contrast == 2)
        assert steps[0.0] == pytest.approx(0, abs=1e-6)
        assert steps[0.5] == pytest.approx(steps[1.0] / 2, rel=1e-4)
        assert abs(steps[2.0]) > 2 * abs(steps[1.0])


def test_lookalikes_have_the_objects_mean_and_one_touches_it():
    touched = []
    for index in range(10):
        quiet = {"vessels": [], "bias": 0.0}
        sample = render(index, quiet)
        p, mask, label = (
            sample["params"][0],
            sample["mask"][0, 0],
            sample["hidden"]["distractors"][0],
        )
        clean = sample["hidden"]["noise_free"][0, 0]
        assert not (label[mask] > 0).any()
        assert 6 <= len(p["distractors"]) <= 10
        alike = [i for i, d in enumerate(p["distractors"], start=1) if d["level"] is None]
        assert alike[:2] == [1, 2]
        grown = torch.from_numpy(ndimage.binary_dilation(mask, iterations=1))
        touched.append(int((grown & (label == 1)).sum()))
        far = torch.from_numpy(ndimage.distance_transform_edt(~mask)) > 1
        deep = torch.from_numpy(ndimage.binary_erosion(mask, iterations=2))
        for i in (1, 2):
            core = ndimage.binary_erosion(label == i, iterations=1)
            core = torch.from_numpy(core) & far
            if int(core.sum()) > 30:
                gap = float(clean[core].mean() - clean[deep].mean())
                assert abs(gap) < 0.35 * abs(p["object_contrast"])
        apart = render(index, quiet, touching=False)["hidden"]["distractors"][0]
        assert not (grown & (apart == 1)).any()
        clear = render(index, quiet | PLAIN, contrast=2.0)
        core = ndimage.binary_erosion(clear["hidden"]["distractors"][0] == 1, iterations=2)
        if core.any():
            value = clear["hidden"]["noise_free"][0, 0][torch.from_numpy(core)].mean()
            assert float(value) == pytest.approx(p["background"], abs=0.03)
    assert min(touched) >= 5 and np.median(touched) > 20


def test_noise_is_rician_in_mr_and_gaussian_in_ct():
    for index, kind in ((0, 0), (1, 3)):
        flat = {"noise": 0.08, "background": 0.3, "object_contrast": 0.2}
        sample = render(index, PLAIN | flat, kind=kind)
        assert sample["params"][0]["modality"] == MODALITY[kind]
        samples = [sample] + [render(index, PLAIN | flat, kind=kind, noise=k) for k in range(1, 6)]
        image = torch.cat([s["image"] for s in samples])
        clean = samples[0]["hidden"]["noise_free"]
        for s in samples:
            assert torch.equal(s["hidden"]["noise_free"], clean)  # the anatomy stays
        power = float((image.square().mean(0) - clean[0].square()).mean())
        mean = float((image.mean(0) - clean[0]).mean())
        if MODALITY[kind] == "mr":
            assert power == pytest.approx(2 * 0.08**2, rel=0.05)  # E[m²] = ν² + 2σ²
            assert mean > 0.005
        else:
            assert power == pytest.approx(0.08**2, rel=0.05)
            assert mean == pytest.approx(0, abs=0.001)


def test_bias_is_at_most_a_fifth_and_smooth():
    shaded, even = (render(0, {"bias": b})["hidden"]["noise_free"] for b in (0.2, 0.0))
    gain = shaded / even
    assert 1.15 < float(gain.max()) <= 1.2001 or 0.7999 <= float(gain.min()) < 0.85
    assert float(gain.min()) >= 0.7999 and float(gain.max()) <= 1.2001
    assert float(gain[0, 0].diff(dim=0).abs().max()) < 0.06


def test_size_contrast_and_touching_change_no_anatomy():
    one = organ_in_context_params(0, 8)
    for options in ({"size": 24}, {"contrast": 0.5}, {"touching": False}):
        assert organ_in_context_params(0, 8, **options) == one | (
            {"size": (24,) * 3} if "size" in options else options
        )
    coarse, fine = (render(8, {}, size=s)["mask"].float() for s in (24, 48))
    halved = torch.nn.functional.avg_pool3d(fine, 2) > 0.5
    overlap = 2 * (halved & (coarse > 0)).sum() / (halved.sum() + coarse.sum())
    assert float(overlap) > 0.9
    few = organ_in_context_params(0, 8, n_distractors=(2, 2))
    assert few["organ"] == one["organ"] and len(few["distractors"]) == 2
    none = organ_in_context(1, 20, n_distractors=(0, 0))
    assert int(none["hidden"]["distractors"].max()) == 0


def test_legendre_rotation_and_tube_against_oracles():
    x = torch.linspace(-1, 1, 21, dtype=torch.float64)
    for degree in range(8):
        assert np.allclose(shapes.legendre(degree, x), eval_legendre(degree, x.numpy()), atol=1e-12)
    turn = torch.tensor(shapes.rotation([0.3, -1.0, 2.0]))
    assert torch.allclose(turn @ turn.T, torch.eye(3), atol=1e-6)
    assert float(torch.det(turn)) == pytest.approx(1, abs=1e-6)
    part = shapes.tube([(0, 0, 0), (1, 0, 0), (1, 1, 0)], [0.2, 0.2, 0.2])
    p = torch.rand(50, 3, generator=generator(0)) * 2 - 0.5
    t = np.linspace(0, 1, 2001)[:, None]
    line = np.concatenate([t * [1, 0, 0], [1, 0, 0] + t * [0, 1, 0]])
    expected = np.linalg.norm(p.numpy()[:, None] - line, axis=-1).min(1) - 0.2
    assert np.allclose(shapes.value(p, part), expected, atol=1e-3)


def test_extent_of_an_ellipsoid_and_a_joint_of_two_balls():
    draw = Draw(generator(0))
    egg = shapes.body(draw, (0.1, 0, -0.2), (0.5, 0.7, 0.9), amplitude=0)
    plain = {"smooth": 0.01, "bend": 0.0, "cuts": [], "rotation": shapes.rotation([0, 0, 0])}
    low, high = shapes.extent(plain | {"parts": [egg]})
    assert low.tolist() == pytest.approx([-0.4, -0.7, -1.1], abs=0.01)
    assert high.tolist() == pytest.approx([0.6, 0.7, 0.7], abs=0.01)
    # A quarter turn from axis 0 to axis 1 exchanges their extents.
    turned = plain | {"parts": [egg], "rotation": shapes.rotation([0, 0, math.pi / 2])}
    low, high = shapes.extent(turned)
    assert (high - low).tolist() == pytest.approx([1.4, 1.0, 1.8], abs=0.02)
    balls = [shapes.body(draw, (x, 0, 0), (0.3, 0.3, 0.3), amplitude=0) for x in (-0.6, 0.6)]
    low, high = shapes.extent(plain | {"parts": balls})
    assert (high - low).tolist() == pytest.approx([1.8, 0.6, 0.6], abs=0.02)


def test_box_corners_by_hand():
    low, high = context.box_corners([(0, 0), (0.15, 0.15), (0.0, 0.1)])
    assert low.tolist() == pytest.approx([-1, -1 + 0.3 / 1.3, -1])
    assert high.tolist() == pytest.approx([1, 1 - 0.3 / 1.3, 1 - 0.2 / 1.1])
    # The margin is that share of the box's own side.
    assert (low[1] + 1) / (high[1] - low[1]) == pytest.approx(0.15)


def test_leak_no_fixed_mask(many):
    share = many["mask"].double().mean((1, 2, 3, 4))
    mask = many["mask"]
    fixed = mask.double().mean(0, keepdim=True) > 0.5
    both = (fixed & mask).sum((1, 2, 3, 4))
    overlap = 2 * both / (fixed.sum() + mask.sum((1, 2, 3, 4)))
    assert float(overlap.mean()) < 0.65
    assert float((2 * share / (1 + share)).mean()) < 0.45  # the whole crop taken for the object
