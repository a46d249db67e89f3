"""A server with the real hub, and the connections that lead to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from steadcast.core.session import Window
from steadcast.errors import SteadcastError, Unavailable
from steadcast.event import Lane
from steadcast.hub import Hub, Timing
from steadcast.wire import Ack, Subscribe
from tests.sim.log import Log

if TYPE_CHECKING:
    from steadcast.event import Event, Receipt
    from tests.sim.subscriber import Subscriber
    from tests.sim.world import World

PING_EVERY = 5.0
TIMING = Timing(ack_overdue=15.0, sweep_every=2.0, look_every=1.0, behind_limit=3.0, trim_every=2.0)


class Link:
    """One connection, both ways: messages arrive in order, later, or never."""

    def __init__(self, world: World, server: Server, subscriber: Subscriber) -> None:
        self.id = f"{subscriber.name}.{subscriber.connects}"
        self.world, self.server, self.subscriber = world, server, subscriber
        self.rng = subscriber.rng
        self.up_at = self.down_at = 0.0
        self.cut = False
        self.drop_next = ""

    # The server's end

    def write(self, frame: Any) -> None:
        batch = frame.batch
        count = len(batch.events)
        self.world.record.add("sent", self.id, str(batch.lane), batch.epoch, batch.after, batch.upto, count)
        if self.drop_next == "batch":
            self.drop_next = ""
            return
        self.down(self.subscriber.received, batch)

    def kick(self, error: SteadcastError) -> None:
        self.world.note(f"{self.id} is told {error.code} and disconnected")
        self.break_both(self.rng.uniform(0.001, 0.05), 0.0)

    def acked(self, ack: Ack) -> None:
        if self.server.hub.take_ack(self, ack):
            self.world.record.add("taken", self.id, str(ack.lane), ack.epoch, ack.offset)

    # The wire

    def down(self, to: Callable[..., None], *args: Any) -> None:
        self.down_at = max(self.down_at, self.world.loop.now + 0.001 + 0.03 * self.rng.random())
        self.world.loop.call_at(self.down_at, self._arrive_down, to, args)

    def up(self, to: Callable[..., None], *args: Any) -> None:
        if self.drop_next == "ack" and to == self.acked:
            self.drop_next = ""
            return
        self.up_at = max(self.up_at, self.world.loop.now + 0.001 + 0.03 * self.rng.random())
        self.world.loop.call_at(self.up_at, self._arrive_up, to, args)

    def _arrive_down(self, to: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self.cut and self.subscriber.link is self:
            to(*args)

    def _arrive_up(self, to: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self.cut and self in self.server.links:
            to(*args)

    def break_both(self, client_after: float, server_after: float) -> None:
        """Cut: nothing arrives any more, and each end learns of it in its own time."""
        if not self.cut:
            self.cut = True
            self.world.loop.call_later(client_after, self.subscriber.lost, self)
            self.world.loop.call_later(server_after, self.server.gone, self)


class Server:
    """A hub with its connections. A crash leaves nothing but what is on the disk."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.lives += 1
        self.rng = world.source(f"server {world.lives}")
        self.log = Log(world, world.disk, self.rng)
        window = Window(world.plan.limits.window, 1_000_000)
        self.skew = 0.0
        self.hub = Hub(self.log, clock=self.clock, window=window, timing=TIMING)
        self.links: dict[Link, None] = {}
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.draining = False

    def clock(self) -> float:
        return self.world.loop.now + self.skew

    async def start(self) -> None:
        await self.hub.start()
        self.spawn(self._ping())

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self.world.loop.create_task(work)
        self.tasks[task] = None
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)
        error = None if task.cancelled() else task.exception()
        # A failure is for whoever asked, who may have given up; a defect is for everybody.
        if error is not None and not isinstance(error, SteadcastError):
            self.world.record.add("raised", repr(error))

    def append(self, events: list[Event]) -> asyncio.Task[list[Receipt]]:
        return self.spawn(self.hub.append(self.world.stream, events))

    async def crash(self) -> int:
        """Die between two steps; tells how many appends had not reached the disk."""
        for link in list(self.links):
            link.break_both(self.rng.uniform(0, 3), 0.0)
        self.links.clear()
        waiting = await self.log.commits.crash()
        for task in list(self.tasks):
            task.cancel()
        await self.hub.aclose()
        return waiting

    async def drain(self, reconnect_in: tuple[float, float]) -> None:
        """Say goodbye, wait for those who go by themselves, and end."""
        self.draining = True
        for link in list(self.links):
            link.down(link.subscriber.told_to_go, link, reconnect_in)
        await asyncio.sleep(reconnect_in[1] * 0.8)
        await self.crash()

    def accept(self, link: Link) -> None:
        self.links[link] = None
        self.hub.enter(link)

    def gone(self, link: Link) -> None:
        if link in self.links:
            del self.links[link]
            self.hub.leave(link)

    def expire(self, link: Link) -> None:
        """End a connection whose token has run out: temporary, it comes back with a fresh one."""
        link.kick(Unavailable("the token has expired", code="token_expired"))

    def unsubscribe(self, link: Link) -> None:
        self.hub.unsubscribe(link, self.world.stream)

    def subscribe(self, link: Link, request: Subscribe) -> None:
        self.spawn(self._subscribe(link, request))

    async def _subscribe(self, link: Link, request: Subscribe) -> None:
        try:
            answers, session = await self.hub.subscribe(link, request)
        except SteadcastError as error:
            link.down(link.subscriber.refused, error)
            return
        cursors = {str(lane): (each.cursor.epoch, each.cursor.offset) for lane, each in answers.items()}
        self.world.record.add("session", link.id, cursors)
        link.down(link.subscriber.answered, answers)
        self.hub.begin(session)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_EVERY)
            try:
                heads = await self.hub.heads([self.world.stream])
            except SteadcastError:
                self.world.note("no heads for a ping")
                continue
            told = {Lane(lane): head for lane, head in heads[self.world.stream].items()}
            for link in list(self.links):
                link.down(link.subscriber.pinged, told)
