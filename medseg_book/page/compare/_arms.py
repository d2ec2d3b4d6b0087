"""Arms of a comparison: the same seeds, the same budget, one table."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch

from medseg_book.page.compare import _bars
from medseg_book.page.compare._results import Record, Results, record_of, unequal
from medseg_core import checks
from medseg_core.rng import seed_all

Arm = Callable[[int], Mapping[str, Any]]


def run_arms(
    arms: Mapping[str, Arm],
    seeds: Sequence[int],
    *,
    budget: str | None = None,
    workers: int = 1,
) -> Results:
    """Run every arm with every seed, and refuse a comparison of unequal budgets.

    Each run starts from ``rng.seed_all(seed)``. All chapters compare through it.

    Args:
        arms: name -> function of the seed. It returns a dict with ``"updates"`` and ``"images"``
            (what training consumed; ``History`` has both), optionally ``"extras"`` (a dict kept as
            it is: models, histories, predictions), and its metrics: a scalar, or a vector with one
            value per case, NaN = excluded.
        seeds: distinct integers.
        budget: None demands the same updates and images of every run; "declared" does not, and the
            chapter then says why.
        workers: processes that share the (arm, seed) runs, torch's threads divided among them;
            arms may be closures of a notebook. The results are those of ``workers=1`` with the
            same number of threads per run.

    Raises:
        ValueError: no arm or seed, a result without updates or images, unequal budgets.
        RuntimeError: an arm failed; names the arm and the seed, the cause is chained.

    Taught in: all chapters.
    """
    checks.choice(budget, "budget", (None, "declared"))
    seeds = [int(seed) for seed in seeds]
    if not arms or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"arms and seeds must not be empty, seeds distinct; got {list(arms)} and {seeds}"
        )
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    jobs = [(name, seed) for seed in seeds for name in arms]
    records: list[Record] = []
    with _bars.bar(len(jobs), "arms") as bar:
        run = _here(arms, jobs) if workers == 1 else _in_processes(arms, jobs, workers)
        for record in run:
            records.append(record)
            if budget is None and (said := unequal(records[0], record)):
                raise ValueError(f'{said}; make them equal, or pass budget="declared" and say why')
            bar.set_postfix({"last": f"{record.arm}, seed {record.seed}"}, refresh=False)
            bar.update()
    order = {name: i for i, name in enumerate(arms)}
    return Results(sorted(records, key=lambda r: (order[r.arm], seeds.index(r.seed))))


def _here(arms: Mapping[str, Arm], jobs: list[tuple[str, int]]) -> Iterator[Record]:
    for name, seed in jobs:
        yield _run(arms[name], name, seed)


def _in_processes(
    arms: Mapping[str, Arm], jobs: list[tuple[str, int]], workers: int
) -> Iterator[Record]:
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky import get_reusable_executor

    threads = max(1, torch.get_num_threads() // workers)
    try:
        with parallel_config(backend="loky", inner_max_num_threads=threads):
            pool = Parallel(n_jobs=workers, return_as="generator_unordered", max_nbytes=None)
            yield from pool(
                delayed(_run)(arms[name], name, seed, threads, os.getpid()) for name, seed in jobs
            )
    finally:
        get_reusable_executor().shutdown(wait=True)  # idle workers would hold their memory


def _run(arm: Arm, name: str, seed: int, threads: int | None = None, owner: int = 0) -> Record:
    if threads is not None:
        _end_with(owner)
        torch.set_num_threads(threads)
    started = time.perf_counter()
    try:
        seed_all(seed)
        out = dict(arm(seed))
    except Exception as error:
        raise RuntimeError(f"arm {name!r}, seed {seed}: {type(error).__name__}: {error}") from error
    seconds = time.perf_counter() - started
    missing = [key for key in ("updates", "images") if key not in out]
    if missing:
        raise ValueError(f"arm {name!r} must return {missing}, got the keys {sorted(out)}")
    return record_of(name, seed, out, seconds)


@cache  # once per process
def _end_with(owner: int) -> None:
    """In a worker: end soon after the process that shares out the runs, should that be killed.

    joblib's workers would first finish their run, which can last for hours.
    """
    import psutil

    def watch() -> None:
        parent.wait()  # returns when that process is gone
        signal.raise_signal(signal.SIGTERM)  # this worker's own, with its usual end

    if os.getppid() == owner:  # where joblib may start no process, this is no worker
        parent = psutil.Process(owner)
        threading.Thread(target=watch, daemon=True).start()
