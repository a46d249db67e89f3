"""Appends inside one transaction: what is known already, where the rest goes, what each caller is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

import apsw

from steadcast.core.dedup import FINGERPRINT_BYTES, old_identity
from steadcast.engines.page import conflict, pages
from steadcast.engines.sqlite_errors import full
from steadcast.engines.sqlite_schema import MAX_LANES, OFFSET_BITS, OFFSET_MASK
from steadcast.event import LANES, Batch, Lane, Position, Receipt

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator, Sequence

    from steadcast.engines.page import Prepared
    from steadcast.engines.sqlite_schema import Log
    from steadcast.errors import IdConflict

_INSERT_IDS: Final = (
    "INSERT OR IGNORE INTO ids (stream, fingerprint, identity, key, at)"
    " SELECT ?1, substr(value, 1, ?2), substr(value, ?2 + 1), ?3 + rowid, ?4 FROM carray(?5)"
)
_INSERT_EVENTS: Final = (
    "INSERT INTO events (key, at, event) SELECT ?1 + rowid, ?2, CAST(value AS TEXT) FROM carray(?3)"
)
"""Both take all of a lane's rows at once, numbered from 1: each statement lets go of the interpreter once,
and a busy event loop may then keep it for 5 ms."""


@dataclass(slots=True, eq=False)
class Append:
    """A caller's events on their way, and the future that answers; the future belongs to the loop."""

    stream: str
    items: list[Prepared]
    size: int
    answer: asyncio.Future[list[Receipt]]


Answer = tuple[Append, "list[Receipt] | Exception"]


@dataclass(slots=True)
class Placed:
    """What a transaction comes to, once it is committed: each caller's answer, and the new batches."""

    answers: list[Answer] = field(default_factory=list)
    batches: list[tuple[Batch, int]] = field(default_factory=list)


class MustLook(Exception):
    """Some of the ids are known, or may be, where `place` was to hope for none: roll back, and look."""


@dataclass(slots=True)
class _Tail:
    """The end of a lane within the transaction."""

    lane: Lane
    base: int
    before: int
    items: list[Prepared] = field(default_factory=list)


@dataclass(slots=True)
class _Stream:
    """A stream within the transaction: what is known of the ids that are asked for, and its lanes' ends."""

    name: str
    number: int
    tails: dict[Lane, _Tail]
    known: dict[bytes, tuple[bytes, int]]
    new: bool


def place(log: Log, jobs: Sequence[Append], at: int, *, look: bool) -> Placed:
    """Write the jobs' events in the open transaction; `at` is the wall time in milliseconds.

    A job with an `IdConflict` gets it as its answer and leaves nothing behind; it doesn't touch the others.
    Without `look` the ids aren't asked for before they are written, which saves work where all are new;
    raises `MustLook` where they aren't.
    """
    by_stream: dict[str, list[Append]] = {}
    for job in jobs:
        by_stream.setdefault(job.stream, []).append(job)
    placed = Placed()
    answers: dict[Append, list[Receipt] | Exception] = {}
    for name, group in by_stream.items():
        stream = _load(log, name, group, look=look)
        for job in group:
            if look:
                answers[job] = _conflict(stream, job.items) or _place(log, stream, job.items)
            else:
                answers[job] = _place_new(log, stream, job.items)
        _write(log, stream, at)
        for tail in stream.tails.values():
            placed.batches += pages(name, tail.lane, log.epoch, tail.before, tail.items)
    placed.answers = [(job, answers[job]) for job in jobs]
    return placed


def _load(log: Log, name: str, group: Sequence[Append], *, look: bool) -> _Stream:
    lanes: list[Any] = log.conn.execute(
        "SELECT lane, number, head FROM lanes WHERE stream = ?", (name,)
    ).fetchall()
    new = not lanes
    if new:
        lanes = _next_lanes(log)
    tails = {Lane(lane): _Tail(Lane(lane), number << OFFSET_BITS, head) for lane, number, head in lanes}
    number = lanes[0][1] >> 1
    known = _lookup(log, number, group, look=look) if not new else {}
    return _Stream(name, number, tails, known, new)


def _next_lanes(log: Log) -> list[tuple[str, int, int]]:
    """Choose the numbers of a new stream's lanes. It gets no rows unless an event is added to it."""
    last: int = log.conn.execute("SELECT coalesce(max(number), 1) FROM lanes").get
    if last + len(LANES) >= MAX_LANES:
        raise full(log.path, "it holds as many streams as it can")
    return [(str(lane), last + 1 + index, 0) for index, lane in enumerate(LANES)]


