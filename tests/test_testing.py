"""The tools for tests: the clock stands still, and the engine fails just as it was told to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from steadcast.engines.memory import MemoryEngine
from steadcast.errors import EngineUnavailable, InvalidRequest
from steadcast.event import Event, Lane
from steadcast.testing import FaultProxy, FaultyEngine, ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from steadcast.engines.base import Engine


def event(name: str) -> Event:
    return Event(name, "test", "t", "2026-01-31T12:00:00Z", msgspec.Raw(b"{}"))


@pytest.fixture
async def engine() -> AsyncIterator[FaultyEngine]:
    faulty = FaultyEngine(MemoryEngine())
    yield faulty
    await faulty.aclose()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


async def ids(engine: Engine) -> list[str]:
    page = await engine.read("s", Lane.NORMAL, 0)
    return [entry.event.id for entry in page.events]


def test_a_manual_clock_moves_only_when_told_to() -> None:
    clock = ManualClock(5.0)
    assert (clock(), clock()) == (5.0, 5.0)
    assert clock.advance(1.5) == clock() == 6.5


def test_a_manual_clock_never_advances_backwards_but_may_jump() -> None:
    clock = ManualClock(5.0)
    with pytest.raises(ValueError, match="forwards"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="forwards"):
        clock.advance(float("nan"))
    assert clock.jump(-3_600) == -3_595


async def test_without_a_fault_everything_reaches_the_engine(engine: FaultyEngine) -> None:
    watch = engine.watch()
    receipts = await engine.append("s", [event("1"), event("2")])
    batch = await watch.__anext__()
    assert [receipt.id for receipt in receipts] == [e.event.id for e in batch.events] == await ids(engine)
    assert (await engine.describe("s")).streams["s"][Lane.NORMAL].head == 2
    assert await engine.trim("s", Lane.NORMAL, 1) == 1
    assert engine.dense is True
    assert engine.retention == engine.engine.retention
    await watch.aclose()


async def test_appends_fail_as_often_as_asked(engine: FaultyEngine) -> None:
    engine.fail_appends(2)
    for _ in range(2):
        with pytest.raises(EngineUnavailable):
            await engine.append("s", [event("1")])
    await engine.append("s", [event("1")])
    assert await ids(engine) == ["1"]
    assert (engine.counts["appends"], engine.counts["appends_failed"]) == (3, 2)


async def test_appends_fail_with_the_error_that_was_asked_for(engine: FaultyEngine) -> None:
    engine.fail_appends(error=InvalidRequest("no"))
    with pytest.raises(InvalidRequest):
        await engine.append("s", [event("1")])


async def test_a_full_disk_refuses_appends_and_still_reads(engine: FaultyEngine) -> None:
    await engine.append("s", [event("1")])
    engine.fill_disk()
    with pytest.raises(EngineUnavailable) as caught:
        await engine.append("s", [event("2")])
    assert (caught.value.code, caught.value.temporary) == ("engine_full", True)
    assert await ids(engine) == ["1"]


async def test_a_hanging_append_goes_on_when_it_is_freed(engine: FaultyEngine) -> None:
    engine.append_hangs = True
    append = asyncio.create_task(engine.append("s", [event("1")]))
    await until(lambda: engine.counts["appends_hung"])
    assert not append.done()
    engine.append_hangs = False
    assert len(await append) == 1


async def test_a_hanging_append_can_be_cancelled_and_leaves_nothing(engine: FaultyEngine) -> None:
    engine.append_hangs = True
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.append("s", [event("1")]), 0.01)
    engine.heal()
    assert await ids(engine) == []


async def test_a_slow_append_takes_longer(engine: FaultyEngine) -> None:
    engine.append_delay = 0.02
    started = asyncio.get_running_loop().time()
    await engine.append("s", [event("1")])
    assert asyncio.get_running_loop().time() - started >= 0.02


async def test_a_lost_answer_leaves_the_events_durable(engine: FaultyEngine) -> None:
    engine.answers_lost = True
    with pytest.raises(EngineUnavailable):
        await engine.append("s", [event("1")])
    engine.heal()
    [again] = await engine.append("s", [event("1")])
    assert again.duplicate
    assert engine.counts["answers_lost"] == 1


async def test_reads_fail_while_appends_work(engine: FaultyEngine) -> None:
    engine.read_error = EngineUnavailable("no reads")
    await engine.append("s", [event("1")])
    with pytest.raises(EngineUnavailable, match="no reads"):
        await ids(engine)
    assert engine.counts["reads_failed"] == 1


async def test_describe_and_trim_fail_on_request(engine: FaultyEngine) -> None:
    engine.describe_error = engine.trim_error = EngineUnavailable("no")
    with pytest.raises(EngineUnavailable):
        await engine.describe()
    with pytest.raises(EngineUnavailable):
        await engine.trim()


async def test_gone_away_means_every_method(engine: FaultyEngine) -> None:
    engine.go_away()
    calls: list[Any] = [engine.append("s", [event("1")]), ids(engine), engine.describe(), engine.trim()]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, EngineUnavailable) for outcome in outcomes)


async def test_a_silent_watch_drops_what_it_should_bring(engine: FaultyEngine) -> None:
    watch = engine.watch()
    engine.watch_silent = True
    following = asyncio.ensure_future(watch.__anext__())
    await engine.append("s", [event("1")])
    await until(lambda: engine.counts["batches_swallowed"])
    engine.watch_silent = False
    await engine.append("s", [event("2")])
    batch = await following
    assert [entry.event.id for entry in batch.events] == ["2"]
    await watch.aclose()


async def test_watches_end_on_request_and_new_ones_follow(engine: FaultyEngine) -> None:
    watch = engine.watch()
    following = asyncio.create_task(collect(watch))
    await engine.append("s", [event("1")])
    await until(lambda: engine.engine.statistics().watch.delivered)  # type: ignore[attr-defined]
    engine.end_watches()
    assert await following == ["1"]
    again = engine.watch()
    await engine.append("s", [event("2")])
    assert [entry.event.id for entry in (await again.__anext__()).events] == ["2"]
    await again.aclose()


async def test_a_cancelled_follower_leaves_no_task_behind(engine: FaultyEngine) -> None:
    before = len(asyncio.all_tasks())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.watch().__anext__(), 0.01)
    assert len(asyncio.all_tasks()) == before


async def test_the_clock_of_an_engine_jumps_with_the_clock_it_was_given() -> None:
    clock = ManualClock(1_000_000.0)
    engine = FaultyEngine(MemoryEngine(clock=clock))
    await engine.append("s", [event("1")])
    clock.jump(engine.retention.age + 1)
    assert await engine.trim() == 1
    await engine.aclose()


async def collect(watch: Any) -> list[str]:
    return [entry.event.id async for batch in watch for entry in batch.events]


async def test_a_half_open_connection_carries_nothing_not_even_its_end_and_a_new_one_works() -> None:
    ended: list[str] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        ended.append("the server's end")
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        old_reader, old_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        old_writer.write(b"before\n")
        assert await old_reader.readline() == b"before\n"
        assert proxy.half_open() == 1
        old_writer.write(b"lost\n")
        await until(lambda: proxy.counts["bytes_swallowed"] == 5)
        old_writer.close()
        new_reader, new_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        new_writer.write(b"after\n")
        assert await new_reader.readline() == b"after\n"
        assert ended == []
        assert proxy.half_open() == 1
        new_writer.close()
