import re
import shutil
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from reader_layouts import CAMUS_HEIGHT as HEIGHT
from reader_layouts import CAMUS_MM as MM
from reader_layouts import CAMUS_WIDTH as WIDTH
from reader_layouts import camus_frame as frame
from reader_layouts import camus_patient as patient
from reader_layouts import camus_save as save

from medseg_core.datasets import CAMUS
from medseg_core.datasets._fan import ROWS, probe_side


@pytest.fixture
def root(tmp_path):
    for number, quality in ((1, "Good"), (2, "Poor"), (7, "Medium")):
        patient(tmp_path / "database_nifti", number, quality=quality)
    return tmp_path


def test_a_sample_has_the_phantoms_keys_and_axes(root):
    reader = CAMUS(root)
    assert len(reader) == 6
    sample, (image, label) = reader[3], frame(21)
    assert sample["image"].shape == (1, 1, 60, 40) and sample["image"].dtype == torch.float32
    assert torch.allclose(sample["image"][0, 0] * 255, torch.from_numpy(image).float(), atol=1e-4)
    assert sample["label"].dtype == torch.int64
    assert torch.equal(sample["label"][0], torch.from_numpy(label).long())
    assert torch.equal(sample["mask"][:, 0], sample["label"] == 1)
    assert sample["mask"].dtype == sample["sector"].dtype == torch.bool
    assert torch.equal(sample["sector"][0, 0], torch.from_numpy(image > 0))
    assert sample["spacing"] == pytest.approx((0.2, 0.3))
    assert sample["group"].tolist() == [2] and sample["quality"] == ["Poor"]
    assert sample["view_name"] == ["2CH"] and sample["phase_name"] == ["ES"]
    assert sample["info"][0]["Age"] == "56"


def test_views_and_phases(root):
    assert {s["view_name"][0] for s in CAMUS(root, view="4CH")} == {"4CH"}
    assert [s["phase_name"] for s in CAMUS(root, phase="ED")] == [["ED"]] * 3


def test_meta_images_give_the_same_and_the_report_says_what_was_found(root, tmp_path_factory):
    old = tmp_path_factory.mktemp("old")
    for number, quality in ((1, "Good"), (2, "Poor"), (7, "Medium")):
        patient(old / "training", number, ".mhd", quality)
    for a, b in zip(CAMUS(root), CAMUS(old), strict=True):
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["label"], b["label"])
        assert a["spacing"] == pytest.approx(b["spacing"]) and a["group"] == b["group"]
    assert "6 labelled frames of 3 patients" in str(CAMUS(old).check())


def test_meta_images_need_simple_itk(tmp_path, monkeypatch):
    patient(tmp_path, 1, ".mhd")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    assert "pip install SimpleITK" in str(CAMUS(tmp_path).check())


def test_patients_without_labels_are_left_out_and_counted(root):
    home = patient(root / "testing", 9)
    for path in home.glob("*_gt*"):
        path.unlink()
    assert len(CAMUS(root)) == 6
    assert "patients without labels, left out: patient0009" in str(CAMUS(root).check())
    only = root / "testing"
    with pytest.raises(ValueError, match="no patient has labels"):
        len(CAMUS(only))


def test_the_quality_is_unknown_without_its_file(tmp_path):
    patient(tmp_path, 1, quality=None)
    assert CAMUS(tmp_path)[0]["quality"] == [""] and CAMUS(tmp_path)[0]["info"] == [{}]


@pytest.mark.parametrize("depth", [(), (1,)])
def test_a_third_axis_of_one_frame_is_dropped(root, depth):
    path = root / "database_nifti/patient0001/patient0001_2CH_ED.nii.gz"
    image = np.asarray(nib.load(path).dataobj)
    nib.save(nib.Nifti1Image(image.reshape(*image.shape, *depth), np.diag([*MM, 1, 1])), path)
    assert torch.equal(CAMUS(root)[0]["image"][0, 0] * 255, torch.from_numpy(frame(10)[0]).float())


TURNS = {
    "y": lambda a: a,
    "-y": lambda a: a[::-1],
    "x": lambda a: a.T,
    "-x": lambda a: a[::-1].T,
}


@pytest.mark.parametrize("rows", list(TURNS))
def test_the_probe_is_put_on_top(tmp_path, rows):
    patient(tmp_path, 1, turn=TURNS[rows])
    sample = CAMUS(tmp_path, rows=rows)[0]
    assert torch.equal(sample["label"][0], torch.from_numpy(frame()[1]).long())
    assert torch.equal(sample["image"][0, 0] > 0, torch.from_numpy(frame(10)[0] > 0))
    for other in set(TURNS) - {rows}:
        with pytest.raises(ValueError, match=f"does not narrow upwards; give rows='{rows}'"):
            len(CAMUS(tmp_path, rows=other))
    # The pixels' mm go with their axis.
    assert sample["spacing"] == pytest.approx(((0.2, 0.3), (0.3, 0.2))["x" in rows])


def test_the_side_of_the_probe_is_found_or_left_open():
    image = frame()[0]
    for rows, turn in TURNS.items():
        stored = turn(image)
        assert probe_side(stored) == rows
        assert np.array_equal(ROWS[rows](stored), image)
    assert probe_side(np.zeros((8, 8))) == "" == probe_side(np.ones((9, 7)))


