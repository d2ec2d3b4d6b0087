import gzip
import itertools
import os
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_layouts import msd_affine as affine
from reader_layouts import msd_describe as describe
from reader_layouts import msd_make as make
from reader_layouts import msd_save as save
from reader_layouts import msd_volume as volume

from medseg_core.datasets import MSD, _pairs
from medseg_core.datasets._crops import HU_WINDOW, PERCENTILES, crop, one_box, relaxed_box, uncrop
from medseg_core.datasets._msd_tasks import TASKS, known


@pytest.fixture
def home(tmp_path):
    return make(tmp_path / "Task04_Hippocampus")


def test_a_sample_has_the_phantoms_keys_and_axes(home):
    reader = MSD(home, binary=True)
    assert len(reader) == 5 and reader.labels == {0: "background", 1: "Anterior", 2: "Posterior"}
    sample = reader[1]
    assert sample["image"].shape == (1, 1, 16, 14, 12) and sample["image"].dtype == torch.float32
    assert sample["label"].dtype == torch.int64 and sample["mask"].dtype == torch.bool
    # Slice 6 from below, row 2 from the front (y = 11), column 4 from the right (x = 7).
    assert sample["image"][0, 0, 6, 2, 4] == 7 + 20 * 11 + 400 * 6 + 3
    assert sample["label"][0, 6, 13 - 5, 11 - 4] == 1 and sample["label"][0, 10, 8, 7] == 2
    assert sample["spacing"] == (2.0, 1.5, 1.0)
    assert sample["boxes"].tolist() == [[5, 4, 5, 12, 10, 9]]
    assert torch.equal(sample["mask"][:, 0], sample["label"] > 0)
    assert sample["group"].tolist() == [3] and sample["id"] == ["hippocampus_003"]
    assert sample["unit"] == "raw" and np.allclose(sample["affine"][0], affine())
    assert "mask" not in MSD(home)[0]


@settings(deadline=None, max_examples=12)
@given(
    st.permutations(range(3)),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_the_files_own_axes_do_not_matter(tmp_path_factory, order, flips):
    pairs = ("RL", "AP", "SI")
    axes = "".join(pairs[at][flips[at]] for at in order)
    home = tmp_path_factory.mktemp(axes)
    image, label = volume()
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(affine()), nib.orientations.axcodes2ornt(axes)
    )
    for folder, array in (("imagesTr", image), ("labelsTr", label)):
        save(home / folder / "hippocampus_001.nii.gz", nib.apply_orientation(array, turn), axes)
    sample = MSD(home)[0]
    assert sample["image"][0, 0, 6, 2, 4] == 7 + 20 * 11 + 400 * 6
    assert sample["spacing"] == (2.0, 1.5, 1.0)
    assert sample["boxes"].tolist() == [[5, 4, 5, 12, 10, 9]]
    MSD(home).write(sample["label"], 0, home / "out.nii.gz")
    saved = nib.load(home / "out.nii.gz")
    assert np.array_equal(np.asarray(saved.dataobj), nib.apply_orientation(label, turn))
    assert np.allclose(saved.affine, affine(axes))


def test_several_tasks_in_one_folder(home):
    root = home.parent
    make(root / "Task09_Spleen", "spleen", (1, 2), name="Spleen", modality={"0": "CT"})
    for task in ("Task09_Spleen", "spleen", 9, "Task09"):
        reader = MSD(root, task=task)
        assert len(reader) == 2 and reader[0]["unit"] == "HU"
    assert MSD(root, task=4)[0]["id"] == ["hippocampus_001"]
    with pytest.raises(ValueError, match=r"which task\? There are Task04_Hippocampus, Task09_Spl"):
        len(MSD(root))
    with pytest.raises(ValueError, match="no task 'liver': there is Task04"):
        len(MSD(root, task="liver"))
    with pytest.raises(ValueError, match="this is the folder Task09_Spleen/"):
        len(MSD(root / "Task09_Spleen", task="liver"))
    shutil.rmtree(root / "Task09_Spleen")
    assert len(MSD(root)) == 5


def test_a_task_that_is_not_published_is_taken_from_its_dataset_json(tmp_path):
    home = make(
        tmp_path / "Task77_Own", "own", name="Own", labels={"0": "none", "2": "b", "1": "a"}
    )
    assert "5 volumes" in str(MSD(home).check())
    assert MSD(home, binary=(2,))[0]["boxes"].tolist() == [[9, 4, 5, 12, 10, 9]]


