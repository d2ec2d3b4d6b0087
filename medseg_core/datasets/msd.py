"""Medical Segmentation Decathlon: ten tasks in one layout, CT and MR (Simpson et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from medseg_core import checks, rng
from medseg_core.datasets import box_crops, nifti
from medseg_core.datasets import msd_files as files
from medseg_core.datasets.msd_files import Case, Found
from medseg_core.datasets.msd_tasks import TASKS
from medseg_core.datasets.preprocess import crop_or_pad, resample, resample_labels
from medseg_core.datasets.report import Report, content_line
from medseg_core.datasets.samples import checked_index, checked_indices
from medseg_core.datasets.splits import group_split
from medseg_core.stacking import stack

PARTS = ("training", "test")
LAYOUT = f"""
ROOT/[Task04_Hippocampus/]
    dataset.json       modality {{"0": "MRI"}}, labels {{"0": "background", …}} and
                       training [{{"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}}]
    imagesTr/, labelsTr/, imagesTs/    x.nii.gz, 3-D, or 4-D with the modalities last
or, without dataset.json: imagesTr/ and labelsTr/, or images/ and labels/, with equal names.
Tasks: {", ".join(task.name for task in TASKS)}
"""
WHERE = "http://medicaldecathlon.com"
LICENCE = "CC BY-SA 4.0; cite Simpson et al., arXiv:1902.09063"


class MSD:
    """Read a task of the Medical Segmentation Decathlon from the folder where it was unpacked.

    One sample is one volume. ``group`` is its number: the names say nothing of persons, of whom a
    task may hold two volumes (the left and the right hippocampus). Axes are turned, whatever the
    file's own: slices run upwards (from the feet), rows from front to back, columns from the
    patient's right to the left, as a radiologist looks at them; `write` turns them back. Taught in
    the chapter `bifseg-interactive`.

    Args:
        root: the folder of a task, or one that holds several.
        task: which of several, or which table of labels where dataset.json lacks:
            "Task04_Hippocampus", "Hippocampus" or 4.
        part: "training" or "test" (images without labels).
        binary: True adds ``mask``: all labels > 0 (liver with its tumours, both zones of the
            prostate, both parts of the hippocampus); labels such as (1,): those merged.
        channel: of 4-D images: a number, a name of dataset.json ("T2") or "all".

    ``reader[i]`` gives ``image (1,C,D,H,W)`` float32 in the file's units, ``unit`` ("HU", or "raw"
    for MR), ``label (1,D,H,W)`` int64, ``mask (1,1,D,H,W)`` bool, ``boxes (1,6)`` the tight box of
    the mask, or of all labels > 0 (zeros if empty), ``spacing`` mm per (slice, row, column),
    ``affine (1,4,4)`` of the file, ``group (1,)`` and ``id``.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        task: int | str | None = None,
        part: str = "training",
        binary: bool | Sequence[int] = False,
        channel: int | str | None = None,
    ) -> None:
        self.root, self.task = Path(root).expanduser(), task
        self.part = checks.choice(part, "part", PARTS)
        self.binary, self.channel = binary, channel
        self._index: Found | None = None
        self._open: tuple[int, dict] | None = None  # the sample read last

    def check(self, *, voxels: bool = False) -> Report:
        """Say what is there and what is not; never raises (`Report.require` does).

        Args:
            voxels: read every volume too, which finds damaged files and wrong label values early.
        """
        return self._scan(voxels)[1]

    def __len__(self) -> int:
        return len(self._found().cases)

    @property
    def labels(self) -> dict[int, str]:
        """What each value of ``label`` means."""
        return dict(self._found().labels)

    @property
    def ids(self) -> list[str]:
        """The names of the volumes."""
        return [case.id for case in self._found().cases]

    def __getitem__(self, index: int) -> dict:
        found = self._found()
        index = checked_index(index, len(self))
        if self._open is None or self._open[0] != index:
            self._open = (index, self._sample(found, index))
        return dict(self._open[1])

    def load(
        self,
        indices: Iterable[int] | None = None,
        *,
        size: int | Sequence[int] | None = None,
        spacing: float | Sequence[float] | None = None,
    ) -> dict:
        """Volumes on one grid about their centres, stacked; intensities stay the file's.

        Args:
            indices: which volumes, in this order; None: all.
            size: voxels, or (slices, rows, columns); beyond a volume lies its least value.
            spacing: mm, or one per axis; None keeps each volume's own, which then must agree.
        """
        wanted = checked_indices(range(len(self)) if indices is None else indices, len(self))
        return stack([_on_grid(self[i], _triple(size), _triple(spacing)) for i in wanted])

    def crop(
        self,
        index: int,
        *,
        size: int | Sequence[int] = 40,
        margin: float | tuple[float, float] = (0.0, 0.15),
        seed: int = 0,
        **normalise: tuple[float, float],
    ) -> dict:
        """What an interactive method sees of a volume: the object's box, relaxed, as a cube.

        Args:
            index: of the volume.
            size: voxels of the cube; each axis of the box is stretched to it.
            margin: by which each side of the box moves outwards, as a share of the box's length;
                (lo, hi): drawn for each side from (seed, index).
            seed: of those draws.
            normalise: ``hu_window``, ``percentiles`` of `box_crops.crop`.

        Returns:
            ``image (1,C,*size)`` in [0, 1], ``mask (1,1,*size)`` bool, ``boxes (1,6)`` in the crop,
            ``spacing`` of the crop in mm, ``field (1,6)`` the voxels cut out of the volume,
            ``group``, ``id``. `restore` is the way back.

        Raises:
            ValueError: the volume does not hold the object.
        """
        sample, index = self[index], checked_index(index, len(self))
        if "label" not in sample:
            raise ValueError("a crop needs the object's box: part='test' has no labels")
        mask = sample.get("mask", (sample["label"] > 0)[:, None])
        box = sample["boxes"][0].tolist()
        if not mask.any():
            raise ValueError(
                f"{sample['id'][0]} holds nothing of the object (binary={self.binary})"
            )
        gen = rng.numpy_rng(seed, index, "msd.margin")
        field = box_crops.relaxed_box(box, mask.shape[2:], margin, gen)
        options = {"unit": sample["unit"], **normalise}
        out = box_crops.crop(sample["image"], mask, field, sample["spacing"], size, **options)
        return {**out, "group": sample["group"], "id": sample["id"]}

    def crops(self, indices: Iterable[int] | None = None, **options) -> dict:
        """`crop` of several volumes, stacked: ``image (N,C,*size)`` and so on.

        Every crop has its own voxel size: ``spacings (N,3)`` float64 takes the place of
        ``spacing``.
        """
        wanted = checked_indices(range(len(self)) if indices is None else indices, len(self))
        samples = []
        for i in wanted:
            sample = self.crop(i, **options)
            sample["spacings"] = torch.tensor([sample.pop("spacing")], dtype=torch.float64)
            samples.append(sample)
        return stack(samples)

    def restore(self, label: Tensor, index: int, field: Tensor | Sequence[int]) -> Tensor:
        """Take a label map from the grid of `crop` back to that of ``reader[index]``.

        Args:
            label: ``(1,*size)`` int64 or bool, e.g. a prediction.
            index: of the volume.
            field: what `crop` gave, ``(1,6)`` or its six numbers.

        Returns:
            ``(1,D,H,W)`` int64, 0 outside the crop.
        """
        image = nifti.header(self._found().cases[checked_index(index, len(self))].image)
        shape = nifti.to_axes(np.empty(image.shape[:3], bool), image.affine).shape
        field = torch.as_tensor(field).reshape(6).tolist()
        return box_crops.uncrop(label, field, shape, nifti.spacing(image))

    def write(self, label: Tensor, index: int, path: str | Path) -> Path:
        """Save a label map as NIfTI with the axes and affine of the volume's own file.

        Args:
            label: ``(1,D,H,W)`` integers below 256 or bool, on the grid of ``reader[index]``.
            index: of the volume.
            path: with the suffix ``.nii.gz`` or ``.nii``.
        """
        image = nifti.header(self._found().cases[checked_index(index, len(self))].image)
        array = nifti.from_axes(label[0].cpu().numpy().astype(np.uint8), image.affine)
        if label.shape[0] != 1 or array.shape != image.shape[:3]:
            raise ValueError(
                f"label must have the shape of reader[{index}]['label'], got {tuple(label.shape)}"
            )
        nib.save(nib.Nifti1Image(array, image.affine), path)
        return Path(path)

    def split(self, parts: Sequence[float] | Sequence[int], seed: int = 0) -> list[np.ndarray]:
        """Indices of the parts of a random split, e.g. ``(0.6, 0.2, 0.2)`` or ``(4, 6)`` volumes.

        Shares sum to 1; numbers may leave volumes over, and a smaller first part is contained in a
        larger one of the same seed.
        """
        if not all(isinstance(p, int | np.integer) for p in parts):
            return group_split(range(len(self)), parts, seed)
        if not parts or min(parts) < 1 or sum(parts) > len(self):
            raise ValueError(f"parts must be numbers >= 1 of {len(self)} volumes, got {parts}")
        order = rng.numpy_rng(seed, 0, "msd.split").permutation(len(self))
        return [np.sort(part) for part in np.split(order, np.cumsum(parts))[: len(parts)]]

    def _sample(self, found: Found, index: int) -> dict:
        case = found.cases[index]
        header = nifti.header(case.image)
        image, label = files.read(
            case, found.labels, files.channel_number(self.channel, found.channels)
        )
        sample = {
            "image": torch.from_numpy(image)[None],  # (1, C, D, H, W)
            "unit": "HU" if "CT" in found.channels else "raw",
            "spacing": nifti.spacing(header),
            "affine": torch.from_numpy(header.affine.astype(np.float64))[None],
            "group": torch.tensor([files.number(found.cases, index)]),
            "id": [case.id],
        }
        if label is not None:
            sample["label"] = torch.from_numpy(label)[None]
            mask = self._object(sample["label"])
            sample["boxes"] = box_crops.one_box(mask[0])
            if self.binary is not False:
                sample["mask"] = mask[:, None]
        return sample

    def _object(self, label: Tensor) -> Tensor:
        if isinstance(self.binary, bool):
            return label > 0
        return torch.isin(label, torch.tensor(list(self.binary)))

    def _found(self) -> Found:
        if self._index is None:
            found, report = self._scan()
            report.require()
            self._index = found
        return self._index

    def _scan(self, voxels: bool = False) -> tuple[Found | None, Report]:
        missing: list[str] = []
        lines: list[str] = []
        found = files.find(self.root, self.task, self.part, missing)
        if found:
            missing += files.option_problems(found, self.binary, self.channel)
            if not missing:
                for case in found.cases:
                    missing += files.header_problems(case, found.channels, self.channel is not None)
            if voxels and not missing:
                missing += [text for case in found.cases if (text := self._damage(found, case))]
            lines = found.lines(self.part)
        elif self.root.is_dir() and any(self.root.iterdir()):
            lines = [content_line(self.root)]
        hint = "" if found else files.hint(self.root)
        name = "Medical Segmentation Decathlon"
        return found, Report(name, self.root, LAYOUT, WHERE, LICENCE, lines, missing, hint)

    def _damage(self, found: Found, case: Case) -> str:
        try:
            files.read(case, found.labels, files.channel_number(self.channel, found.channels))
        except ValueError as error:
            return str(error)
        return ""


def _triple(value: float | Sequence[float] | None) -> tuple | None:
    if value is None or not isinstance(value, int | float):
        return value and tuple(value)
    return (value,) * 3


def _on_grid(sample: dict, size: tuple | None, spacing: tuple | None) -> dict:
    """Bring a volume to another voxel size and extent about its centre."""
    if size is None and spacing is None:
        return sample
    image, old = sample["image"], sample["spacing"]
    least = float(image.min())
    if spacing is None:
        changed = {"image": crop_or_pad(image, size, value=least)}
    else:
        spacing = tuple(float(s) for s in spacing)
        changed = {
            "image": resample(image, old, spacing, size=size, fill=least),
            "spacing": spacing,
        }
    for name in ("label", "mask"):
        if name in sample and spacing is None:
            changed[name] = crop_or_pad(sample[name], size)
        elif name in sample:
            truth = resample_labels(sample[name], old, spacing, size=size)
            changed[name] = truth.to(sample[name].dtype)
    if "label" in sample:
        whole = changed["mask"][0, 0] if "mask" in changed else changed["label"][0] > 0
        changed["boxes"] = box_crops.one_box(whole)
    return {**sample, **changed}
