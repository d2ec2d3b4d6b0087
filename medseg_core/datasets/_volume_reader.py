"""The base of readers of volumes: samples, the box around an object, the way back to a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg_core import rng
from medseg_core.datasets import _crops, _nifti, _pairs
from medseg_core.datasets._grids import checked_index, checked_indices, on_grid
from medseg_core.datasets._layout import Case, Reader
from medseg_core.stacking import stack


class VolumeReader(Reader):
    """A data set of volumes with labels, turned to one orientation whatever the files' own.

    Slices run upwards (from the feet), rows from front to back, columns from the patient's right to
    the left, as a radiologist looks at them; `write` turns them back.

    Attributes:
        unit: of the intensities, "HU" or "raw".
        binary: True adds ``mask``: all labels > 0; labels such as (1,): those merged.
        channel: of images with one more axis.
    """

    ndim, axes, noun, unit = 3, "LPS", "volumes", "raw"
    binary: bool | Sequence[int] = False
    channel: int | None = None

    def read(self, case: Case) -> _pairs.Pair:
        kind = {"ndim": self.ndim, "axes": self.axes, "channel": self.channel}
        return _pairs.read_pair(**case.files, labels=self.labels, **kind)

    def sample(self, case: Case, at: int) -> dict:
        pair = self.opened(case)
        label = torch.from_numpy(pair.label)[None]  # (1, D, H, W)
        mask = self._object(label)
        sample = {
            "image": torch.from_numpy(pair.image)[None, None],  # (1, 1, D, H, W)
            "label": label,
            "unit": self.unit,
            "boxes": _crops.one_box(mask[0]),
            "spacing": pair.spacing,
            "affine": torch.from_numpy(case.facts["head"].affine)[None],
            "group": torch.tensor([case.facts["group"]]),
            "id": [case.id],
        }
        return sample if self.binary is False else sample | {"mask": mask[:, None]}

    def on_grid(self, sample: dict, size: Any, spacing: Any) -> dict:
        out = on_grid(sample, size, spacing, fill=float(sample["image"].min()))
        whole = out["mask"][0, 0] if "mask" in out else out["label"][0] > 0
        return out if size is spacing is None else out | {"boxes": _crops.one_box(whole)}

    def crop(
        self,
        index: int,
        *,
        size: int | Sequence[int] = 40,
        margin: float | tuple[float, float] = (0.0, 0.15),
        seed: int = 0,
    ) -> dict:
        """What an interactive method sees of a volume: the object's box, relaxed, as a cube.

        Args:
            index: of the volume.
            size: voxels of the cube; each axis of the box is stretched to it.
            margin: by which each side of the box moves outwards, as a share of the box's length;
                (lo, hi): drawn for each side from (seed, index).
            seed: of those draws.

        Returns:
            ``image (1,C,*size)`` in [0, 1], ``mask (1,1,*size)`` bool, ``boxes (1,6)`` in the crop,
            ``spacing`` of the crop in mm, ``field (1,6)`` the voxels cut out of the volume,
            ``group``, ``id``. `restore` is the way back.

        Raises:
            ValueError: the volume does not hold the object.
        """
        sample, index = self[index], checked_index(index, len(self))
        mask = sample.get("mask", (sample["label"] > 0)[:, None])
        if not mask.any():
            raise ValueError(
                f"{sample['id'][0]} holds nothing of the object (binary={self.binary})"
            )
        gen, shape = rng.numpy_rng(seed, index, "msd.margin"), mask.shape[2:]
        field = _crops.relaxed_box(sample["boxes"][0].tolist(), shape, margin, gen)
        where = (field, sample["spacing"], size)
        out = _crops.crop(sample["image"], mask, *where, unit=sample["unit"])
        return {**out, "group": sample["group"], "id": sample["id"]}

    def crops(self, indices: Iterable[int] | None = None, **options: Any) -> dict:
        """`crop` of several volumes, stacked: ``image (N,C,*size)`` and so on.

        Every crop has its own voxel size: ``spacings (N,3)`` float64 takes the place of
        ``spacing``.
        """
        samples = [self.crop(i, **options) for i in checked_indices(indices, len(self))]
        for sample in samples:
            sample["spacings"] = torch.tensor([sample.pop("spacing")], dtype=torch.float64)
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
        shape, spacing = _pairs.grid(self._head(index), self.axes)
        return _crops.uncrop(label, torch.as_tensor(field).reshape(6).tolist(), shape, spacing)

    def write(self, label: Tensor, index: int, path: str | Path) -> Path:
        """Save a label map as NIfTI, on the grid and with the affine of the volume's own file.

        Args:
            label: ``(1,D,H,W)`` whole numbers 0 … 255 or bool, on the grid of ``reader[index]``.
            index: of the volume.
            path: with the suffix ``.nii.gz`` or ``.nii``.

        Raises:
            ValueError: another shape, other values, another suffix.
        """
        head, path = self._head(index), Path(path)
        if tuple(label.shape) != (1, *_pairs.grid(head, self.axes)[0]):
            raise ValueError(
                f"label must have the shape of reader[{index}]['label'], got {tuple(label.shape)}"
            )
        if not path.name.endswith((".nii.gz", ".nii")):
            raise ValueError(f"path must end in .nii.gz or .nii, got {path.name}")
        values = _pairs.whole(label[0].cpu().numpy(), range(256), "label").astype(np.uint8)
        _nifti.write(path, _pairs.from_axes(values.T, head.affine, self.axes), head.path)
        return path

    def split(self, parts: Sequence[int], seed: int = 0) -> list[np.ndarray]:
        """Indices of the parts of a random split, e.g. ``(4, 6)`` volumes; some may be left over.

        A smaller first part is contained in a larger one of the same seed.
        """
        if not parts or min(parts) < 1 or sum(parts) > len(self):
            raise ValueError(f"parts must be numbers >= 1 of {len(self)} volumes, got {parts}")
        order = rng.numpy_rng(seed, 0, "msd.split").permutation(len(self))
        return [np.sort(part) for part in np.split(order, np.cumsum(parts))[: len(parts)]]

    def _object(self, label: Tensor) -> Tensor:
        if isinstance(self.binary, bool):
            return label > 0
        return torch.isin(label, torch.tensor(list(self.binary)))

    def _head(self, index: int) -> _pairs.Header:
        return self.index[checked_index(index, len(self))][0].facts["head"]
