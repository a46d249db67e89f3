"""How batches reach Socket.IO clients: framed once for all of them, or through each one's queue.

The direct way writes WebSocket frames to each client's transport: one write for each client and flush, of the
same bytes for all, and many of them in one system call where the kernel takes them (`aio.py`). It is open to
clients on a `Carrier`, once all that was queued for them before is out. Everybody else, on polling,
before an upgrade, or under another server, goes the stock way: the frame is queued with Engine.IO, as one
packet that all share.
"""

from __future__ import annotations

import zlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec
from engineio import packet as engine_packet

from steadcast.socketio.aio import Aio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from steadcast.hub import Frame
    from steadcast.wire import Ack

WINDOW_BITS: Final = 12
MEMORY_LEVEL: Final = 5
"""zlib's measures for permessage-deflate, as uvicorn has them: little memory for each client."""

WayName = Literal["preframed", "single", "stock"]
"""`single` is `preframed` with a system call for each WebSocket."""

TEXT: Final = 0x81
"""A WebSocket frame's first byte: a text message that is whole (RFC 6455, section 5.2)."""
COMPRESSED: Final = 0xC1
"""The same, with the bit that permessage-deflate sets (RFC 7692, section 6)."""
MANY: Final = 8
"""From so many transports on, one system call for all costs less than one for each."""
SYNC_TAIL: Final = b"\x00\x00\xff\xff"
"""What a sync flush ends with, and what a compressed message goes without (RFC 7692, section 7.2.1)."""


class Reader(Protocol):
    """Who wants to know what happens to a WebSocket that it writes to."""

    def paused(self) -> None:
        """Its transport takes no more for now, or never again; may come in the middle of a write."""
        ...

    def resumed(self) -> None:
        """Its transport takes bytes again."""
        ...

    def acked(self, ack: Ack) -> bool:
        """Take an `ack` that counts; False leaves it to whoever handles all the other events."""
        ...


class Door:
    """A transport that whole frames may be written to, between what its own protocol writes.

    `write` raises RuntimeError once it is closed. While `waiting` gives 0 bytes, what goes to `descriptor`, a
    socket that doesn't block, is in its turn as well; there is none with TLS. `shut`, where there is one, is
    asked before each frame, and tells that the client may not have it.
    """

    __slots__ = ("descriptor", "shut", "waiting", "write")

    def __init__(
        self, write: Callable[[bytes | memoryview], None], waiting: Callable[[], int], descriptor: int | None
    ) -> None:
        """Open it."""
        self.write = write
        self.waiting = waiting
        self.descriptor = descriptor
        self.shut: Callable[[], bool] | None = None


class Carrier(Protocol):
    """A WebSocket with a door to its transport; see `steadcast.socketio.websocket`."""

    paused: bool
    over: bool

    @property
    def deflates(self) -> bool:
        """Whether its client agreed to permessage-deflate."""
        ...

    def open(self, reader: Reader) -> Door:
        """Let whole frames be written to the transport, and tell `reader` of pauses and acks."""
        ...

    def leave(self, reader: Reader) -> None:
        """Tell this reader nothing any more."""
        ...

    def say(self, message: str | bytes) -> bool:
        """Write a message to this client; False where it has to wait, or has nowhere to go."""
        ...

    def listen(self, listener: Callable[[bytes], bool] | None) -> None:
        """Offer every text to `listener` before it would have to wait; it tells whether it took it."""
        ...

    def limit(self, size: int | None) -> None:
        """Take messages of so many bytes at most from now on, or as many as is configured."""
        ...

    def abort(self) -> None:
        """Drop the connection, with what is buffered for it."""
        ...


CARRIER: Final[ContextVar[Carrier | None]] = ContextVar("steadcast_carrier", default=None)
"""The WebSocket that carries what is being handled; None on polling and under another server."""


class FanoutCounts(msgspec.Struct):
    """What was written directly: flushes and pages, the writes and bytes that they came to, and pauses.

    `submitted` counts the writes that went many in one system call, and `short` those of them that the socket
    didn't take whole; `late` counts writes to transports that were closed already.
    """

    flushes: int = 0
    writes: int = 0
    submitted: int = 0
    short: int = 0
    bytes: int = 0
    pauses: int = 0
    late: int = 0


def text_frame(frame: Frame) -> bytes:
    """Make the WebSocket frame of a batch: Engine.IO's message, Socket.IO's event, the JSON as it is."""
    return framed(TEXT, b'42["batch",%b]' % frame.payload)


