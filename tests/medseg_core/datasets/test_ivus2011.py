import math
import re
import shutil

import pytest
import torch
from reader_layouts import IVUS_CENTRE as CENTRE
from reader_layouts import IVUS_SIDE as SIDE
from reader_layouts import ivus_box as box
from reader_layouts import ivus_circle as circle
from reader_layouts import ivus_frame as frame
from reader_layouts import ivus_image as image
from reader_layouts import ivus_save as save

from medseg_core.datasets import IVUS2011


@pytest.fixture
def root(tmp_path):
    training, test = (tmp_path / "IVUS" / f"{p}_Set/Data_set_B" for p in ("Training", "Test"))
    frame(training, "frame_01_0001_003")
    frame(training, "frame_10_0030_003", lumen=box(5, 8, 6, 12), media=box(10, 16, 12, 24))
    for at, labels in enumerate(("LABELS_obs1", "LABELS_obs2_v2")):
        frame(test, "frame_02_0005_003", labels=labels, media=circle(20 + at), separator="  ")
    other = tmp_path / "IVUS/Training_Set/Data_set_A"
    frame(other, "frame_01_0001_003")
    return tmp_path / "IVUS"


def test_a_sample_has_the_phantoms_keys(root):
    reader = IVUS2011(root)
    assert len(reader) == 3
    one = reader.load([0], size=(32, 72))
    assert one["image"].shape == (1, 1, 32, 72) and one["image"].dtype == torch.float32
    assert torch.allclose(one["surfaces"][0, 0], torch.tensor(10.0), atol=1e-3)
    assert torch.allclose(one["surfaces"][0, 1], torch.tensor(18.0), atol=1e-3)
    assert one["valid"].all() and one["valid"].shape == (1, 2, 72)
    assert one["label"][0, [0, 9, 10, 17, 18, 31], 5].tolist() == [0, 0, 1, 1, 2, 2]
    # Row i is the radius i, whose grey value is 4i; the dot lies at radius 18.5, angle 0.
    assert torch.allclose(one["image"][0, 0, 3:30, 9] * 255, 4 * torch.arange(3.0, 30), atol=2)
    assert one["image"][0, 0, 18:20, 0].max() > 0.45 > one["image"][0, 0, 18:20, 36].max()
    assert one["spacing"] == (pytest.approx(0.026), pytest.approx(2 * math.pi / 72))
    assert torch.allclose(one["cartesian_image"][0, 0] * 255, torch.from_numpy(image()).float())
    area = one["mask"][0].sum((1, 2))
    assert area.tolist() == pytest.approx([math.pi * 100, math.pi * 324], rel=0.02)
    assert one["mask"].dtype == torch.bool and one["cartesian_spacing"] == (0.026, 0.026)
    assert one["centre"].tolist() == [[CENTRE, CENTRE]]
    assert [s["group"].item() for s in reader] == [1, 10, 2]
    assert [s["frame"].item() for s in reader] == [1, 30, 5]
    assert reader[1]["part"] == ["training"] and reader[2]["part"] == ["test"]
    assert reader[1]["name"] == ["frame_10_0030_003"]


def test_contours_are_rows_and_columns_in_the_right_order(root):
    """A box 8 to the right of the centre, 12 below, 5 to the left and 6 above it."""
    one = IVUS2011(root).load([1], size=(32, 8))
    assert one["surfaces"][0, 0, [0, 2, 4, 6]].tolist() == pytest.approx([8, 12, 5, 6], abs=1e-3)
    assert one["surfaces"][0, 0, 1].item() == pytest.approx(8 * math.sqrt(2), abs=1e-3)
    rows, columns = one["mask"][0, 0].nonzero().T
    assert (rows.min(), rows.max()) == (26, 43) and (columns.min(), columns.max()) == (27, 39)


def test_the_polar_form_agrees_with_the_masks(root):
    one = IVUS2011(root).load([1], size=(64, 180))
    angle = 2 * math.pi * torch.arange(180) / 180
    radius = 0.5 * torch.arange(64)[:, None]
    at = (CENTRE + radius * torch.stack([angle.sin(), angle.cos()])[:, None]).round().long()
    at = at.clamp(0, SIDE - 1)
    for k in range(2):
        inside = one["mask"][0, k][at[0], at[1]]  # (64, 180)
        assert (inside == (one["label"][0] <= k)).float().mean() > 0.97


