"""The log in a SQLite file: what the event loop sees of it. Nothing here waits for the disk on the loop."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from steadcast.engines.base import IDS_AGE, PAGE_EVENTS, Retention
from steadcast.engines.clocks import Clocks, steady
from steadcast.engines.page import check_limit, check_trim, prepare
from steadcast.engines.sqlite_read import Readers, describe, read_page
from steadcast.engines.sqlite_trim import (
    STEP_IDS,
    Rule,
    Sweep,
    drop_upto,
    due,
    retain,
    sweep_old_step,
    sweep_step,
    trim_step,
)
from steadcast.engines.sqlite_writer import Counts, Writer
from steadcast.engines.watch import WATCH_BYTES, WATCH_EVENTS, WatchCounts, Watches
from steadcast.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import apsw

    from steadcast.engines.base import Description, Watch
    from steadcast.event import Batch, Event, Lane, Receipt

_T = TypeVar("_T")

QUEUE_EVENTS: Final = 32_768
"""Events that may wait for the disk, unless a single append holds more …"""
QUEUE_BYTES: Final = 64 * 1024 * 1024
"""… and bytes of their JSON."""
BUSY: Final = 2.0
"""Seconds for which another program's lock on the file is waited for."""
SWEEP_STEPS: Final = 16
"""Steps that one `trim` takes through the ids at least; the next one goes on from there."""


class SqliteStatistics(msgspec.Struct, kw_only=True):
    """What a SQLite engine did since it began, and what waits."""

    counts: Counts
    reads_waiting: int
    reads_refused: int
    watches: int
    watch: WatchCounts
    trimmed: int
    ids_swept: int
    age_waits: bool


class SqliteEngine:
    """A log in one file, for one server. Opens no file before the first call, which tells what is wrong.

    `path` must be absolute. `ids_age` in seconds; `wall` and `monotonic` give seconds.
    """

    dense = True

    def __init__(
        self,
        path: Path,
        *,
        retention: Retention | None = None,
        ids_age: float = IDS_AGE,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = steady,
        busy: float = BUSY,
        queue_events: int = QUEUE_EVENTS,
        queue_bytes: int = QUEUE_BYTES,
        watch_events: int = WATCH_EVENTS,
        watch_bytes: int = WATCH_BYTES,
    ) -> None:
        self.retention = retention or Retention()
        self._path = path
        self._ids_age = ids_age
        self._clocks = Clocks(wall, monotonic)
        self._watches = Watches(max_events=watch_events, max_bytes=watch_bytes)
        self._writer = Writer(
            path, self._watches, busy=busy, wall=wall, max_events=queue_events, max_bytes=queue_bytes
        )
        self._readers = Readers(path, busy=busy)
        self._closed = False
        self._swept_to: dict[Sweep, tuple[int, bytes] | None] = {sweep_step: None, sweep_old_step: None}
        self._trimmed = 0
        self._ids_swept = 0
        self._appended = 0

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        """Add events, all or none, durable once this returns; see `Engine.append`."""
        if not events:
            await self._writer.call(self._writer.probe)
            return []
        return await self._writer.append(stream, prepare(events))

    async def read(
        self, stream: str, lane: Lane, after: int, limit: int = PAGE_EVENTS, *, kept: bool = False
    ) -> Batch:
        """Read a page; see `Engine.read`."""
        check_limit(limit)
        return await self._read(
            partial(
                read_page,
                path=self._path,
                stream=stream,
                lane=lane,
                after=after,
                limit=limit,
                kept=kept,
            )
        )

    def watch(self) -> Watch:
        """Follow what is appended from now on; see `Engine.watch`."""
        return self._watches.open()

    async def describe(self, stream: str | None = None) -> Description:
        """Tell epoch, heads, trim marks and sizes as the file has them; see `Engine.describe`."""
        return await self._read(partial(describe, stream=stream))

    async def trim(
        self,
        stream: str | None = None,
        lane: Lane | None = None,
        upto: int | None = None,
        *,
        dry_run: bool = False,
    ) -> int:
        """Apply retention or drop up to an offset, and forget old ids; see `Engine.trim`."""
        check_trim(stream, lane, upto, dry_run=dry_run)
        if stream is not None and lane is not None and upto is not None:
            if dry_run:
                state = (await self.describe(stream)).streams[stream][lane]
                return max(0, min(upto, state.head) - state.trimmed)
            return await self._trim_lane(stream, lane, drop_upto(upto))
        rule = self._rule()
        lanes = await self._read(partial(due, rule=rule, stream=stream, lane=lane))
        gone = sum([await self._trim_lane(*which, rule) for which in lanes])
        await self._sweep()
        return gone

    async def aclose(self) -> None:
        """Finish what is queued, end the watches and let go of the file."""
        if self._closed:
            return
        self._closed = True
        await self._readers.aclose()
        await self._writer.aclose()
        self._watches.end()

    def statistics(self) -> SqliteStatistics:
        """Tell what was counted."""
        return SqliteStatistics(
            counts=self._writer.counts,
            reads_waiting=self._readers.waiting,
            reads_refused=self._readers.refused,
            watches=len(self._watches),
            watch=self._watches.counts,
            trimmed=self._trimmed,
            ids_swept=self._ids_swept,
            age_waits=self._clocks.waits(),
        )

    async def _read(self, work: Callable[[apsw.Connection], _T]) -> _T:
        if self._closed:
            raise EngineUnavailable("the engine is closed", temporary=False)
        if not self._writer.ready:
            await self._writer.call(lambda _: None)
        return await self._readers.run(work)

    def _rule(self) -> Rule:
        return retain(self.retention, self._clocks.before(self.retention.age))

    async def _trim_lane(self, stream: str, lane: Lane, rule: Rule) -> int:
        gone = 0
        while step := await self._writer.call(partial(trim_step, stream=stream, lane=lane, rule=rule)):
            gone += step
            self._trimmed += step
        return gone

    async def _sweep(self) -> None:
        before = self._clocks.before(self._ids_age)
        if before is None:
            return
        appended, before_that = self._writer.counts.appended, self._appended
        self._appended = appended
        # Twice as many as came: with fewer, ids that come faster than they are looked at are never all swept.
        steps = max(SWEEP_STEPS, 2 * (appended - before_that) // STEP_IDS)
        for step in self._swept_to:
            await self._sweep_stretches(step, before, steps)

    async def _sweep_stretches(self, step: Sweep, before: int, steps: int) -> None:
        for _ in range(steps):
            after = self._swept_to[step] or (0, b"")
            swept, self._swept_to[step] = await self._writer.call(partial(step, after=after, before=before))
            self._ids_swept += swept
            if self._swept_to[step] is None:
                return
