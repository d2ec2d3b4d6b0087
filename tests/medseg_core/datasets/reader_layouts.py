"""A tiny layout of each reader's data set; a new reader is tested by adding its builder here.

`LAYOUTS` says, for the conformance suite, what each holds and which of its files may be damaged.
"""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from medseg_core.datasets import (
    ACDC,
    CAMUS,
    IVUS2011,
    JHUOCT,
    MSD,
    DukeAMD,
    SpectralisExport,
    SunnybrookPNG,
)

# --- ACDC

ACDC_INFO = "ED: 1\nES: 9\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n"
ACDC_SPACING = (1.5, 2.0, 10.0)  # mm along x, y, z


def acdc_volume(shape=(20, 26, 3), seed=0):
    """An image whose value tells the place; a label with RV, myocardium, LV on two slices."""
    x, y, z = np.meshgrid(*map(np.arange, shape), indexing="ij")
    label = np.zeros(shape, np.uint8)
    label[8:15, 10:17, :2] = 2
    label[9:14, 11:15, :2] = 3
    label[5:8, 10:14, :2] = 1
    return (x + 100 * y + 10_000 * z + seed).astype(np.int16), label


def acdc_save(path, array, spacing=ACDC_SPACING):
    image = nib.Nifti1Image(array, np.diag([*spacing[:3], 1.0]))
    image.header.set_zooms((*spacing, 1.0)[: array.ndim])
    nib.save(image, path)


def acdc_patient(folder, number, info=ACDC_INFO, **options):
    home = folder / f"patient{number:03d}"
    home.mkdir(parents=True)
    (home / "Info.cfg").write_text(info)
    for frame in (1, 9):
        image, label = acdc_volume(seed=number + frame, **options)
        acdc_save(home / f"{home.name}_frame{frame:02d}.nii.gz", image)
        acdc_save(home / f"{home.name}_frame{frame:02d}_gt.nii.gz", label)
    return home


# --- CAMUS

CAMUS_HEIGHT, CAMUS_WIDTH = 60, 40
CAMUS_MM = (0.3, 0.2)  # along x, y
CAMUS_INFO = "ED: 1\nES: 18\nNbFrame: 18\nSex: F\nAge: 56\nImageQuality: {}\nLVef: 56\n"


def camus_frame(seed=0, height=CAMUS_HEIGHT, width=CAMUS_WIDTH):
    """(row, column): grey values in a fan with its tip on top, and labels of three boxes."""
    row, column = np.mgrid[:height, :width]
    middle = (width - 1) / 2
    fan = (abs(column - middle) <= 0.6 * row + 1) & (np.hypot(row, column - middle) < height)
    grey = np.random.default_rng(seed).integers(1, 256, (height, width))
    label = np.zeros((height, width), np.uint8)
    label[14:40, 10:28] = 2
    label[18:36, 14:24] = 1
    label[40:50, 14:26] = 3
    return (grey * fan).astype(np.uint8), label


def camus_save(path, array, mm=CAMUS_MM):
    """``array`` (row, column) as a file (x, y); another order of axes by another array."""
    if path.suffix == ".mhd":
        itk = pytest.importorskip("SimpleITK")
        image = itk.GetImageFromArray(array[None])
        image.SetSpacing((*mm, 1.0))
        itk.WriteImage(image, str(path))
        return
    image = nib.Nifti1Image(array.T, np.diag([*mm, 1.0, 1.0]))
    image.header.set_zooms(mm[: array.ndim])
    nib.save(image, path)


def camus_patient(
    folder, number, suffix=".nii.gz", quality="Good", views=("2CH", "4CH"), turn=None
):
    home = folder / f"patient{number:04d}"
    home.mkdir(parents=True)
    for view in views:
        if quality:
            (home / f"Info_{view}.cfg").write_text(CAMUS_INFO.format(quality))
        for phase in ("ED", "ES"):
            image, label = camus_frame(10 * number + (phase == "ES"))
            turned = (lambda a: a) if turn is None else turn
            camus_save(home / f"{home.name}_{view}_{phase}{suffix}", turned(image))
            camus_save(home / f"{home.name}_{view}_{phase}_gt{suffix}", turned(label))
    return home


