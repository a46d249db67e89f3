"""What only the SQLite engine has: a writing thread, a queue, other programs at its file."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from steadcast.engines import sqlite, sqlite_read, sqlite_trim, sqlite_writer
from steadcast.engines.base import Retention
from steadcast.engines.sqlite import SqliteEngine
from steadcast.errors import EngineRefused, EngineUnavailable, QueueFull
from tests.engine_backends import CRITICAL, NORMAL, Clock, event, events, ids, open_sqlite, read_all
from tests.engine_logfile import check

Open = Callable[..., SqliteEngine]
PATIENCE = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def opened(path: Path, clock: Clock) -> AsyncIterator[Open]:
    engines: list[SqliteEngine] = []

    def open_one(**settings: Any) -> SqliteEngine:
        engines.append(open_sqlite(path, clock, **settings))
        return engines[-1]

    yield open_one
    for engine in engines:
        await engine.aclose()
    check(path)


@contextmanager
def held(engine: SqliteEngine) -> Iterator[threading.Event]:
    """Keep the writing thread busy until the end, or until the event is set."""
    go = threading.Event()
    engine._writer.call(lambda _: go.wait(PATIENCE))
    try:
        yield go
    finally:
        go.set()


def counted(engine: SqliteEngine) -> int:
    counts = engine.statistics().counts
    return counts.pending + counts.appended + counts.duplicates + counts.conflicts + counts.failed


# Commits


async def test_all_that_queues_up_while_a_commit_runs_goes_into_the_next_one(opened: Open) -> None:
    engine = opened()
    await engine.append("s", [event("first")])
    with held(engine):
        tasks = [asyncio.ensure_future(engine.append(f"s{n % 3}", [event(n)])) for n in range(300)]
        await asyncio.sleep(0)
        assert engine.statistics().counts.pending == 300
    await asyncio.gather(*tasks)
    assert engine.statistics().counts.commits == 2
    assert [e.id for _, e in await read_all(engine, "s1", NORMAL)] == [str(n) for n in range(1, 300, 3)]


async def test_a_commit_is_bounded(opened: Open) -> None:
    engine = opened()
    await engine.append("s", [event("first")])
    with held(engine):
        tasks = [
            asyncio.ensure_future(engine.append("s", events(range(n, n + 1000))))
            for n in range(0, 10_000, 1000)
        ]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert engine.statistics().counts.commits == 1 + 2


async def test_nothing_is_answered_or_delivered_before_the_commit_returned(opened: Open) -> None:
    engine = opened()
    watch = engine.watch()
    await engine.append("s", [event(1)])
    assert ids(await anext(watch)) == ["1"]
    reached, go = threading.Event(), threading.Event()

    def wait_in_commit() -> bool:
        reached.set()
        return not go.wait(PATIENCE)

    await engine._writer.call(lambda log: log.conn.set_commit_hook(wait_in_commit))
    waiting = [asyncio.ensure_future(engine.append("s", [event(n)])) for n in (1, 2)]
    batch = asyncio.ensure_future(anext(watch))
    await asyncio.to_thread(reached.wait, PATIENCE)
    assert (await engine.describe("s")).streams["s"][NORMAL].head == 1
    assert not any(task.done() for task in (*waiting, batch))
    go.set()
    answers = await asyncio.gather(*waiting)
    assert [answer[0].duplicate for answer in answers] == [True, False]
    assert ids(await batch) == ["2"]


async def test_after_a_failed_commit_the_log_is_reopened_and_its_heads_read_anew(opened: Open) -> None:
    engine = opened()
    await engine.append("s", [event(1)])
    await engine._writer.call(lambda log: log.conn.set_commit_hook(lambda: True))
    first = await engine._writer.call(lambda log: log.conn)
    with held(engine):
        tasks = [asyncio.ensure_future(engine.append("s", [event(n)])) for n in (2, 3)]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [EngineRefused] * 2
    assert await engine._writer.call(lambda log: log.conn) is not first
    receipts = await engine.append("s", [event(3), event(1)])
    assert [(r.position.offset, r.duplicate) for r in receipts] == [(2, False), (1, True)]
    counts = engine.statistics().counts
    assert (counts.failed, counts.reopened, counted(engine)) == (2, 1, counts.accepted)


async def test_the_loop_goes_on_while_the_disk_is_slow(opened: Open) -> None:
    engine = opened()
    await engine.append("s", [event(1)])
    with held(engine):
        task = asyncio.ensure_future(engine.append("s", [event(2)]))
        assert ids(await engine.read("s", NORMAL, 0)) == ["1"]
        assert (await engine.describe("s")).streams["s"][NORMAL].head == 1
        assert not task.done()
    await task


# The queue


async def test_a_full_queue_refuses_for_now_and_loses_nothing_that_it_took(opened: Open) -> None:
    engine = opened(queue_events=10)
    await engine.append("s", [event("first")])
    with held(engine):
        taken = [asyncio.ensure_future(engine.append("s", [event(n), event(-n)])) for n in range(1, 6)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as caught:
            await engine.append("s", [event("more")])
        assert caught.value.temporary
        assert caught.value.retry_after is not None
    await asyncio.gather(*taken)
    await engine.append("s", [event("more")])
    counts = engine.statistics().counts
    assert (counts.accepted, counts.appended, counts.refused, counts.pending) == (12, 12, 1, 0)


async def test_the_queue_is_bounded_by_bytes_too(opened: Open) -> None:
    engine = opened(queue_bytes=10_000)
    await engine.append("s", [event("first")])
    with held(engine):
        taken = asyncio.ensure_future(engine.append("s", [event(1, "x" * 9_000)]))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await engine.append("s", [event(2, "x" * 2_000)])
    await taken
    # One that is larger than the whole queue has its turn when nothing else waits.
    await engine.append("s", [event(3, "x" * 20_000)])


async def test_events_of_both_lanes_are_placed_in_the_order_of_their_append(opened: Open) -> None:
    engine = opened()
    mixed = [event(n, lane=CRITICAL if n % 3 == 0 else NORMAL) for n in range(9)]
    receipts = await engine.append("s", mixed)
    places = [(receipt.id, receipt.lane, receipt.position.offset) for receipt in receipts]
    critical = [("0", CRITICAL, 1), ("3", CRITICAL, 2), ("6", CRITICAL, 3)]
    normal = [(name, NORMAL, offset) for offset, name in enumerate("124578", 1)]
    assert places == sorted(critical + normal)
    assert [(offset, e.id) for offset, e in await read_all(engine, "s", NORMAL)] == [
        (offset, name) for name, _, offset in normal
    ]


async def test_a_commit_takes_as_many_statements_for_a_thousand_events_as_for_one(opened: Open) -> None:
    """Each statement lets go of the interpreter, and a busy loop may keep it for 5 ms."""
    engine = opened()
    await engine.append("s", [event("first")])
    statements: list[str] = []

    def trace(_: object, text: str, __: object) -> bool:
        statements.append(text)
        return True

    await engine._writer.call(lambda log: log.conn.set_exec_trace(trace))
    await engine.append("s", [event("second")])
    one = len(statements)
    await engine.append("s", events(range(1_000)))
    assert len(statements) == 2 * one < 20


async def test_a_burst_of_retries_is_tried_in_vain_once(opened: Open) -> None:
    engine = opened()
    for _ in range(4):
        await engine.append("s", events(range(5)))
    assert engine.statistics().counts.looked_late == 1
    await engine.append("s", [event("fresh")])
    await engine.append("s", events(range(5)))
    assert engine.statistics().counts.looked_late == 2


async def test_what_came_in_is_counted_by_what_became_of_it(opened: Open) -> None:
    engine = opened()
    await engine.append("s", events(range(5)))
    await asyncio.gather(
        engine.append("s", events(range(3, 8))),
        engine.append("s", [event(0, "changed"), event(99)]),
        return_exceptions=True,
    )
    counts = engine.statistics().counts
    assert (counts.appended, counts.duplicates, counts.conflicts, counts.failed) == (8, 2, 2, 0)
    assert counts.accepted == counted(engine) == 12


# Other programs


async def test_a_lock_of_another_program_is_told_and_passes(path: Path, opened: Open) -> None:
    engine = opened(busy=0.05)
    await engine.append("s", [event(1)])
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    for call in (engine.append("s", [event(2)]), engine.append("s", []), engine.trim("s", NORMAL, 1)):
        with pytest.raises(EngineUnavailable, match="another program") as caught:
            await call
        assert (caught.value.code, caught.value.temporary) == ("engine_locked", True)
    assert ids(await engine.read("s", NORMAL, 0)) == ["1"]
    other.execute("ROLLBACK")
    other.close()
    assert await engine.append("s", []) == []
    assert (await engine.append("s", [event(2)]))[0].position.offset == 2
    assert engine.statistics().counts.failures == {"engine_locked": 1}


async def test_a_lock_that_passes_soon_is_waited_for(path: Path, opened: Open) -> None:
    engine = opened(busy=PATIENCE)
    await engine.append("s", [event(1)])
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    task = asyncio.ensure_future(engine.append("s", [event(2)]))
    await engine.describe()
    assert not task.done()
    other.execute("ROLLBACK")
    other.close()
    assert (await task)[0].position.offset == 2


async def test_a_file_that_is_locked_from_the_start_is_told_and_passes(path: Path, opened: Open) -> None:
    await (first := opened()).append("s", [event(1)])
    await first.aclose()
    other = apsw.Connection(str(path))
    other.pragma("locking_mode", "exclusive")
    other.execute("BEGIN EXCLUSIVE")
    engine = opened(busy=0.05)
    for call in (engine.describe(), engine.append("s", [event(2)]), engine.append("s", [])):
        with pytest.raises(EngineUnavailable) as caught:
            await call
        assert caught.value.code == "engine_locked"
    other.execute("ROLLBACK")
    other.close()
    assert (await engine.describe("s")).streams["s"][NORMAL].head == 1


async def test_a_connection_that_may_not_write_says_readonly(opened: Open) -> None:
    engine = opened()
    await engine.append("s", [event(1)])
    await engine._writer.call(lambda log: log.conn.pragma("query_only", 1))
    with pytest.raises(EngineUnavailable) as caught:
        await engine.append("s", [event(2)])
    assert caught.value.code == "engine_readonly"
    assert (await engine.append("s", [event(2)]))[0].position.offset == 2


async def test_nothing_is_acked_into_a_file_that_was_taken_away(path: Path, opened: Open) -> None:
    engine = opened()
    await engine.append("s", [event(1)])
    away = path.with_name("away.db")
    os.rename(path, away)  # noqa: PTH104 - pathlib's is refused in a coroutine
    for call in (engine.append("s", [event(2)]), engine.append("s", [])):
        with pytest.raises(EngineRefused, match="removed or replaced"):
            await call
    os.rename(away, path)  # noqa: PTH104 - as above
    assert (await engine.append("s", [event(2)]))[0].position.offset == 2


@contextmanager
def folder_replaced(folder: Path, make: Callable[[Path], object]) -> Iterator[None]:
    away = folder.with_name("away")
    folder.rename(away)
    make(folder)
    try:
        yield
    finally:
        folder.unlink()
        away.rename(folder)


async def test_a_folder_that_cannot_be_looked_into_is_told_and_waited_for(path: Path, opened: Open) -> None:
    engine = opened()
    await engine.append("s", [event(1)])
    # A link to itself gives an error that isn't "not found", as a right that was taken does, or a lost share.
    with folder_replaced(path.parent, lambda folder: folder.symlink_to(folder)):
        for call in (engine.append("s", [event(2)]), engine.append("s", [])):
            with pytest.raises(EngineUnavailable, match="can't be used now"):
                await call
    assert (await engine.append("s", [event(2)]))[0].position.offset == 2


async def test_a_file_in_the_place_of_the_folder_means_that_the_log_was_taken_away(
    path: Path, opened: Open
) -> None:
    engine = opened()
    await engine.append("s", [event(1)])
    with folder_replaced(path.parent, Path.touch), pytest.raises(EngineRefused, match="removed or replaced"):
        await engine.append("s", [event(2)])
    assert (await engine.append("s", [event(2)]))[0].position.offset == 2


# Trimming


async def test_trimming_does_not_hold_up_appends(opened: Open) -> None:
    engine = opened(retention=Retention(events=1))
    for start in range(0, 10_000, 1000):
        await engine.append("s", events(range(start, start + 1000)))
    trimming = asyncio.ensure_future(engine.trim())
    await engine.append("s", [event("a")])
    await engine.append("s", [event("b")])
    assert not trimming.done()
    # What came in meanwhile may be dropped too: the rule is looked at anew with each step.
    assert 9_999 <= await trimming <= 10_001
    assert (await engine.describe("s")).streams["s"][NORMAL].head == 10_002


async def test_large_events_are_trimmed_in_steps_too(opened: Open) -> None:
    engine = opened(retention=Retention(bytes=1))
    for n in range(0, 40, 10):
        await engine.append("s", events(range(n, n + 10), data="x" * 250_000))
    assert await engine.trim() == 40
    assert (await engine.describe("s")).streams["s"][NORMAL].bytes == 0


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_trimming_by_age_waits_while_the_clocks_disagree(
    opened: Open, clock: Clock, jump: float
) -> None:
    engine = opened(retention=Retention(age=100.0, events=5), ids_age=100.0)
    await engine.append("s", events(range(3)))
    clock.wall += jump
    await engine.append("s", events(range(3, 6)))
    clock.advance(90)
    assert engine.statistics().age_waits
    assert await engine.trim() == 1
    clock.wall -= jump
    clock.advance(20)
    assert not engine.statistics().age_waits
    assert await engine.trim() == {3600.0: 2, -3600.0: 5}[jump]


async def test_a_clock_that_was_set_for_good_holds_up_trimming_for_a_day(opened: Open, clock: Clock) -> None:
    engine = opened(retention=Retention(age=100.0))
    clock.wall += 3600  # as where a machine was paused, and told the time when it went on
    await engine.append("s", [event(1)])
    assert await engine.trim() == 0
    clock.advance(86_399)
    assert await engine.trim() == 0
    clock.advance(1)
    assert await engine.trim() == 1
    assert not engine.statistics().age_waits


async def test_a_clock_that_is_corrected_a_little_is_trusted(opened: Open, clock: Clock) -> None:
    engine = opened(retention=Retention(age=100.0))
    await engine.append("s", [event(1)])
    clock.wall += 59
    clock.advance(42)
    assert await engine.trim() == 1


async def test_ids_are_swept_as_fast_as_they_come(
    path: Path, opened: Open, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "SWEEP_STEPS", 1)
    for module in (sqlite, sqlite_trim):
        monkeypatch.setattr(module, "STEP_IDS", 50)
    engine = opened(retention=Retention(events=1), ids_age=100.0)
    for start in range(0, 18_000, 300):
        await engine.append("s", events(range(start, start + 300)))
        clock.advance(20)
        await engine.trim()
    other = apsw.Connection(str(path))
    known = other.execute("SELECT count(*) FROM ids").get
    other.close()
    assert known < 3 * 300 * 100 / 20  # of 18,000; the 1,500 of the last 100 s have to be known


async def test_many_ids_are_swept_in_steps_over_several_trims(opened: Open, clock: Clock) -> None:
    engine = opened(retention=Retention(events=1), ids_age=100.0)
    for start in range(0, 50_000, 2_500):
        await engine.append("s", events(range(start, start + 2_500)))
    await engine.trim()
    clock.advance(101)
    swept = []
    for _ in range(3):
        await engine.trim()
        swept.append(engine.statistics().ids_swept)
    assert 0 < swept[0] < swept[1] < 50_000
    assert swept[2] == 49_999
    await engine.trim()
    assert engine.statistics().ids_swept == 49_999


async def test_the_write_ahead_log_does_not_grow_without_limit(path: Path, opened: Open) -> None:
    engine = opened()
    for n in range(100):
        await engine.append("s", events(range(n * 4, n * 4 + 4), data="x" * 250_000))
    await engine.aclose()
    assert engine.statistics().counts.checkpoints_failed == 0
    grown = open_sqlite(path)
    for n in range(100, 110):
        await grown.append("s", events(range(n * 4, n * 4 + 4), data="x" * 250_000))
    await grown._writer.call(lambda _: None)
    assert os.stat(f"{path}-wal").st_size < 32 * 1024 * 1024  # noqa: PTH116 - pathlib's is refused in a coroutine
    await grown.aclose()


async def test_the_write_ahead_log_does_not_grow_while_nothing_is_published(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "CHECKPOINT_PAGES", 50)
    engine = opened()
    for _ in range(200):
        await engine.append("s", [])  # what /readyz asks, as often as a supervisor likes
    await engine._writer.call(lambda _: None)
    assert engine._writer._wal_pages < 100


async def test_a_program_that_keeps_reading_an_old_state_is_not_waited_for_with_every_append(
    path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "CHECKPOINT_PAGES", 50)
    monkeypatch.setattr(sqlite_writer, "RESTART_PAGES", 100)
    engine = opened(busy=0.0)
    await engine.append("s", [event("first")])
    reader = apsw.Connection(str(path))
    reader.execute("BEGIN; SELECT count(*) FROM events")
    for n in range(40):
        await engine.append("s", [event(n, data="x" * 80_000)])
    await engine._writer.call(lambda _: None)
    waited = engine.statistics().counts.checkpoints_failed
    assert 1 <= waited <= 40 * 25 // 100, "each wait holds up all appends"
    reader.close()
    for n in range(40, 60):
        await engine.append("s", [event(n, data="x" * 80_000)])
    await engine._writer.call(lambda _: None)
    assert engine.statistics().counts.checkpoints_failed == waited
    assert engine._writer._wal_pages < 200


# Reading beside writing


async def test_pages_and_heads_agree_while_events_come_and_go(opened: Open) -> None:
    engine = opened(retention=Retention(events=50))
    done = asyncio.Event()

    async def write() -> None:
        for n in range(0, 2_000, 20):
            await engine.append("s", [*events(range(n, n + 20)), event(f"c{n}", lane=CRITICAL)])
            await engine.trim()
        done.set()

    async def read() -> None:
        while not done.is_set():
            page = await engine.read("s", NORMAL, -30)
            assert [entry.offset for entry in page.events] == list(range(page.after + 1, page.upto + 1))
            assert ids(page) == [str(entry.offset - 1) for entry in page.events]

    await asyncio.gather(write(), read(), read(), read())


async def test_a_page_comes_in_few_rows(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row lets go of the interpreter, and a busy loop may keep it for 5 ms: 256 would take a second."""
    rows = 0

    def trace(_: object, row: Any) -> Any:
        nonlocal rows
        rows += 1
        return row

    engine = opened()
    await engine.append("s", events(range(256)))
    monkeypatch.setattr(apsw, "connection_hooks", [lambda conn: conn.set_row_trace(trace)])
    assert len((await engine.read("s", NORMAL, 0)).events) == 256
    assert 0 < rows < 10


