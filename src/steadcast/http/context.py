"""What the routes stand on: one frozen object that the application fills."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

from steadcast.errors import HandlerTimeout, SteadcastError
from steadcast.http.feeds import Feeds
from steadcast.http.metrics import Requests
from steadcast.http.rates import Rates
from steadcast.http.tokens import Tokens
from steadcast.masking import Masking
from steadcast.socketio.deadlines import Deadlines
from steadcast.tracer import NO_TRACER
from steadcast.version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from starlette.types import Scope

    from steadcast.engines.base import Engine
    from steadcast.event import Event, Receipt
    from steadcast.http.given import Connections, DeadStore
    from steadcast.hub import Hub
    from steadcast.tracer import Tracer

    Publish = Callable[[str, Sequence[Event]], Awaitable[list[Receipt]]]
    Begin = Callable[[], Awaitable[None]]
    Ready = Callable[[], Awaitable[list[str]]]
    Stats = Callable[[], dict[str, object]]

Answer = TypeVar("Answer")

STATIC: Final = Path(__file__).parent / "static"
"""Where the build puts the dashboard's files."""
PROBED: Final = "steadcast.ready"
"""The stream that an empty append asks for; it never holds an event."""


@lru_cache(maxsize=8)
def _second(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()[:19]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a request; times are in seconds, sizes in bytes."""

    body: int = 4 * 1024 * 1024
    """The largest request body; more is 413 `body_too_large`."""
    body_timeout: float = 30.0
    """A body that isn't complete by then is 408 `request_timeout`."""
    handler_timeout: float | None = 5.0
    """An engine that hasn't answered by then is 503 `timeout`; None waits for ever."""
    feeds: int = 1_000
    """The most SSE responses at the same time; more is 503 `queue_full`."""
    keep_alive: float = 15.0
    """An SSE response is never silent for longer."""
    park_after: float = 2.0
    """An SSE reader that takes nothing for so long gives its session up, and with it all that was queued."""
    stalled_after: float = 40.0
    """An SSE reader that takes nothing for so long is disconnected."""
    retry: float = 1.0
    """How long an SSE response waits before it asks an engine again that was away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The surroundings of the HTTP routes.

    `connections` knows the connected clients, where there can be some;
    `dead` keeps the dead events, where somebody does;
    `begin` is awaited before a request that needs the log is served, and raises where it can't be;
    `publish` appends events and answers with their receipts, the hub's `append` where it is None;
    `ready` lists in words what keeps the server from serving, where it is None an append is probed;
    `stats` gives what the application adds to `/v1/stats` and, its numbers, to `/metrics`;
    `started` and `wall` are Unix time; `server_url` is how browsers call the server where a proxy changes
    the Host header; `allowed_hosts` are names beside the loopback's, "*" allows any; `cors_origins` are
    the other origins, in lower case, whose pages may come in; `masking` takes secrets out of hooks;
    `tracer` follows publishes.
    """

    hub: Hub
    engine: Engine
    node: str
    version: str = __version__
    tokens: Tokens = field(default_factory=Tokens)
    rates: Rates = field(default_factory=Rates)
    masking: Masking = field(default_factory=Masking)
    tracer: Tracer = NO_TRACER
    base_path: str = ""
    allowed_hosts: Collection[str] = ()
    cors_origins: Collection[str] = ()
    server_url: str | None = None
    limits: Limits = field(default_factory=Limits)
    begin: Begin | None = None
    publish: Publish | None = None
    connections: Connections | None = None
    dead: DeadStore | None = None
    ready: Ready | None = None
    stats: Stats = field(default=dict[str, object])
    wall: Callable[[], float] = time.time
    started: float = field(default_factory=time.time)
    deadlines: Deadlines = field(default_factory=Deadlines)
    static: Path = STATIC
    counts: Counter[str] = field(default_factory=Counter)
    feeds: Feeds = field(default_factory=Feeds)
    requests: Requests = field(default_factory=Requests)

    @property
    def base(self) -> str:
        """The path that all routes stand under: "" or "/name"."""
        trimmed = self.base_path.strip("/")
        return f"/{trimmed}" if trimmed else ""

    def address(self, scope: Scope) -> str:
        """Give the same as a request's client knows it: below what the application is mounted under."""
        return quote(scope.get("root_path", "")) + self.base

    def now(self) -> str:
        """Give the time as RFC 3339 in UTC, to the microsecond."""
        microseconds = int(self.wall() * 1_000_000)
        return f"{_second(microseconds // 1_000_000)}.{microseconds % 1_000_000:06}Z"

    async def append(self, stream: str, events: Sequence[Event]) -> Sequence[Receipt]:
        """Publish; answers once the events are durable. Raises the engine's errors and `HandlerTimeout`."""
        return await self.within("publish", (self.publish or self.hub.append)(stream, events))

    async def within(self, event: str, work: Awaitable[Answer]) -> Answer:
        """Wait for some work, at most the handler timeout; raises `HandlerTimeout`, naming `event`."""
        limit = self.limits.handler_timeout
        try:
            with self.deadlines.within(limit):
                return await work
        except TimeoutError as error:
            self.counts["timeouts"] += 1
            raise HandlerTimeout(
                f"no answer to {event} within {limit:g} s", retry_after=1.0, event=event, timeout=limit
            ) from error

    async def problems(self) -> list[str]:
        """List what keeps the server from being ready; empty when it is."""
        try:
            if self.ready is not None:
                return await self.within("ready", self.ready())
            await self.within("ready", self.engine.append(PROBED, []))
        except SteadcastError as error:
            self.counts["ready_failed"] += 1
            return [f"{error.code}: {error.message}"]
        return []
