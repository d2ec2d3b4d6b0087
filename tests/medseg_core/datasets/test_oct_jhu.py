import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from medseg_core.datasets import JHUOCT, heyex_vol, oct_jhu
from medseg_core.datasets.mat import read_mat
from medseg_core.datasets.oct_jhu_files import SURFACES, read_surfaces, spline_through

ROWS, COLUMNS, BSCANS, HEADER = 60, 16, 3, 288
ROW_MM, COLUMN_MM, SLICE_MM = 0.0039, 0.0058, 0.123
FIRST = [12.0, 15.0, 18.0, 21.0, 23.0, 27.0, 29.0, 31.0, 34.0]  # of the surfaces, from 1


def write_vol(path, pixels, *, magic=b"HSF-OCT-103", column_mm=COLUMN_MM, header=HEADER, cut=0):
    """A volume (B, rows, columns) float32 in the raw export's layout, field by field."""
    n, rows, columns = pixels.shape
    top = magic.ljust(12, b"\0") + struct.pack("<iii", columns, n, rows)
    top += struct.pack("<ddd", column_mm, SLICE_MM, ROW_MM)
    top += struct.pack("<ii", 5, 4) + struct.pack("<dd", 0.01, 0.01) + struct.pack("<i", 30)
    top += struct.pack("<d", 0.0) + b"OD\0\0" + struct.pack("<qii", 0, 3, header)
    assert len(top) == 104
    data = top.ljust(2048, b"\0") + bytes(range(20))  # SLO of 4 rows, 5 columns
    for image in pixels:
        data += b"HSF-BS-103\0\0".ljust(header, b"\0") + image.astype("<f4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data[: len(data) - cut])


def pixels(seed=0):
    """Light between the surfaces 12 and 34; a value that tells the place; an invalid pixel."""
    image = np.full((BSCANS, ROWS, COLUMNS), 1e-4, np.float32)
    image[:, 11:34] = 0.3 + 0.1 * np.random.default_rng(seed).random((BSCANS, 23, COLUMNS))
    image[1, 13, 4] = 0.0625  # shown as 0.5
    image[1, 20, 5] = 3.4e38
    return image


def cells(slope=0.0, surfaces=9, columns=11):
    """control_pts as published: x, y from 1, some columns empty."""
    out = np.empty((BSCANS, columns), object)
    for at in np.ndindex(out.shape):
        out[at] = np.zeros((0, 0))
    used = [k for k in range(columns) if k not in (2, 10)][:surfaces]
    for b in range(BSCANS):
        for k, y in zip(used, FIRST, strict=False):
            x = np.array([1.0, 6.0, 11.0, 16.0])
            out[b, k] = np.stack([x, y + slope * (x - 1)], axis=1)
    return out


def subject(root, name, **mat):
    stem = f"{name}_spectralis_macula_v1_s1_R"
    write_vol(root / "vol" / f"{stem}.vol", pixels())
    (root / "delineation").mkdir(exist_ok=True)
    savemat(root / "delineation" / f"{stem}.mat", mat or {"control_pts": cells(), "segmode": 1})


@pytest.fixture
def root(tmp_path):
    for name in ("hc01", "hc09", "ms02", "ms21"):
        subject(tmp_path, name)
    return tmp_path


def test_a_sample_has_the_phantoms_keys(root):
    reader = JHUOCT(root, crop_rows=None)
    assert len(reader) == 4 * BSCANS
    one = reader[1]
    assert one["image"].shape == (1, 1, ROWS, COLUMNS) and one["image"].dtype == torch.float32
    assert one["image"][0, 0, 13, 4] == 0.5 and one["image"][0, 0, 20, 5] == 0
    assert one["image"][0, 0, 0, 0] == pytest.approx(0.1)
    assert torch.allclose(one["surfaces"][0], torch.tensor(FIRST)[:, None] - 1)
    assert one["surface_names"] == SURFACES and one["surfaces"].shape == (1, 9, COLUMNS)
    assert one["valid"].all() and one["valid"].shape == (1, COLUMNS)
    assert one["spacing"] == (ROW_MM, COLUMN_MM)
    assert one["slice_spacing"].item() == pytest.approx(SLICE_MM)
    # Rows 0–10 lie above surface 11 (counted from 0), which pixel 11 touches.
    assert one["label"][0, :, 3].tolist()[10:15] == [0, 1, 1, 1, 2]
    assert one["label"][0, -1, 0] == 9
    assert [s["slice"].item() for s in reader] == [0, 1, 2] * 4
    assert [s["group"].item() for s in reader][::3] == [1, 9, 102, 121]
    assert reader[0]["ms"].tolist() == [False] and reader[-1]["ms"].tolist() == [True]
    assert reader[-1]["patient"] == ["ms21"] and one["eye"] == ["OD"]


def test_the_crop_follows_the_light_and_not_the_truth(root):
    reader = JHUOCT(root, crop_rows=40)
    one, whole = reader[0], JHUOCT(root, crop_rows=None)[0]
    assert one["image"].shape == (1, 1, 40, COLUMNS)
    # The light's middle is row 22: rows 2 or 3 to 42 are cut out.
    assert ((one["top"] >= 2) & (one["top"] <= 3)).all()
    assert torch.equal(one["surfaces"] + one["top"][:, None], whole["surfaces"])
    for column in (0, 9):
        first = int(one["top"][0, column])
        assert torch.equal(
            one["image"][0, 0, :, column], whole["image"][0, 0, first : first + 40, column]
        )
    moved = {"control_pts": cells(slope=0.2)}
    savemat(next((root / "delineation").glob("hc01*")), moved)
    assert torch.equal(JHUOCT(root, crop_rows=40)[0]["image"], one["image"])


def test_columns_whose_surfaces_leave_the_crop_are_not_valid(root):
    savemat(next((root / "delineation").glob("hc01*")), {"control_pts": cells(slope=1.0)})
    one = JHUOCT(root, crop_rows=30)[0]
    last = one["surfaces"][0, -1]  # BM, at 33 + x
    assert torch.equal(one["valid"][0], last <= 29.5) and 0 < one["valid"].sum() < COLUMNS
    assert (one["label"][0][:, ~one["valid"][0]] == 255).all()
    assert one["surfaces"].isfinite().all()


def test_dense_delineations_are_read_too(root):
    dense = np.tile(np.array(FIRST), (COLUMNS, BSCANS, 1))  # (W, B, 9)
    dense[5, 1] += 2
    savemat(next((root / "delineation").glob("hc01*")), {"bd_pts": dense})
    one = JHUOCT(root, crop_rows=None)[1]
    assert torch.allclose(one["surfaces"][0, :, 5], torch.tensor(FIRST) + 1)
    assert torch.allclose(one["surfaces"][0, :, 6], torch.tensor(FIRST) - 1)


def test_bscans_without_all_surfaces_are_left_out(root):
    some = cells()
    some[2, 4] = np.zeros((0, 0))
    savemat(next((root / "delineation").glob("hc01*")), {"control_pts": some})
    reader = JHUOCT(root, groups=("hc",))
    assert [s["slice"].item() for s in reader] == [0, 1, 0, 1, 2]
    assert "hc (healthy control): 2 volumes, 5 B-scans" in str(reader.check())


def test_groups_and_split(root):
    assert len(JHUOCT(root, groups=["ms"])) == 6
    (root / "delineation/hc02.mat").write_bytes(b"no")
    assert JHUOCT(root, groups=["ms"]).check().ok  # what the other group lacks is no matter
    (root / "delineation/hc02.mat").unlink()
    reader = JHUOCT(root)
    train, test = reader.split()
    patients = [s["patient"][0] for s in reader]
    assert {patients[i] for i in train} == {"hc09", "ms21"}
    assert {patients[i] for i in test} == {"hc01", "ms02"}
    assert len(oct_jhu.TRAIN) == 15 and set(oct_jhu.VALIDATION) < set(oct_jhu.TRAIN)
    assert sum(name.startswith("hc") for name in oct_jhu.TRAIN) == 6
    for path in (*root.glob("*/hc01*"), *root.glob("*/ms02*")):
        path.unlink()
    with pytest.raises(ValueError, match="leaves one side without a person"):
        JHUOCT(root).split()


def test_load_stacks_eyes_of_different_length(root):
    write_vol(next((root / "vol").glob("ms02*")), pixels(1), column_mm=0.0062)
    data = JHUOCT(root, crop_rows=40).load([7, 0, 0])
    assert data["image"].shape == (3, 1, 40, COLUMNS)
    assert data["group"].tolist() == [102, 1, 1]
    assert data["column_mm"].tolist() == pytest.approx([0.0062, 0.0058, 0.0058])
    assert data["spacing"] == (ROW_MM, 0.0058)
    small = JHUOCT(root, crop_rows=40).load([7, 0], size=(36, 8))
    assert small["image"].shape == (2, 1, 36, 8) and small["top"].shape == (2, 8)


def test_load_resamples_image_and_surfaces_together(root):
    data = JHUOCT(root, crop_rows=None).load([0], spacing=(2 * ROW_MM, 2 * COLUMN_MM))
    assert data["image"].shape == (1, 1, ROWS // 2, COLUMNS // 2)
    # Old rows r become (r − 29.5)/2 + 14.5: surface 11 lies at 5.25, 33 at 16.25.
    expected = (torch.tensor(FIRST) - 1 - 29.5) / 2 + 14.5
    assert torch.allclose(data["surfaces"][0], expected[:, None].expand(9, 8), atol=1e-5)


def test_the_spline_is_the_publishers():
    """By hand: knots 0, 1, 0 at x = 1, 3, 9: with t = 0, 1, 2 and natural ends, the first piece
    is 1.5t − 0.5t³; x = 2 is t = ½ → 0.6875. Beyond the ends it is constant."""
    y = spline_through(np.array([[9.0, 0.0], [1.0, 0.0], [3.0, 1.0]]), 12)
    assert y[:3] == pytest.approx([0, 0.6875, 1])
    assert y[5] == pytest.approx(0.6875) and (y[8:] == pytest.approx(0))
    assert spline_through(np.array([[2.0, 5.0], [2.0, 5.0]]), 3).tolist() == [5, 5, 5]
    assert spline_through(np.array([[1.0, 0.0], [5.0, 4.0]]), 5).tolist() == pytest.approx(range(5))


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=12, unique=True),
    st.integers(0, 2**31 - 1),
)
def test_the_spline_meets_its_points(x, seed):
    y = np.random.default_rng(seed).uniform(10, 50, len(x))
    line = spline_through(np.stack([x, y], axis=1), 40)
    assert line[np.array(x) - 1] == pytest.approx(y)
    assert line[: min(x)] == pytest.approx(y[np.argmin(x)])


