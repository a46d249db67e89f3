"""What a node knows of the log: lanes, positions and ids, folded from the log's records alone.

Rows lie in a private SQLite database that is gone with the process: its cache is bounded, what is over it
spills into the temporary folder.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import apsw

from steadcast.engines.base import LaneState
from steadcast.engines.jetstream_records import KeptId, Kind, Record, decode_epoch, decode_ids, decode_mark
from steadcast.engines.page import ENTRY_OVERHEAD, PAGE_ROOM
from steadcast.event import LANES, Lane

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

CACHE_KIB: Final = 64 * 1024

_SCHEMA: Final = """
CREATE TABLE events (lane INTEGER, seq INTEGER, size INTEGER, at INTEGER, key BLOB, PRIMARY KEY (lane, seq))
    WITHOUT ROWID;
CREATE TABLE ids (key BLOB PRIMARY KEY, fingerprint BLOB, lane INTEGER, seq INTEGER, at INTEGER)
    WITHOUT ROWID;
CREATE TABLE old_ids (at INTEGER, key BLOB, PRIMARY KEY (at, key)) WITHOUT ROWID;
"""


@dataclass(slots=True)
class LaneIndex:
    """One lane; `mark_seq` is where its mark stands in the log.

    `sure` is the sequence up to which no event of it was passed over unseen: see `Index.unsure`.
    """

    number: int
    stream: str
    lane: Lane
    head: int = 0
    trimmed: int = 0
    events: int = 0
    bytes: int = 0
    mark_seq: int = 0
    sure: int = 0

    def state(self) -> LaneState:
        """Give what `Engine.describe` tells of it."""
        return LaneState(head=self.head, trimmed=self.trimmed, events=self.events, bytes=self.bytes)


class Known(NamedTuple):
    """An id that was used: its body's fingerprint, and where its event is or was."""

    fingerprint: bytes
    lane: Lane
    seq: int


class Row(NamedTuple):
    """A retained event; `at` in milliseconds."""

    seq: int
    size: int
    at: int


class Witness(NamedTuple):
    """The record by which a node tells, after it was away, whether the log is still the same."""

    seq: int
    subject: str
    stored: int


class IdsRecord(NamedTuple):
    """A record of ids in the log, and the youngest of its ids."""

    seq: int
    at: int


