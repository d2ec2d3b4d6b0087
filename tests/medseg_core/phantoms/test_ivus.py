import math

import pytest
import torch

from medseg_core.phantoms.ivus import (
    BLOOD,
    DYNAMIC_RANGE_DB,
    OUTSIDE,
    WALL,
    compress,
    ivus_polar,
    ivus_polar_params,
    render_ivus_polar,
    vessel_surfaces,
)
from medseg_core.physics.noise import RAYLEIGH_SD
from medseg_core.rng import generator

ANYTHING = {"wire": None, "calcium": None, "branch": None}
EVEN = {"texture_db": 0.0, "patches_db": 0.0, "swirl_db": 0.0}  # tissue without texture


@pytest.fixture(scope="module")
def many():
    return ivus_polar(120, (64, 96), seed=5)


def amplitude(image):
    return 10 ** ((image - 1) * DYNAMIC_RANGE_DB / 20)


def test_labels_and_pixels(many):
    assert set(many["label"].unique().tolist()) == {BLOOD, WALL, OUTSIDE}
    assert many["spacing"] == (5.0 / 64, 2 * math.pi / 96)


def test_an_eccentric_circle_is_seen_as_the_law_of_cosines_says():
    p = ivus_polar_params(0, 0, size=(96, 120))
    circle = p | {"outline": [], "wall_outline": [], "lumen_px": 30.0, "wall_px": 10.0}
    shift = torch.arange(120).double() * (2 * math.pi / 120) - p["rotation"] - p["offset_angle"]
    e = p["offset_px"]
    assert e > 1
    for seen, radius in zip(vessel_surfaces(circle), (30.0, 40.0), strict=True):
        expected = e * shift.cos() + (radius**2 - (e * shift.sin()) ** 2).sqrt()
        assert torch.allclose(seen, expected, atol=1e-2)
    centred = vessel_surfaces(circle | {"offset_px": 0.0})
    assert torch.allclose(centred, torch.tensor([[30.0], [40.0]]).double(), atol=1e-9)


def test_surfaces_lie_on_the_outline_that_was_drawn(many):
    """From column and radius back to the vessel's frame: r = R·(1 + Σ cₖ cos(k·a + φₖ))."""
    angle = torch.arange(96) * (2 * math.pi / 96)
    for p, (lumen, _) in zip(many["params"], many["surfaces"], strict=True):
        a = angle - p["rotation"]
        row = lumen * a.sin() - p["offset_px"] * math.sin(p["offset_angle"])
        column = lumen * a.cos() - p["offset_px"] * math.cos(p["offset_angle"])
        own = torch.atan2(row, column)
        expected = p["lumen_px"] * (1 + sum(c * (k * own + f).cos() for k, c, f in p["outline"]))
        assert torch.allclose(torch.hypot(row, column), expected, atol=0.02)


def test_proportions(many):
    lumen, media = many["surfaces"].unbind(1)
    catheter = torch.tensor([p["catheter_px"] for p in many["params"]])[:, None]
    assert (lumen > catheter + 2).all()
    assert (media < 0.95 * 64).all()
    assert (media - lumen > 0.03 * 64).all()
    for name, lo, hi in (("lumen_px", 0.25, 0.45), ("wall_px", 0.08, 0.20)):
        share = torch.tensor([p[name] for p in many["params"]]) / 64
        assert lo <= float(share.min()) and float(share.max()) <= hi
        assert float(share.max() - share.min()) > 0.9 * (hi - lo)
    for part, lo, hi in (("wire", 8, 15), ("calcium", 20, 60), ("branch", 15, 30)):
        widths = [math.degrees(2 * p[part]["half_width"]) for p in many["params"] if p[part]]
        assert 20 < len(widths) < 120 and lo <= min(widths) and max(widths) <= hi


def test_label_counts_the_surfaces_above_each_pixel_centre(many):
    row = torch.arange(64)[:, None]
    lumen, media = many["surfaces"][:, :, None].unbind(1)
    assert torch.equal(many["label"], (row >= lumen).long() + (row >= media).long())


