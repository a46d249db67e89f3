"""Events on their way into a log, and lanes cut into batches: what every engine does in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from steadcast.core.dedup import fingerprints, identity
from steadcast.engines.base import PAGE_BYTES, PAGE_EVENTS
from steadcast.errors import IdConflict, InvalidEvent, InvalidRequest, PositionLost
from steadcast.event import Batch, Entry, Event, Lane

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAGE_ROOM: Final = PAGE_BYTES - 512
"""Bytes that a batch's events may come to; the rest of `PAGE_BYTES` is for the batch's own fields …"""
ENTRY_OVERHEAD: Final = 64
"""… where each event counts with its JSON and this much for its offset, default priority and comma."""

_encoder = msgspec.json.Encoder()


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """An event that is ready to be appended: its names, its JSON, and that JSON's size in bytes."""

    event: Event
    identity: bytes
    fingerprint: bytes
    encoded: bytes
    size: int


def prepare(events: Sequence[Event]) -> list[Prepared]:
    """Encode and name events; `data` must be a `msgspec.Raw`.

    Raises `InvalidEvent` (fields `index`, `field`) for what no UTF-8 text can hold.
    """
    each = _encode_each(events)  # first: only what is UTF-8 has a fingerprint
    names = [identity(event.source, event.id) for event in events]
    return list(map(Prepared, events, names, fingerprints(events), each, map(len, each)))


def _encode_each(events: Sequence[Event]) -> list[bytes]:
    try:
        joined = _encoder.encode_lines(events)
        if not joined.isascii():
            joined.decode()
    except UnicodeError as error:
        raise InvalidEvent("the event is not valid UTF-8", index=_first_bad(events), field="data") from error
    lines = joined.splitlines()
    # Data that isn't compact may hold line breaks.
    return lines if len(lines) == len(events) else [_encoder.encode(event) for event in events]


def _first_bad(events: Sequence[Event]) -> int:
    for index, event in enumerate(events):
        try:
            _encoder.encode(event).decode()
        except UnicodeError:
            return index
    return len(events)


def pages(
    stream: str, lane: Lane, epoch: str, after: int, appended: Sequence[Prepared]
) -> Iterator[tuple[Batch, int]]:
    """Cut what was appended behind `after` into batches, each with the bytes of its events."""
    start = 0
    while start < len(appended):
        count, size = _fill(appended[start : start + PAGE_EVENTS])
        first = after + start + 1
        events = [item.event for item in appended[start : start + count]]
        entries = tuple(map(Entry, range(first, first + count), events))
        yield Batch(stream, lane, epoch, first - 1, first - 1 + count, entries), size
        start += count


def _fill(items: Sequence[Prepared]) -> tuple[int, int]:
    """Tell how many of the items fit a page, at least one, and what they come to."""
    size = sum([item.size for item in items]) + ENTRY_OVERHEAD * len(items)
    if size <= PAGE_ROOM:
        return len(items), size
    size = count = 0
    for item in items:
        cost = item.size + ENTRY_OVERHEAD
        if count and size + cost > PAGE_ROOM:
            break
        size += cost
        count += 1
    return count, size


def check_limit(limit: int) -> None:
    """Raise `InvalidRequest` for a page that could hold nothing."""
    if limit < 1:
        raise InvalidRequest("a page holds at least one event", field="limit", limit=limit)


def check_trim(stream: str | None, lane: Lane | None, upto: int | None, *, dry_run: bool) -> None:
    """Raise `InvalidRequest` when it isn't clear which lane is meant, or what a dry run is to count."""
    if upto is not None and (stream is None or lane is None):
        raise InvalidRequest("`upto` needs a stream and a lane", field="upto")
    if lane is not None and stream is None:
        raise InvalidRequest("a lane needs its stream", field="lane")
    if dry_run and upto is None:
        raise InvalidRequest("a dry run needs `upto`", field="upto")


def check_position(after: int, head: int, trimmed: int, epoch: str) -> None:
    """Raise `PositionLost` where nothing can follow `after`: it is above the head or below the trim mark."""
    if after > head:
        raise PositionLost("the position is above the lane's head", epoch=epoch, code="reset")
    if after < trimmed:
        raise PositionLost("events behind the position are gone", epoch=epoch, lost=(after + 1, trimmed))


def conflict(item: Prepared, index: int) -> IdConflict:
    """Make the refusal of an event whose id is known with another body."""
    return IdConflict("the id is known with another type, subject or data", id=item.event.id, index=index)
