"""The base of all readers: a declared layout; search, check, report, refusals and samples.

A reader declares where its files are, which of them belong together, what their labels mean, and
where the data set comes from; it defines `sample`, and of the rest that in which it differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg_core import checks
from medseg_core.datasets._grids import checked_index, checked_indices, on_grid, per_axis
from medseg_core.datasets._pairs import Pair, check_pair, read_pair
from medseg_core.datasets._report import Report, content_line, folder_problem
from medseg_core.datasets._search import Case, Layout
from medseg_core.datasets.splits import group_split
from medseg_core.stacking import stack

__all__ = ["Case", "Reader"]


class Reader:
    """A public data set in the folder that a user names.

    Attributes:
        name, layout, where, licence: what the report says of the data set.
        patterns, folders, strays, example: as in `_search.Layout`.
        unlabelled_are_left_out: as there.
        choices: fields of the patterns that a user may choose by, and their values.
        labels: what each value of ``label`` means.
        ndim, axes: of image and label, as in `_pairs.read_pair`.
        turned: a view of flat arrays (row, column) that puts the right side on top.
        values: the least and the greatest value that an image may have.
        centre_of: the class whose centre is a sample's ``centre``.
        noun: what the cases are called.
        nothing: said when there are cases without a single sample.
        read_on_check: how many cases `check` reads even without being asked to; None: all.

    Args:
        root: the folder.
        only: the ``choices`` made; None takes all there is.
    """

    name = layout = where = licence = example = strays = folders = ""
    patterns: Mapping[str, str] = {}
    choices: Mapping[str, tuple[str, ...]] = {}
    unlabelled_are_left_out = False
    labels: Mapping[int, str] = {}
    ndim, axes, turned, values, centre_of = 2, None, None, None, None
    noun, nothing = "images", "no sample"
    read_on_check: int | None = 0

    def __init__(self, root: str | Path, **only: str | None) -> None:
        self.root = Path(root).expanduser()
        self.only = {name: value for name, value in only.items() if value is not None}
        unknown = only.keys() - self.choices
        if unknown:
            raise TypeError(f"{type(self).__name__} has no option {', '.join(sorted(unknown))}")
        for name, value in self.only.items():
            checks.choice(value, name, self.choices[name])
        self.left_out: list[str] = []  # patients without labels
        self._index: list[tuple[Case, int]] | None = None
        self._open: tuple[Case, Any] | None = None  # the case read last

    # --- What a reader says of its data set -----------------------------------------------------

    def key(self, fields: dict[str, str]) -> str:
        """The ``id`` of the case that a file belongs to."""
        return fields["id"]

    def part_of(self, path: str, fields: dict[str, str]) -> str:
        """The part that a path lies in; ValueError where it has to say and does not."""
        here = self.root.resolve().name
        return fields.get("part") or (here if here in self.choices.get("part", ()) else "")

    def expand(self, case: Case) -> Iterable[Case | str]:
        """The cases in what the patterns found and, as text, what is wrong with it."""
        yield case

    def header(self, case: Case) -> None:
        """Look at what can be seen without reading pixels; ValueError says what is wrong."""
        if "label" in case.files:
            head, turned = check_pair(**case.files, ndim=self.ndim)
            case.facts |= {"head": head, "turned": turned}

    def read(self, case: Case) -> Pair | Any:
        """A case's files, for `sample`; ValueError with a file's name."""
        if "label" not in case.files:
            return None
        pair = read_pair(**case.files, labels=self.labels, ndim=self.ndim, axes=self.axes)
        if self.values is not None:
            checks.between(pair.image, case.files["image"].name, *self.values)
        return pair if self.turned is None else pair.turned(self.turned)

    def verify(self, case: Case) -> None:
        """What a check of pixels does with a case; ValueError says what is wrong."""
        self.read(case)

    def places(self, case: Case) -> Iterable[int]:
        """The samples in a case, e.g. the slices of a volume."""
        return case.facts.get("places", (0,))

    def sample(self, case: Case, at: int) -> dict:
        """One sample, N = 1, with the phantoms' keys."""
        raise NotImplementedError

    def on_grid(self, sample: dict, size: Any, spacing: Any) -> dict:
        """A sample on the grid that `load` was asked for."""
        return on_grid(sample, size, spacing, centre_of=self.centre_of)

    def alike(self, samples: list[dict]) -> list[dict]:
        """Samples before they are stacked, for what may differ from one to the next."""
        return samples

    def said(self, cases: Sequence[Case]) -> list[str]:
        """Lines of the report on what was found, beside the numbers of cases."""
        return []

    # --- What all readers do --------------------------------------------------------------------

    def check(self, *, voxels: bool = False) -> Report:
        """Say what is there and what is not; never raises (`Report.require` does).

        Args:
            voxels: read every file too, which finds damaged ones and wrong values early.
        """
        return self._scan(voxels)[1]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> dict:
        return self.sample(*self.index[checked_index(index, len(self))])

    def load(
        self,
        indices: Iterable[int] | None = None,
        *,
        size: int | Sequence[int | None] | None = None,
        spacing: float | Sequence[float] | None = None,
        **options: Any,
    ) -> dict:
        """Samples on one grid about their centres, stacked like a phantom.

        Args:
            indices: which samples, in this order; None: all.
            size: pixels, or one number per axis; None keeps each field of view.
            spacing: in the unit of the samples' own, or one number per axis; None keeps each
                sample's, which then must agree.
            options: of the reader's `on_grid`.
        """
        wanted = checked_indices(indices, len(self))
        made = {}
        for i in sorted(set(wanted)):  # in the order of the files, so that each is read once
            made[i] = self.on_grid(self.sample(*self.index[i]), size, spacing, **options)
        return stack(self.alike([made[i] for i in wanted]))

    def fit_spacing(self, size: int | Sequence[int]) -> float:
        """The least mm per pixel, alike for rows and columns, with which every image fits ``size``.

        All images of the reader count, so that parts of a split get the same grid.
        """
        heads = [case.facts["head"] for case, _ in self.index]
        mm = np.array([np.multiply(h.shape, h.spacing)[::-1] for h in heads])  # (N, 2)
        if self.turned is not None and self.turned(np.empty((1, 2))).shape == (2, 1):
            mm = mm[:, ::-1]
        return float((mm / per_axis(size, "size")).max())

    def split(self, fractions: Sequence[float], seed: int = 0) -> Any:
        """Indices of the parts of a random split by patient, e.g. ``(0.6, 0.2, 0.2)``."""
        return group_split([case.fields["patient"] for case, _ in self.index], fractions, seed)

    @property
    def index(self) -> list[tuple[Case, int]]:
        """Every sample as its case and its place there; a folder that is wrong is refused."""
        if self._index is None:
            cases, report = self._scan()
            report.require()
            self._index = [(case, at) for case in cases for at in self.places(case)]
        if not self._index:
            raise ValueError(f"{self.root}: {self.nothing}")
        return self._index

    def opened(self, case: Case) -> Pair | Any:
        """What `read` gives; that of the case read last is kept."""
        if self._open is None or self._open[0] is not case:
            self._open = (case, self.read(case))
        return self._open[1]

    def parted(self, part_of: Callable[[Case], int | None], names: Sequence[str]) -> tuple:
        """Indices of the samples in each part, by the number of the part that a case is in.

        Raises:
            ValueError: a part would be empty.
        """
        where = [part_of(case) for case, _ in self.index]
        parts = tuple([i for i, at in enumerate(where) if at == n] for n in range(len(names)))
        empty = [name for name, part in zip(names, parts, strict=True) if not part]
        if empty:
            ids = list(dict.fromkeys(case.id for case, _ in self.index))
            raise ValueError(f"the split leaves nothing for {', '.join(empty)}; there are {ids}")
        return parts

    def find(self) -> tuple[list[Case], list[str], str]:
        """The cases below the folder, what is missing, and the folder that was probably meant."""
        layout = Layout(
            self.patterns,
            self.example,
            self.key,
            self.part_of,
            only=self.only,
            folders=self.folders,
            strays=self.strays,
            unlabelled_are_left_out=self.unlabelled_are_left_out,
        )
        self.left_out.clear()
        groups, missing, hint = layout.groups(self.root, self.left_out)
        cases: list[Case] = []
        for group in groups:
            try:
                for found in self.expand(group):
                    (missing if isinstance(found, str) else cases).append(found)
            except ValueError as error:
                missing.append(f"{group.id}: {error}")
        if not cases and not missing:
            missing.append(self.nothing)
        return cases, missing, hint

    def _scan(self, voxels: bool = False) -> tuple[list[Case], Report]:
        problem = folder_problem(self.root)
        cases, missing, hint = ([], [problem], "") if problem else self.find()
        good = [case for case in cases if _fits(self.header, case, missing)]
        for case in good if voxels else good[: self.read_on_check]:
            _fits(self.verify, case, missing)
        found = [] if problem else self._found(cases) or [content_line(self.root)]
        text = (self.layout, self.where, self.licence, found, missing, hint)
        return cases, Report(self.name, self.root, *text)

    def _found(self, cases: list[Case]) -> list[str]:
        lines = []
        for part in dict.fromkeys(case.part for case in cases):
            mine = [case for case in cases if case.part == part]
            people = {case.fields["patient"] for case in mine if "patient" in case.fields}
            folders = {file.parent for case in mine for file in case.files.values()}
            text = f"{part}: " * bool(part) + f"{len(mine)} {self.noun}"
            text += f" of {len(people)} patients" * bool(people)
            if len(folders) <= 4 and folders != {self.root}:
                text += "; " + ", ".join(sorted(str(f.relative_to(self.root)) for f in folders))
            lines.append(text)
        turned = [case.id for case in cases if case.facts.get("turned")]
        if turned:
            lines.append(f"labels turned to their images' axes, by their affines: {len(turned)}")
        if self.left_out:
            lines.append(f"patients without labels, left out: {', '.join(self.left_out)}")
        return [*lines, *self.said(cases)] if cases else []


def _fits(look: Callable[[Case], Any], case: Case, missing: list[str]) -> bool:
    try:
        look(case)
    except (ValueError, ImportError) as error:
        missing.append(str(error))
        return False
    return True
