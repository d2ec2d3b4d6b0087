"""Where a sweep's files lie: a folder here, or a URL that papermill reads and writes (`s3://`)."""

from __future__ import annotations

from pathlib import Path

from medseg_book.run import files
from medseg_book.run.errors import UsageError


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

        Raises:
            UsageError: naming the folder and what is wrong with it.
        """
        if self.remote:
            files.check_url(self.place, "out")
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
            found = (url.rpartition("/")[2] for url in files.check_url(self.place, "out"))
        return {name for name in found if name and not name.startswith(".")}

    def read(self, name: str) -> str:
        if not self.remote:
            return (Path(self.place) / name).read_text(encoding="utf-8")
        return files.read_url(self.path(name))

    def write(self, name: str, text: str) -> None:
        if not self.remote:
            files.write_whole(Path(self.place) / name, text)
            return
        files.write_url(self.path(name), text)
