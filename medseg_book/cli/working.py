"""Commands for who works in JupyterLab: work, reset."""

from __future__ import annotations

import click

from .common import relative, root, select


@click.command()
@click.pass_context
def work(ctx: click.Context) -> None:
    """Copy the chapters into work/, where you may change them.

    A copy that you have changed stays as it is.
    """
    from medseg_book.run import work as copies

    behind = copies.bring(select(ctx, ()))
    click.echo(f"The chapters are in {relative(str(root(ctx) / copies.FOLDER))}/.")
    for chapter in behind:
        mine = relative(str(copies.path(chapter)))
        click.echo(
            f"{mine} is your own, and the book's is newer: medseg reset {chapter.slug} brings it, "
            "and keeps yours beside it"
        )


@click.command()
@click.argument("slugs", nargs=-1, required=True, metavar="SLUG...")
@click.pass_context
def reset(ctx: click.Context, slugs: tuple[str, ...]) -> None:
    """Bring chapters in work/ back as the book has them; your own are kept beside them."""
    from medseg_book.run import work as copies

    for chapter in select(ctx, slugs):
        kept = copies.reset(chapter)
        click.echo(
            f"{relative(str(copies.path(chapter)))} is the book's again"
            + (f"; yours is {relative(str(kept))}" if kept else "")
        )
