"""Where points run: worker processes here, a Dask cluster that is there already, or SLURM's jobs.

Dask is the engine; here stands only how a chapter wants its workers: one notebook at a time each,
a fair share of the cores, one GPU each, no memory limit of Dask's own (the kernel is another
process; `limits` watches that one).
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg_core.chapters.errors import UsageError, unknown
from medseg_core.chapters.parameters import parse_value

from .point import block_interrupts, cores, thread_limits

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 20
LOOPBACK = "127.0.0.1:0"  # any free port: two sweeps at once must not meet
# What of settings.yaml goes to dask-jobqueue under which name; `jobs` and `cores` are ours.
SLURM_KEYS = {
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
class Slurm:
    """What one SLURM job asks for; each runs one notebook at a time."""

    jobs: int
    cores: int
    options: dict[str, Any]


@contextmanager
def here(workers: int, devices: Sequence[str] = ()) -> Iterator[Client]:
    """`workers` processes on this machine; with `devices` each sees one of these GPUs."""
    from distributed import Client, Nanny, Scheduler
    from distributed.deploy.spec import SpecCluster

    threads = thread_limits(cores() // max(1, workers))
    specs = {}
    for i in range(workers):
        gpu = {"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} if devices else {}
        options = {"nthreads": 1, "memory_limit": 0, "env": threads | gpu}
        options |= {"silence_logs": logging.CRITICAL, "quiet": True}
        options |= {"preload": ["medseg_core.chapters.sweeps.point"]}
        specs[i] = {"cls": Nanny, "options": options}
    options = {"dashboard": False, "dashboard_address": LOOPBACK, "host": "127.0.0.1", "port": 0}
    scheduler = {"cls": Scheduler, "options": options}
    with _quiet(), ExitStack() as stack:
        with _undisturbed():
            cluster = SpecCluster(workers=specs, scheduler=scheduler, silence_logs=logging.CRITICAL)
            stack.enter_context(cluster)
        yield stack.enter_context(Client(cluster))


@contextmanager
def remote(address: str) -> Iterator[Client]:
    """The cluster behind a scheduler's address; its workers' environment is theirs.

    Raises: UsageError if nobody answers there.
    """
    from distributed import Client

    if "://" not in address:
        raise UsageError(f"--scheduler takes an address such as tcp://host:8786, got {address!r}")
    with _quiet():
        try:
            client = Client(address, timeout=CONNECT_SECONDS)
        except (OSError, TimeoutError, ValueError) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(f"no Dask scheduler answers at {address} ({said})") from None
        with client:
            yield client


@contextmanager
def slurm(settings: Slurm) -> Iterator[Client]:
    """Jobs that SLURM starts, each a Dask worker; they end with the sweep."""
    from distributed import Client

    with _quiet(), slurm_cluster(settings) as cluster, Client(cluster) as client:
        cluster.scale(jobs=settings.jobs)
        yield client


def slurm_cluster(settings: Slurm) -> Any:
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


def slurm_script(settings: Slurm) -> str:
    """The job script that `slurm` would submit; needs no SLURM."""
    with _quiet(), slurm_cluster(settings) as cluster:
        return cluster.job_script()


def read_slurm(path: Path) -> Slurm:
    """`settings.yaml`: jobs, cores, memory, and what of `SLURM_KEYS` the site wants.

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
        if name not in (*SLURM_KEYS, "jobs", "cores"):
            raise unknown(f"setting in {path}", name, ["jobs", "cores", *SLURM_KEYS])
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
    options = {SLURM_KEYS[k]: v for k, v in found.items() if k in SLURM_KEYS}
    options |= {name: str(options[name]) for name in ("memory", "walltime") if name in options}
    return Slurm(whole["jobs"], whole["cores"], options)


def gpus(device: str) -> list[str]:
    """The GPUs that local workers can share out, as CUDA_VISIBLE_DEVICES names them.

    `device` is the chapter's parameter; one that names a device ("cuda:1") is shared by all.
    """
    if device not in ("auto", "cuda"):
        return []
    import torch

    if not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


def default_workers(device: str, devices: Sequence[str]) -> int:
    """One per GPU; elsewhere half the cores, since a chapter's libraries use two well."""
    if device.startswith("cuda:") or device == "mps":
        return 1
    return len(devices) or max(1, cores() // 2)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put Ctrl-C and SIGTERM off until the workers stand: half started, Dask ends with noise.

    What is started meanwhile inherits that SIGINT is blocked; `point.dask_setup` lifts it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda number, frame: came.append(number)) for n in numbers}
    block_interrupts(True)
    try:
        yield
    finally:
        block_interrupts(False)
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """What Dask logs of a worker that died is said by the sweep itself."""
    loggers = [logging.getLogger(name) for name in ("distributed", "asyncio", "tornado")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
