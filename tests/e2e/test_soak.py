"""Stock Socket.IO clients on every transport, pinged each second and cut now and then, see one clean history.

`STEADCAST_SOAK` sets how many events are broadcast: a few by default, 100,000 for a long run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import socketio

from steadcast.event import Event
from steadcast.socketio import fanout
from steadcast.socketio.aio import Aio
from steadcast.socketio.codec import JsonPacket
from steadcast.testing import FaultProxy
from tests.support.house import House, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

EVENTS = int(os.environ.get("STEADCAST_SOAK", "2000"))
PACE = 1_000
"""Events a second, at most; what the machine doesn't manage takes longer."""
CUTS = 2
TRANSPORTS = (["websocket"], ["polling"], ["polling", "websocket"])
CLIENT = Path(__file__).parents[1] / "support" / "soak.mjs"


class Follower:
    """The receiver's rule on a stock python-socketio client, counting what the rule would have to repair."""

    def __init__(self) -> None:
        self.sio = socketio.AsyncClient(reconnection_delay=0.05, reconnection_delay_max=0.1)
        self.cursors: dict[str, list[Any]] = {}
        self.seen: list[int] = []
        self.gaps = self.doubled = self.disconnects = 0
        self.sio.on("welcome", self.welcome)
        self.sio.on("batch", self.batch)
        self.sio.on("ping", self.ping)
        self.sio.on("disconnect", self.gone)

    async def welcome(self, _: Any) -> None:
        wanted = {"stream": "s", "cursors": self.cursors, "from": "start"}
        with contextlib.suppress(socketio.exceptions.BadNamespaceError):  # cut meanwhile
            await self.sio.emit("subscribe", wanted, callback=self.answered)

    def answered(self, answer: Any) -> None:
        for lane, told in answer["lanes"].items():
            if told["status"] != "resumed":
                self.cursors[lane] = told["cursor"]

    async def batch(self, batch: Any) -> None:
        lane = batch["lane"]
        epoch, offset, *_ = self.cursors[lane]
        if batch["epoch"] != epoch or batch["after"] > offset:
            self.gaps += 1
            await self.welcome(None)
            return
        self.doubled += batch["upto"] <= offset
        self.seen += [event["offset"] for event in batch["events"] if event["offset"] > offset]
        upto = max(offset, batch["upto"])
        self.cursors[lane] = [epoch, upto]
        ack = {"stream": "s", "lane": lane, "epoch": epoch, "offset": upto}
        await self.say("ack", ack)

    async def ping(self, ping: Any) -> None:
        await self.say("pong", {"time": ping["time"]})

    async def say(self, event: str, payload: Any) -> None:
        with contextlib.suppress(socketio.exceptions.BadNamespaceError):  # cut meanwhile
            await self.sio.emit(event, payload)

    def gone(self, *_: Any) -> None:
        self.disconnects += 1


async def all_follow(house: House, times: int) -> None:
    """Wait until all who lost their connection are back: python-socketio's client needs it for the next cut.

    Engine.IO's session on polling may outlive a cut, without what was in the answer that was cut: that is a
    gap on the wire, which the receiver's rule repairs, and what it has already may come again with it.
    """
    answers = 2 * 2 * (len(TRANSPORTS) + (len(TRANSPORTS) - 1) * (times - 1))  # for each lane and client
    async with asyncio.timeout(60):
        while sum(n for what, n in house.hub.counts.items() if what.startswith("subscribed_")) < answers:
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def ended(processes: list[asyncio.subprocess.Process]) -> AsyncIterator[None]:
    """Leave no process behind, whatever happens."""
    try:
        yield
    finally:
        for each in processes:
            if each.returncode is None:
                each.kill()
                await each.wait()


async def broadcast(house: House, proxy: FaultProxy) -> None:
    rng = random.Random(4)
    loop = asyncio.get_running_loop()
    began, sent = loop.time(), 0
    cuts = [EVENTS * (n + 1) // (CUTS + 1) for n in range(CUTS)]
    while sent < EVENTS:
        count = min(rng.choice([1, 1, 1, 5, 40]), EVENTS - sent)
        data = msgspec.Raw(b'"' + b"x" * 100 + b'"')
        made = [Event(f"e{n}", "test", "t", "2026-01-01T00:00:00Z", data) for n in range(sent, sent + count)]
        await house.hub.append("s", made)
        sent += count
        if cuts and sent >= cuts[0]:
            cuts.pop(0)
            await all_follow(house, CUTS - len(cuts))
            await proxy.cut()
        await asyncio.sleep(max(0.0, began + sent / PACE - loop.time()))


async def test_stock_clients_see_no_gap_no_double_no_disorder_and_no_disconnect_but_the_cuts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fanout, "MANY", 2)  # so few clients would be written to one by one
    sio = socketio.AsyncServer(
        async_mode="asgi", serializer=JsonPacket, cors_allowed_origins="*", ping_interval=1, ping_timeout=20
    )
    house = House(sio=sio, ping_interval=1.0, ping_timeout=20.0)
    async with listening(house) as serving:
        port = int(serving.url.rpartition(":")[2])
        async with FaultProxy("127.0.0.1", port) as proxy:
            url = f"http://127.0.0.1:{proxy.port}"
            followers = [Follower() for _ in TRANSPORTS]
            for follower, transports in zip(followers, TRANSPORTS, strict=True):
                await follower.sio.connect(url, transports=transports, wait_timeout=10)
            nodes = [
                await asyncio.create_subprocess_exec(
                    "node", CLIENT, url, "+".join(transports), str(EVENTS), stdout=subprocess.PIPE
                )
                for transports in TRANSPORTS
            ]
            await all_follow(house, 1)
            async with asyncio.timeout(60 + EVENTS / 100), ended(nodes):
                await broadcast(house, proxy)
                for follower in followers:
                    while len(follower.seen) < EVENTS:
                        await asyncio.sleep(0.02)
                told = [json.loads((await node.communicate())[0]) for node in nodes]
            for follower in followers:
                follower.sio.on("disconnect", lambda *_: None)  # asked for
                await follower.sio.shutdown()
    for follower, transports in zip(followers, TRANSPORTS, strict=True):
        assert follower.seen == list(range(1, EVENTS + 1)), transports
        assert transports == ["polling"] or (follower.gaps, follower.doubled) == (0, 0), transports
        assert follower.disconnects <= CUTS, transports
    for each, transports in zip(told, TRANSPORTS, strict=True):
        assert (each["applied"], each["last"], each["disordered"]) == (EVENTS, EVENTS, 0), transports
        assert transports == ["polling"] or (each["gaps"], each["doubled"]) == (0, 0), transports
        assert each["disconnects"] <= CUTS, transports
    counts = house.transport.fanout.counts
    assert counts.writes > 0
    assert counts.submitted > 0 or not Aio().ready()
    assert house.connections.counts["stale"] == 0
