"""Running the server, by the way of options and by the short one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from steadcast.commands.exits import Exit, leave_with, tell
from steadcast.errors import SteadcastError

if TYPE_CHECKING:
    from collections.abc import Callable

    from steadcast.config import Settings

UNUSED = ("aiohttp", "requests", "rich")
"""Installed for the clients and the command line; libraries of the server import them where they can."""


def run_server(run: Callable[[Settings], int], settings: Settings) -> NoReturn:
    """Serve until a signal, and exit with what became of it."""
    try:
        code = run(settings)
    except SystemExit as left:
        # uvicorn's own way out where the port is taken or the engine refuses; it has said why.
        code = left.code if isinstance(left.code, int) else Exit.NO_SERVER
    if code == Exit.NO_SERVER:
        tell("the server couldn't start; steadcast doctor looks at port, engine and disk")
    sys.exit(code)


def server() -> Callable[..., int]:
    """Import the server, half of a start, without what it doesn't use."""
    hidden = [name for name in UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # None is how an import is refused
    try:
        from steadcast.serve import serve
    finally:
        for name in hidden:
            del sys.modules[name]
    return serve


def run_plainly() -> bool:
    """Serve with the settings as they stand in the environment; False where that needs more of a look.

    Without options to read there is nothing to import that reads options.
    """
    from steadcast.commands.settings import settings_or_leave

    settings = settings_or_leave(None)
    if settings.certfile is not None or settings.keyfile is not None:
        return False
    try:
        run_server(server(), settings)
    except SteadcastError as error:
        leave_with(error)
