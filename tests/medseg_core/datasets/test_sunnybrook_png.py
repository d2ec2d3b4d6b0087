import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from reader_layouts import SUNNYBROOK_NUMBERS as NUMBERS
from reader_layouts import sunnybrook_name as name
from reader_layouts import sunnybrook_pair as pair
from reader_layouts import sunnybrook_save as save
from reader_layouts import sunnybrook_write as write

from medseg_core.datasets import SunnybrookPNG
from medseg_core.datasets._grids import on_grid
from medseg_core.datasets.splits import group_split


@pytest.fixture
def root(tmp_path):
    for patient in ("SC-HF-I-01", "SC-HF-NI-03", "SC-HYP-12"):
        for number in NUMBERS:
            write(tmp_path / "Train", patient, number)
    return tmp_path


def test_a_sample_has_the_phantoms_keys(root):
    reader = SunnybrookPNG(root)
    assert len(reader) == 6
    first = reader[0]
    assert first["image"].shape == (1, 1, 32, 32) and first["image"].dtype == torch.float32
    assert torch.allclose(first["image"][0, 0] * 255, torch.from_numpy(pair(48)[0]).float())
    assert first["label"].dtype == torch.int64
    assert torch.equal(first["label"][0] == 3, torch.from_numpy(pair(48)[1] == 255))
    assert first["label"].unique().tolist() == [0, 3]
    assert first["spacing"] == (1.0, 1.0) and first["spacing_unit"] == "px"
    assert first["centre"].tolist() == [[14.5, 17.5]]
    assert first["slice"].tolist() == [2]
    assert [s["phase_name"][0] for s in reader] == ["ES", "ED"] * 3
    assert [s["group"].item() for s in reader] == [1, 1, 103, 103, 212, 212]
    assert reader[4]["patient"] == ["SC-HYP-12"] and reader[4]["pathology"] == ["hypertrophy"]


def test_parts_and_grey_files(root):
    image, label = pair(48)
    save(root / "Test/Images/Part3" / name("SC-N-02", 48), image)
    save(root / "Test/Labels/Part3" / name("SC-N-02", 48), label)
    (root / "Test/Images/Part3/._hidden.png").touch()
    assert len(SunnybrookPNG(root)) == 7
    assert SunnybrookPNG(root)[6]["group"].tolist() == [302]
    assert "Train: 6 pairs of 3 patients" in str(SunnybrookPNG(root).check())


def test_load_halves_and_cuts_about_the_image_centre(root):
    data = SunnybrookPNG(root).load([5, 0], size=12, spacing=2)
    assert data["image"].shape == (2, 1, 12, 12) and data["label"].shape == (2, 12, 12)
    assert data["spacing"] == (2.0, 2.0) and data["spacing_unit"] == "px"
    assert data["group"].tolist() == [212, 1]
    # The LV's 10 × 8 pixels at (14.5, 17.5) become 5 × 4 at (−0.5, 1) from the centre (5.5, 5.5).
    assert (data["label"] == 3).sum((1, 2)).tolist() == [20, 20]
    assert data["centre"].tolist() == [[5.0, 6.5]] * 2


def test_load_does_not_look_at_the_truth(root):
    before = SunnybrookPNG(root).load(size=12, spacing=2)["image"]
    for path in (root / "Train/Labels").rglob("*.png"):
        save(path, np.roll(pair(48)[1], (-8, 5), (0, 1)))
    assert torch.equal(SunnybrookPNG(root).load(size=12, spacing=2)["image"], before)


def test_load_scales_each_slice_by_its_percentiles(root):
    data = SunnybrookPNG(root).load(size=16)
    assert data["image"].amin((1, 2, 3)).tolist() == [0.0] * 6
    assert data["image"].amax((1, 2, 3)).tolist() == [1.0] * 6
    raw = on_grid(SunnybrookPNG(root)[2], 16, None)["image"]
    lo, hi = np.percentile(raw.numpy(), (1, 99))
    assert torch.allclose(data["image"][2:3], ((raw - lo) / (hi - lo)).clamp(0, 1), atol=1e-5)


def test_patients_do_not_straddle(root):
    groups = SunnybrookPNG(root).load()["group"].numpy()
    train, test = group_split(groups, (2 / 3, 1 / 3), seed=0)
    assert len(train) == 4 and len(test) == 2
    assert not set(groups[train]) & set(groups[test])


IMAGE = f"Train/Images/Sunnybrook_Part1/{name('SC-HF-I-01', 48)}"
LABEL = IMAGE.replace("Images", "Labels")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / LABEL).unlink(), f"{Path(LABEL).name} has no label"),
        (lambda r: (r / IMAGE).unlink(), f"{Path(IMAGE).name} has no image"),
        (lambda r: shutil.rmtree(r / "Train/Labels"), "has no label"),
        (lambda r: save(r / "Train/Images/a/x.png", pair(1)[0]), "x.png is not named like"),
        (
            lambda r: save(r / "Train/Images/again" / Path(IMAGE).name, pair(1)[0]),
            f"{Path(IMAGE).name} is there twice",
        ),
        (
            lambda r: write(r / "Test", "SC-HF-I-01", 68),
            "SC-HF-I-01 is there twice, in Train/",
        ),
        (lambda r: (r / "Test").mkdir(), "Test/ holds nothing"),
    ],
)
def test_a_malformed_folder_is_refused_by_name(root, spoil, message):
    spoil(root)
    report = SunnybrookPNG(root).check()
    assert not report.ok and message in str(report)
    with pytest.raises(ValueError, match=re.escape(message)):
        len(SunnybrookPNG(root))


@pytest.mark.skipif("MEDSEG_DATA" not in os.environ, reason="MEDSEG_DATA names no data folder")
def test_the_real_images():
    reader = SunnybrookPNG(Path(os.environ["MEDSEG_DATA"]) / "sunnybrook-lv")
    assert reader.check(voxels=True).ok
    data = reader.load(size=64, spacing=2)
    lv = data["label"] == 3
    assert lv.flatten(1).any(1).all()
    # Nothing of an LV is cut off, and the radii are those that the phantom has at 64 pixels.
    assert not (lv[:, :4].any() or lv[:, -4:].any() or lv[..., :4].any() or lv[..., -4:].any())
    radius = (lv.flatten(1).sum(1) / torch.pi).sqrt()
    assert radius.min() > 2 and radius.max() < 16 and 9 < radius.median() < 12
    # Systole is smaller than diastole in every slice: the phases were read rightly.
    area = {}
    for at, phase in enumerate(data["phase_name"]):
        key = (data["group"][at].item(), data["slice"][at].item())
        area.setdefault(key, {})[phase] = radius[at].item()
    assert all(slice_["ES"] <= slice_["ED"] + 0.2 for slice_ in area.values())