def _lookup(log: Log, number: int, group: Sequence[Append], *, look: bool) -> dict[bytes, tuple[bytes, int]]:
    """Give fingerprint and key of the identities that are known; without `look` there may be none."""
    known = {}
    if log.old_ids:
        old = {old_identity(item.event.source, item.event.id): item.identity for item in _items(group)}
        known = {old[name]: first for name, first in _known(log, "old_ids", number, old).items()}
        if known and not look:
            raise MustLook
    if look:
        known |= _known(log, "ids", number, [item.identity for item in _items(group)])
    return known


def _items(group: Sequence[Append]) -> Iterator[Prepared]:
    return (item for job in group for item in job.items)


def _known(log: Log, table: str, number: int, identities: Iterable[bytes]) -> dict[bytes, tuple[bytes, int]]:
    found: list[Any] = log.conn.execute(
        f"SELECT identity, fingerprint, key FROM {table} WHERE stream = ? AND identity IN carray(?)",  # noqa: S608 - ours
        (number, apsw.carray(tuple(identities))),
    ).fetchall()
    return {identity: (fingerprint, key) for identity, fingerprint, key in found}


def _conflict(stream: _Stream, items: Sequence[Prepared]) -> IdConflict | None:
    identities = {item.identity for item in items}
    if len(identities) == len(items) and stream.known.keys().isdisjoint(identities):
        return None
    fresh: dict[bytes, bytes] = {}
    for index, item in enumerate(items):
        first = stream.known.get(item.identity)
        known = first[0] if first else fresh.setdefault(item.identity, item.fingerprint)
        if known != item.fingerprint:
            return conflict(item, index)
    return None


def _place_new(log: Log, stream: _Stream, items: Sequence[Prepared]) -> list[Receipt]:
    """Place events as if none of their ids were known or used twice; the index will say if one is."""
    if len({item.event.priority for item in items}) > 1:
        return [receipt for item in items for receipt in _place_new(log, stream, [item])]
    tail = stream.tails[items[0].event.priority]
    epoch, lane = log.epoch, tail.lane
    first = tail.before + len(tail.items) + 1
    tail.items += items
    positions = map(Position, repeat(epoch), range(first, first + len(items)))
    return list(map(Receipt, [item.event.id for item in items], repeat(lane), positions, repeat(False)))


def _place(log: Log, stream: _Stream, items: Sequence[Prepared]) -> list[Receipt]:
    receipts = []
    known, tails, epoch = stream.known, stream.tails, log.epoch
    for item in items:
        event, identity = item.event, item.identity
        first = known.get(identity)
        if first is None:
            tail = tails[event.priority]
            tail.items.append(item)
            offset = tail.before + len(tail.items)
            known[identity] = (item.fingerprint, tail.base + offset)
            receipts.append(Receipt(event.id, tail.lane, Position(epoch, offset), duplicate=False))
        else:
            key = first[1]
            lane = next(lane for lane, tail in tails.items() if tail.base == key & ~OFFSET_MASK)
            receipts.append(Receipt(event.id, lane, Position(epoch, key & OFFSET_MASK), duplicate=True))
    return receipts


def _write(log: Log, stream: _Stream, at: int) -> None:
    tails = [tail for tail in stream.tails.values() if tail.items]
    if stream.new and tails:
        log.conn.executemany(
            "INSERT INTO lanes (number, stream, lane) VALUES (?, ?, ?)",
            [(tail.base >> OFFSET_BITS, stream.name, str(lane)) for lane, tail in stream.tails.items()],
        )
    for tail in tails:
        _write_lane(log.conn, stream.number, tail, at)


def _write_lane(conn: apsw.Connection, stream: int, tail: _Tail, at: int) -> None:
    last = tail.base + tail.before
    rows = apsw.carray(tuple([item.fingerprint + item.identity for item in tail.items]))
    conn.execute(_INSERT_IDS, (stream, FINGERPRINT_BYTES, last, at, rows))
    if conn.changes() != len(tail.items):
        raise MustLook
    conn.execute(_INSERT_EVENTS, (last, at, apsw.carray(tuple([item.encoded for item in tail.items]))))
    conn.execute(
        "UPDATE lanes SET head = head + ?, bytes = bytes + ? WHERE number = ?",
        (len(tail.items), sum([item.size for item in tail.items]), tail.base >> OFFSET_BITS),
    )
