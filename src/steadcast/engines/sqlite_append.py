"""Appends inside one transaction: what is known already, where the rest goes, what each caller is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeVar

import apsw

from steadcast.engines.page import conflict, pages
from steadcast.engines.sqlite_errors import full
from steadcast.engines.sqlite_schema import MAX_LANES, OFFSET_BITS, OFFSET_MASK
from steadcast.event import LANES, Batch, Lane, Position, Receipt

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Sequence

    from steadcast.engines.page import Prepared
    from steadcast.engines.sqlite_schema import Log
    from steadcast.errors import IdConflict

_T = TypeVar("_T")

_ROWS: Final = 128
"""Rows per statement: each one lets go of the interpreter once, and a busy loop may keep it for 5 ms."""


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
    rows: list[tuple[bytes, bytes, int]] = field(default_factory=list)


def place(log: Log, jobs: Sequence[Append], at: int, *, look: bool) -> Placed:
    """Write the jobs' events in the open transaction; `at` is the wall time in milliseconds.

    A job with an `IdConflict` gets it as its answer and leaves nothing behind; it doesn't touch the others.
    Without `look` the ids aren't asked for before they are written, which saves a third of the work where
    all are new; raises `MustLook` where they aren't.
    """
    by_stream: dict[str, list[Append]] = {}
    for job in jobs:
        by_stream.setdefault(job.stream, []).append(job)
    placed = Placed()
    answers: dict[Append, list[Receipt] | Exception] = {}
    for name, group in by_stream.items():
        stream = _load(log, name, group, look=look)
        for job in group:
            refused = _conflict(stream, job.items)
            if refused and not look:
                # What is written is checked against the ids; what is refused would go unchecked.
                raise MustLook
            answers[job] = refused or _place(log, stream, job.items)
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
    known = _lookup(log, number, group) if look and not new else {}
    return _Stream(name, number, tails, known, new)


def _next_lanes(log: Log) -> list[tuple[str, int, int]]:
    """Choose the numbers of a new stream's lanes. It gets no rows unless an event is added to it."""
    last: int = log.conn.execute("SELECT coalesce(max(number), 1) FROM lanes").get
    if last + len(LANES) >= MAX_LANES:
        raise full(log.path, "it holds as many streams as it can")
    return [(str(lane), last + 1 + index, 0) for index, lane in enumerate(LANES)]


def _lookup(log: Log, number: int, group: Sequence[Append]) -> dict[bytes, tuple[bytes, int]]:
    identities = tuple(item.identity for job in group for item in job.items)
    if not identities:
        return {}
    found: list[Any] = log.conn.execute(
        "SELECT identity, fingerprint, key FROM ids WHERE stream = ? AND identity IN carray(?)",
        (number, apsw.carray(identities)),
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


def _place(log: Log, stream: _Stream, items: Sequence[Prepared]) -> list[Receipt]:
    receipts = []
    known, tails, epoch, rows = stream.known, stream.tails, log.epoch, stream.rows
    for item in items:
        event, identity = item.event, item.identity
        first = known.get(identity)
        if first is None:
            tail = tails[event.priority]
            tail.items.append(item)
            offset = tail.before + len(tail.items)
            rows.append((identity, item.fingerprint, tail.base + offset))
            known[identity] = rows[-1][1:]
            receipts.append(Receipt(event.id, tail.lane, Position(epoch, offset), duplicate=False))
        else:
            key = first[1]
            lane = next(lane for lane, tail in tails.items() if tail.base == key & ~OFFSET_MASK)
            receipts.append(Receipt(event.id, lane, Position(epoch, key & OFFSET_MASK), duplicate=True))
    return receipts


def _write(log: Log, stream: _Stream, at: int) -> None:
    conn = log.conn
    if stream.new and stream.rows:
        conn.executemany(
            "INSERT INTO lanes (number, stream, lane) VALUES (?, ?, ?)",
            [(tail.base >> OFFSET_BITS, stream.name, str(lane)) for lane, tail in stream.tails.items()],
        )
    # In the order of the index, so that neighbours go to the same page.
    stream.rows.sort()
    for part in _parts(stream.rows):
        conn.execute(_insert_ids(len(part)), (stream.number, at, *chain.from_iterable(part)))
        if conn.changes() != len(part):
            raise MustLook
    for tail in stream.tails.values():
        if tail.items:
            _write_events(conn, tail, at)


def _write_events(conn: apsw.Connection, tail: _Tail, at: int) -> None:
    key = tail.base + tail.before + 1
    for part in _parts(tail.items):
        conn.execute(_insert_events(len(part)), (at, key, *[item.text for item in part]))
        key += len(part)
    conn.execute(
        "UPDATE lanes SET head = head + ?, bytes = bytes + ? WHERE number = ?",
        (len(tail.items), sum([item.size for item in tail.items]), tail.base >> OFFSET_BITS),
    )


def _parts(rows: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))


@cache  # of at most _ROWS texts
def _insert_ids(rows: int) -> str:
    values = ",".join(f"(?1,?{n},?{n + 1},?{n + 2},?2)" for n in range(3, 3 + 3 * rows, 3))
    return f"INSERT OR IGNORE INTO ids (stream, identity, fingerprint, key, at) VALUES {values}"  # noqa: S608 - numbers


@cache  # of at most _ROWS texts
def _insert_events(rows: int) -> str:
    values = ",".join(f"(?2+{n},?1,?{n + 3})" for n in range(rows))
    return f"INSERT INTO events (key, at, event) VALUES {values}"  # noqa: S608 - numbers
