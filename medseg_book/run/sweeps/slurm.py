"""SLURM through dask-jobqueue: a file with the keys of its `jobqueue.slurm`, and `jobs`."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg_book.run.errors import UsageError, unknown
from medseg_book.run.parameters import parse_value

from .point import thread_limits
from .pool import quiet

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed import Client

OURS = {"processes", "job-cpu"}  # a job runs one notebook at a time, on all its `cores`


@contextmanager
def client(path: Path) -> Iterator[Client]:
    """Jobs that SLURM starts, each a Dask worker; they end with the sweep."""
    from distributed import Client

    with cluster(path) as jobs, Client(jobs) as dask:
        jobs.scale(jobs=read(path)["jobs"])
        yield dask


def script(path: Path) -> str:
    """The job script that `client` would submit; needs no SLURM."""
    with cluster(path) as jobs:
        return jobs.job_script()


@contextmanager
def cluster(path: Path) -> Iterator[SLURMCluster]:
    """dask-jobqueue's cluster, no job submitted yet.

    Raises:
        UsageError: naming the file and what dask-jobqueue says of it.
    """
    import dask.config

    options = read(path)
    cores = options.pop("cores")
    threads = [f"export {name}={value}" for name, value in thread_limits(cores).items()]
    options |= {"cores": 1, "processes": 1, "job-cpu": cores}
    options["job-script-prologue"] = [*threads, *options["job-script-prologue"]]
    options["worker-extra-args"] += ["--memory-limit", "0", "--no-dashboard"]
    options["scheduler-options"] |= {"dashboard": False, "dashboard_address": ":0"}
    with quiet(), dask.config.set({f"jobqueue.slurm.{k}": v for k, v in options.items()}):
        try:
            jobs = _jobqueue().SLURMCluster()
        except (ValueError, RuntimeError) as error:
            raise UsageError(f"--slurm {path}: {' '.join(str(error).split())}") from None
        with jobs:
            yield jobs


def read(path: Path) -> dict[str, Any]:
    """The site's settings of `jobqueue.slurm`, those of the file over them.

    Raises:
        UsageError: naming the file and what is unknown or of the wrong kind in it.
    """
    import dask.config

    _jobqueue()  # which brings its defaults
    site = {"jobs": 1, **dask.config.get("jobqueue.slurm"), "cores": 1}
    try:
        # Plain YAML would read the time 12:30:00 as the number 45000, in base 60.
        found = parse_value(Path(path).read_text(encoding="utf-8"), f"--slurm {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--slurm {path}: {' '.join(str(error).split())}") from None
    if not isinstance(found, Mapping):
        raise UsageError(f"--slurm {path}: takes lines `name: value`, got {found!r}")
    for name, value in found.items():
        if name not in site.keys() - OURS:
            raise unknown(f"setting in {path}", name, sorted(site.keys() - OURS))
        kind = type(site[name])
        if (kind in (int, list, dict) and type(value) is not kind) or (kind is int and value < 1):
            takes = {int: "a whole number > 0", list: "a list of lines", dict: "names and values"}
            raise UsageError(f"--slurm {path}: {name} takes {takes[kind]}, got {value!r}")
    return {**site, **found}


def _jobqueue() -> Any:
    """dask-jobqueue, whose import takes Ctrl-C: it would end the process with exit code 0."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    import dask_jobqueue

    for number, handler in before.items():
        signal.signal(number, handler)
    return dask_jobqueue