# --- Duke AMD

DUKE_H, DUKE_W, DUKE_B = 40, 24, 5  # rows, columns, B-scans
DUKE_STEM = "Farsiu_Ophthalmology_2013_{}_Subject_{}.mat"


def duke_content(number=0, *, order=(0, 1, 2), maps_order=(0, 1, 2), **changes):
    """A file's variables: images (rows, columns, B-scans) whose grey tells the place, layerMaps."""
    images = np.zeros((DUKE_H, DUKE_W, DUKE_B), np.uint8)
    images += (np.arange(DUKE_H)[:, None, None] + 40 * np.arange(DUKE_B)).astype(np.uint8)
    images[15:30] += 50
    maps = np.full((DUKE_B, DUKE_W, 3), np.nan)
    maps[1:4, 4:20] = [11, 25, 31]  # counted from 1
    maps[2, 7] = [12, 20.5, 31]
    maps[3, 4:6, 2] = np.nan
    maps[4, 4:20, 0] = 11  # the ILM alone: not annotated
    made = {
        "images": images.transpose(order),
        "layerMaps": maps.transpose(maps_order),
        "Age": np.array([[70 + number]]),
    }
    return {k: v for k, v in {**made, **changes}.items() if v is not None}


def duke_write(root, group, number, name=DUKE_STEM, **options):
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / name.format(group, number), duke_content(number % 1000, **options))


# --- IVUS

IVUS_SIDE = 64
IVUS_CENTRE = (IVUS_SIDE - 1) / 2


def ivus_image(seed=0):
    """Grey values that grow with the distance from the centre, 4 per pixel; a dot at angle 0."""
    row, column = np.indices((IVUS_SIDE, IVUS_SIDE)) - IVUS_CENTRE
    grey = np.hypot(row, column) * 4 + seed
    grey[31:33, 50] = 250
    return np.rint(np.minimum(grey, 250)).astype(np.uint8)


def ivus_circle(radius, n=2000, centre=IVUS_CENTRE):
    a = 2 * np.pi * np.arange(n) / n
    return np.stack([centre + radius * np.cos(a), centre + radius * np.sin(a)], axis=1) + 1  # x, y


def ivus_box(left, right, up, down):
    """Corners x, y from 1 of a rectangle at these distances from the centre."""
    c = IVUS_CENTRE + 1
    return np.array(
        [[c - left, c - up], [c + right, c - up], [c + right, c + down], [c - left, c + down]]
    )


def ivus_save(path, points, separator=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{x:.4f}{separator}{y:.4f}\n" for x, y in points))


def ivus_frame(part, name, labels="LABELS", lumen=None, media=None, separator=","):
    path = part / "DCM" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ivus_image()).save(path)
    ivus_save(
        part / labels / f"lum_{name}.txt", ivus_circle(10) if lumen is None else lumen, separator
    )
    ivus_save(
        part / labels / f"med_{name}.txt", ivus_circle(18) if media is None else media, separator
    )


# --- Decathlon

MSD_SHAPE = (12, 14, 16)  # x, y, z
MSD_MM = (1.0, 1.5, 2.0)
MSD_LABELS = {"0": "background", "1": "Anterior", "2": "Posterior"}


def msd_affine(axes="RAS"):
    """Voxel to world, for a file whose axes run towards ``axes`` with MSD_MM along R, A, S."""
    matrix = np.zeros((4, 4))
    for column, code in enumerate(axes):
        row = next(at for at, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        matrix[row, column] = MSD_MM[row] * (1 if code in "RAS" else -1)
    matrix[:, 3] = [7, -8, 9, 1]
    return matrix


def msd_volume(number=0):
    """In RAS axes: an image whose value tells the place, a label of two boxes."""
    x, y, z = np.meshgrid(*map(np.arange, MSD_SHAPE), indexing="ij")
    label = np.zeros(MSD_SHAPE, np.uint8)
    label[3:7, 4:10, 5:9] = 1
    label[3:7, 4:10, 9:12] = 2
    return (x + 20 * y + 400 * z + number).astype(np.int16), label


def msd_save(path, array, axes="RAS"):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, msd_affine(axes)), path)


