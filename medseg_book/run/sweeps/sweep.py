"""Run many points on a Dask client into one folder: what is there stays, the rest is run.

The folder is the only state. A point's notebook appears whole or not at all, and the table is made
from the notebooks; so a sweep that was killed at any moment goes on where it stopped.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from medseg_book.run import notebook
from medseg_book.run.errors import UsageError
from medseg_book.run.limits import Limits
from medseg_book.run.parameters import check

from . import table
from .grid import Point
from .point import DONE, LOST, Job, Outcome, one_line, run_point
from .storage import Folder

if TYPE_CHECKING:
    from distributed import Client

POLL_SECONDS = 0.2


@dataclass
class Plan:
    """What is to be run, and what the folder holds already."""

    folder: Folder
    jobs: list[Job]
    rows: dict[str, table.Row] = field(default_factory=dict)  # by point
    done: list[str] = field(default_factory=list)  # points of this sweep that need no run
    outdated: list[str] = field(default_factory=list)  # done with other code: they run again


def plan(
    points: Sequence[Point],
    sources: Mapping[str, Path],
    folder: Folder,
    *,
    limits: Limits | None = None,
    again: bool = False,
) -> Plan:
    """Check all points, look at what the folder holds, and list what is missing or failed.

    `sources` are the notebooks by slug. With `again` all points are run.

    Raises:
        UsageError: for a parameter that the chapter does not take, and for a folder that holds a
            point of the same name with other parameters.
    """
    read = {slug: notebook.read_source(path) for slug, path in sources.items()}
    hashes = {slug: notebook.code_hash(nb) for slug, nb in read.items()}
    declared = {slug: notebook.parameters(nb) for slug, nb in read.items()}
    plan = Plan(folder, [], stored_rows(folder))
    for point in points:
        given = check(point.given, declared[point.slug])
        row = plan.rows.get(point.name)
        if row:
            _same_parameters(row, point, given, folder)
        current = row is not None and row["code_hash"] == hashes[point.slug]
        if row and row["status"] == DONE and current and not again:
            plan.done.append(point.name)
            continue
        if row and row["status"] == DONE and not current:
            plan.outdated.append(point.name)
        output = folder.path(point.name + table.SUFFIX)
        source, code = str(sources[point.slug]), hashes[point.slug]
        job = Job(point.name, point.slug, source, code, given, output, limits or Limits())
        plan.jobs.append(job)
    return plan


def stored_rows(folder: Folder) -> dict[str, table.Row]:
    """The rows of all notebooks in the folder, by point; of a done and a failed one the later.

    Over a network the stored table is believed for the notebooks that it names.
    """
    names = folder.names()
    known: dict[str, table.Row] = {}
    if folder.remote and table.NAME in names:
        known = {row["notebook"]: row for row in table.parse(folder.read(table.NAME))}
    rows: dict[str, table.Row] = {}
    for file in sorted(names):
        point = table.point_of(file)
        row = known.get(file) or (_row(folder, point, file) if point else None)
        if row and str(row["date"]) >= str(rows.get(point, {}).get("date", "")):
            rows[point] = row
    return rows


def run(plan: Plan, client: Client) -> Iterator[Outcome]:
    """Run the plan's jobs on the client; yields each outcome once its row is in the table.

    Ends early, with everything cancelled, when the consumer stops (Ctrl-C).

    Raises:
        UsageError: if the scheduler goes away.
    """
    # A key of its own for each submission: a scheduler that stays may still know an earlier one.
    stamp = uuid.uuid4().hex[:8]
    waiting, running = deque(plan.jobs), {}
    try:
        while waiting or running:
            # Dask hands out all that it has been given, and blames a dead worker's whole queue for
            # its death. So it is given no more than can run at once: only a culprit gets lost.
            for _ in range(min(_slots(client) - len(running), len(waiting))):
                job = waiting.popleft()
                future = client.submit(run_point, job, key=f"{job.name}-{stamp}", pure=False)
                running[future] = job
            for future in [future for future in running if future.done()]:
                job = running.pop(future)
                outcome = _outcome(future, job)
                future.release()
                keep(plan, job, outcome)
                yield outcome
            time.sleep(POLL_SECONDS)
    finally:
        for future in running:
            with suppress(Exception):  # the scheduler may be gone
                future.cancel(force=True)


def _slots(client: Client) -> int:
    """Points that the workers of this moment take at a time; SLURM's jobs come one by one."""
    try:
        return sum(client.nthreads().values())
    except (OSError, TimeoutError) as error:
        raise UsageError(f"the Dask scheduler has gone ({one_line(error)})") from None


def keep(plan: Plan, job: Job, outcome: Outcome) -> None:
    """Put a point's row into the table, and the table into the folder.

    A disk that is full must not end the sweep: the next point tries again, and so does the next
    sweep, which reads the notebooks.
    """
    row = None
    if outcome.notebook:
        with suppress(OSError):
            row = _row(plan.folder, job.name, outcome.notebook.rsplit("/", 1)[-1])
    plan.rows[job.name] = row or table.lost(outcome, job.slug, job.given, job.code_hash)
    with suppress(OSError):
        write_table(plan)


def write_table(plan: Plan) -> None:
    plan.folder.write(table.NAME, table.write(plan.rows.values()))


def _outcome(future: Any, job: Job) -> Outcome:
    try:
        return future.result()
    except Exception as error:
        # KilledWorker: three workers died with it. Anything else is Dask's, not the chapter's.
        said = one_line(error)
        if type(error).__name__ == "KilledWorker":
            said = "the workers that ran it died (out of memory, or killed from outside)"
        return Outcome(job.name, LOST, error=said, report=f"{job.name}: {said}")


def _row(folder: Folder, point: str, file: str) -> table.Row | None:
    try:
        nb = nbformat.reads(folder.read(file), as_version=4)
    except (ValueError, KeyError, AttributeError):  # no notebook, or none that can be read
        return None
    return table.row(point, file, nb)


def _same_parameters(row: table.Row, point: Point, given: dict[str, Any], folder: Folder) -> None:
    now = table.parameter_columns(given)
    then = {k: v for k, v in row.items() if k.startswith("param.") and v != ""}
    other = sorted(k for k in {*now, *then} if now.get(k) != then.get(k))
    if other:
        names = ", ".join(name.removeprefix("param.") for name in other)
        raise UsageError(
            f"out: {folder} holds the point {point.name} with other parameters ({names}); "
            "name another folder with --out"
        )
