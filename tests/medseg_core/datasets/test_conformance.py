"""Every reader's tiny layout, damaged in the same ways: each is refused by name or read right."""

import functools
import itertools
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from reader_layouts import LAYOUTS

from medseg_core import datasets

VOLUMES = [name for name, layout in LAYOUTS.items() if layout.volumes]
FILES = [(name, kind) for name, layout in LAYOUTS.items() for kind in layout.files]
PICTURES = [(name, kind) for name, layout in LAYOUTS.items() for kind in layout.pictures]
MASKS = [name for name, layout in LAYOUTS.items() if {"image", "label"} <= {*layout.pictures}]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """The folder of each layout, built once."""

    @functools.cache
    def build(name):
        folder = tmp_path_factory.mktemp(name) / "data"
        LAYOUTS[name].build(folder)
        return folder

    return build


@pytest.fixture
def built(clean, tmp_path):
    """A copy of a layout's folder, to be damaged."""

    def copy(name):
        return LAYOUTS[name], Path(shutil.copytree(clean(name), tmp_path / "data"))

    return copy


def refused(layout, root, *words):
    """By a full check and by reading all, in words that name what is wrong."""
    report = layout.reader(root).check(voxels=True)
    assert not report.ok
    for word in words:
        assert word in str(report), str(report)
    with pytest.raises(ValueError):
        list(layout.reader(root))


def same(a, b):
    """Whether two readers give equal samples."""
    for one, two in itertools.zip_longest(a, b):
        assert one.keys() == two.keys()
        for key, value in one.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value.nan_to_num(-7), two[key].nan_to_num(-7)), key
            elif key == "spacing":
                assert two[key] == pytest.approx(value)


def test_every_reader_is_here():
    listed = {layout.reader.__name__ for layout in LAYOUTS.values()}
    assert listed == {name for name in dir(datasets) if name[0].isupper()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_clean_folder_is_read(built, name):
    layout, root = built(name)
    reader = layout.reader(root)
    report = reader.check(voxels=True)
    assert report.ok and report.found and len(reader) == layout.n
    sample = reader[0]
    assert sample["image"].dtype == torch.float32 and sample["image"].isfinite().all()
    assert sample["image"].is_contiguous() and sample["image"].shape[:2] == (1, 1)
    assert sample["group"].shape == (1,) and sample["group"].dtype == torch.int64
    assert sample["label"].dtype == torch.int64
    assert sample["label"].shape[1:] == sample["image"].shape[2:]
    assert len(sample["spacing"]) == sample["image"].ndim - 2 and min(sample["spacing"]) > 0
    whole = reader.load([layout.n - 1, 0])
    assert torch.equal(whole["image"][1:], layout.reader(root).load([0])["image"])
    for bad, error in ((layout.n, IndexError), ("0", TypeError), (True, TypeError)):
        with pytest.raises(error):
            reader[bad]
    with pytest.raises(TypeError):
        layout.reader(root, no_such_option=1)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("nowhere", "the folder does not exist"),
        ("empty", "the folder is empty"),
        ("file.txt", "this is a file"),
        ("other", ""),
    ],
)
def test_a_wrong_folder_is_refused_with_the_layout_expected(tmp_path, name, where, words):
    (tmp_path / "empty/.hidden").mkdir(parents=True)
    (tmp_path / "other/patient1").mkdir(parents=True)
    (tmp_path / "other/note.txt").touch()
    (tmp_path / "file.txt").touch()
    reader = LAYOUTS[name].reader
    report = reader(tmp_path / where).check()
    assert not report.ok
    with pytest.raises(ValueError) as caught:
        len(reader(tmp_path / where))
    for part in (words, "Layout expected", reader.layout.split()[-1], reader.where, "Licence"):
        assert part in str(caught.value)
    assert max(map(len, str(report).replace(str(tmp_path), "").splitlines())) <= 210


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_too_high_is_read_or_the_right_one_named(built, name, tmp_path):
    layout, root = built(name)
    outer = tmp_path / "outer"
    shutil.copytree(root, outer / "unpacked")
    reader = layout.reader(outer)
    report = reader.check()
    if report.ok:
        assert len(reader) == layout.n
    else:
        assert report.hint.startswith(f"the folder below, {outer / 'unpacked'}")


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.inside])
def test_a_folder_too_low_is_refused_and_the_right_one_named(built, name):
    layout, root = built(name)
    report = layout.reader(root / layout.inside).check()
    assert not report.ok and report.hint.startswith("the folder above, ")
    assert layout.reader(report.hint.removeprefix("the folder above, ")).check().ok


@pytest.mark.parametrize(("name", "kind"), FILES)
def test_a_missing_file_is_refused_by_name(built, name, kind):
    layout, root = built(name)
    (root / layout.files[kind]).unlink()
    if len(layout.files) == 1:  # nothing says that it should be there
        assert len(layout.reader(root)) < layout.n
        return
    report = layout.reader(root).check()
    file = (root / layout.files[kind]).name
    stem = file.split(".")[0].removesuffix("_gt").split("_spectralis")[0].removesuffix("_layers")
    assert not report.ok and (stem in str(report) or stem[4:] in str(report)), str(report)
    refused(layout, root)


