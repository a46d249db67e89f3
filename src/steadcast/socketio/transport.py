"""Socket.IO on one side, the hub on the other: the wire protocol, version 1, on any `AsyncServer`.

Attaching puts this module between the library and the application's handlers, at four methods of the server
object: `_handle_connect`, `_handle_event_internal`, `_handle_disconnect` and `_trigger_event`. They are not
public, so the library is pinned to a minor version, and the tests run against both ends of it. The
application's handlers and its plain clients go on as before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from socketio import AsyncServer, exceptions, packet

from steadcast import wire
from steadcast.core.remember import Remembered, key_of, weight_of
from steadcast.core.scopes import ANYBODY, Scope
from steadcast.errors import (
    Draining,
    HandlerTimeout,
    InvalidRequest,
    RateLimited,
    SteadcastError,
    Unavailable,
)
from steadcast.incoming import Publish, parse_publish
from steadcast.plain_log import plain_log
from steadcast.socketio.admission import Admission
from steadcast.socketio.client import NAMESPACE, Client
from steadcast.socketio.codec import UNREADABLE, JsonPacket, encoded
from steadcast.socketio.emission import takes_only, unwrap
from steadcast.socketio.fanout import Fanout
from steadcast.socketio.timeouts import LONGEST_NAME, OTHERS, Timeouts
from steadcast.tracer import NO_TRACER

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    import socketio

    from steadcast.core.scopes import Identity
    from steadcast.event import Event, Receipt
    from steadcast.hub import Hub
    from steadcast.socketio.connections import ConnectionEventHandler
    from steadcast.tracer import Tracer

    Authorize = Callable[[dict[str, Any], object], Identity | Awaitable[Identity | None] | None]

log = plain_log("steadcast.socketio")

IN_FLIGHT: Final = 256
"""Events of one connection that are handled at the same time; more are refused, temporarily, and counted."""
SOONEST: Final = 1.0
"""Seconds after which a client whose event was refused so is asked to send it again."""
SIGNS: Final = frozenset({"ack", "pong"})
"""What nothing answers: a refusal would be heard by nobody, and cost a connection that does all it should."""

PINGED_EVERY: Final = 30.0
"""Seconds between pings that a client counts on where its welcome says nothing of them."""

Answer = tuple[Any, "Callable[[], None] | None"]


class Transport:
    """The protocol's handlers, attached to a Socket.IO server."""

    def __init__(
        self,
        server: socketio.AsyncServer,
        hub: Hub,
        connections: ConnectionEventHandler,
        *,
        node: str,
        publish: Callable[[str, Sequence[Event]], Awaitable[list[Receipt]]],
        wall: Callable[[], str],
        begin: Callable[[], Awaitable[None]],
        timeouts: Timeouts | None = None,
        authorize: Authorize | None = None,
        spend: Callable[[Client, int], Awaitable[None]] | None = None,
        fanout: Fanout | None = None,
        admission: Admission | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """Attach.

        `publish` appends events; `wall` gives the time (RFC 3339) of those that came without one; `begin` is
        awaited before a connect is taken; `authorize(environ, auth)` tells who connects, or raises
        `NotAllowed`; `spend` counts a client's publishes, and raises `RateLimited`; `tracer` follows
        them. Raises `InvalidRequest` for what is no `AsyncServer`, speaks no JSON, or has another that
        wasn't released.
        """
        if not isinstance(server, AsyncServer):
            raise InvalidRequest("it attaches to a socketio.AsyncServer, and to nothing else", field="sio")
        if not isinstance(server.packet_class(packet.EVENT, data=["batch"]).encode(), str):
            why = "the protocol is JSON: a server with a serializer of its own, as `msgpack`, can't speak it"
            raise InvalidRequest(why, field="sio")
        self.timeouts = timeouts or Timeouts()
        self.fanout = fanout or Fanout()
        self.admission = admission or Admission()
        self._goaway: dict[str, Any] | None = None
        self._released = False
        self._server = server
        self._hub = hub
        self._connections = connections
        self._node = node
        self._publish = publish
        self._wall = wall
        self._authorize = authorize
        self._spend = spend
        self._begin = begin
        self._tracer = tracer
        self._emissions: Remembered[asyncio.Future[Any]] = Remembered()
        self._in_flight: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._handlers: dict[str, Callable[[Client, Any], Awaitable[Answer]]] = {
            "subscribe": self._on_subscribe,
            "unsubscribe": self._on_unsubscribe,
            "ack": self._on_ack,
            "pong": self._on_pong,
            "publish": self._on_publish,
            UNREADABLE: self._on_unreadable,
        }
        # On a server with another serializer, answers are made of what any JSON encoder knows.
        own_json = issubclass(server.packet_class, JsonPacket)
        self._told: Callable[[list[Receipt]], Any] = _encoded_receipts if own_json else _plain_receipts
        self._attach()

    @property
    def draining(self) -> bool:
        """Whether connects are taken no more."""
        return self._goaway is not None

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something beside, and keep it until it is done."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(
        self, reconnect_in: tuple[float, float], reason: str = "the server is going away"
    ) -> None:
        """Take no more connects, and tell every client when to come back (seconds, a range)."""
        told = self._goaway = {"reason": reason, "reconnect_in": list(reconnect_in)}
        await asyncio.gather(*(client.send("goaway", told) for client in self._connections))

    async def settle(self, patience: float = 1.0) -> None:
        """Wait until what came in is answered, and at most `patience` seconds for what is queued to go."""
        while any(self._in_flight.values()):  # noqa: ASYNC110 - once at the end; an event would be set for each message
            await asyncio.sleep(0.02)
        now = asyncio.get_running_loop().time
        deadline = now() + patience
        while any(client.queued for client in self._connections) and now() < deadline:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
        # The library's writer holds a packet for some steps between its queue and the socket.
        await asyncio.sleep(0.1)

    async def end_polls(self) -> None:
        """End the connections that poll: a poll would be waited for longer than a server takes to end."""
        for socket in list(self._server.eio.sockets.values()):
            if not socket.upgraded:
                await socket.close(wait=False)

    def emissions_statistics(self) -> dict[str, int]:
        """Count the answers that are kept for repeated emissions, and those that had to go."""
        kept = self._emissions
        return {"kept": len(kept), "bytes": kept.weight, "expired": kept.expired, "evicted": kept.evicted}

    # Attaching

    def release(self) -> None:
        """Let another take this one's place on the server; until then nobody is let in."""
        self._released = True
        self.fanout.close()

    def hand_over(self) -> tuple[Any, Any]:
        """Give the server's own connect and trigger; raises `InvalidRequest` before `release`."""
        if not self._released:
            raise InvalidRequest("this server has a Steadcast already: close that one first", field="sio")
        return self._stock_connect, self._stock_trigger

    def _attach(self) -> None:
        server = self._server
        connect, trigger = server._handle_connect, server._trigger_event  # noqa: SLF001 - see the module's docstring
        before = getattr(connect, "__self__", None)
        stock = before.hand_over() if isinstance(before, Transport) else (connect, trigger)
        self._stock_connect, self._stock_trigger = stock
        server.handlers.setdefault(NAMESPACE, {})
        server._handle_connect = self._handle_connect  # noqa: SLF001 - see the module's docstring
        server._handle_event_internal = self._handle_event  # noqa: SLF001 - see the module's docstring
        server._trigger_event = self._trigger_event  # noqa: SLF001 - see the module's docstring

    async def _handle_connect(self, eio_sid: str, namespace: str | None, auth: Any) -> None:
        if (namespace or NAMESPACE) != NAMESPACE:
            await self._stock_connect(eio_sid, namespace, auth)
            return
        try:
            identity = await self._admit(eio_sid, auth)
        except SteadcastError as error:
            await self._refuse(eio_sid, error)
            return
        except Exception:
            # An application's `authorize`: without an answer the client would wait out its own timeout.
            self._connections.counts["connects_failed"] += 1
            log.exception("who connects couldn't be told")
            told = "an unforeseen error; the server's log has it"
            await self._refuse(eio_sid, SteadcastError(told, code="internal", temporary=True))
            return
        await self._stock_connect(eio_sid, namespace, auth)
        sid = self._server.manager.sid_from_eio_sid(eio_sid, NAMESPACE)
        if sid is not None and self._server.manager.is_connected(sid, NAMESPACE):
            await self._welcome(sid, eio_sid, auth, identity)

    async def _admit(self, eio_sid: str, auth: Any) -> Identity:
        await self.admission.enter()
        environ = self._server.environ.get(eio_sid)
        if environ is None:
            raise Unavailable("the connection ended while it waited to be let in")
        self._check_draining()
        if auth is not None and not isinstance(auth, dict):
            raise InvalidRequest("the auth of a connect is an object", field="auth")
        identity = None
        if self._authorize is not None:
            found = self._authorize(environ, auth)
            identity = await self._answered(found) if isinstance(found, Awaitable) else found
        await self._begin()
        self._check_draining()
        return identity or ANYBODY

    def _check_draining(self) -> None:
        if self.draining:
            raise Draining("the server is going away")

    async def _answered(self, found: Awaitable[Identity | None]) -> Identity | None:
        async def wait() -> Identity | None:
            return await found

        return await self.timeouts.run("connect", self._authorize, wait(), label="authorize")

    async def _refuse(self, eio_sid: str, error: SteadcastError) -> None:
        wire_error = error.as_wire()
        data = {"message": wire_error.pop("message"), "data": wire_error}
        refusal = self._server.packet_class(packet.CONNECT_ERROR, data=data, namespace=NAMESPACE)
        await self._server._send_packet(eio_sid, refusal)  # noqa: SLF001 - the library's own way to one client
        if isinstance(error, RateLimited):
            self.spawn(self._server.eio.disconnect(eio_sid))  # one that came too often may not stay either

    def _seldom(self) -> dict[str, float]:
        """Tell of pings that are further apart than clients take for granted (docs/adr/0026)."""
        interval = self._connections.ping_interval
        return {"ping_interval": interval} if interval > PINGED_EVERY else {}

    async def _welcome(self, sid: str, eio_sid: str, auth: Any, identity: Identity) -> None:
        told = auth.get("client") if isinstance(auth, dict) else None
        client_id = told.get("id") if isinstance(told, dict) else None
        if not isinstance(client_id, str) or not 0 < len(client_id) <= 128:  # noqa: PLR2004 - a bound for a foreign text
            client_id = None
        client = Client(
            self._server,
            self._hub,
            self.fanout,
            sid,
            eio_sid,
            client_id=client_id and wire.visible(client_id),
            spawn=self.spawn,
            identity=identity,
        )
        self._hub.enter(client)
        self._connections.connected(client)
        client.gate.watch(client.kick)
        await client.send("welcome", {"version": wire.VERSION, "node": self._node} | self._seldom())
        if self._goaway is not None:
            # It was inside its connect when all the others were told.
            await client.send("goaway", self._goaway)

    async def _trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        """Give `connect` and `disconnect` handlers their time; other events come through `_handle_event`."""
        if event not in {"connect", "disconnect"}:
            return await self._stock_trigger(event, namespace, *args)
        handler, _ = self._app_handler(event, namespace, args)
        call = self._stock_trigger(event, namespace, *args)
        try:
            if handler is None:
                return await call
            return await self.timeouts.run(event, handler, call, label=event)
        except HandlerTimeout as error:
            if event == "connect":
                # Without this the library would take silence for consent.
                raise exceptions.ConnectionRefusedError(
                    "the connect handler timed out", error.as_wire()
                ) from error
            return None
        finally:
            if event == "disconnect" and namespace == NAMESPACE:
                self._forget(args[0])

    def _forget(self, sid: str) -> None:
        client = self._connections.disconnected(sid)
        self._in_flight.pop(sid, None)
        if client is not None:
            client.gate.close()
            self._hub.leave(client)
            client.gone()

    # Events

    async def _handle_event(  # noqa: PLR0917 - the library calls it so
        self, server: Any, sid: str, eio_sid: str, data: Any, namespace: str, ack_id: int | None
    ) -> None:
        """Run an event's handler, acknowledge it, and only then do what has to follow the acknowledgement."""
        answer, follow = await self._answer(sid, namespace, data, asked=ack_id is not None)
        if ack_id is not None and answer is not self._server.not_handled:
            body = [] if answer is None else list(answer) if isinstance(answer, tuple) else [answer]
            reply = server.packet_class(packet.ACK, namespace=namespace, id=ack_id, data=body)
            await server._send_packet(eio_sid, reply)  # noqa: SLF001 - the library's own way to one client
        if follow is not None:
            follow()

    async def _answer(self, sid: str, namespace: str, data: Any, *, asked: bool) -> Answer:
        client = self._connections.get(sid) if namespace == NAMESPACE else None
        event, args, emission = unwrap(data)
        if client is None:
            plain = [msgspec.to_builtins(arg) if isinstance(arg, Publish) else arg for arg in args]
            return await self._run_app(None, event, namespace, sid, plain), None
        if event in SIGNS and not self._is_the_applications(event, args[0] if args else None):
            return await self._run(client, event, namespace, args, asked=False)
        if self._in_flight.get(sid, 0) >= IN_FLIGHT:
            self._connections.counts["refused_in_flight"] += 1
            error = RateLimited("too many events at once", retry_after=SOONEST)
            if not asked:
                await client.send("error", error.as_wire() | {"event": event[:LONGEST_NAME]})
            return _failed(error), None
        self._in_flight[sid] = self._in_flight.get(sid, 0) + 1
        try:
            if emission is not None and event not in self._handlers:
                if args == [None]:
                    handler, _ = self._app_handler(event, namespace, (client.id,))
                    args = [] if takes_only(handler, client.id) else args
                return await self._once(client, event, namespace, args, emission)
            return await self._run(client, event, namespace, args, asked=asked)
        finally:
            if sid in self._in_flight:
                self._in_flight[sid] -= 1

    async def _once(
        self, client: Client, event: str, namespace: str, args: list[Any], emission: str
    ) -> Answer:
        """Answer a repeated emission with its first answer; a temporary failure is tried anew."""
        now = asyncio.get_running_loop().time()
        key = key_of(*client.emitter, event, emission)
        first = self._emissions.get(now, key)
        if first is not None:
            self._connections.counts["emissions_repeated"] += 1
            return await asyncio.shield(first), None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._emissions.keep(now, key, future)
        try:
            answer, follow = await self._run(client, event, namespace, args, asked=True)
        except BaseException:
            self._emissions.forget(key)
            future.cancel()
            raise
        if answer is self._server.not_handled:
            answer = _failed(InvalidRequest(f"no handler for {event[:LONGEST_NAME]}", code="no_handler"))
        if _failed_for_now(answer):
            self._emissions.forget(key)
        self._emissions.weigh(key, weight_of(answer))
        future.set_result(answer)
        return answer, follow

    async def _run(
        self, client: Client, event: str, namespace: str, args: list[Any], *, asked: bool
    ) -> Answer:
        """Run a handler; where no acknowledgement is `asked` for, a refusal goes its own way."""
        payload = args[0] if args else None
        ours = self._handlers.get(event)
        if ours is None or self._is_the_applications(event, payload):
            return await self._run_app(client, event, namespace, client.id, args), None
        client.heard()
        try:
            return await self.timeouts.run_own(event, ours, client, payload)
        except SteadcastError as error:
            self._connections.counts["events_refused"] += 1
            timed_out = isinstance(error, HandlerTimeout)
            if timed_out:
                self._connections.failed(client)
            if timed_out or not asked:
                await client.send("error", error.as_wire() | {"event": event})
            return _failed(error), None

    async def _run_app(
        self, client: Client | None, event: str, namespace: str, sid: str, args: list[Any]
    ) -> Any:
        handler, label = self._app_handler(event, namespace, (sid, *args))
        call = self._stock_trigger(event, namespace, sid, *args)
        try:
            return await self.timeouts.run(event, handler, call, label=label)
        except HandlerTimeout as error:
            self._count_failure(client)
            await self._server.emit("error", error.as_wire(), to=sid, namespace=namespace)
            return _failed(error)
        except Exception:
            self._count_failure(client)
            raise

    def _count_failure(self, client: Client | None) -> None:
        if client is not None:
            self._connections.failed(client)

    def _app_handler(self, event: str, namespace: str, args: tuple[Any, ...]) -> tuple[object, str]:
        """Give the application's handler of an event, and the name under which it is counted."""
        server = self._server
        handler, _ = server._get_event_handler(event, namespace, args)  # noqa: SLF001 - see the module's docstring
        if handler is not None:
            named = any(event in server.handlers.get(space, ()) for space in (namespace, "*"))
            return handler, event if named else OTHERS
        spaces, _ = server._get_namespace_handler(namespace, args)  # noqa: SLF001 - see the module's docstring
        handler = getattr(spaces, f"on_{event}", None)
        return handler, OTHERS if handler is None else event

    def _is_the_applications(self, event: str, payload: object) -> bool:
        """Tell whether an event with one of our names is meant for the application's own handler."""
        named = isinstance(payload, dict) and "stream" in payload
        if named or isinstance(payload, Publish):
            return False
        if event == "pong" and isinstance(payload, dict) and "time" in payload:
            return False
        own = self._server.handlers.get(NAMESPACE, {})
        return event in own or hasattr(self._server.namespace_handlers.get(NAMESPACE), f"on_{event}")

    # The protocol

    async def _on_subscribe(self, client: Client, payload: Any) -> Answer:
        request = wire.parse_subscribe(payload)
        client.gate.check(Scope.SUBSCRIBE, request.stream)
        answers, session = await self._hub.subscribe(client, request, self.admission.enter)
        self._connections.subscribed(client)
        return wire.answer_wire(answers), lambda: client.begin(session)

    async def _on_unsubscribe(self, client: Client, payload: Any) -> Answer:
        self._hub.unsubscribe(client, wire.parse_unsubscribe(payload))
        return {"ok": True}, None

    async def _on_ack(self, client: Client, payload: Any) -> Answer:
        self._hub.take_ack(client, wire.parse_ack(payload))
        return self._server.not_handled, None

    async def _on_pong(self, client: Client, payload: Any) -> Answer:
        self._connections.ponged(client, payload)
        return self._server.not_handled, None

    async def _on_publish(self, client: Client, payload: Any) -> Answer:
        stream, events = parse_publish(payload, now=self._wall())
        client.gate.check(Scope.PUBLISH, stream)
        with self._tracer.publish(stream):
            self._tracer.origins(payload)
            if self._spend is not None:
                await self._spend(client, len(events))
            receipts = await self._publish(stream, events)
        return self._told(receipts), None

    async def _on_unreadable(self, client: Client, payload: Any) -> Answer:  # noqa: ARG002 - the handlers' one form
        raise InvalidRequest(f"the message is not JSON: {payload}", code="invalid_json")


def _encoded_receipts(receipts: list[Receipt]) -> msgspec.Raw:
    return encoded({"ok": True, "results": receipts})


def _plain_receipts(receipts: list[Receipt]) -> dict[str, Any]:
    return {"ok": True, "results": wire.receipts_wire(receipts)}


def _failed(error: SteadcastError) -> dict[str, Any]:
    return {"ok": False, "error": error.as_wire()}


def _failed_for_now(answer: object) -> bool:
    match answer:
        case {"ok": False, "error": {"temporary": True}}:
            return True
    return False
