import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_core.phantoms.oct.anatomy import LAYERS, bscan_surfaces, bump
from medseg_core.phantoms.oct.bscan import (
    oct_bscan,
    oct_bscan_params,
    region_label,
    render_oct_bscan,
    surface_names,
)
from medseg_core.rng import generator


@pytest.fixture(scope="module")
def layers():
    return oct_bscan(80, (128, 64), seed=3)


@pytest.fixture(scope="module")
def drusen():
    return oct_bscan(60, (64, 128), seed=3, slices=4, pathology="drusen")


@pytest.fixture(scope="module")
def ga():
    return oct_bscan(96, 64, seed=3, slices=8, pathology="ga", registration_error=3)


def again(params, **changed):
    """The sample of changed parameters with the same noise draw."""
    return render_oct_bscan(params | changed, gen=generator(0, 0, "again"))


def quiet(params, **changed):
    """Noise-free image ``(H,W)`` without texture."""
    return again(params, texture=0.0, blotches=0.0, **changed)["hidden"]["noise_free"][0, 0]


# ---------------------------------------------------------------- contract


@pytest.mark.parametrize(
    "kind",
    [
        {"layers": 9},
        {"layers": 5, "slices": 3},
        {"pathology": "drusen", "slices": 4},
        {"pathology": "ga", "slices": 3, "registration_error": 3},
    ],
)
def test_a_sample_depends_neither_on_n_nor_on_start(kind):
    one, more = oct_bscan(1, (64, 48), 1, **kind), oct_bscan(8, (64, 48), 1, **kind)
    later = oct_bscan(3, (64, 48), 1, start=5, **kind)
    for key, value in more.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(one[key], value[:1]) and torch.equal(later[key], value[5:]), key
    p = oct_bscan_params(1, 6, size=(64, 48), **kind)
    rendered = render_oct_bscan(p, gen=generator(1, 6, "oct_bscan.noise"))
    assert torch.equal(rendered["image"][0], more["image"][6])
    assert not torch.equal(oct_bscan(1, (64, 48), 2, **kind)["image"], one["image"])


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (128, 1024), (33, 47), 48])
def test_shapes_types_and_ranges(size):
    data = oct_bscan(2, size, 0)
    h, w = (size, size) if isinstance(size, int) else size
    assert data["image"].shape == (2, 1, h, w) and data["image"].dtype == torch.float32
    assert data["image"].is_contiguous() and data["image"].min() >= 0 and data["image"].max() <= 1
    assert data["surfaces"].shape == (2, 9, w) and data["surfaces"].dtype == torch.float32
    assert data["label"].shape == (2, h, w) and data["label"].dtype == torch.int64
    assert data["valid"].shape == (2, w) and data["valid"].all()
    assert data["hidden"]["noise_free"].shape == data["image"].shape
    assert data["surfaces"].min() > 0 and data["surfaces"].max() < h - 1
    assert data["spacing"] == (0.0039 * 128 / h, 6.0 / w) and data["group"].tolist() == [0, 1]