def test_truth_agrees_with_the_image():
    """Without artefacts each tissue has the echo that was drawn, and the surfaces are edges."""
    for index in range(0, 30, 5):
        p = ivus_polar_params(3, index) | ANYTHING | EVEN
        p = p | {"attenuation_db": 0.0, "gain_db": 0.0, "blur_px": 0.0}
        sample = render_ivus_polar(p, gen=generator(0))
        clean, label = sample["hidden"]["noise_free"][0, 0], sample["label"][0]
        db = DYNAMIC_RANGE_DB * (clean - 1)
        far_from_catheter = torch.arange(96)[:, None] > p["catheter_px"] + 8
        blood = db[(label == BLOOD) & far_from_catheter]
        if len(blood):
            assert float(blood.median()) == pytest.approx(p["blood_db"], abs=0.3)
        assert float(db[label == WALL].median()) == pytest.approx(p["wall_db"], abs=0.3)
        assert float(db[-1].median()) == pytest.approx(p["outside_db"], abs=0.3)
        # The steepest rise of each column, to a pixel: blood to intima, media to adventitia.
        lumen, media = sample["surfaces"][0]
        rise, columns = db.diff(dim=0), torch.arange(128)
        for surface, reach in ((lumen, 1.5), (media, 1.5)):
            near = (torch.arange(95)[:, None] + 0.5 - surface).abs() <= reach
            steepest = rise.masked_fill(~near, -99).argmax(0)
            assert float((steepest + 0.5 - surface).abs().max()) <= 1.0
            assert float(rise[steepest, columns].min()) > 1
        # The band in front of the media is darker than the wall that it belongs to.
        in_band = db[(media - 0.8).long(), columns]
        assert float(in_band.median()) < p["wall_db"] - 0.5


def test_speckle_has_the_rayleigh_law_and_the_receiver_a_floor():
    p = ivus_polar_params(0, 0, size=(48, 64)) | ANYTHING | EVEN
    p = p | {"gain_db": -8.0, "attenuation_db": 0.0, "floor_db": -200.0}
    renders = [render_ivus_polar(p, gen=generator(0, k)) for k in range(300)]
    clean = renders[0]["hidden"]["noise_free"]
    m = amplitude(torch.cat([r["image"] for r in renders])) / amplitude(clean)
    inside = (clean[0, 0] > 0.35) & (clean[0, 0] < 0.75)  # neither end of the scale is clipped
    assert int(inside.sum()) > 500
    assert float(m.mean(0)[0, inside].mean()) == pytest.approx(1, abs=0.02)
    assert float(m.std(0)[0, inside].mean()) == pytest.approx(RAYLEIGH_SD, rel=0.03)
    # Median of a Rayleigh law of mean 1: √(4·ln 2/π).
    median = m[:, 0, inside].flatten().median()
    assert float(median) == pytest.approx(math.sqrt(4 * math.log(2) / math.pi), rel=0.02)
    dark = render_ivus_polar(p | {"gain_db": -300.0, "floor_db": -20.0}, gen=generator(1))
    floor = amplitude(dark["image"][0, 0, -10:])
    assert float(floor.square().mean().sqrt()) == pytest.approx(math.sqrt(2) * 0.1, rel=0.1)


def test_compress_by_hand():
    echo = torch.tensor([1.0, 0.1, 10 ** (-50 / 20), 0.0, 3.0])
    assert torch.allclose(compress(echo), torch.tensor([1.0, 0.6, 0.0, 0.0, 1.0]), atol=1e-6)


def test_turning_the_vessel_by_whole_columns_turns_picture_and_truth():
    """So nothing hangs on the first column, and no seam lies where the last one meets it."""
    for index in range(8):
        p = ivus_polar_params(2, index, size=(64, 96)) | EVEN
        one = render_ivus_polar(p, gen=generator(0))
        p["rotation"] += 2 * math.pi * 17 / 96
        turned = render_ivus_polar(p, gen=generator(0))
        assert torch.allclose(turned["surfaces"], one["surfaces"].roll(17, -1), atol=1e-4)
        gap = turned["hidden"]["noise_free"] - one["hidden"]["noise_free"].roll(17, -1)
        assert float(gap.abs().max()) < 1e-3


