"""Server-sent events (HTML, section 9.2): one response that follows both lanes of a stream.

| event | data | |
|---|---|---|
| `subscribed` | `{stream, lanes}` as Socket.IO's `subscribe` answers | first |
| (message) | one event, with its `lane` and `offset` | |
| `trimmed` | `{stream, lane, epoch, lost: [from, to], maybe?}` | that range is gone |
| `reset` | `{stream, lane, epoch, cursor: [epoch, offset]}` | another log: forget what that lane showed |
| `unavailable` | problem details | the engine is away; the feed goes on when it is back |
| `goaway` | `{reason, reconnect_in}` | the response ends; seconds, also set as `retry` |

`id:` is `EPOCH:CRITICAL:NORMAL`, what was told of both lanes so far. What a reader must not miss (`trimmed`,
`reset`) stands before the id that passes it.

A feed is a connection of the hub: its acks are given as the transport takes what was written. A reader that
takes nothing for a moment is parked: its session is closed and its queue thrown away, so that it costs a
cursor; when it takes again, it is subscribed from there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from steadcast.errors import InvalidRequest, SteadcastError
from steadcast.event import LANES, Lane
from steadcast.gate import Gate
from steadcast.http.access import identity_of
from steadcast.http.problems import problem_of
from steadcast.http.reads import parse_from, parse_offset
from steadcast.wire import Ack, Cursor, Subscribe, answer_wire, check_epoch, check_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from steadcast.core.session import Session
    from steadcast.event import Batch
    from steadcast.http.context import Context
    from steadcast.http.feeds import Lines
    from steadcast.hub import Frame
    from steadcast.wire import LaneAnswer

MEDIA_TYPE: Final = "text/event-stream"
SLICE: Final = 16 * 1024
"""Bytes that are written at once; each slice that the transport takes is progress."""
QUEUE: Final = 4_096
"""Batches that wait at most; the ack window allows fewer, unless batches are empty."""
RECONNECT: Final = 2_000
"""Milliseconds after which a browser reconnects by itself (`retry:`)."""
HEADERS: Final = {
    "content-type": f"{MEDIA_TYPE}; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # a proxy that buffers would hold events back
}

_encoder: Final = msgspec.json.Encoder()


async def feed(context: Context, request: Request) -> Feed:
    """Answer `GET /v1/streams/{stream}/sse`."""
    query = request.query_params
    stream = check_stream(request.path_params["stream"])
    last_id = request.headers.get("last-event-id") or query.get("last_event_id")
    cursors = parse_id(last_id) if last_id else {}
    wanted = Subscribe(stream, cursors, parse_from(query.get("from", "end")))
    # A browser gives an EventSource up for good at the first status that isn't 200.
    patient = MEDIA_TYPE in request.headers.get("accept", "")
    gate = Gate(identity_of(request), wall=context.wall)
    return Feed(context, wanted, gate, patient=patient)


def parse_id(text: str) -> dict[Lane, Cursor]:
    """Turn `EPOCH:CRITICAL:NORMAL` into both lanes' cursors; raises `InvalidRequest`."""
    parts = text.split(":")
    if len(parts) != 1 + len(LANES):
        raise InvalidRequest("Last-Event-ID is EPOCH:CRITICAL:NORMAL", field="last_event_id")
    epoch = check_epoch(parts[0], "last_event_id")
    offsets = (parse_offset(part, "last_event_id") for part in parts[1:])
    return {lane: Cursor(epoch, offset) for lane, offset in zip(LANES, offsets, strict=True)}


