"""SLURM through dask-jobqueue: settings from a file, the job script, a client on its jobs."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg_book.run.errors import UsageError, unknown
from medseg_book.run.parameters import parse_value

from .point import thread_limits
from .pool import quiet

if TYPE_CHECKING:
    from distributed import Client

# What of settings.yaml goes to dask-jobqueue under which name; `jobs` and `cores` are ours.
KEYS = {
    "partition": "queue",
    "account": "account",
    "memory": "memory",
    "time": "walltime",
    "interface": "interface",
    "log_folder": "log_directory",
    "directives": "job_extra_directives",
    "prologue": "job_script_prologue",
}


@dataclass(frozen=True)
class Settings:
    """What one SLURM job asks for; each runs one notebook at a time."""

    jobs: int
    cores: int
    options: dict[str, Any]


@contextmanager
def client(settings: Settings) -> Iterator[Client]:
    """Jobs that SLURM starts, each a Dask worker; they end with the sweep."""
    from distributed import Client

    with quiet(), cluster(settings) as jobs, Client(jobs) as dask:
        jobs.scale(jobs=settings.jobs)
        yield dask


def cluster(settings: Settings) -> Any:
    """dask-jobqueue's cluster, no job submitted yet; `.job_script()` is what it would submit."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    from dask_jobqueue import SLURMCluster

    for number, handler in before.items():  # the import takes them: Ctrl-C would be exit code 0
        signal.signal(number, handler)
    options = dict(settings.options)
    threads = [f"export {k}={v}" for k, v in thread_limits(settings.cores).items()]
    prologue = [*threads, *options.pop("job_script_prologue", [])]
    return SLURMCluster(
        cores=1,  # notebooks at a time in a job
        processes=1,
        job_cpu=settings.cores,
        job_script_prologue=prologue,
        worker_extra_args=["--memory-limit", "0", "--no-dashboard"],
        scheduler_options={"dashboard": False, "dashboard_address": ":0"},
        **options,
    )


def script(settings: Settings) -> str:
    """The job script that `client` would submit; needs no SLURM."""
    with quiet(), cluster(settings) as jobs:
        return jobs.job_script()


def read(path: Path) -> Settings:
    """`settings.yaml`: jobs, cores, memory, and what of `KEYS` the site wants.

    Raises: UsageError naming the file and what is missing, unknown or of the wrong kind.
    """
    import psutil
    from dask.utils import parse_bytes

    try:
        # Plain YAML would read the time 12:30:00 as the number 45000, in base 60.
        found = parse_value(Path(path).read_text(encoding="utf-8"), f"--slurm {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--slurm {path}: {' '.join(str(error).split())}") from None
    if not isinstance(found, Mapping):
        raise UsageError(f"--slurm {path}: takes lines `name: value`, got {found!r}")
    for name in found:
        if name not in (*KEYS, "jobs", "cores"):
            raise unknown(f"setting in {path}", name, ["jobs", "cores", *KEYS])
    if "memory" not in found:
        raise UsageError(f"--slurm {path}: memory is missing, e.g. memory: 16GB")
    try:
        parse_bytes(str(found["memory"]))
    except ValueError:
        raise UsageError(
            f"--slurm {path}: memory takes a size such as 16GB, got {found['memory']!r}"
        ) from None
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", str(found.get("time", "1:00:00"))):
        raise UsageError(f"--slurm {path}: time takes HH:MM:SS, got {found['time']!r}")
    networks = psutil.net_if_addrs()
    if found.get("interface", next(iter(networks))) not in networks:
        raise unknown(f"interface in {path}", found["interface"], networks)
    whole = {name: found.get(name, default) for name, default in (("jobs", 1), ("cores", 1))}
    for name, value in whole.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"--slurm {path}: {name} takes a whole number > 0, got {value!r}")
    for name in ("directives", "prologue"):
        if not isinstance(found.get(name, []), list):
            raise UsageError(f"--slurm {path}: {name} takes a list of lines, got {found[name]!r}")
    options = {KEYS[k]: v for k, v in found.items() if k in KEYS}
    options |= {name: str(options[name]) for name in ("memory", "walltime") if name in options}
    return Settings(whole["jobs"], whole["cores"], options)
