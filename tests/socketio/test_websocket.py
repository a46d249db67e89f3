"""What a client's bytes become: acks and messages that are taken at once or read, however they are cut."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn
from hypothesis import example, given
from hypothesis import strategies as st
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode

from steadcast import wire
from steadcast.errors import SteadcastError
from steadcast.event import Lane
from steadcast.socketio.codec import JsonPacket
from steadcast.socketio.websocket import ACK, DirectWebSocket, _ack_of, text_in
from steadcast.wire import Ack

if TYPE_CHECKING:
    from asyncio import BaseTransport
    from collections.abc import Coroutine

HANDSHAKE: Final = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
GOOD: Final = b'42["ack",{"stream":"s","lane":"normal","epoch":"e1","offset":7}]'


class Wires:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.connection: socket.socket | None = None

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str) -> socket.socket | None:
        return self.connection if name == "socket" else None

    def pause_reading(self) -> None:
        """Read on: the test gives what is read."""


class Loop:
    """A loop that runs nothing: the application is the test."""

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> Loop:
        coroutine.close()
        return self

    def add_done_callback(self, _: object) -> None:
        """Nothing is ever done."""


async def _application(scope: object, receive: object, send: object) -> None:
    """Serve nobody."""


CONFIG: Final = uvicorn.Config(_application, log_config=None, ws_ping_interval=None, ws_max_size=66_000)
CONFIG.load()


class Taken:
    """A WebSocket behind its handshake, and what came of all that it was given, in order.

    With `direct` the acks with an even offset are taken from it, and the messages of an even length; else all
    is read as any ASGI application would.
    """

    def __init__(self, *, direct: bool) -> None:
        self.came: list[tuple[str, Any]] = []
        self.pauses = 0
        self.wires = Wires()
        self.ws = DirectWebSocket(CONFIG, ServerState(), {}, Loop())
        self.ws.connection_made(cast("BaseTransport", self.wires))
        self.ws.data_received(HANDSHAKE)
        self.ws.queue.get_nowait()
        self.ws.conn.send_response(self.ws.response)
        self.ws.conn.data_to_send()
        self.ws.handshake_complete = True
        if direct:
            self.ws.open(self)
            self.ws.listen(self.heard)

    def paused(self) -> None:
        """Its end is seen in the queue."""
        self.pauses += 1

    def resumed(self) -> None:
        raise AssertionError("nothing was paused")

    def acked(self, ack: Ack) -> bool:
        self._drain()
        self.came += [("ack", ack)] if ack.offset % 2 == 0 else []
        return ack.offset % 2 == 0

    def heard(self, text: bytes) -> bool:
        assert self.ws.queue.empty(), "what waits was overtaken"
        try:
            even = len(text.decode()) % 2 == 0
        except UnicodeDecodeError:
            return False
        self.came += [("websocket.receive", text.decode())] if even else []
        return even

    def give(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            if self.wires.closed:
                return
            try:
                self.ws.data_received(chunk)
            except (
                InvalidState
            ):  # uvicorn's: it answers what is no text with a close, behind a close that came
                self.wires.close()
            self._drain()

    def _drain(self) -> None:
        while not self.ws.queue.empty():
            message: Any = self.ws.queue.get_nowait()
            text = message.get("text")
            ack = _ack_of(text.encode()) if text is not None and text.startswith(ACK.decode()) else None
            even = ack is not None and ack.offset % 2 == 0
            self.came.append(
                ("ack", ack) if even else (message["type"], message.get("bytes") if text is None else text)
            )


def framed(payload: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


def ack_frame(offset: int, stream: str = "s") -> bytes:
    return framed(GOOD.replace(b"7", b"%d" % offset).replace(b'"s"', b'"%b"' % stream.encode()))


acks = st.builds(ack_frame, st.integers(-1, 5), st.sampled_from(["s", "s", "a" * 60]))
lengths = st.sampled_from([1, 124, 125, 126, 127, 300, 65_535, 65_536, 66_000, 66_001])
messages = st.one_of(
    acks,
    acks,
    lengths.map(lambda size: framed(b"x" * size)),
    lengths.map(lambda size: b"\x81\xfe" + (size % 65_536).to_bytes(2) + bytes(4) + b"x" * (size % 65_536)),
    st.text(max_size=200).map(lambda text: framed(text.encode())),
    st.binary(max_size=200).map(lambda data: framed(data, Opcode.BINARY)),
    st.binary(max_size=125).map(lambda data: framed(data, Opcode.PING)),
    st.integers(1, len(GOOD) - 1).map(
        lambda cut: framed(GOOD[:cut], fin=False) + framed(GOOD[cut:], Opcode.CONT)
    ),
    st.just(framed(GOOD.replace(b"}", b',"more":"\xff"}'))),
    st.just(framed(GOOD, fin=False)),
    st.just(framed(GOOD.replace(b"7", b"2"), Opcode.BINARY)),
    st.just(framed(GOOD, Opcode.CONT)),
    st.just(b"\xc1" + framed(GOOD)[1:]),
    st.just(framed(b"\x03\xe8", Opcode.CLOSE)),
    st.just(b"\x81" + bytes([len(GOOD)]) + GOOD),
    st.binary(max_size=20),
)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Give messages as they come in: whole, several at once, cut anywhere, with a byte changed."""
    whole = draw(st.lists(messages, min_size=1, max_size=8))
    if draw(st.booleans()):
        return whole
    data = bytearray(b"".join(whole))
    if data and draw(st.booleans()):
        data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [bytes(data[a:b]) for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


@given(streams())
@example([framed(b"42", fin=False), ack_frame(2), framed(b"x", Opcode.CONT)])
@example([framed(GOOD)[:2], framed(GOOD)[2:]])
@example([framed(b"\x03\xe8", Opcode.CLOSE), ack_frame(2), framed(b"even")])
@example([framed(GOOD.replace(b"7", b"2"), Opcode.BINARY)])
@example([framed(b"x" * 65_535), framed(b"x" * 65_536)])
def test_taking_messages_at_once_changes_nothing_however_the_bytes_are_cut_and_broken(
    chunks: list[bytes],
) -> None:
    at_once, plainly = Taken(direct=True), Taken(direct=False)
    at_once.give(chunks)
    plainly.give(chunks)
    assert at_once.came == plainly.came
    assert at_once.wires.written == plainly.wires.written
    assert at_once.wires.closed == plainly.wires.closed


def test_what_comes_by_itself_is_taken_without_the_frames_being_read() -> None:
    socket = Taken(direct=True)
    socket.give([framed(b"40")])
    setattr(socket.ws.conn, "receive_data", _not_wanted)  # noqa: B010 - a method, to be seen that it isn't called
    socket.give([ack_frame(n) for n in (2, 4, 6)])
    socket.give([framed(b"x" * size) for size in (2, 126, 65_534)])
    assert [ack.offset for kind, ack in socket.came if kind == "ack"] == [2, 4, 6]
    assert [len(text) for kind, text in socket.came if kind == "websocket.receive"] == [2, 2, 126, 65_534]


def _not_wanted(_: bytes | bytearray) -> None:
    raise AssertionError("a message went the long way")


def test_behind_a_message_that_waits_none_is_taken() -> None:
    socket = Taken(direct=True)
    socket.ws.data_received(framed(b"odd") + framed(b"even"))
    socket.ws.data_received(framed(b"even"))
    assert socket.came == []
    assert socket.ws.queue.qsize() == 3


fields = st.fixed_dictionaries(
    {},
    optional={
        "stream": st.sampled_from(["s", "", "a/b", "ä", "x" * 200]) | st.none() | st.integers(),
        "lane": st.sampled_from(["normal", "critical", "Normal", ""]) | st.none(),
        "epoch": st.sampled_from(["e1", "", "e 1", "e" * 65]) | st.booleans(),
        "offset": st.integers() | st.floats() | st.booleans() | st.just("7"),
        "more": st.integers() | st.lists(st.none()),
    },
)


@given(st.lists(fields | st.none() | st.text(), max_size=3), st.sampled_from([None, (",", ":")]))
@example([{"stream": "s", "lane": "normal", "epoch": "e1", "offset": 7}], None)
@example([{"stream": "s", "lane": "normal", "epoch": "e1", "offset": 7.0}], None)
def test_an_ack_that_is_taken_at_once_is_what_the_protocol_makes_of_it(args: list[Any], spacing: Any) -> None:
    text = "42" + json.dumps(["ack", *args], separators=spacing)
    found = _ack_of(text.encode())
    event, *given = JsonPacket(encoded_packet=text[1:]).data
    assert found is None or (event, len(given)) == ("ack", 1)
    try:
        judged = wire.parse_ack(given[0] if given else None)
    except SteadcastError:
        # It may be read, but no session has such a stream and epoch, or ever sent such an offset.
        assert found is None or found.offset < 0 or not _possible(found)
    else:
        assert found in {None, judged}


def _possible(ack: Ack) -> bool:
    try:
        wire.check_stream(ack.stream)
        wire.check_epoch(ack.epoch)
    except SteadcastError:
        return False
    return True


@given(st.binary(max_size=200) | st.binary(max_size=120).map(lambda rest: framed(ACK + rest)))
def test_no_bytes_make_the_reader_of_frames_fail(data: bytes) -> None:
    assert isinstance(text_in(data), bytes | None)


def test_an_ack_of_a_long_name_arrives() -> None:
    ack = {"stream": "x" * 120, "lane": "critical", "epoch": "e1", "offset": 2}
    data = framed(b"42" + json.dumps(["ack", ack], separators=(",", ":")).encode())
    socket = Taken(direct=True)
    socket.give([data])
    assert socket.came == [("ack", Ack("x" * 120, Lane.CRITICAL, "e1", 2))]


def test_what_a_connection_keeps_fits_beside_it() -> None:
    """Python would keep more than 30 attributes in a dictionary for each: more memory, and slower."""
    assert len(vars(Taken(direct=True).ws)) <= 30


def test_the_door_to_a_connection_that_is_over_has_no_descriptor_of_its_own() -> None:
    """It may be closed by then, or another connection's."""
    taken = Taken(direct=True)
    taken.wires.connection = socket.socket()
    taken.wires.connection.close()
    taken.ws.connection_lost(None)
    door = taken.ws.open(taken)
    assert (door.descriptor, taken.pauses) == (None, 2)
