"""All open feeds (SSE responses): their limit, their end, and the one encoding of a batch that they share."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from steadcast.errors import Draining, QueueFull
from steadcast.event import Lane  # noqa: TC001 - msgspec reads the annotations at run time
from steadcast.wire import wire_event

if TYPE_CHECKING:
    from steadcast.errors import SteadcastError
    from steadcast.hub import Frame

FULL_RETRY: Final = 10.0
"""Seconds after which a reader who found no room may come again."""


class FeedEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event as a feed carries it: a batch's event and the lane it is of."""

    lane: Lane
    offset: int
    id: str
    source: str
    type: str
    time: str
    priority: str
    data: Any
    subject: str | None = None


class Ending(Protocol):
    """What can be told to end."""

    def kick(self, error: SteadcastError) -> None:
        """End, and tell the reader why; returns at once."""
        ...

    def look(self) -> None:
        """End if the reader's token has."""
        ...


Lines = list[tuple[int, bytes]]
"""A batch as a feed writes it: each event's offset and its `data:` line with the blank line behind."""

_encoder: Final = msgspec.json.Encoder()


class Feeds:
    """The open feeds of one server."""

    def __init__(self) -> None:
        self._open: dict[Ending, None] = {}  # bounded by the limit that `enter` is given
        self._last: tuple[Frame, Lines] | None = None
        self._ending: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, feed: Ending, limit: int) -> None:
        """Count a feed in; raises `QueueFull` where `limit` are open."""
        if len(self._open) >= limit:
            raise QueueFull(f"{limit} SSE responses are open", retry_after=FULL_RETRY, limit=limit)
        self._open[feed] = None
        if self._ending is not None:
            self._send_away(feed, self._ending)

    def leave(self, feed: Ending) -> None:
        """Count a feed out."""
        self._open.pop(feed, None)

    def end(self, reconnect_in: tuple[float, float] = (1.0, 5.0)) -> None:
        """End all feeds, and tell each reader to come back after its own random time in that range (seconds).

        A server calls this before it waits for its connections: a feed never ends by itself. Those that come
        while it still listens are told the same.
        """
        self._ending = reconnect_in
        for feed in list(self._open):
            self._send_away(feed, reconnect_in)

    @staticmethod
    def _send_away(feed: Ending, reconnect_in: tuple[float, float]) -> None:
        after = random.uniform(*reconnect_in)  # noqa: S311 - spreads load, guards nothing
        feed.kick(Draining("the server is going away", retry_after=after))

    def look(self) -> None:
        """End the feeds whose token has ended."""
        for feed in list(self._open):
            feed.look()

    def lines(self, frame: Frame) -> Lines:
        """Encode a batch. The hub writes a batch to all its readers in one go, so the last one is kept."""
        if self._last is None or self._last[0] is not frame:
            self._last = (frame, [(entry.offset, _line(frame, entry)) for entry in frame.batch.events])
        return self._last[1]


def _line(frame: Frame, entry: Any) -> bytes:
    event = wire_event(entry)
    # Compact JSON has no line breaks, so that one data line holds it.
    data = _encoder.encode(
        FeedEvent(
            frame.batch.lane,
            event.offset,
            event.id,
            event.source,
            event.type,
            event.time,
            event.priority,
            event.data,
            event.subject,
        )
    )
    return b"data: %b\n\n" % data
