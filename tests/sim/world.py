"""One simulated history: publishers, a server with the real hub, subscribers with the real receiver.

Everything runs in one thread on virtual time, and every choice comes from sources that are seeded by the
plan's seed and their owner's name: a seed is a story that can be told again, with less in it too.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from steadcast.engines.base import Retention
from tests.sim.faults import FAULTS
from tests.sim.log import Disk
from tests.sim.loop import Stuck, VirtualLoop
from tests.sim.names import within
from tests.sim.plan import Fault, Plan, turned_down
from tests.sim.publishers import Publisher, Spool, SpoolingPublisher
from tests.sim.server import Link, Server
from tests.sim.sqlite_log import SqliteDisk
from tests.sim.subscriber import Subscriber
from tests.sim.tokens import ENDED, FORBIDDEN, GONE, Issuer, Right
from tests.support.promises import Checker, Violation
from tests.support.record import Record

if TYPE_CHECKING:
    from steadcast.event import Lane
    from tests.sim.follow import Follow

PATIENCE = 200.0
"""Virtual seconds within which everybody must have reached the head once the faults are over."""

RETENTIONS = (Retention(), Retention(), Retention(age=5.0), Retention(events=20))


class World:
    """The whole of it, for one plan."""

    disk: Disk | SqliteDisk

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.streams = [f"s{n}" for n in range(plan.streams)]
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(self._broke)
        self.record = Record(self.loop.time)
        self.choices = self.source("world")
        self.wall_jump = 0.0
        self.epochs = self.lives = 0
        self.refused_until = 0.0
        self.server: Server | None = None
        self.subscribers: list[Subscriber] = []
        self.spool = Spool(self)
        self.issuer = Issuer(self)
        self.stopping = self.published = self.over = False
        self.retention = self.choices.choice(RETENTIONS)

    @property
    def now(self) -> float:
        return self.loop.now

    def wall(self) -> float:
        """Give the wall clock, which may jump."""
        return self.loop.now + self.wall_jump

    def source(self, name: str) -> random.Random:
        """Give the seeded source of one participant."""
        return random.Random(f"{self.plan.seed} {name}")

    def note(self, text: str) -> None:
        self.record.add("note", text)

    def run(self) -> Record:
        """Run to the end."""
        asyncio.set_event_loop(self.loop)
        try:
            with turned_down(self.plan.limits):
                self.loop.run_until_complete(self.main())
        except Stuck:
            self.record.add("raised", f"nothing moves any more, after {self.loop.steps} steps")
        finally:
            self.loop.close()
            asyncio.set_event_loop(None)
        return self.record

    async def main(self) -> None:
        self.disk = (SqliteDisk if self.plan.sqlite else Disk)(self)
        try:
            await self.live()
        finally:
            self.disk.close()

    async def live(self) -> None:
        self.subscribers = [Subscriber(self, f"sub{n}") for n in range(self.plan.subscribers)]
        publishers = [Publisher(self, f"pub{n}") for n in range(self.plan.publishers)]
        if self.plan.spooling:
            publishers.append(SpoolingPublisher(self, "hook"))
        await self.restart()
        for subscriber in self.subscribers:
            self.loop.call_later(subscriber.rng.uniform(0, self.plan.seconds / 2), subscriber.connect)
        create = self.loop.create_task
        drainers = [create(self.spool.drain(f"drainer{n}")) for n in range(2 * self.plan.spooling)]
        work = [create(each.run()) for each in publishers] + [create(self.fault(f)) for f in self.plan.faults]
        await asyncio.sleep(self.plan.seconds)
        self.stopping = True
        for task in work:
            await task
        self.published = True
        for task in drainers:
            await task
        await self.settle()

    async def fault(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        rng = random.Random(fault.seed)
        # Between any two steps, not only where a timer stands.
        for _ in range(rng.randrange(20)):
            await asyncio.sleep(0)
        await FAULTS[fault.kind](self, rng)

    # The server and its disk

    def new_epoch(self) -> str:
        self.epochs += 1
        return f"e{self.epochs}"

    async def restart(self) -> None:
        if self.server is None:
            self.server = Server(self)
            await self.server.start()

    async def crash(self) -> int | None:
        """Kill the server; tells how many appends were waiting, None where none ran."""
        server, self.server = self.server, None
        return None if server is None else await server.crash()

    # The end

    async def settle(self) -> None:
        """End every fault, wait until everybody has reached the head, and write down where all stand."""
        await self.restart()
        assert self.server is not None
        self.server.log.heal()
        self.refused_until = 0.0
        for subscriber in self.subscribers:
            subscriber.failing = 0.0
        heads = self.disk.heads()
        follows = [follow for each in self.subscribers for follow in each.follows.values()]
        deadline = self.now + PATIENCE
        while self.now < deadline and not all(self.arrived(follow, heads) for follow in follows):
            await asyncio.sleep(0.5)
        for (stream, lane), head in heads.items():
            self.record.add("head", within(stream, lane), self.disk.epoch, head)
        self.over = True
        for follow in follows:
            if not follow.known:
                self.record.add("raised", f"{follow.name} was never answered")
            follow.counted()
            follow.life += 1
        await self.crash()
        self.disk.counted()

    def arrived(self, follow: Follow, heads: dict[tuple[str, Lane], int]) -> bool:
        cursors = follow.receiver.cursors
        return all(
            (c := cursors.get(lane)) is not None and (c.epoch, c.offset) == (self.disk.epoch, head)
            for (stream, lane), head in heads.items()
            if stream == follow.stream
        )

    def judge(self, what: str, told: str, right: Right) -> None:
        """Compare what the house said to somebody with a token ("" lets in) with what is true."""
        truth = self.issuer.truth(right)
        if (ENDED if told in GONE else told) != truth:
            text = f"{what}: the house says {told or 'come in'}, the truth is {truth or 'come in'}"
            self.record.add("raised", text)
        elif truth == FORBIDDEN:
            self.record.fault("not allowed", f"{what} is forbidden")
        elif truth:
            self.note(f"{what}: {told}")

    def some_link(self, rng: random.Random) -> Link | None:
        links = list(self.server.links) if self.server is not None else []
        return rng.choice(links) if links else None

    def _broke(self, _: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.record.add("raised", f"{context['message']}: {error!r}")


KINDS = tuple(FAULTS)


def play(plan: Plan) -> tuple[World, list[Violation]]:
    """Run a plan, and check what was written down."""
    world = World(plan)
    record = world.run()
    return world, Checker(record, window=plan.limits.window).check()


def plan_of(seed: int) -> Plan:
    """Draw the plan of a seed."""
    return Plan.of(seed, KINDS)
