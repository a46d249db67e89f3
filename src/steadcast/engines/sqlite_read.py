"""Reads of the log: a few connections of their own on a few threads, so that the event loop never waits."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

import apsw
import msgspec

from steadcast.engines.base import Description, LaneState
from steadcast.engines.page import ENTRY_OVERHEAD, PAGE_ROOM, check_position
from steadcast.engines.sqlite_errors import RETRY_AFTER, from_sqlite, invalid
from steadcast.engines.sqlite_schema import OFFSET_BITS, connect, read_epoch
from steadcast.errors import QueueFull
from steadcast.event import LANES, Batch, Entry, Event, Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_T = TypeVar("_T")

THREADS: Final = 2
MAX_WAITING: Final = 10_000
"""Reads that may wait for a thread; one more is refused."""


class _Stored(msgspec.Struct):
    """An event as it lies in the log: `data` stays the bytes that came in."""

    id: str
    source: str
    type: str
    time: str
    data: msgspec.Raw
    priority: Lane = Lane.NORMAL
    subject: str | None = None


_DESCRIBE: Final = (
    "SELECT (SELECT value FROM meta WHERE key = 'epoch'),"
    " json_group_array(json_array(stream, lane, head, trimmed, bytes)) FROM lanes"
)
_events = msgspec.json.Decoder(list[_Stored]).decode
_one = msgspec.json.Decoder(_Stored).decode
_ats = msgspec.json.Decoder(list[int]).decode
_lanes = msgspec.json.Decoder(list[tuple[str, Lane, int, int, int]]).decode


class Readers:
    """Connections that only read, and the threads that use them: at most one each."""

    def __init__(self, path: Path, *, busy: float) -> None:
        self._path = path
        self._busy = busy
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="steadcast-read")
        self._lock = threading.Lock()
        self._idle: list[apsw.Connection] = []
        self.waiting = 0
        self.refused = 0

    async def run(self, work: Callable[[apsw.Connection], _T]) -> _T:
        """Run `work` with a connection, in a thread; raises what `sqlite_errors` makes of SQLite's errors.

        Raises `QueueFull` when too many reads wait already.
        """
        if self.waiting >= MAX_WAITING:
            self.refused += 1
            raise QueueFull("too many reads are waiting", limit=MAX_WAITING, retry_after=RETRY_AFTER)
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, work)
        finally:
            self.waiting -= 1

    async def aclose(self) -> None:
        """Let the reads under way finish, and close the connections."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._threads.shutdown()
        while self._idle:
            self._idle.pop().close()

    def _run(self, work: Callable[[apsw.Connection], _T]) -> _T:
        conn = self._take()
        try:
            result = work(conn)
        except apsw.Error as error:
            told = from_sqlite(error, self._path, conn.system_errno)
            conn.close(force=True)
            raise told from error
        except BaseException:
            self._idle.append(conn)
            raise
        self._idle.append(conn)
        return result

    def _take(self) -> apsw.Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        conn = connect(self._path, apsw.SQLITE_OPEN_READWRITE, busy=self._busy)
        conn.pragma("query_only", 1)
        return conn


def read_page(
    conn: apsw.Connection, *, path: Path, stream: str, lane: Lane, after: int, limit: int, kept: bool = False
) -> Batch:
    """Read a page of a lane; see `Engine.read`."""
    with conn:
        row = conn.execute(
            "SELECT number, head, trimmed FROM lanes WHERE stream = ? AND lane = ?", (stream, lane)
        ).get
        number, head, trimmed = row or (0, 0, 0)
        epoch = read_epoch(conn)
        start = max(trimmed, head + after) if after < 0 else after
        check_position(start, head, trimmed, epoch)
        base = number << OFFSET_BITS
        try:
            found = _found(conn, base, start, min(limit, head - start)) if start < head else []
        except msgspec.DecodeError as error:
            where = f"at offset {start + 1} of {stream} ({lane})"
            raise invalid(path, f"the event {where} is damaged: {error}") from error
        times: Sequence[int | None] = _times(conn, base + start, len(found)) if kept else [None] * len(found)
    if start < head and not found:
        raise invalid(path, f"the event at offset {start + 1} of {stream} ({lane}) is missing")
    entries = tuple(map(Entry, range(start + 1, start + 1 + len(found)), found, times))
    return Batch(stream, lane, epoch, start, start + len(entries), entries)


