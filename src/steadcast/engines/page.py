"""Events on their way into a log, and lanes cut into batches: what every engine does in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from steadcast.core.dedup import fingerprint, identity
from steadcast.engines.base import PAGE_BYTES, PAGE_EVENTS
from steadcast.errors import IdConflict, InvalidEvent, InvalidRequest, PositionLost
from steadcast.event import Batch, Entry, Event, Lane

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PAGE_ROOM: Final = PAGE_BYTES - 512
"""Bytes that a batch's events may come to; the rest of `PAGE_BYTES` is for the batch's own fields …"""
ENTRY_OVERHEAD: Final = 64
"""… where each event counts with its JSON and this much for its offset, default priority and comma."""

_encode = msgspec.json.Encoder().encode


class Prepared(NamedTuple):
    """An event that is ready to be appended: its names, its JSON, and that JSON's size in bytes."""

    event: Event
    identity: bytes
    fingerprint: bytes
    text: str
    size: int


def prepare(events: Sequence[Event]) -> list[Prepared]:
    """Encode and name events; `data` must be a `msgspec.Raw`.

    Raises `InvalidEvent` (fields `index`, `field`) for what no UTF-8 text can hold.
    """
    ready = []
    try:
        for event in events:
            text = _encode(event)
            names = identity(event.source, event.id), fingerprint(event)
            ready.append(Prepared(event, *names, text.decode(), len(text)))
    except UnicodeError as error:
        raise InvalidEvent("the event is not valid UTF-8", index=len(ready), field="data") from error
    return ready


def pages(
    stream: str, lane: Lane, epoch: str, after: int, appended: Iterable[Prepared]
) -> Iterator[tuple[Batch, int]]:
    """Cut what was appended behind `after` into batches, each with the bytes of its events."""
    entries: list[Entry] = []
    size = 0
    for item in appended:
        cost = item.size + ENTRY_OVERHEAD
        if entries and (len(entries) == PAGE_EVENTS or size + cost > PAGE_ROOM):
            yield Batch(stream, lane, epoch, after, entries[-1].offset, tuple(entries)), size
            after, entries, size = entries[-1].offset, [], 0
        entries.append(Entry(after + len(entries) + 1, item.event))
        size += cost
    if entries:
        yield Batch(stream, lane, epoch, after, entries[-1].offset, tuple(entries)), size


def check_limit(limit: int) -> None:
    """Raise `InvalidRequest` for a page that could hold nothing."""
    if limit < 1:
        raise InvalidRequest("a page holds at least one event", field="limit", limit=limit)


def check_trim(stream: str | None, lane: Lane | None, upto: int | None) -> None:
    """Raise `InvalidRequest` when it isn't clear which lane `upto` or `lane` means."""
    if upto is not None and (stream is None or lane is None):
        raise InvalidRequest("`upto` needs a stream and a lane", field="upto")
    if lane is not None and stream is None:
        raise InvalidRequest("a lane needs its stream", field="lane")


def check_position(after: int, head: int, trimmed: int, epoch: str) -> None:
    """Raise `PositionLost` where nothing can follow `after`: it is above the head or below the trim mark."""
    if after > head:
        raise PositionLost("the position is above the lane's head", epoch=epoch, code="reset")
    if after < trimmed:
        raise PositionLost("events behind the position are gone", epoch=epoch, lost=(after + 1, trimmed))


def conflict(item: Prepared, index: int) -> IdConflict:
    """Make the refusal of an event whose id is known with another body."""
    return IdConflict("the id is known with another type, subject or data", id=item.event.id, index=index)
