"""The log in memory: the same promises, except that nothing outlives the process. Simulations run on it."""

from __future__ import annotations

import secrets
import time
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from steadcast.engines.base import IDS_AGE, PAGE_EVENTS, Description, LaneState, Retention
from steadcast.engines.page import (
    ENTRY_OVERHEAD,
    PAGE_ROOM,
    check_limit,
    check_position,
    check_trim,
    conflict,
    pages,
    prepare,
)
from steadcast.engines.watch import WATCH_BYTES, WATCH_EVENTS, WatchCounts, Watches
from steadcast.errors import EngineUnavailable, IdConflict
from steadcast.event import LANES, Batch, Entry, Event, Lane, Position, Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from steadcast.engines.base import Watch
    from steadcast.engines.page import Prepared


class _Kept(NamedTuple):
    at: float
    item: Prepared


class _First(NamedTuple):
    fingerprint: bytes
    lane: Lane
    offset: int
    at: float


class _Log:
    """One lane: what is retained, behind its trim mark."""

    def __init__(self) -> None:
        self.trimmed = 0
        self.bytes = 0
        self.kept: dict[int, _Kept] = {}

    @property
    def head(self) -> int:
        return self.trimmed + len(self.kept)

    def add(self, at: float, item: Prepared) -> int:
        offset = self.head + 1
        self.kept[offset] = _Kept(at, item)
        self.bytes += item.size
        return offset

    def drop(self) -> None:
        self.trimmed += 1
        self.bytes -= self.kept.pop(self.trimmed).item.size

    def exceeds(self, retention: Retention, now: float) -> bool:
        return bool(self.kept) and (
            len(self.kept) > retention.events
            or self.bytes > retention.bytes
            or self.kept[self.trimmed + 1].at < now - retention.age
        )

    def state(self) -> LaneState:
        return LaneState(head=self.head, trimmed=self.trimmed, events=len(self.kept), bytes=self.bytes)


class _Stream:
    def __init__(self) -> None:
        self.lanes = {lane: _Log() for lane in LANES}
        # In the order of their appends, so that the oldest are in front.
        self.ids: dict[bytes, _First] = {}


class Counts(msgspec.Struct, kw_only=True):
    """What happened to the events that were to be appended, and to ids."""

    appended: int = 0
    duplicates: int = 0
    conflicts: int = 0
    trimmed: int = 0
    ids_swept: int = 0


class MemoryStatistics(msgspec.Struct, kw_only=True):
    """What a memory engine did since it began."""

    counts: Counts
    watches: int
    watch: WatchCounts


