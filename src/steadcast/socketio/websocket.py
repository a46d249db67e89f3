"""A WebSocket whose transport can be written to directly: give this class to uvicorn as `ws=`.

uvicorn's own class stays in charge of the handshake, of everything that comes in and of what Socket.IO sends.
Beside it, whole frames may be written to the transport, between uvicorn's own. The frames of batches are made
once for a whole group (`fanout.py`), so nothing of this connection's is needed to write them: that holds
without permessage-deflate, and with it as long as no context is taken over from one message to the next
(RFC 7692, section 7.1.1), which is why it is refused here.
"""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import structlog
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.protocol import State
from websockets.server import ServerProtocol

from steadcast.socketio.fanout import CARRIER, MEMORY_LEVEL, TEXT, WINDOW_BITS, Door, Reader, framed
from steadcast.socketio.queues import Flag, Queue
from steadcast.wire import Ack

try:
    from websockets.speedups import apply_mask
except ImportError:  # the library is built without it where no wheel fits
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn._types import ASGISendEvent
    from websockets.frames import Frame

log = structlog.get_logger("steadcast.socketio")

SEND_BUFFER: Final = 64 * 1024
"""What the kernel is asked to buffer for a client; Linux doubles it (socket(7)). Its own choice grows to
megabytes, behind which a client that stands still isn't seen."""
ACK: Final = b'42["ack",'
"""How an `ack` begins: Engine.IO's message, Socket.IO's event, and no acknowledgement asked for."""
MASK: Final = 4
"""Bytes of the mask that stands before what a client says (RFC 6455, section 5.2)."""
SHORT: Final = 125
"""What a frame says at most whose length stands in its second byte."""
MASKED: Final = 0x80
"""What that byte is above the length in a client's frame."""
LONGER: Final = MASKED + 126
"""What it is where the length, of up to 65,535 bytes, stands in the two that follow."""

LONGEST_ACK: Final = 1_024
"""Bytes of the longest that is kept: what names a stream and an epoch is far shorter."""

_decode_ack = msgspec.json.Decoder(tuple[str, Ack]).decode


@lru_cache(64)
def _ack_of(text: bytes) -> Ack | None:
    """Give the ack that a message is; None where another part has to say what is wrong with it.

    Those who follow a stream together acknowledge it in the same words.
    """
    try:
        return _decode_ack(text[2:])[1]
    except (msgspec.MsgspecError, UnicodeError):
        return None


def text_in(data: bytes) -> bytes | None:
    """Give what a client says, where these bytes are one whole text frame of up to 65,535 bytes."""
    if len(data) <= 2 + MASK or data[0] != TEXT:
        return None
    longer = data[1] == LONGER
    head = (4 if longer else 2) + MASK
    told = int.from_bytes(data[2:4]) if longer else data[1] - MASKED
    if not 0 < told == len(data) - head or (told > SHORT and not longer):
        return None
    return apply_mask(data[head:], data[head - MASK : head])


