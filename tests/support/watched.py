"""A house whose pings and checks happen when the test says so, on the test's clock."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from steadcast.socketio.connections import ConnectionEventHandler
from steadcast.testing import ManualClock
from tests.support.house import House, Peer, listening


class Watched:
    """A house with a connection handler on a clock that stands still."""

    def __init__(self, engine: Any = None, **settings: float) -> None:
        self.clock = ManualClock()
        self.house = House(engine=engine)
        handler = ConnectionEventHandler(self.house.hub, clock=self.clock, **settings)
        self.house.connections = self.house.transport._connections = handler
        self.handler = handler
        self.peers: list[Peer] = []

    async def __aenter__(self) -> Self:
        # The loops of the handler wait for its defaults, 30 and 60 s: they do nothing in here.
        self._serving = listening(self.house)
        await self._serving.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for peer in self.peers:
            await peer.close()
        await self._serving.__aexit__(None, None, None)

    async def join(self, name: str | None = None, *, subscribe: bool = True, answer: bool = True) -> Peer:
        """Connect a client; `answer` tells whether it answers pings."""
        peer = Peer()
        self.peers.append(peer)
        auth = {"client": {"id": name, "version": "1"}} if name else None

        async def pong(ping: dict[str, Any]) -> None:
            peer.heard.append(("ping", ping))
            if answer:
                await peer.sio.emit("pong", {"time": ping["time"]})

        peer.sio.on("ping", pong)
        await peer.connect(self.house.url, auth)
        await peer.until(lambda: peer.named("welcome"))
        if subscribe:
            await peer.call("subscribe", {"stream": "s"})
        return peer

    async def ping(self, at: float, *, pongs: int = 0) -> None:
        """Let a ping go out at a time, and wait for so many pongs."""
        self.clock.now = at
        before = self.handler.counts["pongs"]
        async with asyncio.timeout(30):
            await self.handler.ping_all()
        await self.peers[0].until(lambda: self.handler.counts["pongs"] == before + pongs, "the pongs")

    def check(self, at: float) -> int:
        self.clock.now = at
        return self.handler.clean_up()

    def figures(self, name: str) -> dict[str, Any]:
        clients = self.handler.statistics()["clients"]
        return next(each for each in clients if each["client_id"] == name)
