import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from reader_layouts import SPECTRALIS_SHAPE as SHAPE
from reader_layouts import spectralis_grey as grey
from reader_layouts import spectralis_layers as layers
from reader_layouts import spectralis_write as write

from medseg_core.datasets import SpectralisExport


@pytest.fixture
def root(tmp_path):
    write(tmp_path, "Able_7", 0)
    write(tmp_path, "Able_7", 10)
    write(tmp_path, "Able_7", 2)
    write(tmp_path, "Able_8", 0, scan_pattern=np.int64(3))
    write(tmp_path, "Baker_1", 0)
    return tmp_path


def test_a_sample_has_the_phantoms_keys(root):
    reader = SpectralisExport(root)
    assert len(reader) == 5
    one = reader[0]
    assert one["image"].shape == (1, 1, *SHAPE) and one["image"].dtype == torch.float32
    assert torch.allclose(one["image"][0, 0] * 255, torch.from_numpy(grey()).float())
    assert one["surface_names"] == ("ILM", "RNFL", "BM")
    assert one["surfaces"][0, :, 8].tolist() == [10, 14, 31]
    assert one["surfaces"].isfinite().all()
    # The gap is the RNFL's alone, and its label is unknown.
    assert one["valid"].shape == (1, 3, SHAPE[1])
    assert (~one["valid"][0]).nonzero().tolist() == [[1, 3], [1, 4]]
    assert (one["label"][0, :, 3:5] == 255).all()
    assert one["label"][0, [9, 10, 13, 14, 31, 32], 16].tolist() == [0, 1, 1, 2, 2, 3]
    assert one["spacing"] == (0.0039, 0.0147)
    assert [s["slice"].item() for s in reader] == [0, 2, 10, 0, 0]
    assert [s["group"].item() for s in reader] == [0, 0, 0, 0, 1]
    assert [s["circular"].item() for s in reader] == [True] * 3 + [False, True]
    assert reader[4]["patient"] == ["Baker"] and reader[4]["scan"] == ["Baker_1"]
    assert "5 B-scans of 2 patients" in str(reader.check())


def test_load_cuts_and_stacks(root):
    reader = SpectralisExport(root)
    data = reader.load([4, 0], size=(30, 20))
    assert data["image"].shape == (2, 1, 30, 20) and data["group"].tolist() == [1, 0]
    whole = reader.load([4, 0])
    assert torch.equal(
        (data["surfaces"] + data["top"][:, None])[:, :, 4:], whole["surfaces"][..., 6:22]
    )
    assert torch.equal(data["valid"], whole["valid"][..., 2:22])
    wide = reader.load(size=(30, None))
    assert wide["image"].shape == (5, 1, 30, SHAPE[1])
    half = reader.load([0], spacing=(0.0039, 0.0294))
    assert half["image"].shape == (1, 1, 40, 12) and half["spacing"] == (0.0039, 0.0294)
    assert (~half["valid"][0]).nonzero().tolist() == [[1, 1], [1, 2]]


def test_files_without_a_scan_pattern_are_read(root):
    write(root, "Able_8", 0, scan_pattern=None)
    assert SpectralisExport(root)[3]["circular"].tolist() == [False]


def changed(**changes):
    return lambda root: write(root, "Able_8", 0, **changes)


NPZ = "Able_8_0_layers.npz"


def objects(root):
    np.savez(root / NPZ, **{**layers(), "names": np.array(["ILM", 2, None], dtype=object)})


def outside():
    lines = layers()["layers"]
    lines[1, 7] = 40
    return lines


def unknown():
    lines = layers()["layers"]
    lines[2] = np.nan
    return lines


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / NPZ).unlink(), "Able_8_0 has no layers"),
        (lambda r: (r / "Able_8_0.png").unlink(), "Able_8_0 has no image"),
        (lambda r: (r / "note.png").write_bytes(b""), "note.png is not named like"),
        (lambda r: (r / "Able_8_0.png").write_bytes(b"no"), "Able_8_0.png cannot be read as PNG"),
        (lambda r: (r / NPZ).write_bytes(b"no"), f"{NPZ} cannot be read"),
        (lambda r: (r / NPZ).write_bytes((r / NPZ).read_bytes()[:300]), f"{NPZ} cannot be read"),
        (objects, f"{NPZ} cannot be read: Object arrays cannot be loaded"),
        (changed(layers=None), f"{NPZ} cannot be read: it has no layers"),
        (changed(layers=np.zeros((3, 5))), "layers must be floats (L, 24)"),
        (changed(layers=outside()), "BM lies at row 40 in column 7, outside the image's 40 rows"),
        (changed(layers=unknown()), "no column of RNFL is known"),
        (changed(names=np.array(["ILM", "BM"])), "names must be 3 texts"),
        (changed(scale_mm=np.array([0.0147, 0.0, 0.0])), "scale_mm must be"),
    ],
)
def test_a_malformed_folder_is_refused_by_name(root, spoil, message):
    spoil(root)
    report = SpectralisExport(root).check()
    assert not report.ok and message in str(report)
    with pytest.raises(ValueError, match=re.escape(message)):
        len(SpectralisExport(root))


@pytest.mark.skipif("MEDSEG_DATA" not in os.environ, reason="MEDSEG_DATA names no data folder")
def test_the_real_scans():
    reader = SpectralisExport(Path(os.environ["MEDSEG_DATA"]) / "oct-spectralis")
    assert reader.check().ok and len(reader) == 2
    whole = reader.load()
    assert whole["surface_names"] == ("ILM", "RNFL", "BM")
    assert (whole["surfaces"].diff(dim=1) >= 0).all()
    # Above the ILM there is vitreous: darker, in the image, than the nerve fibres below it.
    at = whole["surfaces"][:, :1].round().long()[:, :, None]  # (2, 1, 1, W)
    above, below = (whole["image"].gather(2, at + step) for step in (-12, 12))
    assert (below > above).float().mean() > 0.9
    # 128 flattened rows, found without looking at the surfaces, hold nearly all of them.
    cut = reader.load(size=(128, None))
    assert cut["valid"].float().mean() > 0.99
    back = cut["surfaces"] + cut["top"][:, None]
    assert torch.allclose(back[cut["valid"]], whole["surfaces"][cut["valid"]], atol=1e-3)
