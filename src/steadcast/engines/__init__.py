"""Engines: durable logs with positions, behind one interface, chosen by URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from steadcast.errors import EngineRefused, InvalidRequest

if TYPE_CHECKING:
    from steadcast.engines.base import Engine, Retention
    from steadcast.engines.jetstream import JetStreamEngine

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
            return open_jetstream(url, retention=retention)
        case _:
            raise InvalidRequest(
                f"no engine is called {url!r}: give memory:, sqlite:///path or nats://host", field="engine"
            )


def open_jetstream(url: str, *, retention: Retention | None = None, reading: bool = False) -> JetStreamEngine:
    """Make the engine that a `nats:` URL names; `reading` as `JetStreamEngine` has it. Raises as above."""
    from steadcast.engines.jetstream_url import parse_url

    options = parse_url(url)
    try:
        from steadcast.engines.jetstream import JetStreamEngine
    except ModuleNotFoundError as error:
        if error.name != "nats":
            raise
        raise EngineRefused("nats:// needs the extra `nats`: pip install 'steadcast[nats]'") from error
    return JetStreamEngine(options, retention=retention, reading=reading)


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
