import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from medseg_core.phantoms.thorax.anatomy import ellipsoid, muscle, sac, waves
from medseg_core.phantoms.thorax.axial import (
    FIELD_MM,
    render_thorax_ct,
    thorax_ct,
    thorax_ct_params,
    window,
)
from medseg_core.rng import generator

STILL = {"texture_hu": 0.0, "mixing": 0.0, "blur_mm": 0.0, "noise_hu": 0.0}


@pytest.fixture(scope="module")
def many():
    return thorax_ct(48, 64, 3)


def points_of(p):
    """Pixel centres of the slice, (3,H,W) mm."""
    n = p["size"][0]
    line = (torch.arange(n) - (n - 1) / 2) * (FIELD_MM / n)
    y, x = torch.meshgrid(line + p["view_mm"][0], line + p["view_mm"][1], indexing="ij")
    return torch.stack([torch.full_like(y, p["z_mm"]), y, x])


def test_the_line_is_a_share_of_each_pixel(many):
    line = many["hidden"]["line"]
    assert line.shape == many["image"].shape
    assert float(line.min()) >= 0 and float(line.max()) <= 1
    assert many["spacing"] == (FIELD_MM / 64, FIELD_MM / 64)


def test_the_anatomy_does_not_depend_on_the_size():
    small, large = thorax_ct(2, 64, 4), thorax_ct(2, 128, 4)
    for a, b in zip(small["params"], large["params"], strict=True):
        assert a | {"size": None} == b | {"size": None}
    merged = torch.nn.functional.avg_pool2d(large["mask"].float(), 2)
    assert float((merged - small["mask"].float()).abs().mean()) < 0.01


def test_distance_from_an_ellipsoid():
    ball = {"centre": [1.0, 2.0, 3.0], "axes": [4.0] * 3, "frame": torch.eye(3).tolist()}
    p = torch.randn(3, 50, generator=generator(0)) * 9
    expected = (p - torch.tensor([[1.0], [2.0], [3.0]])).norm(dim=0) - 4
    assert torch.allclose(ellipsoid(p, ball), expected, atol=1e-4)
    assert float(ellipsoid(torch.tensor([1.0, 2.0, 3.0]), ball)) == pytest.approx(-4, abs=1e-4)
    # Turned by a right angle: the long axis lies along x.
    egg = {
        "centre": [0.0] * 3,
        "axes": [5.0, 2.0, 1.0],
        "frame": [[0, 0, 1.0], [0, 1, 0], [1, 0, 0]],
    }
    on_axis = torch.tensor([[0.0, 0, 5], [0, 2, 0], [1, 0, 0], [0, 0, 5.1], [0, 1.9, 0]])
    assert torch.allclose(ellipsoid(on_axis.T, egg), torch.tensor([0, 0, 0, 0.1, -0.1]), atol=0.01)


def test_frames_are_orthonormal(many):
    heart, chest = many["params"][0]["heart"], many["params"][0]["chest"]
    parts = [*heart["chambers"].values(), *heart["coronaries"], *chest["ribs"], *chest["domes"]]
    for e in parts:
        frame = torch.tensor(e["frame"])
        assert torch.allclose(frame @ frame.T, torch.eye(3), atol=1e-5)


def test_waves_have_mean_0_and_variance_1(many):
    p = torch.rand(3, 4000, generator=generator(0)) * 2000
    values = torch.stack([waves(p, q["line_waves"]) for q in many["params"]])
    assert abs(float(values.mean())) < 0.05 and float(values.var()) == pytest.approx(1, abs=0.05)


def test_the_sac_holds_the_chambers_and_is_one_piece_without_holes(many):
    for p, mask in zip(many["params"], many["mask"][:, 0], strict=True):
        pieces, count = ndimage.label(mask)
        assert np.bincount(pieces.ravel())[1:].max() > 0.97 * int(mask.sum()), (count, p["patient"])
        assert torch.equal(torch.from_numpy(ndimage.binary_fill_holes(mask)), mask)
        assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
        points, heart = points_of(p), p["heart"]
        assert torch.equal(sac(points, heart) < 0, mask)
        for name in ("la", "ra", "rv", "lv"):
            e = heart["chambers"][name]
            cavity = ellipsoid(points, e) < -1
            assert mask[cavity].float().mean().nan_to_num(1.0) > 0.97, name


def test_proportions(many):
    share = many["mask"].float().mean((1, 2, 3))
    assert float(share.min()) > 0.01 and float(share.max()) < 0.35
    assert 0.1 < float(share.mean()) < 0.2
    for p in many["params"]:
        assert 80 < p["heart"]["sac_top"] - p["heart"]["sac_bottom"] < 190
        assert 1 <= p["line_mm"] <= 2 and 0 <= p["dose"] <= 1


