import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from medseg_core.metrics.overlap import jaccard
from medseg_core.phantoms.ultrasound import anatomy
from medseg_core.phantoms.ultrasound.bmode import (
    ATRIUM,
    N_BEAMS,
    N_RADII,
    VENTRICLE,
    WALL,
    render_ultrasound_bmode,
    ultrasound_bmode,
    ultrasound_bmode_params,
)
from medseg_core.phantoms.ultrasound.echoes import shown_wall
from medseg_core.rng import generator

EVEN = {"patch_db": 0.0, "fine_db": 0.0, "swirl_db": 0.0, "specular_db": 0.0, "fade_db": 0.0}
PLAIN = {"papillary": [], "vessels": [], "ribs": [], "haze_db": -200.0, "floor_db": -200.0}
FLAT = {"gain_db": 0.0, "tgc": 0.0, "attenuation_db": 0.0}


@pytest.fixture(scope="module")
def many():
    return ultrasound_bmode(100, 64, seed=5)


@pytest.fixture(scope="module")
def drawn():
    return [ultrasound_bmode_params(2, i) for i in range(300)]


def decibels(sample, key="noise_free"):
    p = sample["params"][0]
    return p["dynamic_range_db"] * (sample["hidden"][key][0, 0] - 1)


def eroded(mask, by=2):
    from scipy.ndimage import binary_erosion

    return torch.from_numpy(binary_erosion(mask.numpy(), iterations=by))


def test_the_mask_is_the_ventricle_and_nothing_shows_outside_the_sector(many):
    hidden = many["hidden"]
    assert many["spacing"] == (2.4, 2.4)
    assert hidden["polar"].shape == (100, 1, N_RADII, N_BEAMS)
    assert hidden["label"].unique().tolist() == [0, VENTRICLE, WALL, ATRIUM]
    assert torch.equal(many["mask"][:, 0], hidden["label"] == VENTRICLE)
    assert (many["mask"] <= many["sector"]).all()
    assert not many["image"][~many["sector"]].any()


@pytest.mark.parametrize("size", [48, 96, 128, 256, (64, 96)])
def test_any_size_shows_the_same_heart(size):
    small = ultrasound_bmode(2, 64, 3)
    other = ultrasound_bmode(2, size, 3)
    assert torch.equal(small["hidden"]["polar"], other["hidden"]["polar"])
    area = [d["mask"].sum((1, 2, 3)) * math.prod(d["spacing"]) for d in (small, other)]
    assert torch.allclose(area[0], area[1], rtol=0.04)
    w = other["mask"].shape[3]
    mm = other["spacing"][0]
    for a, b in zip(small["mask"], other["mask"], strict=True):
        row, column = (x.double().mean() for x in a[0].nonzero(as_tuple=True))
        r, c = (x.double().mean() for x in b[0].nonzero(as_tuple=True))
        assert float((row + 0.5) * 2.4 - (r + 0.5) * mm) == pytest.approx(0, abs=0.8)
        assert float((column - 31.5) * 2.4 - (c - (w - 1) / 2) * mm) == pytest.approx(0, abs=0.8)


def test_parameters_lie_where_they_should(drawn):
    a, b = np.array([p["axes"] for p in drawn]).T
    assert a.min() >= 20 and a.max() <= 32 and b.min() >= 10 and b.max() <= 18
    tilt = np.degrees([p["tilt"] for p in drawn])
    assert -25 <= tilt.min() < -18 and 18 < tilt.max() <= 25
    for p in drawn:
        assert [k for k, *_ in p["outline"]] == [2, 3, 4, 5]
        assert all(0 <= c <= 0.08 for _, c, _ in p["outline"])
        assert 35 <= math.degrees(p["half_angle"]) <= 42
        assert max(map(abs, p["apex"])) <= 4 and 87 <= p["depth"] + p["apex"][0] <= 93
        assert 4 <= p["wall_px"] <= 7 and 1 <= p["leaflet_px"] <= 2
        assert 50 <= p["dynamic_range_db"] <= 60 and abs(p["tgc"]) <= 0.2
        gaps = sum(hi - lo for lo, hi in p["leaflet_gaps"]) / 2
        assert 0.2 <= gaps <= 0.6 and all(-1 <= lo < hi <= 1 for lo, hi in p["leaflet_gaps"])
        assert 1 <= len(p["ribs"]) + len(p["vessels"]) <= 2
    centre = np.array([p["centre"] for p in drawn])
    assert (np.ptp(centre, 0) > 13).all() and (np.ptp(centre, 0) <= 16).all()


