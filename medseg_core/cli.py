"""The command `medseg`: list, show, run, refresh and check the chapters, read their claims.

Exit codes: 0 done, 1 a chapter failed or broke a rule, 2 wrong arguments, 130 interrupted.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from medseg_core import __version__
from medseg_core.chapters.errors import UsageError, unknown

if TYPE_CHECKING:
    from medseg_core.chapters.catalogue import Chapter
    from medseg_core.chapters.check import Verdict
    from medseg_core.chapters.run import RunResult

Command = TypeVar("Command", bound=Callable[..., Any])


class _Group(click.Group):
    """Commands that report wrong arguments by name and end cleanly when interrupted."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise click.UsageError(str(unknown("command", args[0], self.commands)), ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        # What a cluster's scheduler sends: end as Ctrl-C does, the kernel too.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        logging.getLogger("papermill").addHandler(logging.NullHandler())  # we report, once
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the cell that a signal cut short
        try:
            return super().invoke(ctx)
        except UsageError as error:
            click.echo(f"medseg: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("\nmedseg: interrupted; no output was written", err=True)
            ctx.exit(130)
        except SystemExit:
            click.echo("\nmedseg: terminated; no output was written", err=True)
            raise


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--root", type=click.Path(path_type=Path), help="The book's root, if not found from here."
)
@click.version_option(__version__, prog_name="medseg")
@click.pass_context
def main(ctx: click.Context, root: Path | None) -> None:
    """Read, run and check the chapters of the MedSeg Book."""
    ctx.obj = root


def _root(ctx: click.Context) -> Path:
    from medseg_core.chapters.catalogue import find_root

    return Path(ctx.obj).resolve() if ctx.obj else find_root()


def _select(ctx: click.Context, slugs: tuple[str, ...]) -> list[Chapter]:
    from medseg_core.chapters.catalogue import select

    return select(_root(ctx), slugs)


@main.command("list")
@click.pass_context
def list_(ctx: click.Context) -> None:
    """List all notebooks: kind, theme, last run, claims."""
    from medseg_core.chapters import notebook
    from medseg_core.chapters.claims import counts, summary

    chapters = _select(ctx, ())
    width = max((len(c.slug) for c in chapters), default=0)
    for chapter in chapters:
        record = _record(chapter)
        state = "no outputs yet"
        if record:
            state = f"{record.get('scale') or 'run'} in {_duration(record.get('seconds'))}"
            if record.get("code_hash") != notebook.code_hash(chapter.code):
                state += ", outdated"
        payload = notebook.payload(chapter.outputs, notebook.CLAIMS_MIME) or {}
        if payload.get("claims"):
            state += f"; {summary(counts(payload['claims']))}"
        where = f"{chapter.kind:<8}  {chapter.theme or '-'}"
        click.echo(f"{chapter.slug:<{width}}  {where}\n{'':<{width}}  {chapter.title} [{state}]")


@main.command()
@click.argument("slug")
@click.pass_context
def show(ctx: click.Context, slug: str) -> None:
    """Show a chapter: its box, its parameters, its last run."""
    from medseg_core.chapters import notebook
    from medseg_core.chapters.catalogue import find_chapter

    chapter = find_chapter(_root(ctx), slug)
    click.echo(f"{chapter.slug} ({chapter.kind}): {chapter.title}")
    click.echo(f"{chapter.source.relative_to(chapter.root)}\n")
    for line in _glance(chapter):
        click.echo(f"  {line}")
    click.echo("\nParameters (-p name value):")
    for name, about in notebook.parameters(chapter.code).items():
        kind = f"{name}: {about['inferred_type_name']} = {about['default']}"
        click.echo(f"  {kind:<32}  {about['help']}")
    record = _record(chapter)
    if record:
        memory = record.get("peak_memory_mb")
        click.echo(
            f"\nLast run: {record.get('scale')} scale, seed {record.get('seed')}, "
            f"{record.get('device')}, {_duration(record.get('seconds'))}"
            + (f", {memory:.0f} MiB" if memory else "")
            + f", {record.get('date')}"
        )
        if record.get("code_hash") != notebook.code_hash(chapter.code):
            click.echo("The code has changed since.")
    _print_claims(notebook.payload(chapter.outputs, notebook.CLAIMS_MIME))


def _parameter_options(command: Command) -> Command:
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


