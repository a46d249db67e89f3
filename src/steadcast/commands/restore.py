"""`steadcast restore`."""

from __future__ import annotations

import time
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import Annotated

import typer

from steadcast.commands.exits import Exit, leave
from steadcast.commands.options import Config  # noqa: TC001 - see Path


def restore(
    backup: Annotated[Path, typer.Argument(help="The copy of a log, one file.", exists=True, dir_okay=False)],
    *,
    engine: Annotated[str | None, typer.Option(help="sqlite:///path of the log.", metavar="URL")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Move a log that is there aside.")] = False,
    config: Config = None,
) -> None:
    """Put a backup in the place of the log, under a new epoch; the server must be stopped.

    Every subscriber is then told that the log is another one, and shows what the backup has.
    """
    from steadcast.commands.settings import settings_or_leave
    from steadcast.engines import sqlite_path
    from steadcast.engines.sqlite_restore import restore as put_back

    target = sqlite_path(settings_or_leave(config, engine=engine).engine)
    aside = target.with_name(f"{target.name}.before-{time.strftime('%Y%m%d-%H%M%S')}") if replace else None
    try:
        epoch = put_back(backup, target, aside=aside if target.exists() else None)
    except OSError as error:
        leave(Exit.FAILED, f"{error.filename}: {error.strerror}")
    typer.echo(f"{target}: restored from {backup}, epoch {epoch}")
    if aside is not None and aside.exists():
        typer.echo(f"the log as it was: {aside}")