def test_the_kinds_have_their_own_keys(drusen, ga):
    five = oct_bscan(2, 64, 0, layers=5)
    assert five["surfaces"].shape == (2, 5, 64) and len(five["surface_names"]) == 5
    assert torch.equal(five["surfaces"], five["hidden"]["surfaces"][:, [0, 1, 4, 6, 8]])
    assert drusen["surface_names"] == ("ILM", "RPEDC", "BM") and "columns" not in drusen
    assert drusen["surfaces"].shape == (60, 3, 128)
    assert drusen["valid"].sum(1).unique().tolist() == [102]  # the central 80 % of 128
    assert drusen["valid"][0, 13:115].all()
    assert not {"surfaces", "label", "amd", "surface_names"} & set(ga)
    assert ga["columns"].shape == ga["hidden"]["columns_clean"].shape == (96, 64)
    assert ga["columns"].dtype == torch.bool and ga["hidden"]["surfaces"].shape == (96, 9, 64)
    assert ga["group"].tolist() == [i // 8 for i in range(96)]


def test_half_of_the_volumes_have_drusen_or_the_share_asked_for(drusen):
    assert drusen["amd"][::4].tolist() == [v % 2 == 1 for v in range(15)]
    for share, count in ((0.0, 0), (0.25, 2), (1.0, 8)):
        data = oct_bscan(8, 32, 0, pathology="drusen", share_amd=share)
        assert int(data["amd"].sum()) == count
    drawn = [len(p["drusen"]) for p in drusen["params"]]
    assert max(drawn) > 3 and max(drawn) <= 8
    assert all(n == 0 for n, a in zip(drawn, drusen["amd"].tolist(), strict=True) if not a)


# ---------------------------------------------------------------- geometry and truth


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from([(None, 1), (None, 3), ("drusen", 3), ("ga", 3)]),
    size=st.sampled_from([(64, 64), (128, 64), (48, 96)]),
)
def test_surfaces_never_cross_and_stay_inside(seed, kind, size):
    data = oct_bscan(3, size, seed, pathology=kind[0], slices=kind[1])
    s = data["hidden"]["surfaces"]
    assert (s.diff(dim=1) > 0).all()
    assert s.min() >= 0 and s.max() < 0.98 * size[0]


def test_region_label_counts_the_surfaces_at_or_above_a_pixel():
    s = torch.tensor([[1.0, 0.4, 5.0], [1.0, 2.5, 5.0]])
    expected = [[0, 0, 0], [2, 1, 0], [2, 1, 0], [2, 2, 0]]
    assert region_label(s, 4).tolist() == expected


def test_label_agrees_with_surfaces(layers):
    label, s = layers["label"], layers["surfaces"]
    assert (label.diff(dim=1) >= 0).all() and label.unique().tolist() == list(range(10))
    entry = (label[:, None] <= torch.arange(9)[:, None, None]).sum(2)  # rows above surface i
    assert torch.equal(entry.float(), s.ceil())


def test_the_pit_pinches_the_inner_layers_in_60_percent(layers):
    gaps = layers["surfaces"].diff(dim=1)  # (80, 8, W)
    pinched = gaps[:, :4].amin((1, 2)) < 0.8
    assert 0.4 < float(pinched.float().mean()) < 0.8
    assert 0.1 < float(gaps.min()) < 0.5
    open_ = oct_bscan(40, (128, 64), seed=3, pinch=False)["surfaces"]
    assert float(open_.diff(dim=1)[:, :4].min()) > 2
    assert torch.equal(open_[:, 4:], layers["surfaces"][:40, 4:])  # the outer layers are the same


def test_thicknesses_follow_their_means():
    s = oct_bscan(100, (128, 64), seed=9, pinch=False)["surfaces"].diff(dim=1)
    mean = s.mean((0, 2))
    drawn = torch.tensor([13.0, 14, 12, 10, 20, 8, 5, 6])
    ratio = mean / drawn
    assert 0.8 < float(ratio.mean()) <= 1.02  # retinas that would leave the image are thinner
    assert float(ratio.std() / ratio.mean()) < 0.05
    along = (s / s.mean(2, keepdim=True)).std(2).mean()
    assert 0.07 < float(along) < 0.16  # 15 % in the ensemble, less within one field of view


def test_volumes_vary_smoothly_from_slice_to_slice():
    s = oct_bscan(64, (64, 64), 0, slices=16)["hidden"]["surfaces"].reshape(4, 16, 9, 64)
    step = s.diff(dim=1).abs().mean()
    between = (s[0] - s[1]).abs().mean()
    assert float(step) < 0.3 * float(between)


