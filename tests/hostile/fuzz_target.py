"""What reads bytes from outside, under a fuzzer led by coverage: `python -m tests.hostile.fuzz_target`.

Takes libFuzzer's arguments, such as `-max_total_time=60`. Anything but a refusal of our own ends it with the
bytes that did it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

with atheris.instrument_imports(include=["steadcast"]):
    from engineio.packet import Packet as EnginePacket

    from steadcast import incoming, wire
    from steadcast.errors import SteadcastError
    from steadcast.http import claude, cloudevents, reads, sse
    from steadcast.socketio.codec import JsonPacket, loads
    from steadcast.socketio.websocket import text_in

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = "2026-01-31T12:00:00Z"
DECODING = (ValueError, IndexError, KeyError, TypeError, RecursionError)
"""What the library's decoders raise, and `Server` and `EngineSocket` take for the end of a connection."""


def _engine(data: bytes) -> object:
    try:
        return EnginePacket(encoded_packet=data.decode("utf-8", "replace") or "4")
    except DECODING:
        return None


def _socketio(data: bytes) -> object:
    try:
        return JsonPacket(encoded_packet=data.decode("utf-8", "replace") or "2")
    except DECODING:
        return None


def _headers(data: bytes) -> dict[str, str]:
    head, _, _ = data.partition(b"\n\n")
    pairs = [line.decode("latin-1").partition(":") for line in head.split(b"\n")]
    return {"content-type": "application/json"} | {name.lower(): value for name, _, value in pairs}


def _of_json(read: Callable[[object], object]) -> Callable[[bytes], object]:
    return lambda data: read(loads(data))


TARGETS: list[Callable[[bytes], object]] = [
    _engine,
    _socketio,
    _of_json(lambda value: incoming.parse_publish(value, now=NOW)),
    _of_json(wire.parse_subscribe),
    _of_json(wire.parse_unsubscribe),
    _of_json(wire.parse_ack),
    _of_json(wire.parse_batch),
    _of_json(wire.parse_answer),
    _of_json(lambda value: claude.hook_event(value, event_id="1", time=NOW)),
    _of_json(lambda value: claude.mpm_event(value, event_id="1", now=NOW)),
    lambda data: incoming.read_cloudevents(data, batched=True, now=NOW),
    lambda data: incoming.read_cloudevents(data, batched=False, now=NOW),
    lambda data: cloudevents.receive(_headers(data), data.partition(b"\n\n")[2]),
    lambda data: sse.parse_id(data.decode("latin-1")),
    lambda data: reads.parse_position(data.decode("latin-1")),
    lambda data: reads.parse_from(data.decode("latin-1")),
    lambda data: wire.check_stream(data.decode("utf-8", "replace")),
    lambda data: wire.check_time(data.decode("utf-8", "replace")),
    text_in,
]


def one(data: bytes) -> None:
    """Give bytes to the reader that the first of them names."""
    if not data:
        return
    try:
        TARGETS[data[0] % len(TARGETS)](data[1:])
    except SteadcastError as error:
        told: Any = error.as_wire()
        assert told["code"]
        assert told["message"]


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
