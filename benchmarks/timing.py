"""What the benchmark scripts share: taking turns with a stopwatch, and tables for the book."""

import os
import platform
import statistics
import time
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def seconds(device, repeats, *calls, pick=statistics.median):
    """Median time of each call, or what `pick` makes of its times; the calls take turns."""
    times = [[] for _ in calls]
    for turn in range(repeats + 2):  # two turns to warm up
        for call, record in zip(calls, times, strict=True):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn >= 2:
                record.append(time.perf_counter() - start)
    return [pick(record) for record in times]


def machine(device):
    """One line: the processor, the threads, torch's version."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = (line.split(":", 1)[1] for line in info.read_text().splitlines()
                 if line.startswith("model name"))  # fmt: skip
        name = next(lines, name).strip()
    threads = torch.get_num_threads()
    of = "thread" if threads == 1 else "threads"
    return f"{name}, {os.cpu_count()} cores, {threads} {of}, torch {torch.__version__}"


def milliseconds(t):
    """A time in seconds as text, two or three digits of it."""
    text = f"{1e3 * t:.2f} ms" if t < 0.01 else f"{1e3 * t:.0f} ms" if t < 1 else f"{t:.1f} s"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def table(header, rows):
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def publish(name, text, write):
    """Show a benchmark's page; with `write` store it, where the book takes it from."""
    print("\n" + text)
    if write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.md").write_text(text)