def test_drop_outs_have_their_share_and_their_lengths(drawn):
    sides = []
    for index, p in enumerate(drawn[:100]):
        lo, hi = anatomy.wall_range(p)
        for share in (0.0, 0.1, 0.3, 0.7, 1.0):
            arcs = anatomy.draw_dropouts(p, share, generator(2, index))
            length = [b - a for a, b in arcs]
            assert sum(length) == pytest.approx(share * (hi - lo), abs=1e-5)
            assert all(lo - 1e-5 <= a and b <= hi + 1e-5 for a, b in arcs)
            assert all(x[1] <= y[0] + 1e-6 for x, y in itertools.pairwise(arcs))
            if share == 0.3:
                assert 2 <= len(arcs) <= 3
                assert all(15 <= math.degrees(x) <= 50.001 for x in length)
                sides += [(a + b) / 2 for a, b in arcs]
    sides = np.cos(2 * np.array(sides))  # −1 at the sides, 1 at the apex
    assert sides.mean() < -0.2


def test_the_wall_is_lost_on_the_share_that_is_asked_for(drawn):
    for p in drawn[:20]:
        lo, hi = anatomy.wall_range(p)
        phi = torch.linspace(lo, hi, 4000)
        assert float(1 - shown_wall(p, phi).mean()) == pytest.approx(0.3, abs=0.02)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.floats(-1, 2), st.floats(0.01, 0.2)), min_size=1, max_size=4))
def test_spread_keeps_lengths_apart_and_inside(pairs):
    centres, lengths = zip(*pairs, strict=True)
    out = anatomy.spread(centres, lengths, 0, 1, 0.05)
    assert sorted(b - a for a, b in out) == pytest.approx(sorted(lengths))
    assert all(y[0] - x[1] >= 0.05 - 1e-9 for x, y in itertools.pairwise(out))
    assert out[0][0] >= -1e-9 and out[-1][1] <= 1 + 1e-9
    if len(pairs) == 1 and lengths[0] / 2 <= centres[0] <= 1 - lengths[0] / 2:
        assert sum(out[0]) / 2 == pytest.approx(centres[0])


def test_the_mask_is_the_polygon_of_outline_and_valve():
    for index in range(6):
        p = ultrasound_bmode_params(4, index, size=192)
        phi = torch.linspace(-math.pi, math.pi, 2001).double()
        u, v = anatomy.outline(p, phi)
        line = p["base"] + p["valve_bow"] * (1 - (v / p["hinge"]) ** 2).clamp_min(0)
        row, column = anatomy.from_heart(p, torch.minimum(u, line), v)
        points = torch.stack([(row + 0.5) * 2 - 0.5, column * 2 + 95.5], -1).numpy()
        polygon = torch.from_numpy(polygon2mask((192, 192), points))
        mask = render_ultrasound_bmode(p, gen=generator(0))["mask"][0, 0]
        wrong = (mask ^ polygon) & render_ultrasound_bmode(p, gen=generator(0))["sector"][0, 0]
        assert int(wrong.sum()) < 0.01 * int(polygon.sum())


def test_distances_to_a_circle_are_exact():
    p = ultrasound_bmode_params(0, 0) | {"axes": (20.0, 20.0), "outline": [], "tilt": 0.3}
    row, column = torch.rand(2, 200, generator=generator(1)) * 60
    at = anatomy.locate(p, row, column)
    down, right = row - p["centre"][0], column - p["centre"][1]
    reach = torch.hypot(down, right)
    assert torch.allclose(at.ventricle, reach - 20, atol=1e-4)
    assert torch.allclose(at.normal_row, down / reach, atol=1e-4)
    assert torch.allclose(at.normal_column, right / reach, atol=1e-4)


def test_truth_agrees_with_the_image():
    """Without speckle and texture each part has the echo that was drawn for it."""
    for index in range(12):
        p = ultrasound_bmode_params(3, index, size=192, dropout=0.0)
        p = p | EVEN | PLAIN | FLAT | {"axial_px": 0.3, "lateral_px": (0.3, 0.3)}
        sample = render_ultrasound_bmode(p, gen=generator(0))
        db, label = decibels(sample), sample["hidden"]["label"][0]
        floor = max(p["cavity_db"], -p["dynamic_range_db"])
        assert float(db[eroded(label == VENTRICLE)].median()) == pytest.approx(floor, abs=0.3)
        assert float(db[eroded(label == ATRIUM)].median()) == pytest.approx(floor, abs=0.5)
        wall = db[eroded(label == WALL, 3)]
        assert float(wall.median()) == pytest.approx(p["wall_db"], abs=0.5)
        # Along the outline, the wall begins within a pixel.
        at = anatomy.locate(
            p, *((g + 0.5) / 2 - 0.5 - s for g, s in zip(grid(192), (0, 47.5), strict=True))
        )
        middle = (p["wall_db"] + floor) / 2
        near = sample["sector"][0, 0] & (at.valve < -3)
        assert (
            float(
                (db[near & (at.ventricle.abs() - 2).abs().lt(0.7) & (at.ventricle > 0)] > middle)
                .float()
                .mean()
            )
            > 0.97
        )
        assert float((db[near & (at.ventricle + 2).abs().lt(0.7)] < middle).float().mean()) > 0.97


