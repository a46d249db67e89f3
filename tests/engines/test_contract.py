"""What every engine promises. Each test runs against each kind of engine."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from steadcast.engines.base import PAGE_BYTES, PAGE_EVENTS, LaneState, Retention
from steadcast.errors import IdConflict, InvalidEvent, InvalidRequest, PositionLost
from steadcast.event import Event
from tests.engine_backends import (
    BACKENDS,
    CRITICAL,
    DAY,
    NORMAL,
    Backend,
    event,
    events,
    ids,
    read_all,
    size,
)
from tests.engine_ranks import RankedEngine

# Positions


async def test_a_lane_that_never_held_an_event_is_at_0_and_both_lanes_are_answered(engine: Any) -> None:
    nothing = {CRITICAL: LaneState(), NORMAL: LaneState()}
    assert (await engine.describe("s")).streams == {"s": nothing}
    assert (await engine.describe()).streams == {}
    await engine.append("s", [event(1)])
    assert (await engine.describe("s")).streams["s"][CRITICAL] == LaneState()


async def test_offsets_count_from_1_in_each_lane_and_the_priority_chooses_it(engine: Any) -> None:
    mixed = [event(1), event(2, lane=CRITICAL), event(3), event(4, lane=CRITICAL)]
    receipts = await engine.append("s", mixed)
    assert [(r.id, r.lane, r.position.offset, r.duplicate) for r in receipts] == [
        ("1", NORMAL, 1, False),
        ("2", CRITICAL, 1, False),
        ("3", NORMAL, 2, False),
        ("4", CRITICAL, 2, False),
    ]
    assert [e.id for _, e in await read_all(engine, "s", NORMAL)] == ["1", "3"]
    assert [e.id for _, e in await read_all(engine, "s", CRITICAL)] == ["2", "4"]


async def test_streams_have_positions_of_their_own(engine: Any) -> None:
    await engine.append("a", events(range(3)))
    receipts = await engine.append("b", events(range(2)))
    assert [r.position.offset for r in receipts] == [1, 2]
    assert [e.id for _, e in await read_all(engine, "a", NORMAL)] == ["0", "1", "2"]


async def test_who_asks_is_told_when_each_event_was_kept_whatever_its_own_time(backend: Backend) -> None:
    engine = backend.open()
    began = backend.clock.wall
    await engine.append("s", [event(1)])
    backend.clock.advance(90)
    await engine.append("s", events(range(2, 4)))
    asked = (await engine.read("s", NORMAL, 0, kept=True)).events
    waited = [(entry.kept - began * 1000) / 1000 for entry in asked]
    assert waited == pytest.approx([0, 90, 90], abs=0.01)
    assert [(each.offset, each.event) for each in asked] == await read_all(engine, "s", NORMAL)
    assert [each.kept for each in (await engine.read("s", NORMAL, 0)).events] == [None] * 3
    assert (await engine.read("s", NORMAL, 3, kept=True)).events == ()


async def test_every_answer_names_the_same_epoch(engine: Any) -> None:
    receipt = (await engine.append("s", [event(1)]))[0]
    epochs = {
        receipt.position.epoch,
        (await engine.read("s", NORMAL, 0)).epoch,
        (await engine.read("unknown", NORMAL, 0)).epoch,
        (await engine.describe()).epoch,
    }
    assert len(epochs) == 1
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", epochs.pop())


@pytest.mark.parametrize("kind", BACKENDS)
async def test_two_logs_have_two_epochs(kind: str, tmp_path: Path) -> None:
    epochs = set()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        backend = BACKENDS[kind](tmp_path / name)
        epochs.add((await backend.open().describe()).epoch)
        await backend.aclose()
    assert len(epochs) == 2


async def test_an_engine_says_whether_its_offsets_have_holes(engine: Any) -> None:
    assert engine.dense is not isinstance(engine, RankedEngine)


async def test_sizes_are_told_in_events_and_bytes_of_their_json(engine: Any) -> None:
    some = events(range(5), data={"text": "äöü"}) + events(range(5, 7), lane=CRITICAL)
    await engine.append("s", some)
    lanes = (await engine.describe("s")).streams["s"]
    assert lanes[NORMAL] == LaneState(head=5, events=5, bytes=sum(map(size, some[:5])))
    assert lanes[CRITICAL] == LaneState(head=2, events=2, bytes=sum(map(size, some[5:])))
    assert (await engine.describe()).streams == {"s": lanes}


# Reading


async def test_an_event_comes_back_as_it_came_in(engine: Any) -> None:
    data = msgspec.Raw(b'{"b":1.0,"a":[1e2,"\\u00e4\xc3\xa4\\n",{"n":12345678901234567890123,"n":null}]}')
    came = Event(
        id="ä'\"\\", source="/s?x=1", type="t,t", time="2026-01-01T00:00:00.123456789+02:00", data=data,
        priority=CRITICAL, subject="{[",
    )  # fmt: skip
    await engine.append("s", [came, event(2, lane=CRITICAL)])
    back = (await engine.read("s", CRITICAL, 0)).events[0].event
    assert isinstance(back.data, msgspec.Raw)
    assert bytes(back.data) == bytes(data)
    assert msgspec.structs.asdict(back) | {"data": 0} == msgspec.structs.asdict(came) | {"data": 0}


@pytest.mark.parametrize("data", [None, True, 0, -1.5, "", "text", [], {}, {"": [[]]}])
async def test_data_is_any_json_value(engine: Any, data: object) -> None:
    await engine.append("s", [event(1, data)])
    back = (await engine.read("s", NORMAL, 0)).events[0].event
    assert msgspec.json.decode(back.data) == data


async def test_pages_follow_each_other_and_the_last_one_ends_at_the_head(engine: Any) -> None:
    await engine.append("s", events(range(700)))
    first = await engine.read("s", NORMAL, 0)
    assert (first.after, first.upto, len(first.events)) == (0, PAGE_EVENTS, PAGE_EVENTS)
    assert [e.id for _, e in await read_all(engine, "s", NORMAL)] == [str(n) for n in range(700)]
    last = await engine.read("s", NORMAL, 690)
    assert (last.upto, ids(last)) == (700, [str(n) for n in range(690, 700)])


async def test_an_empty_page_ends_where_it_began(engine: Any) -> None:
    await engine.append("s", events(range(3)))
    page = await engine.read("s", NORMAL, 3)
    assert (page.after, page.upto, page.events) == (3, 3, ())
    page = await engine.read("unknown", CRITICAL, 0)
    assert (page.stream, page.lane, page.after, page.upto, page.events) == ("unknown", CRITICAL, 0, 0, ())


async def test_a_page_holds_at_most_as_many_events_as_asked_for(engine: Any) -> None:
    await engine.append("s", events(range(10)))
    page = await engine.read("s", NORMAL, 4, limit=3)
    assert ids(page) == ["4", "5", "6"]
    assert page.upto == 7


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_page_for_nothing_is_refused(engine: Any, limit: int) -> None:
    with pytest.raises(InvalidRequest):
        await engine.read("s", NORMAL, 0, limit)


async def test_a_page_holds_256_kib_and_a_larger_event_goes_alone(engine: Any) -> None:
    third, large = "x" * (PAGE_BYTES // 3), "x" * (PAGE_BYTES + 1000)
    for n in range(4):
        await engine.append("s", [event(n, third)])
    await engine.append("s", [event(4, large)])
    await engine.append("s", [event(5)])
    pages = []
    after = 0
    while (page := await engine.read("s", NORMAL, after)).events:
        pages.append(ids(page))
        after = page.upto
    assert pages == [["0", "1"], ["2", "3"], ["4"], ["5"]]


@pytest.mark.parametrize(("after", "first"), [(-1, 10), (-3, 8), (-10, 1), (-99, 1)])
async def test_a_negative_position_counts_from_the_end(engine: Any, after: int, first: int) -> None:
    await engine.append("s", events(range(1, 11)))
    page = await engine.read("s", NORMAL, after)
    assert (page.after, page.upto, ids(page)) == (first - 1, 10, [str(n) for n in range(first, 11)])


async def test_the_last_n_of_a_trimmed_lane_begin_at_the_oldest_retained(engine: Any) -> None:
    await engine.append("s", events(range(1, 11)))
    await engine.trim("s", NORMAL, 8)
    assert ids(await engine.read("s", NORMAL, -5)) == ["9", "10"]
    await engine.trim("s", NORMAL, 10)
    page = await engine.read("s", NORMAL, -5)
    assert (page.after, page.upto, page.events) == (10, 10, ())


async def test_a_position_above_the_head_is_told_by_reset(engine: Any) -> None:
    await engine.append("s", events(range(3)))
    for stream, after in (("s", 4), ("unknown", 1)):
        with pytest.raises(PositionLost) as caught:
            await engine.read(stream, NORMAL, after)
        assert caught.value.code == "reset"
        assert caught.value.epoch == (await engine.describe()).epoch


async def test_a_position_below_the_trim_mark_is_told_with_what_is_gone(engine: Any) -> None:
    await engine.append("s", events(range(10)))
    await engine.trim("s", NORMAL, 6)
    for after in (0, 5):
        with pytest.raises(PositionLost) as caught:
            await engine.read("s", NORMAL, after)
        assert (caught.value.code, caught.value.lost) == ("trimmed", (after + 1, 6))
    assert ids(await engine.read("s", NORMAL, 6)) == ["6", "7", "8", "9"]


# Idempotence


async def test_a_known_id_is_answered_with_its_first_position(engine: Any) -> None:
    first = await engine.append("s", events(range(3)))
    again = await engine.append("s", [event(7), event(1), event(2, time="2030-01-01T00:00:00Z")])
    assert [(r.position.offset, r.duplicate) for r in again] == [(4, False), (2, True), (3, True)]
    assert again[1].position == first[1].position
    assert [e.id for _, e in await read_all(engine, "s", NORMAL)] == ["0", "1", "2", "7"]


async def test_the_first_lane_wins(engine: Any) -> None:
    await engine.append("s", [event(1, lane=CRITICAL)])
    receipt = (await engine.append("s", [event(1, lane=NORMAL)]))[0]
    assert (receipt.lane, receipt.position.offset, receipt.duplicate) == (CRITICAL, 1, True)
    assert (await engine.describe("s")).streams["s"][NORMAL] == LaneState()


async def test_duplicates_within_one_append_are_seen(engine: Any) -> None:
    receipts = await engine.append("s", [event(1), event(2), event(1), event(1, lane=CRITICAL)])
    assert [(r.lane, r.position.offset, r.duplicate) for r in receipts] == [
        (NORMAL, 1, False),
        (NORMAL, 2, False),
        (NORMAL, 1, True),
        (NORMAL, 1, True),
    ]


async def test_the_same_id_from_another_source_or_on_another_stream_is_another_event(engine: Any) -> None:
    receipts = await engine.append("s", [event("bc", source="a"), event("c", source="ab")])
    receipts += await engine.append("t", [event("bc", source="a")])
    assert [r.duplicate for r in receipts] == [False, False, False]


@pytest.mark.parametrize("other", [{"type": "other"}, {"subject": "x"}, {"data": [1, 2]}])
async def test_another_body_under_a_known_id_is_refused_and_nothing_of_the_append_stays(
    engine: Any, other: dict[str, Any]
) -> None:
    await engine.append("s", [event("known", [2, 1])])
    before = await engine.describe()
    for stream in ("s", "new"):
        known = [event("known", [2, 1])] if stream == "new" else []
        changed = event("known", **({"data": [2, 1]} | other))
        with pytest.raises(IdConflict) as caught:
            await engine.append(stream, [event("fresh"), event("fresh2", lane=CRITICAL), *known, changed])
        assert caught.value.fields == {"id": "known", "index": 2 + len(known)}
        assert not caught.value.temporary
    assert await engine.describe() == before
    assert [r.duplicate for r in await engine.append("s", [event("fresh")])] == [False]


async def test_the_first_event_that_differs_from_what_is_known_is_the_one_that_is_named(engine: Any) -> None:
    await engine.append("s", [event(1, "known")])
    with pytest.raises(IdConflict) as caught:
        await engine.append("s", [event(1, "other"), event(1, "known")])
    assert caught.value.fields["index"] == 0


async def test_a_body_is_the_same_whatever_the_order_of_its_keys(engine: Any) -> None:
    await engine.append("s", [event(1, {"a": 1, "b": {"c": 2, "d": 3}})])
    receipts = await engine.append("s", [event(1, {"b": {"d": 3, "c": 2}, "a": 1})])
    assert receipts[0].duplicate


async def test_concurrent_publishes_of_the_same_events_add_them_once(engine: Any) -> None:
    answers = await asyncio.gather(
        *(engine.append("s", events(range(n, n + 5))) for n in [0, 3, 0, 2, 5] * 4)
    )
    places: dict[str, set[int]] = {}
    for receipt in (r for answer in answers for r in answer):
        places.setdefault(receipt.id, set()).add(receipt.position.offset)
    assert all(len(offsets) == 1 for offsets in places.values())
    fresh = [r.id for answer in answers for r in answer if not r.duplicate]
    assert sorted(fresh, key=int) == [str(n) for n in range(10)]
    assert len(await read_all(engine, "s", NORMAL)) == 10


async def test_a_refused_append_does_not_touch_its_neighbours(engine: Any) -> None:
    await engine.append("s", [event("known")])
    answers = await asyncio.gather(
        engine.append("s", [event("a")]),
        engine.append("s", [event("b"), event("known", "changed")]),
        engine.append("s", [event("c"), event("b", "another b")]),
        engine.append("t", [event("x"), event("x", "changed")]),
        return_exceptions=True,
    )
    assert [isinstance(answer, IdConflict) for answer in answers] == [False, True, False, True]
    assert [e.id for _, e in await read_all(engine, "s", NORMAL)] == ["known", "a", "c", "b"]
    assert set((await engine.describe()).streams) == {"s"}


async def test_an_event_that_no_utf8_can_hold_is_refused(engine: Any) -> None:
    with pytest.raises(InvalidEvent) as caught:
        await engine.append("s", [event(1), event("\ud800")])
    assert caught.value.fields["index"] == 1
    assert (await engine.describe()).streams == {}


async def test_the_id_of_a_trimmed_event_is_still_known_with_its_position(engine: Any) -> None:
    await engine.append("s", events(range(5)))
    await engine.trim("s", NORMAL, 5)
    receipts = await engine.append("s", [event(2), event("fresh")])
    assert [(r.position.offset, r.duplicate) for r in receipts] == [(3, True), (6, False)]
    with pytest.raises(IdConflict):
        await engine.append("s", [event(2, "changed")])


async def test_ids_are_forgotten_when_they_are_old_and_their_events_gone(backend: Backend) -> None:
    engine = backend.open(ids_age=100.0, retention=Retention(age=10.0))
    await engine.append("s", [event("old")])
    backend.clock.advance(99)
    await engine.append("s", [event("young")])
    await engine.trim()
    assert (await engine.append("s", [event("old")]))[0].duplicate
    backend.clock.advance(2)
    await engine.trim()
    again = await engine.append("s", [event("old", "another body now"), event("young")])
    assert [(r.position.offset, r.duplicate) for r in again] == [(3, False), (2, True)]
    assert engine.statistics().counts is not None


async def test_ids_are_known_as_long_as_their_events_are_retained(backend: Backend) -> None:
    engine = backend.open(ids_age=100.0, retention=Retention(age=1000.0))
    await engine.append("s", [event(1)])
    backend.clock.advance(500)
    await engine.trim()
    assert (await engine.append("s", [event(1)]))[0].duplicate


async def test_ids_are_kept_for_seven_days_by_default(backend: Backend) -> None:
    engine = backend.open(retention=Retention(age=1.0))
    await engine.append("s", [event(1)])
    backend.clock.advance(7 * DAY - 1)
    assert await engine.trim() == 1
    assert (await engine.append("s", [event(1)]))[0].duplicate
    backend.clock.advance(2)
    await engine.trim()
    assert not (await engine.append("s", [event(1)]))[0].duplicate


# Retention


async def test_trimming_up_to_an_offset_leaves_head_and_the_other_lane(engine: Any) -> None:
    await engine.append("s", events(range(10)) + events(range(10, 15), lane=CRITICAL))
    assert await engine.trim("s", NORMAL, 4) == 4
    lanes = (await engine.describe("s")).streams["s"]
    assert (lanes[NORMAL].head, lanes[NORMAL].trimmed, lanes[NORMAL].events) == (10, 4, 6)
    assert lanes[NORMAL].bytes == sum(size(e) for e in events(range(4, 10)))
    assert (lanes[CRITICAL].trimmed, lanes[CRITICAL].events) == (0, 5)
    assert await engine.trim("s", NORMAL, 3) == 0


async def test_what_trimming_would_take_is_counted_and_stays(engine: Any) -> None:
    await engine.append("s", events(range(10)))
    for upto, would in ((0, 0), (4, 4), (99, 10)):
        assert await engine.trim("s", NORMAL, upto, dry_run=True) == would
    assert (await engine.describe("s")).streams["s"][NORMAL].events == 10
    await engine.trim("s", NORMAL, 4)
    assert [await engine.trim("s", NORMAL, upto, dry_run=True) for upto in (3, 6)] == [0, 2]
    assert await engine.trim("unknown", NORMAL, 5, dry_run=True) == 0
    with pytest.raises(InvalidRequest):
        await engine.trim("s", NORMAL, dry_run=True)


async def test_a_lane_that_was_trimmed_completely_goes_on_at_its_head(engine: Any) -> None:
    await engine.append("s", events(range(5)))
    assert await engine.trim("s", NORMAL, 99) == 5
    assert (await engine.describe("s")).streams["s"][NORMAL] == LaneState(head=5, trimmed=5)
    assert (await engine.append("s", [event("next")]))[0].position.offset == 6
    assert ids(await engine.read("s", NORMAL, 5)) == ["next"]


async def test_trimming_what_is_not_there_does_nothing(engine: Any) -> None:
    assert await engine.trim() == 0
    assert await engine.trim("unknown", NORMAL, 5) == 0
    assert (await engine.describe()).streams == {}


@pytest.mark.parametrize("which", [(None, None, 3), ("s", None, 3), (None, NORMAL, None), (None, NORMAL, 3)])
async def test_trimming_without_saying_which_lane_is_refused(engine: Any, which: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidRequest):
        await engine.trim(*which)


async def test_retention_by_count_holds_per_lane(backend: Backend) -> None:
    engine = backend.open(retention=Retention(events=10))
    await engine.append("s", events(range(25)) + events(range(25, 40), lane=CRITICAL))
    await engine.append("t", events(range(5)))
    assert await engine.trim() == 15 + 5
    described = (await engine.describe()).streams
    assert [described["s"][lane].events for lane in (CRITICAL, NORMAL)] == [10, 10]
    assert described["t"][NORMAL].events == 5
    assert await engine.trim() == 0


async def test_retention_by_bytes(backend: Backend) -> None:
    some = events(range(20), data="x" * 100)
    engine = backend.open(retention=Retention(bytes=5 * size(some[-1])))
    await engine.append("s", some)
    assert await engine.trim() == 15
    lane = (await engine.describe("s")).streams["s"][NORMAL]
    assert (lane.events, lane.bytes) == (5, 5 * size(some[-1]))


async def test_retention_by_age_counts_from_the_append_not_from_the_events_time(backend: Backend) -> None:
    engine = backend.open(retention=Retention(age=60.0))
    await engine.append("s", [event("early", time="1990-01-01T00:00:00Z")])
    backend.clock.advance(1)
    await engine.append("s", [event("late", time="2090-01-01T00:00:00Z")])
    backend.clock.advance(58.5)
    assert await engine.trim() == 0
    backend.clock.advance(1)
    assert await engine.trim() == 1
    assert ids(await engine.read("s", NORMAL, 1)) == ["late"]


async def test_retention_applies_to_one_stream_or_lane_when_asked(backend: Backend) -> None:
    engine = backend.open(retention=Retention(events=1))
    for stream in ("s", "t"):
        await engine.append(stream, events(range(3)) + events(range(3, 6), lane=CRITICAL))
    assert await engine.trim("s", CRITICAL) == 2
    assert await engine.trim("s") == 2
    assert await engine.trim() == 4


async def test_a_long_lane_is_trimmed_whole(backend: Backend) -> None:
    engine = backend.open(retention=Retention(events=7))
    for start in range(0, 5000, 1000):
        await engine.append("s", events(range(start, start + 1000)))
    assert await engine.trim() == 4993
    assert (await engine.describe("s")).streams["s"][NORMAL].bytes == sum(
        size(e) for e in events(range(4993, 5000))
    )