@pytest.mark.parametrize("names", [("imagesTr", "labelsTr"), ("images", "labels")])
def test_pairs_alone_are_read_and_the_layout_is_said(home, names):
    (home / "dataset.json").unlink()
    for old, new in zip(("imagesTr", "labelsTr"), names, strict=True):
        (home / old).rename(home / new)
    plain = home.rename(home.parent / "mine")
    reader = MSD(plain, binary=True)
    text = str(reader.check())
    assert f"layout: {names[0]}/ and {names[1]}/, no dataset.json" in text
    assert "Task04_Hippocampus" in text and "1 Anterior" in text
    assert [s["id"][0] for s in reader] == [f"hippocampus_{n:03d}" for n in (1, 3, 8, 9, 11)]
    for path in (*plain.glob(f"{names[0]}/*.gz"), *plain.glob(f"{names[1]}/*.gz")):
        path.rename(path.with_name(path.name.replace("hippocampus", "case")))
    with pytest.raises(ValueError, match="which task is this"):
        len(MSD(plain))
    assert MSD(plain, task="hippocampus")[0]["id"] == ["case_001"]
    with pytest.raises(ValueError, match="which task is this"):
        len(MSD(plain, task="kidney"))


def four_d(home, n=2):
    modality = {"0": "T2", "1": "ADC"}
    make(home, "prostate", (0, 1), name="Prostate", modality=modality)
    for number in (0, 1):
        image = volume(number)[0]
        stacked = np.stack([image + 10_000 * k for k in range(n)], -1)
        save(home / "imagesTr" / f"prostate_{number:03d}.nii.gz", stacked)
    return home


def test_a_channel_of_4_d_images_is_chosen_by_number_or_name(tmp_path):
    home = four_d(tmp_path / "Task05_Prostate")
    with pytest.raises(ValueError, match=r"is 4-D.*give channel=, one of 0 T2, 1 ADC"):
        len(MSD(home))
    t2, adc = MSD(home, channel="T2")[0]["image"], MSD(home, channel=1)[0]["image"]
    assert t2.shape == (1, 1, 16, 14, 12) and torch.equal(adc, t2 + 10_000)
    for wrong in ("T1", 2, True):
        with pytest.raises(ValueError, match=r"channel: .* is none of 0 T2, 1 ADC"):
            len(MSD(home, channel=wrong))
    four_d(home, 3)
    with pytest.raises(ValueError, match="has 3 channels, expected are T2, ADC"):
        len(MSD(home, channel=0))


def test_load_brings_volumes_to_one_grid(home):
    reader = MSD(home, binary=True)
    data = reader.load([3, 0], size=(32, 24, 20), spacing=1.0)
    assert data["image"].shape == (2, 1, 32, 24, 20) and data["spacing"] == (1.0, 1.0, 1.0)
    assert data["mask"].dtype == torch.bool and data["id"] == ["hippocampus_009", "hippocampus_001"]
    # 7 × 6 × 4 voxels of 2 × 1.5 × 1 mm.
    assert data["mask"].sum((1, 2, 3, 4)).float().mean() == pytest.approx(14 * 9 * 4, rel=0.15)
    assert torch.equal(data["boxes"][0], one_box(data["mask"][0, 0])[0])
    cut = reader.load([0], size=(16, 10, 20))
    assert cut["spacing"] == (2.0, 1.5, 1.0)
    assert torch.equal(cut["image"][..., 4:16], reader[0]["image"][:, :, :, 2:12])
    assert (cut["image"][..., :4] == reader[0]["image"].min()).all()
    assert torch.equal(reader.load([1, 4])["label"][1:], reader[4]["label"])


