"""The hub: one engine, groups and sessions; what each connection is written is the log behind its cursor."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from steadcast.core.session import State, Window
from steadcast.engines.memory import MemoryEngine
from steadcast.errors import SteadcastError, TooLarge, Unavailable
from steadcast.event import Event, Lane
from steadcast.hub import Frame, Hub, Timing
from steadcast.hub import hub as room
from steadcast.testing import FaultyEngine
from steadcast.wire import Ack, Cursor, Subscribe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

NORMAL, CRITICAL = Lane.NORMAL, Lane.CRITICAL
QUICK = Timing(ack_overdue=0.3, sweep_every=0.05, look_every=0.02, behind_limit=0.05)


def event(n: int, lane: Lane = NORMAL, size: int = 1) -> Event:
    data = msgspec.Raw(b'"' + b"x" * size + b'"')
    return Event(f"e{n}", "test", "t", "2026-01-01T00:00:00Z", data, lane)


class Listener:
    """A connection that notes its batches, and acks them when told to."""

    def __init__(self, hub: Hub, *, acks: bool = True) -> None:
        self.id = f"listener-{id(self)}"
        self.hub, self.acks = hub, acks
        self.frames: list[Frame] = []
        self.kicked: SteadcastError | None = None
        hub.enter(self)

    def write(self, frame: Frame) -> None:
        self.frames.append(frame)
        if self.acks:
            asyncio.get_running_loop().call_soon(self.ack, frame)

    def ack(self, frame: Frame) -> None:
        batch = frame.batch
        self.hub.take_ack(self, Ack(batch.stream, batch.lane, batch.epoch, batch.upto))

    def kick(self, error: SteadcastError) -> None:
        self.kicked = error

    def offsets(self, lane: Lane = NORMAL) -> list[int]:
        return [e.offset for f in self.frames if f.batch.lane is lane for e in f.batch.events]

    async def join(self, last: int | None = 0, **cursors: Cursor) -> Any:
        request = Subscribe("s", {Lane(lane): cursor for lane, cursor in cursors.items()}, last)
        answers, session = await self.hub.subscribe(self, request)
        self.hub.begin(session)
        return answers


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture
async def engine() -> FaultyEngine:
    return FaultyEngine(MemoryEngine(epoch="e1"))


@pytest.fixture
async def hub(engine: FaultyEngine) -> AsyncIterator[Hub]:
    running = Hub(engine, window=Window(300, 100_000), timing=QUICK)
    await running.start()
    yield running
    await running.aclose()


def state(hub: Hub, listener: Listener) -> State:
    return hub.sessions(listener)["s"].flows[NORMAL].state


async def fill(hub: Hub, start: int, stop: int, lane: Lane = NORMAL) -> None:
    for n in range(start, stop, 100):
        await hub.append("s", [event(i, lane) for i in range(n, min(n + 100, stop))])


async def test_a_session_that_replayed_to_the_head_is_live(hub: Hub) -> None:
    await fill(hub, 0, 700)
    listener = Listener(hub)
    await listener.join(None)
    await until(lambda: len(listener.offsets()) == 700)
    await until(lambda: state(hub, listener) is State.LIVE)
    await fill(hub, 700, 900)
    await until(lambda: len(listener.offsets()) == 900)
    assert listener.offsets() == list(range(1, 901))


async def test_live_sessions_share_one_encoded_frame(hub: Hub) -> None:
    first, second = Listener(hub), Listener(hub)
    await first.join()
    await second.join()
    await hub.append("s", [event(1)])
    await until(lambda: second.frames)
    assert first.frames[0] is second.frames[0]


async def test_what_is_appended_while_a_session_replays_comes_once_and_in_order(hub: Hub) -> None:
    await fill(hub, 0, 1_000)
    listener = Listener(hub)
    await asyncio.gather(listener.join(None), fill(hub, 1_000, 3_000))
    await until(lambda: len(listener.offsets()) >= 3_000)
    assert listener.offsets() == list(range(1, 3_001))


async def test_chains_are_honest(hub: Hub) -> None:
    listener = Listener(hub)
    await asyncio.gather(listener.join(None), fill(hub, 0, 500), fill(hub, 500, 900, CRITICAL))
    await until(lambda: len(listener.offsets()) + len(listener.offsets(CRITICAL)) == 900)
    for lane in (NORMAL, CRITICAL):
        chain = [f.batch for f in listener.frames if f.batch.lane is lane]
        assert [b.after for b in chain[1:]] == [b.upto for b in chain[:-1]]


async def test_without_acks_the_window_stops_a_session_and_others_go_on(hub: Hub) -> None:
    silent, quick = Listener(hub, acks=False), Listener(hub)
    await silent.join()
    await quick.join()
    for n in range(0, 1_000, 50):
        await hub.append("s", [event(i) for i in range(n, n + 50)])
        await until(lambda n=n: len(quick.offsets()) == n + 50)  # type: ignore[misc]
    assert len(silent.offsets()) <= 300
    assert state(hub, silent) is State.LAGGING
    silent.acks = True
    silent.ack(silent.frames[-1])
    await until(lambda: len(silent.offsets()) == 1_000)
    assert silent.offsets() == list(range(1, 1_001))
    await until(lambda: state(hub, silent) is State.LIVE)


async def test_an_event_larger_than_the_window_is_delivered_alone(hub: Hub) -> None:
    listener = Listener(hub)
    await listener.join()
    await hub.append("s", [event(0), event(1, size=150_000), event(2)])
    await until(lambda: len(listener.offsets()) == 3)
    assert listener.offsets() == [1, 2, 3]


async def test_a_paused_transport_is_not_written_to(hub: Hub) -> None:
    listener = Listener(hub)
    await listener.join()
    hub.pause(listener)
    await fill(hub, 0, 100)
    await asyncio.sleep(0.02)
    assert listener.offsets() == []
    hub.resume(listener)
    await until(lambda: len(listener.offsets()) == 100)


async def test_a_client_that_acks_nothing_is_kicked_as_overdue(hub: Hub) -> None:
    silent, quick = Listener(hub, acks=False), Listener(hub)
    await silent.join()
    await quick.join()
    await fill(hub, 0, 10)
    await until(lambda: silent.kicked)
    assert silent.kicked is not None
    assert silent.kicked.code == "ack_overdue"
    assert quick.kicked is None


async def test_retention_that_overtakes_a_session_shows_as_a_gap_in_the_chain(
    hub: Hub, engine: FaultyEngine
) -> None:
    slow = Listener(hub, acks=False)
    await fill(hub, 0, 400)
    await slow.join(None)
    await until(lambda: state(hub, slow) is State.LAGGING)
    await engine.trim("s", NORMAL, 350)
    slow.acks = True
    slow.ack(slow.frames[-1])
    await until(lambda: slow.offsets()[-1] == 400)
    last = slow.frames[-1].batch
    assert last.after == 350
    answers = await slow.join(0, normal=Cursor("e1", slow.frames[-2].batch.upto))
    assert answers[NORMAL].status == "trimmed"
    assert answers[NORMAL].lost == (slow.frames[-2].batch.upto + 1, 350)


async def test_a_silent_watch_is_restarted_and_nothing_is_missing(hub: Hub, engine: FaultyEngine) -> None:
    listener = Listener(hub)
    await listener.join()
    engine.watch_silent = True
    await fill(hub, 0, 50)
    await until(lambda: len(listener.offsets()) == 50)
    engine.watch_silent = False
    await fill(hub, 50, 100)
    await until(lambda: len(listener.offsets()) == 100)
    assert listener.offsets() == list(range(1, 101))
    assert hub.counts["watch_restarts"] >= 1


async def test_a_watch_that_ends_is_followed_anew(hub: Hub, engine: FaultyEngine) -> None:
    listener = Listener(hub)
    await listener.join()
    engine.end_watches()
    await fill(hub, 0, 50)
    await until(lambda: len(listener.offsets()) == 50)
    assert listener.offsets() == list(range(1, 51))


async def test_reads_that_fail_are_tried_again(hub: Hub, engine: FaultyEngine) -> None:
    await fill(hub, 0, 300)
    engine.read_error = Unavailable("away")
    listener = Listener(hub)
    await listener.join(None)
    await until(lambda: hub.counts["reads_failed"])
    assert listener.offsets() == []
    engine.read_error = None
    await until(lambda: len(listener.offsets()) == 300)


async def test_an_engine_that_is_away_fails_the_subscribe_and_leaves_nothing_behind(
    hub: Hub, engine: FaultyEngine
) -> None:
    engine.describe_error = Unavailable("away")
    listener = Listener(hub)
    with pytest.raises(Unavailable):
        await listener.join()
    assert hub.statistics()["groups"] == 0


async def test_leaving_forgets_sessions_and_groups(hub: Hub) -> None:
    listener = Listener(hub)
    await listener.join()
    hub.leave(listener)
    assert hub.statistics()["groups"] == 0
    assert hub.statistics()["connections"] == 0
    await fill(hub, 0, 10)
    assert listener.frames == []


async def test_the_last_n_are_counted_per_lane(hub: Hub) -> None:
    await fill(hub, 0, 50)
    await fill(hub, 50, 60, CRITICAL)
    listener = Listener(hub)
    answers = await listener.join(5)
    assert [answers[lane].behind for lane in (CRITICAL, NORMAL)] == [5, 5]
    await until(lambda: len(listener.offsets()) == 5)
    assert listener.offsets() == [46, 47, 48, 49, 50]
    assert listener.offsets(CRITICAL) == [6, 7, 8, 9, 10]


async def test_a_connection_follows_no_more_streams_than_it_may_and_keeps_those_that_it_has(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "STREAMS", 2)
    listener, other = Listener(hub), Listener(hub)
    for stream in ("a", "s"):
        await hub.subscribe(listener, Subscribe(stream, {}, 0))
    with pytest.raises(TooLarge) as refused:
        await hub.subscribe(listener, Subscribe("b", {}, 0))
    assert (refused.value.code, refused.value.temporary) == ("too_many_streams", False)
    assert hub.counts["too_many_streams"] == 1
    await listener.join()  # again, one that it has
    await hub.subscribe(other, Subscribe("b", {}, 0))
    hub.unsubscribe(listener, "a")
    await hub.subscribe(listener, Subscribe("b", {}, 0))
    assert set(hub.sessions(listener)) == {"s", "b"}


async def test_heads_are_told_for_streams_that_hold_nothing(hub: Hub) -> None:
    heads = await hub.heads(["nothing"])
    assert heads["nothing"]["normal"].offset == 0


async def test_sessions_at_the_same_cursor_share_the_reads_and_the_frames(
    hub: Hub, engine: FaultyEngine
) -> None:
    await fill(hub, 0, 1_000)
    before = hub.counts["pages_read"]
    listeners = [Listener(hub) for _ in range(50)]
    await asyncio.gather(*(each.join(None) for each in listeners))
    for each in listeners:
        await until(lambda each=each: len(each.offsets()) == 1_000)  # type: ignore[misc]
        assert each.offsets() == list(range(1, 1_001))
    frames = {id(frame) for each in listeners for frame in each.frames}
    assert len(frames) == len(listeners[0].frames) == 4
    # Both lanes, and each page once, however many wait for it.
    assert hub.counts["pages_read"] - before <= 6
    assert hub.counts["pages_served"] >= 50 * 4


async def test_live_sessions_go_on_while_many_replay() -> None:
    hub = Hub(MemoryEngine(epoch="e1"))  # a watch that brings what is appended in the next step
    await hub.start()
    await fill(hub, 0, 3_000)
    live = Listener(hub)
    await live.join()
    replaying = [Listener(hub) for _ in range(100)]
    joins = [asyncio.create_task(each.join(None)) for each in replaying]
    while not replaying[0].frames:
        await asyncio.sleep(0)
    await hub.append("s", [event(9_000)])
    while not live.frames:
        await asyncio.sleep(0)
    assert sum(len(each.offsets()) for each in replaying) < 100 * 3_000
    await asyncio.gather(*joins)
    for each in replaying:
        await until(lambda each=each: each.offsets() == list(range(1, 3_002)))  # type: ignore[misc]
    await hub.aclose()


class Flushes:
    """A way that notes what was flushed to whom, and when."""

    def __init__(self) -> None:
        self.written: list[tuple[float, list[int], int]] = []

    def write(self, frame: Frame, targets: Any) -> None:
        now = asyncio.get_running_loop().time()
        self.written.append((now, [e.offset for e in frame.batch.events], len(targets)))


async def live_hub(window: float, conns: int) -> tuple[Hub, Flushes, list[Listener]]:
    hub = Hub(MemoryEngine(epoch="e1"), timing=Timing(flush_window=window))
    await hub.start()
    flushes = Flushes()
    listeners = [Listener(hub, acks=False) for _ in range(conns)]
    for n, each in enumerate(listeners):
        await each.join()
        hub.reroute(each, flushes, n)
    return hub, flushes, listeners


async def test_an_idle_group_is_flushed_at_once_and_a_busy_one_when_the_window_ends() -> None:
    hub, flushes, _ = await live_hub(1.0, 3)
    now = asyncio.get_running_loop().time
    began = now()
    await hub.append("s", [event(0)])
    await until(lambda: flushes.written)
    assert flushes.written[0][0] - began < 0.9
    for n in range(1, 6):
        await hub.append("s", [event(n)])
    assert len(flushes.written) == 1
    await until(lambda: len(flushes.written) == 2)
    (first, _, _), (second, together, everybody) = flushes.written
    assert second - first >= 1.0
    assert together == [2, 3, 4, 5, 6]
    assert everybody == 3
    await hub.aclose()


async def test_a_full_page_does_not_wait_for_the_window() -> None:
    hub, flushes, _ = await live_hub(60.0, 1)
    await hub.append("s", [event(0)])
    await until(lambda: flushes.written)
    await fill(hub, 1, 301)
    await until(lambda: len(flushes.written) > 1)
    assert sum(len(offsets) for _, offsets, _ in flushes.written) >= 257
    await hub.aclose()


async def test_without_a_window_what_comes_in_one_step_goes_out_together() -> None:
    hub, flushes, _ = await live_hub(0.0, 1)
    await asyncio.gather(*(hub.append("s", [event(n)]) for n in range(3)))
    await until(lambda: flushes.written and flushes.written[-1][1][-1] == 3)
    assert len(flushes.written) == 1
    await hub.aclose()


async def test_a_transport_that_pauses_while_it_is_written_to_leaves_its_group_and_the_others_stay() -> None:
    hub, flushes, listeners = await live_hub(0.0, 3)

    class Pausing(Flushes):
        def write(self, frame: Frame, targets: Any) -> None:
            super().write(frame, targets)
            if len(self.written) != 2:
                hub.pause(listeners[1])

    pausing = Pausing()
    hub.reroute(listeners[1], pausing, 1)
    await hub.append("s", [event(0)])
    await until(lambda: pausing.written)
    assert state(hub, listeners[1]) is State.LAGGING
    await hub.append("s", [event(1)])
    await until(lambda: len(flushes.written) == 2)
    assert flushes.written[1][1:] == ([2], 2)
    assert len(pausing.written) == 1
    hub.resume(listeners[1])
    await until(lambda: state(hub, listeners[1]) is State.LIVE)
    assert [offsets for _, offsets, _ in pausing.written] == [[1], [2]]
    hub.unsubscribe(listeners[1], "s")
    await listeners[1].join(None)
    await until(lambda: len(pausing.written) == 3)
    assert state(hub, listeners[1]) is State.LAGGING  # paused by its page
    await hub.aclose()


async def test_a_session_made_while_its_transport_is_paused_waits_for_it(hub: Hub) -> None:
    listener = Listener(hub)
    hub.pause(listener)
    await fill(hub, 0, 10)
    await listener.join(None)
    assert state(hub, listener) is State.LAGGING
    hub.resume(listener)
    await until(lambda: len(listener.offsets()) == 10)


async def test_a_transport_that_resumes_begins_no_session_whose_answer_is_not_out(hub: Hub) -> None:
    listener = Listener(hub)
    await fill(hub, 0, 10)
    _, session = await hub.subscribe(listener, Subscribe("s", {}, None))
    hub.pause(listener)
    hub.resume(listener)
    await asyncio.sleep(0.02)
    assert listener.frames == []
    hub.begin(session)
    await until(lambda: len(listener.offsets()) == 10)
