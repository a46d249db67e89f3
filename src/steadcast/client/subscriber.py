"""A subscriber: every event of a stream, in each lane's order, applied once; it reconnects by itself.

The rule it follows is `core.cursor.Receiver`; this module gives it a connection and a clock.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from steadcast import wire
from steadcast.client.address import parse_address
from steadcast.client.connection import Connection
from steadcast.client.problems import wait_of
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
        socketio_path: str | None = None,
    ) -> None:
        """Say what to follow; `start` is the protocol's `from`: "start", "end" or {"last": N}.

        A `token` function, which may be awaited, is asked at every connect; one that fails is asked again.
        `socketio_path` counts from the server's root; by default it is `socket.io` under the path of `url`.

        Raises `InvalidStream` or `InvalidRequest` for what no server would take.
        """
        wire.check_from(start)
        kept = {Lane(lane): wire.check_cursor(cursor) for lane, cursor in (cursors or {}).items()}
        address = parse_address(url)
        self.url = address.url
        self.client_id = client_id or secrets.token_hex(8)
        self.connects = 0
        self.unreadable = 0
        self.tellings_failed = 0
        self._receiver = Receiver(wire.check_stream(stream), start=start, cursors=kept)
        self._token = token
        self._on_told = on_told
        self._ping_timeout = ping_timeout
        self._backoff = backoff or Backoff(base=0.2, cap=8.0, spread=0.8)
        self._path = f"{address.base}/socket.io".lstrip("/") if socketio_path is None else socketio_path
        self._ready: dict[Lane, Deliver] = {}
        self._in_hand: Lane | None = None
        self._wake = asyncio.Event()
        self._told: deque[Told] = deque(maxlen=1_000)
        self._task: asyncio.Task[None] | None = None
        self._error: SteadcastError | None = None
        self._closed = False
        self._connection: Connection | None = None
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
        self._task = asyncio.create_task(self._run_connections(), name="steadcast-subscriber")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self.aclose()

    async def aclose(self) -> None:
        """Disconnect and end the iteration; `cursors` says what was applied.

        A second call finishes what the first was cancelled in.
        """
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
        self._count_applied()
        ready = await self._next()
        self._in_hand = ready.lane
        return self._delivery(ready)

    async def run(self, handler: Callable[[Delivery], Awaitable[None]]) -> None:
        """Call a handler for each delivery; one that fails three times is passed over and told.

        Cancelled in a handler, its event isn't applied: it is the next one of whoever goes on.
        """
        self._count_applied()
        while True:
            try:
                ready = await self._next()
            except StopAsyncIteration:
                return
            delivery = self._delivery(ready)
            try:
                await handler(delivery)
            except asyncio.CancelledError:
                self._ready[ready.lane] = ready
                raise
            except Exception:
                log.exception("the handler of %s %s failed", delivery.stream, delivery.event.id)
                self._do(self._receiver.failed(self._now(), delivery.lane))
            else:
                self._do(self._receiver.handled(self._now(), delivery.lane))

    def _count_applied(self) -> None:
        """Count what was handed out last, since the next one is asked for."""
        if self._in_hand is not None:
            lane, self._in_hand = self._in_hand, None
            self._do(self._receiver.handled(self._now(), lane))

    async def _next(self) -> Deliver:
        while not self._closed:
            if self._error is not None:
                raise self._error
            lane = next((lane for lane in Lane if lane in self._ready), None)
            if lane is not None:
                return self._ready.pop(lane)
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
        if self._on_told is None:
            log.warning("%s: %s", self.stream, told)
            return
        try:
            self._on_told(told)
        except Exception:
            # The deliveries go on: what was told stands in `told` as well.
            self.tellings_failed += 1
            log.exception("on_told failed")

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

    async def _run_connections(self) -> None:
        """Stay connected; what nobody foresaw is raised where the deliveries are awaited, never swallowed."""
        try:
            await self._stay_connected()
        except Exception as error:
            log.exception("following %s ended", self.stream)
            self._error = SteadcastError(f"the subscriber failed: {error!r}", code="internal")
            self._wake.set()

    async def _stay_connected(self) -> None:
        failures = 0
        while not self._closed:
            connection = Connection(self.url, self._path, self)
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

    async def _serve(self, connection: Connection) -> None:
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

    def answered(self, answer: object) -> None:
        """Take the acknowledgement of a `subscribe`."""
        now = self._now()
        match answer:
            case {"ok": True, "lanes": lanes}:
                self._take_answer(now, lanes)
            case {"error": {"code": str(code), "temporary": bool(temporary), **rest}}:
                self._do(
                    self._receiver.refused(
                        now,
                        code=code,
                        temporary=temporary,
                        retry_after=wait_of(rest),
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

    def received(self, payload: object) -> None:
        """Take a `batch`."""
        try:
            batch = wire.parse_batch(payload)
        except InvalidRequest:
            # The chain shows the gap that is left, and it is repaired by another subscribe.
            self.unreadable += 1
            log.exception("a batch that is none")
            return
        if batch.stream == self.stream:
            self._do(self._receiver.received(self._now(), batch))

    def pinged(self, payload: dict[str, Any]) -> None:
        """Take a `ping`: its heads may show what was lost."""
        heads = payload.get("heads", {}).get(self.stream, {})
        told = {Lane(lane): Position(*head) for lane, head in heads.items() if lane in set(Lane)}
        self._do(self._receiver.pinged(self._now(), told))