def test_bm_is_smooth_and_drusen_lift_only_the_rpe(drusen):
    p = next(p for p in drusen["params"] if len(p["drusen"]) >= 2)
    s, lower = bscan_surfaces(p)
    flat, flat_lower = bscan_surfaces(p | {"drusen": []})
    assert torch.equal(s[8], flat[8]) and torch.equal(flat_lower, flat[8])
    assert torch.allclose(flat[7] - s[7], bump(p), atol=1e-4)
    assert (s.diff(dim=0) > 0).all() and (lower <= s[8]).all()
    rough = drusen["surfaces"].diff(n=2, dim=2).abs().amax(2)[drusen["amd"]].mean(0)
    assert float(rough[2]) < 0.05 < float(rough[1])


def test_bump_is_the_druse_drawn_and_merges_without_a_kink():
    p = oct_bscan_params(0, 0, size=(100, 60), pathology="drusen") | {"drusen": [(30, 5.0, 8.0)]}
    expected = 8 * torch.exp(-0.5 * ((torch.arange(60.0) - 30) / 5) ** 2)
    assert torch.allclose(bump(p), expected, atol=1e-4)
    twice = bump(p | {"drusen": [(30, 5.0, 8.0)] * 2})
    assert float(twice.max()) == pytest.approx(8 * 2**0.25, rel=1e-4)


# ---------------------------------------------------------------- truth agrees with the image


def test_layers_have_the_brightness_drawn_for_them(layers):
    """Mean noise-free intensity of each region = floor + gain · reflectivity · attenuation."""
    for p in layers["params"][:20]:
        p = p | {"shadows": [], "band": None, "attenuation": 0.0}
        clean, sample = quiet(p, psf_px=0.0), again(p)
        label = sample["label"][0]
        for region, name in enumerate(("vitreous", *LAYERS)):
            inside = label == region
            inside[1:] &= label[:-1] == region
            inside[:-1] &= label[1:] == region  # whole pixels
            if inside.any():
                expected = p["floor"] + p["gain"] * p["reflectivity"][name]
                expected = min(expected, 1.0)
                assert float((clean[inside] - expected).abs().max()) < 1e-4, name


def test_an_edge_lies_on_its_surface_to_a_tenth_of_a_pixel(layers):
    """The ILM from the image alone: the area under the step, summed over the rows above RNFL."""
    errors = []
    for p in layers["params"][:20]:
        p = p | {"shadows": [], "band": None, "attenuation": 0.0, "pit_depth": 0.0}
        clean = quiet(p)
        s, _ = bscan_surfaces(p)
        lo = p["floor"] + p["gain"] * p["reflectivity"]["vitreous"]
        hi = p["floor"] + p["gain"] * p["reflectivity"]["RNFL"]
        middle = ((s[0] + s[1]) / 2).floor().long()
        row = torch.arange(128)[:, None]
        share = ((clean - lo) / (hi - lo) * (row <= middle)).sum(0)
        errors.append(middle + 0.5 - share - s[0])
    assert float(torch.stack(errors).abs().max()) < 0.1


def test_two_pairs_of_neighbours_are_nearly_alike_and_step_the_same_way(layers):
    for p in layers["params"]:
        r = p["reflectivity"]
        assert r["RNFL"] > r["GCIPL"] > r["INL"] > 0.9 * r["GCIPL"]
        assert r["ONL"] < r["IS"] < 1.1 * r["ONL"] and r["IS"] < r["OS"]


def test_light_is_attenuated_with_depth():
    p = oct_bscan_params(0, 1, size=(128, 64)) | {"shadows": [], "band": None}
    dim = quiet(p, attenuation=0.6) - p["floor"]
    full = quiet(p, attenuation=0.0) - p["floor"]
    s, _ = bscan_surfaces(p)
    inner, outer = (int(((s[i] + s[i + 1]) / 2)[32]) for i in (0, 7))
    assert float(dim[inner, 32] / full[inner, 32]) > 0.85
    assert 0.5 < float(dim[outer, 32] / full[outer, 32]) < 0.65


