"""What the commands share: the book's root, the chosen chapters, how results are printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from medseg_book.run.catalogue import Chapter


def root(ctx: click.Context) -> Path:
    from medseg_book.run.catalogue import find_root

    return Path(ctx.obj).resolve() if ctx.obj else find_root()


def select(ctx: click.Context, slugs: tuple[str, ...]) -> list[Chapter]:
    from medseg_book.run.catalogue import select

    return select(root(ctx), slugs)


def last_run(chapter: Chapter) -> dict[str, Any]:
    return chapter.outputs.metadata.get("medseg", {}) if chapter.outputs is not None else {}


def print_claims(payload: dict[str, Any] | None, otherwise: str = "") -> None:
    from medseg_book.run.ledger import plain

    if payload and payload.get("claims"):
        click.echo("\n" + plain(payload))
    elif otherwise:
        click.echo(otherwise)


def relative(path: str) -> str:
    if "://" in path:
        return path
    absolute = Path(path).absolute()
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)