def test_load_brings_frames_to_one_grid(root):
    data = CAMUS(root).load([4, 0], size=48, spacing=0.25)
    assert data["image"].shape == (2, 1, 48, 48) and data["spacing"] == (0.25, 0.25)
    assert data["group"].tolist() == [7, 1] and data["quality"] == ["Medium", "Good"]
    # 18 × 10 pixels of 0.2 × 0.3 mm; none is lost by the grid's centre, which is the image's.
    assert data["mask"].sum((1, 2, 3)).float().mean() == pytest.approx(
        18 * 10 * 0.06 / 0.0625, rel=0.1
    )
    assert torch.equal(data["mask"][:, 0], data["label"] == 1)
    seen = float(data["sector"].float().mean())
    assert seen == pytest.approx(float(CAMUS(root)[0]["sector"].float().mean()), rel=0.05)
    plain = CAMUS(root).load([0], size=(60, 44))
    assert torch.equal(plain["image"][..., 2:42], CAMUS(root)[0]["image"])
    assert not plain["sector"][..., :2].any() and plain["spacing"] == pytest.approx((0.2, 0.3))


def test_fit_spacing_is_the_least_that_holds_every_frame(root):
    home = root / "database_nifti/patient0007"
    for phase in ("ED", "ES"):
        image, label = frame(0, 90, 40)
        save(home / f"patient0007_2CH_{phase}.nii.gz", image)
        save(home / f"patient0007_2CH_{phase}_gt.nii.gz", label)
    reader = CAMUS(root)
    assert reader.fit_spacing(48) == pytest.approx(90 * 0.2 / 48)
    assert reader.fit_spacing((180, 20)) == pytest.approx(40 * 0.3 / 20)
    data = reader.load(size=48, spacing=reader.fit_spacing(48))
    assert data["image"].shape == (6, 1, 48, 48)
    assert (data["sector"][4:, 0].any(2).sum(1) >= 46).all()


def test_load_does_not_look_at_the_truth(root):
    before = CAMUS(root).load(size=32, spacing=0.4)["image"]
    for path in root.rglob("*_gt.nii.gz"):
        save(path, np.roll(frame()[1], 5, 1))
    assert torch.equal(CAMUS(root).load(size=32, spacing=0.4)["image"], before)


def test_patients_do_not_straddle(root):
    reader = CAMUS(root, view="4CH")
    groups = np.array([s["group"].item() for s in reader])
    train, test = reader.split((2 / 3, 1 / 3), seed=1)
    assert len(train) == 4 and len(test) == 2 and not set(groups[train]) & set(groups[test])


FIRST = "patient0001_2CH_ED"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda h: (h / f"{FIRST}_gt.nii.gz").unlink(), f"{FIRST} has no label"),
        (lambda h: (h / f"{FIRST}.nii.gz").unlink(), f"{FIRST} has no image"),
        (
            lambda h: save(h / f"{FIRST}_gt.nii.gz", frame()[1][1:]),
            f"{FIRST}_gt.nii.gz has the shape (40, 59), its image (40, 60)",
        ),
        (
            lambda h: nib.save(
                nib.Nifti1Image(np.stack([frame()[0].T] * 3, -1), np.eye(4)), h / f"{FIRST}.nii.gz"
            ),
            "must be 2-D (x, y), got 3-D (40, 60, 3): a sequence?",
        ),
        (lambda h: (h / f"{FIRST}.nii.gz").write_text("no"), f"{FIRST}.nii.gz cannot be read as"),
        (
            lambda h: shutil.copytree(h, h.parent.parent / "more" / h.name),
            "patient0001_2CH_ED is there twice",
        ),
        (
            lambda h: [p.unlink() for p in h.glob("*.nii.gz")],
            "patient0001/ holds nothing",
        ),
        (lambda h: save(h / f"{FIRST}.nii.gz", frame()[0][::-1]), "does not narrow upwards"),
        (lambda h: save(h / f"{FIRST}.nii.gz", frame()[0] * 0), "are not 0 form no fan"),
    ],
)
def test_a_malformed_folder_is_refused_by_name(root, spoil, message):
    spoil(root / "database_nifti/patient0001")
    report = CAMUS(root).check()
    assert not report.ok and message in str(report)
    with pytest.raises(ValueError, match=re.escape(message)):
        len(CAMUS(root))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.with_suffix(".raw").unlink(), "names patient0001_2CH_ED.raw, which is not"),
        (lambda p: p.with_suffix(".raw").write_bytes(b"short"), "patient0001_2CH_ED"),
        (lambda p: p.with_suffix(".raw").write_bytes(bytes(9000)), "has 9000 bytes"),
        (lambda p: p.write_text("NDims = two\n"), "cannot be read as MetaImage"),
    ],
)
def test_damaged_meta_images_are_named(tmp_path, spoil, message):
    spoil(patient(tmp_path, 1, ".mhd") / f"{FIRST}.mhd")
    assert message in str(CAMUS(tmp_path).check())
    assert not CAMUS(tmp_path).check().ok


@pytest.mark.parametrize(
    ("end", "array", "message"),
    [
        ("_gt", frame()[1] + np.uint8(1), "must hold the labels 0, 1, 2, 3, got [4]"),
        ("_gt", frame()[1] * np.float32(0.5), "got [0.5, 1.5]"),
        ("", frame()[0] * np.float32(2), "must be in [0, 255], got"),
        ("", np.full((HEIGHT, WIDTH), np.nan, np.float32), "must be finite, got nan"),
    ],
)
def test_bad_pixels_are_refused_when_read_and_found_by_a_full_check(root, end, array, message):
    save(root / f"database_nifti/patient0002/patient0002_2CH_ES{end}.nii.gz", array)
    reader = CAMUS(root)
    assert reader.check().ok and message in str(reader.check(voxels=True))
    with pytest.raises(ValueError, match=re.escape(message)):
        reader[3]


@pytest.mark.parametrize("option", [{"view": "3CH"}, {"phase": "mid"}, {"rows": "z"}])
def test_bad_options_are_refused(root, option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be one of"):
        CAMUS(root, **option)