def test_truth_agrees_with_the_image():
    """Every tissue has the value that was drawn, and the line lies where the mask ends."""
    for index in range(6):
        p = thorax_ct_params(1, index) | STILL | {"thickness_mm": 0.0, "line_gap": 99.0}
        heart, hu = p["heart"], p["hu"]
        p["heart"] = heart | {"coronaries": [], "neighbours": []}
        sample = render_thorax_ct(p, gen=generator(0))
        clean, line = sample["hidden"]["noise_free"][0, 0], sample["hidden"]["line"][0, 0]
        assert torch.equal(sample["image"], sample["hidden"]["noise_free"])
        points = points_of(p)
        lv = ellipsoid(points, heart["chambers"]["lv"])
        wall, d = heart["chambers"]["lv"]["wall"], sac(points, heart)
        for where, value in (
            (lv < -4, hu["left_blood"]),
            ((lv > wall - 3.5) & (lv < wall - 3), hu["myocardium"]),
            ((d < -4) & (muscle(points, heart) > 4), hu["fat"]),
        ):
            if where.any():
                expected = window(torch.tensor(value))
                assert float(clean[where].median()) == pytest.approx(float(expected), abs=0.02)
        border = d.abs() < 1.25 + p["line_mm"] / 2 + 0.5
        assert (line[~border] == 0).all() and (line[d.abs() < 0.6] > 0.2).all()
        # Area of the line = length of the contour × thickness. The implicit function is a
        # distance to first order only, hence the tolerance.
        slope = torch.stack(torch.gradient(d, spacing=2.5)).norm(dim=0)
        ring = (d.abs() < 4).float() * slope / 8  # ∫ over the band of |∇d| / 8 = its length
        expected = float(ring.sum()) * 2.5**2 * p["line_mm"]
        assert float((line * slope).sum()) * 2.5**2 == pytest.approx(expected, rel=0.1)


def test_the_line_is_all_that_tells_fat_from_fat():
    """Where fat lies on both sides the border shows by the line alone, or not at all."""
    both = drop = 0
    for index in range(10):
        p = thorax_ct_params(2, index) | STILL
        with_line = render_thorax_ct(p | {"line_gap": 99.0}, gen=generator(0))
        without = render_thorax_ct(p | {"line_gap": -99.0}, gen=generator(0))
        assert torch.equal(with_line["mask"], without["mask"])
        assert float(without["hidden"]["line"].max()) == 0
        change = (with_line["image"] - without["image"]).abs()[0, 0]
        d = sac(points_of(p), p["heart"]).abs()
        assert float(change[d > 6].max()) == 0
        clean = without["image"][0, 0]
        fat = (clean - window(torch.tensor(p["hu"]["fat"]))).abs() < 0.02
        edge = (d < 1.5) & fat
        both, drop = both + int(edge.sum()), drop + int((change[edge] > 0.05).sum())
    assert both > 200  # there is such a border
    assert drop > 0.8 * both  # and the line draws it


def test_the_line_is_broken():
    seen = []
    for index in range(20):
        p = thorax_ct_params(2, index)
        d = sac(points_of(p), p["heart"]).abs()
        value = ((waves(points_of(p), p["line_waves"]) + p["line_gap"]) / 0.5).clamp(0, 1)
        seen.append(float((value[d < 2] < 0.1).float().mean()))
    assert 0.05 < np.mean(seen) < 0.3


def test_noise_has_the_standard_deviation_drawn_and_keeps_the_anatomy():
    p = thorax_ct_params(0, 3, size=64) | {"texture_hu": 0.0, "mixing": 0.0, "noise_hu": 25.0}
    renders = [render_thorax_ct(p, gen=generator(5, k)) for k in range(25)]
    clean = renders[0]["hidden"]["noise_free"]
    assert all(torch.equal(r["mask"], renders[0]["mask"]) for r in renders)
    noise = torch.cat([r["image"] for r in renders]) - clean
    inside = (clean[0, 0] > 0.25) & (clean[0, 0] < 0.75)  # nothing is clipped there
    assert int(inside.sum()) > 300
    assert float(noise[:, 0, inside].std()) == pytest.approx(25 / 600, rel=0.03)
    assert abs(float(noise[:, 0, inside].mean())) < 0.002
    # The ramp: slow variation is weaker than that of independent pixels.
    flat = p | {"hu": dict.fromkeys(p["hu"], 100.0)}
    noise = (
        torch.cat([render_thorax_ct(flat, gen=generator(6, k))["image"] for k in range(8)]) - 0.5
    )
    line = torch.fft.fftfreq(64)
    f = torch.hypot(line[:, None], line)
    power = (torch.fft.fft2(noise).abs() ** 2).mean((0, 1))
    assert float(power[(f > 0) & (f < 0.06)].mean()) < 0.5 * float(
        power[(f - 0.2).abs() < 0.03].mean()
    )
    # … and neighbours go together, but not those further apart.
    near = float((noise[..., 1:] * noise[..., :-1]).mean() / noise.var())
    far = float((noise[..., 3:] * noise[..., :-3]).mean() / noise.var())
    assert abs(near) > 2 * abs(far)


