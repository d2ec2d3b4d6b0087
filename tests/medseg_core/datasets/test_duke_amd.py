import re
import sys

import numpy as np
import pytest
import torch
from reader_layouts import DUKE_B as B
from reader_layouts import DUKE_H as H
from reader_layouts import DUKE_STEM as STEM
from reader_layouts import DUKE_W as W
from reader_layouts import duke_content as content
from reader_layouts import duke_write as write

from medseg_core.datasets.duke_amd import SPLIT, DukeAMD


@pytest.fixture
def root(tmp_path):
    for number in (1003, 1001, 1002):
        write(tmp_path / "AMD1", "AMD", number)
    write(tmp_path / "Control1", "Control", 1001)
    write(tmp_path / "Control1", "Control", 1002, name="{}_{}.mat")
    return tmp_path


def test_a_sample_has_the_phantoms_keys(root):
    reader = DukeAMD(root)
    assert len(reader) == 5 * 3  # B-scans 1, 2 and 3 of each volume are annotated
    one = reader[1]
    assert one["image"].shape == (1, 1, H, W) and one["image"].dtype == torch.float32
    # B-scan 2: row + 80, and 50 more in rows 15 to 29.
    assert (one["image"][0, 0, [3, 20], 5] * 255).tolist() == pytest.approx([83, 150], abs=1e-4)
    assert one["surfaces"][0, :, 10].tolist() == [10, 24, 30]
    assert one["surfaces"][0, :, 7].tolist() == [11, 19.5, 30]
    assert one["surface_names"] == ("ILM", "RPEDC", "BM")
    assert one["valid"][0].nonzero().flatten().tolist() == list(range(4, 20))
    assert one["surfaces"].isfinite().all()
    assert one["label"][0, [9, 10, 23, 24, 29, 30], 10].tolist() == [0, 1, 1, 2, 2, 3]
    assert (one["label"][0, :, :4] == 255).all()
    assert reader[2]["valid"][0].nonzero().flatten().tolist() == list(range(6, 20))
    assert one["spacing"] == (1.0, 1.0) and one["spacing_unit"] == "px"
    assert [s["slice"].item() for s in reader] == [1, 2, 3] * 5
    assert [s["group"].item() for s in reader][::3] == [1001, 1002, 1003, 11001, 11002]
    assert [s["amd"].item() for s in reader][::3] == [True] * 3 + [False] * 2
    assert [s["age_years"].item() for s in reader][::3] == [71, 72, 73, 71, 72]
    assert reader[0]["patient"] == ["AMD_1001"] and reader[-1]["patient"] == ["Control_1002"]
    assert "5 volumes; AMD1, Control1" in str(reader.check(voxels=True))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("maps_order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1)])
def test_transposed_orders_are_accepted(tmp_path, order, maps_order):
    write(tmp_path / "a", "AMD", 1001)
    write(tmp_path / "b", "AMD", 1001, order=order, maps_order=maps_order)
    a, b = DukeAMD(tmp_path / "a")[1], DukeAMD(tmp_path / "b")[1]
    assert torch.equal(a["image"], b["image"]) and torch.equal(a["surfaces"], b["surfaces"])


def test_load_pads_to_the_papers_width(root):
    data = DukeAMD(root).load([13, 1, 1], size=(H, 32))
    assert data["image"].shape == (3, 1, H, 32) and data["surfaces"].shape == (3, 3, 32)
    assert data["group"].tolist() == [11002, 1001, 1001]
    assert (data["image"][..., :4] == 0).all() and (data["image"][..., 28:] == 0).all()
    assert data["valid"][0].nonzero().flatten().tolist() == list(range(8, 24))
    whole = DukeAMD(root)[1]
    assert torch.equal(data["image"][1, 0, :, 4:28], whole["image"][0, 0])
    assert torch.equal(data["surfaces"][1, :, 4:28], whole["surfaces"][0])
    assert torch.equal(DukeAMD(root).load()["slice"], torch.tensor([1, 2, 3] * 5))


def test_load_merges_pixels(root):
    data = DukeAMD(root).load([1], spacing=2)
    assert data["image"].shape == (1, 1, H // 2, W // 2) and data["spacing"] == (2.0, 2.0)
    # Row r becomes (r − 19.5)/2 + 9.5.
    assert data["surfaces"][0, :, 6].tolist() == pytest.approx([4.75, 11.75, 14.75])
    assert data["valid"][0].nonzero().flatten().tolist() == list(range(2, 10))


def test_split_in_the_papers_proportions(root):
    reader = DukeAMD(root)
    sizes = {"train": (1, 0), "validation": (1, 1), "test": (1, 1)}
    train, validation, test = reader.split(sizes)
    patients = [s["patient"][0] for s in reader]
    assert {patients[i] for i in train} == {"AMD_1001"} and len(train) == 3
    assert {patients[i] for i in validation} == {"AMD_1002", "Control_1001"}
    assert {patients[i] for i in test} == {"AMD_1003", "Control_1002"}
    assert sum(a for a, _ in SPLIT.values()) == 269 and sum(c for _, c in SPLIT.values()) == 115
    with pytest.raises(ValueError, match="needs 269 AMD volumes, there are 3"):
        reader.split()
    with pytest.raises(ValueError, match="sizes must have the keys"):
        reader.split({"train": (1, 1)})


def test_matlab_7_3_files(root, monkeypatch):
    h5py = pytest.importorskip("h5py")
    path = root / "AMD1" / STEM.format("AMD", 1001)
    before = DukeAMD(root)[1]
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in content(1).items():
            file[name] = value.T  # HDF5 stores MATLAB's axes in the opposite order
    after = DukeAMD(root)[1]
    for key in ("image", "surfaces", "age_years"):
        assert torch.equal(before[key], after[key])
    monkeypatch.setitem(sys.modules, "h5py", None)
    report = DukeAMD(root).check()
    assert "is a MATLAB 7.3 file, which is read by h5py: pip install h5py" in str(report)


def spoilt(**changes):
    return lambda root: write(root / "AMD1", "AMD", 1001, **changes)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / "x.mat").write_bytes(b""), "x.mat is not named like AMD_1001.mat"),
        (lambda r: write(r, "AMD", 1001, name="{}_{}.mat"), "AMD_1001 is there twice"),
        (spoilt(layerMaps=None), "AMD_Subject_1001.mat holds no layerMaps"),
        (spoilt(layerMaps=np.zeros((B, W, 2))), "layerMaps must be numbers (B-scans, columns, 3)"),
        (spoilt(layerMaps=np.zeros((B, 3, 3))), "layerMaps must be numbers (B-scans, columns, 3)"),
        (
            lambda r: (r / "AMD1" / STEM.format("AMD", 1001)).write_bytes(b"no"),
            "AMD_Subject_1001.mat cannot be read as a MATLAB file",
        ),
    ],
)
def test_a_malformed_folder_is_refused_by_name(root, spoil, message):
    spoil(root)
    report = DukeAMD(root).check()
    assert not report.ok and message in str(report)
    with pytest.raises(ValueError, match=re.escape(message)):
        len(DukeAMD(root))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoilt(images=None), "AMD_Subject_1001.mat holds no images"),
        (spoilt(images=np.zeros((H, W, B + 1), np.uint8)), "images must have 5 B-scans and 24 col"),
        (spoilt(images=np.zeros((W, W, B), np.uint8)), "another number of rows"),
        (spoilt(images=np.full((H, W, B), 300.0)), "grey values in [0, 255]"),
        (spoilt(images=np.full((H, W, B), np.nan)), "grey values in [0, 255]"),
    ],
)
def test_bad_images_are_refused_when_read_and_found_by_a_full_check(root, spoil, message):
    spoil(root)
    reader = DukeAMD(root)
    assert reader.check().ok
    assert message in str(reader.check(voxels=True))
    with pytest.raises(ValueError, match=re.escape(message)):
        reader[0]


def test_nothing_annotated_is_refused(tmp_path):
    write(tmp_path, "AMD", 1001, layerMaps=np.full((B, W, 3), np.nan))
    with pytest.raises(ValueError, match="no B-scan has an annotated column"):
        len(DukeAMD(tmp_path))