def test_shadows_darken_what_lies_beneath_the_vessel_and_nothing_above():
    p = oct_bscan_params(0, 2, size=(128, 64)) | {"band": None, "pit_depth": 0.0}
    lit = quiet(p, shadows=[]) - p["floor"]
    dark = quiet(p, shadows=[(30.0, 6.0, 0.2)]) - p["floor"]
    s, _ = bscan_surfaces(p)
    below = slice(int(s[1, 30]) + 3, 128)
    assert torch.allclose(dark[below, 30], 0.2 * lit[below, 30], atol=1e-4)
    assert torch.equal(dark[:, 40:], lit[:, 40:])
    above = slice(0, int(s[0, 30]) - 1)
    assert torch.equal(dark[above], lit[above])
    assert all(1 <= len(q["shadows"]) <= 4 for q in oct_bscan(20, 64, 0)["params"])
    assert all(
        not q["shadows"] and q["band"] is None
        for q in oct_bscan(20, 64, 0, shadows=False)["params"]
    )


def test_a_fifth_of_the_images_has_a_band_of_low_signal():
    params = [oct_bscan_params(1, i, size=(32, 64)) for i in range(200)]
    bands = [p["band"] for p in params if p["band"] is not None]
    assert 25 < len(bands) < 55 and all(10 <= wide <= 20 for _, wide, _ in bands)
    p = params[0] | {"shadows": []}
    ratio = (quiet(p, band=(32.0, 12.0, 0.3)) - p["floor"]) / (quiet(p, band=None) - p["floor"])
    assert torch.allclose(ratio[:, 32], torch.tensor(0.3), atol=1e-3)
    assert torch.allclose(ratio[:, :20], torch.tensor(1.0), atol=1e-3)


# ---------------------------------------------------------------- noise


def test_noise_is_speckle_through_the_point_spread_plus_detector_noise():
    p = oct_bscan_params(0, 0, size=(96, 64)) | {"shadows": [], "band": None, "noise": 0.02}
    p |= {"texture": 0.0, "blotches": 0.0, "gain": 0.2, "speckle": 0.5, "attenuation": 0.0}
    p["reflectivity"] = dict.fromkeys(p["reflectivity"], 1.0)
    p["choroid_px"], p["psf_px"] = 1e6, 0.0
    y = torch.stack([render_oct_bscan(p, gen=generator(0, k))["image"] for k in range(60)])
    assert float(y.mean()) == pytest.approx(p["floor"] + 0.2, rel=0.005)
    assert float(y.var()) == pytest.approx((0.5 * 0.2) ** 2 + 0.02**2, rel=0.03)
    gamma = scipy.stats.gamma(a=4, loc=p["floor"], scale=0.05)
    p["noise"] = 0.0
    bare = render_oct_bscan(p, gen=generator(0, 99))["image"].flatten().numpy()
    assert scipy.stats.kstest(bare, gamma.cdf).pvalue > 1e-3
    p |= {"psf_px": 0.8, "noise": 0.02}
    z = torch.stack([render_oct_bscan(p, gen=generator(0, k))["image"] for k in range(60)])
    z = z - z.mean()
    smoothed = (0.5 * 0.2) ** 2 * 0.3526  # Σ of the squared taps of a Gaussian of σ 0.8
    assert float(z[..., 4:-4, :].var()) == pytest.approx(smoothed + 0.02**2, rel=0.04)
    axial = float((z[..., 5:-4, :] * z[..., 4:-5, :]).mean())
    lateral = float((z[..., 1:] * z[..., :-1]).mean())
    assert axial == pytest.approx(0.677 * smoothed, rel=0.06)
    assert abs(lateral) < 0.02 * smoothed


def test_speckle_shape_lies_between_3_and_4_at_strength_one_half():
    strengths = torch.tensor([oct_bscan_params(0, i, size=32)["speckle"] for i in range(50)])
    shape = strengths**-2
    assert float(shape.min()) >= 3 - 1e-5 and float(shape.max()) <= 4 + 1e-5
    assert float(shape.std()) > 0.1
    assert oct_bscan_params(0, 0, size=32, speckle=0.0)["speckle"] == 0


