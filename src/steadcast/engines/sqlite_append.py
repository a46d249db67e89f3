"""Appends inside one transaction: what is known already, where the rest goes, what each caller is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import apsw

from steadcast.engines.page import conflict, pages
from steadcast.engines.sqlite_errors import full
from steadcast.engines.sqlite_schema import MAX_LANES, OFFSET_BITS, OFFSET_MASK
from steadcast.event import LANES, Batch, Lane, Position, Receipt

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from steadcast.engines.page import Prepared
    from steadcast.engines.sqlite_schema import Log
    from steadcast.errors import IdConflict

_ROWS: Final = 128
"""Rows per statement: each one lets go of the interpreter once, and a busy loop may keep it for 5 ms."""


_KNOWN: Final = "SELECT identity, fingerprint, key FROM ids WHERE stream = ? AND identity"


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


@dataclass(slots=True)
class _Tail:
    """The end of a lane within the transaction."""

    lane: Lane
    base: int
    before: int
    items: list[Prepared] = field(default_factory=list)

    def add(self, item: Prepared) -> int:
        self.items.append(item)
        return self.base + self.before + len(self.items)


@dataclass(slots=True)
class _Stream:
    """A stream within the transaction: what is known of the ids that are asked for, and its lanes' ends."""

    name: str
    number: int
    tails: dict[Lane, _Tail]
    known: dict[bytes, tuple[bytes, int]]
    new: bool
    rows: list[tuple[int, bytes, bytes, int, int]] = field(default_factory=list)


def place(log: Log, jobs: Sequence[Append], at: int) -> Placed:
    """Write the jobs' events in the open transaction; `at` is the wall time in milliseconds.

    A job with an `IdConflict` gets it as its answer and leaves nothing behind; it doesn't touch the others.
    """
    by_stream: dict[str, list[Append]] = {}
    for job in jobs:
        by_stream.setdefault(job.stream, []).append(job)
    placed = Placed()
    answers: dict[Append, list[Receipt] | Exception] = {}
    for name, group in by_stream.items():
        stream = _load(log, name, group)
        for job in group:
            answers[job] = _conflict(stream, job) or _place(log, stream, job, at)
        _write(log, stream, at)
        for tail in stream.tails.values():
            placed.batches += pages(name, tail.lane, log.epoch, tail.before, tail.items)
    placed.answers = [(job, answers[job]) for job in jobs]
    return placed


def _load(log: Log, name: str, group: Sequence[Append]) -> _Stream:
    lanes: list[Any] = log.conn.execute(
        "SELECT lane, number, head FROM lanes WHERE stream = ?", (name,)
    ).fetchall()
    new = not lanes
    if new:
        lanes = _next_lanes(log)
    tails = {Lane(lane): _Tail(Lane(lane), number << OFFSET_BITS, head) for lane, number, head in lanes}
    number = lanes[0][1] >> 1
    known = {} if new else _lookup(log, number, [item.identity for job in group for item in job.items])
    return _Stream(name, number, tails, known, new)


def _next_lanes(log: Log) -> list[tuple[str, int, int]]:
    """Choose the numbers of a new stream's lanes. It gets no rows unless an event is added to it."""
    last: int = log.conn.execute("SELECT coalesce(max(number), 1) FROM lanes").get
    if last + len(LANES) >= MAX_LANES:
        raise full(log.path, "it holds as many streams as it can")
    return [(str(lane), last + 1 + index, 0) for index, lane in enumerate(LANES)]


def _lookup(log: Log, number: int, identities: list[bytes]) -> dict[bytes, tuple[bytes, int]]:
    if not identities:
        return {}
    if len(identities) == 1:
        found = log.conn.execute(f"{_KNOWN} = ?", (number, identities[0]))
    else:
        found = log.conn.execute(f"{_KNOWN} IN carray(?)", (number, apsw.carray(tuple(identities))))
    return {identity: (fingerprint, key) for identity, fingerprint, key in found}


def _conflict(stream: _Stream, job: Append) -> IdConflict | None:
    fresh: dict[bytes, bytes] = {}
    for index, item in enumerate(job.items):
        first = stream.known.get(item.identity)
        known = first[0] if first else fresh.setdefault(item.identity, item.fingerprint)
        if known != item.fingerprint:
            return conflict(item, index)
    return None


def _place(log: Log, stream: _Stream, job: Append, at: int) -> list[Receipt]:
    receipts = []
    known, tails, epoch = stream.known, stream.tails, log.epoch
    lanes = {tail.base: lane for lane, tail in tails.items()}
    for item in job.items:
        first = known.get(item.identity)
        if first is None:
            key = tails[item.event.priority].add(item)
            known[item.identity] = item.fingerprint, key
            stream.rows.append((stream.number, item.identity, item.fingerprint, key, at))
        else:
            key = first[1]
        position = Position(epoch, key & OFFSET_MASK)
        receipts.append(Receipt(item.event.id, lanes[key & ~OFFSET_MASK], position, first is not None))
    return receipts


def _write(log: Log, stream: _Stream, at: int) -> None:
    if stream.new and stream.rows:
        log.conn.executemany(
            "INSERT INTO lanes (number, stream, lane) VALUES (?, ?, ?)",
            [(tail.base >> OFFSET_BITS, stream.name, str(lane)) for lane, tail in stream.tails.items()],
        )
    stream.rows.sort()
    _insert(log, "ids", stream.rows)
    for tail in stream.tails.values():
        if not tail.items:
            continue
        first = tail.base + tail.before + 1
        _insert(log, "events", [(first + index, at, item.text) for index, item in enumerate(tail.items)])
        log.conn.execute(
            "UPDATE lanes SET head = head + ?, bytes = bytes + ? WHERE number = ?",
            (len(tail.items), sum(item.size for item in tail.items), tail.base >> OFFSET_BITS),
        )


def _insert(log: Log, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        log.conn.execute(
            _insert_sql(table, len(part[0]), len(part)),
            tuple(chain.from_iterable(part)),
        )


@cache
def _insert_sql(table: str, columns: int, rows: int) -> str:
    """At most one text per table and number of rows up to `_ROWS`."""
    row = f"({','.join('?' * columns)})"
    return f"INSERT INTO {table} VALUES {','.join([row] * rows)}"  # noqa: S608 - the table is a constant
