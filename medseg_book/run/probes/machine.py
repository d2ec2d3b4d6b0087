"""Cores and memory that this process may use, which in a container is less than the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from .finding import Finding, listed

GIB = 2**30
SYSTEM = Path("/")  # where the kernel's own files lie


def probe(root: Path | None) -> list[Finding]:
    """Cores and memory, and the chapters whose last run took more memory than there is."""
    return [_cores(), _memory(peaks(root) if root else {})]


def _cores() -> Finding:
    machine = os.cpu_count() or 1
    mine = allowed_cores()
    detail = f"{mine:g}" + (f" of the machine's {machine}" if mine < machine else "")
    if mine < 2:
        return Finding("slow", "cores", f"{detail}; the chapters' times are those of two cores")
    return Finding("ok", "cores", detail)


def _memory(peaks: dict[str, float]) -> Finding:
    import psutil

    machine = psutil.virtual_memory()
    mine = min(machine.total, memory_limit() or machine.total)
    detail = f"{mine / GIB:.1f} GiB"
    if mine < machine.total:
        detail += f" of the machine's {machine.total / GIB:.1f}"
    else:
        detail += f", {machine.available / GIB:.1f} free now"
    above = [f"{slug} {gib:.1f} GiB" for slug, gib in peaks.items() if gib * GIB > mine]
    if above:
        detail += f"; the stored runs took more: {listed(above)}"
        return Finding("missing", "memory", detail, "run these at smoke scale, or elsewhere")
    if mine < 4 * GIB:
        remedy = "run one chapter at a time"
        return Finding("slow", "memory", f"{detail}; little for two runs side by side", remedy)
    return Finding("ok", "memory", detail)


def allowed_cores() -> float:
    """Cores of this process: its affinity, and the container's quota where that is smaller."""
    try:
        cores = float(len(os.sched_getaffinity(0)))
    except AttributeError:  # not Linux
        cores = float(os.cpu_count() or 1)
    for folder in _control_groups():
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:  # version 1
            quota = _read(folder / "cpu.cfs_quota_us")
            period = _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():  # no limit is "max" or -1
            cores = min(cores, int(quota) / int(period))
    return cores


def memory_limit() -> int | None:
    """Bytes that the container allows; None where nothing limits them."""
    found = [
        int(text)
        for folder in _control_groups()
        for name in ("memory.max", "memory.limit_in_bytes")
        if (text := _read(folder / name)).isdigit()  # no limit is "max", or more than any machine
    ]
    return min(found, default=None)


def peaks(root: Path) -> dict[str, float]:
    """GiB that each chapter's stored run took at its peak."""
    from medseg_book.run.catalogue import find_chapters

    found = {}
    for chapter in find_chapters(root):
        record = chapter.outputs.metadata.get("medseg", {}) if chapter.outputs else {}
        if record.get("peak_memory_mb"):
            found[chapter.slug] = record["peak_memory_mb"] / 1024
    return found


def _control_groups() -> Iterator[Path]:
    """The folders of this process's control groups and of those around them (Linux)."""
    for line in _read(SYSTEM / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        own = PurePosixPath(path.lstrip("/"))
        for group in (own, *own.parents):  # in a container the outer ones are not to be seen
            yield SYSTEM / "sys/fs/cgroup" / controllers / group


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
