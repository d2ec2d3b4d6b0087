"""Where a run writes, and the folders of real data that a reader recognises."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from .finding import Finding

GB = 1e9
ENOUGH = 2 * GB
DOCKER = 64 * 2**20  # what a container gets for /dev/shm when nobody asks for more
SHARED = Path("/dev/shm")
FOLDERS = 40  # of a data folder's own ones that are looked into


def probe() -> list[Finding]:
    """The folder `runs/` below the current one, the temporary folder, shared memory."""
    runs = Path.cwd() / "runs"
    found = [
        writable(runs, "runs/", "write elsewhere: medseg run SLUG -o FOLDER/out.ipynb"),
        writable(Path(tempfile.gettempdir()), "temporary", "set TMPDIR to a folder with space"),
    ]
    return [*found, *([_shared()] if SHARED.is_dir() else [])]


def writable(folder: Path, what: str, remedy: str) -> Finding:
    """Whether a file can be made in `folder`, or in the one above it that exists, and the space."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("missing", what, f"cannot be written ({error.strerror})", remedy)
    if free < ENOUGH:
        return Finding("slow", what, f"only {free / GB:.1f} GB free", remedy)
    return Finding("ok", what, f"writable, {free / GB:.0f} GB free")


def _shared() -> Finding:
    size = shutil.disk_usage(SHARED).total
    detail = f"{size / 2**20:.0f} MiB"
    if size > DOCKER:
        return Finding("ok", "/dev/shm", detail)
    remedy = "in Docker: run with --shm-size=1g"
    return Finding("slow", "/dev/shm", f"{detail}; torch's loader workers need more", remedy)


def data(folder: Path | None) -> list[Finding]:
    """The folders that a reader recognises: `folder` itself and those in it."""
    if folder is None:
        detail = "no folder named (--data or MEDSEG_DATA); every chapter brings its phantom"
        return [Finding("ok", "data", detail)]
    if not folder.is_dir():
        return [
            Finding("missing", "data", "the folder named does not exist", "name another", False)
        ]
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = [_recognised(path) for path in inside[:FOLDERS]]
    # A reader may also find, from above, what one of the folders holds: that is said once.
    known = {name for recognised in found for name in recognised}
    above = {name: f for name, f in _recognised(folder).items() if name not in known}
    findings = [finding for recognised in (above, *found) for finding in recognised.values()]
    if findings:
        return findings
    remedy = "see the guide's page on your own data for the layouts"
    return [Finding("missing", "data", "no reader recognises a folder there", remedy, False)]


def _recognised(folder: Path) -> dict[str, Finding]:
    """The readers that can read a folder, or stopped at it, by name."""
    from medseg_core import datasets

    found = {}
    for name in (name for name in dir(datasets) if name[0].isupper()):
        try:
            report = getattr(datasets, name)(folder).check()
        except Exception as error:  # a package that the reader needs is absent, a file is damaged
            detail = f"{folder.name}/: the reader {name} stopped with {type(error).__name__}"
            found[name] = Finding("slow", "data", detail)
            continue
        if report.ok:
            content = "; ".join(report.found[:2])
            found[name] = Finding("ok", "data", f"{folder.name}/: {report.name} ({content})")
    return found
