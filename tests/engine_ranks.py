"""JetStream's positions as counts: sequences have holes, and the contract counts from 1.

Every position that such an engine tells must be that of an event of the lane, or 0: a position between two
events would have no count, and fails the test that met it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from steadcast.engines.base import Description, LaneState
from steadcast.engines.jetstream import JetStreamEngine
from steadcast.errors import PositionLost
from steadcast.event import Batch, Entry, Event, Lane, Position, Receipt


class Ranks:
    """The offsets of every event that a log ever held, by lane. It outlives the engines of its log."""

    def __init__(self) -> None:
        self.offsets: dict[tuple[str, Lane], list[int]] = defaultdict(list)

    def learn(self, engine: JetStreamEngine) -> None:
        index = engine._log.index
        for name, lane in list(index.lanes.items()):
            known = self.offsets[name]
            known += [row.seq for row in index.rows(lane, known[-1] if known else 0, 1_000_000)]

    def rank(self, stream: str, lane: Lane, offset: int) -> int:
        known = self.offsets[stream, lane]
        rank = bisect_right(known, offset)
        assert offset == (known[rank - 1] if rank else 0), f"{offset} is no event's offset: {known}"
        return rank

    def offset(self, stream: str, lane: Lane, rank: int) -> int:
        known = self.offsets[stream, lane]
        if rank <= 0:
            return rank
        return known[rank - 1] if rank <= len(known) else (known[-1] if known else 0) + rank - len(known)


class RankedWatch:
    def __init__(self, engine: RankedEngine) -> None:
        self._engine = engine
        self._watch = engine.inner.watch()

    def __aiter__(self) -> RankedWatch:
        return self

    async def __anext__(self) -> Batch:
        return self._engine.ranked(await anext(self._watch))

    async def aclose(self) -> None:
        await self._watch.aclose()


class RankedEngine:
    """A JetStream engine whose offsets are counts."""

    def __init__(self, inner: JetStreamEngine, ranks: Ranks) -> None:
        self.inner = inner
        self.ranks = ranks
        self._closed = False
        self._close_log = inner._log.aclose
        # What was under way when an engine closes is answered before its index goes.
        inner._log.aclose = self._learn_and_close  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def ranked(self, batch: Batch) -> Batch:
        self._learn()
        stream, lane = batch.stream, batch.lane
        entries = tuple(Entry(self.ranks.rank(stream, lane, e.offset), e.event, e.kept) for e in batch.events)
        after, upto = (self.ranks.rank(stream, lane, offset) for offset in (batch.after, batch.upto))
        return Batch(stream, lane, batch.epoch, after, upto, entries)

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        receipts = await self.inner.append(stream, events)
        self._learn()
        return [
            Receipt(r.id, r.lane, Position(r.position.epoch, self._rank(stream, r.lane, r)), r.duplicate)
            for r in receipts
        ]

    async def read(
        self, stream: str, lane: Lane, after: int, limit: int = 256, *, kept: bool = False
    ) -> Batch:
        try:
            start = self.ranks.offset(stream, lane, after)
            page = await self.inner.read(stream, lane, start, limit, kept=kept)
        except PositionLost as error:
            self._learn()
            if error.lost is not None:
                first, last = error.lost
                error.lost = (
                    self.ranks.rank(stream, lane, first - 1) + 1,
                    self.ranks.rank(stream, lane, last),
                )
            raise
        return self.ranked(page)

    def watch(self) -> RankedWatch:
        return RankedWatch(self)

    async def describe(self, stream: str | None = None) -> Description:
        told = await self.inner.describe(stream)
        self._learn()
        return Description(
            epoch=told.epoch,
            streams={
                name: {lane: self._state(name, lane, state) for lane, state in lanes.items()}
                for name, lanes in told.streams.items()
            },
        )

    async def trim(
        self,
        stream: str | None = None,
        lane: Lane | None = None,
        upto: int | None = None,
        *,
        dry_run: bool = False,
    ) -> int:
        if stream is not None and lane is not None and upto is not None:
            upto = self.ranks.offset(stream, lane, upto)
        return await self.inner.trim(stream, lane, upto, dry_run=dry_run)

    async def _learn_and_close(self) -> None:
        self._learn()
        self._closed = True
        await self._close_log()

    def _learn(self) -> None:
        if not self._closed:
            self.ranks.learn(self.inner)

    def _rank(self, stream: str, lane: Lane, receipt: Receipt) -> int:
        return self.ranks.rank(stream, lane, receipt.position.offset)

    def _state(self, stream: str, lane: Lane, state: LaneState) -> LaneState:
        return LaneState(
            head=self.ranks.rank(stream, lane, state.head),
            trimmed=self.ranks.rank(stream, lane, state.trimmed),
            events=state.events,
            bytes=state.bytes,
        )
