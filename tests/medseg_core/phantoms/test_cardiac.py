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


def test_labels_and_pixels(many):
    assert set(many["label"].unique().tolist()) == {0, RV, MYOCARDIUM, LV}
    assert many["spacing"] == (2.25, 2.25)


def test_patients_own_an_ed_and_a_smaller_es_slice(many):
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


def test_options_switch_their_part_off():
    assert cardiac_sax_params(0, 0, distractors=False)["decoys"] == []
    assert cardiac_sax_params(0, 0, papillary=False)["papillary"] == []
    with_decoys, without = cardiac_sax_params(0, 0), cardiac_sax_params(0, 0, distractors=False)
    assert with_decoys["papillary"] == without["papillary"]  # same anatomy otherwise
    louder = cardiac_sax_params(0, 0, snr=5.0, bias=0.5)
    assert louder == with_decoys | {"snr": 5.0, "bias": 0.5}


def test_the_ventricle_tapers_from_base_to_apex(many):
    depth = torch.tensor([p["depth"] for p in many["params"][::2]])
    radius = torch.tensor([p["radius_px"] for p in many["params"][::2]])
    assert float(torch.corrcoef(torch.stack([depth, radius]))[0, 1]) < -0.9
    assert float(radius[depth < 0.3].mean()) > 1.6 * float(radius[depth > 0.7].mean())