async def test_a_page_with_a_hole_is_told_not_served(path: Path, opened: Open) -> None:
    engine = opened()
    await engine.append("s", events(range(10)))
    other = apsw.Connection(str(path))
    taken = other.execute("DELETE FROM events WHERE event ->> 'id' = '4' RETURNING key, at, event").fetchall()
    assert ids(await engine.read("s", NORMAL, 0)) == ["0", "1", "2", "3"]
    with pytest.raises(EngineRefused, match=r"at offset 5 of s \(normal\) is missing") as caught:
        await engine.read("s", NORMAL, 4)
    assert caught.value.code == "engine_invalid"
    other.execute("INSERT INTO events VALUES (?, ?, ?)", taken[0])
    other.close()
    assert len((await engine.read("s", NORMAL, 0)).events) == 10


@pytest.mark.parametrize("damaged", ["'{'", "CAST(x'22e922' AS TEXT)"])
async def test_a_damaged_event_is_told_not_served_and_what_stands_before_it_is(
    path: Path, opened: Open, damaged: str
) -> None:
    engine = opened()
    await engine.append("s", events(range(3)))
    other = apsw.Connection(str(path))
    [(key, whole)] = other.execute("SELECT key, event FROM events WHERE event ->> 'id' = '1'").fetchall()
    other.execute(f"UPDATE events SET event = {damaged} WHERE key = ?", (key,))  # noqa: S608 - from above
    page = await engine.read("s", NORMAL, 0, kept=True)
    assert (ids(page), page.upto) == (["0"], 1)
    assert all(entry.kept for entry in page.events)
    with pytest.raises(EngineRefused, match=r"at offset 2 of s \(normal\) is damaged") as caught:
        await engine.read("s", NORMAL, 1)
    assert caught.value.code == "engine_invalid"
    assert ids(await engine.read("s", NORMAL, 2)) == ["2"]
    other.execute("UPDATE events SET event = ? WHERE key = ?", (whole, key))
    other.close()
    assert ids(await engine.read("s", NORMAL, 0)) == ["0", "1", "2"]


