import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medseg_core.datasets import SunnybrookPNG
from medseg_core.datasets.splits import group_split

# number → slice 2, phases 7 (systole) and 18 (diastole) of 20
NUMBERS = (48, 59)


def name(patient, number):
    return f"{patient}-IM-0001-{number:04d}.dcm.png"


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def rgb(array):
    return np.repeat(array[..., None], 3, axis=2)


def pair(number, size=32):
    image = np.random.default_rng(number).integers(0, 200, (size, size)).astype(np.uint8)
    label = np.zeros((size, size), np.uint8)
    label[10:20, 14:22] = 255
    return image, label


def write(part, patient, number, size=32, sub="Sunnybrook_Part1"):
    image, label = pair(number, size)
    save(part / "Images" / sub / name(patient, number), rgb(image))
    save(part / "Labels" / sub / name(patient, number), rgb(label))


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
    test = SunnybrookPNG(root, part="Test")
    assert len(test) == 1 and test[0]["group"].tolist() == [302]
    assert "Train: 6 pairs of 3 patients, 2 to 2 of each" in str(SunnybrookPNG(root).check())


def test_images_with_a_palette_are_read_by_their_grey_values(root):
    image = Image.fromarray(pair(48)[0]).convert("RGB").quantize(8)
    image.save(root / IMAGE)
    grey = np.asarray(image.convert("RGB"))[..., 0]
    assert torch.allclose(SunnybrookPNG(root)[0]["image"][0, 0] * 255, torch.tensor(grey).float())


def test_load_halves_and_cuts_about_the_image_centre(root):
    data = SunnybrookPNG(root).load([5, 0], size=12, spacing=2, percentiles=None)
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
    raw = SunnybrookPNG(root).load(size=16, percentiles=None)["image"]
    lo, hi = np.percentile(raw[2].numpy(), (10, 90))
    scaled = SunnybrookPNG(root).load(size=16, percentiles=(10, 90))["image"]
    assert torch.allclose(scaled[2], ((raw[2] - lo) / (hi - lo)).clamp(0, 1), atol=1e-5)


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
        (lambda r: (r / LABEL).unlink(), f"Train/Labels: no {Path(LABEL).name}"),
        (lambda r: (r / IMAGE).unlink(), f"Train/Images: no {Path(IMAGE).name}"),
        (lambda r: shutil.rmtree(r / "Train/Labels"), "Train/Labels/: there is no such folder"),
        (lambda r: save(r / "Train/Images/a/x.png", pair(1)[0]), "x.png is not named like"),
        (
            lambda r: save(r / "Train/Images/again" / Path(IMAGE).name, pair(1)[0]),
            f"{Path(IMAGE).name} is there twice",
        ),
        (lambda r: write(r / "Test", "SC-HF-I-01", 68), "SC-HF-I-01 is in Train/ and in Test/"),
        (lambda r: (r / "Test").mkdir(), "Test/: no image at all"),
    ],
)
def test_a_malformed_folder_is_refused_by_name(root, spoil, message):
    spoil(root)
    report = SunnybrookPNG(root).check()
    assert not report.ok and message in str(report)
    with pytest.raises(ValueError, match=re.escape(message)):
        len(SunnybrookPNG(root))


@pytest.mark.parametrize(
    ("path", "array", "message"),
    [
        (LABEL, pair(1, 31)[1], "the label has shape (31, 31), its image (32, 32)"),
        (LABEL, pair(1)[1] // 2, "a label must hold 0 and 255, got [0, 127]"),
        (IMAGE, rgb(pair(1)[0]) * np.array([1, 0, 1], np.uint8), "must be grey (R = G = B)"),
        (IMAGE, pair(1)[0].astype(np.uint16), "must be an 8-bit image"),
        (IMAGE, None, "cannot be read as PNG"),
    ],
)
def test_bad_images_are_refused_when_read_and_found_by_a_full_check(root, path, array, message):
    if array is None:
        (root / path).write_bytes((root / path).read_bytes()[:100])
    else:
        save(root / path, array)
    reader = SunnybrookPNG(root)
    assert reader.check().ok
    assert message in str(reader.check(pixels=True))
    with pytest.raises(ValueError, match=re.escape(message)):
        reader[0]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere", "the folder does not exist"),
        ("empty", "the folder is empty"),
        ("other", "Train/ and Test/: neither is there"),
        ("Train", "the folder above"),
        ("Train/Images", "the folder above"),
        ("outer", "the folder below"),
    ],
)
def test_a_wrong_folder_is_refused_with_the_layout_expected(root, where, message):
    (root / "empty").mkdir()
    (root / "other/patient001").mkdir(parents=True)
    shutil.copytree(root / "Train", root / "outer/Data/Train")
    with pytest.raises(ValueError, match=message) as caught:
        SunnybrookPNG(root / where).load()
    for part in ("Layout expected", "Labels/", "Where from", "CC0"):
        assert part in str(caught.value)


def test_a_part_that_is_not_there(root):
    with pytest.raises(ValueError, match="Test/"):
        len(SunnybrookPNG(root, part="Test"))
    with pytest.raises(ValueError, match="part must be one of"):
        SunnybrookPNG(root, part="test")


@pytest.mark.skipif("MEDSEG_DATA" not in os.environ, reason="MEDSEG_DATA names no data folder")
def test_the_real_images():
    reader = SunnybrookPNG(Path(os.environ["MEDSEG_DATA"]) / "sunnybrook-lv")
    assert reader.check(pixels=True).ok
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