def test_surfaces_do_not_cross(tmp_path):
    crossing = cells()
    crossing[0, 1][2, 1] = 5.0  # the second surface jumps above the first
    savemat(tmp_path / "hc01.mat", {"control_pts": crossing})
    surfaces = read_surfaces(tmp_path / "hc01.mat", COLUMNS)
    assert (np.diff(surfaces, axis=1) >= 0).all()
    assert surfaces[0, 1, 10] == surfaces[0, 0, 10] == 11


def test_matlab_7_3_files_are_read_by_h5py(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "hc01.mat"
    content = cells()
    with h5py.File(path, "w", userblock_size=512) as file:
        references = np.empty(content.shape[::-1], h5py.ref_dtype)
        for (b, k), value in np.ndenumerate(content):
            node = file.create_dataset(f"#refs#/{b}_{k}", data=value.T if value.size else [0, 0])
            node.attrs["MATLAB_empty"] = int(value.size == 0)
            references[k, b] = node.ref
        file.create_dataset("control_pts", data=references)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + path.read_bytes()[128:])
    savemat(tmp_path / "old.mat", {"control_pts": content})
    expected = read_surfaces(tmp_path / "old.mat", COLUMNS)
    assert np.array_equal(read_surfaces(path, COLUMNS), expected)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"hc01\.mat is a MATLAB 7\.3 file.*pip install h5py"):
        read_mat(path, ("control_pts",))