def msd_describe(home, **changes):
    training = [
        {"image": f"./imagesTr/{p.name}", "label": f"./labelsTr/{p.name}"}
        for p in sorted((home / "imagesTr").glob("*.nii.gz"))
    ]
    test = [f"./imagesTs/{p.name}" for p in sorted((home / "imagesTs").glob("*.nii.gz"))]
    text = {"name": "Hippocampus", "modality": {"0": "MRI"}, "labels": MSD_LABELS}
    text |= {"training": training, "test": test} | changes
    text = {k: v for k, v in text.items() if v is not None}
    (home / "dataset.json").write_text(json.dumps(text))


def msd_make(home, prefix="hippocampus", numbers=(1, 3, 8, 9, 11), **changes):
    for number in numbers:
        image, label = msd_volume(number)
        msd_save(home / "imagesTr" / f"{prefix}_{number:03d}.nii.gz", image)
        msd_save(home / "labelsTr" / f"{prefix}_{number:03d}.nii.gz", label)
    msd_save(home / "imagesTs" / f"{prefix}_002.nii.gz", msd_volume(2)[0])
    for name in ("imagesTr", "labelsTr"):
        (home / name / f"._{prefix}_001.nii.gz").write_bytes(b"macOS")
    msd_describe(home, **changes)
    return home


# --- JHU OCT

JHU_ROWS, JHU_COLUMNS, JHU_BSCANS, JHU_HEADER = 60, 16, 3, 288
JHU_ROW_MM, JHU_COLUMN_MM, JHU_SLICE_MM = 0.0039, 0.0058, 0.123
JHU_FIRST = [12.0, 15.0, 18.0, 21.0, 23.0, 27.0, 29.0, 31.0, 34.0]  # of the surfaces, from 1


