"""Engines: durable logs with positions, behind one interface, chosen by URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from steadcast.errors import EngineRefused, InvalidRequest

if TYPE_CHECKING:
    from steadcast.engines.base import Engine, Retention

__all__ = ["open_engine"]


def open_engine(url: str, *, retention: Retention | None = None) -> Engine:
    """Make the engine that a URL names: `memory:`, `sqlite:///relative`, `sqlite:////absolute`, `nats://…`.

    Touches neither disk nor network: its first call does, and raises what is wrong with the store.
    Raises `InvalidRequest` for a URL that names none, `EngineRefused` where a part of the installation is
    missing.
    """
    scheme, colon, rest = url.partition(":")
    match scheme:
        case "memory" if colon and not rest:
            from steadcast.engines.memory import MemoryEngine

            return MemoryEngine(retention=retention)
        case "sqlite":
            from steadcast.engines.sqlite import SqliteEngine

            return SqliteEngine(sqlite_path(url), retention=retention)
        case "nats" | "tls" if rest.startswith("//"):
            raise EngineRefused(
                "nats:// is not built yet; it will need the extra `nats` (pip install 'steadcast[nats]')"
            )
        case _:
            raise InvalidRequest(
                f"no engine is called {url!r}: give memory:, sqlite:///path or nats://host", field="engine"
            )


def sqlite_path(url: str) -> Path:
    """Give the absolute path that a `sqlite:///` URL names, as it is written, without any escapes.

    Raises `InvalidRequest` for another URL.
    """
    prefix = "sqlite:///"
    path = url.removeprefix(prefix)
    if not url.startswith(prefix) or path in {"", "/", ":memory:"}:
        raise InvalidRequest(
            "sqlite needs a file: sqlite:///relative/path or, with four slashes, sqlite:////absolute/path",
            field="engine",
        )
    return Path(path).resolve()
