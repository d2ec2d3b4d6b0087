"""The command `medseg`: list, show, run, sweep, refresh, check and copy the chapters, read claims.

Exit codes: 0 done, 1 a chapter failed or broke a rule, 2 wrong arguments, 130 interrupted.
"""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Any

import click

from medseg_book.run.errors import UsageError, unknown
from medseg_core import __version__

from . import read, running, working


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
        except BrokenPipeError:  # of `medseg list | head`; click knows what to do
            raise
        except OSError as error:  # a full disk, a folder that cannot be written
            where = f": {error.filename}" if error.filename else ""
            click.echo(f"medseg: {error.strerror or error}{where}", err=True)
            ctx.exit(1)
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


for command in (
    read.list_,
    read.show,
    running.run,
    running.sweep,
    running.refresh,
    read.check,
    read.claims,
    read.doctor,
    working.work,
    working.reset,
):
    main.add_command(command)