def test_a_volumes_header_and_fundus_image(root):
    path = next((root / "vol").glob("hc01*"))
    header = heyex_vol.read_header(path)
    assert (header.version, header.eye, header.scan_pattern) == ("HSF-OCT-103", "OD", 3)
    assert (header.rows, header.columns, header.n_bscans) == (ROWS, COLUMNS, BSCANS)
    assert heyex_vol.read_slo(path, header).tolist() == np.arange(20).reshape(4, 5).tolist()


def vol(root, **options):
    write_vol(root / "vol/hc01_spectralis_macula_v1_s1_R.vol", pixels(), **options)


def mat(root, **content):
    savemat(root / "delineation/hc01_spectralis_macula_v1_s1_R.mat", content)


def wrong_points():
    content = cells()
    content[1, 0] = np.zeros((4, 3))
    return content


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: next((r / "vol").glob("hc01*")).unlink(), "hc01: no volume (.vol)"),
        (lambda r: next(r.glob("*/hc01*.mat")).unlink(), "hc01: no delineation (.mat)"),
        (lambda r: vol(r, magic=b"CMDb"), "is no Heidelberg raw export"),
        (lambda r: vol(r, cut=10), "is cut short"),
        (lambda r: vol(r, column_mm=float("nan")), "× nan mm cannot be"),
        (lambda r: vol(r, header=0), "with headers of 0 bytes"),
        (lambda r: (r / "vol/hc01_x.vol").write_bytes(b""), "hc01 is there twice"),
        (lambda r: (r / "vol/x01.vol").write_bytes(b""), "x01.vol does not begin with a person"),
        (lambda r: mat(r, segmode=1), "holds neither control_pts nor bd_pts"),
        (lambda r: mat(r, control_pts=cells(surfaces=8)), "has 8 surfaces, 9 are needed"),
        (lambda r: mat(r, control_pts=cells()[:2]), "2 B-scans are delineated, the volume has 3"),
        (lambda r: mat(r, control_pts=wrong_points()), "B-scan 1, surface 0 must be finite points"),
        (lambda r: mat(r, control_pts=np.zeros((3, 9))), "control_pts must be cells"),
        (lambda r: mat(r, bd_pts=np.zeros((15, 3, 9))), "bd_pts must be (16, B-scans, 9)"),
        (
            lambda r: next((r / "delineation").glob("hc01*")).write_bytes(b"no"),
            "cannot be read as a MATLAB file",
        ),
    ],
)
def test_a_malformed_folder_is_refused_by_name(root, spoil, message):
    spoil(root)
    report = JHUOCT(root).check()
    assert not report.ok and message in str(report)
    with pytest.raises(ValueError, match=re.escape(message)):
        len(JHUOCT(root))