@pytest.mark.parametrize(("name", "kind"), FILES)
@pytest.mark.parametrize("content", ["cut", "other", "nothing"])
def test_a_damaged_file_is_refused_by_name(built, name, kind, content):
    layout, root = built(name)
    path = root / layout.files[kind]
    old = path.read_bytes()
    # A text that is cut in the middle of a line still reads as text: its first bytes alone do not.
    cut = old[:7] if path.suffix in (".txt", ".cfg") else old[: len(old) // 2]
    path.write_bytes({"cut": cut, "other": b"not what you think", "nothing": b""}[content])
    refused(layout, root, path.name)


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.texts])
def test_a_byte_order_mark_changes_nothing(built, name, tmp_path):
    layout, root = built(name)
    shutil.copytree(root, tmp_path / "plain")
    for text in layout.texts:
        path = root / text
        path.write_text(path.read_text(), encoding="utf-8-sig")
        assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    assert layout.reader(root).check(voxels=True).ok
    same(layout.reader(root), layout.reader(tmp_path / "plain"))
    assert [s.get("info") for s in layout.reader(root)] == [
        s.get("info") for s in layout.reader(tmp_path / "plain")
    ]


# --- Volumes: image and label as NIfTI


def rewrite(path, change=lambda a: a, affine=None, dtype=None):
    """A NIfTI file with other voxels, or another place in space."""
    old = nib.load(path)
    array = change(np.asarray(old.dataobj))
    new = nib.Nifti1Image(array, old.affine if affine is None else affine @ old.affine)
    if dtype is not None:
        new.set_data_dtype(dtype)
    path.unlink()
    nib.save(new, path)


def one_voxel(value):
    def change(array):
        array = array.astype(np.float32)
        array[3, 4] = value
        return array

    return change


def shifted(mm):
    affine = np.eye(4)
    affine[0, 3] = mm
    return affine


@pytest.mark.parametrize("name", VOLUMES)
@pytest.mark.parametrize(
    ("kind", "how", "words"),
    [
        ("label", {"change": lambda a: a[1:]}, "has the shape"),
        ("label", {"affine": shifted(30)}, "30 mm apart"),
        ("image", {"affine": shifted(-1)}, "1 mm apart"),
        ("label", {"affine": np.diag([2.0, 1, 1, 1])}, "is not on its image's grid"),
        ("label", {"affine": np.eye(4)[[1, 0, 2, 3]]}, ""),
        ("label", {"change": one_voxel(77)}, "must hold the labels 0, 1, 2"),
        ("label", {"change": one_voxel(0.5)}, "must hold whole numbers, got [0.5]"),
        ("label", {"change": one_voxel(1.002)}, "must hold whole numbers, got [1.00"),
        ("label", {"change": one_voxel(np.nan)}, "must hold whole numbers, got [nan"),
        ("label", {"change": one_voxel(np.inf)}, "must hold whole numbers, got [inf"),
        ("image", {"change": one_voxel(np.nan)}, "must be finite, got nan"),
        ("image", {"change": one_voxel(-np.inf)}, "must be finite, got -inf"),
        ("image", {"change": lambda a: a + 1j}, "got complex numbers"),
        ("label", {"change": lambda a: a + 1j}, "got complex numbers"),
        ("image", {"change": lambda a: np.stack([a, a], -1)}, ""),
        ("label", {"change": lambda a: np.stack([a, a], -1)}, "-D"),
        ("image", {"change": lambda a: a[0]}, "-D"),
    ],
)
def test_volumes_that_cannot_be_are_refused_by_name(built, name, kind, how, words):
    layout, root = built(name)
    path = root / layout.files[kind]
    rewrite(path, **how)
    refused(layout, root, path.name if kind == "label" else path.name.split(".")[0], words)


@pytest.mark.parametrize("name", VOLUMES)
@pytest.mark.parametrize("kind", ["image", "label"])
def test_colours_are_refused_by_name(built, name, kind):
    layout, root = built(name)
    path = root / layout.files[kind]
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    rewrite(path, lambda a: np.zeros(a.shape, rgb))
    refused(layout, root, path.name, "got colours (RGB)")


@pytest.mark.parametrize("name", VOLUMES)
@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_header_that_gives_two_voxel_sizes_is_refused(built, name, kind):
    layout, root = built(name)
    path = root / layout.files[kind]
    old = nib.load(path)
    header = old.header.copy()
    header.set_sform(old.affine, 1)
    header["qform_code"] = 0
    header["pixdim"][1] *= 2
    array = np.asarray(old.dataobj)
    path.unlink()
    nib.save(nib.Nifti1Image(array, None, header), path)
    refused(layout, root, path.name, "gives two voxel sizes: pixdim")


