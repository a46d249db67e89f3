"""The log of a simulated server in a SQLite file: the real engine, whose threads are steps of the loop.

A crash leaves the file and its write-ahead log as they are, in another folder: the next server opens those.
What a commit has is durable; that it is flushed to the disk is for other tests to show.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import product
from pathlib import Path
from queue import Empty
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

import apsw

from steadcast.engines import sqlite_schema
from steadcast.engines.sqlite import BUSY, QUEUE_BYTES, QUEUE_EVENTS, SqliteEngine
from steadcast.engines.sqlite_append import Append, Placed
from steadcast.engines.sqlite_restore import KEPT, restore
from steadcast.engines.sqlite_schema import OFFSET_BITS, OFFSET_MASK, Log, open_log
from steadcast.engines.sqlite_writer import Writer, _answer, _Job
from steadcast.errors import EngineUnavailable
from steadcast.event import LANES, Batch, Event, Lane, Receipt
from tests.sim.names import within

if TYPE_CHECKING:
    from random import Random

    from tests.sim.world import World

T = TypeVar("T")

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of the simulation's own is made there
"""Where files are that need no disk, if there is such a place."""
_LANES = "SELECT number, stream, lane, head, trimmed FROM lanes ORDER BY number"
_EVENTS = "SELECT key & ?, event ->> 'id' FROM events WHERE key > ? AND key <= ? ORDER BY key"


def rows(conn: apsw.Connection, query: str, *bindings: int) -> list[Any]:
    return conn.execute(query, bindings).fetchall()


class SteppingWriter(Writer):
    """The writer, with each turn of its thread a step of the loop."""

    def __init__(self, engine: SqliteProcess, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._engine = engine
        self._stepping = False

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = self._loop = self._engine.world.loop
        if not self._stepping:
            self._stepping = True
            loop.call_later(self._engine.commit_takes(), self._step)
        return loop

    def _step(self) -> None:
        self._stepping = False
        if not self._engine.dead:
            self.turn()
            if not self._queue.empty():
                self._start()

    def turn(self) -> None:
        """Do what the thread does when it finds something in its queue."""
        try:
            job: _Job = self._queue.get_nowait()
        except Empty:
            return
        while job is not None:
            job = self._turn(job)

    def _commit(self, jobs: list[Append]) -> Placed:
        placed = super()._commit(jobs)
        for job, told in placed.answers:
            if isinstance(told, list):
                self._engine.disk.keep(job.stream, told)
        return placed

    def _call(self, work: Callable[[Log], T]) -> T | Exception:
        told = super()._call(work)
        if self._log is not None:
            self._engine.disk.look_at_trims(self._log.conn)
        return told

    def _hand_over(self, function: Callable[..., None], *args: object) -> None:
        if not self._engine.dead:
            self._engine.world.loop.call_soon(function, *args)

    def die(self) -> int:
        """Let go of the file, and fail what waits; tells how many jobs that is."""
        waiting = self._queue.qsize()
        while not self._queue.empty():
            job = self._queue.get_nowait()
            if job is not None:
                _answer(job.answer, EngineUnavailable("this process is dead"))
        self._let_go()
        return waiting


class SqliteProcess(SqliteEngine):
    """The engine of one server process."""

    def __init__(self, disk: SqliteDisk, rng: Random) -> None:
        world = self.world = disk.world
        self.disk, self.rng = disk, rng
        self.slow = 1.0
        self.dead = False
        super().__init__(
            disk.path,
            retention=world.retention,
            wall=world.wall,
            monotonic=world.loop.time,
            watch_events=world.plan.limits.watch,
        )
        self._writer: Writer = SteppingWriter(
            self, disk.path, self._watches,
            busy=BUSY, wall=world.wall, max_events=QUEUE_EVENTS, max_bytes=QUEUE_BYTES,
        )  # fmt: skip

    def commit_takes(self) -> float:
        return self.rng.uniform(0.001, 0.02) * self.slow

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        self._check()
        return await super().append(stream, events)

    async def read(
        self, stream: str, lane: Lane, after: int, limit: int = 256, *, kept: bool = False
    ) -> Batch:
        await self._nap()
        page = await super().read(stream, lane, after, limit, kept=kept)
        await self._nap()
        return page

    async def describe(self, stream: str | None = None) -> Any:
        await self._nap()
        found = await super().describe(stream)
        await self._nap()
        return found

    async def trim(
        self,
        stream: str | None = None,
        lane: Lane | None = None,
        upto: int | None = None,
        *,
        dry_run: bool = False,
    ) -> int:
        self._check()
        return await super().trim(stream, lane, upto, dry_run=dry_run)

    async def crash(self) -> int:
        """Die, once; what is being committed may just have reached the disk, unanswered."""
        if self.dead:
            return 0
        self.dead = True
        writer = self._writer
        assert isinstance(writer, SteppingWriter)
        if self.rng.random() < 0.5:
            writer.turn()
        self.disk.leave_behind()
        counts, watch = writer.counts, self.statistics().watch
        dropped = counts.conflicts + counts.failed
        done = counts.appended + counts.duplicates
        add = self.world.record.add
        add("buffer", "appends", counts.accepted, counts.pending, done, dropped)
        gone = watch.overflowed + watch.abandoned
        add("buffer", "watch", watch.accepted, watch.pending, watch.delivered, gone)
        waiting = writer.die()
        self._readers._close()
        return waiting

    async def _nap(self) -> None:
        self._check()
        if self.rng.random() < 0.5 or self.slow > 1:
            await asyncio.sleep(self.rng.uniform(0.0, 0.02) * self.slow)
            self._check()

    def _check(self) -> None:
        if self.dead:
            raise EngineUnavailable("this process is dead")


class SqliteDisk:
    """What outlives every server: a file. It writes down what is committed: that is what is durable."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._place = TemporaryDirectory(prefix="steadcast-sim-", dir=MEMORY if MEMORY.is_dir() else None)
        self._lives = 0
        self._ids: defaultdict[str, dict[int, str]] = defaultdict(dict)
        self._trims: dict[str, int] = {}
        self.path = self._new_path()
        with self.epochs():
            log = open_log(self.path, busy=BUSY)
        self.epoch = log.epoch
        log.conn.close()
        world.record.add("opened", self.epoch)

    def _new_path(self) -> Path:
        self._lives += 1
        folder = Path(self._place.name) / str(self._lives)
        folder.mkdir()
        return folder / "steadcast.db"

    def epochs(self) -> AbstractContextManager[object]:
        """Have epochs minted that tell the same story each time."""
        return patch.object(sqlite_schema, "_new_epoch", self.world.new_epoch)

    def engine(self, rng: Random) -> SqliteProcess:
        """Give the engine of one server."""
        return SqliteProcess(self, rng)

    # What is committed

    def keep(self, stream: str, receipts: list[Receipt]) -> None:
        for receipt in receipts:
            if not receipt.duplicate:
                lane = within(stream, receipt.lane)
                self._keep(lane, receipt.position.offset, within(stream, receipt.id))

    def _keep(self, lane: str, offset: int, name: str) -> None:
        self._ids[lane][offset] = name
        self.world.record.add("kept", self.epoch, lane, offset, name)

    def look_at_trims(self, conn: apsw.Connection) -> None:
        for _, stream, lane, _, trimmed in rows(conn, _LANES):
            name = within(stream, lane)
            if trimmed > self._trims.get(name, 0):
                self._trims[name] = trimmed
                self.world.record.add("dropped", self.epoch, name, trimmed)

    def heads(self) -> dict[tuple[str, Lane], int]:
        """Look where every lane ends."""
        with self._opened() as conn:
            heads = {(stream, lane): head for _, stream, lane, head, _ in rows(conn, _LANES)}
        return {each: heads.get(each, 0) for each in product(self.world.streams, LANES)}

    @contextmanager
    def _opened(self) -> Iterator[apsw.Connection]:
        conn = apsw.Connection(str(self.path))
        try:
            yield conn
        finally:
            conn.close()

    # Crashes and backups

    def leave_behind(self) -> None:
        """Copy the files as they are: the dead server's connections go with the old ones."""
        old, self.path = self.path, self._new_path()
        for end in KEPT:
            source = old.with_name(old.name + end)
            if source.exists():
                shutil.copyfile(source, self.path.with_name(self.path.name + end))

    async def backup(self) -> Path | None:
        """Copy the log as docs/operations.md says, while it is served."""
        path = self.path.with_name("backup.db")
        path.unlink(missing_ok=True)
        with self._opened() as conn:
            conn.execute("VACUUM INTO ?", (str(path),))
        return path

    async def restore(self, backup: Path | None, _rng: Random) -> None:
        """Restore a backup in the place of the log, once no server has it."""
        assert backup is not None
        with self.epochs():
            aside = self.path.with_name(f"before-{self.epoch}.db")
            self.epoch = restore(backup, self.path, aside=aside)
        self.world.record.add("opened", self.epoch)
        ids, self._ids, self._trims = self._ids, defaultdict(dict), {}
        with self._opened() as conn:
            for number, stream, lane, head, trimmed in rows(conn, _LANES):
                name, base = within(stream, lane), number << OFFSET_BITS
                # The ids of what was trimmed are still known; only the record can say whose they are.
                known = {offset: ids[name][offset] for offset in range(1, trimmed + 1)}
                held = rows(conn, _EVENTS, OFFSET_MASK, base + trimmed, base + head)
                known |= {offset: within(stream, event) for offset, event in held}
                for offset, event in known.items():
                    self._keep(name, offset, event)
            self.look_at_trims(conn)

    def counted(self) -> None:
        """Nothing: each process has told its own."""

    def close(self) -> None:
        self._place.cleanup()
