"""Dead events: kept through crashes and full disks, listed, re-driven, dropped; never too many."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import count
from typing import TYPE_CHECKING

import msgspec
import pytest

from steadcast.engines.memory import MemoryEngine
from steadcast.errors import EngineUnavailable, IdConflict, InvalidRequest
from steadcast.event import LANES, Event, Lane
from steadcast.socketio.dead import STREAM, DeadEvents
from steadcast.socketio.dead_file import DeadFile, dead_id
from steadcast.testing import FaultyEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def event(name: str, data: bytes = b'{"n":1}', *, source: str = "test", lane: Lane = Lane.NORMAL) -> Event:
    return Event(name, source, "order.paid", "2026-01-31T12:00:00Z", msgspec.Raw(data), lane, "subject")


@pytest.fixture
def engine() -> FaultyEngine:
    return FaultyEngine(MemoryEngine())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "dead.jsonl"


def store(
    engine: FaultyEngine, path: Path | None = None, limit: int = 1_000, size: int = 1 << 24
) -> DeadEvents:
    ticks = count()
    return DeadEvents(
        engine, path=path, limit=limit, max_bytes=size, now=lambda: f"2026-02-01T00:00:00.{next(ticks):06}Z"
    )


def bury(dead: DeadEvents, *events: Event, stream: str = "orders", reason: str = "exhausted") -> None:
    dead.bury(stream, events, reason=reason, attempts=4, error="engine_unavailable: away")


async def names(dead: DeadEvents) -> list[str]:
    listing = await dead.list()
    assert listing.complete
    return [each.event.id for each in listing.dead]


async def logged(engine: FaultyEngine, stream: str) -> list[Event]:
    pages = [await engine.engine.read(stream, lane, 0, 256) for lane in LANES]
    return [entry.event for page in pages for entry in page.events]


def conserved(dead: DeadEvents) -> bool:
    counts = dead.counts
    gone = sum(counts[name] for name in ("moved", "evicted", "unmovable", "removed"))
    return counts["buried"] + counts["recovered"] == gone + len(dead._lines)


# Keeping


async def test_a_dead_event_tells_what_it_was_and_why_it_died(engine: FaultyEngine, path: Path) -> None:
    dead = store(engine, path)
    original = event("1", lane=Lane.CRITICAL)
    bury(dead, original)
    [before] = (await dead.list()).dead
    await dead.keep()
    [after] = (await dead.list()).dead
    assert before == after
    assert after.id == dead_id("orders", "test", "1")
    assert (after.stream, after.reason, after.attempts) == ("orders", "exhausted", 4)
    assert after.error == "engine_unavailable: away"
    assert after.at == "2026-02-01T00:00:00.000000Z"
    assert after.event == original


async def test_while_the_engine_is_away_it_is_in_the_file_and_then_in_the_stream(
    engine: FaultyEngine, path: Path
) -> None:
    dead = store(engine, path)
    engine.go_away()
    bury(dead, event("1"), event("2"))
    await dead.keep()
    assert path.read_bytes().count(b"\n") == 2
    assert await logged(engine, STREAM) == []
    engine.heal()
    await dead.keep()
    assert path.read_bytes() == b""
    assert [record.subject for record in await logged(engine, STREAM)] == [
        dead_id("orders", "test", name) for name in ("1", "2")
    ]
    assert await names(dead) == ["1", "2"]
    assert conserved(dead)


async def test_what_an_earlier_process_left_in_the_file_is_taken_over(
    engine: FaultyEngine, path: Path
) -> None:
    engine.go_away()
    first = store(engine, path)
    bury(first, event("1"), event("2"))
    await first.keep()
    engine.heal()
    second = store(engine, path)
    bury(second, event("3"))
    await second.keep()
    assert await names(second) == ["1", "2", "3"]
    assert second.counts["recovered"] == 2
    assert conserved(second)


async def test_what_a_server_wrote_that_ended_while_this_one_waited_is_taken_over(
    engine: FaultyEngine, path: Path
) -> None:
    first, second = store(engine, path), store(engine, path)
    bury(first, event("0"))
    await first.save()
    await second.start()
    bury(first, event("1"), event("2"))
    await first.save()
    bury(second, event("3"))
    await second.keep()
    assert await names(second) == ["0", "1", "2", "3"]
    assert second.counts["recovered"] == 3
    assert conserved(second)
    assert path.read_bytes() == b""


async def test_a_crash_between_moving_and_emptying_the_file_doubles_nothing(
    engine: FaultyEngine, path: Path
) -> None:
    first = store(engine, path)
    bury(first, event("1"))
    await first.save()
    left = path.read_bytes()
    await first.move()
    path.write_bytes(left)
    second = store(engine, path)
    await second.keep()
    assert len(await logged(engine, STREAM)) == 1
    assert await names(second) == ["1"]


async def test_what_was_dropped_does_not_come_back_with_the_file_of_a_crash(
    engine: FaultyEngine, path: Path
) -> None:
    first = store(engine, path)
    bury(first, event("1"))
    await first.save()
    left = path.read_bytes()
    await first.move()
    assert await first.drop(dead_id("orders", "test", "1"))
    path.write_bytes(left)
    second = store(engine, path)
    await second.keep()
    assert await names(second) == []


@pytest.mark.parametrize("cut", [1, 20, 150])
async def test_a_line_that_a_crash_cut_is_counted_and_spoils_no_other(
    engine: FaultyEngine, path: Path, cut: int
) -> None:
    engine.go_away()
    first = store(engine, path)
    bury(first, event("1"), event("2"))
    await first.save()
    path.write_bytes(path.read_bytes()[:-cut])
    second = store(engine, path)
    await second.start()
    bury(second, event("3"))
    await second.save()
    third = store(engine, path)
    await third.start()
    assert [each.event.id for each in (await third.list()).dead] == ["1", "3"]
    assert (second.counts["torn"], third.counts["torn"]) == (1, 0)


async def test_a_line_with_bytes_of_no_text_is_counted_and_spoils_no_other(
    engine: FaultyEngine, path: Path
) -> None:
    engine.go_away()
    first = store(engine, path)
    bury(first, event("1"), event("2"))
    await first.save()
    path.write_bytes(path.read_bytes().replace(b'"id":"1"', b'"id":"\xe9"', 1))
    second = store(engine, path)
    await second.start()
    assert [each.event.id for each in (await second.list()).dead] == ["2"]
    assert second.counts["torn"] == 1


async def test_a_disk_that_refuses_is_counted_and_made_up_for(engine: FaultyEngine, path: Path) -> None:
    engine.go_away()
    dead = store(engine, path)
    path.parent.write_text("a file where the folder should be")
    bury(dead, event("1"))
    await dead.save()
    assert dead.counts["loads_failed"] + dead.counts["saves_failed"] == 1
    path.parent.unlink()
    await dead.save()
    assert path.read_bytes().count(b"\n") == 1


async def test_a_file_that_can_not_be_read_for_now_is_not_written_over(
    engine: FaultyEngine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.go_away()
    before = store(engine, path)
    bury(before, event("1"))
    await before.save()
    left = path.read_bytes()

    def unreadable(_: DeadFile) -> None:
        raise OSError(5, "Input/output error")

    dead = store(engine, path)
    with monkeypatch.context() as patch:
        patch.setattr(DeadFile, "load", unreadable)
        bury(dead, event("2"), event("3"))
        await dead.save()
        assert await dead.drop(dead_id("orders", "test", "2"))
        assert path.read_bytes() == left
    await dead.save()
    after = store(engine, path)
    await after.start()
    assert [each.event.id for each in (await after.list()).dead] == ["1", "3"]


async def test_what_is_in_the_file_is_not_written_again(engine: FaultyEngine, path: Path) -> None:
    engine.go_away()
    dead = store(engine, path)
    for name in ("1", "2", "3"):
        bury(dead, event(name))
        await dead.save()
        await dead.save()
    assert path.read_bytes().count(b"\n") == 3


async def test_half_a_write_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = DeadFile(tmp_path / "dead")
    file.append([b"one"])

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.append([b"two"])
    assert (tmp_path / "dead").read_bytes() == b"one\n"
    assert file.lines == 1


async def test_without_a_path_nothing_is_written_and_the_stream_still_gets_it(engine: FaultyEngine) -> None:
    dead = store(engine)
    bury(dead, event("1"))
    await dead.keep()
    assert await names(dead) == ["1"]


async def test_a_writer_that_is_cancelled_ends_before_the_next_one_begins(
    engine: FaultyEngine, path: Path
) -> None:
    engine.go_away()
    dead = store(engine, path)
    for number in range(20):
        bury(dead, event(str(number)))
        saving = asyncio.create_task(dead.save())
        await asyncio.sleep(0)
        saving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await saving
    await dead.save()
    again = store(engine, path)
    await again.start()
    assert [each.event.id for each in (await again.list()).dead] == [str(number) for number in range(20)]


# Bounds


async def test_the_oldest_go_first_when_the_engine_stays_away(engine: FaultyEngine, path: Path) -> None:
    engine.go_away()
    dead = store(engine, path, limit=3)
    for name in "abcdefghij":
        bury(dead, event(name))
        await dead.keep()
    assert [each.event.id for each in (await dead.list()).dead] == ["h", "i", "j"]
    assert dead.counts["evicted"] == 7
    assert path.read_bytes().count(b"\n") <= 2 * 3
    assert conserved(dead)


async def test_what_waits_is_bounded_in_bytes(engine: FaultyEngine, path: Path) -> None:
    engine.go_away()
    dead = store(engine, path, size=10_000)
    for number in range(50):
        bury(dead, event(str(number), b'"' + b"x" * 1_000 + b'"'))
        await dead.save()
    assert dead._bytes <= 10_000
    assert path.stat().st_size <= 21_000
    assert conserved(dead)


async def test_the_stream_keeps_the_newest_and_is_trimmed(engine: FaultyEngine, path: Path) -> None:
    dead = store(engine, path, limit=10)
    for number in range(60):
        bury(dead, event(str(number)))
        await dead.keep()
    assert await names(dead) == [str(number) for number in range(50, 60)]
    state = (await engine.describe(STREAM)).streams[STREAM][Lane.NORMAL]
    assert state.events <= 12
    assert dead.counts["trimmed"] >= 48


async def test_one_old_dead_event_does_not_keep_the_stream_growing(engine: FaultyEngine, path: Path) -> None:
    dead = store(engine, path, limit=10)
    bury(dead, event("old"))
    await dead.keep()
    for number in range(60):
        bury(dead, event(str(number)))
        await dead.keep()
        await dead.drop(dead_id("orders", "test", str(number)))
    state = (await engine.describe(STREAM)).streams[STREAM][Lane.NORMAL]
    assert state.events <= 40
    assert dead.counts["trimmed"] == 1


async def test_a_thousand_dead_events_move_at_once(engine: FaultyEngine, path: Path) -> None:
    engine.go_away()
    dead = store(engine, path)
    bury(dead, *[event(str(number)) for number in range(1_000)])
    await dead.save()
    engine.heal()
    await dead.move()
    assert len(await names(dead)) == 1_000
    assert engine.counts["appends"] <= 6


# Re-driving and dropping


@pytest.mark.parametrize("moved", [True, False])
async def test_a_redriven_event_is_appended_as_it_was_and_is_dead_no_more(
    engine: FaultyEngine, path: Path, moved: bool
) -> None:
    dead = store(engine, path)
    original = event("1", lane=Lane.CRITICAL)
    bury(dead, original)
    await (dead.keep() if moved else dead.save())
    receipt = await dead.redrive(dead_id("orders", "test", "1"))
    assert receipt is not None
    assert (receipt.id, receipt.lane, receipt.duplicate) == ("1", Lane.CRITICAL, False)
    assert await logged(engine, "orders") == [original]
    assert await names(dead) == []
    assert await names(store(engine, path)) == []
    assert conserved(dead)


async def test_redriving_what_did_arrive_after_all_doubles_nothing(engine: FaultyEngine, path: Path) -> None:
    dead = store(engine, path)
    await engine.append("orders", [event("1")])
    bury(dead, event("1"))
    await dead.keep()
    receipt = await dead.redrive(dead_id("orders", "test", "1"))
    assert receipt is not None
    assert receipt.duplicate
    assert len(await logged(engine, "orders")) == 1


async def test_an_event_that_dies_again_after_it_was_redriven_is_dead_again(
    engine: FaultyEngine, path: Path
) -> None:
    dead = store(engine, path)
    for _ in range(2):
        bury(dead, event("1"))
        await dead.keep()
        assert await names(dead) == ["1"]
        await dead.redrive(dead_id("orders", "test", "1"))
        assert await names(dead) == []


async def test_an_event_that_dies_twice_is_listed_once_with_its_last_death(
    engine: FaultyEngine, path: Path
) -> None:
    dead = store(engine, path)
    bury(dead, event("1"), reason="expired")
    await dead.keep()
    bury(dead, event("1"), reason="evicted")
    for step in (dead.save, dead.keep):
        await step()
        assert [each.reason for each in (await dead.list()).dead] == ["evicted"]


async def test_redriving_while_the_engine_is_away_raises_and_keeps_it_dead(
    engine: FaultyEngine, path: Path
) -> None:
    dead = store(engine, path)
    bury(dead, event("1"))
    await dead.keep()
    engine.fail_appends()
    with pytest.raises(EngineUnavailable):
        await dead.redrive(dead_id("orders", "test", "1"))
    assert await names(dead) == ["1"]


async def test_redriving_what_the_log_refuses_raises_and_keeps_it_dead(
    engine: FaultyEngine, path: Path
) -> None:
    dead = store(engine, path)
    await engine.append("orders", [event("1", b'"another body"')])
    bury(dead, event("1"), reason="refused")
    await dead.keep()
    with pytest.raises(IdConflict):
        await dead.redrive(dead_id("orders", "test", "1"))
    assert await names(dead) == ["1"]


async def test_a_redriven_event_whose_mark_failed_stays_listed_and_can_be_redriven_again(
    engine: FaultyEngine, path: Path
) -> None:
    dead = store(engine, path)
    bury(dead, event("1"))
    await dead.keep()
    appends = dead.append

    async def fails_for_marks(stream: str, events: Sequence[Event]) -> list[object]:
        if stream == STREAM:
            raise EngineUnavailable("away")
        return list(await appends(stream, events))

    dead.append = fails_for_marks  # type: ignore[assignment]
    assert await dead.redrive(dead_id("orders", "test", "1"))
    dead.append = appends
    assert dead.counts["unmarked"] == 1
    assert await names(dead) == ["1"]
    receipt = await dead.redrive(dead_id("orders", "test", "1"))
    assert receipt is not None
    assert receipt.duplicate
    assert await names(dead) == []


@pytest.mark.parametrize("moved", [True, False])
async def test_a_dropped_event_is_gone_and_never_appended(
    engine: FaultyEngine, path: Path, moved: bool
) -> None:
    dead = store(engine, path)
    bury(dead, event("1"), event("2"))
    await (dead.keep() if moved else dead.save())
    assert await dead.drop(dead_id("orders", "test", "1"))
    assert not await dead.drop(dead_id("orders", "test", "1"))
    assert dead.counts["dropped"] == 1
    assert await names(dead) == ["2"]
    await dead.keep()
    assert await names(store(engine, path)) == ["2"]
    assert await logged(engine, "orders") == []
    assert conserved(dead)


async def test_dropping_works_for_the_file_while_the_engine_is_away(engine: FaultyEngine, path: Path) -> None:
    dead = store(engine, path)
    engine.go_away()
    bury(dead, event("1"))
    await dead.keep()
    assert await dead.drop(dead_id("orders", "test", "1"))
    assert path.read_bytes() == b""
    with pytest.raises(EngineUnavailable):
        await dead.drop(dead_id("orders", "test", "2"))


async def test_there_is_nothing_to_redrive_or_drop_under_an_unknown_id(
    engine: FaultyEngine, path: Path
) -> None:
    dead = store(engine, path)
    assert await dead.redrive("unknown") is None
    assert await dead.drop("unknown") is False


async def test_a_list_without_the_log_says_that_it_is_not_complete(engine: FaultyEngine, path: Path) -> None:
    dead = store(engine, path)
    bury(dead, event("moved"))
    await dead.keep()
    engine.go_away()
    bury(dead, event("waits"))
    listing = await dead.list()
    assert not listing.complete
    assert [each.event.id for each in listing.dead] == ["waits"]


# Odd events


@pytest.mark.parametrize(
    "odd",
    [
        lambda: event("\ud800"),
        lambda: event("1", b"no json"),
        lambda: event("1", b'"\xff"'),
        lambda: Event("1", "test", "t", "2026-01-31T12:00:00Z", object()),
    ],
)
async def test_an_event_that_no_json_can_hold_is_told_without_its_data(
    engine: FaultyEngine, path: Path, odd: Callable[[], Event]
) -> None:
    dead = store(engine, path)
    bury(dead, odd(), event("2"))
    await dead.keep()
    first, second = (await dead.list()).dead
    assert (first.garbled, second.garbled) == (True, False)
    assert dead.counts["garbled"] == 1
    with pytest.raises(InvalidRequest):
        await dead.redrive(first.id)
    assert await dead.drop(first.id)


@pytest.mark.parametrize("data", [b'{\n  "a": 1e400,\n  "b": 12345678901234567890123\n}', b'{"a":1.10}'])
async def test_data_keeps_its_numbers_to_the_last_digit(
    engine: FaultyEngine, path: Path, data: bytes
) -> None:
    dead = store(engine, path)
    bury(dead, event("1", data))
    await dead.save()
    again = store(engine, path)
    await again.keep()
    [kept] = (await again.list()).dead
    assert bytes(kept.event.data) == data.replace(b"\n", b"").replace(b" ", b"")


async def test_a_record_that_the_log_refuses_for_good_holds_up_no_other(
    engine: FaultyEngine, path: Path
) -> None:
    dead = store(engine, path)
    bury(dead, event("1"), event("bad"), event("3"))
    appends = dead.append

    async def refuses(stream: str, events: Sequence[Event]) -> list[object]:
        if any(b'"bad"' in bytes(each.data) for each in events):
            raise InvalidRequest("no")
        return list(await appends(stream, events))

    dead.append = refuses  # type: ignore[assignment]
    await dead.keep()
    assert await names(dead) == ["1", "3"]
    assert dead.counts["unmovable"] == 1
    assert path.read_bytes() == b""
    assert conserved(dead)


def test_the_id_tells_streams_sources_and_ids_apart() -> None:
    parts = [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("", "ab", "c"), ("a", "b", "d")]
    assert len({dead_id(*part) for part in parts}) == len(parts)
