"""Commands that run chapters: run, sweep, refresh."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from medseg_book.run.duration import duration
from medseg_book.run.errors import UsageError

from .common import last_run, print_claims, relative, select

if TYPE_CHECKING:
    from medseg_book.run.run import RunResult

Command = TypeVar("Command", bound=Callable[..., Any])


def parameter_options(command: Command) -> Command:
    """-p, --set and their short forms, for commands that run chapters."""
    for option in reversed(
        (
            click.option(
                "-p",
                "parameters",
                nargs=2,
                multiple=True,
                metavar="NAME VALUE",
                help="A parameter; VALUE as in YAML, e.g. -p overrides '{n_train: 20}'.",
            ),
            click.option(
                "--set",
                "settings",
                multiple=True,
                metavar="KEY=VALUE",
                help="One of the chapter's settings; short for -p overrides '{KEY: VALUE}'.",
            ),
            click.option("--scale", help="smoke | lesson | paper; short for -p scale ..."),
            click.option("--device", help="auto | cpu | cuda | cuda:1 | mps; short for -p ..."),
            click.option("--time-limit", type=float, metavar="SECONDS", help="Of each run."),
            click.option("--memory-limit", type=float, metavar="MIB", help="Of each run."),
            click.option("--no-progress", is_flag=True, help="No progress bar."),
        )
    ):
        command = option(command)
    return command


@click.command()
@click.argument("slug", required=False)
@parameter_options
@click.option("--seed", type=int, help="Short for -p seed ...")
@click.option("-o", "--output", help="Executed notebook; default: runs/SLUG/... here.")
@click.option("--all", "all_", is_flag=True, help="Every notebook that has scales, side by side.")
@click.option("--workers", type=click.IntRange(1), help="With --all: runs at a time.")
@click.option("--out", metavar="FOLDER", help="With --all: folder or s3://... of the notebooks.")
@click.pass_context
def run(
    ctx: click.Context,
    slug: str | None,
    parameters: tuple[tuple[str, str], ...],
    settings: tuple[str, ...],
    output: str | None,
    time_limit: float | None,
    memory_limit: float | None,
    no_progress: bool,
    all_: bool,
    workers: int | None,
    out: str | None,
    **short: Any,
) -> None:
    """Run a chapter (a slug, or the path of a notebook) with your parameters.

    \b
    medseg run edpcnn --scale smoke
    medseg run edpcnn --seed 3 --set 'n_train=[20]'
    medseg run edpcnn --scale paper -p dataset acdc -p data_dir ~/ACDC --device cuda
    medseg run --all --scale smoke --workers 2
    """
    from medseg_book.run import run as runner
    from medseg_book.run.limits import Limits

    given = given_parameters(parameters, settings, short)
    limits = Limits(time_limit, memory_limit)
    if all_:
        if slug or output:
            raise UsageError("--all runs every chapter: give neither a chapter nor --output")
        from medseg_book.run.sweeps import command

        where = command.Where(workers, device=str(given.get("device", "auto")))
        options = command.Options(where, limits, again=True, progress=not no_progress)
        ctx.exit(command.run_all(select(ctx, ()), given, out, options))
    if not slug:
        raise UsageError("name the chapter to run, or give --all")
    if workers or out:
        raise UsageError("--workers and --out belong to --all; one run's file is --output")
    root = Path(ctx.obj).resolve() if ctx.obj else None
    prepared = runner.prepare(slug, given, root=root)
    if prepared.note:
        click.echo(prepared.note, err=True)
    if output is None:
        target = runner.default_output(prepared)
        target.parent.mkdir(parents=True, exist_ok=True)
        output = str(target)
    result = runner.execute(
        slug, output, given, progress=not no_progress, root=root, limits=limits
    )  # fmt: skip
    if not result.ok:
        fail(result)
        ctx.exit(1)
    print_claims(result.claims)
    memory = result.provenance.get("peak_memory_mb")
    click.echo(
        f"\n{duration(result.seconds)}" + (f", peak memory {memory:.0f} MiB" if memory else "")
    )
    click.echo(relative(result.output))


@click.command()
@click.argument("slug")
@click.option(
    "-g",
    "grid",
    multiple=True,
    metavar="NAME=V1,V2",
    help="A parameter or setting and its values; several -g: all combinations.",
)
@click.option("--seeds", metavar="0..4", help="0..4, 0..40..10 or 0,3,7.")
@parameter_options
@click.option("--workers", type=click.IntRange(1), help="Runs at a time on this machine.")
@click.option("--scheduler", metavar="tcp://...", help="A Dask cluster that is there already.")
@click.option("--slurm", type=click.Path(path_type=Path), metavar="SETTINGS.YAML", help="SLURM.")
@click.option("--dry-run", is_flag=True, help="Show the points and, with --slurm, the job script.")
@click.option("--again", is_flag=True, help="Run all points, those that are done as well.")
@click.option("--out", metavar="FOLDER", help="Folder or s3://...; default: runs/SLUG/sweep-SCALE.")
@click.pass_context
def sweep(
    ctx: click.Context,
    slug: str,
    grid: tuple[str, ...],
    seeds: str | None,
    parameters: tuple[tuple[str, str], ...],
    settings: tuple[str, ...],
    time_limit: float | None,
    memory_limit: float | None,
    no_progress: bool,
    workers: int | None,
    scheduler: str | None,
    slurm: Path | None,
    dry_run: bool,
    again: bool,
    out: str | None,
    **short: Any,
) -> None:
    """Run a chapter at every point of a grid, into one folder with one table.

    The same command again runs only what is missing or failed.

    \b
    medseg sweep edpcnn -g steps=100,200 --seeds 0..40..10 --scale smoke
    medseg sweep edpcnn -g sigma=0.5,1,2 --workers 4 --out runs/sigma
    medseg sweep edpcnn --seeds 0..4 --slurm cluster.yaml --out s3://bucket/edpcnn
    """
    from medseg_book.run.limits import Limits
    from medseg_book.run.sweeps import command

    given = given_parameters(parameters, settings, short)
    if sum(map(bool, (workers, scheduler, slurm))) > 1:
        raise UsageError("give one of --workers, --scheduler and --slurm")
    where = command.Where(workers, scheduler, slurm, str(given.get("device", "auto")))
    options = command.Options(
        where, Limits(time_limit, memory_limit), again, not no_progress, title=slug
    )  # fmt: skip
    (chapter,) = select(ctx, (slug,))
    ctx.exit(command.run_sweep(chapter, grid, seeds, given, out, options, dry_run=dry_run))


@click.command()
@click.argument("slugs", nargs=-1, metavar="[SLUG]...")
@click.option("--all", "all_", is_flag=True, help="Every notebook of the book.")
@click.option("--stale", is_flag=True, help="Those whose outputs do not belong to their code.")
@click.option("--scale", default="lesson", show_default=True, help="Another one only to try out.")
@click.option("--device", default="cpu", show_default=True, help="Another one only to try out.")
@click.option("--no-progress", is_flag=True, help="No progress bar.")
@click.pass_context
def refresh(
    ctx: click.Context,
    slugs: tuple[str, ...],
    all_: bool,
    stale: bool,
    scale: str,
    device: str,
    no_progress: bool,
) -> None:
    """Run chapters from their source (.py) and store them with their outputs (.ipynb)."""
    from medseg_book.run import notebook
    from medseg_book.run.differences import differences
    from medseg_book.run.refresh import refresh as refresh_one

    if bool(slugs) + all_ + stale != 1:
        raise UsageError("name the chapters to refresh, or give --all or --stale")
    chapters = select(ctx, slugs)
    if stale:
        chapters = [
            c for c in chapters if last_run(c).get("code_hash") != notebook.code_hash(c.code)
        ]
    # The ledger and the status page read the others' results, so they come last.
    failed = False
    for chapter in sorted(chapters, key=lambda c: c.kind == "page"):
        before = notebook.payload(chapter.outputs, notebook.CLAIMS_MIME)
        result = refresh_one(chapter, scale=scale, device=device, progress=not no_progress)
        if result.ok:
            where = relative(result.output)
            click.echo(f"{chapter.slug}: {where}, {duration(result.seconds)}")
            if before and result.claims:
                moved = differences(before, result.claims)
                lines = [f"  {line}" for line in moved] or ["  claims as in the run before"]
                click.echo("\n".join(lines))
        else:
            fail(result)
            failed = True
    ctx.exit(int(failed))


def given_parameters(
    parameters: tuple[tuple[str, str], ...], settings: tuple[str, ...], short: dict[str, Any]
) -> dict[str, Any]:
    """All the ways to name a parameter, in one dict; the same one twice is refused."""
    from medseg_book.run.parameters import merge_overrides, parse_value

    given: dict[str, Any] = {}
    for name, text in parameters:
        if name in given:
            raise UsageError(f"parameter {name!r} is given twice")
        given[name] = parse_value(text, name)
    for name, value in short.items():
        if value is not None and given.setdefault(name, value) != value:
            raise UsageError(f"{name} is given twice: --{name} {value} and -p {name} {given[name]}")
    pairs = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set takes KEY=VALUE, got {setting!r}")
        pairs.append((key.strip(), parse_value(text, key)))
    return merge_overrides(given, pairs)


def fail(result: RunResult) -> None:
    click.echo(f"\n{result.failure.report()}\n", err=True)
    click.echo(f"Notebook with the traceback: {relative(result.output)}", err=True)
