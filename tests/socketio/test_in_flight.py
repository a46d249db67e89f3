"""One connection has so many events handled at a time; what comes above is refused for now, in words."""

from __future__ import annotations

import asyncio

import socketio

from steadcast.socketio.timeouts import Timeouts
from steadcast.socketio.transport import IN_FLIGHT
from tests.support.house import House, Peer, listening

OVER = 20


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
        assert at_work == IN_FLIGHT
        assert house.connections.counts["refused_in_flight"] == OVER
        assert (await other.call("subscribe", {"stream": "s"}))["ok"]
        free.set()
        answers = await asyncio.gather(*calls)
        assert [answer for answer in answers if not isinstance(answer, dict)] == list(range(IN_FLIGHT))
        assert await greedy.call("work", -1) == -1
        await greedy.close()
        await other.close()