def grid(size):
    return torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")


def test_a_drop_out_is_as_dark_as_the_cavity_at_the_inner_border():
    for index in range(8):
        p = ultrasound_bmode_params(6, index, size=192) | EVEN | PLAIN | FLAT
        p = p | {"axial_px": 0.3, "lateral_px": (0.3, 0.3)}
        at = anatomy.locate(
            p, *((g + 0.5) / 2 - 0.5 - s for g, s in zip(grid(192), (0, 47.5), strict=True))
        )
        sample = render_ultrasound_bmode(p, gen=generator(0))
        db = decibels(sample)
        border = sample["sector"][0, 0] & (at.valve < -3) & ((at.ventricle - 1.0).abs() < 0.5)
        lost = border & (shown_wall(p, at.phi) == 0)
        kept = border & (shown_wall(p, at.phi) == 1)
        assert float(db[kept].median()) > p["wall_db"] - 1
        if int(lost.sum()) > 5:  # not outside the sector
            assert float(db[lost].median()) < (p["cavity_db"] + p["wall_db"]) / 2


def test_ventricle_atrium_and_patches_are_alike_so_that_brightness_does_not_do(many):
    """The best threshold that looks at the truth is far from the truth."""
    best = 0.0
    for level in np.linspace(0.05, 0.5, 19):
        pred = (many["image"] < level) & many["sector"]
        best = max(best, float(jaccard(pred, many["mask"]).mean()))
    assert 0.1 < best < 0.5


def test_papillary_muscles_belong_to_the_mask(drawn):
    p = ultrasound_bmode_params(2, 0, size=192) | EVEN
    phi, share, _ = p["papillary"][0]
    row, column = anatomy.from_heart(p, *anatomy.outline(p, torch.tensor(phi), share))
    at = (round(float(row + 0.5) * 2 - 0.5), round(float(column) * 2 + 95.5))
    shown = render_ultrasound_bmode(p, gen=generator(0))
    without = render_ultrasound_bmode(p | {"papillary": []}, gen=generator(0))
    assert torch.equal(shown["mask"], without["mask"]) and shown["mask"][0, 0][at]
    assert float(decibels(shown)[at] - decibels(without)[at]) > 6


def test_speckle_in_the_image_has_the_law_that_was_asked_for():
    """SD over mean of the amplitude: √(4/π − 1) for a Rayleigh law."""
    for share, cv in ((1.0, math.sqrt(4 / math.pi - 1)), (0.0, 0.0)):
        p = ultrasound_bmode_params(0, 1, size=48, speckle=share) | EVEN | PLAIN | FLAT
        p = p | {"dynamic_range_db": 120.0}
        renders = [render_ultrasound_bmode(p, gen=generator(0, k)) for k in range(40)]
        db = torch.stack([decibels(s, "polar") for s in renders])
        e = 10 ** (db[:, 40:160:12, 20:120:12] / 20)
        ratio = e.std(0) / e.mean(0)
        assert float(ratio.mean()) == pytest.approx(cv, abs=0.03)


def test_options_keep_everything_else():
    p = ultrasound_bmode_params(0, 4)
    clean = ultrasound_bmode_params(0, 4, dropout=0.0, speckle=0.0)
    assert clean == p | {"dropouts": [], "speckle": 0.0}
    assert ultrasound_bmode_params(0, 4, size=48) == p | {"size": (48, 48)}


def test_leak_no_ventricle_from_the_sector(many):
    """Area and place of the ventricle from the sector's shape (cross-validated R²)."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold, cross_val_score

    mask = many["mask"][:, 0].float()
    inside = many["sector"][:, 0]
    p = many["params"]
    features = {
        "sector": np.array([[*q["apex"], q["half_angle"], q["depth"]] for q in p]),
        "sector's outline": inside.float().mean(2).numpy(),
    }
    area = mask.sum((1, 2))
    row = (mask.sum(2) * torch.arange(64)).sum(1) / area
    column = (mask.sum(1) * torch.arange(64)).sum(1) / area
    folds = KFold(5, shuffle=True, random_state=0)
    for name, x in features.items():
        for what, y in (("area", area), ("row", row), ("column", column)):
            x_unit = (x - x.mean(0)) / (x.std(0) + 1e-9)
            r2 = cross_val_score(Ridge(3.0), x_unit, y.numpy(), cv=folds, scoring="r2").mean()
            assert r2 < 0.25, (name, what, r2)


def test_leak_a_fixed_shape_is_far_from_the_truth(many):
    mean = many["mask"][:60].float().mean(0, keepdim=True) > 0.5
    assert float(jaccard(mean.expand(40, -1, -1, -1), many["mask"][60:]).mean()) < 0.65