def jhu_write_vol(
    path, jhu_pixels, *, magic=b"HSF-OCT-103", column_mm=JHU_COLUMN_MM, header=JHU_HEADER, cut=0
):
    """A volume (B, rows, columns) float32 in the raw export's layout, field by field."""
    n, rows, columns = jhu_pixels.shape
    top = magic.ljust(12, b"\0") + struct.pack("<iii", columns, n, rows)
    top += struct.pack("<ddd", column_mm, JHU_SLICE_MM, JHU_ROW_MM)
    top += struct.pack("<ii", 5, 4) + struct.pack("<dd", 0.01, 0.01) + struct.pack("<i", 30)
    top += struct.pack("<d", 0.0) + b"OD\0\0" + struct.pack("<qii", 0, 3, header)
    assert len(top) == 104
    data = top.ljust(2048, b"\0") + bytes(range(20))  # SLO of 4 rows, 5 columns
    for image in jhu_pixels:
        data += b"HSF-BS-103\0\0".ljust(header, b"\0") + image.astype("<f4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data[: len(data) - cut])


def jhu_pixels(seed=0):
    """Light between the surfaces 12 and 34; a value that tells the place; an invalid pixel."""
    image = np.full((JHU_BSCANS, JHU_ROWS, JHU_COLUMNS), 1e-4, np.float32)
    image[:, 11:34] = 0.3 + 0.1 * np.random.default_rng(seed).random((JHU_BSCANS, 23, JHU_COLUMNS))
    image[1, 13, 4] = 0.0625  # shown as 0.5
    image[1, 20, 5] = 3.4e38
    return image


def jhu_cells(slope=0.0, surfaces=9, columns=11):
    """control_pts as published: x, y from 1, some columns empty."""
    out = np.empty((JHU_BSCANS, columns), object)
    for at in np.ndindex(out.shape):
        out[at] = np.zeros((0, 0))
    used = [k for k in range(columns) if k not in (2, 10)][:surfaces]
    for b in range(JHU_BSCANS):
        for k, y in zip(used, JHU_FIRST, strict=False):
            x = np.array([1.0, 6.0, 11.0, 16.0])
            out[b, k] = np.stack([x, y + slope * (x - 1)], axis=1)
    return out


def jhu_subject(root, name, **mat):
    stem = f"{name}_spectralis_macula_v1_s1_R"
    jhu_write_vol(root / "vol" / f"{stem}.vol", jhu_pixels())
    (root / "delineation").mkdir(exist_ok=True)
    savemat(root / "delineation" / f"{stem}.mat", mat or {"control_pts": jhu_cells(), "segmode": 1})


# --- Spectralis export

SPECTRALIS_SHAPE = (40, 24)
SPECTRALIS_SCALE = np.array([0.0147, 0.0, 0.0039])  # column, slice, row


def spectralis_grey(seed=0):
    image = np.random.default_rng(seed).integers(0, 30, SPECTRALIS_SHAPE).astype(np.uint8)
    image[10:31] += 180
    return image


def spectralis_layers():
    """ILM at 10, RNFL at 14 but for columns 3 and 4, BM sloping from 30; stored ILM, BM, RNFL."""
    lines = np.full((3, SPECTRALIS_SHAPE[1]), 10, np.float32)
    lines[1] = 30 + np.arange(SPECTRALIS_SHAPE[1]) / 8
    lines[2] = 14
    lines[2, 3:5] = np.nan
    return {
        "layers": lines,
        "names": np.array(["ILM", "BM", "RNFL"]),
        "scale_mm": SPECTRALIS_SCALE,
        "scan_pattern": np.int64(2),
    }


def spectralis_write(root, scan, number, **changes):
    Image.fromarray(spectralis_grey(number)).save(root / f"{scan}_{number}.png")
    content = {k: v for k, v in {**spectralis_layers(), **changes}.items() if v is not None}
    np.savez(root / f"{scan}_{number}_layers.npz", **content)
    Image.fromarray(np.full((8, 8), 51, np.uint8)).save(root / f"{scan}_slo.png")


# --- Sunnybrook

# number → slice 2, phases 7 (systole) and 18 (diastole) of 20
SUNNYBROOK_NUMBERS = (48, 59)


def sunnybrook_name(patient, number):
    return f"{patient}-IM-0001-{number:04d}.dcm.png"


def sunnybrook_save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def sunnybrook_rgb(array):
    return np.repeat(array[..., None], 3, axis=2)


def sunnybrook_pair(number, size=32):
    image = np.random.default_rng(number).integers(0, 200, (size, size)).astype(np.uint8)
    label = np.zeros((size, size), np.uint8)
    label[10:20, 14:22] = 255
    return image, label


def sunnybrook_write(part, patient, number, size=32, sub="Sunnybrook_Part1"):
    image, label = sunnybrook_pair(number, size)
    sunnybrook_save(part / "Images" / sub / sunnybrook_name(patient, number), sunnybrook_rgb(image))
    sunnybrook_save(part / "Labels" / sub / sunnybrook_name(patient, number), sunnybrook_rgb(label))


# --- For the conformance suite


@dataclass(frozen=True)
class Layout:
    """What the suite has to know of a reader.

    Attributes:
        reader: its class.
        build: writes the layout into a folder.
        n: number of samples in it.
        files: one case's files by kind; each is needed.
        inside: a folder of the layout that a user may name by mistake.
        texts: text files, which may begin with a byte order mark.
        pictures: those of ``files`` that are pictures (PNG).
        volumes: whether image and label are NIfTI files.
        value: a label that is not 0, as stored.
    """

    reader: type
    build: Callable[[Path], None]
    n: int
    files: dict[str, str]
    inside: str = ""
    texts: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    volumes: bool = False
    value: int = 1


def _acdc(root):
    for number in (1, 2, 5):
        acdc_patient(root / "training", number)


def _camus(root):
    for number in (1, 2):
        camus_patient(root / "database_nifti", number)


def _duke(root):
    duke_write(root / "AMD1", "AMD", 1001)
    duke_write(root / "Control1", "Control", 1001)


def _ivus(root):
    training, test = (root / f"{p}_Set/Data_set_B" for p in ("Training", "Test"))
    contours = {"lumen": ivus_circle(10, 60), "media": ivus_circle(18, 60)}
    ivus_frame(training, "frame_01_0001_003", **contours)
    ivus_frame(test, "frame_02_0005_003", labels="LABELS_obs1", **contours)


def _msd(root):
    msd_make(root / "Task04_Hippocampus", numbers=(1, 3))


def _jhu(root):
    for name in ("hc01", "hc09", "ms02"):
        jhu_subject(root, name)


def _spectralis(root):
    root.mkdir(parents=True, exist_ok=True)
    spectralis_write(root, "Able_7", 0)
    spectralis_write(root, "Baker_1", 0)


def _sunnybrook(root):
    for patient in ("SC-HF-I-01", "SC-HYP-12"):
        for number in SUNNYBROOK_NUMBERS:
            sunnybrook_write(root / "Train", patient, number)


_A, _C = "training/patient002/patient002_frame01", "database_nifti/patient0002/patient0002_2CH_ES"
_I, _J = "Training_Set/Data_set_B", "hc01_spectralis_macula_v1_s1_R"
_S = f"Sunnybrook_Part1/{sunnybrook_name('SC-HF-I-01', 48)}"
LAYOUTS = {
    "acdc": Layout(
        ACDC,
        _acdc,
        18,
        {
            "image": f"{_A}.nii.gz",
            "label": f"{_A}_gt.nii.gz",
            "info": "training/patient002/Info.cfg",
        },
        inside="training/patient002",
        texts=("training/patient002/Info.cfg",),
        volumes=True,
    ),
    "camus": Layout(
        CAMUS,
        _camus,
        4,
        {"image": f"{_C}.nii.gz", "label": f"{_C}_gt.nii.gz"},
        inside="database_nifti/patient0002",
        texts=("database_nifti/patient0002/Info_2CH.cfg",),
        volumes=True,
    ),
    "duke": Layout(DukeAMD, _duke, 6, {"volume": f"AMD1/{DUKE_STEM.format('AMD', 1001)}"}),
    "ivus": Layout(
        IVUS2011,
        _ivus,
        2,
        {
            "image": f"{_I}/DCM/frame_01_0001_003.png",
            "lumen": f"{_I}/LABELS/lum_frame_01_0001_003.txt",
            "media": f"{_I}/LABELS/med_frame_01_0001_003.txt",
        },
        texts=(f"{_I}/LABELS/lum_frame_01_0001_003.txt",),
        pictures=("image",),
    ),
    "msd": Layout(
        MSD,
        _msd,
        2,
        {
            "image": "Task04_Hippocampus/imagesTr/hippocampus_003.nii.gz",
            "label": "Task04_Hippocampus/labelsTr/hippocampus_003.nii.gz",
        },
        inside="Task04_Hippocampus/imagesTr",
        texts=("Task04_Hippocampus/dataset.json",),
        volumes=True,
    ),
    "jhu": Layout(
        JHUOCT, _jhu, 9, {"volume": f"vol/{_J}.vol", "delineation": f"delineation/{_J}.mat"}
    ),
    "spectralis": Layout(
        SpectralisExport,
        _spectralis,
        2,
        {"image": "Able_7_0.png", "layers": "Able_7_0_layers.npz"},
        pictures=("image",),
    ),
    "sunnybrook": Layout(
        SunnybrookPNG,
        _sunnybrook,
        4,
        {"image": f"Train/Images/{_S}", "label": f"Train/Labels/{_S}"},
        inside="Train/Images",
        pictures=("image", "label"),
        value=255,
    ),
}
