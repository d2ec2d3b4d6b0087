"""Where points run: worker processes here, or a Dask cluster that is there already.

Dask is the engine; here stands only how a chapter wants its workers: one notebook at a time each,
a fair share of the cores, one GPU each, no memory limit of Dask's own (the kernel is another
process; `limits` watches that one).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from medseg_book.run.errors import UsageError

from .point import block_interrupts, cores, thread_limits

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 20
LOOPBACK = "127.0.0.1:0"  # any free port: two sweeps at once must not meet


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
        options |= {"preload": ["medseg_book.run.sweeps.point"]}
        specs[i] = {"cls": Nanny, "options": options}
    options = {"dashboard": False, "dashboard_address": LOOPBACK, "host": "127.0.0.1", "port": 0}
    scheduler = {"cls": Scheduler, "options": options}
    with quiet(), ExitStack() as stack:
        with _undisturbed():
            cluster = SpecCluster(workers=specs, scheduler=scheduler, silence_logs=logging.CRITICAL)
            stack.enter_context(cluster)
        yield stack.enter_context(Client(cluster))


@contextmanager
def remote(address: str) -> Iterator[Client]:
    """The cluster behind a scheduler's address; its workers' environment is theirs.

    Raises:
        UsageError: if nobody answers there.
    """
    from distributed import Client

    if "://" not in address:
        raise UsageError(f"--scheduler takes an address such as tcp://host:8786, got {address!r}")
    with quiet():
        try:
            client = Client(address, timeout=CONNECT_SECONDS)
        except (OSError, TimeoutError, ValueError) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(f"no Dask scheduler answers at {address} ({said})") from None
        with client:
            yield client


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
def quiet() -> Iterator[None]:
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
