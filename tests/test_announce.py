"""New streams are announced once, in `steadcast.streams`, whatever happens to the server or the log."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
from structlog.testing import capture_logs

from steadcast import announce as module
from steadcast.announce import CREATED, STREAM, Announcements
from steadcast.app import Steadcast
from steadcast.engines.memory import MemoryEngine
from steadcast.event import Batch, Entry, Event, Lane
from steadcast.testing import FaultyEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from steadcast.event import Receipt

NOW = "2026-02-01T00:00:00Z"


def event(name: str, lane: Lane = Lane.NORMAL) -> Event:
    return Event(name, "test", "order.paid", NOW, msgspec.Raw(b"1"), lane)


async def announced(engine: FaultyEngine) -> list[Event]:
    page = await engine.engine.read(STREAM, Lane.NORMAL, 0, 256)
    return [entry.event for entry in page.events]


async def names(engine: FaultyEngine) -> list[str]:
    return [each.id for each in await announced(engine)]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def announcing(engine: FaultyEngine) -> AsyncIterator[Announcements]:
    """Announce what the engine's watch gives, as the hub does."""
    announcements = Announcements(engine, now=lambda: NOW, retry=0.01)
    watch = engine.watch()

    async def follow() -> None:
        async for batch in watch:
            announcements.saw(batch)

    following = asyncio.create_task(follow())
    announcements.start()
    try:
        yield announcements
    finally:
        await announcements.aclose()
        await watch.aclose()
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


@pytest.fixture
def engine() -> FaultyEngine:
    return FaultyEngine(MemoryEngine(epoch="e1"))


async def test_a_stream_is_announced_when_its_first_event_is_in_the_log(engine: FaultyEngine) -> None:
    async with announcing(engine) as announcements:
        await engine.append("orders", [event("a")])
        await until(lambda: announcements.counts["announced"] == 1)
    [told] = await announced(engine)
    assert (told.id, told.type, told.subject, told.time) == ("orders", CREATED, "orders", NOW)
    assert msgspec.json.decode(told.data) == {"stream": "orders"}


async def test_more_events_and_the_other_lane_announce_nothing_more(engine: FaultyEngine) -> None:
    async with announcing(engine) as announcements:
        await engine.append("orders", [event("a"), event("b")])
        await engine.append("orders", [event("c")])
        await engine.append("orders", [event("d", Lane.CRITICAL)])
        await engine.append("last", [event("e")])
        await until(lambda: announcements.counts["announced"] == 2)
    assert await names(engine) == ["orders", "last"]


async def test_the_systems_own_streams_are_not_announced(engine: FaultyEngine) -> None:
    async with announcing(engine) as announcements:
        await engine.append("steadcast.dead", [event("a")])
        await engine.append("orders", [event("a")])
        await until(lambda: announcements.counts["announced"] == 1)
    assert await names(engine) == ["orders"]


async def test_what_was_made_while_nobody_announced_is_announced_at_the_start_and_once(
    engine: FaultyEngine,
) -> None:
    for stream in ("a", "b", "c"):
        await engine.append(stream, [event("x")])
    await engine.describe("asked-for-only")
    async with announcing(engine) as announcements:
        await until(lambda: announcements.counts["announced"] == 3)
    async with announcing(engine) as announcements:
        await engine.append("d", [event("x")])
        await until(lambda: announcements.counts["announced"] == 1)
        assert announcements.counts["known"] <= 1, "only d may be both seen and looked up"
    assert await names(engine) == ["a", "b", "c", "d"]


async def test_a_log_that_is_away_delays_announcements_and_loses_none(engine: FaultyEngine) -> None:
    async with announcing(engine) as announcements:
        await engine.append("a", [event("x")])
        await until(lambda: announcements.counts["announced"] == 1)
        await engine.engine.append("b", [event("x")])
        engine.fail_appends()
        await until(lambda: announcements.counts["failed"] > 1)
        engine.heal()
        await until(lambda: announcements.counts["announced"] == 2)
    assert await names(engine) == ["a", "b"]


async def test_a_defect_of_one_round_ends_no_later_one(engine: FaultyEngine) -> None:
    async with announcing(engine) as announcements:
        append, failures = announcements.append, iter([RuntimeError("a defect")])

        async def broken(stream: str, events: Sequence[Event]) -> list[Receipt]:
            for failure in failures:
                raise failure
            return await append(stream, events)

        announcements.append = broken
        await engine.append("a", [event("1")])
        await until(lambda: announcements.counts["announced"] == 1)
        await engine.append("b", [event("1")])
        await until(lambda: announcements.counts["announced"] == 2)
        assert announcements.counts["failed"] == 1
        assert await names(engine) == ["a", "b"]


async def test_names_that_found_no_room_are_looked_up_and_counted(
    engine: FaultyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING", 2)
    async with announcing(engine) as announcements:
        await engine.append("a", [event("x")])
        await until(lambda: announcements.counts["announced"] == 1)
        engine.append_hangs = True
        for stream in ("b", "c", "d", "e"):
            await engine.engine.append(stream, [event("x")])
        await until(lambda: announcements.counts["overflowed"] == 2)
        engine.heal()
        await until(lambda: announcements.counts["announced"] == 5)
    assert sorted(await names(engine)) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("gap", [Batch("seen", Lane.NORMAL, "e1", 7, 7, ()), None])
async def test_a_gap_in_the_watch_is_made_up_from_the_log(engine: FaultyEngine, gap: Batch | None) -> None:
    announcements = Announcements(engine, now=lambda: NOW)
    announcements.start()
    await asyncio.sleep(0)
    await until(lambda: not announcements._incomplete)
    await engine.append("unseen", [event("x")])
    announcements.saw(gap)
    await until(lambda: announcements.counts["announced"] == 1)
    await announcements.aclose()
    assert await names(engine) == ["unseen"]


async def test_what_the_log_refuses_for_good_holds_nothing_up(engine: FaultyEngine) -> None:
    await engine.append(STREAM, [Event("orders", module.SOURCE, "another", NOW, msgspec.Raw(b"1"))])
    announcements = Announcements(engine, now=lambda: NOW)
    announcements.start()
    first = (Entry(1, event("x")),)
    announcements.saw(Batch("orders", Lane.NORMAL, "e1", 0, 1, first))
    await until(lambda: announcements.counts["refused"] == 1)
    announcements.saw(Batch("more", Lane.NORMAL, "e1", 0, 1, first))
    await until(lambda: announcements.counts["announced"] == 1)
    await announcements.aclose()
    assert announcements.counts["refused"] == 1


async def test_a_log_that_is_away_is_told_once_and_again_when_it_fails_anew(engine: FaultyEngine) -> None:
    async def fail_for_a_while() -> None:
        enough = announcements.counts["failed"] + 4
        engine.go_away()
        announcements.saw(None)
        await until(lambda: announcements.counts["failed"] >= enough)
        engine.heal()
        await until(lambda: not announcements._incomplete and not announcements._failing)

    with capture_logs() as lines:
        async with announcing(engine) as announcements:
            await fail_for_a_while()
            await fail_for_a_while()
    told = [line["code"] for line in lines if "could not be announced" in line["event"]]
    assert told == ["engine_unavailable"] * 2


async def test_the_server_tells_of_a_stream_when_it_appears(engine: FaultyEngine) -> None:
    async with Steadcast(engine=engine) as cast:
        await cast.publish("orders", type="order.paid", data=1)
        await until(lambda: cast.announcements.counts["announced"] == 1)
        told = cast.context.stats()["announcements"]
        assert isinstance(told, dict)
        assert told["announced"] == 1
    assert await names(engine) == ["orders"]
