"""One connection has so many events handled at a time; what comes above is refused for now, in words."""

from __future__ import annotations

import asyncio

import msgspec
import socketio

from steadcast.event import Event
from steadcast.socketio.timeouts import Timeouts
from steadcast.socketio.transport import IN_FLIGHT, SOONEST
from tests.support.house import House, Peer, listening

OVER = 20
WAITED_FOR = Event(id="e", source="t", type="t", time="2026-01-01T00:00:00Z", data=msgspec.Raw(b"1"))


def busy() -> tuple[socketio.AsyncServer, asyncio.Event]:
    """Make a server whose handler of `work` ends when the event is set."""
    sio = socketio.AsyncServer(async_mode="asgi")
    free = asyncio.Event()

    @sio.event
    async def work(sid: str) -> None:
        await free.wait()

    return sio, free


async def test_more_events_than_are_handled_at_a_time_are_refused_for_now_and_others_are_served() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    free = asyncio.Event()
    at_work = 0

    @sio.event
    async def work(sid: str, data: int) -> int:
        nonlocal at_work
        at_work += 1
        await free.wait()
        return data

    async with listening(House(sio=sio, timeouts=Timeouts(None))) as house:
        greedy, other = Peer(), Peer()
        await greedy.connect(house.url)
        await other.connect(house.url)
        calls = [asyncio.create_task(greedy.call("work", n)) for n in range(IN_FLIGHT + OVER)]
        await greedy.until(lambda: sum(call.done() for call in calls) == OVER, "the refusals")
        refused = [call.result()["error"] for call in calls if call.done()]
        assert {(error["code"], error["temporary"]) for error in refused} == {("rate_limited", True)}
        assert {error["retry_after"] for error in refused} == {SOONEST}
        assert at_work == IN_FLIGHT
        assert house.connections.counts["refused_in_flight"] == OVER
        assert (await other.call("subscribe", {"stream": "s"}))["ok"]
        free.set()
        answers = await asyncio.gather(*calls)
        assert [answer for answer in answers if not isinstance(answer, dict)] == list(range(IN_FLIGHT))
        assert await greedy.call("work", -1) == -1
        await greedy.close()
        await other.close()


async def test_a_connection_that_is_at_its_limit_still_acks_and_pongs() -> None:
    """Nobody hears that these were refused: it would be taken for one that is silent, and disconnected."""
    sio, free = busy()
    async with listening(House(sio=sio, timeouts=Timeouts(None))) as house:
        peer = Peer()
        await peer.connect(house.url)
        await peer.call("subscribe", {"stream": "s"})
        calls = [asyncio.create_task(peer.call("work", None)) for _ in range(IN_FLIGHT + 1)]
        await peer.until(lambda: any(call.done() for call in calls), "the refusal")
        await house.hub.append("s", [WAITED_FOR])
        await peer.until(lambda: peer.named("batch"), "the batch")
        batch = peer.named("batch")[0]
        ack = {key: batch[key] for key in ("stream", "lane", "epoch")} | {"offset": batch["upto"]}
        await peer.sio.emit("ack", ack)
        await peer.sio.emit("pong", {"time": 1.0})
        await peer.until(lambda: house.connections.counts["pongs"] == 1, "the pong")
        assert house.hub.counts["acks"] == 1
        free.set()
        await asyncio.gather(*calls)
        await peer.close()


async def test_what_is_refused_at_the_limit_is_told_to_who_asks_for_no_acknowledgement() -> None:
    sio, free = busy()
    async with listening(House(sio=sio, timeouts=Timeouts(None))) as house:
        peer = Peer()
        await peer.connect(house.url)
        for _ in range(IN_FLIGHT + OVER):
            await peer.sio.emit("work")
        await peer.until(lambda: len(peer.named("error")) == OVER, "the refusals")
        (told, *_) = peer.named("error")
        assert (told["event"], told["code"], told["retry_after"]) == ("work", "rate_limited", SOONEST)
        free.set()
        await peer.close()
