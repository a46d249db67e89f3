"""Publishers that retry until they are answered, publishers that spool, and the two drainers of one spool."""

from __future__ import annotations

import asyncio
from itertools import islice, takewhile
from typing import TYPE_CHECKING

import msgspec

from steadcast.client.delivery import Delivery, deliveries
from steadcast.client.post import ACCEPTED, PERMANENT, TEMPORARY, Outcome
from steadcast.core.scopes import Scope
from steadcast.errors import NotAllowed, SteadcastError
from steadcast.event import Event, Lane, Receipt
from tests.sim.names import within
from tests.sim.tokens import BARRED

if TYPE_CHECKING:
    from random import Random

    from steadcast.client.token import TokenSource
    from tests.sim.world import World

ANSWER_WITHIN = 5.0
GROUPS = (1, 1, 1, 3, 8, 24)
_DATA = msgspec.Raw(b'{"n":1}')


class Asking:
    """Somebody who publishes, with a token."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.rng = world.source(name)
        self.token: TokenSource = world.issuer.source(name, Scope.PUBLISH, world.streams, self.rng)

    async def ask(self, stream: str, events: list[Event]) -> list[Receipt] | None:
        """Publish once; None where no answer came, which says nothing about what became of it."""
        world, rng = self.world, self.rng
        server = world.server
        if server is None or server.draining:
            await asyncio.sleep(rng.uniform(0.01, 0.3))
            return None
        await asyncio.sleep(rng.uniform(0.001, 0.02))
        token = self.token.current()
        task = server.publish(token, stream, events)
        await asyncio.wait((task,), timeout=ANSWER_WITHIN)
        if not task.done():
            if rng.random() < 0.5:
                task.cancel()
            return None
        if task.cancelled():
            return None
        if isinstance(error := task.exception(), SteadcastError):
            if isinstance(error, NotAllowed):
                self.token.refused(token)
            elif not error.temporary:
                world.record.add("raised", f"{self.name} was refused for good: {error.code}")
            return None
        receipts = task.result()
        if rng.random() < 0.03:
            world.record.fault("publish answer lost", f"the answer to {self.name} is lost")
            return None
        for each in receipts:
            place = (each.position.epoch, within(stream, each.lane), each.position.offset)
            world.record.add("acked", self.name, within(stream, each.id), *place, each.duplicate)
        return receipts

    async def trespass(self, stream: str, events: list[Event]) -> None:
        """Publish with the token of somebody who may only read, or to a stream that no token covers."""
        server = self.world.server
        if server is None:
            return
        reader = self.rng.choice(self.world.subscribers).token.current()
        token, stream = self.rng.choice(((reader, stream), (self.token.current(), BARRED)))
        await asyncio.wait((server.publish(token, stream, events),), timeout=ANSWER_WITHIN)


class Publisher(Asking):
    """Publishes groups, one after the other, each again and again under the same ids until it is answered."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.count = 0
        self.before: list[Event] = []

    def group(self, stream: str) -> list[Event]:
        """Make new events; sometimes an old one again, as whoever has missed an answer does.

        An old one may have been published to another stream: there it is another event.
        """
        events = [self.event() for _ in range(self.rng.choice(GROUPS))]
        if self.before and self.rng.random() < 0.1:
            events.insert(self.rng.randint(0, len(events)), self.rng.choice(self.before))
        self.before = events[-1:] + self.before[:4]
        self.world.record.add("asked", self.name, tuple(within(stream, event.id) for event in events))
        return events

    def event(self) -> Event:
        self.count += 1
        lane = Lane.CRITICAL if self.rng.random() < 0.25 else Lane.NORMAL
        return Event(f"{self.name}-{self.count}", "sim", "t", "2026-01-01T00:00:00Z", _DATA, lane)

    async def run(self) -> None:
        while not self.world.stopping:
            await asyncio.sleep(self.rng.uniform(0.03, 0.9))
            stream = self.rng.choice(self.world.streams)
            if self.rng.random() < 0.02:
                await self.trespass(stream, [self.event()])
            await self.publish(stream, self.group(stream))

    async def publish(self, stream: str, events: list[Event]) -> None:
        while await self.ask(stream, events) is None:
            await asyncio.sleep(self.rng.uniform(0.1, 1.0))


class SpoolingPublisher(Publisher):
    """Never waits for a server: what isn't answered at once goes to the spool, behind what waits there."""

    async def publish(self, stream: str, events: list[Event]) -> None:
        spool = self.world.spool
        if spool.waiting or await self.ask(stream, events) is None:
            spool.put(stream, events)


class Spool:
    """A folder of entries that outlives everybody, in the order in which they were put."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.waiting: dict[int, tuple[str, Event]] = {}
        self._put = 0

    def put(self, stream: str, events: list[Event]) -> None:
        self.world.record.fault("spooled", f"{len(events)} events are spooled")
        for event in events:
            self._put += 1
            self.waiting[self._put] = (stream, event)
            self.world.record.add("spooled", within(stream, event.id))

    async def drain(self, name: str) -> None:
        """Take the oldest group to the server, again and again; another drainer may do the same."""
        drainer = Asking(self.world, name)
        while self.waiting or not self.world.published:
            if self.waiting:
                self._settle(await self._send(drainer))
            await asyncio.sleep(drainer.rng.uniform(0.05, 1.0))

    def _group(self, rng: Random) -> list[int]:
        """Take the oldest entries that are for the same stream: they travel together."""
        most = rng.choice((1, 5, 20))
        first = next(iter(self.waiting.values()))[0]
        run = takewhile(lambda each: each[1][0] == first, self.waiting.items())
        return [entry for entry, _ in islice(run, most)]

    async def _send(self, drainer: Asking) -> Delivery:
        """Send by the rule that every drainer keeps: `deliveries` decides, this only asks."""
        steps = deliveries(self._group(drainer.rng))
        entries = next(steps)
        while True:
            waiting = [self.waiting[entry] for entry in entries if entry in self.waiting]
            # What another drainer has brought there meanwhile is no request.
            receipts = await drainer.ask(waiting[0][0], [event for _, event in waiting]) if waiting else []
            try:
                entries = steps.send(Outcome(TEMPORARY if receipts is None else ACCEPTED))
            except StopIteration as end:
                delivery: Delivery = end.value
                return delivery

    def _settle(self, delivery: Delivery) -> None:
        for entry in delivery.accepted:
            self.waiting.pop(entry, None)
        for _, outcome in delivery.refused:
            assert outcome.kind == PERMANENT
            self.world.record.add("raised", f"a spooled event was refused: {outcome}")