@pytest.mark.parametrize("damage", ["UPDATE events SET event = '{'", "DELETE FROM events"])
@pytest.mark.parametrize("upto", [3, 4, 10])
async def test_a_damaged_or_missing_event_is_passed_by_trimming(
    path: Path, opened: Open, damage: str, upto: int
) -> None:
    engine = opened()
    await engine.append("s", events(range(10)))
    other = apsw.Connection(str(path))
    other.execute(f"{damage} WHERE key & 0xffffffffff IN (3, ?)", (upto,))
    other.close()
    assert await engine.trim("s", NORMAL, upto, dry_run=True) == upto
    assert await engine.trim("s", NORMAL, upto) == upto
    state = (await engine.describe("s")).streams["s"][NORMAL]
    kept = [str(n) for n in range(upto, 10)]
    assert (state.head, state.trimmed, state.events) == (10, upto, 10 - upto)
    assert (state.bytes > 0) is bool(kept)
    assert ids(await engine.read("s", NORMAL, upto)) == kept
    await engine.append("s", [event("10")])
    assert ids(await engine.read("s", NORMAL, upto)) == [*kept, "10"]
    await engine.trim("s", NORMAL, 11)
    assert (await engine.describe("s")).streams["s"][NORMAL].bytes == 0, "for all that was counted amiss"