def test_a_crop_holds_the_relaxed_box(home):
    reader = MSD(home, binary=True)
    exact = reader.crop(0, size=14, margin=0)
    assert exact["field"].tolist() == [[5, 4, 5, 12, 10, 9]]
    assert exact["spacing"] == pytest.approx((1.0, 9 / 14, 4 / 14))
    assert exact["mask"].all() and exact["boxes"].tolist() == [[0, 0, 0, 14, 14, 14]]
    fixed = reader.crop(0, size=20, margin=0.5)  # 7, 6 and 4 voxels: 4 (half up), 3 and 2 more
    assert fixed["field"].tolist() == [[1, 1, 3, 16, 13, 11]]
    assert fixed["image"].min() == 0 and fixed["image"].max() == 1
    assert torch.equal(fixed["boxes"][0], one_box(fixed["mask"][0, 0])[0])
    drawn = reader.crops(size=10, margin=(0, 0.5), seed=3)
    assert drawn["image"].shape == (5, 1, 10, 10, 10) and drawn["spacings"].shape == (5, 3)
    assert len({tuple(f) for f in drawn["field"].tolist()}) > 1
    box = torch.tensor([5, 4, 5, 12, 10, 9])
    before, after = (box - drawn["field"])[:, :3], (drawn["field"] - box)[:, 3:]
    assert (before != after).any()  # each side draws its own
    again = reader.crop(2, size=10, margin=(0, 0.5), seed=3)
    assert torch.equal(again["image"][0], drawn["image"][2])
    assert torch.allclose(drawn["spacings"][2], torch.tensor(again["spacing"]).double())
    sides = drawn["field"][:, 3:] - drawn["field"][:, :3]
    field_mm = sides * torch.tensor([2.0, 1.5, 1.0]).double()
    assert torch.allclose(drawn["spacings"] * 10, field_mm)


def test_restore_undoes_crop(home):
    reader = MSD(home, binary=True)
    for index, margin in ((0, 0.3), (3, (0.0, 0.5)), (4, 9.0)):
        sample = reader.crop(index, size=24, margin=margin)
        back = reader.restore(sample["mask"][:, 0], index, sample["field"])
        truth = reader[index]["label"] > 0
        assert back.shape == truth.shape and back.dtype == torch.int64
        assert (back.bool() != truth).sum() <= 0.06 * truth.sum()
    inside = torch.zeros(truth.shape, dtype=torch.bool)
    z0, r0, c0, z1, r1, c1 = reader.crop(0, margin=0.2)["field"][0].tolist()
    inside[:, z0:z1, r0:r1, c0:c1] = True
    full = reader.restore(torch.ones(1, 9, 9, 9).long(), 0, (z0, r0, c0, z1, r1, c1))
    assert torch.equal(full.bool(), inside)


@settings(deadline=None)
@given(st.data())
def test_a_relaxed_box_holds_the_box_and_stays_in_the_volume(data):
    shape = data.draw(st.tuples(*[st.integers(2, 40)] * 3))
    low = [data.draw(st.integers(0, s - 1)) for s in shape]
    high = [data.draw(st.integers(a + 1, s)) for a, s in zip(low, shape, strict=True)]
    margin = data.draw(st.sampled_from([0, 0.1, 0.5, (0.0, 0.15), (0.2, 3.0)]))
    gen = np.random.default_rng(data.draw(st.integers(0, 99)))
    box = relaxed_box((*low, *high), shape, margin, gen)
    most = np.max(margin)
    for axis in range(3):
        side = high[axis] - low[axis]
        assert 0 <= box[axis] <= low[axis] and high[axis] <= box[axis + 3] <= shape[axis]
        assert low[axis] - box[axis] <= most * side + 0.5
        assert box[axis + 3] - high[axis] <= most * side + 0.5


def test_intensities_of_ct_are_clipped_and_those_of_mr_follow_percentiles():
    image = torch.linspace(-1000, 1000, 16**3).reshape(1, 1, 16, 16, 16)
    mask = torch.ones(1, 1, 16, 16, 16, dtype=torch.bool)
    where = (mask, (0, 0, 0, 16, 16, 16), (1.0, 1.0, 1.0), 16)
    ct = crop(image, *where, unit="HU")["image"]
    assert HU_WINDOW == (-100, 300)
    assert torch.allclose(ct, ((image + 100) / 400).clamp(0, 1), atol=1e-5)
    mr = crop(image, *where)["image"]
    lo, hi = np.percentile(image, PERCENTILES)
    assert torch.allclose(mr, ((image - lo) / (hi - lo)).clamp(0, 1), atol=1e-5)
    assert torch.allclose(crop(5 * image + 7, *where)["image"], mr, atol=1e-5)


def test_uncrop_on_equal_grids_is_exact():
    label = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (1, 4, 5, 6)))
    out = uncrop(label, (1, 2, 3, 5, 7, 9), (8, 9, 10), (1.0, 2.0, 0.5))
    assert torch.equal(out[:, 1:5, 2:7, 3:9], label) and out.sum() == label.sum()


