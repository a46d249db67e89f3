"""`steadcast serve`."""

from __future__ import annotations

import ssl
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import Annotated, Any

import typer

from steadcast.commands.exits import Exit, leave
from steadcast.commands.options import Config  # noqa: TC001 - see Path
from steadcast.commands.running import run_server, server
from steadcast.config import load


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
    has its default. Exits 0 after a drain, 2 for wrong settings, 3 where it can't start. With a file, SIGHUP
    has its tokens read anew.
    """
    from steadcast.commands.settings import settings_or_leave

    flags: dict[str, Any] = {"host": host, "port": port, "engine": engine, "token": token}
    flags |= {"certfile": certfile, "keyfile": keyfile}
    settings = settings_or_leave(config, **flags)
    _check_tls(settings.certfile, settings.keyfile)
    # Without a file there is nothing that could have changed, and a closed terminal ends the server.
    again = None if config is None else partial(load, config, **flags)
    run_server(partial(server(), again=again), settings)


def _check_tls(certfile: Path | None, keyfile: Path | None) -> None:
    if certfile is None:
        if keyfile is not None:
            leave(Exit.USAGE, "keyfile: it needs a certfile")
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as error:
        leave(Exit.USAGE, f"certfile, keyfile: {certfile} and {keyfile} can't be used: {error}")