def test_sizes_and_radius(root):
    reader = IVUS2011(root)
    assert reader[0]["image"].shape == (1, 1, 192, 360)
    assert reader[0]["surfaces"][0, 0, 0].item() == pytest.approx(60, abs=0.01)  # 10 · 192/32
    data = reader.load([2, 0], size=(16, 24))
    assert data["image"].shape == (2, 1, 16, 24) and data["cartesian_image"].shape[2:] == (64, 64)
    assert data["surfaces"][:, 1].mean(1).tolist() == pytest.approx([10, 9], abs=0.01)
    assert data["group"].tolist() == [2, 1] and data["spacing"][0] == pytest.approx(0.052)
    for size in ((192, 3), (192, 360, 2), 2.5):
        with pytest.raises(ValueError, match="size must be"):
            reader.load([0], size=size)


def test_a_media_inside_the_lumen_is_moved_out_to_it(root):
    part = root / "Training_Set/Data_set_B"
    save(part / "LABELS/med_frame_01_0001_003.txt", box(6, 20, 20, 20))
    one = IVUS2011(root).load([0], size=(32, 4))
    assert one["surfaces"][0, :, 2].tolist() == pytest.approx([10, 10], abs=1e-3)
    assert one["surfaces"][0, 1, 0].item() == pytest.approx(20, abs=1e-3)


def test_the_first_observer_and_the_split(root):
    assert IVUS2011(root).split() == ([0, 1], [2])
    assert len(IVUS2011(root / "Test_Set")) == 1
    with pytest.raises(ValueError, match="leaves nothing for training"):
        IVUS2011(root / "Test_Set").split()
    report = str(IVUS2011(root).check(voxels=True))
    assert "training: 2 frames; Training_Set/Data_set_B/DCM" in report
    assert "Test_Set/Data_set_B/LABELS_obs1" in report and "obs2" not in report


def test_other_folders_will_do(root):
    shutil.move(root / "Training_Set/Data_set_B", root.parent / "flat/train")
    for path in list((root.parent / "flat/train").rglob("*.*")):
        shutil.move(path, root.parent / "flat/train")
    assert len(IVUS2011(root.parent / "flat")) == 2


B = "Training_Set/Data_set_B"
LUM, MED = (f"{B}/LABELS/{kind}_frame_01_0001_003.txt" for kind in ("lum", "med"))
PNG = f"{B}/DCM/frame_01_0001_003.png"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / LUM).unlink(), "training: frame_01_0001_003 has no lumen"),
        (lambda r: (r / PNG).unlink(), "training: frame_01_0001_003 has no image"),
        (lambda r: shutil.rmtree(r / B / "LABELS"), "has no lumen and no media"),
        (lambda r: shutil.copy(r / LUM, r / B), "lumen of frame_01_0001_003 is there twice"),
        (
            lambda r: frame(r / "more", "frame_03_0001_003"),
            "more/DCM/frame_03_0001_003.png: neither train nor test in its path",
        ),
    ],
)
def test_a_malformed_folder_is_refused_by_name(root, spoil, message):
    spoil(root)
    report = IVUS2011(root).check()
    assert not report.ok and message in str(report)
    with pytest.raises(ValueError, match=re.escape(message)):
        len(IVUS2011(root))


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (LUM, "1,2\n3,x\n4,5\n", "lum_frame_01_0001_003.txt cannot be read as x, y per line"),
        (LUM, "1,2\n3,4\n", "lum_frame_01_0001_003.txt must hold at least 3 lines"),
        (MED, "1,2,3\n3,4,5\n4,5,6\n", "med_frame_01_0001_003.txt must hold at least 3 lines"),
        (MED, "1,2\n3,nan\n4,5\n", "med_frame_01_0001_003.txt: point 1 is x, y = [3.0, nan]"),
        (MED, "1,2\n3,4\n400,5\n", "outside the image of 64 × 64 pixels"),
        (LUM, "1,2\n9,2\n9,8\n", "lum_frame_01_0001_003.txt: the contour does not go round"),
        (PNG, "no", "frame_01_0001_003.png cannot be read as PNG"),
    ],
)
def test_bad_files_are_refused_when_read_and_found_by_a_full_check(root, path, content, message):
    (root / path).write_text(content)
    reader = IVUS2011(root)
    assert reader.check().ok
    assert message in str(reader.check(voxels=True))
    with pytest.raises(ValueError, match=re.escape(message)):
        reader[0]
