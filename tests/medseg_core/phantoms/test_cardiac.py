import pytest
import torch

from medseg_core.phantoms.cardiac import (
    LV,
    MYOCARDIUM,
    RV,
    cardiac_sax,
    cardiac_sax_params,
    render_cardiac_sax,
)
from medseg_core.rng import generator


@pytest.fixture(scope="module")
def many():
    return cardiac_sax(80, 64, seed=5)


def test_a_sample_depends_neither_on_n_nor_on_start():
    few, more = cardiac_sax(3, 48, 1), cardiac_sax(6, 48, 1)
    later = cardiac_sax(2, 48, 1, start=4)
    assert torch.equal(few["image"], more["image"][:3])
    assert torch.equal(later["image"], more["image"][4:])
    assert torch.equal(later["label"], more["label"][4:])
    assert later["params"] == more["params"][4:]


def test_shapes_types_and_ranges(many):
    assert many["image"].shape == (80, 1, 64, 64) and many["image"].dtype == torch.float32
    assert many["label"].shape == (80, 64, 64) and many["label"].dtype == torch.int64
    assert float(many["image"].min()) >= 0 and float(many["image"].max()) <= 1
    assert set(many["label"].unique().tolist()) == {0, RV, MYOCARDIUM, LV}
    assert many["spacing"] == (2.25, 2.25)
    assert many["hidden"]["noise_free"].shape == many["image"].shape
    assert cardiac_sax(1, (40, 64), 0)["image"].shape == (1, 1, 40, 64)


def test_patients_own_an_ed_and_a_smaller_es_slice(many):
    assert many["group"].tolist() == [i // 2 for i in range(80)]
    assert many["phase_name"] == ["ED", "ES"] * 40
    area = (many["label"] == LV).sum((1, 2))
    assert (area[0::2] > area[1::2]).all()


def test_truth_agrees_with_the_image(many):
    """Mean intensity per label follows the drawn levels; the LV is blood apart from papillaries."""
    for i in range(0, 80, 7):
        p, clean, label = many["params"][i], many["hidden"]["noise_free"][i, 0], many["label"][i]
        blood = clean[label == LV].quantile(0.75)
        assert float(blood) == pytest.approx(p["blood"], abs=0.08)
        assert float(clean[label == MYOCARDIUM].median()) < p["blood"] - 0.05


def test_centre_is_the_centre_of_mass_and_never_the_image_centre(many):
    for i in range(20):
        expected = torch.nonzero(many["label"][i] == LV).float().mean(0)
        assert torch.allclose(many["centre"][i], expected)
    offset = (many["centre"] - 31.5).norm(dim=1)
    assert float(offset.mean()) > 2  # knowing the image's centre tells little


def test_lv_radius_is_the_drawn_one(many):
    area = (many["label"] == LV).sum((1, 2)).float()
    radius = (area / torch.pi).sqrt()
    drawn = torch.tensor([p["radius_px"] for p in many["params"]])
    assert float((radius - drawn).abs().max()) < 0.6


def test_noise_at_blood_follows_snr():
    p = cardiac_sax_params(0, 0, size=64, bias=0.0, distractors=False)
    clean = render_cardiac_sax(p, gen=generator(0))["hidden"]["noise_free"]
    noisy = torch.stack(
        [render_cardiac_sax(p | {"texture": 0.0}, gen=generator(0, k))["image"] for k in range(200)]
    )
    label = render_cardiac_sax(p, gen=generator(0))["label"]
    inside = (label == LV)[:, None]
    assert float(noisy.std(0)[inside].mean()) == pytest.approx(p["blood"] / 20, rel=0.1)
    assert float((noisy.mean(0) - clean)[inside].abs().mean()) < 0.02


def test_changing_the_noise_keeps_the_anatomy():
    p = cardiac_sax_params(0, 4, size=64)
    a, b = (render_cardiac_sax(p, gen=generator(9, k)) for k in (0, 1))
    assert torch.equal(a["label"], b["label"]) and not torch.equal(a["image"], b["image"])
    assert cardiac_sax_params(0, 4, size=64, snr=5.0)["centre"] == p["centre"]


def test_options_switch_their_part_off():
    assert cardiac_sax_params(0, 0, distractors=False)["decoys"] == []
    assert cardiac_sax_params(0, 0, papillary=False)["papillary"] == []
    with_decoys, without = cardiac_sax_params(0, 0), cardiac_sax_params(0, 0, distractors=False)
    assert with_decoys["papillary"] == without["papillary"]  # same anatomy otherwise
    assert (
        cardiac_sax_params(0, 0, level="base")["radius_px"]
        > 1.6 * (cardiac_sax_params(0, 0, level="apex")["radius_px"])
    )


def test_leak_no_label_from_corners_mean_intensity_or_order(many):
    """LV area must not be predictable from what carries no anatomy (cross-validated R²)."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import cross_val_score

    area = (many["label"] == LV).sum((1, 2)).float().numpy()[0::2]
    image = many["image"][0::2, 0]
    corners = torch.stack([image[:, r, c] for r in (0, 1, -2, -1) for c in (0, 1, -2, -1)], 1)
    features = torch.cat([corners, image.mean((1, 2))[:, None], torch.arange(40.0)[:, None]], 1)
    r2 = cross_val_score(Ridge(1.0), features.numpy(), area, cv=5, scoring="r2").mean()
    assert r2 < 0.3


@pytest.mark.parametrize(
    "kind, error",
    [
        ({"n": 0}, ValueError),
        ({"start": -1}, ValueError),
        ({"size": 16}, ValueError),
        ({"level": "middle"}, ValueError),
        ({"snr": 0}, ValueError),
        ({"seed": -1}, ValueError),
        ({"frames": 15}, NotImplementedError),
        ({"phase": True}, NotImplementedError),
    ],
)
def test_refuses(kind, error):
    with pytest.raises(error):
        cardiac_sax(**({"n": 1} | kind))
