"""Event delivery as specified, in four groups: retry queue, timeout decorator, health, end to end.

`docs/specification.md` names, for each of its sentences, the test that shows it. Nothing waits for a real
default: time is handed in, or every wait is scaled down.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import socketio
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from steadcast import timeout_handler
from steadcast.app import Steadcast
from steadcast.config import Settings
from steadcast.core.breaker import Breaker, State
from steadcast.core.retry import REASONS, Abandon, Retry, RetryQueue
from steadcast.engines.base import Retention
from steadcast.engines.memory import MemoryEngine
from steadcast.engines.sqlite import SqliteEngine
from steadcast.errors import Abandoned, BreakerOpen, EngineUnavailable, SteadcastError
from steadcast.event import LANES, Event, Lane
from steadcast.socketio.broadcaster import SocketIOEventBroadcaster
from steadcast.socketio.connections import ConnectionEventHandler
from steadcast.socketio.timeouts import COUNTS, TimeoutCounts, Timeouts, run_limited
from steadcast.testing import FaultProxy, FaultyEngine, ManualClock
from tests.support.delivery import Place, serving, until
from tests.support.house import House, Peer, event, listening
from tests.support.server import Server, wait_until
from tests.support.watched import Watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

NORMAL, CRITICAL = Lane.NORMAL, Lane.CRITICAL
FIVE = ("queued", "retried", "succeeded", "abandoned", "queue_size")


def made(name: str, lane: Lane = NORMAL) -> Event:
    return Event(name, "test", "order.paid", "2026-01-31T12:00:00Z", msgspec.Raw(b"{}"), lane)


def retries(effects: list[Any]) -> list[str]:
    return [effect.entry for effect in effects if isinstance(effect, Retry)]


def given_up(effects: list[Any]) -> dict[str, str]:
    return {effect.entry: effect.reason for effect in effects if isinstance(effect, Abandon)}


class TestRetryQueue:
    """What waits for an engine that failed: a pure machine, its time handed in."""

    def test_there_are_at_most_3_retries_per_event(self) -> None:
        queue = RetryQueue[str](age_limit=1_000.0)
        queue.put(0.0, "a")
        ends: list[Any] = []
        for now in (10.0, 20.0, 30.0):
            [retry] = queue.handle_timeout(now)
            ends = queue.failed(now, retry.ticket)
        assert given_up(ends) == {"a": "exhausted"}
        assert queue.stats == {"queued": 1, "retried": 3, "succeeded": 0, "abandoned": 1, "queue_size": 0}

    def test_the_backoff_is_1_2_4_and_8_seconds_which_is_the_most(self) -> None:
        queue = RetryQueue[str](max_retries=7, age_limit=1_000.0)
        queue.put(0.0, "a")
        now, delays = 0.0, []
        for _ in range(6):
            due = queue.next_deadline()
            assert due is not None
            delays.append(due - now)
            assert not queue.handle_timeout(due - 0.001), "a delay is the earliest time"
            [retry] = queue.handle_timeout(due)
            queue.failed(due, retry.ticket)
            now = due
        assert delays == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]

    def test_delays_that_are_set_are_the_delays_that_are_kept(self) -> None:
        place = Steadcast(
            engine=MemoryEngine(), settings=Settings(retry_delay=0.5, retry_delay_max=0.75, max_retries=5)
        )
        queue = place.broadcaster.queue
        queue.put(0.0, "a")  # type: ignore[arg-type]
        now, delays = 0.0, []
        for _ in range(3):
            due = queue.next_deadline()
            assert due is not None
            [retry] = queue.handle_timeout(due)
            queue.failed(due, retry.ticket)
            delays.append(due - now)
            now = due
        assert delays == [0.5, 0.75, 0.75]

    def test_events_older_than_30_seconds_are_abandoned(self) -> None:
        queue = RetryQueue[str](max_retries=100)
        queue.put(1.0, "a", since=0.0)
        assert given_up(queue.expire(29.999)) == {}
        assert given_up(queue.expire(30.0)) == {"a": "expired"}

    def test_the_queue_is_limited_to_1000_events(self) -> None:
        queue = RetryQueue[str]()
        effects: list[Any] = []
        for n in range(1_003):
            effects += queue.put(float(n) / 1_000, f"e{n}")
        assert queue.stats["queue_size"] == 1_000
        assert given_up(effects) == {"e0": "evicted", "e1": "evicted", "e2": "evicted"}

    def test_the_statistics_have_exactly_the_specifications_keys(self) -> None:
        assert tuple(RetryQueue[str]().stats) == FIVE

    def test_exhausted_and_overflowing_retries_are_counted_by_their_reason(self) -> None:
        queue = RetryQueue[str](max_retries=1, max_size=2)
        for name in ("a", "b", "c"):
            queue.put(0.0, name)
        for effect in queue.handle_timeout(1.0):
            queue.failed(1.0, effect.ticket)
        assert (queue.stats["queued"], queue.stats["abandoned"]) == (3, 3)
        assert {k: n for k, n in queue.abandoned_by.items() if n} == {"evicted": 1, "exhausted": 2}

    def test_critical_events_overtake_and_are_evicted_last(self) -> None:
        queue = RetryQueue[str](max_size=3)
        gone: list[Any] = []
        for name, lane in (("n1", NORMAL), ("c1", CRITICAL), ("n2", NORMAL), ("c2", CRITICAL)):
            gone += queue.put(0.0, name, lane=lane)
        assert given_up(gone) == {"n1": "evicted"}
        assert retries(queue.handle_timeout(1.0)) == ["c1", "c2", "n2"]

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["put", "critical", "time", "succeed", "fail", "refuse", "postpone", "close"]
                ),
                st.integers(min_value=0, max_value=9),
            ),
            max_size=60,
        )
    )
    def test_whatever_happens_queued_is_succeeded_and_abandoned_and_still_there(
        self, steps: list[tuple[str, int]]
    ) -> None:
        queue = RetryQueue[int](max_size=5, age_limit=12.0)
        now, put = 0.0, 0
        trying: list[int] = []
        for n, (step, number) in enumerate(steps):
            effects: list[Any] = []
            if step in {"put", "critical"}:
                size = 1 + number % 3
                put += size
                effects = queue.put(now, n, lane=CRITICAL if step == "critical" else NORMAL, size=size)
            elif step == "time":
                now += number
                effects = queue.handle_timeout(now)
            elif step == "close":
                effects = queue.close(now)
            elif trying:
                ticket = trying.pop(number % len(trying))
                match step:
                    case "succeed":
                        queue.succeeded(ticket)
                    case "fail":
                        effects = queue.failed(now, ticket)
                    case "refuse":
                        effects = queue.refused(ticket)
                    case _:
                        effects = queue.postponed(ticket)
            trying += [effect.ticket for effect in effects if isinstance(effect, Retry)]
            stats = queue.stats
            assert stats["queued"] == put
            assert put == stats["succeeded"] + stats["abandoned"] + stats["queue_size"]
            assert stats["abandoned"] == sum(queue.abandoned_by.values())
            assert set(queue.abandoned_by) == set(REASONS)

    def test_the_processor_looks_every_2_seconds_and_can_be_set(self) -> None:
        queue = SocketIOEventBroadcaster(MemoryEngine().append)
        assert queue.retry_interval == 2.0
        assert Steadcast(engine=MemoryEngine()).broadcaster.retry_interval == 2.0
        cast = Steadcast(engine=MemoryEngine(), settings=Settings(retry_interval=0.5))
        assert cast.broadcaster.retry_interval == 0.5

    async def test_a_failed_broadcast_is_queued_by_itself_and_arrives_as_it_was(self) -> None:
        stage = Stage()
        stage.engine.fail_appends(times=1)
        stage.cast.broadcast("s", made("a"))
        stage.cast.start()
        await until(lambda: stage.cast.queue.stats["queue_size"] == 1, "the queue")
        stage.clock.advance(1.0)
        await stage.cast.process()
        assert await stage.logged() == [made("a")]
        await stage.cast.aclose()

    async def test_a_retry_keeps_id_time_and_type_and_never_doubles(self) -> None:
        stage = Stage()
        stage.engine.answers_lost = True
        waiting = asyncio.create_task(stage.cast.publish("s", made("a")))
        await until(lambda: stage.cast.queue.stats["queue_size"] == 1, "the queue")
        stage.engine.heal()
        stage.clock.advance(2.0)
        await stage.cast.process()
        [receipt] = await waiting
        assert receipt.duplicate
        assert await stage.logged() == [made("a")]

    async def test_the_background_task_runs_by_itself(self) -> None:
        async with serving() as place:
            place.engine.fail_appends(times=3)
            receipt = await place.cast.publish("s", type="t")
            assert receipt.position.offset == 1
            assert place.cast.broadcaster.queue.stats["succeeded"] == 1

    async def test_a_publish_that_is_given_up_raises_and_leaves_a_dead_event(self) -> None:
        stage = Stage(queue=RetryQueue(max_retries=1))
        stage.engine.fail_appends()
        waiting = asyncio.create_task(stage.cast.publish("s", made("a")))
        await until(lambda: stage.cast.queue.stats["queue_size"] == 1, "the queue")
        stage.clock.advance(2.0)
        await stage.cast.process()
        with pytest.raises(Abandoned) as caught:
            await waiting
        assert caught.value.fields["reason"] == "exhausted"
        stage.engine.heal()
        assert [(each.event.id, each.reason) for each in (await stage.dead()).dead] == [("a", "exhausted")]

    async def test_the_statistics_are_what_a_user_finds_at_v1_stats(self) -> None:
        async with serving() as place:
            place.engine.fail_appends(times=2)
            await place.cast.publish("s", type="t")
            found = (await place.stats())["broadcaster"]["retry_queue"]
            assert tuple(found) == FIVE
            assert (found["queued"], found["succeeded"], found["queue_size"]) == (1, 1, 0)
            assert "steadcast_broadcaster_retry_queue_queued 1.0" in (await metrics(place)).splitlines()


class Stage:
    """A broadcaster on a clock that stands still; a round is `await cast.process()`."""

    def __init__(self, **given: Any) -> None:
        self.clock = ManualClock()
        self.engine = FaultyEngine(MemoryEngine())
        from steadcast.socketio.dead import DeadEvents

        self._dead = DeadEvents(self.engine)
        self.cast = SocketIOEventBroadcaster(
            self.engine.append, clock=self.clock, dead=self._dead, breaker=Breaker(failures=1_000), **given
        )

    async def logged(self) -> list[Event]:
        pages = [await self.engine.engine.read("s", lane, 0) for lane in LANES]
        return [entry.event for page in pages for entry in page.events]

    async def dead(self) -> Any:
        return await self._dead.list()


async def metrics(place: Place) -> str:
    text: str = (await place.http.get(f"{place.url}/metrics")).text
    return text


async def hang(*_: Any) -> None:
    await asyncio.sleep(60)


class TestTimeoutDecorator:
    """No handler hangs; `tests/socketio/test_timeouts.py` has every kind of handler."""

    async def test_a_handler_runs_as_the_specification_shows_it(self) -> None:
        @timeout_handler(timeout_seconds=5.0)
        async def handle_event(sid: str, data: Any) -> Any:
            return {"sid": sid, "data": data}

        assert await handle_event("sid-1", 7) == {"sid": "sid-1", "data": 7}

    async def test_a_timeout_is_logged_and_returns_gracefully(self) -> None:
        @timeout_handler(timeout_seconds=0.01)
        async def handle_event(sid: str, data: Any) -> None:
            await hang()

        with capture_logs() as logs:
            answer: Any = await handle_event("sid-1", {})
        assert (answer["ok"], answer["error"]["code"], answer["error"]["timeout"]) == (False, "timeout", 0.01)
        assert logs[0]["handler"] == "handle_event"
        assert logs[0]["log_level"] == "error"

    async def test_it_works_on_methods_and_closures_and_never_takes_sid_for_self(self) -> None:
        class Handlers:
            def __init__(self, name: str) -> None:
                self.name = name

            @timeout_handler(timeout_seconds=0.01)
            async def on_event(self, sid: str, _data: Any) -> None:
                assert (self.name, sid) == ("mine", "sid-1")
                await hang()

        def closure(seconds: float) -> Callable[..., Any]:
            @timeout_handler(timeout_seconds=0.01)
            async def handle(sid: str, data: Any) -> None:
                await asyncio.sleep(seconds)

            return handle

        for handler in (Handlers("mine").on_event, closure(60)):
            answer: Any = await handler("sid-1", {})
            assert answer["error"]["code"] == "timeout"

    def test_the_default_is_5_seconds_and_3_for_simple_operations(self) -> None:
        cast = Steadcast(engine=MemoryEngine())
        assert cast.timeouts.limit("anything", hang) == 5.0
        assert cast.timeouts.own_limit("publish") == 5.0
        assert [cast.timeouts.own_limit(name) for name in ("subscribe", "unsubscribe")] == [3.0, 3.0]

    @pytest.mark.parametrize("kind", ["function", "catch-all", "class"])
    async def test_default_timeouts_are_applied_to_all_handlers(self, kind: str) -> None:
        sio = socketio.AsyncServer(async_mode="asgi")
        if kind == "class":
            space = socketio.AsyncNamespace("/")
            space.on_work = hang
            sio.register_namespace(space)
        else:
            sio.on("work" if kind == "function" else "*", hang)
        async with listening(House(sio=sio, timeouts=Timeouts(0.05))) as house:
            peer = Peer()
            await peer.connect(house.url)
            answer = await peer.call("work", {})
            assert {"code": "timeout", "event": "work", "timeout": 0.05}.items() <= answer["error"].items()
            await peer.until(lambda: peer.named("error"))
            assert peer.named("error")[0]["event"] == "work"
            await peer.close()

    @pytest.mark.parametrize(("took", "warnings"), [(3.99, 0), (4.0, 1), (4.99, 1)])
    async def test_handlers_close_to_their_timeout_are_warned_of(self, took: float, warnings: int) -> None:
        clock = ManualClock()
        counts = TimeoutCounts(clock)

        async def slow() -> None:
            clock.advance(took)

        await run_limited(slow(), seconds=5.0, name="slow", counts=counts)
        assert counts.warnings["slow"] == warnings

    async def test_runs_and_timeouts_are_counted_by_handler_and_told(self) -> None:
        @timeout_handler(timeout_seconds=0.01, name="test-counted")
        async def handler() -> None:
            await hang()

        before = COUNTS.timeouts["test-counted"]
        await handler()
        assert COUNTS.timeouts["test-counted"] == before + 1
        async with serving() as place:
            peer = Peer()
            await peer.connect(place.url)
            await peer.call("subscribe", {"stream": "s"})
            assert (await place.stats())["handlers"]["runs"]["subscribe"] == 1
            await peer.close()

    async def test_the_handlers_task_is_cancelled_and_a_stubborn_one_holds_nothing(self) -> None:
        sio = socketio.AsyncServer(async_mode="asgi")
        cancelled, let_go = asyncio.Event(), asyncio.Event()

        async def stubborn(sid: str, data: Any) -> None:
            while not let_go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await let_go.wait()
                cancelled.set()

        sio.on("work", stubborn)
        async with listening(House(sio=sio, timeouts=Timeouts(0.05))) as house:
            peer = Peer()
            await peer.connect(house.url)
            try:
                assert (await peer.call("work", {}))["error"]["code"] == "timeout"
                await asyncio.wait_for(cancelled.wait(), 30)
                assert (await peer.call("subscribe", {"stream": "s"}))["ok"]
                await peer.close()
            finally:
                let_go.set()
            await peer.until(lambda: not house.transport.timeouts.counts.runaways)

    async def test_limits_are_set_per_handler_by_configuration(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STEADCAST_HANDLER_TIMEOUTS", '{"export": 0.05, "free": null}')
        cast = Steadcast(engine=MemoryEngine(), settings=Settings())
        assert cast.timeouts.limit("export", timeout_handler(timeout_seconds=9.0)(hang)) == 0.05
        assert cast.timeouts.limit("free", hang) is None

    def test_when_embedded_the_default_can_be_turned_off(self) -> None:
        cast = Steadcast(engine=MemoryEngine(), settings=Settings(handler_timeout=None))
        assert cast.timeouts.limit("anything", hang) is None
        assert cast.timeouts.limit("anything", timeout_handler(timeout_seconds=2.0)(hang)) == 2.0
        assert cast.timeouts.own_limit("publish") == 5.0, "Steadcast's own never hang"


class TestHealth:
    """Who still answers; `tests/socketio/test_connections.py` has every case."""

    def test_the_names_and_numbers_are_the_specifications(self) -> None:
        handler = Steadcast(engine=MemoryEngine()).connections
        assert isinstance(handler, ConnectionEventHandler)
        assert (handler.ping_interval, handler.ping_timeout, handler.stale_check_interval) == (30, 10, 60)

    def test_they_can_be_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (("PING_INTERVAL", "3"), ("PING_TIMEOUT", "1"), ("STALE_CHECK_INTERVAL", "6")):
            monkeypatch.setenv(f"STEADCAST_{name}", value)
        handler = Steadcast(engine=MemoryEngine()).connections
        assert (handler.ping_interval, handler.ping_timeout, handler.stale_check_interval) == (3, 1, 6)

    async def test_the_server_pings_by_itself_and_clients_answer(self) -> None:
        async with serving(ping_interval=0.05) as place:
            await place.follow()
            await until(lambda: place.cast.connections.counts["pongs"] >= 2, "pongs")

    async def test_without_a_pong_for_40_seconds_a_client_is_disconnected_by_force(self) -> None:
        async with Watched() as watched:
            silent = await watched.join("silent", answer=False)
            await watched.ping(30)
            await watched.ping(60)
            assert watched.check(69.9) == 0
            assert watched.check(70) == 1
            await silent.until(lambda: silent.named("disconnect"))
            assert silent.named("error")[0]["code"] == "stale"

    async def test_that_pings_go_out_keeps_no_silent_client_alive(self) -> None:
        async with Watched() as watched:
            await watched.join("silent", answer=False)
            for n in range(1, 4):
                await watched.ping(30.0 * n)
            assert watched.check(91) == 1

    async def test_a_healthy_client_that_just_connected_stays(self) -> None:
        async with Watched() as watched:
            await watched.join("old", answer=False)
            await watched.ping(30)
            watched.clock.now = 69.0
            fresh = await watched.join("fresh", answer=False)
            assert watched.check(70) == 1
            await fresh.until(lambda: len(watched.handler) == 1)
            assert not fresh.named("disconnect")

    async def test_clients_that_never_subscribe_are_left_to_engine_io(self) -> None:
        async with Watched() as watched:
            await watched.join(subscribe=False, answer=False)
            await watched.ping(30)
            assert watched.check(10_000) == 0

    async def test_uptime_reconnects_failures_round_trip_and_lag_are_told_per_client(self) -> None:
        async with Watched() as watched:
            first = await watched.join("c1")
            await first.close()
            await first.until(lambda: len(watched.handler) == 0)
            peer = await watched.join("c1")
            await peer.call("publish", {"stream": "s", "events": [event(n) for n in range(3)]})
            await peer.until(lambda: len(peer.events()) == 3)
            await watched.ping(30, pongs=1)
            watched.handler.failed(watched.handler.get(peer.sio.get_sid()))  # type: ignore[arg-type]
            watched.clock.now = 245.25
            told = watched.figures("c1")
            assert (told["uptime"], told["reconnects"], told["failures"]) == (245.25, 1, 1)
            assert told["round_trip"] == 0.0
            assert told["streams"]["s"]["normal"]["lag"] == 3

    async def test_connection_metrics_are_found_at_v1_stats(self) -> None:
        async with serving() as place:
            await place.follow()
            [client] = (await place.stats())["connections"]["clients"]
            assert {"uptime", "reconnects", "failures", "round_trip", "streams"} <= set(client)

    async def test_stale_connections_are_found_by_the_regular_check(self) -> None:
        quick: dict[str, Any] = {"ping_interval": 0.05, "ping_timeout": 0.05, "stale_check_interval": 0.05}
        async with listening(House(**quick)) as house:
            peer = Peer()
            await peer.connect(house.url)
            await peer.call("subscribe", {"stream": "s"})
            await peer.until(lambda: peer.named("disconnect"))
            assert house.connections.counts["stale"] == 1


FAULTS: dict[str, Callable[[FaultyEngine], None]] = {
    "failing": lambda engine: engine.fail_appends(),
    "slow": lambda engine: setattr(engine, "append_delay", 0.7),
    "hanging": lambda engine: setattr(engine, "append_hangs", True),
    "full disk": lambda engine: engine.fill_disk(),
    "answers lost": lambda engine: setattr(engine, "answers_lost", True),
    "away": lambda engine: engine.go_away(),
}
REASON = {
    "failing": "engine_unavailable",
    "slow": "timeout",
    "hanging": "timeout",
    "full disk": "engine_full",
    "answers lost": "engine_unavailable",
    "away": "engine_unavailable",
}


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with serving() as running:
        yield running


class TestEndToEnd:
    """From a publish to a subscriber's screen, through every failure of the engine and the network."""

    @pytest.mark.parametrize("fault", FAULTS)
    async def test_a_sick_engine_loses_nothing_and_disconnects_nobody(self, place: Place, fault: str) -> None:
        followers = [await place.follow() for _ in range(2)]
        assert (await place.post(0)).status_code == 200
        FAULTS[fault](place.engine)
        waiting = [asyncio.create_task(place.cast.publish("s", type="t", id=f"in{n}")) for n in range(5)]
        for n in range(5):
            place.cast.broadcast("s", type="t", id=f"out{n}")
        status, told = await place.ready()
        assert status == 503
        assert REASON[fault] in told
        assert (await place.post(1)).status_code == 503
        await until(lambda: place.cast.broadcaster.queue.stats["queue_size"] >= 5, "the queue")
        assert not any(task.done() for task in waiting)
        place.engine.heal()
        receipts = await asyncio.wait_for(asyncio.gather(*waiting), 30)
        assert (await again(place, 1)).status_code == 200
        everything = {"e0", "e1", *(f"in{n}" for n in range(5)), *(f"out{n}" for n in range(5))}
        for follower in followers:
            await until(lambda f=follower: set(f.ids) == everything, "everything")  # type: ignore[misc]
            assert len(follower.ids) == len(everything), "nothing is doubled"
            assert follower.subscriber.connects == 1, "nobody was disconnected"
            assert follower.subscriber.told == []
        assert len({receipt.position.offset for receipt in receipts}) == 5
        await ready_again(place)

    async def test_an_engine_that_is_slow_but_in_time_is_no_fault(self, place: Place) -> None:
        follower = await place.follow()
        place.engine.append_delay = 0.05
        receipt = await place.cast.publish("s", type="t", id="a")
        assert receipt.position.offset == 1
        assert (await place.ready())[0] == 200
        await until(lambda: follower.ids == ["a"], "the event")
        assert place.cast.broadcaster.queue.stats["queued"] == 0

    async def test_while_reads_fail_appends_work_and_live_subscribers_get_them(self, place: Place) -> None:
        live = await place.follow()
        assert (await place.post(0)).status_code == 200
        await until(lambda: live.ids == ["e0"], "the first")
        place.engine.read_error = EngineUnavailable("reading fails")
        assert (await place.post(1, 2)).status_code == 200
        await until(lambda: live.ids == ["e0", "e1", "e2"], "live events")
        status, told = await place.ready()
        assert (status, "reading fails" in told) == (503, True)
        late = await place.follow(live=False)
        await until(lambda: place.cast.hub.counts["reads_failed"] >= 1, "a page that can't be read")
        assert late.ids == []
        place.engine.heal()
        await until(lambda: late.ids == ["e0", "e1", "e2"], "the replay")
        assert [f.subscriber.connects for f in (live, late)] == [1, 1]
        assert (await place.ready())[0] == 200

    @pytest.mark.parametrize("hours", [1, -1])
    async def test_a_wall_clock_that_jumps_an_hour_changes_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
    ) -> None:
        real, wall = time.time, ManualClock()
        monkeypatch.setattr(time, "time", lambda: real() + wall.now)
        log = SqliteEngine(
            tmp_path / "log.db", retention=Retention(age=600.0), wall=lambda: real() + wall.now
        )
        async with serving(log, ping_interval=0.05) as place:
            follower = await place.follow()
            await place.post(0)
            await until(lambda: follower.ids == ["e0"], "the first")
            wall.jump(3600.0 * hours)
            pongs = place.cast.connections.counts["pongs"]
            await place.post(1)
            await place.engine.trim()
            await until(lambda: place.cast.connections.counts["pongs"] > pongs + 1, "pongs after the jump")
            assert place.cast.connections.clean_up() == 0
            late = await place.follow(live=False)
            await until(lambda: follower.ids == late.ids == ["e0", "e1"], "both events, at both")
            assert follower.subscriber.connects == 1
            assert (await place.ready())[0] == 200

    async def test_an_open_breaker_answers_503_with_retry_after_and_spares_the_engine(
        self, place: Place
    ) -> None:
        place.cast.broadcaster.breaker = Breaker()
        place.cast.broadcaster.retry_interval = 60.0
        place.engine.fail_appends()
        for n in range(5):
            await place.post(n)
        asked = place.engine.counts["appends"]
        refused = await place.post(9)
        assert (refused.status_code, refused.json()["code"]) == (503, "breaker_open")
        assert int(refused.headers["retry-after"]) >= 1
        assert place.engine.counts["appends"] == asked
        with pytest.raises(BreakerOpen):
            await place.cast.broadcaster.append_once("s", [made("x")])

    async def test_the_breakers_state_is_in_stats_and_metrics(self, place: Place) -> None:
        assert (await place.stats())["breaker"] == {"closed": 1, "open": 0, "half_open": 0}
        place.cast.broadcaster.breaker = Breaker(failures=1)
        place.cast.broadcaster.retry_interval = 60.0
        place.engine.fail_appends()
        await place.post(1)
        assert (await place.stats())["broadcaster"]["breaker"]["state"] == "open"
        told = (await metrics(place)).splitlines()
        assert {"steadcast_breaker_open 1.0", "steadcast_breaker_closed 0.0"} <= set(told)
        assert "breaker_open" in (await place.ready())[1]

    async def test_while_the_breaker_is_open_a_publish_from_inside_waits_in_the_queue(
        self, place: Place
    ) -> None:
        breaker = place.cast.broadcaster.breaker
        place.engine.fail_appends()
        for n in range(5):
            await place.post(n)
        waiting = asyncio.create_task(place.cast.publish("s", type="t", id="a"))
        await until(lambda: place.cast.broadcaster.queue.stats["queue_size"] == 1, "the queue")
        assert breaker.state is not State.CLOSED
        place.engine.heal()
        assert (await asyncio.wait_for(waiting, 30)).position.offset == 1

    async def test_events_are_delivered_through_a_network_that_is_cut_again_and_again(
        self, place: Place
    ) -> None:
        host, port = place.url.removeprefix("http://").split(":")
        async with FaultProxy(host, int(port)) as proxy:
            follower = await place.follow(via=proxy.url)
            for n in range(30):
                await place.post(n)
                if n % 10 == 5:
                    await proxy.cut(reset=n % 20 == 5)
            await until(lambda: len(follower.ids) == 30, "everything")
            assert follower.ids == [f"e{n}" for n in range(30)]
            assert follower.subscriber.connects >= 2
            await follower.go()

    async def test_a_duplicate_publish_is_answered_with_the_first_position_and_shown_once(
        self, place: Place
    ) -> None:
        follower = await place.follow()
        first = (await place.post(1)).json()["results"][0]
        again_ = (await place.post(1)).json()["results"][0]
        assert again_ == first | {"duplicate": True}
        await place.post(2)
        await until(lambda: follower.ids == ["e1", "e2"], "each once")

    async def test_a_receiver_drops_what_it_has_already(self, place: Place) -> None:
        follower = await place.follow()
        await place.post(1, 2)
        await until(lambda: len(follower.ids) == 2, "both")
        batch = await place.engine.read("s", NORMAL, 0)
        from steadcast.wire import encode_batch

        await place.cast.sio.emit("batch", json.loads(encode_batch(batch)))
        await until(lambda: follower.subscriber.counts.duplicates_dropped == 2, "the duplicates")
        assert follower.ids == ["e1", "e2"]

    async def test_critical_events_overtake_a_backlog_in_the_queue_and_on_replay(self, place: Place) -> None:
        for start in range(0, 900, 300):
            await place.post(*range(start, start + 300))
        place.engine.fail_appends()
        slow = asyncio.create_task(place.cast.publish("s", type="t", id="normal"))
        await until(lambda: place.cast.broadcaster.queue.stats["queue_size"] == 1, "the normal one")
        fast = asyncio.create_task(place.cast.publish("s", type="t", id="critical", priority="critical"))
        await until(lambda: place.cast.broadcaster.queue.stats["queue_size"] == 2, "the critical one")
        place.engine.heal()
        await asyncio.wait_for(asyncio.gather(slow, fast), 30)
        late = await place.follow(live=False)
        await until(lambda: len(late.ids) == 902, "everything")
        assert late.ids.index("critical") < 600

    async def test_what_was_accepted_and_what_was_given_up_outlive_the_process(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'log.db'}"
        async with Steadcast(engine=url) as first:
            await first.publish("s", type="t", id="kept", priority="critical")
            first.dead.bury("s", [made("dead")], reason="exhausted", attempts=4, error="gone")
        async with Steadcast(engine=url) as second:
            page = await second.engine.read("s", CRITICAL, 0)
            assert [entry.event.id for entry in page.events] == ["kept"]
            [dead] = (await second.dead.list()).dead
            assert (dead.event.id, dead.reason, dead.attempts) == ("dead", "exhausted", 4)

    async def test_dead_events_are_listed_redriven_and_dropped(self) -> None:
        async with serving(max_retries=1) as place:
            follower = await place.follow()
            place.engine.fail_appends()
            for name in ("a", "b"):
                with pytest.raises(SteadcastError, match="given up"):
                    await place.cast.publish("s", type="t", id=name)
            place.engine.heal()
            await until(lambda: place.cast.broadcaster.breaker.state is State.CLOSED, "the engine is found")
            dead = (await place.http.get(f"{place.url}/v1/dead")).json()["dead"]
            assert [(each["event"]["id"], each["reason"]) for each in dead] == [
                ("a", "exhausted"), ("b", "exhausted"),
            ]  # fmt: skip
            redriven = await place.http.post(f"{place.url}/v1/dead/{dead[0]['id']}/redrive")
            dropped = await place.http.delete(f"{place.url}/v1/dead/{dead[1]['id']}")
            assert (redriven.status_code, dropped.status_code) == (200, 204)
            assert (await place.http.get(f"{place.url}/v1/dead")).json()["dead"] == []
            await until(lambda: follower.ids == ["a"], "the re-driven one")

    async def test_existing_handlers_and_clients_go_on_as_before(self) -> None:
        sio = socketio.AsyncServer(async_mode="asgi")

        async def add(sid: str, data: list[int]) -> int:
            await sio.emit("added", sum(data), to=sid)
            return sum(data)

        sio.on("add", add)
        async with listening(House(sio=sio)) as house:
            peer = Peer()
            await peer.connect(house.url)
            await peer.sio.emit("add", [1, 2])
            assert await peer.call("add", [3, 4]) == 7
            await peer.until(lambda: peer.named("added") == [3, 7])
            await peer.close()

    async def test_an_emission_that_is_retried_is_handled_once(self) -> None:
        sio = socketio.AsyncServer(async_mode="asgi")
        seen: list[Any] = []

        async def order(sid: str, data: Any) -> int:
            seen.append(data)
            return len(seen)

        sio.on("order", order)
        async with listening(House(sio=sio)) as house:
            auth = {"client": {"id": "c1", "version": "1"}}
            answers = []
            for _ in range(2):
                peer = Peer()
                await peer.connect(house.url, auth)
                answers.append(await peer.call("order", ({"n": 1}, {"emission": "x"})))
                await peer.close()
            assert (answers, seen) == ([1, 1], [{"n": 1}])

    async def test_the_log_shows_all_five_patterns_word_for_word(self) -> None:
        with capture_logs() as logs:
            async with serving(
                ping_interval=0.05, ping_timeout=0.05, stale_check_interval=0.05, max_retries=50
            ) as place:
                silent = Peer()
                await silent.connect(place.url)
                await silent.call("subscribe", {"stream": "s"})
                place.engine.fail_appends(times=2)
                await place.cast.publish("s", type="t")
                await silent.until(lambda: silent.named("disconnect"))
        told = "\n".join(entry["event"] for entry in logs)
        for pattern in (
            r"^🏓 Sent pings to \d+ clients, \d+ failed$",
            r"^🧟 Detected stale connection \S+$",
            r"^🧹 Cleaned up \d+ stale connections$",
            r"^🔄 Processing \d+ events from retry queue$",
            r"^📊 Retry queue stats - queued: \d+, retried: \d+, succeeded: \d+$",
        ):
            assert re.search(pattern, told, re.MULTILINE), f"{pattern}\n{told}"

    @pytest.mark.parametrize("kind", ["text", "json"])
    async def test_the_log_is_readable_on_a_terminal_and_json_by_setting(
        self, tmp_path: Path, kind: str
    ) -> None:
        quick: dict[str, Any] = {"STEADCAST_PING_INTERVAL": "0.1", "STEADCAST_LOG_FORMAT": kind}
        server = await asyncio.to_thread(Server(tmp_path, **quick).start)
        try:
            peer = Peer()
            await peer.connect(server.url)
            await asyncio.to_thread(
                wait_until, lambda: "🏓 Sent pings to 1 clients, 0 failed" in server.log()
            )
            await peer.close()
        finally:
            await asyncio.to_thread(server.__exit__)
        lines = [line for line in server.log().splitlines() if "🏓" in line]
        if kind == "json":
            assert json.loads(lines[0])["event"].startswith("🏓 Sent pings to ")
            assert all(json.loads(line) for line in server.log().splitlines())
        else:
            assert re.match(r"\S+Z \[info +\] 🏓 Sent pings to 1 clients, 0 failed", lines[0])


async def again(place: Place, number: int) -> Any:
    """Publish as a client does that is told 503: again, until it is taken."""
    async with asyncio.timeout(30):
        while (answer := await place.post(number)).status_code == 503:
            await asyncio.sleep(0.02)
    return answer


async def ready_again(place: Place) -> None:
    async with asyncio.timeout(30):
        while (await place.ready())[0] != 200:
            await asyncio.sleep(0.02)
