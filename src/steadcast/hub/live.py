"""The live way: what the engine's watch brings is encoded once and written to the live flows of its group."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from steadcast.core.paging import merge, split
from steadcast.errors import SteadcastError
from steadcast.hub.frame import Frame
from steadcast.hub.replay import RETRY_READ
from steadcast.plain_log import plain_log
from steadcast.tracer import NO_TRACER
from steadcast.wire import PAGE_BYTES, PAGE_EVENTS, size_of

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from steadcast.core.session import Group
    from steadcast.engines.base import Description, Engine
    from steadcast.event import Batch
    from steadcast.hub.groups import Groups
    from steadcast.hub.replay import Replay
    from steadcast.tracer import Tracer

log = plain_log("steadcast.hub")


class _Pending:
    """What of one group waits for its flush."""

    __slots__ = ("_bytes", "_events", "batches", "timer")

    def __init__(self, timer: asyncio.Handle) -> None:
        self.timer = timer
        self.batches: list[Batch] = []  # bounded by `full`
        self._events = 0
        self._bytes = 0

    def add(self, batch: Batch) -> None:
        self.batches.append(batch)
        self._events += len(batch.events)
        self._bytes += sum(size_of(entry.event) for entry in batch.events)

    @property
    def full(self) -> bool:
        """Whether a page is full, or so many bookmarks came that their number counts."""
        return max(self._events, len(self.batches)) >= PAGE_EVENTS or self._bytes >= PAGE_BYTES


class Live:
    """Follows the engine, and watches that the groups keep up with its heads."""

    def __init__(
        self,
        engine: Engine,
        groups: Groups,
        replay: Replay,
        counts: Counter[str],
        clock: Callable[[], float],
        *,
        behind_limit: float,
        flush_window: float,
        saw: Callable[[Batch | None], None] | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """Follow `engine`; a group may stay `behind_limit` seconds behind its head. `clock` is monotonic.

        A group is flushed at most every `flush_window` seconds, or in every step of the loop where it is 0.
        `saw` is given every batch of the watch, and None where the watch begins anew; `tracer` follows each
        flush.
        """
        self._engine = engine
        self._groups = groups
        self._replay = replay
        self._counts = counts
        self._clock = clock
        self._behind_limit = behind_limit
        self._flush_window = flush_window
        self._pending: dict[Group, _Pending] = {}
        self._flushed: WeakKeyDictionary[Group, float] = WeakKeyDictionary()
        self._saw = saw or (lambda _: None)
        self._tracer = tracer
        self._watch: asyncio.Task[None] | None = None
        self._behind: dict[Group, tuple[int, float]] = {}

    def start(self) -> None:
        """Follow the engine from now on; anew where it was followed already."""
        if self._watch is not None:
            self._watch.cancel()
        self._watch = asyncio.create_task(self._follow(), name="steadcast-watch")

    async def aclose(self) -> None:
        """Follow no longer."""
        for pending in self._pending.values():
            pending.timer.cancel()
        self._pending.clear()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            try:
                watch = self._engine.watch()
                self._saw(None)
                async for batch in watch:
                    self._saw(batch)
                    self._gather(batch)
            except SteadcastError as error:
                log.warning("following the engine failed", code=error.code)
            except Exception:
                self._counts["watch_failed"] += 1
                log.exception("following the engine failed by a defect; it is followed anew")
            self._counts["watch_ended"] += 1
            await asyncio.sleep(RETRY_READ)

    # The flush window

    def _gather(self, batch: Batch) -> None:
        """Keep a batch until its group's flush: at once where the last one is older than the window.

        What comes within the window goes out at its end, together; a full page doesn't wait.
        """
        group = self._groups.get(batch.stream, batch.lane)
        if group is None:
            return
        pending = self._pending.get(group)
        if pending is None:
            pending = self._pending[group] = _Pending(self._timer(group))
        pending.add(batch)
        if pending.full:
            self._flush(group)

    def _timer(self, group: Group) -> asyncio.Handle:
        loop = asyncio.get_running_loop()
        since = self._clock() - self._flushed.get(group, float("-inf"))
        if since >= self._flush_window:
            return loop.call_soon(self._flush, group)
        return loop.call_later(self._flush_window - since, self._flush, group)

    def _flush(self, group: Group) -> None:
        pending = self._pending.pop(group)
        pending.timer.cancel()
        if self._groups.get(group.stream, group.lane) is group:
            self._flushed[group] = self._clock()
            for batch in merge(pending.batches):
                self._take(group, batch)

    def _take(self, group: Group, batch: Batch) -> None:
        if group.epoch == "":
            group.epoch, group.position = batch.epoch, batch.upto
        elif batch.epoch != group.epoch or batch.after > group.position:
            self._miss(group, batch.epoch, batch.upto)
        elif batch.upto > group.position:
            for part in split(batch, group.position):
                self._spread(group, part)
        self._wake(group)

    def _spread(self, group: Group, batch: Batch) -> None:
        """Write a batch to every live flow of its group."""
        frame = Frame(batch)
        events = len(batch.events)
        lagging = group.room_for(events, frame.size)
        group.advance(self._clock(), batch.upto, events, frame.size)
        self._counts["deliveries"] += events * len(group.flows)
        self._counts["flushes"] += 1
        with self._tracer.deliver(batch, len(group.flows)):
            for way, targets in list(group.targets.items()):
                # A copy: a transport that is full takes its flow out of the group while it is written to.
                way.write(frame, list(targets.values()))
        self._counts["lagging"] += len(lagging)
        for flow in lagging:
            flow.settle()
            self._replay.pump(flow)

    def _miss(self, group: Group, epoch: str, position: int) -> None:
        self._counts["missed"] += 1
        changed = epoch != group.epoch
        for flow in group.miss(epoch, position):
            if changed:
                flow.restart(epoch, 0)
            self._replay.pump(flow)

    def _wake(self, group: Group) -> None:
        """Let flows go on that stood ahead of their group."""
        for flow in self._groups.woken(group):
            self._replay.pump(flow)

    # The watchdog

    async def look(self) -> None:
        """Compare the groups with the engine's heads; a group that stays behind gets the watch restarted."""
        if not self._groups:
            return
        description = await self._engine.describe()
        now = self._clock()
        groups = dict.fromkeys(self._groups)
        self._behind = {group: since for group, since in self._behind.items() if group in groups}
        stuck = [group for group in groups if self._stays_behind(group, description, now)]
        if stuck:
            self._counts["watch_restarts"] += 1
            log.warning("the watch fell silent; following the engine anew", groups=len(stuck))
            self._behind.clear()
            self.start()
            for group in stuck:
                self._miss(group, description.epoch, _head(group, description))
                self._wake(group)

    def _stays_behind(self, group: Group, description: Description, now: float) -> bool:
        head = _head(group, description)
        if group.epoch in {"", description.epoch} and head <= group.position:
            self._behind.pop(group, None)
            return False
        position, since = self._behind.setdefault(group, (group.position, now))
        if position != group.position:
            self._behind[group] = (group.position, now)
            return False
        return now - since >= self._behind_limit


def _head(group: Group, description: Description) -> int:
    states = description.streams.get(group.stream)
    return states[group.lane].head if states else 0
