"""The log of a simulated server: what is on the disk outlives it, what waits for the disk may not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from steadcast.engines.memory import MemoryEngine
from steadcast.errors import EngineUnavailable, SteadcastError
from steadcast.event import LANES, Batch, Event, Lane, Receipt
from steadcast.testing import FaultyEngine

if TYPE_CHECKING:
    from random import Random

    from steadcast.engines.base import Retention
    from tests.sim.world import World


class Disk(MemoryEngine):
    """The log that outlives every server. It writes down what it holds: that is what is durable."""

    def __init__(self, world: World, epoch: str, retention: Retention) -> None:
        super().__init__(
            epoch=epoch, clock=world.wall, retention=retention, watch_events=world.plan.limits.watch
        )
        self.world = world
        world.record.add("opened", epoch)

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        receipts = await super().append(stream, events)
        for receipt in receipts:
            if not receipt.duplicate:
                epoch, offset = receipt.position.epoch, receipt.position.offset
                self.world.record.add("kept", epoch, str(receipt.lane), offset, receipt.id)
        return receipts

    async def trim(self, stream: str | None = None, lane: Lane | None = None, upto: int | None = None) -> int:
        gone = await super().trim(stream, lane, upto)
        if gone:
            for each, log in self._streams[self.world.stream].lanes.items():
                self.world.record.add("dropped", self._epoch, str(each), log.trimmed)
        return gone

    async def copy_front(self, rng: Random, into: Disk) -> None:
        """Write the front of this log, up to anywhere, into another one: what a backup holds."""
        for lane in LANES:
            state = (await self.describe(self.world.stream)).streams[self.world.stream][lane]
            at, upto = state.trimmed, rng.randint(state.trimmed, state.head)
            while at < upto:
                page = await self.read(self.world.stream, lane, at, min(256, upto - at))
                await into.append(self.world.stream, [entry.event for entry in page.events])
                at = page.upto

    def counted(self) -> None:
        """Write down what became of what the watches were offered."""
        counts = self.statistics().watch
        gone = counts.overflowed + counts.abandoned
        self.world.record.add("buffer", "watch", counts.accepted, counts.pending, counts.delivered, gone)


class GroupCommit:
    """What one server process has between its callers and the disk: appends wait here for the next commit.

    A crash takes what waits, but for a front part that may just have reached the disk, unanswered.
    """

    def __init__(self, world: World, disk: Disk, rng: Random) -> None:
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

    async def trim(self, stream: str | None = None, lane: Lane | None = None, upto: int | None = None) -> int:
        self._check()
        return await self.disk.trim(stream, lane, upto)

    async def aclose(self) -> None:
        """Nothing to release: the disk goes on to the next server."""

    async def _nap(self) -> None:
        if self.rng.random() < 0.5 or self.slow > 1:
            await asyncio.sleep(self.rng.uniform(0.0, 0.02) * self.slow)

    def _check(self) -> None:
        if self.dead:
            raise EngineUnavailable("this process is dead")


class Log(FaultyEngine):
    """The engine that a simulated server is given: group commit over the disk, with faults."""

    def __init__(self, world: World, disk: Disk, rng: Random) -> None:
        self.commits = GroupCommit(world, disk, rng)
        super().__init__(self.commits)

    def heal(self) -> None:
        super().heal()
        self.commits.slow = 1.0
