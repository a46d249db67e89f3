"""`steadcast serve`."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from steadcast.commands.exits import Exit, leave, tell
from steadcast.commands.options import Config  # noqa: TC001 - see Path

if TYPE_CHECKING:
    from collections.abc import Callable


def serve(
    *,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 0 takes any.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="memory:, sqlite:///path or nats://host.", metavar="URL")
    ] = None,
    token: Annotated[str | None, typer.Option(help="What clients must show.")] = None,
    certfile: Annotated[Path | None, typer.Option(help="TLS: the certificate chain, PEM.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="TLS: the private key, PEM.")] = None,
    config: Config = None,
) -> None:
    """Serve the dashboard, HTTP and Socket.IO.

    A setting is taken from its flag, else from STEADCAST_* in the environment, else from the file, else it
    has its default. Exits 0 after a drain, 2 for wrong settings, 3 where it can't start.
    """
    from steadcast.commands.settings import settings_or_leave

    settings = settings_or_leave(
        config, host=host, port=port, engine=engine, token=token, certfile=certfile, keyfile=keyfile
    )
    _check_tls(settings.certfile, settings.keyfile)
    from steadcast.serve import serve as run

    code = _code_of(lambda: run(settings))
    if code == Exit.NO_SERVER:
        tell("the server couldn't start; steadcast doctor looks at port, engine and disk")
    sys.exit(code)


def _code_of(run: Callable[[], int]) -> int:
    try:
        return run()
    except SystemExit as left:
        # uvicorn's own way out where the port is taken or the engine refuses; it has said why.
        return left.code if isinstance(left.code, int) else Exit.NO_SERVER


def _check_tls(certfile: Path | None, keyfile: Path | None) -> None:
    if certfile is None:
        if keyfile is not None:
            leave(Exit.USAGE, "keyfile: it needs a certfile")
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as error:
        leave(Exit.USAGE, f"certfile, keyfile: {certfile} and {keyfile} can't be used: {error}")