class Index:
    """The fold of the log's records up to and with `seq`."""

    def __init__(self) -> None:
        """Begin with an empty log."""
        self.seq = 0
        self.epoch: str | None = None
        self.epoch_was: str | None = None
        self.epoch_seq = 0
        self.hole = 0
        self.witness: Witness | None = None
        self.doubled = 0
        self.malformed = 0
        self.lanes: dict[tuple[str, Lane], LaneIndex] = {}
        self.ids_records: deque[IdsRecord] = deque()  # bounded by the ids, with which they go
        self._numbers: list[LaneIndex] = []
        self._db = apsw.Connection("")
        for setting in ("journal_mode=off", "synchronous=off", f"cache_size=-{CACHE_KIB}"):
            self._db.pragma(*setting.split("="))
        self._db.execute(_SCHEMA)

    def close(self) -> None:
        """Let go of the rows."""
        self._db.close()

    # Folding

    def fold(self, records: Sequence[Record]) -> list[tuple[int, Record]]:
        """Take records in, in the log's order; gives its events, each with its lane's head before it."""
        added: list[tuple[int, Record]] = []
        with self._db:
            for record in records:
                if record.kind is Kind.EVENT:
                    before = self.lane(record.stream, record.lane).head
                    if self._add(record):
                        added.append((before, record))
                else:
                    self._fold_meta(record)
                self._witness(record)
                self.seq = max(self.seq, record.seq)
        return added

    def unsure(self, records: Sequence[Record]) -> list[LaneIndex]:
        """Give the lanes of which events may have been in the log, and gone, before this node came by.

        Records that are missing from the log's sequence were trimmed or replaced meanwhile. A lane's mark
        tells which it was, but stands behind events that are still there: it must be known before they are
        folded, or they would seem to follow what was seen last.
        """
        lanes: dict[int, LaneIndex] = {}
        heads: dict[int, int] = {}
        seq = self.seq
        for record in records:
            if record.seq > seq + 1:
                self.hole = record.seq - 1
            seq = max(seq, record.seq)
            if record.kind is Kind.EVENT:
                lane = self.lane(record.stream, record.lane)
                if max(lane.sure, heads.get(lane.number, lane.head)) < self.hole:
                    lanes[lane.number] = lane
                heads[lane.number] = record.seq
        return list(lanes.values())

    def take_mark(self, lane: LaneIndex, seq: int, body: bytes) -> None:
        """Take a lane's mark in before its turn; one that is none is counted in its turn."""
        with suppress(ValueError), self._db:
            self._trim(lane, seq, body)

    def _fold_meta(self, record: Record) -> None:
        try:
            self._fold(record)
        except ValueError:
            # Somebody else's, as in `_add`. What is none is seen before anything of it is taken.
            self.malformed += 1

    def _fold(self, record: Record) -> None:
        match record.kind:
            case Kind.MARK:
                self._mark(record)
            case Kind.IDS:
                self._keep_ids(record)
            case Kind.EPOCH:
                body = decode_epoch(record.body)
                self.epoch, self.epoch_was, self.epoch_seq = body.epoch, body.was, record.seq
            case Kind.PROBE | Kind.EVENT:
                return

    def _witness(self, record: Record) -> None:
        """Keep the last record whose absence could be explained: ids are purged, and probes take turns."""
        lasting = record.kind not in {Kind.IDS, Kind.PROBE}
        if lasting and (self.witness is None or record.seq > self.witness.seq):
            self.witness = Witness(record.seq, record.subject, record.stored)

    def lane(self, stream: str, lane: Lane) -> LaneIndex:
        """Give a lane, made where it is new."""
        found = self.lanes.get((stream, lane))
        if found is None:
            found = self.lanes[stream, lane] = LaneIndex(len(self._numbers), stream, lane)
            self._numbers.append(found)
        return found

    def _add(self, record: Record) -> bool:
        lane = self.lane(record.stream, record.lane)
        if record.seq <= max(lane.trimmed, lane.head):
            return False
        try:
            key, fingerprint, at = record.key, record.fingerprint, record.at
        except (KeyError, ValueError):
            # Somebody else's message on one of our subjects: it was never an event, so none is missing.
            self.malformed += 1
            return False
        lane.head = record.seq
        lane.events += 1
        lane.bytes += record.size
        known = self._db.execute("SELECT lane, seq FROM ids WHERE key = ?", (key,)).fetchone()
        if known is not None and known[1] > self._numbers[known[0]].trimmed:
            self.doubled += 1
        self._db.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
            (lane.number, record.seq, record.size, at, key),
        )
        self._db.execute(
            "INSERT OR REPLACE INTO ids VALUES (?, ?, ?, ?, ?)",
            (key, fingerprint, lane.number, record.seq, at),
        )
        return True

    def _mark(self, record: Record) -> None:
        self._trim(self.lane(record.stream, record.lane), record.seq, record.body)

    def _trim(self, lane: LaneIndex, seq: int, body: bytes) -> None:
        lane.mark_seq = max(lane.mark_seq, seq)
        upto = decode_mark(body, seq)
        gone: Any = self._db.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM events WHERE lane = ? AND seq <= ?",
            (lane.number, upto),
        ).fetchone()
        self._db.execute("DELETE FROM events WHERE lane = ? AND seq <= ?", (lane.number, upto))
        lane.events -= gone[0]
        lane.bytes -= gone[1]
        lane.trimmed = max(lane.trimmed, upto)
        lane.head = max(lane.head, upto)

    def _keep_ids(self, record: Record) -> None:
        head, ids = decode_ids(record.body)
        number = self.lane(head.stream, head.lane).number
        youngest = 0
        for one in ids:
            youngest = max(youngest, one.at)
            self._db.execute(
                "INSERT OR IGNORE INTO ids VALUES (?, ?, ?, ?, ?)",
                (one.key, one.fingerprint, number, one.seq, one.at),
            )
            self._db.execute("INSERT OR IGNORE INTO old_ids VALUES (?, ?)", (one.at, one.key))
        self.ids_records.append(IdsRecord(record.seq, youngest))

    # Asking

    def find(self, keys: Iterable[bytes]) -> dict[bytes, Known]:
        """Tell which ids were used."""
        rows: Any = self._db.execute(
            "SELECT key, fingerprint, lane, seq FROM ids WHERE key IN carray(?)", (apsw.carray(tuple(keys)),)
        )
        return {
            key: Known(fingerprint, self._numbers[number].lane, seq) for key, fingerprint, number, seq in rows
        }

    def states(self, stream: str | None) -> dict[str, dict[Lane, LaneState]]:
        """Give the states of one stream's lanes, or of all streams' that ever held an event."""
        names = {name for (name, _), lane in self.lanes.items() if lane.head} if stream is None else {stream}
        return {name: {lane: self.peek(name, lane).state() for lane in LANES} for name in sorted(names)}

    def peek(self, stream: str, lane: Lane) -> LaneIndex:
        """Give a lane, which isn't made where it never held an event."""
        return self.lanes.get((stream, lane)) or LaneIndex(-1, stream, lane)

    def before_last(self, lane: LaneIndex, count: int) -> int:
        """Give the offset behind which the last `count` retained events stand."""
        rows: Any = self._db.execute(
            "SELECT seq FROM events WHERE lane = ? ORDER BY seq DESC LIMIT 1 OFFSET ?", (lane.number, count)
        ).fetchone()
        return rows[0] if rows else lane.trimmed

    def page(self, lane: LaneIndex, after: int, limit: int) -> list[Row]:
        """Give the events behind an offset that fit a page."""
        size = 0
        page: list[Row] = []
        for row in self.rows(lane, after, limit):
            size += row.size + ENTRY_OVERHEAD
            if page and size > PAGE_ROOM:
                break
            page.append(row)
        return page

    def rows(self, lane: LaneIndex, after: int, limit: int) -> Iterator[Row]:
        """Give the events behind an offset, at most `limit`."""
        return map(
            Row._make,
            self._db.execute(
                "SELECT seq, size, at FROM events WHERE lane = ? AND seq > ? ORDER BY seq LIMIT ?",
                (lane.number, after, limit),
            ),
        )

    def count(self, lane: LaneIndex, upto: int) -> int:
        """Tell how many retained events stand up to an offset."""
        rows: Any = self._db.execute(
            "SELECT count(*) FROM events WHERE lane = ? AND seq <= ?", (lane.number, upto)
        ).fetchone()
        return int(rows[0])

    def ids_upto(self, lane: LaneIndex, upto: int) -> list[KeptId]:
        """Give the ids of a lane's retained events up to an offset."""
        rows: Any = self._db.execute(
            "SELECT events.key, fingerprint, events.seq, events.at FROM events JOIN ids USING (key)"
            " WHERE events.lane = ? AND events.seq <= ? ORDER BY events.seq",
            (lane.number, upto),
        )
        return [KeptId(*row) for row in rows]

    # Forgetting

    def sweep(self, before: int, limit: int) -> tuple[int, int]:
        """Forget ids that are older than `before` (milliseconds) and whose events are gone.

        Looks at `limit` at most; gives how many it looked at and how many went.
        """
        old: Any = self._db.execute(
            "SELECT at, key FROM old_ids WHERE at < ? ORDER BY at LIMIT ?", (before, limit)
        ).fetchall()
        swept = 0
        with self._db:
            for at, key in old:
                self._db.execute("DELETE FROM old_ids WHERE at = ? AND key = ?", (at, key))
                row: Any = self._db.execute("SELECT lane, seq FROM ids WHERE key = ?", (key,)).fetchone()
                if row is not None and row[1] <= self._numbers[row[0]].trimmed:
                    self._db.execute("DELETE FROM ids WHERE key = ?", (key,))
                    swept += 1
        return len(old), swept

    def forgotten_records(self, before: int) -> list[IdsRecord]:
        """Give the records of ids, from the front, that hold none younger than `before` (milliseconds)."""
        return list(takewhile(lambda record: record.at < before, self.ids_records))
