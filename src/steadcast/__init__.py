"""Steadcast carries events to every open dashboard: in order, each applied once.

The names here are imported when they are first used, so that `import steadcast` costs nothing and a publisher
doesn't load a server.
"""

from __future__ import annotations

import os
from importlib import import_module

from steadcast.version import __version__

# A plain name: importing `typing` would cost every hook call some milliseconds.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from steadcast.app import Steadcast
    from steadcast.client.async_publisher import AsyncPublisher
    from steadcast.client.publisher import Publisher
    from steadcast.client.subscriber import Delivery, Subscriber
    from steadcast.config import Settings
    from steadcast.core.scopes import Identity, Scope
    from steadcast.errors import NotAllowed, SteadcastError
    from steadcast.event import Event, Lane, Position, Receipt
    from steadcast.socketio.timeouts import timeout_handler

__all__ = [
    "AsyncPublisher",
    "Delivery",
    "Event",
    "Identity",
    "Lane",
    "NotAllowed",
    "Position",
    "Publisher",
    "Receipt",
    "Scope",
    "Settings",
    "Steadcast",
    "SteadcastError",
    "Subscriber",
    "__version__",
    "timeout_handler",
]

_HOMES = {
    "AsyncPublisher": "client.async_publisher",
    "Delivery": "client.subscriber",
    "Event": "event",
    "Identity": "core.scopes",
    "Lane": "event",
    "NotAllowed": "errors",
    "Position": "event",
    "Publisher": "client.publisher",
    "Receipt": "event",
    "Scope": "core.scopes",
    "Settings": "config",
    "Steadcast": "app",
    "SteadcastError": "errors",
    "Subscriber": "client.subscriber",
    "timeout_handler": "socketio.timeouts",
}

_POSIX_ONLY = {"Publisher", "Steadcast"}
"""They keep files, by locks and folders that Windows has not."""


def __getattr__(name: str) -> Any:
    """Import a public name's module, and keep the name."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if os.name == "nt" and name in _POSIX_ONLY:
        raise ImportError(f"{name} runs on Linux and macOS; on Windows, in its Linux subsystem (WSL)")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
