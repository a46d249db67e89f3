"""The command line."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=True, help="Carries events to every open dashboard.")


@app.callback()
def root() -> None:
    """Carry events to every open dashboard: in order, each applied once."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on.")] = None,
    engine: Annotated[str | None, typer.Option(help="memory:, sqlite:///path or nats://…")] = None,
    token: Annotated[str | None, typer.Option(help="What clients must show.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with settings.")] = None,
) -> None:
    """Serve the dashboard, HTTP and Socket.IO."""
    from steadcast.config import load
    from steadcast.serve import serve as run

    sys.exit(run(load(config, host=host, port=port, engine=engine, token=token)))


def main() -> None:
    """Run the command line."""
    app()
