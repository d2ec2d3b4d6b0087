"""Run one chapter: parameters checked first, executed by papermill, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from . import files, notebook, parameters
from .catalogue import find_chapter, find_root
from .errors import UsageError
from .failure import Failure, from_error
from .limits import Limits, Watchdog

Progress = bool | Callable[[int, int, str], None]
SCRATCH = "medseg-run-"


@dataclass(frozen=True)
class RunResult:
    """What a run left behind: plain data, so that a worker can send it home."""

    slug: str
    parameters: dict[str, Any]
    output: str
    seconds: float
    failure: Failure | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        return self.failure is None


@dataclass(frozen=True)
class Prepared:
    """A run that has passed every check that needs no kernel."""

    slug: str
    nb: NotebookNode
    given: dict[str, Any]
    code_hash: str  # as of before the run: a file edited meanwhile is not what ran
    papers: dict[str, str]
    note: str = ""


def prepare(
    slug_or_path: str | Path, given: Mapping[str, Any] | None = None, *, root: Path | None = None
) -> Prepared:
    """Read the chapter and check its parameters.

    A slug means the chapter's source, the `.py` of its pair; a path means exactly that file.

    Raises:
        UsageError: naming the unknown chapter, parameter or scale and the choices.
    """
    note = ""
    text = str(slug_or_path)
    if text.endswith((".ipynb", ".py")) or os.sep in text:
        path = Path(slug_or_path)
        if not path.is_file():
            raise UsageError(f"there is no notebook {text!r}")
        slug = path.stem
        nb = notebook.read_source(path) if path.suffix == ".py" else notebook.read_stored(path)
    else:
        chapter = find_chapter(root or find_root(), text)
        slug, nb = chapter.slug, chapter.code
        stored = chapter.outputs
        if stored is not None and notebook.code_hash(stored) != notebook.code_hash(nb):
            note = (
                f"note: {chapter.stored.name} differs from {chapter.source.name}, which is run; "
                "give the path of the .ipynb to run that one"
            )
    nb = notebook.copy(nb)  # the output of an earlier run can be run again
    declared = notebook.parameters(nb)
    ready = parameters.check(given or {}, declared)
    return Prepared(slug, nb, ready, notebook.code_hash(nb), notebook.papers(nb), note)


def default_output(prepared: Prepared) -> Path:
    """runs/<slug>/<scale>-seed<seed>-<UTC time>.ipynb below the current folder."""
    scale = prepared.given.get("scale", "lesson")
    seed = prepared.given.get("seed", 0)
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    name = f"{scale}-seed{seed}-{now}.ipynb"
    return Path.cwd() / "runs" / prepared.slug / name


def execute(
    slug_or_path: str | Path,
    out: str | Path,
    given: Mapping[str, Any] | None = None,
    *,
    progress: Progress = False,
    root: Path | None = None,
    cwd: Path | None = None,
    limits: Limits | None = None,
) -> RunResult:
    """Run a chapter with the parameters `given`; the executed notebook becomes `out`.

    `out` appears whole or not at all: a failed run keeps its notebook, with the traceback, as
    `<out>.failed.ipynb` and leaves an earlier `out` alone; a killed run leaves only a hidden
    partial file, which the next run to the same target removes. `out` may be a URL that papermill
    writes (`s3://...`). A chapter that fails is a result, not an exception.

    Args:
        slug_or_path: the chapter's slug, or the path of a notebook.
        out: the path or URL of the executed notebook.
        given: parameters of the notebook, e.g. `{"scale": "smoke", "seed": 1}`.
        progress: True for a bar on stderr, or a function `(cell, n_cells, heading)`.
        root: the book's root; None finds it from the current folder.
        cwd: the kernel's folder; None takes the current one.
        limits: of time and memory; a run that breaks one has failed with `TimeLimit` or
            `MemoryLimit`.

    Raises:
        UsageError: before a kernel starts, for whatever the caller can get wrong.
    """
    prepared = prepare(slug_or_path, given, root=root)
    with _target(out, slug_or_path) as target:
        place = Path(cwd or Path.cwd())
        return _run(prepared, target, str(out), progress, place, limits or Limits())


def _run(
    prepared: Prepared, target: Path, name: str, progress: Progress, cwd: Path, limits: Limits
) -> RunResult:
    files.clean_partials(target)
    partial = files.partial_name(target)
    started, clock = datetime.now(timezone.utc), time.monotonic()
    try:
        with scratch() as folder:
            failure = _papermill(prepared, partial, folder, progress, cwd, limits)
        seconds = time.monotonic() - clock
        nb = notebook.read_stored(partial)
        record = provenance(prepared, nb, seconds, started)
        failed = failure is not None
        final = target.with_suffix(".failed.ipynb") if failed else target
        if failed:
            record["failed"], record["ename"] = str(failure.cell), failure.ename
            record["error"] = failure.summary
        nb.metadata["medseg"] = record
        nb.metadata.get("papermill", {}).update(
            input_path=prepared.slug, output_path=final.name
        )  # papermill knows only the partial's name
        files.write_whole(final, nbformat.writes(nb) + "\n")
        if not failed:
            target.with_suffix(".failed.ipynb").unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)
    output = name.removesuffix(".ipynb") + ".failed.ipynb" if failed else name
    claims = notebook.payload(nb, notebook.CLAIMS_MIME)
    return RunResult(prepared.slug, prepared.given, output, seconds, failure, record, claims)


def provenance(
    prepared: Prepared, nb: NotebookNode, seconds: float, started: datetime
) -> dict[str, Any]:
    """What an executed notebook says about itself (`nb.metadata.medseg`)."""
    run = notebook.payload(nb, notebook.RUN_MIME) or {}
    claims = notebook.payload(nb, notebook.CLAIMS_MIME) or {}
    return {
        "slug": prepared.slug,
        "code_hash": prepared.code_hash,
        "cells": notebook.cell_hashes(prepared.nb),
        "papers": prepared.papers,
        "scale": run.get("scale", prepared.given.get("scale")),
        "seed": run.get("seed", prepared.given.get("seed")),
        "device": run.get("device", prepared.given.get("device")),
        "extended": run.get("extended", prepared.given.get("extended", False)),
        "parameters": prepared.given,
        "seconds": round(seconds, 1),
        "peak_memory_mb": claims.get("peak_memory_mb"),
        "versions": run.get("versions", {}),
        "date": started.isoformat(timespec="seconds"),
    }


def _papermill(
    prepared: Prepared,
    partial: Path,
    folder: Path,
    progress: Progress,
    cwd: Path,
    limits: Limits,
) -> Failure | None:
    """Execute into `partial`; the failure, or None."""
    import papermill

    from .cell_progress import reporter
    from .kernel import manager_class

    nb, given = prepared.nb, prepared.given
    # papermill adds one cell behind the tagged one; a reader counts the source's cells.
    tagged = [i for i, cell in enumerate(nb.cells) if "parameters" in notebook.tags(cell)]
    injected = tagged[0] + 1 if given and tagged else len(nb.cells) + 1

    def source_index(index: int) -> int:
        return index - 1 if index >= injected else index

    current = 0
    watchdog = Watchdog(limits)
    with watchdog, reporter(progress, prepared.slug, nb) as report:

        def on_cell_start(cell: NotebookNode, cell_index: int) -> None:
            nonlocal current
            current = source_index(cell_index)
            report(current)

        try:
            papermill.execute_notebook(
                notebook.copy(nb),
                str(partial).replace("{", "{{").replace("}", "}}"),
                parameters=given,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                start_timeout=120,
                kernel_manager_class=manager_class(folder, cwd, watchdog.watch),
                on_cell_start=on_cell_start,
            )
        except papermill.PapermillExecutionError as error:
            if not watchdog.broken:
                at, said = source_index(error.cell_index), (error.ename, error.evalue)
                return from_error(nb, prepared.slug, at, *said, error.traceback, error.exec_count)
            return from_error(nb, prepared.slug, current, *watchdog.broken)
        except RuntimeError as error:  # of nbclient and jupyter_client: the kernel, not a cell
            said = watchdog.broken or _kernel_error(error, folder)
            return from_error(nb, prepared.slug, current, *said)
    return None


def _kernel_error(error: RuntimeError, folder: Path) -> tuple[str, str]:
    """What happened to the kernel, with the last that it said."""
    from nbclient.exceptions import DeadKernelError

    from .kernel import last_words

    if isinstance(error, DeadKernelError):
        why = "the kernel died (often: out of memory, or killed from outside)"
        return "DeadKernelError", f"{why}\n{last_words(folder)}"
    return "KernelError", f"{error}\n{last_words(folder)}"


@contextmanager
def _target(out: str | Path, source: str | Path) -> Iterator[Path]:
    """The local file to write; for a URL a temporary one, sent there at the end."""
    if "://" not in str(out):
        target = Path(out).expanduser().absolute()
        files.check_target(target)
        if Path(source).is_file() and target.exists() and target.samefile(source):
            raise UsageError(f"output {str(out)!r} is the notebook that is to be run")
        yield target
        return
    files.check_url(str(out).rpartition("/")[0])
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as folder:
        yield Path(folder) / "out.ipynb"
        for path in Path(folder).glob("out*.ipynb"):
            url = str(out).removesuffix(".ipynb") + path.name.removeprefix("out")
            files.write_url(url, path.read_text(encoding="utf-8"))


@contextmanager
def scratch() -> Iterator[Path]:
    """The kernel's private folder; what killed runs of this machine left behind is removed."""
    root, host = Path(tempfile.gettempdir()), socket.gethostname()
    for left in root.glob(f"{SCRATCH}{host}-*"):
        pid = left.name.removeprefix(f"{SCRATCH}{host}-").split("-")[0]
        if pid.isdigit() and not files.alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    prefix = f"{SCRATCH}{host}-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
