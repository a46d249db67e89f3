"""The broadcaster before an engine that fails: retried without a double, given up without a loss.

Time is handed in: the clock stands still, and a round is `await cast.process()`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from steadcast.core.backoff import Backoff
from steadcast.core.breaker import Breaker, State
from steadcast.core.retry import RetryQueue
from steadcast.engines.memory import MemoryEngine
from steadcast.errors import (
    Abandoned,
    BreakerOpen,
    Draining,
    EngineUnavailable,
    IdConflict,
    InvalidRequest,
    QueueFull,
    SteadcastError,
    Unavailable,
)
from steadcast.event import LANES, Event, Lane
from steadcast.socketio.broadcaster import SocketIOEventBroadcaster
from steadcast.socketio.dead import DeadEvents
from steadcast.testing import FaultyEngine, ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

CRITICAL, NORMAL = Lane.CRITICAL, Lane.NORMAL


def event(name: str, data: bytes = b"{}", lane: Lane = NORMAL) -> Event:
    return Event(name, "test", "order.paid", "2026-01-31T12:00:00Z", msgspec.Raw(data), lane)


class Stage:
    """A broadcaster with its engine, dead events and clock; nothing runs in the background by itself."""

    def __init__(self, path: Path | None = None, **given: Any) -> None:
        self.clock = ManualClock()
        self.engine = FaultyEngine(MemoryEngine())
        self.dead = DeadEvents(self.engine, path=path)
        given.setdefault("append_timeout", 1.0)
        given.setdefault("breaker", Breaker(failures=1_000))
        self.cast = SocketIOEventBroadcaster(self.engine.append, clock=self.clock, dead=self.dead, **given)

    async def rounds(self, count: int, every: float = 2.0) -> None:
        for _ in range(count):
            self.clock.advance(every)
            await self.cast.process()

    async def logged(self, stream: str = "s") -> list[Event]:
        pages = [await self.engine.engine.read(stream, lane, 0) for lane in LANES]
        return [entry.event for page in pages for entry in page.events]

    async def ids(self, stream: str = "s") -> list[str]:
        return [each.id for each in await self.logged(stream)]

    async def dead_reasons(self) -> dict[str, str]:
        return {each.event.id: each.reason for each in (await self.dead.list()).dead}

    def publishing(self, *events: Event, stream: str = "s") -> asyncio.Task[Any]:
        return asyncio.create_task(self.cast.publish(stream, events))

    async def queued(self, *events: Event, stream: str = "s") -> asyncio.Task[Any]:
        """Publish, and wait until that stands in the retry queue."""
        before = self.cast.queue.stats["queued"]
        task = self.publishing(*events, stream=stream)
        await until(lambda: self.cast.queue.stats["queued"] > before)
        return task

    async def drained(self) -> None:
        await until(lambda: not self.cast.statistics()["pending"])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.cast.aclose(limit=0.05)


# Publishing from inside


async def test_a_publish_returns_the_position_once_it_is_durable(stage: Stage) -> None:
    [receipt] = await stage.cast.publish("s", event("1"))
    assert (receipt.id, receipt.position.offset, receipt.duplicate) == ("1", 1, False)
    assert stage.cast.queue.stats["queued"] == 0


async def test_several_events_are_published_all_or_none_and_each_gets_its_receipt(stage: Stage) -> None:
    stage.engine.fail_appends(1)
    task = await stage.queued(event("1"), event("2", lane=CRITICAL), event("3"))
    assert await stage.ids() == []
    await stage.rounds(1)
    assert [receipt.id for receipt in await task] == ["1", "2", "3"]
    assert stage.cast.queue.stats == {
        "queued": 3,
        "retried": 3,
        "succeeded": 3,
        "abandoned": 0,
        "queue_size": 0,
    }


async def test_nothing_to_publish_asks_nobody(stage: Stage) -> None:
    assert await stage.cast.publish("s", []) == []
    assert stage.engine.counts["appends"] == 0


async def test_a_publish_waits_through_the_retries_of_an_engine_that_is_away(stage: Stage) -> None:
    stage.engine.fail_appends(3)
    task = await stage.queued(event("1"))
    await stage.rounds(3)
    assert not task.done()
    await stage.rounds(2)
    [receipt] = await task
    assert receipt.position.offset == 1
    assert stage.cast.queue.stats["retried"] == 3


async def test_a_retried_event_keeps_its_id_time_and_type(stage: Stage) -> None:
    """Once a retry delivered the event twice, under another name, with a new timestamp and no id."""
    original = event("1", b'{"a":1}')
    stage.engine.answers_lost = True
    task = await stage.queued(original)
    stage.engine.heal()
    await stage.rounds(1)
    [receipt] = await task
    assert receipt.duplicate
    assert receipt.position.offset == 1
    assert await stage.logged() == [original]


async def test_an_append_that_hangs_and_arrives_later_is_not_doubled(stage: Stage) -> None:
    appended = asyncio.Event()
    engine = stage.engine.engine

    async def slow(stream: str, events: Any) -> Any:
        if appended.is_set():
            return await engine.append(stream, events)
        await engine.append(stream, events)
        appended.set()
        await asyncio.Event().wait()
        return None

    cast = SocketIOEventBroadcaster(slow, clock=stage.clock, append_timeout=0.01)
    task = asyncio.create_task(cast.publish("s", event("1")))
    await until(lambda: cast.queue.stats["queued"])
    stage.clock.advance(1)
    await cast.process()
    [receipt] = await task
    assert receipt.duplicate
    assert await stage.ids() == ["1"]
    await cast.aclose()


async def test_a_publish_that_is_given_up_raises_with_the_reason_and_leaves_a_dead_event(
    stage: Stage,
) -> None:
    stage.engine.fail_appends()
    task = await stage.queued(event("1"))
    await stage.rounds(6)
    with pytest.raises(Abandoned) as caught:
        await task
    assert caught.value.fields == {"reason": "exhausted", "attempts": 4}
    assert isinstance(caught.value.__cause__, EngineUnavailable)
    stage.engine.heal()
    await stage.rounds(1)
    [dead] = (await stage.dead.list()).dead
    assert (dead.stream, dead.event.id, dead.reason, dead.attempts) == ("s", "1", "exhausted", 4)


async def test_what_no_retry_can_help_raises_at_once_and_is_not_queued(stage: Stage) -> None:
    await stage.cast.publish("s", event("1"))
    with pytest.raises(IdConflict):
        await stage.cast.publish("s", event("1", b'"another body"'))
    assert stage.cast.queue.stats["queued"] == 0
    assert await stage.dead_reasons() == {}


async def test_a_refusal_on_a_retry_raises_what_the_log_said(stage: Stage) -> None:
    stage.engine.fail_appends(1)
    task = await stage.queued(event("1"))
    await stage.engine.append("s", [event("1", b'"another body"')])
    await stage.rounds(1)
    with pytest.raises(IdConflict):
        await task
    assert stage.cast.queue.abandoned_by["refused"] == 1
    assert await stage.dead_reasons() == {"1": "refused"}


async def test_one_refused_event_does_not_take_its_neighbours_along(stage: Stage) -> None:
    stage.engine.fail_appends(3)
    tasks = [await stage.queued(event(name)) for name in ("1", "2", "3")]
    await stage.engine.append("s", [event("2", b'"another body"')])
    await stage.rounds(1)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[1], IdConflict)
    assert await stage.ids() == ["2", "1", "3"]


async def test_a_cancelled_publish_leaves_its_event_in_the_queue_and_it_arrives(stage: Stage) -> None:
    stage.engine.fail_appends(1)
    task = await stage.queued(event("1"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await stage.rounds(1)
    assert await stage.ids() == ["1"]


async def test_a_publish_that_is_cancelled_in_its_first_try_is_no_failure_of_the_engine(stage: Stage) -> None:
    stage.engine.append_hangs = True
    task = stage.publishing(event("1"))
    await until(lambda: stage.engine.counts["appends_hung"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.cast.breaker.counts["released"] == 1
    assert stage.cast.queue.stats["queued"] == 0


async def test_an_engine_that_raises_what_it_should_not_is_an_engine_that_failed(stage: Stage) -> None:
    async def broken(stream: str, events: Any) -> Any:
        raise ZeroDivisionError

    cast = SocketIOEventBroadcaster(broken, clock=stage.clock)
    with pytest.raises(EngineUnavailable, match="ZeroDivisionError"):
        await cast.append_once("s", [event("1")])
    assert cast.counts["unexpected"] == 1
    assert cast.breaker.counts["failed"] == 1


# The retry queue's numbers, seen from outside


async def test_the_processor_looks_every_two_seconds_by_default() -> None:
    cast = SocketIOEventBroadcaster(MemoryEngine().append)
    assert cast.retry_interval == 2.0
    assert cast.append_timeout == 5.0


async def test_retries_come_at_the_first_look_after_1_2_and_4_seconds(stage: Stage) -> None:
    """Once they came after 0, 2 and 4 s, whatever was set. Looks every 2 s, from 0: due at 1, 4 and 8."""
    stage.engine.fail_appends()
    task = await stage.queued(event("1"))
    tried = []
    for _ in range(8):
        before = stage.cast.queue.stats["retried"]
        await stage.rounds(1)
        if stage.cast.queue.stats["retried"] > before:
            tried.append(stage.clock())
    assert tried == [2, 4, 8]
    with pytest.raises(Abandoned):
        await task


async def test_delays_that_were_set_are_kept() -> None:
    made = Stage(queue=RetryQueue(backoff=Backoff(base=5, factor=1, cap=5, spread=0), max_retries=2))
    made.engine.fail_appends()
    task = await made.queued(event("1"))
    tried = []
    for _ in range(12):
        before = made.cast.queue.stats["retried"]
        await made.rounds(1, every=1.0)
        if made.cast.queue.stats["retried"] > before:
            tried.append(made.clock())
    assert tried == [5, 10]
    with pytest.raises(Abandoned):
        await task


async def test_exhausted_and_overflowing_events_are_counted_and_kept(tmp_path: Path) -> None:
    """Once both vanished uncounted."""
    made = Stage(tmp_path / "dead", queue=RetryQueue(max_size=2))
    made.engine.fail_appends()
    tasks = [await made.queued(event(name)) for name in ("1", "2", "3")]
    await made.rounds(6)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    reasons = [outcome.fields["reason"] for outcome in outcomes if isinstance(outcome, Abandoned)]
    assert reasons == ["evicted", "exhausted", "exhausted"]
    assert made.cast.queue.stats["abandoned"] == 3
    assert made.cast.queue.abandoned_by["evicted"] == 1
    made.engine.heal()
    await made.rounds(1)
    assert await made.dead_reasons() == {"1": "evicted", "2": "exhausted", "3": "exhausted"}


async def test_critical_events_are_retried_before_normal_ones(stage: Stage) -> None:
    stage.engine.fail_appends(3)
    lanes = {"n1": NORMAL, "c1": CRITICAL, "n2": NORMAL}
    for name, lane in lanes.items():
        await stage.queued(event(name, lane=lane), stream=name)
    watch = stage.engine.watch()
    await stage.rounds(1)
    order = [(await watch.__anext__()).stream for _ in lanes]
    await watch.aclose()
    assert order == ["c1", "n1", "n2"]


async def test_events_of_one_stream_are_retried_in_order_and_in_one_append(stage: Stage) -> None:
    stage.engine.fail_appends(50)
    names = [str(number) for number in range(50)]
    for name in names:
        await stage.queued(event(name))
    before = stage.engine.counts["appends"]
    await stage.rounds(1)
    assert await stage.ids() == names
    assert stage.engine.counts["appends"] == before + 1


async def test_an_event_that_is_too_old_is_given_up_while_the_breaker_is_open() -> None:
    made = Stage(breaker=Breaker(failures=1, open_for=Backoff(base=100, cap=100, spread=0)))
    made.engine.fail_appends()
    task = await made.queued(event("1"))
    await made.rounds(16)
    with pytest.raises(Abandoned) as caught:
        await task
    assert caught.value.fields["reason"] == "expired"
    assert made.cast.queue.stats["retried"] == 0


# The circuit breaker


async def test_an_open_breaker_spares_the_engine_and_says_when_to_come_again() -> None:
    made = Stage(breaker=Breaker(failures=3, open_for=Backoff(base=4, cap=8, spread=0)))
    made.engine.fail_appends()
    for _ in range(3):
        with pytest.raises(EngineUnavailable):
            await made.cast.append_once("s", [event("1")])
    made.clock.advance(1)
    with pytest.raises(BreakerOpen) as caught:
        await made.cast.append_once("s", [event("1")])
    assert caught.value.retry_after == 3
    assert caught.value.temporary
    assert made.engine.counts["appends"] == 3


async def test_a_publish_from_outside_is_never_queued(stage: Stage) -> None:
    stage.engine.fail_appends()
    with pytest.raises(EngineUnavailable):
        await stage.cast.append_once("s", [event("1")])
    assert stage.cast.queue.stats["queued"] == 0


async def test_an_append_that_hangs_counts_as_failed() -> None:
    made = Stage(append_timeout=0.01, breaker=Breaker(failures=1))
    made.engine.append_hangs = True
    with pytest.raises(EngineUnavailable) as caught:
        await made.cast.append_once("s", [event("1")])
    assert caught.value.temporary
    assert made.cast.breaker.state is State.OPEN


async def test_refusals_of_bad_input_leave_the_breaker_closed() -> None:
    made = Stage(breaker=Breaker(failures=1))
    await made.cast.append_once("s", [event("1")])
    with pytest.raises(IdConflict):
        await made.cast.append_once("s", [event("1", b'"another body"')])
    assert made.cast.breaker.state is State.CLOSED


async def test_a_log_that_has_too_much_to_write_does_not_count_as_one_that_fails() -> None:
    made = Stage(breaker=Breaker(failures=1))
    made.engine.fail_appends(error=QueueFull("too much is waiting to be written", retry_after=1.0))
    for number in range(10):
        with pytest.raises(QueueFull):
            await made.cast.append_once("s", [event(str(number))])
    made.engine.fail_appends(0)
    assert [each.id for each in await made.cast.append_once("s", [event("last")])] == ["last"]
    assert made.cast.breaker.counts == {"allowed": 11, "released": 10, "succeeded": 1}


async def test_a_refusal_by_an_open_breaker_uses_up_no_attempt() -> None:
    made = Stage(breaker=Breaker(failures=1, open_for=Backoff(base=1, cap=1, spread=0)))
    made.engine.fail_appends()
    task = await made.queued(event("1"))
    await made.rounds(12)
    assert made.cast.queue.stats["retried"] == 0
    made.engine.heal()
    await made.rounds(1)
    assert len(await task) == 1


async def test_a_breaker_that_opens_in_the_middle_of_a_round_spares_the_rest_its_attempt() -> None:
    made = Stage(breaker=Breaker(failures=3))
    made.engine.fail_appends()
    for name in ("1", "2"):
        await made.queued(event(name), stream=name)
    await made.rounds(1)
    assert made.cast.breaker.state is State.OPEN
    assert made.cast.queue.stats["retried"] == 1
    made.engine.heal()
    await made.rounds(2)
    assert made.cast.queue.stats["succeeded"] == 2


async def test_an_open_breakers_refusal_is_no_attempt_of_a_dead_event_either() -> None:
    made = Stage(breaker=Breaker(failures=1, open_for=Backoff(base=100, cap=100, spread=0)))
    made.engine.fail_appends()
    tasks = [await made.queued(event(name)) for name in ("tried", "spared")]
    await made.rounds(16)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [outcome.fields["attempts"] for outcome in outcomes if isinstance(outcome, Abandoned)] == [1, 0]


async def test_the_engine_is_found_again_without_any_traffic() -> None:
    made = Stage(breaker=Breaker(failures=1))
    made.engine.fail_appends()
    with pytest.raises(EngineUnavailable):
        await made.cast.append_once("s", [event("1")])
    made.engine.heal()
    await made.rounds(1)
    assert made.cast.breaker.state is State.CLOSED
    assert made.cast.statistics()["breaker"]["state"] == "closed"  # type: ignore[index]


async def test_when_the_engine_comes_back_everything_in_the_queue_arrives_in_one_round() -> None:
    made = Stage(breaker=Breaker(failures=2))
    made.engine.go_away()
    tasks = [await made.queued(event(str(number)), stream=f"s{number % 3}") for number in range(30)]
    await made.rounds(5)
    made.engine.heal()
    await made.rounds(5)
    assert all(len(receipts) == 1 for receipts in await asyncio.gather(*tasks))
    assert made.cast.queue.stats["abandoned"] == 0


# Handing over


async def test_a_broadcast_returns_at_once_and_arrives_in_order(stage: Stage) -> None:
    stage.cast.start()
    names = [str(number) for number in range(40)]
    for name in names:
        stage.cast.broadcast("s", event(name))
    assert await stage.ids() == []
    await stage.drained()
    assert await stage.ids() == names
    assert stage.cast.counts["accepted"] == 40


async def test_a_broadcast_to_an_engine_that_is_away_is_retried_and_arrives(stage: Stage) -> None:
    stage.cast.start()
    stage.engine.fail_appends(1)
    stage.cast.broadcast("s", event("1"))
    await stage.drained()
    assert await stage.ids() == []
    await stage.rounds(1)
    assert await stage.ids() == ["1"]


async def test_a_broadcast_that_is_refused_for_good_is_a_dead_event_at_once(stage: Stage) -> None:
    stage.cast.start()
    await stage.engine.append("s", [event("2", b'"another body"')])
    for name in ("1", "2", "3"):
        stage.cast.broadcast("s", event(name))
    await stage.drained()
    assert await stage.ids() == ["2", "1", "3"]
    assert await stage.dead_reasons() == {"2": "refused"}
    assert stage.cast.counts["refused"] == 1


async def test_what_the_inbox_has_no_room_for_goes_to_the_retry_queue(stage: Stage) -> None:
    made = Stage(inbox_limit=2)
    for name in ("1", "2", "3"):
        made.cast.broadcast("s", event(name))
    assert made.cast.statistics()["pending"] == 2
    assert (made.cast.counts["overflowed"], made.cast.queue.stats["queued"]) == (1, 1)
    await made.rounds(1)
    assert await made.ids() == ["3"]
    await made.cast.aclose()
    assert await made.ids() == ["3", "1", "2"]


async def test_a_burst_on_an_engine_that_hangs_is_bounded_and_every_event_is_counted() -> None:
    made = Stage(append_timeout=0.01, inbox_limit=10, queue=RetryQueue(max_size=20))
    made.cast.start()
    made.engine.append_hangs = True
    for number in range(100):
        made.cast.broadcast("s", event(str(number)))
    await made.drained()
    await made.rounds(20)
    counts, stats = made.cast.counts, made.cast.queue.stats
    assert counts["handed"] == 100 == counts["accepted"] + counts["queued"] + counts["refused"]
    assert stats["queued"] == 100 == stats["abandoned"]
    assert made.dead.counts["buried"] == 100
    made.engine.heal()
    await made.rounds(1)
    assert len((await made.dead.list()).dead) == 100
    await made.cast.aclose()


# The background


async def test_the_processor_runs_by_itself_at_the_interval_that_is_set() -> None:
    engine = FaultyEngine(MemoryEngine())
    queue: RetryQueue[Any] = RetryQueue(backoff=Backoff(base=0.001, cap=0.001, spread=0))
    cast = SocketIOEventBroadcaster(engine.append, retry_interval=0.005, queue=queue)
    cast.start()
    engine.fail_appends(2)
    assert len(await cast.publish("s", event("1"))) == 1
    assert queue.stats["retried"] == 2
    await cast.aclose()


async def test_what_is_given_up_is_in_the_file_at_once_and_survives_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "dead"
    made = Stage(path, queue=RetryQueue(max_size=1))
    made.cast.start()
    made.engine.fail_appends()
    for name in ("1", "2"):
        made.cast.broadcast("s", event(name))
    await made.drained()
    async with asyncio.timeout(30):
        while not (path.exists() and path.read_bytes()):
            await asyncio.sleep(0.001)
    again = DeadEvents(FaultyEngine(MemoryEngine()), path=path)
    await again.start()
    assert [each.event.id for each in (await again.list()).dead] == ["1"]
    await made.cast.aclose(limit=0.05)


async def test_a_defect_in_a_round_does_not_end_the_rounds(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = []

    async def process() -> None:
        rounds.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr(stage.cast, "process", process)
    stage.cast.retry_interval = 0.001
    stage.cast.start()
    await asyncio.wait_for(until_slowly(lambda: len(rounds) >= 3), 30)
    assert stage.cast.counts["rounds_failed"] >= 2


async def until_slowly(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


# The words in the log


async def test_the_log_has_the_specifications_lines_word_for_word(stage: Stage) -> None:
    stage.engine.fail_appends(2)
    for name in ("1", "2"):
        await stage.queued(event(name))
    with capture_logs() as logs:
        await stage.rounds(2)
    said = [entry["event"] for entry in logs if entry["log_level"] == "info"]
    assert said == [
        "🔄 Processing 2 events from retry queue",
        "📊 Retry queue stats - queued: 2, retried: 2, succeeded: 2",
    ]


async def test_a_round_that_did_nothing_says_nothing(stage: Stage) -> None:
    with capture_logs() as logs:
        await stage.rounds(3)
    assert logs == []


async def test_a_round_that_only_gave_up_tells_the_numbers() -> None:
    made = Stage(breaker=Breaker(failures=1, open_for=Backoff(base=100, cap=100, spread=0)))
    made.engine.fail_appends()
    await made.queued(event("1"))
    made.clock.advance(30)
    with capture_logs() as logs:
        await made.cast.process()
    said = [entry["event"] for entry in logs if entry["log_level"] == "info"]
    assert said == ["📊 Retry queue stats - queued: 1, retried: 0, succeeded: 0"]
    warned = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [(entry["event"], entry["expired"]) for entry in warned] == [("events were given up", 1)]


# Closing


async def test_on_close_what_is_queued_gets_one_last_try(stage: Stage) -> None:
    stage.engine.fail_appends(1)
    task = await stage.queued(event("1"))
    await stage.cast.aclose()
    assert len(await task) == 1
    assert await stage.ids() == ["1"]


async def test_on_close_what_fails_again_is_kept_as_closed(tmp_path: Path) -> None:
    path = tmp_path / "dead"
    made = Stage(path)
    made.cast.start()
    made.engine.fail_appends()
    task = await made.queued(event("1"))
    made.cast.broadcast("s", event("2"))
    with capture_logs() as logs:
        await made.cast.aclose()
    assert [entry["closed"] for entry in logs if entry["event"] == "events were given up"] == [2]
    with pytest.raises(Abandoned) as caught:
        await task
    assert caught.value.fields["reason"] == "closed"
    again = DeadEvents(FaultyEngine(MemoryEngine()), path=path)
    await again.keep()
    assert {each.event.id: each.reason for each in (await again.list()).dead} == {
        "1": "closed",
        "2": "closed",
    }


async def test_closing_ends_within_its_limit_though_the_engine_hangs(tmp_path: Path) -> None:
    made = Stage(tmp_path / "dead", append_timeout=60)
    made.engine.fail_appends(2)
    tasks = [await made.queued(event(name), stream=name) for name in ("1", "2")]
    made.engine.append_hangs = True
    started = asyncio.get_running_loop().time()
    await made.cast.aclose(limit=0.05)
    assert asyncio.get_running_loop().time() - started < 5
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Abandoned, Abandoned]
    assert made.cast.queue.abandoned_by["closed"] == 2
    assert (tmp_path / "dead").read_bytes().count(b"\n") == 2


async def test_closing_in_the_middle_of_a_first_try_loses_nothing() -> None:
    made = Stage(append_timeout=60)
    made.cast.start()
    made.engine.append_hangs = True
    for name in ("1", "2"):
        made.cast.broadcast("s", event(name))
    await until(lambda: made.engine.counts["appends_hung"])
    closing = asyncio.create_task(made.cast.aclose())
    await until(lambda: made.engine.counts["appends_hung"] == 2)
    made.engine.heal()
    await closing
    assert await made.ids() == ["1", "2"]


async def test_a_closed_broadcaster_takes_nothing_more(stage: Stage) -> None:
    await stage.cast.aclose()
    with pytest.raises(Draining):
        await stage.cast.publish("s", event("1"))
    with pytest.raises(Draining):
        stage.cast.broadcast("s", event("1"))
    await stage.cast.aclose()


async def test_a_publish_that_fails_while_the_broadcaster_closes_raises_its_failure(stage: Stage) -> None:
    stage.engine.append_hangs = True
    task = stage.publishing(event("1"))
    await until(lambda: stage.engine.counts["appends_hung"])
    await stage.cast.aclose()
    stage.engine.fill_disk()
    stage.engine.append_hangs = False
    with pytest.raises(Unavailable):
        await task
    assert stage.cast.queue.stats["queued"] == 0


# Whatever happens


faults = st.sampled_from(["none", "away", "full", "lost", "hangs"])
steps = st.lists(st.tuples(faults, st.integers(0, 3), st.booleans()), min_size=1, max_size=12)


@given(steps)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_event_ends_in_the_log_once_or_dead_and_the_numbers_say_so(
    script: list[tuple[str, int, bool]],
) -> None:
    asyncio.run(play(script))


async def play(script: list[tuple[str, int, bool]]) -> None:
    made = Stage(append_timeout=0.002, breaker=Breaker(failures=2), queue=RetryQueue(max_size=4))
    made.cast.start()
    tasks: dict[str, asyncio.Task[Any]] = {}
    sent: list[str] = []
    for fault, count, waits in script:
        switch(made.engine, fault)
        for _ in range(count):
            name = str(len(sent))
            sent.append(name)
            lane = CRITICAL if len(sent) % 3 == 0 else NORMAL
            if waits:
                tasks[name] = made.publishing(event(name, lane=lane))
            else:
                made.cast.broadcast("s", event(name, lane=lane))
        await made.drained()
        await made.rounds(1, every=3.0)
    made.engine.heal()
    async with asyncio.timeout(30):
        while not all(task.done() for task in tasks.values()):
            await made.rounds(1)
            await asyncio.sleep(0)
    await made.cast.aclose()
    await account(made, sent, tasks)


def switch(engine: FaultyEngine, fault: str) -> None:
    engine.heal()
    match fault:
        case "away":
            engine.go_away()
        case "full":
            engine.fill_disk()
        case "lost":
            engine.answers_lost = True
        case "hangs":
            engine.append_hangs = True


async def account(made: Stage, sent: list[str], tasks: dict[str, asyncio.Task[Any]]) -> None:
    outcomes = dict(zip(tasks, await asyncio.gather(*tasks.values(), return_exceptions=True), strict=True))
    logged = await made.ids()
    dead = await made.dead_reasons()
    assert len(logged) == len(set(logged))
    assert set(logged) | set(dead) == set(sent)
    for name, outcome in outcomes.items():
        assert name in (dead if isinstance(outcome, SteadcastError) else logged)
    stats = made.cast.queue.stats
    assert stats["queued"] == stats["succeeded"] + stats["abandoned"]
    assert stats["queue_size"] == 0
    counts = made.cast.counts
    assert counts["handed"] == counts["accepted"] + counts["queued"] + counts["refused"]
    assert counts["rounds_failed"] == 0


async def test_an_invalid_request_from_the_log_reaches_the_caller_as_it_is(stage: Stage) -> None:
    stage.engine.fail_appends(error=InvalidRequest("no"))
    with pytest.raises(InvalidRequest):
        await stage.cast.publish("s", event("1"))
