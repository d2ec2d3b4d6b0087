import re
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_layouts import JHU_BSCANS as BSCANS
from reader_layouts import JHU_COLUMN_MM as COLUMN_MM
from reader_layouts import JHU_COLUMNS as COLUMNS
from reader_layouts import JHU_FIRST as FIRST
from reader_layouts import JHU_ROW_MM as ROW_MM
from reader_layouts import JHU_ROWS as ROWS
from reader_layouts import JHU_SLICE_MM as SLICE_MM
from reader_layouts import jhu_cells as cells
from reader_layouts import jhu_pixels as pixels
from reader_layouts import jhu_subject as subject
from reader_layouts import jhu_write_vol as write_vol
from scipy.io import savemat

from medseg_core.datasets import JHUOCT, _heyex_vol, oct_jhu
from medseg_core.datasets._delineation import SURFACES, read_surfaces, spline_through
from medseg_core.datasets._mat import read_mat


@pytest.fixture
def root(tmp_path):
    for name in ("hc01", "hc09", "ms02", "ms21"):
        subject(tmp_path, name)
    return tmp_path


def jhu(root, crop_rows):
    reader = JHUOCT(root)
    reader.crop_rows = crop_rows
    return reader


def test_a_sample_has_the_phantoms_keys(root):
    reader = jhu(root, None)
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
    reader = jhu(root, 40)
    one, whole = reader[0], jhu(root, None)[0]
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
    assert torch.equal(jhu(root, 40)[0]["image"], one["image"])


def test_columns_whose_surfaces_leave_the_crop_are_not_valid(root):
    savemat(next((root / "delineation").glob("hc01*")), {"control_pts": cells(slope=1.0)})
    one = jhu(root, 30)[0]
    last = one["surfaces"][0, -1]  # BM, at 33 + x
    assert torch.equal(one["valid"][0], last <= 29.5) and 0 < one["valid"].sum() < COLUMNS
    assert (one["label"][0][:, ~one["valid"][0]] == 255).all()
    assert one["surfaces"].isfinite().all()


def test_dense_delineations_are_read_too(root):
    dense = np.tile(np.array(FIRST), (COLUMNS, BSCANS, 1))  # (W, B, 9)
    dense[5, 1] += 2
    savemat(next((root / "delineation").glob("hc01*")), {"bd_pts": dense})
    one = jhu(root, None)[1]
    assert torch.allclose(one["surfaces"][0, :, 5], torch.tensor(FIRST) + 1)
    assert torch.allclose(one["surfaces"][0, :, 6], torch.tensor(FIRST) - 1)


def test_bscans_without_all_surfaces_are_left_out(root):
    some = cells()
    some[2, 4] = np.zeros((0, 0))
    savemat(next((root / "delineation").glob("hc01*")), {"control_pts": some})
    assert [s["slice"].item() for s in JHUOCT(root)][:5] == [0, 1, 0, 1, 2]


def test_split(root):
    reader = JHUOCT(root)
    train, test = reader.split()
    patients = [s["patient"][0] for s in reader]
    assert {patients[i] for i in train} == {"hc09", "ms21"}
    assert {patients[i] for i in test} == {"hc01", "ms02"}
    assert len(oct_jhu.TRAIN) == 15 and set(oct_jhu.VALIDATION) < set(oct_jhu.TRAIN)
    assert sum(name.startswith("hc") for name in oct_jhu.TRAIN) == 6
    for path in (*root.glob("*/hc01*"), *root.glob("*/ms02*")):
        path.unlink()
    with pytest.raises(ValueError, match="leaves nothing for test"):
        JHUOCT(root).split()


def test_load_stacks_eyes_of_different_length(root):
    write_vol(next((root / "vol").glob("ms02*")), pixels(1), column_mm=0.0062)
    data = jhu(root, 40).load([7, 0, 0])
    assert data["image"].shape == (3, 1, 40, COLUMNS)
    assert data["group"].tolist() == [102, 1, 1]
    assert data["column_mm"].tolist() == pytest.approx([0.0062, 0.0058, 0.0058])
    assert data["spacing"] == (ROW_MM, 0.0058)
    small = jhu(root, 40).load([7, 0], size=(36, 8))
    assert small["image"].shape == (2, 1, 36, 8) and small["top"].shape == (2, 8)


def test_load_resamples_image_and_surfaces_together(root):
    data = jhu(root, None).load([0], spacing=(2 * ROW_MM, 2 * COLUMN_MM))
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


def test_a_volumes_header(root):
    path = next((root / "vol").glob("hc01*"))
    header = _heyex_vol.read_header(path)
    assert header.eye == "OD" and header.slo_size == (4, 5)
    assert (header.rows, header.columns, header.n_bscans) == (ROWS, COLUMNS, BSCANS)


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
        (lambda r: next((r / "vol").glob("hc01*")).unlink(), "hc01 has no volume"),
        (lambda r: next(r.glob("*/hc01*.mat")).unlink(), "hc01 has no delineation"),
        (lambda r: vol(r, magic=b"CMDb"), "is no Heidelberg raw export"),
        (lambda r: vol(r, cut=10), "is cut short"),
        (lambda r: vol(r, column_mm=float("nan")), "× nan mm cannot be"),
        (lambda r: vol(r, header=0), "with headers of 0 bytes"),
        (lambda r: (r / "vol/hc01_x.vol").write_bytes(b""), "hc01 is there twice"),
        (lambda r: (r / "vol/x01.vol").write_bytes(b""), "x01.vol is not named like hc01"),
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