@pytest.mark.parametrize(
    ("where", "message"),
    [("nowhere", "does not exist"), ("empty", "folder is empty"), ("other", "no file of")],
)
def test_a_wrong_folder_is_refused_with_the_layout_expected(root, where, message):
    (root / "empty").mkdir()
    (root / "other/patient001").mkdir(parents=True)
    with pytest.raises(ValueError, match=message) as caught:
        JHUOCT(root / where).load()
    for part in ("Layout expected", "delineation/", "Where from", "Licence"):
        assert part in str(caught.value)


def test_other_folders_by_glob(root):
    Path(root / "vol").rename(root / "volumes")
    assert len(JHUOCT(root)) == len(JHUOCT(root, vol_glob="volumes/*.vol")) == 12
    with pytest.raises(ValueError, match="hc01: no volume"):
        len(JHUOCT(root, vol_glob="vol/*.vol"))


def test_bad_options_are_refused(root):
    with pytest.raises(ValueError, match="groups"):
        JHUOCT(root, groups="hc")
    with pytest.raises(ValueError, match="groups must be one of"):
        JHUOCT(root, groups=["pd"])
    with pytest.raises(ValueError, match="crop_rows"):
        JHUOCT(root, crop_rows=0)
    with pytest.raises(ValueError, match="size must be"):
        JHUOCT(root).load([0], size=(0, 8))
    with pytest.raises(IndexError):
        JHUOCT(root)[12]
