"""Where a sweep's files lie: a folder here, or a URL that papermill reads and writes (`s3://`)."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from medseg_core.chapters import files
from medseg_core.chapters.errors import UsageError


class Folder:
    """The files of a sweep by name, each written whole or not at all."""

    def __init__(self, place: str | Path) -> None:
        self.place = str(place).rstrip("/")
        self.remote = "://" in self.place
        if not self.remote:
            self.place = str(Path(self.place).expanduser().absolute())

    def __str__(self) -> str:
        return self.place

    def path(self, name: str) -> str:
        """What `execute` takes as its output."""
        return f"{self.place}/{name}"

    def prepare(self) -> None:
        """Make the folder, and see that it can be written.

        Raises: UsageError naming the folder and what is wrong with it.
        """
        if self.remote:
            self._reach()
            return
        folder = Path(self.place)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"out: cannot make the folder {self}: {error.strerror}") from None
        files.check_target(folder / "sweep.ipynb")
        self.clean()

    def clean(self) -> None:
        """Remove the partial files of runs that were killed."""
        if not self.remote:
            files.clean_folder(Path(self.place))

    def names(self) -> set[str]:
        """Names of the files in it, those in sub-folders and hidden ones left out."""
        if not self.remote:
            folder = Path(self.place)
            found = (p.name for p in folder.iterdir() if p.is_file()) if folder.is_dir() else ()
        else:
            found = (key.split(f"{_key(self.place)}/", 1)[-1] for key in self._listed())
        return {name for name in found if "/" not in name and not name.startswith(".")}

    def read(self, name: str) -> str:
        if not self.remote:
            return (Path(self.place) / name).read_text(encoding="utf-8")
        from papermill.iorw import papermill_io

        return papermill_io.read(self.path(name))

    def write(self, name: str, text: str) -> None:
        if not self.remote:
            files.write_whole(Path(self.place) / name, text)
            return
        from papermill.iorw import papermill_io

        papermill_io.write(text, self.path(name))

    def remove(self, name: str) -> None:
        """Remove a local file; papermill's handlers remove nothing, so a remote one stays."""
        if not self.remote:
            with suppress(FileNotFoundError):
                (Path(self.place) / name).unlink()

    def _listed(self) -> list[str]:
        from papermill.iorw import papermill_io

        return papermill_io.listdir(f"{self.place}/")

    def _reach(self) -> None:
        """Refuse a place that cannot be listed before anything is computed."""
        try:
            self._listed()
        except Exception as error:  # each store has errors of its own
            said = " ".join(str(error).split())[:200]
            raise UsageError(f"out: cannot reach {self} ({type(error).__name__}: {said})") from None


def local_copy(folder: Folder, name: str) -> tuple[Path, tempfile.TemporaryDirectory | None]:
    """A path under which a program that knows local files only can read one of the folder's."""
    if not folder.remote:
        return Path(folder.place) / name, None
    scratch = tempfile.TemporaryDirectory(prefix="medseg-sweep-")
    copy = Path(scratch.name) / name
    copy.write_text(folder.read(name), encoding="utf-8")
    return copy, scratch


def _key(url: str) -> str:
    """The part of `s3://bucket/a/b` that a store's keys begin with: `a/b`."""
    return url.split("://", 1)[1].partition("/")[2]
