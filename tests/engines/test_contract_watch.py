"""What every engine promises to those who follow it, and how it ends. Runs against each kind of engine."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from steadcast.engines.base import PAGE_BYTES, PAGE_EVENTS
from steadcast.errors import EngineUnavailable, IdConflict
from steadcast.event import Lane
from tests.engine_backends import CRITICAL, NORMAL, Backend, event, events, ids, read_all, size

# Watching


async def test_a_watch_gets_what_is_appended_after_it_began_in_order(engine: Any) -> None:
    await engine.append("s", [event("before")])
    watch = engine.watch()
    await engine.append("s", events(range(3)) + events(range(3, 5), lane=CRITICAL))
    await engine.append("s", [event("before"), event("after")])
    seen: dict[Lane, list[str]] = {CRITICAL: [], NORMAL: []}
    upto = {CRITICAL: 0, NORMAL: 1}
    while upto != {CRITICAL: 2, NORMAL: 5}:
        batch = await anext(watch)
        assert batch.epoch == (await engine.describe()).epoch
        assert batch.after == upto[batch.lane]
        upto[batch.lane] = batch.upto
        seen[batch.lane] += ids(batch)
    assert seen == {CRITICAL: ["3", "4"], NORMAL: ["0", "1", "2", "after"]}


async def test_nothing_is_watched_of_what_was_refused_or_known(engine: Any) -> None:
    await engine.append("s", [event(1)])
    watch = engine.watch()
    await engine.append("s", [event(1)])
    with pytest.raises(IdConflict):
        await engine.append("s", [event(2), event(1, "changed")])
    await engine.append("s", [event("last")])
    assert ids(await anext(watch)) == ["last"]


async def test_every_watch_gets_everything(engine: Any) -> None:
    watches = [engine.watch() for _ in range(3)]
    await asyncio.gather(*(engine.append("s", [event(n)]) for n in range(50)))
    for watch in watches:
        seen: list[int] = []
        while len(seen) < 50:
            batch = await anext(watch)
            assert batch.after == len(seen)
            seen += [entry.offset for entry in batch.events]
        assert seen == list(range(1, 51))


async def test_a_watched_batch_is_no_larger_than_a_page(engine: Any) -> None:
    watch = engine.watch()
    await engine.append("s", events(range(600)))
    await engine.append("s", events(range(600, 605), data="x" * 100_000))
    seen: list[str] = []
    while len(seen) < 605:
        batch = await anext(watch)
        assert batch.after == len(seen)
        assert len(batch.events) <= PAGE_EVENTS
        assert sum(size(entry.event) for entry in batch.events) <= PAGE_BYTES
        seen += ids(batch)
    assert seen == [str(n) for n in range(605)]


async def test_a_watch_wakes_for_an_append_and_ends_with_the_engine(engine: Any) -> None:
    watch = engine.watch()
    waiting = asyncio.ensure_future(anext(watch))
    await engine.append("s", [event(1)])
    assert ids(await waiting) == ["1"]
    await engine.append("s", [event(2)])
    await engine.aclose()
    assert [ids(batch) async for batch in watch] == [["2"]]
    assert [batch async for batch in engine.watch()] == []


async def test_a_watch_that_falls_behind_is_bounded_and_told_of_the_gap_in_every_lane(
    backend: Backend,
) -> None:
    engine = backend.open(watch_events=10)
    watch = engine.watch()
    await engine.append("quiet", events(range(4), lane=CRITICAL))
    for n in range(20):
        await engine.append("s", [event(n)])
    await engine.aclose()
    batches = [batch async for batch in watch]
    for stream, lane, head in (("quiet", CRITICAL, 4), ("s", NORMAL, 20)):
        chain = [batch for batch in batches if (batch.stream, batch.lane) == (stream, lane)]
        assert all(len(b.events) == b.upto - b.after for b in chain)
        assert all(later.after == earlier.upto for earlier, later in pairwise(chain))
        assert chain[0].after > 0
        assert chain[-1].upto == head
    counts = engine.statistics().watch
    assert counts.accepted == 24
    assert counts.overflowed > 0
    assert counts.accepted == counts.pending + counts.delivered + counts.overflowed + counts.abandoned


async def test_a_watch_is_bounded_by_bytes_too(backend: Backend) -> None:
    engine = backend.open(watch_bytes=10_000)
    watch = engine.watch()
    for n in range(10):
        await engine.append("s", [event(n, "x" * 3_000)])
    await engine.aclose()
    held = sum(len(entry.event.data) for batch in [b async for b in watch] for entry in batch.events)
    assert 0 < held <= 10_000


async def test_a_watch_that_keeps_up_is_never_full_however_much_goes_through_it(backend: Backend) -> None:
    engine = backend.open(watch_events=10, watch_bytes=10_000)
    watch = engine.watch()
    for n in range(0, 12, 2):
        await engine.append("s", [event(n, "x" * 3_000)])
        await engine.append("s", [event(n + 1, "x" * 3_000)])
        assert [ids(await anext(watch)) for _ in range(2)] == [[str(n)], [str(n + 1)]]
    assert engine.statistics().watch.overflowed == 0


async def test_a_watch_that_was_closed_or_dropped_keeps_nothing(engine: Any) -> None:
    closed, dropped = engine.watch(), engine.watch()
    await engine.append("s", events(range(5)))
    await closed.aclose()
    del dropped
    await engine.append("s", events(range(5, 8)))
    assert [batch async for batch in closed] == []
    counts = engine.statistics().watch
    assert (counts.accepted, counts.pending, counts.abandoned) == (10, 0, 10)


async def test_a_caller_that_gives_up_does_not_undo_its_append(engine: Any) -> None:
    watch = engine.watch()
    task = asyncio.ensure_future(engine.append("s", [event(1)]))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert ids(await anext(watch)) == ["1"]
    assert (await engine.append("s", [event(1)]))[0].duplicate


# Life


async def test_appending_nothing_asks_whether_appends_work_and_leaves_no_trace(engine: Any) -> None:
    for _ in range(3):
        assert await engine.append("steadcast.check", []) == []
    assert (await engine.describe()).streams == {}


async def test_a_closed_engine_says_so(engine: Any) -> None:
    await engine.append("s", [event(1)])
    await engine.aclose()
    await engine.aclose()
    for call in (
        engine.append("s", [event(2)]),
        engine.append("s", []),
        engine.read("s", NORMAL, 0),
        engine.describe(),
        engine.trim(),
    ):
        with pytest.raises(EngineUnavailable):
            await call


async def test_an_engine_that_was_never_used_closes(engine: Any) -> None:
    await engine.aclose()


async def test_what_is_under_way_is_finished_when_the_engine_closes(backend: Backend) -> None:
    engine = backend.open()
    tasks = [asyncio.ensure_future(engine.append("s", [event(n)])) for n in range(100)]
    await asyncio.sleep(0)
    await engine.aclose()
    assert [r.position.offset for task in tasks for r in task.result()] == list(range(1, 101))


async def test_a_log_outlives_its_engine(backend: Backend) -> None:
    engine = backend.open()
    await engine.append("s", events(range(10)) + events(range(10, 13), lane=CRITICAL))
    await engine.trim("s", NORMAL, 4)
    before = await engine.describe()
    await engine.aclose()
    again = backend.open()
    if not backend.persists:
        assert (await again.describe()).streams == {}
        return
    assert await again.describe() == before
    assert [offset for offset, _ in await read_all(again, "s", NORMAL, 4)] == [5, 6, 7, 8, 9, 10]
    receipts = await again.append("s", [event(2), event("fresh")])
    assert [(r.position.offset, r.duplicate) for r in receipts] == [(3, True), (11, False)]