def test_an_absent_object_has_an_empty_box_and_no_crop(home):
    path = home / "labelsTr/hippocampus_003.nii.gz"
    save(path, np.minimum(volume()[1], 1))
    reader = MSD(home, binary=(2,))
    assert reader[1]["boxes"].tolist() == [[0] * 6] and not reader[1]["mask"].any()
    with pytest.raises(ValueError, match="hippocampus_003 holds nothing"):
        reader.crop(1)


def test_write_refuses_another_grid(home):
    with pytest.raises(ValueError, match="label must have the shape"):
        MSD(home).write(torch.zeros(1, 4, 4, 4).long(), 0, home / "x.nii.gz")


def test_write_keeps_the_place_in_both_forms_and_refuses_what_no_label_is(home):
    reader = MSD(home)
    label = reader[0]["label"]
    saved = nib.load(reader.write(label * (1 - 1e-5), 0, home / "x.nii.gz"))  # rounded, not cut off
    assert np.array_equal(np.asarray(saved.dataobj), volume()[1])
    assert np.allclose(saved.get_sform(), affine()) and np.allclose(saved.get_qform(), affine())
    assert saved.header["sform_code"] > 0 and saved.header["qform_code"] > 0
    for wrong, message in (
        (label + 0.5, "whole numbers"),
        (label - 1, "labels"),
        (label + 255, "lab"),
    ):
        with pytest.raises(ValueError, match=message):
            reader.write(wrong, 0, home / "x.nii.gz")
    with pytest.raises(ValueError, match=r"must end in \.nii"):
        reader.write(label, 0, home / "x.png")


def test_split_by_numbers(home):
    reader = MSD(home)
    small, large = reader.split((1, 2), 5), reader.split((3,), 5)
    assert [len(p) for p in small] == [1, 2] and set(small[0]) <= set(large[0])
    assert not set(small[0]) & set(small[1])
    splits = {tuple(reader.split((2,), s)[0]) for s in range(30)}
    assert splits == set(itertools.combinations(range(5), 2))  # 10 pairs: all are reached
    for wrong in ((3, 3), (0, 2), ()):
        with pytest.raises(ValueError, match="parts must be numbers >= 1"):
            reader.split(wrong)


def test_groups_are_the_names_numbers_or_places(home):
    assert [s["group"].item() for s in MSD(home)] == [1, 3, 8, 9, 11]
    for folder in ("imagesTr", "labelsTr"):
        (home / folder / "hippocampus_011.nii.gz").rename(home / folder / "left.nii.gz")
    describe(home)
    assert sorted(s["group"].item() for s in MSD(home)) == [0, 1, 2, 3, 4]


def test_the_table_of_tasks():
    assert [t.name[:7] for t in TASKS] == [f"Task{n:02d}_" for n in range(1, 11)]
    assert known(4) is known("hippocampus") is known("Task04_Hippocampus") is TASKS[3]
    assert known("kidney") is None and known(11) is None
    assert all(t.labels[0] == "background" for t in TASKS)
    assert TASKS[4].channels == ("T2", "ADC") and TASKS[2].labels[2] == "cancer"


def broken_header(path):
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[40:56] = bytes(16)  # the number and the lengths of the axes
    path.write_bytes(gzip.compress(bytes(raw)))


def flat(path):
    image = nib.Nifti1Image(volume()[0], affine())
    image.header.set_sform(np.diag([1.0, 0, 1, 1]), 1)
    image.header["qform_code"] = 0
    nib.save(nib.Nifti1Image(volume()[0], None, image.header), path)


