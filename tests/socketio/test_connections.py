"""Who still answers, who has to go, and each client's figures; time is handed in."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from steadcast.core.health import Health
from steadcast.engines.memory import MemoryEngine
from steadcast.errors import EngineUnavailable
from steadcast.socketio import connections as module
from steadcast.testing import FaultyEngine
from tests.support.house import House, Peer, event, listening
from tests.support.watched import Watched

NEVER = 10_000.0


# The judgement, pure


def test_a_client_that_never_ponged_is_stale_40_seconds_after_its_first_ping() -> None:
    health = Health(since=0.0)
    health.judge()
    health.pinged(30.0)
    assert not health.stale(69.9, 40.0)
    assert health.stale(70.0, 40.0)


def test_that_a_ping_was_sent_says_nothing_about_the_client() -> None:
    health = Health(since=0.0)
    health.judge()
    for at in range(30, 3_000, 30):
        health.pinged(float(at))
    assert health.stale(3_000.0, 40.0)


def test_a_client_that_ponged_is_stale_40_seconds_after_its_last_pong() -> None:
    health = Health(since=0.0)
    health.judge()
    health.pinged(30.0)
    health.ponged(30.25, sent_at=30.0)
    health.pinged(60.0)
    assert not health.stale(70.0, 40.0)
    assert health.stale(70.25, 40.0)


def test_a_client_that_just_connected_is_healthy() -> None:
    health = Health(since=1_000.0)
    health.judge()
    assert not health.stale(1_000.0, 40.0)
    assert not health.stale(1_100.0, 40.0), "it was never asked"
    health.pinged(1_100.0)
    assert not health.stale(1_139.9, 40.0)


def test_pings_from_before_it_subscribed_are_not_held_against_a_client() -> None:
    health = Health(since=0.0)
    for at in (30.0, 60.0, 90.0):
        health.pinged(at)
    health.judge()
    assert not health.stale(100.0, 40.0)
    health.pinged(120.0)
    assert not health.stale(159.0, 40.0)
    assert health.stale(160.0, 40.0)


def test_a_pong_alone_shows_that_a_client_speaks_the_protocol() -> None:
    health = Health(since=0.0)
    health.pinged(30.0)
    health.ponged(30.2, sent_at=None)
    health.pinged(60.0)
    assert health.round_trip is None
    assert health.stale(100.0, 40.0)


@given(st.lists(st.floats(min_value=0.0, max_value=9.9), min_size=1, max_size=50))
def test_whoever_answers_each_ping_within_10_seconds_is_never_stale(delays: list[float]) -> None:
    health = Health(since=0.0)
    health.judge()
    now = 0.0
    for delay in delays:
        now += 30.0
        health.pinged(now)
        assert not health.stale(now + delay, 40.0)
        health.ponged(now + delay, sent_at=now)
        assert not health.stale(now + 29.9, 40.0)


@given(st.integers(min_value=0, max_value=20), st.floats(min_value=0.0, max_value=9.9))
def test_whoever_stops_answering_is_stale_at_40_seconds_of_silence_at_the_latest(
    answered: int, delay: float
) -> None:
    health = Health(since=0.0)
    health.judge()
    for n in range(1, answered + 1):
        health.pinged(30.0 * n)
        health.ponged(30.0 * n + delay, sent_at=30.0 * n)
    silent_from = 30.0 * (answered + 1)
    health.pinged(silent_from)
    assert health.stale(silent_from + 40.0, 40.0)


# On real connections


def test_the_defaults_are_the_specifications(house: House) -> None:
    handler = house.connections
    assert (handler.ping_interval, handler.ping_timeout, handler.stale_check_interval) == (30, 10, 60)


async def test_a_client_that_never_pongs_is_told_and_disconnected_by_force() -> None:
    async with Watched() as watched:
        silent = await watched.join("silent", answer=False)
        await watched.ping(30)
        assert watched.check(69.9) == 0
        assert watched.check(70) == 1
        await silent.until(lambda: silent.named("disconnect"), "the disconnect")
        assert silent.named("error")[0]["code"] == "stale"
        assert silent.named("error")[0]["temporary"] is True
        await silent.until(lambda: len(watched.handler) == 0)
        assert watched.house.hub.statistics()["groups"] == 0
        assert watched.handler.counts["stale"] == 1


async def test_a_client_that_pongs_stays_for_as_long_as_it_does() -> None:
    async with Watched() as watched:
        await watched.join("well")
        for n in range(1, 8):
            await watched.ping(30.0 * n, pongs=1)
            assert watched.check(30.0 * n + 29) == 0
        assert len(watched.handler) == 1


async def test_a_healthy_client_that_just_connected_is_not_killed() -> None:
    async with Watched() as watched:
        await watched.join("old", answer=False)
        await watched.ping(30)
        watched.clock.now = 69.0
        fresh = await watched.join("fresh", answer=False)
        assert watched.check(70) == 1
        await fresh.until(lambda: len(watched.handler) == 1)
        assert watched.figures("fresh")["uptime"] == 1.0
        assert not fresh.named("disconnect")


async def test_nothing_is_kept_of_who_has_left_nor_of_pings_that_nobody_can_answer_any_more() -> None:
    async with Watched() as watched:
        await watched.join("stays")
        leaves = await watched.join()
        for n in range(1, 11):
            await watched.ping(30.0 * n, pongs=2)
        assert len(watched.handler._pings) <= 4
        await leaves.close()
        await watched.peers[0].until(lambda: len(watched.handler) == 1)
        kept = watched.handler
        assert (len(kept._health), len(kept._records), len(kept._asked)) == (1, 1, 0)
        assert (kept.counts["connects"], kept.counts["disconnects"]) == (2, 1)


async def test_old_clients_that_never_subscribe_are_not_judged() -> None:
    async with Watched() as watched:
        plain = await watched.join(subscribe=False, answer=False)
        for n in range(1, 10):
            await watched.ping(30.0 * n)
        assert watched.check(1_000) == 0
        await plain.sio.emit("anything", 1)
        assert len(watched.handler) == 1


async def test_a_stale_client_is_counted_once_while_it_leaves() -> None:
    async with Watched() as watched:
        await watched.join("silent", answer=False)
        await watched.ping(30)
        assert [watched.check(70), watched.check(71)] == [1, 0]


async def test_the_checks_run_by_themselves_and_a_vanished_client_goes_within_its_time() -> None:
    settings: dict[str, Any] = {"ping_interval": 0.05, "ping_timeout": 0.05, "stale_check_interval": 0.05}
    async with listening(House(**settings)) as house:
        peer = Peer()
        await peer.connect(house.url)
        await peer.call("subscribe", {"stream": "s"})
        began = time.monotonic()
        await peer.until(lambda: peer.named("disconnect"))
        assert time.monotonic() - began < 15
        assert len(house.connections) == 0


async def test_uptime_round_trip_and_last_pong_are_each_clients_own() -> None:
    async with Watched() as watched:
        peer = await watched.join("c1")
        await watched.ping(30, pongs=1)
        watched.clock.now = 60.25
        ping = peer.named("ping")[-1]
        await peer.sio.emit("pong", {"time": ping["time"]})
        await peer.until(lambda: watched.handler.counts["pongs"] == 2)
        figures = watched.figures("c1")
        assert figures["round_trip"] == 30.25
        assert figures["uptime"] == 60.25
        await watched.join("c2")
        assert (watched.figures("c2")["uptime"], watched.figures("c2")["round_trip"]) == (0.0, None)


@pytest.mark.parametrize("payload", [None, 7, {}, {"time": "now"}, {"time": -1.0}])
async def test_a_pong_of_another_form_still_shows_life_and_tells_no_round_trip(payload: Any) -> None:
    async with Watched() as watched:
        peer = await watched.join("c1", answer=False)
        await watched.ping(30)
        await peer.sio.emit("pong", payload)
        await peer.until(lambda: watched.handler.counts["pongs"] == 1)
        assert watched.figures("c1")["round_trip"] is None


async def test_reconnects_and_failures_are_counted_by_the_clients_id_over_its_connections() -> None:
    async with Watched() as watched:
        for _ in range(3):
            peer = await watched.join("c1", answer=False)
            watched.handler.failed(watched.handler.get(peer.sio.get_sid()))  # type: ignore[arg-type]
            await peer.close()
            await peer.until(lambda: len(watched.handler) == 0)
        await watched.join("c1", subscribe=False)
        await watched.join("c2", subscribe=False)
        assert (watched.figures("c1")["reconnects"], watched.figures("c1")["failures"]) == (3, 3)
        assert (watched.figures("c2")["reconnects"], watched.figures("c2")["failures"]) == (0, 0)


async def test_a_missing_pong_is_a_failure_of_the_client() -> None:
    async with Watched() as watched:
        await watched.join("c1", answer=False)
        await watched.ping(30)
        watched.check(70)
        await watched.peers[0].until(lambda: len(watched.handler) == 0)
        await watched.join("c1")
        assert watched.figures("c1")["failures"] == 1


async def test_remembered_ids_are_bounded_and_the_longest_unseen_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN_CLIENTS", 2)
    async with Watched() as watched:
        for name in ("a", "b", "a", "c", "a", "b"):
            await watched.join(name, subscribe=False)
        told = [(c["client_id"], c["reconnects"]) for c in watched.handler.statistics()["clients"]]
        assert told[-2:] == [("a", 2), ("b", 0)]
        assert watched.handler.counts["client_ids_evicted"] == 2


async def test_lag_is_what_lies_between_the_last_ack_and_the_head() -> None:
    async with Watched() as watched:
        peer = await watched.join("c1")
        lanes = watched.figures("c1")["streams"]["s"]
        assert (lanes["normal"]["lag"], lanes["critical"]["lag"]) == (0, 0)
        events = [event(n) for n in range(10)] + [event(99, priority="critical")]
        await peer.call("publish", {"stream": "s", "events": events})
        await peer.until(lambda: len(peer.events()) == 10)
        await watched.ping(30, pongs=1)
        lanes = watched.figures("c1")["streams"]["s"]
        assert (lanes["normal"]["lag"], lanes["critical"]["lag"]) == (10, 1)
        await peer.sio.emit("ack", {"stream": "s", "lane": "normal", "epoch": "e1", "offset": 7})
        await peer.until(lambda: watched.house.hub.counts["acks"] == 1)
        assert watched.figures("c1")["streams"]["s"]["normal"]["lag"] == 3


async def test_the_lag_of_a_client_that_fell_behind_counts_from_the_head_of_the_last_ping() -> None:
    async with Watched() as watched:
        peer = await watched.join("c1")
        for start in range(0, 2_000, 500):
            numbers = range(start, start + 500)
            await peer.call("publish", {"stream": "s", "events": [event(n) for n in numbers]})
        normal = watched.figures("c1")["streams"]["s"]["normal"]
        assert (normal["state"], normal["lag"]) == ("lagging", None), "no ping has told the head yet"
        await watched.ping(30, pongs=1)
        assert watched.figures("c1")["streams"]["s"]["normal"]["lag"] == 2_000


async def test_an_engine_with_holes_in_its_offsets_tells_no_lag() -> None:
    engine = FaultyEngine(MemoryEngine(epoch="e1"))
    engine.dense = False
    async with Watched(engine) as watched:
        await watched.join("c1")
        await watched.ping(30, pongs=1)
        assert watched.figures("c1")["streams"]["s"]["normal"]["lag"] is None


# Pings


async def test_a_ping_tells_the_heads_of_the_clients_own_streams() -> None:
    async with Watched() as watched:
        peer = await watched.join("c1")
        await peer.call("publish", {"stream": "s", "events": [event(1)]})
        await peer.call("publish", {"stream": "other", "events": [event(1)]})
        plain = await watched.join("c2", subscribe=False)
        await watched.ping(30, pongs=2)
        assert peer.named("ping")[0]["heads"] == {"s": {"critical": ["e1", 0], "normal": ["e1", 1]}}
        assert plain.named("ping")[0]["heads"] == {}


async def test_an_engine_that_is_away_keeps_no_ping_from_going_out() -> None:
    engine = FaultyEngine(MemoryEngine(epoch="e1"))
    async with Watched(engine) as watched:
        peer = await watched.join("c1")
        engine.describe_error = EngineUnavailable("away")
        await watched.ping(30, pongs=1)
        assert peer.named("ping")[0]["heads"] == {}
        assert watched.handler.counts["pings_without_heads"] == 1


async def test_an_engine_that_hangs_keeps_no_ping_from_going_out() -> None:
    class Hanging(MemoryEngine):
        hangs = False

        async def describe(self, stream: str | None = None) -> Any:
            if self.hangs:
                await asyncio.sleep(NEVER)
            return await super().describe(stream)

    engine = Hanging(epoch="e1")
    async with Watched(engine, ping_timeout=0.1) as watched:
        await watched.join("c1")
        engine.hangs = True
        await watched.ping(30, pongs=1)
        assert watched.handler.counts["pings_without_heads"] == 1


async def test_a_defect_in_a_round_does_not_end_the_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(House(ping_interval=0.02)) as house:
        peer = Peer()
        await peer.connect(house.url)
        await peer.call("subscribe", {"stream": "s"})

        async def broken(_: Any) -> Any:
            raise LookupError("a defect")

        with monkeypatch.context() as patched, capture_logs():
            patched.setattr(house.hub, "heads", broken)
            await peer.until(lambda: house.connections.counts["rounds_failed"] >= 1)
        before = len(peer.named("ping"))
        await peer.until(lambda: len(peer.named("ping")) > before)
        await peer.close()


# The log


async def test_the_log_has_the_specifications_lines_word_for_word() -> None:
    async with Watched() as watched:
        silent = await watched.join("silent", answer=False)
        await watched.join("well")
        sid = silent.sio.get_sid()
        with capture_logs() as logs:
            await watched.ping(30, pongs=1)
            await watched.ping(60, pongs=1)
            watched.check(70)
        assert [entry["event"] for entry in logs] == [
            "🏓 Sent pings to 2 clients, 0 failed",
            "🏓 Sent pings to 2 clients, 0 failed",
            f"🧟 Detected stale connection {sid}",
            "🧹 Cleaned up 1 stale connections",
        ]


async def test_a_ping_that_can_not_be_sent_is_counted_and_told() -> None:
    async with Watched() as watched:
        await watched.join("c1")
        gone = await watched.join("c2")
        eio = watched.house.sio.eio.sockets[watched.handler.get(gone.sio.get_sid())._eio_sid]  # type: ignore[union-attr]
        eio.closing = True
        with capture_logs() as logs:
            await watched.ping(30, pongs=1)
        assert [entry["event"] for entry in logs] == ["🏓 Sent pings to 1 clients, 1 failed"]
        assert watched.figures("c2")["failures"] == 1
        eio.closing = False


async def test_without_clients_nothing_is_said() -> None:
    async with Watched() as watched:
        with capture_logs() as logs:
            assert await watched.handler.ping_all() == (0, 0)
            assert watched.check(100) == 0
        assert logs == []
