"""Requests for one stream that a connection sends without waiting: the one that came last counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from steadcast.engines.base import Description
from steadcast.engines.memory import MemoryEngine
from steadcast.event import Batch, Event, Lane
from steadcast.hub import Frame, Hub
from steadcast.wire import Ack, Subscribe


def events(first: int, last: int) -> Sequence[Event]:
    return [
        Event(f"e{n}", "test", "t", "2026-01-01T00:00:00Z", msgspec.Raw(b"1")) for n in range(first, last + 1)
    ]


class Slow(MemoryEngine):
    """A log whose looks and reads wait until they are let go."""

    def __init__(self) -> None:
        super().__init__(epoch="e1")
        self.looks, self.reads = asyncio.Event(), asyncio.Event()
        self.asked = asyncio.Event()
        self.looks.set()
        self.reads.set()

    async def describe(self, stream: str | None = None) -> Description:
        self.asked.set()
        await self.looks.wait()
        return await super().describe(stream)

    async def read(
        self, stream: str, lane: Lane, after: int, limit: int = 256, *, kept: bool = False
    ) -> Batch:
        self.asked.set()
        await self.reads.wait()
        return await super().read(stream, lane, after, limit, kept=kept)


class Listener:
    def __init__(self, hub: Hub) -> None:
        self.id = "listener"
        self.hub = hub
        self.frames: list[Frame] = []
        hub.enter(self)

    def write(self, frame: Frame) -> None:
        self.frames.append(frame)
        batch = frame.batch
        ack = Ack(batch.stream, batch.lane, batch.epoch, batch.upto)
        asyncio.get_running_loop().call_soon(self.hub.take_ack, self, ack)

    def kick(self, error: Exception) -> None:
        raise error

    async def join(self, last: int | None = 0) -> None:
        answers, session = await self.hub.subscribe(self, Subscribe("s", {}, last))
        assert set(answers) == set(Lane), "it is answered whatever came behind it"
        self.hub.begin(session)

    def offsets(self) -> list[int]:
        return [entry.offset for frame in self.frames for entry in frame.batch.events]


@pytest.fixture
async def engine() -> Slow:
    return Slow()


@pytest.fixture
async def hub(engine: Slow) -> AsyncIterator[Hub]:
    running = Hub(engine)
    await running.start()
    yield running
    await running.aclose()


async def until_asked(engine: Slow) -> None:
    await asyncio.wait_for(engine.asked.wait(), 30)
    engine.asked.clear()


async def test_an_unsubscribe_ends_the_subscribe_before_it_that_is_not_answered_yet(
    hub: Hub, engine: Slow
) -> None:
    listener, other = Listener(hub), Listener(hub)
    engine.looks.clear()
    joining = asyncio.create_task(listener.join())
    await until_asked(engine)
    hub.unsubscribe(listener, "s")
    engine.looks.set()
    await joining
    assert hub.sessions(listener) == {}
    await other.join()
    await hub.append("s", events(1, 3))
    async with asyncio.timeout(30):
        while other.offsets() != [1, 2, 3]:
            await asyncio.sleep(0.002)
    assert listener.frames == []
    hub.unsubscribe(other, "s")
    assert hub.statistics()["groups"] == 0, "nothing is held for it"


async def test_an_unsubscribe_ends_a_subscribe_that_waits_for_its_turn(hub: Hub) -> None:
    listener, turn = Listener(hub), asyncio.Event()

    async def enter() -> None:
        await turn.wait()

    joining = asyncio.create_task(hub.subscribe(listener, Subscribe("s", {}, 0), enter))
    await asyncio.sleep(0)
    hub.unsubscribe(listener, "s")
    turn.set()
    await joining
    assert hub.sessions(listener) == {}
    assert hub.statistics()["groups"] == 0, "nothing is held for it"


async def test_of_two_subscribes_the_later_one_counts_whichever_is_ready_first(
    hub: Hub, engine: Slow
) -> None:
    await hub.append("s", events(1, 9))
    listener = Listener(hub)
    engine.reads.clear()
    first = asyncio.create_task(listener.join(2))  # reads, to find out where that is
    await until_asked(engine)
    await listener.join(None)
    engine.reads.set()
    await first
    async with asyncio.timeout(30):
        while len(listener.offsets()) < 9:
            await asyncio.sleep(0.002)
    assert listener.offsets() == list(range(1, 10))
    assert hub.counts["subscribes_overtaken"] == 1