class Feed:
    """One SSE response, and a connection of the hub."""

    def __init__(self, context: Context, wanted: Subscribe, gate: Gate, *, patient: bool) -> None:
        """Begin nothing before the response is sent; `patient`: an engine that is away is waited for."""
        self.id = f"sse-{secrets.token_hex(8)}"
        self._context = context
        self._stream = wanted.stream
        self._wanted = wanted
        self._gate = gate
        self._patient = patient
        self._session: Session | None = None
        self._epoch = ""
        self._places: dict[Lane, int] = {}
        self._queue: deque[tuple[Batch, Lines]] = deque()  # bounded by QUEUE in `write`
        self._torn = False
        self._wake = asyncio.Event()
        self._end: SteadcastError | Literal["gone"] | None = None
        self._patience: asyncio.Timeout | None = None
        self._told = ""
        self._answers: dict[Lane, LaneAnswer] = {}
        self._send: Send

    # What the hub calls

    def write(self, frame: Frame) -> None:
        """Queue a batch; what finds no room is read from the log again."""
        if (why := self._gate.ended) is not None:
            self.kick(why)
        elif len(self._queue) >= QUEUE:
            self._torn = True
        else:
            # The lines are all that is written: the events themselves needn't wait with them.
            bare = msgspec.structs.replace(frame.batch, events=())
            self._queue.append((bare, self._context.feeds.lines(frame)))
        self._wake.set()

    def kick(self, error: SteadcastError) -> None:
        """End the response, and tell the reader why if it still takes anything."""
        self._end = self._end or error
        self._wake.set()
        self._hurry()

    def look(self) -> None:
        """End the response if its token has."""
        self._gate.look()

    # The response

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; returns when the reader is gone, was told to go, or takes nothing any more."""
        context = self._context
        context.feeds.enter(self, context.limits.feeds)
        context.hub.enter(self)
        context.counts["feeds_opened"] += 1
        self._send = send
        watch = asyncio.create_task(self._watch(receive), name=f"steadcast-{self.id}")
        self._gate.watch(self.kick)
        try:
            await self._first()
            await self._run()
        except TimeoutError:
            # The status is sent and the reader takes nothing: the server closes the connection.
            context.counts["feeds_stalled"] += 1
        finally:
            watch.cancel()
            self._gate.close()
            context.hub.leave(self)
            context.feeds.leave(self)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._end = "gone"
        self._wake.set()

    async def _run(self) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": _raw(HEADERS)})
        await self._give(b"retry: %d\n\n" % RECONNECT)
        if self._session is not None:
            await self._begin()
        while self._end is None:
            if self._torn:
                self._drop("feeds_torn")
            elif self._session is None:
                await self._resume()
            elif self._queue:
                await self._next(*self._queue.popleft())
            elif not await self._wait(self._context.limits.keep_alive):
                await self._give(b": keep-alive\n\n")
        await self._finish(self._end)

    async def _finish(self, why: SteadcastError | Literal["gone"]) -> None:
        if why != "gone":
            self._context.counts["feeds_sent_away"] += 1
            after = why.retry_after if why.retry_after is not None else RECONNECT / 1000
            told = {"reason": why.code, "reconnect_in": round(after, 3)}
            await self._give(b"retry: %d\n%b" % (after * 1000, _named("goaway", told)))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _give(self, body: bytes) -> None:
        """Write bytes, and wait until the transport has taken them; raises TimeoutError if it never does."""
        limits = self._context.limits
        loop = asyncio.get_running_loop()
        for start in range(0, len(body), SLICE):
            park = loop.call_later(limits.park_after, self._park)
            try:
                async with asyncio.timeout(limits.stalled_after) as self._patience:
                    await self._body(body[start : start + SLICE])
                    # A server waits for room before it writes: the empty write returns when there is some.
                    await self._body(b"")
                    # A server that has room doesn't wait: others, and the news that the reader is gone, do.
                    await asyncio.sleep(0)
            finally:
                self._patience = None
                park.cancel()

    async def _body(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _wait(self, seconds: float) -> bool:
        """Wait until something happens; tells whether it did within that time."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    # The session

    async def _first(self) -> None:
        try:
            await self._subscribe()
        except SteadcastError as error:
            if not (self._patient and error.temporary):
                raise
            self._context.counts["feeds_waiting"] += 1

    async def _subscribe(self) -> None:
        """Make the session, and queue nothing of an older one."""
        hub = self._context.hub
        self._answers, self._session = await self._context.within(
            "subscribe", hub.subscribe(self, self._request())
        )
        self._queue.clear()
        self._torn = False

    def _request(self) -> Subscribe:
        if not self._places:
            return self._wanted
        cursors = {lane: Cursor(self._epoch, place) for lane, place in self._places.items()}
        return Subscribe(self._stream, cursors, 0)

    async def _resume(self) -> None:
        """Subscribe from the cursor, after an engine was away or a gap was seen."""
        try:
            await self._subscribe()
        except SteadcastError as error:
            self._context.counts["feeds_waiting"] += 1
            fresh, self._told = error.code != self._told, error.code
            await self._give(_named("unavailable", problem_of(error)) if fresh else b": waiting\n\n")
            await self._wait(self._context.limits.retry)
            return
        await self._begin()

    async def _begin(self) -> None:
        session = self._session
        first = not self._places
        self._told = ""
        told = b"".join(self._answer_blocks(self._answers, first=first))
        if told:
            await self._give(told)
        if session is not None and self._session is session:
            self._context.hub.begin(session)

    def _answer_blocks(self, answers: dict[Lane, LaneAnswer], *, first: bool) -> Iterator[bytes]:
        """Tell what an answer says, and move to its cursors; the id comes with the last block alone."""
        blocks: list[tuple[str, Any]] = []
        if first:
            blocks.append(("subscribed", {"stream": self._stream, "lanes": answer_wire(answers)["lanes"]}))
        for lane, answer in answers.items():
            told = {"stream": self._stream, "lane": lane, "epoch": answer.cursor.epoch}
            if answer.status == "trimmed":
                maybe = {"maybe": True} if answer.maybe else {}
                blocks.append(("trimmed", told | {"lost": answer.lost} | maybe))
            elif answer.status == "reset":
                blocks.append(("reset", told | {"cursor": answer.cursor}))
            self._epoch = answer.cursor.epoch
            self._places[lane] = answer.cursor.offset
        last = len(blocks) - 1
        for number, (name, data) in enumerate(blocks):
            yield _named(name, data, self._id(self._places) if number == last else None)

    def _park(self) -> None:
        if self._session is not None:
            self._drop("feeds_parked")
        self._hurry()

    def _hurry(self) -> None:
        """Wait no longer for a reader that is to go and takes nothing."""
        patience = self._patience
        if self._end is not None and self._session is None and patience and not patience.expired():
            patience.reschedule(asyncio.get_running_loop().time())

    def _drop(self, why: str) -> None:
        """Close the session and forget what was queued: only the cursor is kept."""
        self._context.counts[why] += 1
        self._context.hub.unsubscribe(self, self._stream)
        self._session = None
        self._torn = False
        self._queue.clear()

    # The batches

    async def _next(self, batch: Batch, lines: Lines) -> None:
        """Write a batch that follows on what was written; anything else is a gap, and asked about."""
        if batch.epoch != self._epoch or batch.after > self._places[batch.lane]:
            self._drop("feeds_gaps")
            return
        for upto, piece in self._pieces(batch, lines):
            if piece:
                await self._give(piece)
            self._places[batch.lane] = upto
            if self._session is None or self._end == "gone":
                return  # parked meanwhile: the rest is read from the log again
            self._context.hub.take_ack(self, Ack(self._stream, batch.lane, batch.epoch, upto))

    def _pieces(self, batch: Batch, lines: Lines) -> Iterator[tuple[int, bytes]]:
        """Cut a batch into slices of whole events, each with the offset that it ends at."""
        places = dict(self._places)
        piece: list[bytes] = []
        size = 0
        for offset, line in lines:
            if offset <= self._places[batch.lane]:
                continue
            places[batch.lane] = offset
            piece += (b"id: ", self._id(places), b"\n", line)
            size += len(line)
            if size >= SLICE:
                yield offset, b"".join(piece)
                piece, size = [], 0
        if batch.upto > self._places[batch.lane]:
            yield batch.upto, b"".join(piece)

    def _id(self, places: dict[Lane, int]) -> bytes:
        return ":".join((self._epoch, *(str(places[lane]) for lane in LANES))).encode()


def _named(name: str, data: Any, event_id: bytes | None = None) -> bytes:
    head = b"" if event_id is None else b"id: %b\n" % event_id
    return b"%bevent: %b\ndata: %b\n\n" % (head, name.encode(), _encoder.encode(data))


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
