"""The tree of commands with their options, as typer reads them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from steadcast.commands import dead, demo, doctor, hooks, migrate, publish, restore, serve, tail, trim
from steadcast.commands.exits import MEANINGS, leave_with, own_output
from steadcast.errors import SteadcastError
from steadcast.version import __version__

EXIT_CODES = "\n\n".join(["Exit codes:", *(f"{code:>3d}  {meaning}" for code, meaning in MEANINGS.items())])

app = typer.Typer(
    name="steadcast",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog=EXIT_CODES,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"steadcast {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Carry events to every open dashboard: in order, each applied once."""


@app.command()
def hook() -> None:
    """Take a coding agent's hook from standard input to the server.

    Always exits 0 and prints nothing. The event is spooled first; the server then gets at most 300 ms.
    """
    # `cli.main` takes a short way to the same, so that an agent never waits for this module.
    from steadcast.client.hook import main

    sys.exit(main())


app.command()(serve.serve)
app.command()(publish.publish)
app.command()(tail.tail)
app.add_typer(hooks.app)
app.add_typer(dead.app)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command()(trim.trim)
app.command()(restore.restore)
app.command()(migrate.migrate)


def run() -> None:
    """Run the command that was asked for; errors of the tree become one line and an exit code."""
    try:
        with own_output():
            app(prog_name="steadcast")
    except SteadcastError as error:
        leave_with(error)
