import re
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from reader_layouts import ACDC_SPACING as SPACING
from reader_layouts import acdc_patient as patient
from reader_layouts import acdc_save as save
from reader_layouts import acdc_volume as volume

from medseg_core.datasets import ACDC


@pytest.fixture
def root(tmp_path):
    for number in (1, 2, 5):
        patient(tmp_path / "training", number)
    return tmp_path


def test_a_sample_has_the_phantoms_keys_and_axes(root):
    reader = ACDC(root)
    assert len(reader) == 3 * 2 * 3
    first = reader[1]
    image, label = volume(seed=2)
    assert first["image"].shape == (1, 1, 26, 20) and first["image"].dtype == torch.float32
    # Row 7, column 4 of slice 1 is x = 4, y = 7, z = 1 of the file.
    assert first["image"][0, 0, 7, 4] == image[4, 7, 1] == 4 + 700 + 10_000 + 2
    assert torch.equal(first["label"][0], torch.from_numpy(label[:, :, 1].T.astype(np.int64)))
    assert first["spacing"] == (2.0, 1.5) and first["slice_spacing"].tolist() == [10.0]
    assert first["group"].tolist() == [1] and first["phase_name"] == ["ED"]
    assert first["slice"].tolist() == [1]
    assert first["centre"].tolist() == [[12.5, 11.0]]  # rows 11–14, columns 9–13
    assert first["pathology"] == ["DCM"]
    assert first["person"] == [{"height_cm": 184.0, "weight_kg": 95.0, "n_frames": 30.0}]
    assert reader[-1]["group"].tolist() == [5] and reader[-1]["phase_name"] == ["ES"]
    assert reader[2]["centre"].isnan().all()
    assert [s["slice"].item() for s in reader] == [0, 1, 2] * 6


def test_training_and_testing_folders_and_patients_alone(root):
    patient(root / "testing", 101)
    assert len(ACDC(root)) == 24
    assert len(ACDC(root, part="testing")) == len(ACDC(root / "testing")) == 6
    assert len(ACDC(root / "training", part="training")) == 18
    loose = root / "loose"
    shutil.copytree(root / "training", loose)
    assert len(ACDC(loose)) == 18
    assert "training: 6 labelled volumes of 3 patients" in str(ACDC(root).check())


def test_uncompressed_files_are_read_too(root):
    home = root / "training" / "patient001"
    for path in home.glob("*.nii.gz"):
        nib.save(nib.load(path), str(path)[:-3])
        path.unlink()
    assert len(ACDC(root)) == 18


def test_slices_without_a_left_ventricle_are_left_out_on_request(root):
    reader = ACDC(root, lv_only=True)
    assert len(reader) == 12
    assert all((s["label"] == 3).any() for s in reader)


def test_load_brings_slices_to_one_grid(root):
    reader = ACDC(root, lv_only=True)
    data = reader.load([3, 0, 5], size=40, spacing=1.0)
    assert data["image"].shape == (3, 1, 40, 40) and data["label"].shape == (3, 40, 40)
    assert data["spacing"] == (1.0, 1.0)
    assert data["group"].tolist() == [1, 1, 2] and data["phase_name"] == ["ES", "ED", "ED"]
    # The field of view is 52 × 30 mm: five columns on each side were filled up with the mean.
    assert (data["image"][..., :5] == 0).all() and (data["image"][..., 35:] == 0).all()
    # LV of 4 × 5 voxels of 2 × 1.5 mm; its centre is at (0, 2.25) mm from the image's centre.
    assert (data["label"] == 3).sum((1, 2)).float().mean() == pytest.approx(60, rel=0.1)
    assert torch.allclose(data["centre"], torch.tensor([19.5, 19.5 + 2.25]), atol=0.3)