async def test_a_missing_event_grows_old_with_the_one_behind_it(
    path: Path, opened: Open, clock: Clock
) -> None:
    engine = opened(retention=Retention(age=60))
    await engine.append("s", events(range(3)))
    clock.advance(30)
    await engine.append("s", [event(3)])
    other = apsw.Connection(str(path))
    other.execute("DELETE FROM events WHERE key & 0xffffffffff IN (1, 2)")
    other.close()
    assert await engine.trim() == 0
    clock.advance(31)
    assert await engine.trim() == 3
    assert ids(await engine.read("s", NORMAL, 3)) == ["3"]
    await engine.trim("s", NORMAL, 4)


async def test_reads_that_wait_are_bounded(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened()
    await engine.append("s", [event(1)])
    monkeypatch.setattr(sqlite_read, "MAX_WAITING", 3)
    reads = [asyncio.ensure_future(engine.read("s", NORMAL, 0)) for _ in range(5)]
    answers = await asyncio.gather(*reads, return_exceptions=True)
    assert [isinstance(answer, QueueFull) for answer in answers] == [False, False, False, True, True]
    assert ids(await engine.read("s", NORMAL, 0)) == ["1"]
    assert (engine.statistics().reads_refused, engine.statistics().reads_waiting) == (2, 0)


def test_a_program_that_forgets_to_close_its_engine_still_ends(path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from tests.engine_backends import event, open_sqlite\n"
        "engine = open_sqlite(pathlib.Path(sys.argv[1]))\n"
        "asyncio.run(engine.append('s', [event(1)]))\n"
    )
    search = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program, str(path)], env=search, timeout=30, check=True)
    check(path)


def test_an_answer_that_nobody_waits_for_any_more_is_counted(path: Path) -> None:
    engine = open_sqlite(path)

    async def leave() -> threading.Event:
        await engine.append("s", [event(1)])
        go = threading.Event()
        engine._writer.call(lambda _: go.wait(PATIENCE))
        return go

    asyncio.run(leave()).set()
    engine._writer._queue.put(None)
    engine._writer._thread.join(PATIENCE)
    assert engine.statistics().counts.unheard == 1
    assert not engine._writer._thread.is_alive()
    check(path)


async def test_an_engine_closes_while_reads_are_under_way(opened: Open) -> None:
    engine = opened()
    await engine.append("s", events(range(500)))
    reads = [asyncio.ensure_future(engine.read("s", NORMAL, 0)) for _ in range(20)]
    await asyncio.sleep(0)
    await engine.aclose()
    assert all(len(page.events) == 256 for page in await asyncio.gather(*reads))
