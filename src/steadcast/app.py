"""Wiring: engine, hub, Socket.IO, HTTP and their settings in one object."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

import socketio
import structlog

from steadcast import parts, wire
from steadcast.announce import Announcements
from steadcast.client.ids import mint_id
from steadcast.client.loop import OneLoop
from steadcast.client.outgoing import utc_now
from steadcast.config import Settings
from steadcast.core.breaker import State
from steadcast.engines import open_engine
from steadcast.errors import Draining, EngineRefused, NotAllowed, SteadcastError
from steadcast.http import access
from steadcast.http.app import build
from steadcast.http.context import PROBED, Context, Limits
from steadcast.http.edge import LIMITED, Door, path_of
from steadcast.http.rates import Rates
from steadcast.http.tokens import Tokens
from steadcast.hub import Hub
from steadcast.readiness import Readiness
from steadcast.socketio.admission import Admission
from steadcast.socketio.broadcaster import SocketIOEventBroadcaster
from steadcast.socketio.connections import ConnectionEventHandler
from steadcast.socketio.dead import DeadEvents
from steadcast.socketio.fanout import Fanout
from steadcast.socketio.server import Server, own_server
from steadcast.socketio.timeouts import Timeouts
from steadcast.socketio.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import Receive, Scope, Send

    from steadcast.core.scopes import Identity
    from steadcast.engines.base import Engine
    from steadcast.event import Event, Receipt
    from steadcast.socketio.client import Client
    from steadcast.socketio.transport import Authorize
    from steadcast.tracer import Tracer

log = structlog.get_logger("steadcast")


class Attributes(TypedDict, total=False):
    """What else an event may be given; `id`, `source` and `time` are filled in where they are missing."""

    subject: str | None
    priority: str
    id: str | None
    source: str | None
    time: str | None


class Steadcast:
    """Steadcast on a Socket.IO server of yours, or on one of its own.

        sio = socketio.AsyncServer(async_mode="asgi")
        cast = Steadcast(sio, engine="sqlite:///events.db")
        app = socketio.ASGIApp(sio, your_asgi_app)
        …
        await cast.publish("orders", type="order.paid", data={"order": 17})

    It starts by itself with the first connect or publish (or `await cast.start()`, which tells at once where
    the engine can't be opened), and ends with `await cast.aclose()`.
    """

    def __init__(
        self,
        sio: socketio.AsyncServer | None = None,
        *,
        engine: str | Engine | None = None,
        settings: Settings | None = None,
        authorize: Authorize | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """Attach to a Socket.IO server, or make one.

        `engine` is a URL, or an engine that stays yours; `authorize(environ, auth)` raises `NotAllowed` for a
        connect that is to be refused, by default where a token is set and wasn't given. What it returns, or
        awaits, is who connected (`Identity`: scopes, streams, an end); None may everything. `tracer` follows
        publishes, by default as the setting `otel` says. Raises `InvalidSettings` where that can't be, and
        `InvalidRequest` for a server that has a Steadcast already, or is no `AsyncServer`.
        """
        self.settings = settings or Settings()
        self.node = self.settings.node or f"{socket.gethostname()}-{secrets.token_hex(3)}"
        self.tracer = parts.guarded(tracer or parts.tracer(self.settings, self.node))
        self.sio = sio if sio is not None else own_server(cors_allowed_origins=self._is_own_origin)
        self._given = engine if engine is not None else self.settings.engine
        self.engine = (
            open_engine(self._given, retention=parts.retention(self.settings))
            if isinstance(self._given, str)
            else self._given
        )
        self.announcements = Announcements(self.engine, now=utc_now)
        self.hub = Hub(
            self.engine,
            window=parts.window(self.settings),
            timing=parts.timing(self.settings),
            saw=self.announcements.saw,
            tracer=self.tracer,
        )
        self.dead = DeadEvents(self.engine, path=parts.dead_file(self.settings, self._given))
        self.broadcaster = SocketIOEventBroadcaster(
            self.hub.append,
            retry_interval=self.settings.retry_interval,
            queue=parts.retry_queue(self.settings),
            dead=self.dead,
        )
        self.announcements.append = self.broadcaster.append_once
        self.connections = ConnectionEventHandler(
            self.hub,
            ping_interval=self.settings.ping_interval,
            ping_timeout=self.settings.ping_timeout,
            stale_check_interval=self.settings.stale_check_interval,
        )
        self.timeouts = Timeouts(self.settings.handler_timeout, by_event=self.settings.handler_timeouts)
        self.own_token = secrets.token_urlsafe(32)
        """Lets this process publish what it finds in its own spool."""
        self.context = self._context()
        self.transport = self._transport(_within_rate(authorize or self._check_connect))
        self.http = build(self.context)
        self._socket_app = Door(
            socketio.ASGIApp(self.sio, socketio_path=None), self.context, self.transport.admission.enter
        )
        self._loop = OneLoop("a Steadcast")
        self._starting = asyncio.Lock()
        self._started = self._closed = False

    # Life

    async def start(self) -> None:
        """Open the engine and begin to serve; a second call does nothing.

        Raises `EngineRefused` where the engine can't be opened, ever; one that is only away for now is
        waited for, and `/readyz` says so. Raises `Draining` after `aclose`, and `InvalidRequest` in another
        event loop than it was first used in.
        """
        self._loop.check()
        if self._started:
            return
        async with self._starting:
            if self._closed:
                raise Draining("it was closed; to start again takes a new Steadcast")
            if not self._started:
                await self._open_engine()
                await self.hub.start()
                await self.dead.start()
                self.broadcaster.start()
                self.connections.start()
                self.announcements.start()
                self._started = True

    async def _open_engine(self) -> None:
        try:
            await self.engine.describe(PROBED)
        except SteadcastError as error:
            if isinstance(error, EngineRefused) or not error.temporary:
                raise
            log.warning("the engine is away for now", code=error.code, detail=error.message)

    async def aclose(self) -> None:
        """End, for good: tasks, and the engine where it was opened here. A start under way is waited for."""
        self._closed = True
        async with self._starting:
            if self._started:
                self._started = False
                await self.announcements.aclose()
                await self.broadcaster.aclose()
                await self.connections.aclose()
                await self.hub.aclose()
            self.transport.release()
            if isinstance(self._given, str):
                await self.engine.aclose()
            await self.tracer.aclose()

    async def drain(self, reconnect_in: tuple[float, float] = (0.5, 3.0)) -> None:
        """Take no more connects, tell clients when to come back, answer what came in, end feeds and polls."""
        await self.transport.drain(reconnect_in)
        self.context.feeds.end()
        await self.transport.settle()
        await self.transport.end_polls()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End."""
        await self.aclose()

    def reload_tokens(self, settings: Settings) -> list[str]:
        """Let in by the tokens of these settings from now on; gives the names of those that were taken back.

        Who came in by one of them is told `token_revoked` and disconnected. Nothing else of the settings is
        looked at. Raises `InvalidRequest`, and changes nothing, for tokens of no use, and where none was set
        or none would be set any more.
        """
        gone = self.context.tokens.replace(*parts.let_in(settings, self.own_token))
        for client in self.connections:
            client.gate.look()
        self.context.feeds.look()
        self.context.counts["tokens_revoked"] += len(gone)
        return gone

    # Publishing from inside

    async def publish(
        self,
        stream: str,
        *,
        type: str,  # noqa: A002 - CloudEvents' own name
        data: Any = None,
        **attributes: Unpack[Attributes],
    ) -> Receipt:
        """Publish an event, and return its receipt once it is durable; waits through the retries.

        `attributes` are `subject`, `priority`, `id`, `source` and `time`. Raises `InvalidEvent`,
        `InvalidStream` or `TooLarge` at once, `IdConflict` where the id is taken by another event, and
        `Abandoned` when the retries are used up.
        """
        event = self._event(type, data, attributes)
        stream = wire.check_publishable(stream)
        await self.start()
        receipts = await self.broadcaster.publish(stream, [event])
        return receipts[0]

    def broadcast(
        self,
        stream: str,
        *,
        type: str,  # noqa: A002 - CloudEvents' own name
        data: Any = None,
        **attributes: Unpack[Attributes],
    ) -> str:
        """Hand an event over and return its id at once; queued is not yet accepted.

        What can't be appended in the end is counted, and kept as a dead event. Needs a running `start`.
        """
        self._loop.check()
        event = self._event(type, data, attributes)
        self.broadcaster.broadcast(wire.check_publishable(stream), event)
        return event.id

    def _event(self, type_: str, data: Any, attributes: Attributes) -> Event:
        raw = {
            "id": mint_id(),
            "source": f"steadcast/{self.node}",
            **{name: value for name, value in attributes.items() if value is not None},
            "type": type_,
            "data": data,
        }
        return wire.check_event(raw, now=utc_now())

    # Serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as an ASGI application of its own: Socket.IO, HTTP and the page, under the base path."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif path_of(scope).startswith(f"{self.context.base}/socket.io/"):
            await self._socket_app(scope, receive, send)
        else:
            await self.http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except SteadcastError as error:
            await send({"type": "lifespan.startup.failed", "message": error.message})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    def _transport(self, authorize: Authorize) -> Transport:
        return Transport(
            self.sio,
            self.hub,
            self.connections,
            node=self.node,
            publish=self.broadcaster.append_once,
            wall=utc_now,
            begin=self.start,
            timeouts=self.timeouts,
            authorize=authorize,
            spend=self._spend,
            fanout=Fanout(self.settings.fanout),
            admission=Admission(at_once=self.settings.admit_at_once, waiting=self.settings.admit_waiting),
            tracer=self.tracer,
        )

    def _context(self) -> Context:
        settings = self.settings
        counts: Counter[str] = Counter()
        readiness = Readiness(
            self.engine, counts, known=self._known_problems, handler_timeout=settings.handler_timeout
        )
        return Context(
            hub=self.hub,
            engine=self.engine,
            node=self.node,
            tokens=Tokens(*parts.let_in(settings, self.own_token)),
            rates=Rates(
                connects=settings.rate_connects,
                publishes=settings.rate_publishes,
                guesses=settings.rate_guesses,
                counts=counts,
            ),
            counts=counts,
            masking=parts.masking(settings),
            tracer=self.tracer,
            base_path=settings.base_path,
            allowed_hosts=tuple(settings.allowed_hosts),
            cors_origins=tuple(access.check_allowed_origin(each) for each in settings.cors_origins),
            connections=self.connections,
            dead=self.dead,
            limits=Limits(handler_timeout=settings.handler_timeout),
            begin=self.start,
            publish=self.broadcaster.append_once,
            server_url=settings.server_url,
            ready=readiness.problems,
            stats=self._stats,
        )

    def _known_problems(self) -> list[str]:
        problems = []
        if self.transport.draining:
            problems.append("draining: the server is going away")
        if self.broadcaster.breaker.state is State.OPEN:
            problems.append("breaker_open: the log failed, and publishing is refused for a moment")
        return problems

    def _stats(self) -> dict[str, object]:
        breaker = self.broadcaster.breaker.state
        direct = [client.direct for client in self.connections]
        return {
            "connections": self.connections.statistics(),
            "fanout": self.transport.fanout.statistics(direct, self.settings.flush_window),
            "handlers": self.timeouts.counts.statistics(),
            "admission": self.transport.admission.statistics(),
            "socketio": self.sio.statistics() if isinstance(self.sio, Server) else {},
            "emissions": self.transport.emissions_statistics(),
            "broadcaster": self.broadcaster.statistics(),
            "announcements": dict(self.announcements.counts),
            "tracing": self.tracer.statistics(),
            # As numbers too, since metrics have no texts: 1 for the state that the breaker is in.
            "breaker": {state.name.lower(): int(state is breaker) for state in State},
        }

    async def _check_connect(self, environ: dict[str, Any], auth: object) -> Identity:
        token = auth.get("token") if isinstance(auth, dict) else None
        return await access.authorize(
            self.context,
            token=token if isinstance(token, str) else None,
            cookie=environ.get("HTTP_COOKIE"),
            host=environ.get("HTTP_HOST"),
            address=access.address_of(environ.get("asgi.scope", {})),
        )

    async def _spend(self, client: Client, events: int) -> None:
        who = access.client_of(client.gate.identity, client.address)
        await self.context.rates.publish(who, events)

    def _is_own_origin(self, origin: str | None, environ: dict[str, Any]) -> bool:
        try:
            access.check_origin(self.context, origin, environ.get("HTTP_HOST"))
        except NotAllowed:
            self.context.counts["refused_wrong_origin"] += 1
            return False
        return True


def _within_rate(authorize: Authorize) -> Authorize:
    """Refuse who came too often, whoever else decides: a WebSocket's handshake couldn't say so itself."""

    def asked(environ: dict[str, Any], auth: object) -> Identity | Awaitable[Identity | None] | None:
        limited = environ.get("asgi.scope", {}).get(LIMITED)
        if limited is not None:
            raise limited
        return authorize(environ, auth)

    return asked