def test_load_normalises_every_slice(root):
    data = ACDC(root).load([0, 1, 7])
    assert torch.allclose(data["image"].mean((1, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(data["image"].std((1, 2, 3), correction=0), torch.ones(3), atol=1e-4)


def test_load_without_indices_takes_all_in_order(root):
    data = ACDC(root).load(size=16)
    assert data["group"].tolist() == [1] * 6 + [2] * 6 + [5] * 6
    assert torch.equal(data["slice"], torch.arange(3).repeat(6))


def test_load_refuses_to_mix_grids(root):
    patient(root / "training", 7, shape=(24, 26, 3))
    reader = ACDC(root)
    with pytest.raises(ValueError, match="image differs in size"):
        reader.load([0, -1])
    assert reader.load([0, -1], size=24)["image"].shape == (2, 1, 24, 24)
    save(root / "training/patient007/patient007_frame09.nii.gz", volume()[0], (1.0, 1.0, 10.0))
    save(root / "training/patient007/patient007_frame09_gt.nii.gz", volume()[1], (1.0, 1.0, 10.0))
    with pytest.raises(ValueError, match="spacing differs"):
        ACDC(root).load([0, -1], size=24)


def test_split_by_patient_number(root):
    patient(root / "training", 10)
    reader = ACDC(root)
    train, validation = reader.split()
    groups = torch.cat([s["group"] for s in reader])
    assert set(groups[train].tolist()) == {1, 2} and set(groups[validation].tolist()) == {5, 10}
    for path in (root / "training").glob("patient0[01][50]"):
        shutil.rmtree(path)
    with pytest.raises(ValueError, match="leaves nothing for validation"):
        ACDC(root).split()


def remove(name):
    return lambda home: (home / name).unlink()


def write(name, text):
    return lambda home: (home / name).write_text(text)


def image(suffix="", **options):
    def spoil(home):
        array = volume()[bool(suffix)]
        array = options.get("change", lambda a: a)(array)
        spacing = options.get("spacing", SPACING)
        save(home / f"{home.name}_frame01{suffix}.nii.gz", array, spacing)

    return spoil


def nan_spacing(home):
    path = home / f"{home.name}_frame01.nii.gz"
    file = nib.load(path)
    file.header["pixdim"][1] = np.nan
    nib.save(nib.Nifti1Image(np.asarray(file.dataobj), None, file.header), path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove("Info.cfg"), "patient002: Info.cfg is missing"),
        (write("Info.cfg", "Group: NOR\nES: 9\n"), "must hold ED: a frame number, got None"),
        (write("Info.cfg", "ED: one\nES: 9\n"), "must hold ED: a frame number, got 'one'"),
        (write("Info.cfg", "ED: 9\nES: 9\n"), "the same frame 9"),
        (write("Info.cfg", "ED: 1\nES: 9\nNbFrame: 8\n"), "names frame 9 for ES, and NbFrame: 8"),
        (remove("patient002_frame09_gt.nii.gz"), "frame09_gt.nii.gz is missing"),
        (remove("patient002_frame01.nii.gz"), "frame01.nii.gz is missing"),
        (
            image(change=lambda a: np.stack([a, a], -1)),
            "must be 3-D (x, y, slice), got 4-D",
        ),
        (image(change=lambda a: a[..., 0]), "got 2-D"),
        (image("_gt", change=lambda a: a[:-1]), "has the shape (19, 26, 3), its image (20, 26, 3)"),
        (nan_spacing, "voxel sizes > 0"),
        (write("patient002_frame01.nii.gz", "not an image"), "cannot be read as NIfTI"),
    ],
)
def test_a_malformed_folder_is_refused_by_name(root, spoil, message):
    spoil(root / "training" / "patient002")
    report = ACDC(root).check()
    assert not report.ok and message in str(report)
    with pytest.raises(ValueError, match=re.escape(message)):
        len(ACDC(root))


def test_the_folder_that_was_meant_is_named(root):
    outer = root / "outer"
    shutil.copytree(root / "training", outer / "database" / "training")
    assert str(outer / "database") in ACDC(outer).check().hint
    assert str(root / "training") in ACDC(root / "training" / "patient001").check().hint
    assert "scan.nii.gz" not in str(ACDC(root).check())


def test_parts_that_are_not_there_and_patients_on_both_sides(root):
    with pytest.raises(ValueError, match=r"part 'testing' is not there \(there is training\)"):
        len(ACDC(root, part="testing"))
    with pytest.raises(ValueError, match="leave it None"):
        shutil.copytree(root / "training", root / "loose")
        len(ACDC(root / "loose", part="training"))
    with pytest.raises(ValueError, match="there is training"):
        len(ACDC(root / "training", part="testing"))
    patient(root / "testing", 1)
    with pytest.raises(ValueError, match="patient001 is there twice"):
        len(ACDC(root))


def test_bad_options_are_refused(root):
    with pytest.raises(ValueError, match="part must be one of"):
        ACDC(root, part="train")
    with pytest.raises(IndexError):
        ACDC(root)[18]