THIRD = "hippocampus_003.nii.gz"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda h: (h / "imagesTr" / THIRD).unlink(), f"names ./imagesTr/{THIRD}, which is not"),
        (lambda h: (h / "labelsTr" / THIRD).unlink(), f"names ./labelsTr/{THIRD}, which is not"),
        (lambda h: (h / "dataset.json").write_text("{"), "dataset.json must hold labels"),
        (lambda h: (h / "dataset.json").write_text("[]"), "dataset.json must hold labels"),
        (lambda h: describe(h, training=None), "a list of {'image': …, 'label': …}: no 'training'"),
        (lambda h: describe(h, labels={"background": 0}), "dataset.json must hold labels {'0'"),
        (lambda h: describe(h, training=[]), "no training image in Task04_Hippocampus/"),
        (lambda h: describe(h, training=["./imagesTr/" + THIRD]), "names no label for ./images"),
        (
            lambda h: describe(h, training=[{"image": "../../x.nii.gz", "label": "y"}]),
            "names ../../x.nii.gz, outside of its folder",
        ),
        (
            lambda h: save(h / "labelsTr" / THIRD, volume()[1][1:]),
            f"{THIRD} has the shape (11, 14, 16), its image (12, 14, 16)",
        ),
        (
            lambda h: save(h / "imagesTr" / THIRD, volume()[0][0]),
            "(x, y, slice), got 2-D",
        ),
        (lambda h: (h / "imagesTr" / THIRD).write_text("no"), f"{THIRD} cannot be read as NIfTI"),
        (lambda h: broken_header(h / "labelsTr" / THIRD), THIRD),
        (lambda h: flat(h / "imagesTr" / THIRD), "an affine that can be inverted"),
    ],
)
def test_a_malformed_folder_is_refused_by_name(home, spoil, message):
    spoil(home)
    report = MSD(home).check()
    assert not report.ok and message in str(report)
    with pytest.raises(ValueError, match=re.escape(message)):
        len(MSD(home))


@pytest.mark.parametrize(
    ("remove", "message"),
    [("labels", "labels/: no label for hippocampus_003"), ("images", "images/: no image for hip")],
)
def test_an_image_without_label_is_refused_among_pairs_alone(home, remove, message):
    (home / "dataset.json").unlink()
    for name in ("images", "labels"):
        (home / f"{name}Tr").rename(home / name)
    (home / remove / THIRD).unlink()
    with pytest.raises(ValueError, match=message):
        len(MSD(home))


def test_files_that_are_not_listed_and_other_labels_are_noted(home):
    save(home / "imagesTr/hippocampus_099.nii.gz", volume()[0])
    text = str(MSD(home).check())
    assert "does not name them: 1 files in imagesTr/, first hippocampus_099.nii.gz" in text
    make(home, labels={"0": "background", "1": "Anterior", "2": "Posterior", "3": "Left"})
    assert "as published" in str(MSD(home).check())


def test_bad_options_are_refused(home):
    for binary in ((), (3,), (0, 1)):
        with pytest.raises(ValueError, match="are no labels of Task04_Hippocampus"):
            len(MSD(home, binary=binary))
    for margin in (-0.1, (0.3, 0.1), float("nan")):
        with pytest.raises(ValueError, match="margin must be"):
            MSD(home).crop(0, margin=margin)
    with pytest.raises(IndexError):
        MSD(home)[5]


def test_axes_of_a_file_and_back():
    array = np.arange(24).reshape(2, 3, 4)
    for axes in ("RAS", "LPS", "PIR", "SRA", "ALI"):
        turned = _pairs.to_axes(array, affine(axes), "LPS")
        assert np.array_equal(_pairs.from_axes(turned, affine(axes), "LPS"), array)


def test_a_dataset_json_that_counts_otherwise_is_said(home):
    describe(home, numTraining=260)
    assert "numTraining 260 and lists 5" in str(MSD(home).check())


@pytest.mark.skipif("MEDSEG_DATA" not in os.environ, reason="MEDSEG_DATA names no data folder")
def test_the_real_hippocampi():
    reader = MSD(Path(os.environ["MEDSEG_DATA"]) / "msd-hippocampus", binary=True)
    report = reader.check(voxels=True)
    assert report.ok and "images/ and labels/, no dataset.json" in str(report)
    data = reader.crops(range(20), size=32, margin=0.1)
    assert data["mask"].flatten(1).any(1).all()
    assert data["image"].amin((1, 2, 3, 4)).tolist() == [0.0] * 20
    for i in range(0, 20, 4):
        sample = reader[i]
        # The head of the hippocampus lies in front of its tail: rows run from front to back.
        row = torch.arange(sample["label"].shape[2])[:, None]
        front, behind = (
            ((sample["label"][0] == k) * row).sum() / (sample["label"][0] == k).sum()
            for k in (1, 2)
        )
        assert front < behind
        back = reader.restore(data["mask"][i : i + 1, 0], i, data["field"][i]).bool()
        assert 2 * (back & sample["mask"][:, 0]).sum() / (back.sum() + sample["mask"].sum()) > 0.95
