"""An event on its way out: checked as the server will check it, and encoded once."""

from __future__ import annotations

import os
import socket
import sys
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from steadcast.client.drain import EVENT_TYPE
from steadcast.client.ids import mint_id
from steadcast.client.spooled import Request, stamp
from steadcast.event import Lane
from steadcast.wire import check_event, check_publishable, time_text

_BEGINS: Final = b'{"specversion":"1.0",'
_encode: Final = msgspec.json.Encoder().encode


class Outgoing(msgspec.Struct, frozen=True):
    """An event that waits to be sent: its stream, its JSON, and the stamp that it keeps its place by."""

    stamp: str
    stream: str
    id: str
    critical: bool
    body: bytes

    @property
    def path(self) -> str:
        """Give the path that the stream's events are posted to."""
        return events_path(self.stream)

    @property
    def request(self) -> Request:
        """Give the request that is spooled for it."""
        return Request(self.path, {"content-type": EVENT_TYPE}, self.body, critical=self.critical)


def events_path(stream: str) -> str:
    """Give the path that a stream's events are posted to."""
    return f"/v1/streams/{stream}/events"


def compose(
    stream: str,
    *,
    type: str,  # noqa: A002 - CloudEvents' own word, and the publishers' keyword
    source: str,
    data: Any = None,
    subject: str | None = None,
    priority: str = "normal",
    id: str | None = None,  # noqa: A002 - see type
    time: str | None = None,
) -> Outgoing:
    """Check an event and encode it (CloudEvents 1.0.2, JSON format); mint what is left out.

    Raises `InvalidStream`, `InvalidEvent` or `TooLarge` for what no server would ever take.
    """
    check_publishable(stream)
    given = {
        "id": mint_id() if id is None else id,
        "source": source,
        "type": type,
        "subject": subject,
        "priority": priority,
        "time": time,
        "data": data,
    }
    event = check_event(given, now=utc_now())
    body = _BEGINS + _encode(event)[1:]
    return Outgoing(stamp(), stream, event.id, event.priority is Lane.CRITICAL, body)


def utc_now() -> str:
    """Give the time of now (RFC 3339, UTC, microseconds)."""
    return time_text(datetime.now(UTC))


def default_source() -> str:
    """Give the `source` of a program that names none: `//host/program`.

    The same at each start, so that an event published again after a crash, under an id of the program's
    own, is known to be the same.
    """
    folder, program = os.path.split(sys.argv[0] if sys.argv else "")
    if program == "__main__.py":  # a package that is run by `python -m`
        program = os.path.basename(folder)  # noqa: PTH119 - a name
    program = program.removesuffix(".py")
    # By its bytes: a name that the locale can't read is no text that could be quoted.
    name = quote(os.fsencode(program or "python"))
    return f"//{quote(socket.gethostname() or 'localhost')}/{name}"[:1024]
