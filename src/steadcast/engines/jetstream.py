"""The log in NATS JetStream, for several nodes: what each node's event loop sees of it.

One JetStream stream holds a deployment's log, positions are its sequences. Every node follows it with one
consumer and folds it into an index, from which it answers; the events themselves stay in JetStream.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from steadcast.engines.base import IDS_AGE, PAGE_EVENTS, Description, Retention
from steadcast.engines.clocks import MAX_DRIFT, Clocks, steady
from steadcast.engines.jetstream_append import QUEUE_BYTES, QUEUE_EVENTS, Appender, Counts
from steadcast.engines.jetstream_check import keep_spare, skew
from steadcast.engines.jetstream_link import NO_MESSAGE, Answered, away
from steadcast.engines.jetstream_log import Log, LogCounts
from steadcast.engines.jetstream_records import decode_event
from steadcast.engines.jetstream_trim import LEAST, STEP, due, free_spare, purge, trim_step, upto_step
from steadcast.engines.page import check_limit, check_position, check_trim, prepare
from steadcast.engines.watch import WATCH_BYTES, WATCH_EVENTS, WatchCounts, Watches
from steadcast.errors import EngineRefused, EngineUnavailable, SteadcastError
from steadcast.event import Batch, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from steadcast.engines.base import Watch
    from steadcast.engines.jetstream_index import LaneIndex, Row
    from steadcast.engines.jetstream_url import Options
    from steadcast.event import Event, Lane, Receipt

log = structlog.get_logger("steadcast.jetstream")

SWEEP: Final = 1_000
"""Ids that are forgotten in one step, between which others have their turn."""
SWEEP_STEPS: Final = 64
FETCHES: Final = 3
"""Times that a page is asked for in vain: a server that answers may lag, and give some of it or nothing."""
LANES_AT_ONCE: Final = 256
"""Lanes that are looked at for something to trim, between which others have their turn."""


class JetStreamStatistics(msgspec.Struct, kw_only=True):
    """What a node did with its log since it began, and what waits."""

    counts: Counts
    log: LogCounts
    watches: int
    watch: WatchCounts
    trimmed: int
    trims_lost: int
    ids_swept: int
    fetches: int
    doubled: int
    malformed: int
    age_waits: bool


class JetStreamEngine:
    """A log in JetStream. Connects with the first call, and over and over while it is away.

    With `reading` a log that isn't there is refused (`InvalidRequest`, `not_found`), and not made. `ids_age`
    in seconds; `wall` and `monotonic` give seconds. Where `wall` is more than `max_skew` seconds from the
    servers' clock, nothing is trimmed by its age.
    """

    dense = False

    def __init__(
        self,
        options: Options,
        *,
        retention: Retention | None = None,
        reading: bool = False,
        ids_age: float = IDS_AGE,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = steady,
        max_skew: float = MAX_DRIFT,
        queue_events: int = QUEUE_EVENTS,
        queue_bytes: int = QUEUE_BYTES,
        watch_events: int = WATCH_EVENTS,
        watch_bytes: int = WATCH_BYTES,
    ) -> None:
        self.retention = retention or Retention()
        self._ids_age = ids_age
        self._wall = wall
        self._clocks = Clocks(wall, monotonic)
        self._max_skew = max_skew
        self._skewed = False
        self._watches = Watches(max_events=watch_events, max_bytes=watch_bytes)
        self._log = Log(options, self._watches, reading=reading)
        self._appender = Appender(self._log, wall, max_events=queue_events, max_bytes=queue_bytes)
        self._closed = False
        self._trimmed = 0
        self._trims_lost = 0
        self._fetches = 0
        self._ids_swept = 0

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        """Add events, all or none, acked by JetStream once this returns; see `Engine.append`.

        Raises `TooLarge` for more than 1,000 at once, the most that JetStream takes as one.
        """
        self._check_open()
        if not events:
            await self._log.probe()
            return []
        return await self._appender.append(stream, prepare(events))

    async def read(
        self, stream: str, lane: Lane, after: int, limit: int = PAGE_EVENTS, *, kept: bool = False
    ) -> Batch:
        """Read a page; see `Engine.read`."""
        self._check_open()
        check_limit(limit)
        await self._log.ready()
        if after > self._log.index.peek(stream, lane).head:
            # Another node may have given that position: only a log that takes a write knows its end.
            await self._log.reached(await self._log.probe())
        index, epoch = self._log.index, self._log.epoch
        known = index.peek(stream, lane)
        start = index.before_last(known, -after) if after < 0 else after
        check_position(start, known.head, known.trimmed, epoch)
        rows = index.page(known, start, limit)
        entries = await self._fetch(known, rows) if rows else ()
        if kept:
            entries = tuple(Entry(e.offset, e.event, row.at) for e, row in zip(entries, rows, strict=False))
        if self._log.index is not index:
            raise away("the log began anew meanwhile")
        return Batch(stream, lane, epoch, start, entries[-1].offset if entries else start, entries)

    def watch(self) -> Watch:
        """Follow what is appended from now on, by any node; see `Engine.watch`."""
        return self._watches.open()

    async def describe(self, stream: str | None = None) -> Description:
        """Tell epoch, heads, trim marks and sizes as the stream's leader has them; see `Engine.describe`."""
        self._check_open()
        await self._log.barrier()
        return Description(epoch=self._log.epoch, streams=self._log.index.states(stream))

    async def trim(
        self,
        stream: str | None = None,
        lane: Lane | None = None,
        upto: int | None = None,
        *,
        dry_run: bool = False,
    ) -> int:
        """Apply retention or drop up to an offset, and forget old ids; see `Engine.trim`.

        Every node may: of those that trim the same lane at once, one does it and counts it.
        """
        self._check_open()
        check_trim(stream, lane, upto, dry_run=dry_run)
        await self._log.barrier()
        lanes = [
            known
            for (name, which), known in self._log.index.lanes.items()
            if stream in {None, name} and lane in {None, which}
        ]
        if dry_run and upto is not None:
            return sum(self._log.index.count(known, upto) for known in lanes)
        if upto is None:
            await self._look_at_the_clock()
        gone = 0
        for number, known in enumerate(lanes, 1):
            gone += await self._trim_lane(known, upto)
            if number % LANES_AT_ONCE == 0:
                await asyncio.sleep(0)
        await keep_spare(await self._log.ready(), self._log.subjects, self._log.config)
        if upto is None:
            await self._sweep()
        return gone

    async def aclose(self) -> None:
        """Finish what is under way, end the watches and disconnect."""
        if self._closed:
            return
        self._closed = True
        await self._appender.aclose()
        await self._log.aclose()
        self._watches.end()

    def statistics(self) -> JetStreamStatistics:
        """Tell what was counted."""
        index = self._log.index
        return JetStreamStatistics(
            counts=self._appender.counts,
            log=self._log.counts,
            watches=len(self._watches),
            watch=self._watches.counts,
            trimmed=self._trimmed,
            trims_lost=self._trims_lost,
            ids_swept=self._ids_swept,
            fetches=self._fetches,
            doubled=index.doubled,
            malformed=index.malformed,
            age_waits=self._skewed or self._clocks.waits(),
        )

    def _check_open(self) -> None:
        if self._closed:
            raise EngineUnavailable("the engine is closed", temporary=False)

    # Pages

    async def _fetch(self, lane: LaneIndex, rows: Sequence[Row]) -> tuple[Entry, ...]:
        """Get a page's events from whatever server has them: the index tells which those are.

        Up to the first that is damaged; raises `EngineRefused` where that is the very first.
        """
        subject = self._log.subjects.event(lane.stream, lane.lane)
        found: dict[int, bytes] = {}
        wanted = dict.fromkeys(row.seq for row in rows)
        missing, vain = list(wanted), 0
        while missing:
            if vain == FETCHES:
                raise await self._gone(lane, missing[0])
            link = await self._log.ready()
            request = {"seq": missing[0], "batch": len(missing), "next_by_subj": subject}
            for message in await link.collect(f"$JS.API.DIRECT.GET.{self._log.options.stream}", request):
                seq = int((message.headers or {})["Nats-Sequence"])
                if seq in wanted:
                    found[seq] = message.data
            self._fetches += 1
            left = [seq for seq in wanted if seq not in found]
            missing, vain = left, vain + 1 if len(left) == len(missing) else 0
        return tuple(_sound(lane, {seq: found[seq] for seq in wanted}))

    async def _gone(self, lane: LaneIndex, seq: int) -> SteadcastError:
        """Find out why an event can't be had: its server lags, or it was taken away.

        What was taken by hand gets a mark, so that everybody is told.
        """
        link = await self._log.ready()
        subject = self._log.subjects.event(lane.stream, lane.lane)
        request = {"seq": seq, "next_by_subj": subject}
        try:
            there = await link.api(f"STREAM.MSG.GET.{self._log.options.stream}", request)
            oldest = int(there["message"]["seq"])
        except Answered as error:
            if error.code != NO_MESSAGE:
                return error.told()
            oldest = lane.head + 1
        if oldest == seq:
            return away("the server that was asked lags behind the log")
        await self._log.barrier()
        while lane.trimmed < seq:
            upto, count = upto_step(self._log.index, lane, oldest - 1)
            log.warning("events are gone without a mark", stream=lane.stream, lane=lane.lane, count=count)
            if not count or not await trim_step(self._log, lane, upto):
                break
        return away("the events were trimmed meanwhile")

    # Trimming

    async def _trim_lane(self, lane: LaneIndex, upto: int | None) -> int:
        trimmed, most = 0, STEP
        while True:
            index = self._log.index
            last, count = (
                due(index, lane, self.retention, self._before(self.retention.age), most)
                if upto is None
                else upto_step(index, lane, upto, most)
            )
            if not count:
                return trimmed
            try:
                done = await trim_step(self._log, lane, last)
            except EngineUnavailable as error:
                if error.code != "engine_full" or (most == LEAST and not await free_spare(self._log)):
                    raise
                most = LEAST
                continue
            if not done:
                self._trims_lost += 1
                return trimmed
            trimmed += count
            self._trimmed += count
            most = min(2 * most, STEP)

    async def _sweep(self) -> None:
        before = self._before(self._ids_age)
        if before is None:
            return
        index = self._log.index
        for _ in range(SWEEP_STEPS):
            looked_at, swept = index.sweep(before, SWEEP)
            self._ids_swept += swept
            if looked_at < SWEEP:
                break
            await asyncio.sleep(0)
        records = index.forgotten_records(before)
        # The log's last record stays: what waits for the log's end waits for it.
        if records and records[-1].seq < index.seq:
            await purge(self._log, await self._log.ready(), self._log.subjects.ids, records[-1].seq)
            for _ in records:
                index.ids_records.popleft()

    async def _look_at_the_clock(self) -> None:
        """Compare the wall clock with the servers': what a wrong one trims is gone for all nodes."""
        ahead = await skew(await self._log.ready(), self._log.options, self._wall())
        skewed = abs(ahead) > self._max_skew
        if skewed and not self._skewed:
            told = (
                "this machine's clock isn't the JetStream servers'; nothing is trimmed by its age from here"
            )
            log.warning(told, ahead=round(ahead))
        self._skewed = skewed

    def _before(self, age: float) -> int | None:
        """Give the wall time `age` seconds ago in milliseconds; None while the clock can't be trusted."""
        return None if self._skewed else self._clocks.before(age)


def _sound(lane: LaneIndex, bodies: dict[int, bytes]) -> list[Entry]:
    """Read events up to the first that is damaged; raises `EngineRefused` where that is the very first."""
    entries: list[Entry] = []
    for seq, body in bodies.items():
        try:
            entries.append(Entry(seq, decode_event(body)))
        except EngineRefused as error:
            if not entries:
                where = f"at offset {seq} of {lane.stream} ({lane.lane})"
                raise EngineRefused(f"the event {where} is damaged", code=error.code) from error
            break
    return entries
