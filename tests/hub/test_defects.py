"""A defect, in an engine or a connection, costs those whom it meets a moment: the hub's work goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from structlog.testing import capture_logs

from steadcast.engines.memory import MemoryEngine
from steadcast.errors import EngineRefused
from steadcast.event import Batch, Event, Lane
from steadcast.hub import Frame, Hub, Timing
from steadcast.hub.replay import READERS
from steadcast.wire import Ack, Subscribe

if TYPE_CHECKING:
    from steadcast.engines.base import Watch

QUICK = Timing(trim_every=0.01, look_every=0.02, behind_limit=0.05)


def event(n: int) -> Event:
    return Event(f"e{n}", "test", "t", "2026-01-01T00:00:00Z", msgspec.Raw(b"1"))


class Broken(MemoryEngine):
    """An engine that raises what no engine should, where it is told to."""

    def __init__(self) -> None:
        super().__init__(epoch="e1")
        self.breaks: set[str] = set()
        self.trims = 0

    def _meet(self, what: str) -> None:
        if what in self.breaks:
            raise RuntimeError(what)

    async def read(
        self, stream: str, lane: Lane, after: int, limit: int = 256, *, kept: bool = False
    ) -> Batch:
        self._meet(f"read {stream}")
        return await super().read(stream, lane, after, limit, kept=kept)

    async def trim(
        self,
        stream: str | None = None,
        lane: Lane | None = None,
        upto: int | None = None,
        *,
        dry_run: bool = False,
    ) -> int:
        self.trims += 1
        self._meet("trim")
        return await super().trim(stream, lane, upto, dry_run=dry_run)

    def watch(self) -> Watch:
        self._meet("watch")
        return super().watch()


class Listener:
    def __init__(self, hub: Hub, *, broken: bool = False) -> None:
        self.id = "listener"
        self.hub, self.broken = hub, broken
        self.offsets: list[int] = []
        hub.enter(self)

    def write(self, frame: Frame) -> None:
        if self.broken:
            raise RuntimeError("a connection that can't be written to")
        batch = frame.batch
        self.offsets += [entry.offset for entry in batch.events]
        ack = Ack(batch.stream, batch.lane, batch.epoch, batch.upto)
        asyncio.get_running_loop().call_soon(self.hub.take_ack, self, ack)

    def kick(self, error: Exception) -> None:
        raise error

    async def join(self, stream: str = "s") -> None:
        _, session = await self.hub.subscribe(self, Subscribe(stream, {}, None))
        self.hub.begin(session)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)


async def test_a_read_that_fails_by_a_defect_takes_no_reader_away() -> None:
    engine = Broken()
    hub = Hub(engine, timing=QUICK)
    await hub.start()
    await hub.append("s", [event(1)])
    await hub.append("bad", [event(1)])
    engine.breaks = {"read bad"}
    hit = [Listener(hub) for _ in range(2 * READERS)]
    for each in hit:
        await each.join("bad")
        await until(lambda: hub.counts["reads_failed"] >= 1)
        hub.counts["reads_failed"] = 0
    well = Listener(hub)
    await well.join()
    await until(lambda: well.offsets == [1])
    engine.breaks = set()
    await until(lambda: all(each.offsets == [1] for each in hit))
    await hub.aclose()


async def test_reads_that_fail_for_one_reason_are_a_line_in_ten_seconds_however_many_they_are() -> None:
    now = [100.0]
    engine = Broken()
    hub = Hub(engine, timing=QUICK, clock=lambda: now[0])
    await hub.start()
    names = [f"s{n}" for n in range(20)]
    for name in names:
        await hub.append(name, [event(1)])
    engine.breaks = {f"read {name}" for name in names}
    listener = Listener(hub)
    with capture_logs() as logs:
        for name in names:
            await listener.join(name)
        await until(lambda: hub.counts["reads_failed"] >= 2 * len(names))
        told = [line for line in logs if line["event"] == "reading the log failed"]
        assert [line["untold"] for line in told] == [0]
        now[0] += 10
        failed = hub.counts["reads_failed"]
        await until(lambda: hub.counts["reads_failed"] > failed)
    last = [line for line in logs if line["event"] == "reading the log failed"][-1]
    assert last["untold"] == failed - 1
    await hub.aclose()


async def test_a_read_that_the_log_refuses_is_told_in_its_words() -> None:
    class Damaged(Broken):
        def _meet(self, what: str) -> None:
            if what in self.breaks:
                raise EngineRefused("event 1 is damaged", code="engine_invalid")

    engine = Damaged()
    hub = Hub(engine, timing=QUICK)
    await hub.start()
    await hub.append("s", [event(1)])
    engine.breaks = {"read s"}
    with capture_logs() as logs:
        await Listener(hub).join("s")
        await until(lambda: hub.counts["reads_failed"])
    [told] = [line for line in logs if line["event"] == "reading the log failed"]
    assert (told["code"], told["detail"]) == ("engine_invalid", "event 1 is damaged")
    await hub.aclose()


async def test_a_connection_that_fails_in_its_write_costs_the_others_of_its_page_nothing() -> None:
    hub = Hub(Broken(), timing=QUICK)
    await hub.start()
    await hub.append("s", [event(1)])
    listeners = [Listener(hub, broken=n == 0) for n in range(3)]
    await asyncio.gather(*(each.join() for each in listeners))
    await until(lambda: all(each.offsets == [1] for each in listeners[1:]))
    assert hub.counts["writes_failed"]
    await hub.aclose()


async def test_trimming_goes_on_after_a_round_that_failed_by_a_defect() -> None:
    engine = Broken()
    engine.breaks = {"trim"}
    hub = Hub(engine, timing=QUICK)
    await hub.start()
    await until(lambda: engine.trims >= 3)
    assert hub.counts["jobs_failed"] >= 2
    await hub.aclose()


async def test_the_engine_is_followed_anew_after_a_defect_of_its_watch() -> None:
    engine = Broken()
    engine.breaks = {"watch"}
    hub = Hub(engine, timing=QUICK)
    await hub.start()
    await until(lambda: hub.counts["watch_ended"])
    engine.breaks = set()
    listener = Listener(hub)
    await listener.join()
    await hub.append("s", [event(1)])
    await until(lambda: listener.offsets == [1])
    await hub.aclose()
