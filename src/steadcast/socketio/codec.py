"""JSON for our own Socket.IO server: msgspec, and an answer in words where a payload is no JSON.

python-socketio drops a connection's message without a word when its JSON can't be read. Here such a message
becomes the event `UNREADABLE`, so that it is answered like any other bad input.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from socketio import packet

from steadcast.incoming import read_message

UNREADABLE: Final = "steadcast.unreadable"

_EVENT: Final = re.compile(r'2(\d{0,15})(?=\[("publish",)?)', re.ASCII)
"""How an event on the default namespace begins: the packet's type and the id of its acknowledgement."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def dumps(value: object, **_: Any) -> str:
    """Encode to compact JSON text; the separators that the caller names are the only ones there are."""
    return _encoder.encode(value).decode()


def loads(text: str | bytes, **_: Any) -> Any:
    """Decode JSON; what can't be decoded becomes an event of its own."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        return [UNREADABLE, str(error)[:200]]


def encoded(value: object) -> msgspec.Raw:
    """Encode a part of an answer, to be taken over as it is by `dumps`.

    A packet looks at each value in its data for binary ones, which takes longer than to encode them.
    """
    return msgspec.Raw(_encoder.encode(value))


def read_event(message: str) -> tuple[Any, int | None] | None:
    """Read an event on the default namespace: its data, and the id of its acknowledgement.

    A publish that is plainly right is read in one go (`steadcast.incoming`). None for every other packet.
    """
    begins = _EVENT.match(message)
    if begins is None:
        return None
    body = message[begins.end() :]
    data = (read_message(body) if begins[2] else None) or loads(body)
    return data, int(begins[1]) if begins[1] else None


class _Json:
    dumps = staticmethod(dumps)
    loads = staticmethod(loads)


class JsonPacket(packet.Packet):  # type: ignore[misc]
    """A Socket.IO packet that reads and writes its JSON here.

    Given to a server as its `serializer`, so that no other server or client in the process is touched
    (the `json` argument of python-socketio changes its packet class for all of them).
    """

    json = _Json

    def decode(self, encoded_packet: str) -> int:
        """Decode a packet; nearly all are what `read_event` reads."""
        event = read_event(encoded_packet)
        if event is None:
            attachments: int = super().decode(encoded_packet)
            return attachments
        self.packet_type, self.namespace, (self.data, self.id) = packet.EVENT, None, event
        return 0
