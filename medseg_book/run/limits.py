"""Time and memory limits of one run: a watchdog that kills the kernel and says why."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from .errors import UsageError

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Limits:
    """At most so long and so much; None: no limit.

    `memory_mb` is in MiB and counts the kernel with all processes that it has started, each by the
    memory that is its own.

    Raises:
        UsageError: for a limit that is not positive.
    """

    seconds: float | None = None
    memory_mb: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("time limit", self.seconds), ("memory limit", self.memory_mb)):
            if value is not None and not value > 0:
                raise UsageError(f"{name} takes a number > 0, got {value!r}")


class Watchdog:
    """Watches a kernel from `watch` on until the `with` block ends.

    `broken` is then None, or (error name, message) of the limit that the run has broken.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.broken: tuple[str, str] | None = None
        self._start = time.monotonic()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, pid: int) -> None:
        """Called with the kernel's process id once it runs."""
        if self.limits == Limits():
            return
        self._thread = threading.Thread(target=self._loop, args=(pid,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        if self._thread:
            self._thread.join()

    def _loop(self, pid: int) -> None:
        import psutil

        with suppress(psutil.NoSuchProcess):
            kernel = psutil.Process(pid)
            while not self._done.wait(POLL_SECONDS):
                if self._breach(kernel):
                    _kill(kernel)
                    return

    def _breach(self, kernel: object) -> bool:
        limits, seconds = self.limits, time.monotonic() - self._start
        if limits.seconds is not None and seconds > limits.seconds:
            said = f"stopped after {seconds:.0f} s: the limit is {limits.seconds:g} s"
            self.broken = ("TimeLimit", said)
        elif limits.memory_mb is not None and (used := memory_mb(kernel)) > limits.memory_mb:
            said = f"stopped at {used:.0f} MiB: the limit is {limits.memory_mb:g} MiB"
            self.broken = ("MemoryLimit", said)
        return self.broken is not None


def memory_mb(process: object) -> float:
    """Memory of a process and its descendants in MiB; what they share is counted once.

    Where the system does not tell what is shared, each counts in full.
    """
    import psutil

    total = 0
    for one in (process, *process.children(recursive=True)):
        # A worker of joblib maps the arrays of its parent: full sizes would count them twice.
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            info = one.memory_info()
            total += info.rss if one is process else info.rss - getattr(info, "shared", 0)
    return total / 2**20


def _kill(kernel: object) -> None:
    import psutil

    for process in (*kernel.children(recursive=True), kernel):
        with suppress(psutil.NoSuchProcess):
            process.kill()
