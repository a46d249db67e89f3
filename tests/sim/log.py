"""The log of a simulated server: what is on the disk outlives it, what waits for the disk may not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

from steadcast.engines.base import Engine, LaneState
from steadcast.engines.memory import MemoryEngine
from steadcast.errors import EngineUnavailable, SteadcastError
from steadcast.event import LANES, Batch, Event, Lane, Receipt
from steadcast.testing import FaultyEngine
from tests.sim.names import within

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from tests.sim.world import World


class Kept(MemoryEngine):
    """One log in memory. It writes down what it holds: that is what is durable."""

    def __init__(self, world: World) -> None:
        self.epoch = world.new_epoch()
        watch = world.plan.limits.watch
        super().__init__(epoch=self.epoch, clock=world.wall, retention=world.retention, watch_events=watch)
        self.world = world
        world.record.add("opened", self.epoch)

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        receipts = await super().append(stream, events)
        for receipt in receipts:
            if not receipt.duplicate:
                epoch, offset = receipt.position.epoch, receipt.position.offset
                lane = within(stream, receipt.lane)
                self.world.record.add("kept", epoch, lane, offset, within(stream, receipt.id))
        return receipts

    async def trim(
        self,
        stream: str | None = None,
        lane: Lane | None = None,
        upto: int | None = None,
        *,
        dry_run: bool = False,
    ) -> int:
        gone = await super().trim(stream, lane, upto, dry_run=dry_run)
        if gone:
            for name, log in self._streams.items():
                for each, state in log.lanes.items():
                    self.world.record.add("dropped", self.epoch, within(name, each), state.trimmed)
        return gone

    def state(self, stream: str, lane: Lane) -> LaneState:
        log = self._streams.get(stream)
        return log.lanes[lane].state() if log else LaneState()

    async def copy_front(self, rng: Random, into: Kept) -> None:
        """Write the front of this log, up to anywhere, into another one: what a backup holds."""
        for stream, lane in product(self.world.streams, LANES):
            state = self.state(stream, lane)
            at, upto = state.trimmed, rng.randint(state.trimmed, state.head)
            while at < upto:
                page = await self.read(stream, lane, at, min(256, upto - at))
                await into.append(stream, [entry.event for entry in page.events])
                at = page.upto

    def counted(self) -> None:
        """Write down what became of what the watches were offered."""
        counts = self.statistics().watch
        gone = counts.overflowed + counts.abandoned
        self.world.record.add("buffer", "watch", counts.accepted, counts.pending, counts.delivered, gone)


class Disk:
    """What outlives every server: a log in memory."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.log = Kept(world)

    @property
    def epoch(self) -> str:
        return self.log.epoch

    def engine(self, rng: Random) -> GroupCommit:
        """Give the engine of one server."""
        return GroupCommit(self.world, self.log, rng)

    def heads(self) -> dict[tuple[str, Lane], int]:
        """Look where every lane ends."""
        lanes = product(self.world.streams, LANES)
        return {(stream, lane): self.log.state(stream, lane).head for stream, lane in lanes}

    async def backup(self) -> Path | None:
        """Do nothing yet: what a backup has is drawn when it is restored."""
        return None

    async def restore(self, _backup: Path | None, rng: Random) -> None:
        """Go on with the front of the log under a new epoch, once no server has it."""
        old, self.log = self.log, Kept(self.world)
        await old.copy_front(rng, self.log)
        old.counted()

    def counted(self) -> None:
        self.log.counted()

    def close(self) -> None:
        """Nothing to let go of."""


class GroupCommit:
    """What one server process has between its callers and the disk: appends wait here for the next commit.

    A crash takes what waits, but for a front part that may just have reached the disk, unanswered.
    """

    def __init__(self, world: World, disk: Kept, rng: Random) -> None:
        self.retention, self.dense = disk.retention, disk.dense
        self.world, self.disk, self.rng = world, disk, rng
        self.staged: list[tuple[str, Sequence[Event], asyncio.Future[list[Receipt]]]] = []
        self.committing: asyncio.Task[None] | None = None
        self.slow = 1.0
        self.dead = False

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        self._check()
        answer: asyncio.Future[list[Receipt]] = self.world.loop.create_future()
        self.staged.append((stream, events, answer))
        if self.committing is None:
            self.committing = self.world.loop.create_task(self._commit())
        return await answer

    async def _commit(self) -> None:
        while self.staged:
            await asyncio.sleep(self.rng.uniform(0.001, 0.02) * self.slow)
            group, self.staged = self.staged, []
            for stream, events, answer in group:
                await self._write(stream, events, answer)
        self.committing = None

    async def _write(self, stream: str, events: Sequence[Event], answer: asyncio.Future[Any]) -> None:
        try:
            receipts = await self.disk.append(stream, events)
        except SteadcastError as error:
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(receipts)

    async def crash(self) -> int:
        """Die; tells how many appends were waiting, of which any number from the front is on the disk."""
        self.dead = True
        if self.committing is not None:
            self.committing.cancel()
        staged, self.staged = self.staged, []
        for stream, events, answer in staged[: self.rng.randint(0, len(staged))]:
            answer.cancel()
            await self.disk.append(stream, events)
        for _, _, answer in staged:
            answer.cancel()
        return len(staged)

    async def read(
        self, stream: str, lane: Lane, after: int, limit: int = 256, *, kept: bool = False
    ) -> Batch:
        self._check()
        await self._nap()
        page = await self.disk.read(stream, lane, after, limit, kept=kept)
        await self._nap()
        return page

    async def describe(self, stream: str | None = None) -> Any:
        self._check()
        await self._nap()
        found = await self.disk.describe(stream)
        await self._nap()
        return found

    def watch(self) -> Any:
        return self.disk.watch()

    async def trim(
        self,
        stream: str | None = None,
        lane: Lane | None = None,
        upto: int | None = None,
        *,
        dry_run: bool = False,
    ) -> int:
        self._check()
        return await self.disk.trim(stream, lane, upto, dry_run=dry_run)

    async def aclose(self) -> None:
        """Nothing to release: the disk goes on to the next server."""

    async def _nap(self) -> None:
        if self.rng.random() < 0.5 or self.slow > 1:
            await asyncio.sleep(self.rng.uniform(0.0, 0.02) * self.slow)

    def _check(self) -> None:
        if self.dead:
            raise EngineUnavailable("this process is dead")


class Crashing(Engine, Protocol):
    """An engine that can be slow, and dies with its server."""

    slow: float

    async def crash(self) -> int:
        """Die; tells how many appends were waiting."""
        ...


class Log(FaultyEngine):
    """The engine that a simulated server is given, with faults before it."""

    def __init__(self, commits: Crashing) -> None:
        self.commits = commits
        super().__init__(commits)

    def heal(self) -> None:
        super().heal()
        self.commits.slow = 1.0