@pytest.mark.parametrize("name", VOLUMES)
def test_a_header_that_gives_two_places_is_refused(built, name):
    layout, root = built(name)
    path = root / layout.files["label"]
    old = nib.load(path)
    new = nib.Nifti1Image(np.asarray(old.dataobj), old.affine)
    new.set_sform(old.affine, 1)
    new.set_qform(shifted(20) @ old.affine, 1)
    path.unlink()
    nib.save(new, path)
    refused(layout, root, path.name, "gives two places: its qform and sform", "20 mm apart")


@pytest.mark.parametrize("name", VOLUMES)
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("label", {"change": lambda a: a * (1 + 1e-5), "dtype": np.int16}),  # scl_slope
        ("label", {"change": lambda a: a - np.float32(0.0009) * (a > 0)}),
        ("label", {"change": lambda a: a.astype(np.float64)}),
        ("image", {"change": lambda a: a[..., None]}),
        ("label", {"change": lambda a: a[..., None]}),
        ("label", {"affine": shifted(1e-3)}),  # another tool's rounding
    ],
)
def test_what_other_tools_leave_is_read_right(built, name, kind, how, tmp_path):
    layout, root = built(name)
    shutil.copytree(root, tmp_path / "plain")
    rewrite(root / layout.files[kind], **how)
    assert layout.reader(root).check(voxels=True).ok
    same(layout.reader(root), layout.reader(tmp_path / "plain"))


@pytest.mark.parametrize("name", VOLUMES)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_label_whose_axis_runs_the_other_way_is_turned(built, name, axis, tmp_path):
    layout, root = built(name)
    shutil.copytree(root, tmp_path / "plain")
    path = root / layout.files["label"]
    old = nib.load(path)
    back = nib.orientations.ornt_transform(
        nib.io_orientation(old.affine), nib.io_orientation(old.affine)
    )
    back[axis, 1] = -1
    array = nib.apply_orientation(
        np.asarray(old.dataobj).reshape(*old.shape, *[1] * (3 - old.ndim)), back
    )
    full = (*old.shape, *[1] * (3 - old.ndim))
    affine = old.affine @ nib.orientations.inv_ornt_aff(back, full)
    path.unlink()
    nib.save(nib.Nifti1Image(array.reshape(old.shape), affine), path)
    report = layout.reader(root).check(voxels=True)
    assert report.ok and "labels turned to their images' axes, by their affines: 1" in str(report)
    assert "labels turned" not in str(layout.reader(tmp_path / "plain").check())
    same(layout.reader(root), layout.reader(tmp_path / "plain"))


# --- Pictures


def as_mode(path, mode):
    grey = Image.open(path).convert("L")
    picture = grey.convert("RGB").quantize(256) if mode == "P" else grey.convert(mode)
    picture.save(path)


@pytest.mark.parametrize(("name", "kind"), PICTURES)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_grey_pictures_are_read_however_they_were_saved(built, name, kind, mode, tmp_path):
    layout, root = built(name)
    shutil.copytree(root, tmp_path / "plain")
    as_mode(root / layout.files[kind], mode)
    if kind == "label" or mode != "P":  # a palette of an image with many greys is a choice
        same(layout.reader(root), layout.reader(tmp_path / "plain"))
    assert layout.reader(root).check(voxels=True).ok


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_one_bit_are_read_as_those_of_eight(built, name, tmp_path):
    layout, root = built(name)
    shutil.copytree(root, tmp_path / "plain")
    as_mode(root / layout.files["label"], "1")
    same(layout.reader(root), layout.reader(tmp_path / "plain"))


@pytest.mark.parametrize(("name", "kind"), PICTURES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.astype(np.uint16) * 257, "must be an 8-bit image"),
        (lambda a: np.stack([a, a // 2, a], -1), "must be grey (R = G = B), got colour"),
        (
            lambda a: np.stack([a, a, a, a // 2 + np.indices(a.shape)[0].astype(np.uint8)], -1),
            "must be opaque",
        ),
        (lambda a: a[:-1, :-1], ""),
    ],
)
def test_other_pictures_are_refused_by_name(built, name, kind, change, words):
    layout, root = built(name)
    path = root / layout.files[kind]
    grey = np.asarray(Image.open(path).convert("L"))
    Image.fromarray(change(grey)).save(path)
    if not words and name == "ivus":  # a frame and two contours: the frame's size is its own
        return
    refused(layout, root, path.name.split(".")[0], words)


@pytest.mark.parametrize("name", MASKS)
def test_values_that_no_mask_has_are_refused(built, name):
    layout, root = built(name)
    path = root / layout.files["label"]
    Image.fromarray(np.asarray(Image.open(path).convert("L")) // 2).save(path)
    refused(layout, root, path.name, "must hold the labels 0, 255, got [127]")