def test_changing_the_noise_keeps_the_anatomy():
    p = oct_bscan_params(0, 4, size=64)
    a, b = (render_oct_bscan(p, gen=generator(9, k)) for k in (0, 1))
    assert torch.equal(a["surfaces"], b["surfaces"]) and not torch.equal(a["image"], b["image"])
    q = oct_bscan_params(0, 4, size=64, speckle=0.1, shadows=False)
    assert torch.equal(q["bm"], p["bm"]) and torch.equal(q["thickness"], p["thickness"])
    error = {"pathology": "ga", "slices": 3, "size": 48}
    a, b = oct_bscan(6, seed=0, **error), oct_bscan(6, seed=0, registration_error=3, **error)
    assert torch.equal(a["image"], b["image"])


# ---------------------------------------------------------------- drusen and atrophy


def test_bm_fades_under_large_drusen_and_vessels():
    p = oct_bscan_params(0, 1, size=(128, 128), pathology="drusen")
    p |= {"drusen": [(64.0, 6.0, 14.0)], "shadows": [(20.0, 6.0, 0.3)], "band": None}
    s, _ = bscan_surfaces(p)

    def around_bm(fade, column):
        """Signal in the two rows above Bruch's membrane and in four rows below it."""
        clean = quiet(p, bm_fade=fade, psf_px=0.0)[:, column] - p["floor"]
        bm = int(s[8, column].ceil())
        return float(clean[bm - 2 : bm].mean()), float(clean[bm + 1 : bm + 5].mean())

    for column in (20, 64):  # under the vessel, under the druse
        (above, below), (above_0, below_0) = around_bm(1.0, column), around_bm(0.0, column)
        assert abs(below) < 1e-6 and below_0 > 0.03 and abs(above_0 - below_0) > 0.03
        assert above < 0.4 * above_0
    assert around_bm(1.0, 64)[0] < 1e-6
    assert around_bm(1.0, 100) == pytest.approx(around_bm(0.0, 100))  # elsewhere it stays
    healthy = oct_bscan_params(0, 1, size=64)
    assert torch.equal(quiet(healthy, bm_fade=1.0), quiet(healthy, bm_fade=0.0))


def test_atrophy_loses_the_rpe_and_lets_light_through():
    p = oct_bscan_params(0, 4, size=(128, 64), pathology="ga", slices=8)
    inside = torch.zeros(64, dtype=torch.bool)
    inside[20:44] = True
    p |= {
        "atrophy": inside,
        "atrophy_degree": 1.0,
        "shadows": [],
        "band": None,
        "streaks": [],
        "attenuation": 0.0,
        "psf_px": 0.0,
    }
    clean = quiet(p) - p["floor"]
    s, _ = bscan_surfaces(p)
    row = torch.arange(128)[:, None]
    rpe = (row >= s[7]) & (row < s[8])
    choroid = (row > s[8] + 1) & (row < s[8] + 9)

    def mean(where, columns):
        return float(clean[where & columns].mean())

    sure_in, sure_out = torch.zeros(64, dtype=torch.bool), ~inside
    sure_in[24:40] = True
    sure_out[16:48] = False
    assert mean(rpe, sure_in) < 0.6 * mean(rpe, sure_out)
    assert mean(choroid, sure_in) > 1.6 * mean(choroid, sure_out)
    streak = quiet(p, streaks=[(5, 2.0)]) - p["floor"]
    only = torch.arange(64) == 5
    assert float(streak[choroid & only].mean()) > 1.6 * mean(choroid, only)
    whole = rpe & (row < s[8] - 0.5)
    assert torch.equal(streak[whole & only], clean[whole & only])  # the RPE is there
    assert torch.equal(streak[:, ~only], clean[:, ~only])


def test_ga_columns_differ_from_the_rest_in_the_images(ga):
    """Below the RPE the columns of the blob are brighter, in the noisy images too."""
    bm = ga["hidden"]["surfaces"][:, 8].round().long()
    row = bm[:, None] + torch.arange(2, 8)[:, None]
    below = ga["image"][:, 0].gather(1, row.clamp_max(63)).mean(1)
    clean = ga["hidden"]["columns_clean"]
    inside, outside = below[clean], below[~clean]
    assert float(inside.mean()) > float(outside.mean()) + outside.std()
    assert 0.05 < float(clean.float().mean()) < 0.5


