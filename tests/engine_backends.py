"""How the tests come by an engine of each kind, with its clocks in their hands."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from steadcast.engines.jetstream import JetStreamEngine
from steadcast.engines.jetstream_url import parse_url
from steadcast.engines.memory import MemoryEngine
from steadcast.engines.sqlite import SqliteEngine
from steadcast.event import Batch, Event, Lane
from tests.engine_nats import shared_server
from tests.engine_ranks import RankedEngine, Ranks

CRITICAL, NORMAL = Lane.CRITICAL, Lane.NORMAL
DAY = 24 * 3600.0


@dataclass
class Clock:
    """Wall time and steady time, which only go on when told."""

    wall: float = 1_800_000_000.0
    steady: float = 1_000.0

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@dataclass
class Backend:
    """One kind of engine: `open` gives one, over and over on the same log where it `persists`."""

    persists: bool
    clock: Clock
    make: Callable[..., Any]
    opened: list[Any] = field(default_factory=list)

    def open(self, **settings: Any) -> Any:
        engine = self.make(self.clock, **settings)
        self.opened.append(engine)
        return engine

    async def aclose(self) -> None:
        for engine in self.opened:
            await engine.aclose()


def memory_backend(_folder: Path) -> Backend:
    return Backend(False, Clock(), open_memory)


def open_memory(clock: Clock, **settings: Any) -> MemoryEngine:
    return MemoryEngine(clock=lambda: clock.steady, wall=lambda: clock.wall, **settings)


def sqlite_backend(folder: Path) -> Backend:
    return Backend(True, Clock(), lambda clock, **s: open_sqlite(folder / "log.db", clock, **s))


def open_sqlite(path: Path, clock: Clock | None = None, **settings: Any) -> SqliteEngine:
    clock = clock or Clock()
    return SqliteEngine(path, wall=lambda: clock.wall, monotonic=lambda: clock.steady, **settings)


def jetstream_backend(_folder: Path) -> Backend:
    """Give a log of its own on the server that all tests share.

    Its clock is ahead of the server's, which counts where it is later: only the tests move this one.
    """
    url = nats_url()
    ranks = Ranks()
    clock = Clock(wall=time.time() + 10 * DAY)
    return Backend(True, clock, lambda clock, **s: RankedEngine(open_jetstream(url, clock, **s), ranks))


def nats_url() -> str:
    return f"nats://{shared_server().address}?stream=t-{secrets.token_hex(6)}"


def open_jetstream(url: str, clock: Clock | None = None, **settings: Any) -> JetStreamEngine:
    if clock is None:
        return JetStreamEngine(parse_url(url), **settings)
    settings = {"max_skew": math.inf} | settings
    return JetStreamEngine(
        parse_url(url), wall=lambda: clock.wall, monotonic=lambda: clock.steady, **settings
    )


BACKENDS = {"memory": memory_backend, "sqlite": sqlite_backend, "jetstream": jetstream_backend}


def event(
    name: object, data: object = None, *, lane: Lane = NORMAL, source: str = "/test", **fields: Any
) -> Event:
    """Make an event as the wire makes them: `data` is compact JSON."""
    raw = msgspec.Raw(json.dumps(data, separators=(",", ":")).encode())
    given = {"type": "test", "time": "2026-01-01T00:00:00Z", "subject": None} | fields
    return Event(id=str(name), source=source, data=raw, priority=lane, **given)


def events(names: range | list[Any], **fields: Any) -> list[Event]:
    return [event(name, **fields) for name in names]


def ids(batch: Batch) -> list[str]:
    return [entry.event.id for entry in batch.events]


def size(of: Event) -> int:
    return len(msgspec.json.encode(of))


async def read_all(engine: Any, stream: str, lane: Lane, after: int = 0) -> list[tuple[int, Event]]:
    """Read a lane page by page; every page must be linked to the one before."""
    found: list[tuple[int, Event]] = []
    while True:
        page = await engine.read(stream, lane, after)
        assert page.after == after
        if not page.events:
            assert page.upto == after
            return found
        assert [entry.offset for entry in page.events] == list(range(after + 1, page.upto + 1))
        found += [(entry.offset, entry.event) for entry in page.events]
        after = page.upto
