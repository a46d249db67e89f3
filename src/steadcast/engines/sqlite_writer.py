"""The one thread that writes the log. All that queues up while a commit runs goes into the next one."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

import apsw
import msgspec

from steadcast.engines.sqlite_append import Append, MustLook, Placed, place
from steadcast.engines.sqlite_errors import RETRY_AFTER, invalid
from steadcast.engines.sqlite_schema import (
    Log,
    ServerLock,
    connect,
    inode,
    open_log,
    read_epoch,
    transaction,
)
from steadcast.errors import EngineUnavailable, IdConflict, QueueFull, SteadcastError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from steadcast.engines.page import Prepared
    from steadcast.engines.watch import Watches
    from steadcast.event import Receipt

_T = TypeVar("_T")

COMMIT_EVENTS: Final = 4_096
"""A commit takes no further append once it holds this many events …"""
COMMIT_BYTES: Final = 8 * 1024 * 1024
"""… or this many bytes."""
CHECKPOINT_PAGES: Final = 4_000
"""A write-ahead log of this many pages (4 KiB each) is copied into the file after a commit was answered."""
RESTART_PAGES: Final = 32_000
"""At this many, readers are waited for, so that it can't grow without limit. Where that was in vain, they are
waited for again at as many more: each wait holds up the appends behind it."""
PROBE_BYTES: Final = 4_096
MAX_PROBE_BYTES: Final = 1024 * 1024


class Counts(msgspec.Struct, kw_only=True):
    """What became of the events that were to be appended, in events.

    accepted = pending + appended + duplicates + conflicts + failed; the refused never got in.
    """

    accepted: int = 0
    pending: int = 0
    appended: int = 0
    duplicates: int = 0
    conflicts: int = 0
    failed: int = 0
    refused: int = 0
    commits: int = 0
    failures: dict[str, int] = msgspec.field(default_factory=dict)
    looked_late: int = 0
    reopened: int = 0
    checkpoints_failed: int = 0
    unheard: int = 0


@dataclass(slots=True, eq=False)
class _Call:
    """Work of another kind that needs the writing connection."""

    work: Callable[[Log], Any]
    answer: asyncio.Future[Any]


_Job = Append | _Call | None
"""None ends the thread."""


class Writer:
    """The writing connection and its thread. `append`, `call` and `aclose` belong to the event loop.

    `ready` once the file is made, or brought up to date, and may be read.
    The connection is opened by the first job that needs it, and after a failure anew by the next one: that
    is how a locked, full or unwritable file heals without anybody's help.
    """

    def __init__(
        self,
        path: Path,
        watches: Watches,
        *,
        busy: float,
        wall: Callable[[], float],
        max_events: int,
        max_bytes: int,
    ) -> None:
        self.counts = Counts()
        self.ready = False
        self._path = path
        self._watches = watches
        self._busy = busy
        self._wall = wall
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._pending_bytes = 0
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="steadcast-write", daemon=True)
        # What follows belongs to the thread.
        self._server_lock = ServerLock(path)
        self._log: Log | None = None
        self._keeper: apsw.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._wal_pages = 0
        self._restart_at = RESTART_PAGES
        self._failed_bytes = 0
        self._look = False

    # On the loop

    def append(self, stream: str, items: list[Prepared]) -> asyncio.Future[list[Receipt]]:
        """Queue events; the future answers once they are durable. Raises `QueueFull`."""
        size = sum([item.size for item in items])
        counts = self.counts
        if counts.pending and (
            counts.pending + len(items) > self._max_events or self._pending_bytes + size > self._max_bytes
        ):
            counts.refused += len(items)
            raise QueueFull(
                "too much is waiting to be written", limit=self._max_events, retry_after=RETRY_AFTER
            )
        answer: asyncio.Future[list[Receipt]] = self._start().create_future()
        counts.accepted += len(items)
        counts.pending += len(items)
        self._pending_bytes += size
        self._queue.put(Append(stream, items, size, answer))
        return answer

    def call(self, work: Callable[[Log], _T]) -> asyncio.Future[_T]:
        """Run `work` with the log on the writing thread, between two commits."""
        answer: asyncio.Future[_T] = self._start().create_future()
        self._queue.put(_Call(work, answer))
        return answer

    async def aclose(self) -> None:
        """Finish what is queued, close the connection and end the thread."""
        self._closing = True
        if self._thread.is_alive():
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def _start(self) -> asyncio.AbstractEventLoop:
        if self._closing:
            raise EngineUnavailable("the engine is closed", temporary=False)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        return self._loop

    def _take_placed(self, placed: Placed) -> None:
        """Answer the callers of a commit and hand its batches to the watches: one wake for all of them."""
        self._watches.offer(placed.batches)
        for job, told in placed.answers:
            self.counts.pending -= len(job.items)
            self._pending_bytes -= job.size
            self._count(job, told)
            _answer(job.answer, told)

    def _count(self, job: Append, told: list[Receipt] | Exception) -> None:
        counts = self.counts
        if isinstance(told, IdConflict):
            counts.conflicts += len(job.items)
        elif isinstance(told, Exception):
            counts.failed += len(job.items)
            code = getattr(told, "code", type(told).__name__)
            counts.failures[code] = counts.failures.get(code, 0) + 1
        else:
            duplicates = sum([receipt.duplicate for receipt in told])
            counts.duplicates += duplicates
            counts.appended += len(told) - duplicates

    # On the thread

    def _run(self) -> None:
        job: _Job = self._queue.get()
        while job is not None:
            job = self._turn(job) or self._queue.get()
        self._let_go()

    def _turn(self, job: Append | _Call) -> _Call | None:
        """Do a job, and with an append all that can go into its commit; gives the job that comes next.

        None: whatever the queue has, which may be the end.
        """
        following: _Call | None = None
        if isinstance(job, _Call):
            self._hand_over(_answer, job.answer, self._call(job.work))
        else:
            jobs, following = self._gather(job)
            self._hand_over(self._take_placed, self._commit(jobs))
        self._checkpoint()
        return following

    def _let_go(self) -> None:
        """Close what is open, and let another server have the log."""
        if self._keeper is not None:
            self._keeper.close()
        self._drop()
        self._server_lock.release()

    def _gather(self, first: Append) -> tuple[list[Append], _Call | None]:
        jobs = [first]
        events, size = len(first.items), first.size
        while events < COMMIT_EVENTS and size < COMMIT_BYTES:
            try:
                job = self._queue.get_nowait()
            except Empty:
                break
            if not isinstance(job, Append):
                if job is None:
                    self._queue.put(None)
                return jobs, job
            jobs.append(job)
            events += len(job.items)
            size += job.size
        return jobs, None

    def _commit(self, jobs: list[Append]) -> Placed:
        try:
            placed = self._place(jobs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers are told and the thread lives on
            self._failed_bytes = sum(job.size for job in jobs)
            told = self._failed(error)
            # A copy each: tasks that raise the same exception would add to one traceback.
            return Placed([(job, copy(told)) for job in jobs])
        self.counts.commits += 1
        self._failed_bytes = 0
        return placed

    def _place(self, jobs: list[Append]) -> Placed:
        log = self._opened()
        at = int(self._wall() * 1000)
        if not self._look:
            try:
                with transaction(log.conn):
                    return place(log, jobs, at, look=False)
            except MustLook:
                self.counts.looked_late += 1
        with transaction(log.conn):
            placed = place(log, jobs, at, look=True)
        # Retries come in bursts: whether to look first is what the last commit would have needed.
        self._look = any(
            isinstance(told, Exception) or any(receipt.duplicate for receipt in told)
            for _, told in placed.answers
        )
        return placed

    def _call(self, work: Callable[[Log], _T]) -> _T | Exception:
        try:
            return work(self._opened())
        except Exception as error:  # noqa: BLE001 - as in `_commit`
            return self._failed(error)

    def probe(self, log: Log) -> None:
        """Write and commit as much as last failed, at least a page, in addition to the probe before.

        Runs on the thread, through `call`.
        """
        size = min(max(self._failed_bytes, PROBE_BYTES), MAX_PROBE_BYTES)
        with transaction(log.conn):
            log.conn.execute("INSERT INTO probe (body) VALUES (zeroblob(?))", (size,))
            log.conn.execute("DELETE FROM probe WHERE number < last_insert_rowid()")

    def _opened(self) -> Log:
        if self._inode is not None and inode(self._path) != self._inode:
            # Whatever is written now goes with the old file; and to go on in another one, under connections
            # to the old, would mix two logs.
            raise invalid(self._path, "the file was removed or replaced while it was in use; restart")
        if self._log is None:
            self._server_lock.take()
            self._log = open_log(self._path, busy=self._busy)
            self._log.conn.set_wal_hook(self._note_pages)
        self._keep()
        return self._log

    def _keep(self) -> None:
        """Hold one more connection, so that SQLite keeps the shared memory while the writing one is reopened.

        Else it would be made anew, and on a full disk nobody could even read.
        """
        if self._keeper is None:
            self._keeper = connect(self._path, apsw.SQLITE_OPEN_READWRITE, busy=self._busy)
            read_epoch(self._keeper)
            self._inode = inode(self._path)
            self.ready = True

    def _failed(self, error: Exception) -> Exception:
        """Say what went wrong. After a failed commit the next job reopens the log and reads it anew."""
        if self._log is None or isinstance(error, SteadcastError):
            return error
        told = self._log.error(error)
        if not isinstance(error, apsw.BusyError):
            self.counts.reopened += 1
            self._drop()
        return told

    def _drop(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            log.conn.close(force=True)

    def _note_pages(self, _conn: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Copy a long write-ahead log into the file. It is durable: a failure here costs room, no event."""
        if self._log is None or self._wal_pages < CHECKPOINT_PAGES:
            return
        pages, self._wal_pages = self._wal_pages, 0
        if pages < RESTART_PAGES:
            self._restart_at = RESTART_PAGES
        mode = apsw.SQLITE_CHECKPOINT_PASSIVE
        if pages >= self._restart_at:
            mode = apsw.SQLITE_CHECKPOINT_RESTART
            self._restart_at = pages + RESTART_PAGES
        try:
            self._log.conn.wal_checkpoint(mode=mode)
        except apsw.Error:
            self.counts.checkpoints_failed += 1

    def _hand_over(self, function: Callable[..., None], *args: object) -> None:
        assert self._loop is not None  # noqa: S101 - the thread is started with the loop known
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            # The loop was closed without `aclose`: nobody is left to be told.
            self.counts.unheard += 1


def _answer(answer: asyncio.Future[_T], told: _T | Exception) -> None:
    """Answer, unless the caller has gone: what it asked for is done all the same."""
    with suppress(asyncio.InvalidStateError):
        if isinstance(told, Exception):
            answer.set_exception(told)
        else:
            answer.set_result(told)
