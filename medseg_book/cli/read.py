"""Commands that look and tell: list, show, check, claims, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from medseg_book.run.duration import duration
from medseg_book.run.errors import UsageError

from .common import last_run, print_claims, root, select

if TYPE_CHECKING:
    from medseg_book.run.catalogue import Chapter
    from medseg_book.run.check import Verdict


@click.command("list")
@click.pass_context
def list_(ctx: click.Context) -> None:
    """List all notebooks: kind, theme, last run, claims."""
    from medseg_book.run import notebook
    from medseg_book.run.ledger import counts, summary

    chapters = select(ctx, ())
    width = max((len(c.slug) for c in chapters), default=0)
    for chapter in chapters:
        record = last_run(chapter)
        state = "no outputs yet"
        if record:
            state = f"{record.get('scale') or 'run'} in {duration(record.get('seconds'))}"
            if record.get("code_hash") != notebook.code_hash(chapter.code):
                state += ", outdated"
        payload = notebook.payload(chapter.outputs, notebook.CLAIMS_MIME) or {}
        if payload.get("claims"):
            state += f"; {summary(counts(payload['claims']))}"
        where = f"{chapter.kind:<8}  {chapter.theme or '-'}"
        click.echo(f"{chapter.slug:<{width}}  {where}\n{'':<{width}}  {chapter.title} [{state}]")


@click.command()
@click.argument("slug")
@click.pass_context
def show(ctx: click.Context, slug: str) -> None:
    """Show a chapter: its box, its parameters, its last run."""
    from medseg_book.run import notebook
    from medseg_book.run.catalogue import find_chapter

    chapter = find_chapter(root(ctx), slug)
    click.echo(f"{chapter.slug} ({chapter.kind}): {chapter.title}")
    click.echo(f"{chapter.source.relative_to(chapter.root)}\n")
    for line in _glance(chapter):
        click.echo(f"  {line}")
    click.echo("\nParameters (-p name value):")
    for name, about in notebook.parameters(chapter.code).items():
        kind = f"{name}: {about['inferred_type_name']} = {about['default']}"
        click.echo(f"  {kind:<32}  {about['help']}")
    record = last_run(chapter)
    if record:
        memory = record.get("peak_memory_mb")
        click.echo(
            f"\nLast run: {record.get('scale')} scale, seed {record.get('seed')}, "
            f"{record.get('device')}, {duration(record.get('seconds'))}"
            + (f", {memory:.0f} MiB" if memory else "")
            + f", {record.get('date')}"
        )
        if record.get("code_hash") != notebook.code_hash(chapter.code):
            click.echo("The code has changed since.")
    print_claims(notebook.payload(chapter.outputs, notebook.CLAIMS_MIME))


@click.command()
@click.argument("slugs", nargs=-1, metavar="[SLUG]...")
@click.pass_context
def check(ctx: click.Context, slugs: tuple[str, ...]) -> None:
    """Check the stored notebooks: in step, up to date, complete, fit for the static page."""
    from medseg_book.run.check import check as check_one

    verdicts = []
    for chapter in select(ctx, slugs):
        verdicts.append(check_one(chapter))
        _print_verdict(verdicts[-1])
    broken = sum(not v.ok for v in verdicts)
    if broken:
        click.echo(f"\nbreaking a rule: {broken} of {len(verdicts)}")
    ctx.exit(int(broken > 0))


@click.command()
@click.argument("slugs", nargs=-1, metavar="[SLUG or NOTEBOOK]...")
@click.pass_context
def claims(ctx: click.Context, slugs: tuple[str, ...]) -> None:
    """Print the stored claims of chapters, or of a run's output."""
    from medseg_book.run import notebook
    from medseg_book.run.ledger import read

    paths = [Path(s) for s in slugs if s.endswith(".ipynb")]
    for path in paths:
        if not path.is_file():
            raise UsageError(f"there is no notebook {str(path)!r}")
        click.echo(f"{path}")
        print_claims(notebook.payload(notebook.read_stored(path), notebook.CLAIMS_MIME), "  none")
    named = tuple(s for s in slugs if not s.endswith(".ipynb"))
    if named or not paths:
        chapters = select(ctx, named)
        shown = {c.slug for c in read(chapters)} | set(named)
        for chapter in chapters:
            if chapter.slug in shown:
                click.echo(f"{chapter.slug}: {chapter.title}")
                payload = notebook.payload(chapter.outputs, notebook.CLAIMS_MIME)
                print_claims(payload, "  no claims stored yet")
                click.echo()


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="A folder of real data sets.")
@click.pass_context
def doctor(ctx: click.Context, data: Path | None) -> None:
    """Say what this machine has for the book, what will be slow and what is missing."""
    from medseg_book.run.doctor import examine, plain

    report = examine(root(ctx), data)
    click.echo(plain(report))
    ctx.exit(int(not report.ok))


def _print_verdict(verdict: Verdict) -> None:
    count = len(verdict.problems)
    word = "ok" if verdict.ok else f"{count} problem{'s' if count > 1 else ''}"
    click.echo(f"{verdict.chapter.slug} ({verdict.chapter.kind}): {word}")
    for rule, message in verdict.problems:
        click.echo(f"  [{rule}] {message}")
    for note in verdict.notes:
        click.echo(f"  note: {note}")


def _glance(chapter: Chapter) -> list[str]:
    """What stands in the first cell's box, or the first cell where it has none."""
    first = chapter.code.cells[0].source if chapter.code.cells else ""
    lines = first.split("At a glance", 1)[-1].splitlines()
    fences = ("# ", ":::", "```", ":class:")
    return [line for line in lines if line.strip() and not line.startswith(fences)]
