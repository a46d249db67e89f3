"""JSON for our own Socket.IO server: msgspec, and an answer in words where a payload is no JSON.

python-socketio drops a connection's message without a word when its JSON can't be read. Here such a message
becomes the event `UNREADABLE`, so that it is answered like any other bad input.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from socketio import packet

UNREADABLE: Final = "steadcast.unreadable"

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


class _Json:
    dumps = staticmethod(dumps)
    loads = staticmethod(loads)


class JsonPacket(packet.Packet):  # type: ignore[misc]
    """A Socket.IO packet that reads and writes its JSON here.

    Given to a server as its `serializer`, so that no other server or client in the process is touched
    (the `json` argument of python-socketio changes its packet class for all of them).
    """

    json = _Json