def _found(conn: apsw.Connection, base: int, after: int, limit: int) -> list[Event]:
    """Read the events behind `after` that fit a page, up to the first that is missing or damaged.

    Raises DecodeError where that is the very first.
    """
    first = base + after + 1
    last = _last(conn, first, limit)
    if last is None:
        return []
    try:
        found = _stretch(conn, first, last)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _sound(conn, first, last)
    return found if len(found) == last - first + 1 else _sound(conn, first, last)


def _last(conn: apsw.Connection, first: int, limit: int) -> int | None:
    """Give the key of the last event that fits a page that begins with a key."""
    last: int | None = conn.execute(
        "SELECT max(key) FROM (SELECT key, sum(octet_length(event) + ?) OVER (ORDER BY key) AS size"
        " FROM events WHERE key >= ? AND key < ? ORDER BY key) WHERE size <= ? OR key = ?",
        (ENTRY_OVERHEAD, first, first + min(limit, PAGE_ROOM // ENTRY_OVERHEAD), PAGE_ROOM, first),
    ).get
    return last


def _stretch(conn: apsw.Connection, first: int, last: int) -> list[Event]:
    """Read the events from one key to another; fewer where some are missing.

    Each row that SQLite hands over lets go of the interpreter, and a busy loop may then keep it for 5 ms:
    so first the length of the page is asked for, and then the page as one text.
    """
    [text] = next(
        conn.execute(
            "SELECT '[' || coalesce(group_concat(event, ','), '') || ']'"
            " FROM (SELECT event FROM events WHERE key BETWEEN ? AND ? ORDER BY key)",
            (first, last),
        )
    )
    return [_event(stored) for stored in _events(text)]


def _sound(conn: apsw.Connection, first: int, last: int) -> list[Event]:
    """Read the events from one key on, one by one, up to the first that is missing or damaged."""
    found: list[Event] = []
    # All rows: a statement that isn't at its end would keep its view of the log.
    rows: list[tuple[int, bytes]] = conn.execute(
        "SELECT key, CAST(event AS BLOB) FROM events WHERE key BETWEEN ? AND ? ORDER BY key", (first, last)
    ).fetchall()  # type: ignore[assignment]  # any of SQLite's types, for all that is declared
    for key, text in rows:
        if key != first + len(found):
            break
        try:
            found.append(_event(_one(text)))
        except msgspec.DecodeError:
            if not found:
                raise
            break
    return found


def _times(conn: apsw.Connection, after: int, count: int) -> Sequence[int | None]:
    """Read when the `count` events behind a key were appended."""
    text = conn.execute(
        "SELECT json_group_array(at) FROM (SELECT at FROM events WHERE key > ? AND key <= ? ORDER BY key)",
        (after, after + count),
    ).get
    return _ats(text)


def _event(stored: _Stored) -> Event:
    return Event(
        stored.id, stored.source, stored.type, stored.time, stored.data, stored.priority, stored.subject
    )


def describe(conn: apsw.Connection, stream: str | None) -> Description:
    """Tell epoch, heads, trim marks and sizes; see `Engine.describe`."""
    asked = (_DESCRIBE,) if stream is None else (f"{_DESCRIBE} WHERE stream = ?", (stream,))
    epoch, text = next(conn.execute(*asked))
    empty = LaneState()
    streams = {} if stream is None else {stream: dict.fromkeys(LANES, empty)}
    for name, lane, head, trimmed, size in _lanes(text):
        state = LaneState(head=head, trimmed=trimmed, events=head - trimmed, bytes=size)
        streams.setdefault(name, dict.fromkeys(LANES, empty))[lane] = state
    return Description(epoch=epoch, streams=streams)