class Frames(ServerProtocol):
    """The library's reader of frames, which tells where in the stream it stands."""

    between = False
    """Whether what comes next begins a message: nothing of it has been read, nor of one in fragments."""

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame that was read whole."""
        super().recv_frame(frame)
        self.between = not self.reader.buffer and self.current_size is None and self.state is State.OPEN


class DirectWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, with a door to its transport."""

    # Python keeps up to 30 attributes beside an object, and more in a dictionary: 1.3 KB for each client, and
    # one more place to look at for each message. With these apart, uvicorn's others are fewer than that.
    __slots__ = (
        "_listener",
        "_reader",
        "config",
        "conn",
        "curr_msg_data_type",
        "frames",
        "loop",
        "over",
        "paused",
        "queue",
        "request",
        "response",
        "scope",
        "transport",
        "writable",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Begin as uvicorn's does."""
        super().__init__(*args, **kwargs)
        self._reader: Reader | None = None
        self._listener: Callable[[bytes], bool] | None = None
        self.paused = False
        self.over = False
        # What uvicorn uses of asyncio's own:
        self.queue = Queue()  # type: ignore[assignment]  # bounded by pausing reads while a message waits
        self.writable = Flag()  # type: ignore[assignment]
        self.conn: Frames = _frames(self.conn)
        if self.config.ws_per_message_deflate:
            self.conn.available_extensions = [_deflate()]

    # The door

    @property
    def deflates(self) -> bool:
        """Whether the client agreed to permessage-deflate."""
        return bool(self.conn.extensions)

    def open(self, reader: Reader) -> Door:
        """Let whole frames be written to the transport, and tell `reader` of pauses and acks."""
        self._reader = reader
        transport = self.transport
        # Once it is over its descriptor may be closed, or somebody else's.
        connection: Any = None if self.over else transport.get_extra_info("socket")
        if connection is not None and connection.family in {socket.AF_INET, socket.AF_INET6}:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if self.paused or self.over:
            reader.paused()
        bare = connection is not None and transport.get_extra_info("sslcontext") is None
        return Door(transport.write, transport.get_write_buffer_size, connection.fileno() if bare else None)

    def say(self, message: str | bytes) -> bool:
        """Write a message to this client; False where it has to wait, or has nowhere to go."""
        if self.paused or self.over or self.transport.is_closing():
            return False
        if isinstance(message, bytes):
            self.conn.send_binary(message)
        elif self.deflates:
            self.conn.send_text(message.encode())
        else:
            self.transport.write(framed(TEXT, message.encode()))
            return True
        self.transport.write(b"".join(self.conn.data_to_send()))
        return True

    def listen(self, listener: Callable[[bytes], bool] | None) -> None:
        """Offer every text to `listener` before it would have to wait; it tells whether it took it."""
        self._listener = listener

    def limit(self, size: int | None) -> None:
        """Take messages of so many bytes at most from now on, or as many as is configured."""
        self.conn.max_message_size = self.config.ws_max_size if size is None else size

    def leave(self, reader: Reader) -> None:
        """Tell this reader nothing any more."""
        if self._reader is reader:
            self._reader = None

    def abort(self) -> None:
        """Drop the connection, with what is buffered for it."""
        self._end()
        self.transport.abort()

    def _end(self) -> None:
        """Let nobody write behind a close frame (RFC 6455, section 5.5.1)."""
        if not self.over:
            self.over = True
            if self._reader is not None:
                self._reader.paused()

    # What uvicorn and the transport call

    async def run_asgi(self) -> None:
        """Serve; whoever handles what comes in finds this WebSocket in `CARRIER`."""
        CARRIER.set(self)
        await super().run_asgi()

    def pause_writing(self) -> None:
        """Note that the transport is full; may be called in the middle of a write."""
        super().pause_writing()
        self.paused = True
        if self._reader is not None:
            self._reader.paused()

    def resume_writing(self) -> None:
        """Note that the transport takes bytes again."""
        super().resume_writing()
        self.paused = False
        if self._reader is not None and not self.over:
            self._reader.resumed()

    def data_received(self, data: bytes) -> None:
        """Take what comes in: a text that comes by itself, as nearly all do, without the library's parser.

        Several at once, and compressed ones, are taken behind it, in `send_receive_event_to_app`.
        """
        if self.conn.between:
            text = text_in(data) if len(data) <= self.config.ws_max_size else None
            if text is not None and self._take(text):
                return
            self.conn.between = False
        super().data_received(data)

    def send_receive_event_to_app(self) -> None:
        """Hand over a message: to who takes it at once, or else to the application's queue."""
        if self.curr_msg_data_type == "text" and len(self.frames) == 1 and self._take(self.frames[0]):
            self.frames = []
        else:
            super().send_receive_event_to_app()

    def _take(self, text: bytes) -> bool:
        """Have a text taken at once, where somebody does.

        An ack asks for no answer, and may overtake what waits; everything else keeps its turn.
        """
        if self.over:
            return False
        if self._reader is not None and text.startswith(ACK) and len(text) <= LONGEST_ACK:
            ack = _ack_of(text)
            if ack is not None and self._reader.acked(ack):
                return True
        return self._listener is not None and self.queue.empty() and self._listener(text)

    async def send(self, message: ASGISendEvent) -> None:
        """Send what the application sends; behind its close nothing is written."""
        if message["type"] == "websocket.close":
            self._end()
        await super().send(message)
        if message["type"] == "websocket.accept":
            del self.request, self.response  # a connection is kept longer than its handshake matters

    def shutdown(self) -> None:
        """Close, since the server ends."""
        self._end()
        super().shutdown()

    def handle_close(self, event: Frame) -> None:
        """Close, since the client does."""
        self._end()
        super().handle_close(event)

    def handle_parser_exception(self) -> None:
        """Close, since what came in is no WebSocket."""
        self._end()
        super().handle_parser_exception()

    def keepalive_timeout(self) -> None:
        """Close, since the client doesn't answer."""
        self._end()
        super().keepalive_timeout()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; nobody writes to a transport that is gone."""
        self._end()
        super().connection_lost(exc)


def _frames(protocol: ServerProtocol) -> Frames:
    """Make uvicorn's reader one of ours: a second one, and the circle that the first leaves, cost much."""
    protocol.__class__ = Frames
    return cast("Frames", protocol)


def _deflate() -> ServerPerMessageDeflateFactory:
    return ServerPerMessageDeflateFactory(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=WINDOW_BITS,
        client_max_window_bits=WINDOW_BITS,
        compress_settings={"memLevel": MEMORY_LEVEL},
    )