def deflated_frame(frame: Frame) -> bytes:
    """Make the same, compressed by itself: no context is taken over, so every client can read it."""
    compress = zlib.compressobj(wbits=-WINDOW_BITS, memLevel=MEMORY_LEVEL)
    body = compress.compress(b'42["batch",%b]' % frame.payload) + compress.flush(zlib.Z_SYNC_FLUSH)
    return framed(COMPRESSED, body.removesuffix(SYNC_TAIL))


def framed(first: int, body: bytes) -> bytes:
    """Put the header in front, whose first byte is given: a server's frames aren't masked (RFC 6455, 5.1)."""
    size = len(body)
    if size < 126:  # noqa: PLR2004 - RFC 6455's own numbers: up to 125 the length stands in the second byte
        return b"%c%c%b" % (first, size, body)
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (first, size.to_bytes(2), body)
    return b"%c\x7f%b%b" % (first, size.to_bytes(8), body)


class Preframed:
    """The direct way: the same bytes to every transport."""

    def __init__(self, make: Callable[[Frame], bytes], counts: FanoutCounts, aio: Aio | None = None) -> None:
        """Write what `make` makes of a frame, many at once where there is `aio`."""
        self._make = make
        self._counts = counts
        self._aio = aio

    def write(self, frame: Frame, targets: Sequence[Door]) -> None:
        """Write a batch to each transport; one that is gone is counted."""
        data = frame.form(self._make)
        doors = [door for door in targets if door.shut is None or not door.shut()]
        counts = self._counts
        counts.flushes += 1
        counts.writes += len(doors)
        counts.bytes += len(data) * len(doors)
        if len(doors) >= MANY and self._aio is not None and self._aio.ready():
            doors = self._submit(self._aio, data, doors)
        for door in doors:
            self._write(door, data)

    def _submit(self, aio: Aio, data: bytes, doors: list[Door]) -> list[Door]:
        """Write to those whose turn it is, all at once; gives the others."""
        free = [door for door in doors if door.descriptor is not None and not door.waiting()]
        short = aio.write(data, [door.descriptor for door in free])  # type: ignore[misc]  # none is None
        self._counts.submitted += len(free)
        self._counts.short += len(short)
        for index, taken in short.items():
            self._write(free[index], memoryview(data)[taken:])
        if len(free) == len(doors):
            return []
        written = frozenset(free)
        return [door for door in doors if door not in written]

    def _write(self, door: Door, data: bytes | memoryview) -> None:
        try:
            door.write(data)
        except RuntimeError:
            self._counts.late += 1  # closed in this very step: its session ends with the next


class Fanout:
    """Both ways, and which one a client goes."""

    def __init__(self, way: WayName = "preframed") -> None:
        """Go the direct way wherever it is open, unless `way` says that nobody does (`stock`)."""
        self.way: WayName = way
        self.counts = FanoutCounts()
        self._aio = Aio() if way == "preframed" else None
        self.plain = Preframed(text_frame, self.counts, self._aio)
        self.deflated = Preframed(deflated_frame, self.counts, self._aio)

    def close(self) -> None:
        """Give back what the kernel keeps for it; whoever writes after this does it one by one."""
        if self._aio is not None:
            self._aio.close()

    def open_carrier(self) -> Carrier | None:
        """Give the WebSocket that carries what is being handled, where the direct way is open on it."""
        carrier = CARRIER.get()
        return None if carrier is None or carrier.over or self.way == "stock" else carrier

    def way_of(self, carrier: Carrier) -> Preframed:
        """Give the way for a WebSocket: as its client agreed to read it."""
        return self.deflated if carrier.deflates else self.plain

    def statistics(self, direct: Sequence[bool], window: float) -> dict[str, Any]:
        """Tell how many go which way, and what was written directly.

        `direct` says of each client whether it is written to directly; `window` is in seconds.
        """
        return {
            "way": self.way,
            "preframed": direct.count(True),
            "stock": direct.count(False),
            "window": window,
            **msgspec.structs.asdict(self.counts),
        }


class Marker(engine_packet.Packet):  # type: ignore[misc]
    """An Engine.IO packet without meaning, which says when all that was queued before it is written.

    The queue's writer encodes a packet when the one before is with the transport.
    """

    def __init__(self, passed: Callable[[], object]) -> None:
        """Call `passed` once."""
        super().__init__(engine_packet.NOOP)
        self._passed: Callable[[], object] | None = passed

    def encode(self, b64: bool = False) -> Any:
        """Give Engine.IO's no-operation."""
        passed, self._passed = self._passed, None
        if passed is not None:
            passed()
        return super().encode(b64)
