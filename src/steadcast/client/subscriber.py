"""A subscriber: every event of a stream, in each lane's order, applied once; it reconnects by itself.

The rule it follows is `core.cursor.Receiver`; this module gives it a connection and a clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import msgspec
import socketio

from steadcast import wire
from steadcast.client.token import fresh
from steadcast.core.backoff import Backoff
from steadcast.core.cursor import Counts, Receiver
from steadcast.core.effects import Deliver, Effect, SendAck, SendSubscribe, Told
from steadcast.errors import InvalidRequest, NotAllowed, SteadcastError
from steadcast.event import Event, Lane, Position
from steadcast.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from steadcast.client.token import AnyTokenFunction

log = logging.getLogger("steadcast.subscriber")

PING_TIMEOUT: Final = 40.0
"""Seconds without a ping from a server that speaks the protocol, after which the connection is given up."""
LOOK: Final = 1.0
"""Seconds between two looks at a connection whose end may have come unnoticed."""
CONNECT_TIMEOUT: Final = 10.0


class Delivery(msgspec.Struct, frozen=True):
    """An event at its place.

    `cursors` is what to store together with the event's effect, and to hand to the next `Subscriber`,
    so that not even a crash between the two applies it twice.
    """

    stream: str
    lane: Lane
    position: Position
    event: Event
    attempt: int
    cursors: dict[str, list[str | int]]


class Subscriber:
    """Follow one stream.

        async with Subscriber("http://127.0.0.1:8765", "orders", start="start") as deliveries:
            async for delivery in deliveries:
                print(delivery.event.data)

    An event counts as applied when the loop asks for the next one. `on_told` learns of ranges that are gone,
    of a log that was replaced, and of events that were passed over; without it they are logged.
    """

    def __init__(
        self,
        url: str,
        stream: str,
        *,
        start: object = "end",
        cursors: Mapping[str, list[str | int]] | None = None,
        token: str | AnyTokenFunction | None = None,
        client_id: str | None = None,
        on_told: Callable[[Told], None] | None = None,
        ping_timeout: float = PING_TIMEOUT,
        backoff: Backoff | None = None,
        socketio_path: str = "socket.io",
    ) -> None:
        """Say what to follow; `start` is the protocol's `from`: "start", "end" or {"last": N}.

        A `token` function, which may be awaited, is asked at every connect; one that fails is asked again.

        Raises `InvalidStream` or `InvalidRequest` for what no server would take.
        """
        wire.check_from(start)
        kept = {Lane(lane): wire.check_cursor(cursor) for lane, cursor in (cursors or {}).items()}
        self.url = url
        self.client_id = client_id or secrets.token_hex(8)
        self.connects = 0
        self.unreadable = 0
        self._receiver = Receiver(wire.check_stream(stream), start=start, cursors=kept)
        self._token = token
        self._on_told = on_told
        self._ping_timeout = ping_timeout
        self._backoff = backoff or Backoff(base=0.2, cap=8.0, spread=0.8)
        self._path = socketio_path
        self._ready: dict[Lane, Deliver] = {}
        self._in_hand: Lane | None = None
        self._wake = asyncio.Event()
        self._told: deque[Told] = deque(maxlen=1_000)
        self._task: asyncio.Task[None] | None = None
        self._error: SteadcastError | None = None
        self._closed = False
        self._connection: _Connection | None = None
        self._timer: asyncio.TimerHandle | None = None

    # What can be asked

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self._receiver.stream

    @property
    def cursors(self) -> dict[str, list[str | int]]:
        """The cursors of what was applied so far, as the constructor takes them."""
        return {str(lane): cursor.as_wire() for lane, cursor in self._receiver.cursors.items()}

    @property
    def counts(self) -> Counts:
        """What happened so far."""
        return self._receiver.counts

    @property
    def told(self) -> list[Told]:
        """The last 1,000 things that were told."""
        return list(self._told)

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now."""
        return self._connection is not None

    @property
    def replaying(self) -> bool:
        """Whether the stream's head, as the last answer told it, is still ahead."""
        return self._receiver.replaying

    # Life

    async def __aenter__(self) -> Self:
        """Begin to connect, in the background."""
        self._task = asyncio.create_task(self._stay_connected(), name="steadcast-subscriber")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self.aclose()

    async def aclose(self) -> None:
        """Disconnect and end the iteration; `cursors` says what was applied."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is not None:
            await self._connection.close()
        self._receiver.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def __aiter__(self) -> AsyncIterator[Delivery]:
        """Iterate over the deliveries."""
        return self

    async def __anext__(self) -> Delivery:
        """Count the last delivery as applied, and wait for the next one; critical ones come first.

        Raises `NotAllowed` or `InvalidRequest` where the server refuses for good.
        """
        if self._in_hand is not None:
            lane, self._in_hand = self._in_hand, None
            self._do(self._receiver.handled(self._now(), lane))
        return await self._next()

    async def run(self, handler: Callable[[Delivery], Awaitable[None]]) -> None:
        """Call a handler for each delivery; one that fails three times is passed over and told."""
        while True:
            try:
                delivery = await self._next()
            except StopAsyncIteration:
                return
            self._in_hand = None
            try:
                await handler(delivery)
            except Exception:
                log.exception("the handler of %s %s failed", delivery.stream, delivery.event.id)
                self._do(self._receiver.failed(self._now(), delivery.lane))
            else:
                self._do(self._receiver.handled(self._now(), delivery.lane))

    async def _next(self) -> Delivery:
        while not self._closed:
            if self._error is not None:
                raise self._error
            lane = next((lane for lane in Lane if lane in self._ready), None)
            if lane is not None:
                self._in_hand = lane
                return self._delivery(self._ready.pop(lane))
            self._wake.clear()
            await self._wake.wait()
        raise StopAsyncIteration

    def _delivery(self, ready: Deliver) -> Delivery:
        after: dict[str, list[str | int]] = {
            str(ready.lane): [ready.position.epoch, ready.position.offset, ready.entry.event.id]
        }
        return Delivery(
            self.stream, ready.lane, ready.position, ready.entry.event, ready.attempt, self.cursors | after
        )

    # Effects

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Deliver():
                    self._ready[effect.lane] = effect
                    self._wake.set()
                case Told():
                    self._tell(effect)
                case SendSubscribe(stream, cursors, start):
                    self._send("subscribe", wire.subscribe_wire(stream, cursors, start))
                case SendAck(stream, lane, epoch, offset):
                    ack = {"stream": stream, "lane": str(lane), "epoch": epoch, "offset": offset}
                    self._send("ack", ack)
        self._arm()

    def _tell(self, told: Told) -> None:
        if told.kind == "refused":
            self._error = NotAllowed(f"the subscription was refused: {told.code}", code=told.code)
            self._wake.set()
        self._told.append(told)
        if self._on_told is not None:
            self._on_told(told)
        else:
            log.warning("%s: %s", self.stream, told)

    def _send(self, event: str, payload: dict[str, Any]) -> None:
        if self._connection is not None:
            self._connection.send(event, payload)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._receiver.next_deadline()
        if due is not None and not self._closed:
            self._timer = asyncio.get_running_loop().call_at(due, self._timeout)

    def _timeout(self) -> None:
        self._timer = None
        self._do(self._receiver.handle_timeout(self._now()))

    # The connection

    async def _stay_connected(self) -> None:
        failures = 0
        while not self._closed:
            connection = _Connection(self)
            try:
                await connection.open(await self._auth())
            except SteadcastError as error:
                if not error.temporary:
                    self._error = error
                    self._wake.set()
                    return
                failures += 1
                log.info("connecting to %s failed: %s", self.url, error.message)
                await asyncio.sleep(self._delay(failures, error.retry_after))
                continue
            failures = 0
            await self._serve(connection)
            await asyncio.sleep(max(connection.come_back_in(self._now()), self._delay(1, None)))

    async def _serve(self, connection: _Connection) -> None:
        self.connects += 1
        self._connection = connection
        self._do(self._receiver.connected(self._now()))
        try:
            await connection.until_lost(self._ping_timeout)
        finally:
            self._connection = None
            self._do(self._receiver.disconnected(self._now()))
            await connection.close()

    def _delay(self, failures: int, retry_after: float | None) -> float:
        return max(self._backoff.delay(failures, random.random()), retry_after or 0.0)  # noqa: S311 - jitter

    async def _auth(self) -> dict[str, Any]:
        auth: dict[str, Any] = {"client": {"id": self.client_id, "version": __version__}}
        return auth if self._token is None else auth | {"token": await fresh(self._token)}

    def _answered(self, answer: object) -> None:
        """Take the acknowledgement of a `subscribe`."""
        now = self._now()
        match answer:
            case {"ok": True, "lanes": lanes}:
                self._take_answer(now, lanes)
            case {"error": {"code": str(code), "temporary": bool(temporary), **rest}}:
                wait = rest.get("retry_after")
                known = float(wait) if isinstance(wait, (int, float)) else None
                self._do(
                    self._receiver.refused(
                        now,
                        code=code,
                        temporary=temporary,
                        retry_after=known,
                        jitter=random.random(),  # noqa: S311 - jitter
                    )
                )
            case _:
                log.warning("an answer that is none: %.200r", answer)

    def _take_answer(self, now: float, lanes: object) -> None:
        try:
            answers = wire.parse_answer(lanes)
        except InvalidRequest:
            # The subscribe counts as unanswered, and is sent again.
            self._receiver.counts.answers_dropped += 1
            log.exception("an answer that is none")
            return
        self._do(self._receiver.answered(now, answers))

    def _received(self, payload: object) -> None:
        try:
            batch = wire.parse_batch(payload)
        except InvalidRequest:
            # The chain shows the gap that is left, and it is repaired by another subscribe.
            self.unreadable += 1
            log.exception("a batch that is none")
            return
        if batch.stream == self.stream:
            self._do(self._receiver.received(self._now(), batch))

    def _pinged(self, payload: Any) -> None:
        heads = payload.get("heads", {}).get(self.stream, {})
        told = {Lane(lane): Position(*head) for lane, head in heads.items() if lane in set(Lane)}
        self._do(self._receiver.pinged(self._now(), told))


class _Connection:
    """One Socket.IO connection from its opening to its end; it never comes back."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        # A session of our own: the library forgets to close its one where a connect fails.
        self._http = aiohttp.ClientSession()
        self._client = socketio.AsyncClient(reconnection=False, handle_sigint=False, http_session=self._http)
        self._refusal: object = None
        self._lost = asyncio.Event()
        self._speaks = False
        self._last_ping = 0.0
        self._come_back_at = 0.0
        self._out: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(maxsize=1_000)
        self._sender: asyncio.Task[None] | None = None
        for name in ("welcome", "batch", "ping", "error", "goaway", "disconnect", "connect_error"):
            self._client.on(name, getattr(self, f"_on_{name}"))

    async def open(self, auth: dict[str, Any]) -> None:
        """Connect; raises `SteadcastError`, temporary or not, where that failed or was refused."""
        try:
            await self._connect_or_notice(auth)
        except socketio.exceptions.ConnectionError as error:
            await self._http.close()
            raise self._why(error) from error
        except asyncio.CancelledError:
            await self._http.close()
            raise
        self._sender = asyncio.create_task(self._send_all())

    async def _connect_or_notice(self, auth: dict[str, Any]) -> None:
        """Connect, and notice a transport that ends meanwhile: the library would wait out its timeout."""
        connecting = asyncio.ensure_future(
            self._client.connect(
                self._subscriber.url,
                auth=auth,
                transports=["websocket"],
                wait_timeout=CONNECT_TIMEOUT,
                socketio_path=self._subscriber._path,  # noqa: SLF001 - the two halves of one thing
            )
        )
        opened = False
        try:
            while not connecting.done():
                await asyncio.wait({connecting}, timeout=0.05)
                if opened and not self._open and not connecting.done():
                    break
                opened = opened or self._open
        finally:
            connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        if not connecting.cancelled():
            connecting.result()
        if not self._open:
            raise socketio.exceptions.ConnectionError("the connection ended while it was being made")

    @property
    def _open(self) -> bool:
        return bool(self._client.eio.state == "connected")

    def _why(self, error: Exception) -> SteadcastError:
        match self._refusal:
            case {"message": str(message), "data": {"code": str(code), "temporary": bool(temporary), **rest}}:
                wait = rest.get("retry_after")
                known = float(wait) if isinstance(wait, (int, float)) else None
                return SteadcastError(message, code=code, temporary=temporary, retry_after=known)
        return SteadcastError(str(error) or "no connection", code="unreachable", temporary=True)

    async def until_lost(self, ping_timeout: float) -> None:
        """Wait until the connection is gone, or gives no sign of life for too long."""
        loop = asyncio.get_running_loop()
        self._last_ping = loop.time()
        while not self._lost.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), min(LOOK, ping_timeout / 4))
            if not self._open:
                return
            if self._speaks and loop.time() - self._last_ping >= ping_timeout:
                log.warning("no ping from %s for %g s; connecting anew", self._subscriber.url, ping_timeout)
                return
            if 0 < self._come_back_at <= loop.time():
                return

    def come_back_in(self, now: float) -> float:
        """Give the seconds that a `goaway` asked to wait, from now."""
        return max(0.0, self._come_back_at - now)

    def send(self, event: str, payload: dict[str, Any]) -> None:
        """Queue a message; a queue that is full means that nothing moves: the connection is given up."""
        try:
            self._out.put_nowait((event, payload))
        except asyncio.QueueFull:
            self._lost.set()

    async def close(self) -> None:
        """Send what is queued where that is quick, and disconnect."""
        if self._sender is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._out.join(), 0.2)
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._client.disconnect(), 2.0)
        await self._http.close()
        self._lost.set()

    async def _send_all(self) -> None:
        while True:
            event, payload = await self._out.get()
            try:
                answer = self._subscriber._answered if event == "subscribe" else None  # noqa: SLF001 - as above
                await self._client.emit(event, payload, callback=answer)
            except socketio.exceptions.SocketIOError:
                self._lost.set()
            finally:
                self._out.task_done()

    def _on_welcome(self, _: object) -> None:
        self._speaks = True

    def _on_batch(self, payload: object) -> None:
        if not self._lost.is_set():
            self._subscriber._received(payload)  # noqa: SLF001 - as above

    def _on_ping(self, payload: object) -> None:
        if not isinstance(payload, dict):
            return
        self._last_ping = asyncio.get_running_loop().time()
        self.send("pong", {"time": payload.get("time")})
        if not self._lost.is_set():
            self._subscriber._pinged(payload)  # noqa: SLF001 - as above

    def _on_error(self, payload: object) -> None:
        log.warning("%s says: %.300r", self._subscriber.url, payload)

    def _on_goaway(self, payload: object) -> None:
        match payload:
            case {"reconnect_in": [float() | int() as least, float() | int() as most]}:
                wait = random.uniform(least, max(least, most))  # noqa: S311 - spreads the clients
                self._come_back_at = asyncio.get_running_loop().time() + wait

    def _on_disconnect(self, *_: object) -> None:
        self._lost.set()

    def _on_connect_error(self, data: object = None) -> None:
        self._refusal = data