def test_the_reference_is_the_blob_shifted_by_at_most_the_registration_error(ga):
    shifts = torch.tensor([p["registration_px"] for p in ga["params"]]).reshape(12, 8)
    assert (shifts == shifts[:, :1]).all() and int(shifts.abs().max()) <= 3
    assert len(shifts[:, 0].unique()) > 3
    for i, e in enumerate(shifts.flatten().tolist()):
        clean, seen = ga["hidden"]["columns_clean"][i], ga["columns"][i]
        expected = [bool(clean[min(max(c - e, 0), 63)]) for c in range(64)]
        assert seen.tolist() == expected
    none = oct_bscan(6, 48, 0, slices=3, pathology="ga")
    assert torch.equal(none["columns"], none["hidden"]["columns_clean"])
    drawn = [
        oct_bscan_params(0, v, size=32, pathology="ga", registration_error=3)["registration_px"]
        for v in range(250)
    ]
    counts = torch.bincount(torch.tensor(drawn) + 3, minlength=7)
    assert len(counts) == 7 and int(counts.min()) > 18 and int(counts.max()) < 56  # uniform


# ---------------------------------------------------------------- leaks


def test_leak_no_surface_at_a_known_row(layers, drusen):
    """The mean curves of a training set are more than three times worse than one pixel."""
    for data, rows in ((layers, 128), (drusen, 64)):
        s = data["surfaces"]
        train, test = s[: len(s) // 2], s[len(s) // 2 :]
        error = (test - train.mean(0)).abs().mean((0, 2)) * 128 / rows
        assert float(error.mean()) > 3 and float(error.min()) > 2.5


def test_leak_no_surface_from_corners_mean_intensity_or_order(layers):
    """The level of the retina must not follow from what carries no anatomy (cross-validated R²)."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import cross_val_score

    image, s = layers["image"][:, 0], layers["surfaces"].mean(2)
    corners = torch.stack([image[:, r, c] for r in (0, 1) for c in (0, 1, -2, -1)], 1)
    features = torch.cat(
        [corners, image[:, :4].mean((1, 2))[:, None], torch.arange(80.0)[:, None]], 1
    )
    for surface in (0, 4, 8):
        r2 = cross_val_score(Ridge(1.0), features, s[:, surface], cv=5, scoring="r2").mean()
        assert r2 < 0.2, surface


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "kind, name",
    [
        ({"n": 0}, "n"),
        ({"start": -1}, "start"),
        ({"size": 16}, "size"),
        ({"size": (64, 64, 64)}, "size"),
        ({"seed": -1}, "seed"),
        ({"layers": 7}, "layers"),
        ({"layers": 5, "pathology": "ga"}, "layers"),
        ({"slices": 0}, "slices"),
        ({"pathology": "amd"}, "pathology"),
        ({"bm_fade": 1.5}, "bm_fade"),
        ({"speckle": -0.1}, "speckle"),
        ({"registration_error": -1}, "registration_error"),
        ({"registration_error": 40}, "registration_error"),
        ({"registration_error": 1.5}, "registration_error"),
        ({"slices": 2.5}, "slices"),
        ({"share_amd": 2.0}, "share_amd"),
    ],
)
def test_refuses(kind, name):
    with pytest.raises((ValueError, TypeError), match=name):
        oct_bscan(**({"n": 1, "size": 64} | kind))


def test_surface_names_and_an_unknown_kind():
    assert surface_names(5) == ("ILM", "RNFL-GCL", "OPL-ONL", "IS-OS", "BM")
    assert len(surface_names(9)) == 9 and surface_names("drusen")[1] == "RPEDC"
    with pytest.raises(ValueError, match="kind"):
        surface_names(4)