class MemoryEngine:
    """A log in memory. Given `clock` (seconds, only its differences count) and `epoch` it is deterministic.

    Its events are bounded by `retention` as often as `trim` is called, its ids by `ids_age` (seconds).
    `wall` gives seconds of Unix time, for those who ask when an event was kept.
    """

    dense = True

    def __init__(
        self,
        *,
        retention: Retention | None = None,
        ids_age: float = IDS_AGE,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        epoch: str | None = None,
        watch_events: int = WATCH_EVENTS,
        watch_bytes: int = WATCH_BYTES,
    ) -> None:
        self.retention = retention or Retention()
        self._ids_age = ids_age
        self._clock = clock
        self._wall = wall
        self._epoch = epoch or secrets.token_hex(8)
        self._streams: dict[str, _Stream] = {}
        self._watches = Watches(max_events=watch_events, max_bytes=watch_bytes)
        self._counts = Counts()
        self._closed = False

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        """Add events, all or none; see `Engine.append`."""
        self._check_open()
        prepared = prepare(events)
        log = self._streams.get(stream) or _Stream()
        try:
            _check_conflicts(log.ids, prepared)
        except IdConflict:
            self._counts.conflicts += len(prepared)
            raise
        if prepared:
            self._streams[stream] = log
        tails: dict[Lane, list[Prepared]] = {}
        before = {lane: log.lanes[lane].head for lane in LANES}
        receipts = [self._place(log, item, tails) for item in prepared]
        for lane, items in tails.items():
            self._watches.offer(list(pages(stream, lane, self._epoch, before[lane], items)))
        return receipts

    async def read(
        self, stream: str, lane: Lane, after: int, limit: int = PAGE_EVENTS, *, kept: bool = False
    ) -> Batch:
        """Read a page; see `Engine.read`."""
        self._check_open()
        check_limit(limit)
        known = self._streams.get(stream)
        log = known.lanes[lane] if known else _Log()
        start = max(log.trimmed, log.head + after) if after < 0 else after
        check_position(start, log.head, log.trimmed, self._epoch)
        entries: list[Entry] = []
        size = 0
        for offset in range(start + 1, min(start + limit, log.head) + 1):
            at, item = log.kept[offset]
            size += item.size + ENTRY_OVERHEAD
            if entries and size > PAGE_ROOM:
                break
            entries.append(Entry(offset, item.event, self._wall_time(at) if kept else None))
        return Batch(stream, lane, self._epoch, start, start + len(entries), tuple(entries))

    def watch(self) -> Watch:
        """Follow what is appended from now on; see `Engine.watch`."""
        return self._watches.open()

    async def describe(self, stream: str | None = None) -> Description:
        """Tell epoch, heads, trim marks and sizes; see `Engine.describe`."""
        self._check_open()
        chosen = self._streams if stream is None else {stream: self._streams.get(stream) or _Stream()}
        return Description(
            epoch=self._epoch,
            streams={name: {lane: log.lanes[lane].state() for lane in LANES} for name, log in chosen.items()},
        )

    async def trim(
        self,
        stream: str | None = None,
        lane: Lane | None = None,
        upto: int | None = None,
        *,
        dry_run: bool = False,
    ) -> int:
        """Apply retention or drop up to an offset, and forget old ids; see `Engine.trim`."""
        self._check_open()
        check_trim(stream, lane, upto, dry_run=dry_run)
        lanes = [
            log.lanes[which]
            for name, log in self._streams.items()
            if stream in {None, name}
            for which in LANES
            if lane in {None, which}
        ]
        if dry_run and upto is not None:
            return sum(max(0, min(upto, log.head) - log.trimmed) for log in lanes)
        gone = sum(self._trim_lane(log, upto) for log in lanes)
        self._counts.trimmed += gone
        if upto is None:
            for log in self._streams.values():
                self._counts.ids_swept += self._sweep(log)
        return gone

    async def aclose(self) -> None:
        """End the watches; the log goes with the engine."""
        self._closed = True
        self._watches.end()

    def statistics(self) -> MemoryStatistics:
        """Tell what was counted."""
        return MemoryStatistics(counts=self._counts, watches=len(self._watches), watch=self._watches.counts)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineUnavailable("the engine is closed", temporary=False)

    def _wall_time(self, at: float) -> int:
        """Give the Unix time in milliseconds of a moment of the clock."""
        return round((self._wall() - (self._clock() - at)) * 1000)

    def _place(self, log: _Stream, item: Prepared, tails: dict[Lane, list[Prepared]]) -> Receipt:
        event = item.event
        first = log.ids.get(item.identity)
        if first is not None:
            self._counts.duplicates += 1
            return Receipt(event.id, first.lane, Position(self._epoch, first.offset), duplicate=True)
        now = self._clock()
        offset = log.lanes[event.priority].add(now, item)
        log.ids[item.identity] = _First(item.fingerprint, event.priority, offset, now)
        tails.setdefault(event.priority, []).append(item)
        self._counts.appended += 1
        return Receipt(event.id, event.priority, Position(self._epoch, offset), duplicate=False)

    def _trim_lane(self, log: _Log, upto: int | None) -> int:
        before = log.trimmed
        if upto is not None:
            while log.kept and log.trimmed < upto:
                log.drop()
        else:
            now = self._clock()
            while log.exceeds(self.retention, now):
                log.drop()
        return log.trimmed - before

    def _sweep(self, log: _Stream) -> int:
        oldest = self._clock() - self._ids_age
        old = takewhile(lambda known: known[1].at < oldest, log.ids.items())
        swept = [identity for identity, first in old if first.offset <= log.lanes[first.lane].trimmed]
        for identity in swept:
            del log.ids[identity]
        return len(swept)


def _check_conflicts(ids: dict[bytes, _First], prepared: Sequence[Prepared]) -> None:
    fresh: dict[bytes, bytes] = {}
    for index, item in enumerate(prepared):
        first = ids.get(item.identity)
        known = first.fingerprint if first else fresh.setdefault(item.identity, item.fingerprint)
        if known != item.fingerprint:
            raise conflict(item, index)
