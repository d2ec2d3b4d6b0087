"""Files in a user's folder by the patterns of a layout: which belong together, what is odd."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEPTH = 6  # folders below the user's that are searched


@dataclass
class Case:
    """Files that belong together: an image with its label, a volume, a patient's folder.

    Attributes:
        id: unique in its part.
        part: of the data set, as published; "" where it has none.
        fields: the named groups of the pattern that matched first.
        files: by kind, as in the layout's patterns.
        facts: what a reader adds, e.g. from headers.
    """

    id: str
    part: str
    fields: dict[str, str]
    files: dict[str, Path]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The number at the end of the patient's name, or of the id."""
        return int(re.search(r"\d+$", self.fields.get("patient", self.id))[0])

    def pair(
        self, image: str, label: str, suffixes: Sequence[str], **facts: Any
    ) -> Iterator[Case | str]:
        """Image and label in a patient's folder, by their names without suffix, or what is absent.

        Args:
            image, label: the names.
            suffixes: of which the first that is there counts.
            facts: of the new case.
        """
        folder, files = self.files["folder"], {}
        for kind, stem in (("image", image), ("label", label)):
            there = [f for s in suffixes if (f := folder / f"{stem}{s}").is_file()]
            if there:
                files[kind] = there[0]
            else:
                yield f"{self.id}: {stem}{suffixes[0]} is missing"
        if len(files) == 2:
            yield Case(image, self.part, self.fields, files, facts)


@dataclass(frozen=True)
class Layout:
    """How the paths of a data set look.

    Attributes:
        patterns: kind of file → regular expression of its path below the folder, where a folder's
            own path ends with "/". The group ``id`` says which files belong together; ``part`` and
            ``patient`` are known, others are the reader's own.
        example: of a name, for messages.
        key: the ``id`` from a path's groups.
        part_of: the part from a path and its groups; ValueError where it should say and does not.
        only: the values of groups that are wanted; others are passed over.
        folders: expression of the folders each of which has to hold a file that fits.
        strays: expression of the paths that have to fit one of the patterns.
        unlabelled_are_left_out: patients without any "label" are a test set's, and no fault.
    """

    patterns: Mapping[str, str]
    example: str
    key: Callable[[dict[str, str]], str]
    part_of: Callable[[str, dict[str, str]], str]
    only: Mapping[str, str]
    folders: str
    strays: str
    unlabelled_are_left_out: bool

    def kind(self, path: str) -> tuple[str, dict[str, str]]:
        """Which pattern a path fits, and its groups; "" if none."""
        for kind, pattern in self.patterns.items():
            match = re.fullmatch(pattern, path)
            if match:
                return kind, {k: v for k, v in match.groupdict().items() if v is not None}
        return "", {}

    def groups(self, root: Path, left_out: list[str]) -> tuple[list[Case], list[str], str]:
        """Complete groups of files, what is missing, and which folder was probably meant.

        Args:
            root: the user's folder.
            left_out: takes up the patients without labels that are passed over.
        """
        paths = list(walk(root))
        groups, missing, elsewhere = self._matches(root, paths)
        labelled = {_person(group) for group in groups if "label" in group.files}
        complete = []
        for group in groups:
            absent = [kind for kind in self.patterns if kind not in group.files]
            if not absent:
                complete.append(group)
            elif not self.unlabelled_are_left_out or _person(group) in labelled:
                named = f"{group.part}: {group.id}" if group.part else group.id
                missing.append(f"{named} has no {' and no '.join(absent)}")
            elif _person(group) not in left_out:
                left_out.append(_person(group))
        missing += [*self._twice(groups), *self._empty(paths)]
        if complete or missing:
            return complete, missing, ""
        if left_out:
            return [], [f"no patient has labels (there is {left_out[0]} without)"], ""
        if elsewhere:
            name, there = elsewhere
            there = f"there is {there}" if there else "the files lie in none: leave it None"
            return [], [f"{name} {self.only[name]!r} is not there ({there})"], ""
        return [], [f"nothing here is named like {self.example}"], self._meant(root, paths)

    def _matches(
        self, root: Path, paths: list[str]
    ) -> tuple[list[Case], list[str], tuple[str, str] | None]:
        """Files in groups of one id, what is odd, and something that was not asked for."""
        groups: dict[tuple[str, str], Case] = {}
        missing: list[str] = []
        elsewhere = None
        for path in paths:
            kind, fields = self.kind(path)
            if not kind:
                if self.strays and re.fullmatch(self.strays, path):
                    missing.append(f"{path} is not named like {self.example}")
                continue
            try:
                part, id = self.part_of(path, fields), self.key(fields)
            except ValueError as error:
                missing.append(str(error))
                continue
            fields["part"] = part
            other = next((k for k, v in self.only.items() if fields.get(k, "") != v), None)
            if other:
                elsewhere = (other, fields.get(other, ""))
                continue
            group = groups.setdefault((part, id), Case(id, part, fields, {}))
            if kind in group.files:
                first = group.files[kind].relative_to(root)
                missing.append(f"{kind} of {id} is there twice: {first} and {path.rstrip('/')}")
            group.files.setdefault(kind, root / path)
        return sorted(groups.values(), key=_order), missing, elsewhere

    def _empty(self, paths: list[str]) -> Iterator[str]:
        """Folders of the data set without a file of it."""
        fitting = [path for path in paths if not path.endswith("/") and self.kind(path)[0]]
        for folder in (path for path in paths if self.folders and re.fullmatch(self.folders, path)):
            if not any(path.startswith(folder) for path in fitting):
                yield f"{folder} holds nothing that is named like {self.example}"

    def _twice(self, groups: list[Case]) -> Iterator[str]:
        """Patients who are in two parts."""
        parts_of: dict[str, dict[str, None]] = {}
        for group in groups:
            parts_of.setdefault(group.fields.get("patient", ""), {})[group.part] = None
        for patient, parts in parts_of.items():
            if patient and len(parts) > 1:
                yield f"{patient} is there twice, in {' and in '.join(f'{p}/' for p in parts)}"

    def _meant(self, root: Path, paths: list[str]) -> str:
        """The folder above or below in which the patterns do fit."""
        for above in (1, 2):
            inner = "/".join(root.resolve().parts[-above:])
            if any(self.kind(f"{inner}/{path}")[0] for path in ("", *paths)):
                return f"the folder above, {root.resolve().parents[above - 1]}"
        for below in (1, 2):
            for path in paths:
                parts = path.split("/", below)
                if len(parts) > below and self.kind(parts[below])[0]:
                    return f"the folder below, {root.joinpath(*parts[:below])}"
        return ""


def _person(case: Case) -> str:
    return case.fields.get("patient", case.id)


def _order(case: Case) -> tuple:
    """By part (training before test), then by id with its numbers as numbers."""
    pieces = re.split(r"(\d+)", case.id)
    part = case.part.lower().startswith("test"), case.part
    return part, [int(piece) if piece.isdecimal() else piece for piece in pieces]


def walk(root: Path, depth: int = DEPTH, above: str = "") -> Iterator[str]:
    """Paths below a folder, folders with "/" at the end; nothing that is hidden (``._x`` on macOS).

    Args:
        root: the folder.
        depth: how many folders may lie in one another.
        above: what stands before each name.
    """
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield f"{above}{entry.name}/"
            if depth > 1:
                yield from walk(root / entry.name, depth - 1, f"{above}{entry.name}/")
        else:
            yield f"{above}{entry.name}"