@main.command()
@click.argument("slug", required=False)
@_parameter_options
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
    medseg run edpcnn --seed 3 --set n_train=20
    medseg run edpcnn --scale paper -p data_dir ~/ACDC -p device cuda
    medseg run --all --scale smoke --workers 2
    """
    from medseg_core.chapters import run as runner
    from medseg_core.chapters.limits import Limits

    given = _given(parameters, settings, short)
    limits = Limits(time_limit, memory_limit)
    if all_:
        if slug or output:
            raise UsageError("--all runs every chapter: give neither a chapter nor --output")
        from medseg_core.chapters.sweeps import command

        where = command.Where(workers, device=str(given.get("device", "auto")))
        options = command.Options(where, limits, again=True, progress=not no_progress)
        ctx.exit(command.run_all(_select(ctx, ()), given, out, options))
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
        _fail(result)
        ctx.exit(1)
    _print_claims(result.claims)
    memory = result.provenance.get("peak_memory_mb")
    click.echo(
        f"\n{_duration(result.seconds)}" + (f", peak memory {memory:.0f} MiB" if memory else "")
    )
    click.echo(_relative(result.output))


@main.command()
@click.argument("slug")
@click.option(
    "-g",
    "grid",
    multiple=True,
    metavar="NAME=V1,V2",
    help="A parameter or setting and its values; several -g: all combinations.",
)
@click.option("--seeds", metavar="0..4", help="0..4, 0..40..10 or 0,3,7.")
@_parameter_options
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
    from medseg_core.chapters.limits import Limits
    from medseg_core.chapters.sweeps import command

    given = _given(parameters, settings, short)
    if sum(map(bool, (workers, scheduler, slurm))) > 1:
        raise UsageError("give one of --workers, --scheduler and --slurm")
    where = command.Where(workers, scheduler, slurm, str(given.get("device", "auto")))
    options = command.Options(
        where, Limits(time_limit, memory_limit), again, not no_progress, title=slug
    )  # fmt: skip
    (chapter,) = _select(ctx, (slug,))
    ctx.exit(command.run_sweep(chapter, grid, seeds, given, out, options, dry_run=dry_run))


@main.command()
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
    from medseg_core.chapters import notebook
    from medseg_core.chapters.refresh import refresh as refresh_one

    if bool(slugs) + all_ + stale != 1:
        raise UsageError("name the chapters to refresh, or give --all or --stale")
    chapters = _select(ctx, slugs)
    if stale:
        chapters = [
            c for c in chapters if _record(c).get("code_hash") != notebook.code_hash(c.code)
        ]
    # The page of all claims reads the others' results, so it comes last.
    failed = False
    for chapter in sorted(chapters, key=lambda c: c.kind == "page"):
        result = refresh_one(chapter, scale=scale, device=device, progress=not no_progress)
        if result.ok:
            where = _relative(result.output)
            click.echo(f"{chapter.slug}: {where}, {_duration(result.seconds)}")
        else:
            _fail(result)
            failed = True
    ctx.exit(int(failed))


@main.command()
@click.argument("slugs", nargs=-1, metavar="[SLUG]...")
@click.pass_context
def check(ctx: click.Context, slugs: tuple[str, ...]) -> None:
    """Check the stored notebooks: in step, up to date, complete, fit for the static page."""
    from medseg_core.chapters.check import check as check_one

    verdicts = []
    for chapter in _select(ctx, slugs):
        verdicts.append(check_one(chapter))
        _print_verdict(verdicts[-1])
    broken = sum(not v.ok for v in verdicts)
    if broken:
        click.echo(f"\nbreaking a rule: {broken} of {len(verdicts)}")
    ctx.exit(int(broken > 0))


@main.command()
@click.argument("slugs", nargs=-1, metavar="[SLUG or NOTEBOOK]...")
@click.pass_context
def claims(ctx: click.Context, slugs: tuple[str, ...]) -> None:
    """Print the stored claims of chapters, or of a run's output."""
    from medseg_core.chapters import notebook
    from medseg_core.chapters.claims import read

    paths = [Path(s) for s in slugs if s.endswith(".ipynb")]
    for path in paths:
        if not path.is_file():
            raise UsageError(f"there is no notebook {str(path)!r}")
        click.echo(f"{path}")
        _print_claims(notebook.payload(notebook.read_stored(path), notebook.CLAIMS_MIME), "  none")
    named = tuple(s for s in slugs if not s.endswith(".ipynb"))
    if named or not paths:
        chapters = _select(ctx, named)
        shown = {c.slug for c in read(chapters)} | set(named)
        for chapter in chapters:
            if chapter.slug in shown:
                click.echo(f"{chapter.slug}: {chapter.title}")
                payload = notebook.payload(chapter.outputs, notebook.CLAIMS_MIME)
                _print_claims(payload, "  no claims stored yet")
                click.echo()


def _given(
    parameters: tuple[tuple[str, str], ...], settings: tuple[str, ...], short: dict[str, Any]
) -> dict[str, Any]:
    """All the ways to name a parameter, in one dict; the same one twice is refused."""
    from medseg_core.chapters.parameters import merge_overrides, parse_value

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


def _fail(result: RunResult) -> None:
    click.echo(f"\n{result.failure.report()}\n", err=True)
    click.echo(f"Notebook with the traceback: {_relative(result.output)}", err=True)


def _print_claims(payload: dict[str, Any] | None, otherwise: str = "") -> None:
    from medseg_core.chapters.claims import plain

    if payload and payload.get("claims"):
        click.echo("\n" + plain(payload))
    elif otherwise:
        click.echo(otherwise)


def _print_verdict(verdict: Verdict) -> None:
    count = len(verdict.problems)
    word = "ok" if verdict.ok else f"{count} problem{'s' if count > 1 else ''}"
    click.echo(f"{verdict.chapter.slug} ({verdict.chapter.kind}): {word}")
    for rule, message in verdict.problems:
        click.echo(f"  [{rule}] {message}")
    for note in verdict.notes:
        click.echo(f"  note: {note}")


def _record(chapter: Chapter) -> dict[str, Any]:
    return chapter.outputs.metadata.get("medseg", {}) if chapter.outputs is not None else {}


def _glance(chapter: Chapter) -> list[str]:
    """What stands in the first cell's box, or the first cell where it has none."""
    first = chapter.code.cells[0].source if chapter.code.cells else ""
    lines = first.split("At a glance", 1)[-1].splitlines()
    fences = ("# ", ":::", "```", ":class:")
    return [line for line in lines if line.strip() and not line.startswith(fences)]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _relative(path: str) -> str:
    if "://" in path:
        return path
    absolute = Path(path).absolute()
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)