def test_contrast_agent_brightens_blood_and_nothing_else_changes():
    without = thorax_ct(3, 64, 0, contrast_agent=(0, 0))
    full = thorax_ct(3, 64, 0, contrast_agent=(1, 1))
    assert torch.equal(without["mask"], full["mask"])
    for a, b in zip(without["params"], full["params"], strict=True):
        assert a["heart"] == b["heart"] and a["chest"] == b["chest"]
        assert a["hu"]["left_blood"] == a["hu"]["right_blood"] == 40 and a["dose"] == 0
        assert b["hu"]["left_blood"] > 300 and b["hu"]["left_blood"] >= b["hu"]["right_blood"] > 90
    dose = torch.tensor([thorax_ct_params(0, i)["dose"] for i in range(40)])
    assert float(dose.min()) < 0.1 and float(dose.max()) > 0.9


def test_levels_without_pericardium_on_request():
    above = thorax_ct(4, 64, 0, level=(1.1, 1.4))
    assert not above["mask"].any() and float(above["hidden"]["line"].max()) == 0
    assert not thorax_ct(2, 64, 0, level=(-0.4, -0.1))["mask"].any()
    mixed = thorax_ct(16, 64, 0, level=(-0.5, 1.5))["mask"].flatten(1).any(1)
    assert 0 < int(mixed.sum()) < 16
    assert thorax_ct(12, 64, 7)["mask"].flatten(1).any(1).all()
    one = thorax_ct_params(0, 0, level=(0.5, 0.5))
    assert one["z_mm"] == pytest.approx((one["heart"]["sac_bottom"] + one["heart"]["sac_top"]) / 2)


def test_a_vessel_that_was_added_is_painted_where_it_lies():
    p = thorax_ct_params(0, 1) | STILL | {"thickness_mm": 0.0}
    empty = p | {"heart": p["heart"] | {"coronaries": []}}
    d = sac(points_of(p), p["heart"])
    deep = ((d < -3) & (muscle(points_of(p), p["heart"]) > 3)).nonzero()
    row, column = deep[len(deep) // 2].tolist()
    place = points_of(p)[:, row, column].tolist()
    vessel = {"centre": place, "axes": [3.0] * 3, "frame": torch.eye(3).tolist()}
    one = p | {"heart": p["heart"] | {"coronaries": [vessel]}}
    change = (
        render_thorax_ct(one, gen=generator(0))["image"]
        - render_thorax_ct(empty, gen=generator(0))["image"]
    )[0, 0]
    r = (points_of(p) - torch.tensor(place)[:, None, None]).norm(dim=0)
    assert float(change[row, column]) > 0.1 and (change[r > 4.3] == 0).all()
    ball = math.pi * 9 * float(change[row, column]) / 2.5**2
    assert float(change.sum()) == pytest.approx(ball, rel=0.15)


def test_leak_no_mask_from_edges_mean_intensity_order_or_a_fixed_place(many):
    """Area and place of the mask from what carries no anatomy (cross-validated R²)."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import cross_val_score

    image, mask = many["image"][:, 0], many["mask"][:, 0].float()
    at = torch.arange(64.0)
    area = mask.mean((1, 2))
    truth = {
        "area": area,
        "row": (mask.mean(2) @ at) / mask.mean(2).sum(1),
        "column": (mask.mean(1) @ at) / mask.mean(1).sum(1),
    }
    features = {
        "corners": torch.stack([image[:, r, c] for r in (0, -1) for c in (0, 32, -1)], 1),
        "order": torch.arange(48.0)[:, None] / 48,
    }
    for name, x in features.items():
        for what, y in truth.items():
            r2 = cross_val_score(Ridge(1.0), x.numpy(), y.numpy(), cv=5).mean()
            assert r2 < 0.35, (name, what, r2)
    assert float(truth["row"].std()) > 3 and float(truth["column"].std()) > 3
    best = 0.0
    for share in np.linspace(0.2, 0.7, 6):
        fixed = mask.mean(0) > share
        both = (mask.bool() & fixed).sum((1, 2)) / (mask.bool() | fixed).sum((1, 2))
        best = max(best, float(both.mean()))
    assert best < 0.62
