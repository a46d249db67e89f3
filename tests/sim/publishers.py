"""Publishers that retry until they are answered, publishers that spool, and the two drainers of one spool."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from steadcast.client.delivery import Delivery, deliveries
from steadcast.client.post import ACCEPTED, PERMANENT, TEMPORARY, Outcome
from steadcast.errors import SteadcastError
from steadcast.event import Event, Lane, Receipt

if TYPE_CHECKING:
    from random import Random

    from tests.sim.world import World

ANSWER_WITHIN = 5.0
GROUPS = (1, 1, 1, 3, 8, 24)
_DATA = msgspec.Raw(b'{"n":1}')


async def ask(world: World, who: str, events: list[Event], rng: Random) -> list[Receipt] | None:
    """Publish once; None where no answer came, which says nothing about what became of it."""
    server = world.server
    if server is None or server.draining:
        await asyncio.sleep(rng.uniform(0.01, 0.3))
        return None
    await asyncio.sleep(rng.uniform(0.001, 0.02))
    task = server.append(events)
    await asyncio.wait((task,), timeout=ANSWER_WITHIN)
    if not task.done():
        if rng.random() < 0.5:
            task.cancel()
        return None
    if task.cancelled():
        return None
    if isinstance(error := task.exception(), SteadcastError):
        if not error.temporary:
            world.record.add("raised", f"{who} was refused for good: {error.code}")
        return None
    receipts = task.result()
    if rng.random() < 0.03:
        world.record.fault("publish answer lost", f"the answer to {who} is lost")
        return None
    for each in receipts:
        place = (each.position.epoch, str(each.lane), each.position.offset)
        world.record.add("acked", who, each.id, *place, each.duplicate)
    return receipts


class Publisher:
    """Publishes groups, one after the other, each again and again under the same ids until it is answered."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.rng = world.source(name)
        self.count = 0
        self.before: list[Event] = []

    def group(self) -> list[Event]:
        """Make new events; sometimes an old one again, as whoever has missed an answer does."""
        events = [self.event() for _ in range(self.rng.choice(GROUPS))]
        if self.before and self.rng.random() < 0.1:
            events.insert(self.rng.randint(0, len(events)), self.rng.choice(self.before))
        self.before = events[-1:] + self.before[:4]
        self.world.record.add("asked", self.name, tuple(event.id for event in events))
        return events

    def event(self) -> Event:
        self.count += 1
        lane = Lane.CRITICAL if self.rng.random() < 0.25 else Lane.NORMAL
        return Event(f"{self.name}-{self.count}", "sim", "t", "2026-01-01T00:00:00Z", _DATA, lane)

    async def run(self) -> None:
        while not self.world.stopping:
            await asyncio.sleep(self.rng.uniform(0.03, 0.9))
            await self.publish(self.group())

    async def publish(self, events: list[Event]) -> None:
        while await ask(self.world, self.name, events, self.rng) is None:
            await asyncio.sleep(self.rng.uniform(0.1, 1.0))


class SpoolingPublisher(Publisher):
    """Never waits for a server: what isn't answered at once goes to the spool, behind what waits there."""

    async def publish(self, events: list[Event]) -> None:
        spool = self.world.spool
        if spool.waiting or await ask(self.world, self.name, events, self.rng) is None:
            spool.put(events)


class Spool:
    """A folder of entries that outlives everybody, in the order in which they were put."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.waiting: dict[int, Event] = {}
        self._put = 0

    def put(self, events: list[Event]) -> None:
        self.world.record.fault("spooled", f"{len(events)} events are spooled")
        for event in events:
            self._put += 1
            self.waiting[self._put] = event
            self.world.record.add("spooled", event.id)

    async def drain(self, name: str) -> None:
        """Take the oldest group to the server, again and again; another drainer may do the same."""
        rng = self.world.source(name)
        while self.waiting or not self.world.published:
            if self.waiting:
                self._settle(await self._send(name, rng))
            await asyncio.sleep(rng.uniform(0.05, 1.0))

    async def _send(self, name: str, rng: Random) -> Delivery:
        """Send by the rule that every drainer keeps: `deliveries` decides, this only asks."""
        group = list(self.waiting)[: rng.choice((1, 5, 20))]
        steps = deliveries(group)
        entries = next(steps)
        while True:
            events = [self.waiting[entry] for entry in entries if entry in self.waiting]
            receipts = await ask(self.world, name, events, rng)
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
