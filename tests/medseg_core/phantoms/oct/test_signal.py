"""Brightness of the B-scans: tissues, light, noise, drusen and atrophy."""

import pytest
import scipy.stats
import torch

from medseg_core.phantoms.oct.anatomy import LAYERS, bscan_surfaces
from medseg_core.phantoms.oct.bscan import (
    oct_bscan,
    oct_bscan_params,
    render_oct_bscan,
)
from medseg_core.rng import generator


def again(params, **changed):
    """The sample of changed parameters with the same noise draw."""
    return render_oct_bscan(params | changed, gen=generator(0, 0, "again"))


def quiet(params, **changed):
    """Noise-free image ``(H,W)`` without texture."""
    return again(params, texture=0.0, blotches=0.0, **changed)["hidden"]["noise_free"][0, 0]


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
