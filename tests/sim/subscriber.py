"""A subscriber: real receivers on one connection, with a slow, failing, sleeping, crashing program around."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steadcast.core.scopes import Scope
from steadcast.errors import NotAllowed
from tests.sim.follow import Follow
from tests.sim.server import Link
from tests.sim.tokens import BARRED

if TYPE_CHECKING:
    from tests.sim.world import World

PACES = (0.0, 0.0, 0.02, 0.1)
"""Seconds that a handler may take at most, by subscriber."""


class Subscriber:
    """Follows some of the streams, each with a cursor that is stored together with what was applied."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.rng = world.source(name)
        self.start: object = self.rng.choice(("start", "end", {"last": 5}))
        self.pace = self.rng.choice(PACES)
        self.link: Link | None = None
        self.connects = 0
        self.skew = 0.0
        self.asleep_until = 0.0
        self.away_until = 0.0
        self.failing = 0.01
        streams = sorted(self.rng.sample(world.streams, self.rng.randint(1, len(world.streams))))
        self.follows = {stream: Follow(self, stream) for stream in streams}
        self.token = world.issuer.source(name, Scope.SUBSCRIBE, streams, self.rng)

    @property
    def now(self) -> float:
        return self.world.loop.now + self.skew

    # The connection

    def connect(self) -> None:
        world = self.world
        if self.link is not None or world.over:
            return
        server = world.server
        if server is None or server.draining or world.now < max(world.refused_until, self.away_until):
            world.loop.call_later(self.rng.uniform(0.1, 1.0), self.connect)
            return
        self.connects += 1
        link = Link(world, server, self, self.token.current())
        try:
            server.accept(link)
        except NotAllowed:
            self.token.refused(link.token)
            world.loop.call_later(self.rng.uniform(0.1, 1.0), self.connect)
            return
        self.link = link
        for follow in self.follows.values():
            follow.connected()
        if self.rng.random() < 0.3:
            self._trespass(link)

    def _trespass(self, link: Link) -> None:
        """Ask for a stream that the token doesn't cover."""
        others = [stream for stream in (*self.world.streams, BARRED) if stream not in self.follows]
        link.up(link.server.trespass, link, self.rng.choice(others))

    def lost(self, link: Link) -> None:
        if self.link is link:
            self.link = None
            self.token.refused(link.token)
            for follow in self.follows.values():
                follow.disconnected()
            self.world.loop.call_later(self.rng.uniform(0.1, 2.0), self.connect)

    def told_to_go(self, link: Link, reconnect_in: tuple[float, float]) -> None:
        self.world.loop.call_later(self.rng.uniform(*reconnect_in), link.break_both, 0.0, 0.01)

    def crash(self) -> None:
        """Lose everything but the cursors; the server learns of it later."""
        link, self.link = self.link, None
        if link is not None:
            link.cut = True
            self.world.loop.call_later(self.rng.uniform(0, 5), link.server.gone, link)
        for follow in self.follows.values():
            follow.renew()
        self.world.loop.call_later(self.rng.uniform(0.1, 3.0), self.connect)

    def suspended(self, seconds: float) -> None:
        """Have the clock jump forwards."""
        self.skew += seconds
        for follow in self.follows.values():
            follow.arm()
