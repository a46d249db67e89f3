"""What is published: one event for all servers, and templates in which the load fills in numbers and times.

The placeholders have the length of what replaces them (see `load/load.h`), so a frame's length never changes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

STREAM: Final = "bench"
SEQ: Final = "@SEQ@@@@@"
TIME: Final = "@TIME@@@@@@@@@@@@@@"
PUBLISHER: Final = "@PUB"
FRAME_BYTES: Final = 313
"""What one event makes as a Socket.IO frame, header included."""

Template = Callable[[int], bytes]
"""Gives the bytes that publish so many events."""


def event() -> dict[str, Any]:
    """Give an event that makes a frame of `FRAME_BYTES` as Socket.IO sends it by itself."""
    found: dict[str, Any] = {
        "id": SEQ,
        "source": "bench",
        "type": "reading",
        "time": "2026-01-31T12:00:00Z",
        "priority": "normal",
        "data": {"mark": f"~{TIME}-{SEQ}", "pad": ""},
    }
    found["data"]["pad"] = "x" * (FRAME_BYTES - 4 - len(socketio_event(found)))
    return found


def compact(value: object) -> str:
    """Write JSON as the libraries do: without spaces."""
    return json.dumps(value, separators=(",", ":"))


def socketio_event(found: dict[str, Any]) -> str:
    """Write an event as the peers emit it."""
    return f'42["event",{compact(found)}]'


def client_frame(payload: bytes, opcode: int = 1) -> bytes:
    """Frame a client's message (RFC 6455), with a mask of zero: the bytes go as they are."""
    size = len(payload)
    if size < 126:  # noqa: PLR2004 - the RFC's numbers
        header = bytes([0x80 | opcode, 0x80 | size])
    elif size < 1 << 16:
        header = bytes([0x80 | opcode, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        header = bytes([0x80 | opcode, 0x80 | 127]) + size.to_bytes(8, "big")
    return header + bytes(4) + payload


def server_frame(payload: bytes) -> bytes:
    """Frame a server's text message (RFC 6455)."""
    return bytes([0x81, 126]) + len(payload).to_bytes(2, "big") + payload


def by_socketio(count: int) -> bytes:
    """Publish by the Socket.IO event `publish`; one acknowledgement."""
    body = compact(["publish", {"stream": STREAM, "events": [event()] * count}])
    return client_frame(f"421{body}".encode())


def by_http(count: int) -> bytes:
    """Publish by one HTTP request; one response."""
    body = compact([event()] * count).encode()
    head = (
        f"POST /v1/streams/{STREAM}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def by_nats(count: int) -> bytes:
    """Publish without an answer."""
    body = compact(event())
    return client_frame(f"PUB {STREAM} {len(body)}\r\n{body}\r\n".encode() * count, 2)


def by_nats_with_ping(count: int) -> bytes:
    """Publish, and ask for one PONG: the server has read it all, and kept none of it."""
    body = compact(event())
    return client_frame(f"PUB {STREAM} {len(body)}\r\n{body}\r\n".encode() * count + b"PING\r\n", 2)


def by_jetstream(count: int) -> bytes:
    """Publish with one acknowledgement for each event."""
    body = compact(event())
    return client_frame(f"PUB {STREAM} a.{PUBLISHER} {len(body)}\r\n{body}\r\n".encode() * count, 2)


def by_mqtt(count: int) -> bytes:
    """Publish with quality of service 0."""
    body = compact(event()).encode()
    rest = len(STREAM).to_bytes(2, "big") + STREAM.encode() + body
    return (b"\x30" + _varint(len(rest)) + rest) * count


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:  # noqa: PLR2004 - MQTT's seven bits
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def by_raw(count: int) -> bytes:
    """Hand the send() loop the frames that it sends."""
    frames = server_frame(socketio_event(event()).encode()) * count
    return len(frames).to_bytes(4, "big") + frames
