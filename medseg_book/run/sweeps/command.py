"""From the options of the command line to a finished folder: plan, pool, bar, table, summary."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medseg_book.run import notebook
from medseg_book.run.catalogue import Chapter
from medseg_book.run.errors import UsageError
from medseg_book.run.limits import Limits

from . import pool, printout, slurm, sweep, table
from .grid import Point, expand, parse_seeds, parse_values
from .point import DONE, one_line
from .storage import Folder

if TYPE_CHECKING:
    from distributed import Client

SUMMARY = "summary.ipynb"


@dataclass(frozen=True)
class Where:
    """Where points run: `workers` here (None: by the machine), or a scheduler, or SLURM."""

    workers: int | None = None
    scheduler: str | None = None
    slurm: Path | None = None
    device: str = "auto"

    def count(self) -> int | None:
        """Points at a time, as far as it is known beforehand."""
        if self.slurm:
            return slurm.read(self.slurm)["jobs"]
        if self.scheduler:
            return None
        return self.workers or pool.default_workers(self.device, pool.gpus(self.device))

    def client(self, jobs: int) -> AbstractContextManager[Client]:
        """The Dask client; no more workers than jobs."""
        if self.slurm:
            return slurm.client(self.slurm)
        if self.scheduler:
            return pool.remote(self.scheduler)
        return pool.here(min(self.count(), jobs), pool.gpus(self.device))


@dataclass(frozen=True)
class Options:
    """What a sweep can be told beside its points."""

    where: Where = field(default_factory=Where)
    limits: Limits = field(default_factory=Limits)
    again: bool = False
    progress: bool = True
    title: str = ""  # of the summary notebook; "" makes none


def run_sweep(
    chapter: Chapter,
    grid: Sequence[str],
    seeds: str | None,
    given: Mapping[str, Any],
    out: str | None,
    options: Options,
    *,
    dry_run: bool = False,
) -> int:
    """`medseg sweep`: the grid as typed (`["n_train=10,20"]`) beside the fixed parameters."""
    typed: dict[str, list[Any]] = {}
    for text in grid:
        name, equals, values = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"-g takes NAME=VALUE,VALUE, got {text!r}")
        if name.strip() in typed:
            raise UsageError(f"-g {name.strip()} is given twice")
        typed[name.strip()] = parse_values(values, name.strip())
    if not typed and not seeds:
        raise UsageError("nothing to sweep: give -g NAME=VALUE,VALUE or --seeds 0..4")
    points = expand(chapter.slug, chapter.code, typed, parse_seeds(seeds) if seeds else (), given)
    scale = given.get("scale", "lesson")
    out = out or Path("runs") / chapter.slug / f"sweep-{scale}"
    if dry_run:
        return _dry_run(points, out, options)
    return run(points, {chapter.slug: chapter}, out, options)


def run_all(
    chapters: Sequence[Chapter], given: Mapping[str, Any], out: str | None, options: Options
) -> int:
    """`medseg run --all`: every notebook that has scales, the slowest first."""
    chosen = {c.slug: c for c in chapters if "scale" in notebook.parameters(c.code)}
    points = [Point(slug, slug, dict(given)) for slug in sorted(chosen, key=_cost(chosen))]
    if out is None:
        now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        out = str(Path("runs") / f"all-{given.get('scale', 'lesson')}-{now}")
    return run(points, chosen, out, options)


def run(
    points: Sequence[Point], chapters: Mapping[str, Chapter], out: str | Path, options: Options
) -> int:
    """Run what is missing, say what happened; the exit code: 0 if every point is done, else 1."""
    folder, started = Folder(out), time.monotonic()
    folder.prepare()
    sources = {slug: chapter.source for slug, chapter in chapters.items()}
    plan = sweep.plan(points, sources, folder, limits=options.limits, again=options.again)
    _announce(plan, len(points))
    names = [point.name for point in points]
    try:
        _run(plan, options)
    except (KeyboardInterrupt, SystemExit) as stop:
        folder.clean()
        plan.rows |= sweep.stored_rows(folder)  # what ended while we were told to stop, too
        with suppress(OSError):
            sweep.write_table(plan)
        done = sum(plan.rows[name]["status"] == DONE for name in names if name in plan.rows)
        said = f"stopped: {done} of {len(names)} points are done; the same command does the rest"
        click.echo(f"\nmedseg: {said}", err=True)
        raise click.exceptions.Exit(getattr(stop, "code", 130)) from None
    folder.clean()  # of points whose worker died
    try:
        sweep.write_table(plan)
        if options.title:
            _summarise(plan, options)
    except (OSError, RuntimeError) as error:  # a full disk; a summary whose notebook fails
        click.echo(f"medseg: cannot write the results: {one_line(error)}", err=True)
        return 1
    except KeyboardInterrupt:
        said = f"stopped while the summary was drawn; all results are in {folder}"
        click.echo(f"\nmedseg: {said}", err=True)
        raise click.exceptions.Exit(130) from None
    rows = [plan.rows[name] for name in names if name in plan.rows]
    click.echo(printout.final(rows, time.monotonic() - started))
    click.echo(f"{folder}/{table.NAME}")
    return int(any(row["status"] != DONE for row in rows) or len(rows) < len(names))


def _run(plan: sweep.Plan, options: Options) -> None:
    if not plan.jobs:
        return
    with options.where.client(len(plan.jobs)) as client:
        present = sum(client.nthreads().values())
        if not present:
            click.echo("no worker is there yet; waiting for the first", err=True)
        slots = options.where.count() or present or 1
        with printout.Bar(len(plan.jobs), slots, show=options.progress) as bar:
            for outcome in sweep.run(plan, client):
                bar(outcome)


def _cost(chapters: Mapping[str, Chapter]) -> Callable[[str], float]:
    """By the last stored run: long runs first leave no worker idle at the end."""

    def seconds(slug: str) -> float:
        stored = chapters[slug].outputs
        return -((stored.metadata.get("medseg", {}).get("seconds") or 0) if stored else 0)

    return seconds


def _dry_run(points: Sequence[Point], out: str | Path, options: Options) -> int:
    click.echo(f"{len(points)} points in {Folder(out)}:")
    for point in points:
        click.echo(f"  {point.name}")
    if options.where.slurm:
        click.echo("\nWhat would be submitted, as often as `jobs` says:\n")
        click.echo(slurm.script(options.where.slurm))
    return 0


def _announce(plan: sweep.Plan, total: int) -> None:
    parts = [f"{total} point{'s' if total > 1 else ''} in {plan.folder}"]
    if plan.done:
        parts.append(f"{len(plan.done)} done already")
    if plan.outdated:
        parts.append(f"{len(plan.outdated)} done with other code, which run again")
    click.echo(", ".join(parts), err=True)


def _summarise(plan: sweep.Plan, options: Options) -> None:
    """The summary notebook, unless nothing has changed since it was written."""
    if not plan.jobs and SUMMARY in plan.folder.names():
        return
    from . import summary

    with tempfile.TemporaryDirectory(prefix="medseg-summary-") as scratch:
        csv, out = Path(scratch) / table.NAME, Path(scratch) / SUMMARY
        csv.write_text(plan.folder.read(table.NAME), encoding="utf-8")
        summary.write(csv, out, title=options.title)
        plan.folder.write(SUMMARY, out.read_text(encoding="utf-8"))
