"""One point of a sweep, run where Dask puts it: the chapter in a kernel of its own."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg_book.run.limits import Limits

DONE, FAILED, TIME, MEMORY, LOST = "done", "failed", "time limit", "memory limit", "lost"
STATUSES = (DONE, FAILED, TIME, MEMORY, LOST)


def status_of(ename: str) -> str:
    """The status of a point that failed with this error."""
    return {"TimeLimit": TIME, "MemoryLimit": MEMORY}.get(ename, FAILED)


@dataclass(frozen=True)
class Job:
    """All that a worker needs to run a point: plain data."""

    name: str
    slug: str
    source: str  # path of the notebook; on a machine without it the slug is looked up
    code_hash: str  # of the code that the sweep was planned with
    given: Mapping[str, Any]
    output: str
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Outcome:
    """What a worker sends home: how the point ended, and where its notebook lies."""

    name: str
    status: str
    seconds: float = 0.0
    notebook: str = ""  # "" where none could be written
    error: str = ""  # in one line
    report: str = ""  # the failure in one screen


def run_point(job: Job) -> Outcome:
    """Run one point. Whatever goes wrong is an outcome: one point must not stop the others."""
    from medseg_book.run.run import execute, scratch

    logging.getLogger("papermill").addHandler(logging.NullHandler())  # the outcome says it, once
    try:
        notebook_is_the_same(job)
        source = job.source if Path(job.source).is_file() else job.slug
        # A folder of its own: nothing that a chapter drops there meets another point's.
        with scratch() as cwd:
            result = execute(source, job.output, job.given, cwd=cwd, limits=job.limits)
    except Exception as error:
        return Outcome(job.name, FAILED, error=one_line(error), report=one_line(error))
    if result.ok:
        return Outcome(job.name, DONE, result.seconds, result.output)
    failure, status = result.failure, status_of(result.failure.ename)
    where = result.output
    return Outcome(job.name, status, result.seconds, where, failure.summary, failure.report())


def notebook_is_the_same(job: Job) -> None:
    """Refuse to run other code than the sweep was planned with.

    Raises:
        UsageError: naming the chapter: on another machine its clone may be older.
    """
    from medseg_book.run.errors import UsageError
    from medseg_book.run.run import prepare

    here = prepare(job.source if Path(job.source).is_file() else job.slug)
    if here.code_hash != job.code_hash:
        raise UsageError(
            f"{job.slug}: the code on this worker is not the code that the sweep was started with; "
            "bring its clone to the same commit"
        )


def one_line(error: BaseException) -> str:
    """An exception for a table: an operating system's error with its file."""
    said = str(error)
    if isinstance(error, OSError) and error.strerror:
        said = error.strerror + (f": {error.filename}" if error.filename else "")
    return " ".join(f"{type(error).__name__}: {said}".split())[:300]


def thread_limits(threads: int) -> dict[str, str]:
    """Environment that holds a kernel's numerical libraries to so many threads."""
    names = ("OMP_NUM", "MKL_NUM", "OPENBLAS_NUM", "NUMEXPR_NUM", "VECLIB_MAXIMUM")
    return {f"{name}_THREADS": str(max(1, threads)) for name in names}


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def dask_setup(worker: object) -> None:
    """Dask calls it as a worker starts: Ctrl-C is for the sweep, which ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    block_interrupts(False)


def block_interrupts(on: bool) -> None:
    """Hold SIGINT back from this thread and from what it starts, or let it through again."""
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK if on else signal.SIG_UNBLOCK, {signal.SIGINT})