def test_no_seam_in_texture_and_speckle():
    """Columns W − 1 and 0 are as alike as any two neighbours, over many draws."""
    p = ivus_polar_params(0, 0, size=(64, 96)) | ANYTHING
    p = p | {"outline": [], "wall_outline": [], "offset_px": 0.0}  # every column alike
    for key in ("image", "noise_free"):
        stack = torch.cat(
            [
                (s["image"] if key == "image" else s["hidden"][key])[:, 0]
                for s in (render_ivus_polar(p, gen=generator(7, k)) for k in range(60))
            ]
        )[:, 12:]
        step = (stack - stack.roll(1, -1)).square().mean((0, 1))  # (W,), [0] is the wrap
        assert float(step[0]) == pytest.approx(float(step[1:].mean()), rel=0.2)
        apart = (stack - stack.roll(48, -1)).square().mean()
        assert float(step[0]) < 0.8 * float(apart)


def test_nothing_sits_at_a_fixed_column(many):
    """First moments on the circle of every feature's column are those of chance."""
    columns = {"shallowest lumen": many["surfaces"][:, 0].argmin(1) / 96}
    for part in ("wire", "calcium", "branch"):
        at = [p[part]["angle"] + p["rotation"] for p in many["params"] if p[part]]
        columns[part] = torch.tensor(at) / (2 * math.pi)
    for name, turn in columns.items():
        mean = torch.polar(torch.ones(len(turn)), 2 * math.pi * turn.float()).mean().abs()
        assert float(mean) < 2.6 / math.sqrt(len(turn)), name  # p = 0.001 under uniformity


def middle_column(params, part):
    turn = (params[part]["angle"] + params["rotation"]) / (2 * math.pi)
    return round(turn * params["size"][1]) % params["size"][1]


def first_with(part):
    return next(p for i in range(50) if (p := ivus_polar_params(1, i))[part])


def test_wire_and_calcium_are_bright_and_blank_behind():
    for part in ("wire", "calcium"):
        p = first_with(part) | EVEN
        others = {k: None for k in ANYTHING if k != part}
        without = render_ivus_polar(p | ANYTHING, gen=generator(0))["hidden"]["noise_free"][0, 0]
        sample = render_ivus_polar(p | others, gen=generator(0))
        clean, c = sample["hidden"]["noise_free"][0, 0], middle_column(p, part)
        lumen, media = sample["surfaces"][0][:, c]
        assert float((clean - without)[-5:, c].max()) < -0.25
        assert float((clean - without)[:, c].max()) > 0.15
        brightest = int((clean - without)[:, c].argmax())
        if part == "wire":
            assert p["catheter_px"] - 2 < brightest < float(lumen) + 2
        else:
            assert float(lumen) - 1 < brightest < float(media) + 1
        away = (c + 64) % 128
        assert torch.allclose(clean[:, away], without[:, away])


def test_a_branch_leaves_no_edge_at_the_lumen_but_the_truth_runs_on():
    p = first_with("branch") | EVEN | {"wire": None, "calcium": None}
    sample = render_ivus_polar(p, gen=generator(0))
    clean, c = sample["hidden"]["noise_free"][0, 0], middle_column(p, "branch")
    lumen = int(sample["surfaces"][0, 0, c])
    mouth = clean[lumen - 3 : lumen + 4, c]
    assert float(mouth.diff().abs().max()) < 0.02
    closed = render_ivus_polar(p | {"branch": None}, gen=generator(0))
    assert torch.equal(closed["surfaces"], sample["surfaces"])
    edge = closed["hidden"]["noise_free"][0, 0, lumen - 3 : lumen + 4, c]
    assert float(edge.max() - edge.min()) > 0.08


def test_options_switch_their_part_off_and_change_nothing_else():
    options = {"guide_wire": "wire", "calcification": "calcium", "side_branch": "branch"}
    for option, part in options.items():
        for index in range(10):
            shown = ivus_polar_params(0, index)
            hidden = ivus_polar_params(0, index, **{option: False})
            assert hidden[part] is None
            assert hidden == shown | {part: None}


def test_no_surface_lies_at_a_fixed_row(many):
    fixed = (many["surfaces"] - many["surfaces"].mean((0, 2))[:, None]).abs().mean((0, 2))
    assert float(fixed.min()) > 0.06 * 64  # guessing the mean row is far off
