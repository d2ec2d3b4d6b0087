"""Files that are whole or absent: written under a hidden name beside the target, then renamed."""

from __future__ import annotations

import os
import re
import socket
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UsageError

_OWNER = re.compile(r"-(?P<host>[^-]+)-(?P<pid>\d+)-[0-9a-f]{6}$")


def partial_name(target: Path) -> Path:
    """A hidden name beside `target` (same file system) that says which process is writing it."""
    name = f".{target.stem}-{_host()}-{os.getpid()}-{uuid.uuid4().hex[:6]}.partial"
    return target.with_name(name + target.suffix)


def clean_partials(target: Path) -> list[Path]:
    """Delete what killed processes of this machine have left of `target`."""
    return _clean(target.parent, f".{_escape(target.stem)}-*.partial{target.suffix}", target.stem)


def clean_folder(folder: Path) -> list[Path]:
    """Delete what killed processes of this machine have left of any file in a folder."""
    return _clean(folder, ".*.partial.*")


def _clean(folder: Path, pattern: str, stem: str | None = None) -> list[Path]:
    removed = []
    for path in folder.glob(pattern):
        name = path.name.rpartition(".partial")[0]
        owner = _OWNER.search(name)
        if not owner or (stem is not None and name != f".{stem}{owner.group()}"):
            continue
        if owner["host"] == _host() and not alive(int(owner["pid"])):
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def write_whole(path: Path, content: bytes | str) -> None:
    """Replace `path` in one step."""
    partial = partial_name(path)
    data = content.encode() if isinstance(content, str) else content
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_target(target: Path) -> None:
    """Refuse a target that could not be written, before anything is computed."""
    folder = target.parent
    if target.suffix != ".ipynb":
        raise UsageError(f"output {str(target)!r}: a run's output is a notebook, *.ipynb")
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"output {str(target)!r}: the folder {str(folder)!r} {what}")
    if target.is_dir():
        raise UsageError(f"output {str(target)!r} is a folder")
    probe = partial_name(target)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"output {str(target)!r}: cannot write into {str(folder)!r} ({error.strerror})"
        ) from None


def check_url(url: str, what: str = "output") -> list[str]:
    """The addresses under a folder's `url`; one that cannot be listed is refused by name."""
    from papermill.iorw import papermill_io

    try:
        return papermill_io.listdir(f"{url.rstrip('/')}/")
    except Exception as error:  # each store has errors of its own
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"{what}: cannot reach {url} ({type(error).__name__}: {said})") from None


def read_url(url: str) -> str:
    from papermill.iorw import papermill_io

    with _papermill_calm():
        return papermill_io.read(url)


def write_url(url: str, text: str) -> None:
    """Send a file whole, by papermill's handler of such addresses.

    Raises:
        OSError: naming the address, whatever the store's own error is.
    """
    from papermill.iorw import papermill_io

    try:
        with _papermill_calm():
            papermill_io.write(text, url)
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise OSError(None, f"cannot be written ({type(error).__name__}: {said})", url) from None


@contextmanager
def _papermill_calm() -> Iterator[None]:
    """Papermill takes a file that is no notebook for a mistake."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The specified", UserWarning)
        yield


def alive(pid: int) -> bool:
    """Whether a process of that id runs on this machine."""
    try:
        import psutil

        return psutil.pid_exists(pid)
    except ImportError:
        return True  # better a left-over file than one taken from a running process


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "localhost"


def _escape(stem: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", stem)
