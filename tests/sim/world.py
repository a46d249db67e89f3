"""One simulated history: publishers, a server with the real hub, subscribers with the real receiver.

Everything runs in one thread on virtual time, and every choice comes from one seeded source: a seed is a
story that can be told again.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from steadcast.core.cursor import Receiver
from steadcast.core.effects import Deliver, Effect, SendAck, SendSubscribe, Told
from steadcast.core.session import Window
from steadcast.engines.memory import MemoryEngine
from steadcast.errors import EngineUnavailable, SteadcastError
from steadcast.event import LANES, Event, Lane
from steadcast.hub import Frame, Hub, Timing
from steadcast.testing import FaultyEngine
from steadcast.wire import Ack, Subscribe, check_from
from tests.sim.history import History, Seen
from tests.sim.loop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from steadcast.event import Batch, Receipt

STREAM = "s"
DATA = msgspec.Raw(b'{"n":1}')
WINDOW = 48


@dataclass
class Plan:
    """What a seed is to do; shrinking takes things out of it."""

    seed: int
    seconds: float = 60.0
    publishers: int = 2
    subscribers: int = 3
    faults: list[tuple[float, str, int]] = field(default_factory=list)

    @classmethod
    def of(cls, seed: int) -> Plan:
        """Draw a plan from a seed."""
        rng = random.Random(seed)
        count = rng.randint(0, 12)
        kinds = list(FAULTS)
        faults = sorted((rng.uniform(1, 55), rng.choice(kinds), rng.randrange(2**31)) for _ in range(count))
        return cls(seed, publishers=rng.randint(1, 3), subscribers=rng.randint(1, 3), faults=faults)


class NotedEngine(MemoryEngine):
    """The log in memory, noting what it holds; that is what is durable here."""

    def __init__(self, world: World, epoch: str) -> None:
        super().__init__(epoch=epoch, clock=world.loop.time)
        self.world = world

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        receipts = await super().append(stream, events)
        for receipt in receipts:
            lane, position = str(receipt.lane), receipt.position
            self.world.history.logs[position.epoch][lane][position.offset] = receipt.id
        return receipts


class SlowEngine(FaultyEngine):
    """An engine with faults, that takes the time of a disk."""

    def __init__(self, world: World, epoch: str) -> None:
        super().__init__(NotedEngine(world, epoch))
        self.world = world

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        await self.world.nap(0.0, 0.01)
        receipts = await super().append(stream, events)
        await self.world.nap(0.0, 0.01)
        return receipts

    async def read(self, stream: str, lane: Lane, after: int, limit: int = 256) -> Batch:
        await self.world.nap(0.0, 0.02)
        page = await super().read(stream, lane, after, limit)
        await self.world.nap(0.0, 0.02)
        return page

    async def describe(self, stream: str | None = None) -> Any:
        await self.world.nap(0.0, 0.02)
        found = await super().describe(stream)
        await self.world.nap(0.0, 0.02)
        return found


class Link:
    """One connection, both ways: messages arrive in order, later, or never."""

    def __init__(self, world: World, server: Server, subscriber: Subscriber) -> None:
        self.id = f"{subscriber.name}-{subscriber.connects}"
        self.world, self.server, self.subscriber = world, server, subscriber
        self.up_at = self.down_at = 0.0
        self.cut = False
        self.unacked: dict[Lane, deque[int]] = {lane: deque() for lane in LANES}
        self.most_unacked = 0
        self.drop_next = ""

    # The server's end

    def write(self, frame: Frame) -> None:
        batch = frame.batch
        self.unacked[batch.lane].extend(entry.offset for entry in batch.events)
        self.most_unacked = max(self.most_unacked, len(self.unacked[batch.lane]))
        if self.drop_next == "batch":
            self.drop_next = ""
            return
        self.down(self.subscriber.received, batch)

    def kick(self, error: SteadcastError) -> None:
        self.world.note(f"{self.id} is kicked: {error.code}")
        self.break_both(0.0, 0.0)

    def acked(self, ack: Ack) -> None:
        if self.server.hub.take_ack(self, ack):
            waiting = self.unacked[ack.lane]
            while waiting and waiting[0] <= ack.offset:
                waiting.popleft()

    # The wire

    def down(self, to: Callable[..., None], *args: Any) -> None:
        self.down_at = max(self.down_at, self.world.now + self.world.rng.uniform(0.001, 0.05))
        self.world.loop.call_at(self.down_at, self._arrive, True, to, args)

    def up(self, to: Callable[..., None], *args: Any) -> None:
        if self.drop_next == "ack" and args and isinstance(args[0], Ack):
            self.drop_next = ""
            return
        self.up_at = max(self.up_at, self.world.now + self.world.rng.uniform(0.001, 0.05))
        self.world.loop.call_at(self.up_at, self._arrive, False, to, args)

    def _arrive(self, down: bool, to: Callable[..., None], args: tuple[Any, ...]) -> None:
        here = self.subscriber.link is self if down else self in self.server.links
        if not self.cut and here:
            to(*args)

    def break_both(self, client_after: float, server_after: float) -> None:
        """Cut: nothing arrives any more, and each end learns of it in its own time."""
        if not self.cut:
            self.cut = True
            self.world.loop.call_later(client_after, self.subscriber.lost, self)
            self.world.loop.call_later(server_after, self.server.gone, self)


class Server:
    """A hub with its connections; a crash leaves nothing but the engine."""

    def __init__(self, world: World) -> None:
        self.world = world
        timing = Timing(ack_overdue=20.0, sweep_every=1.0, look_every=1.0, behind_limit=3.0, trim_every=1e9)
        self.hub = Hub(world.engine, clock=world.loop.time, window=Window(WINDOW, 1_000_000), timing=timing)
        self.links: dict[Link, None] = {}
        self.tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        await self.hub.start()
        self.spawn(self._ping())

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        task = self.world.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def crash(self) -> None:
        for task in list(self.tasks):
            task.cancel()
        for link in list(self.links):
            link.break_both(self.world.rng.uniform(0, 3), 0.0)
            self.world.history.windows.append((link.id, link.most_unacked))
        self.links.clear()
        await self.hub.aclose()

    def accept(self, link: Link) -> None:
        self.links[link] = None
        self.hub.enter(link)

    def gone(self, link: Link) -> None:
        if link in self.links:
            del self.links[link]
            self.world.history.windows.append((link.id, link.most_unacked))
            self.hub.leave(link)

    def subscribe(self, link: Link, request: Subscribe) -> None:
        self.spawn(self._subscribe(link, request))

    async def _subscribe(self, link: Link, request: Subscribe) -> None:
        try:
            answers, session = await self.hub.subscribe(link, request)
        except SteadcastError as error:
            link.down(link.subscriber.refused, error)
            return
        for queue in link.unacked.values():
            queue.clear()
        link.down(link.subscriber.answered, answers)
        self.hub.begin(session)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(10)
            try:
                heads = await self.hub.heads([STREAM])
            except SteadcastError:
                continue
            told = {Lane(lane): head for lane, head in heads[STREAM].items()}
            for link in list(self.links):
                link.down(link.subscriber.pinged, told)


class Subscriber:
    """A receiver with a slow, failing, crashing program around it."""

    def __init__(self, world: World, name: str, start: object) -> None:
        self.world, self.name, self.start = world, name, start
        self.seen = world.history.subscribers[name] = Seen(name)
        self.link: Link | None = None
        self.connects = 0
        self.life = 0
        self.asleep_until = 0.0
        self.known: set[Lane] = set()
        self.receiver = Receiver(STREAM, start=start)
        self.timer: asyncio.TimerHandle | None = None
        self.held: list[Callable[[], None]] = []

    # The connection

    def connect(self) -> None:
        server = self.world.server
        if self.link is not None:
            return
        if server is None or self.world.refuses():
            self.world.loop.call_later(self.world.rng.uniform(0.1, 1.0), self.connect)
            return
        self.connects += 1
        self.link = Link(self.world, server, self)
        server.accept(self.link)
        self.do(self.receiver.connected(self.world.now))

    def lost(self, link: Link) -> None:
        if self.link is link:
            self.link = None
            self.do(self.receiver.disconnected(self.world.now))
            self.world.loop.call_later(self.world.rng.uniform(0.1, 2.0), self.connect)

    def crash(self) -> None:
        """Lose everything but the cursors, which were stored together with their effects."""
        self.life += 1
        cursors = self.receiver.cursors
        if self.link is not None:
            link, self.link = self.link, None
            link.cut = True
            self.world.loop.call_later(self.world.rng.uniform(0, 5), link.server.gone, link)
        if self.timer is not None:
            self.timer.cancel()
        self.receiver = Receiver(STREAM, start=self.start, cursors=cursors)
        self.world.loop.call_later(self.world.rng.uniform(0.1, 3.0), self.connect)

    # What comes in

    def received(self, batch: Batch) -> None:
        self.do(self.receiver.received(self.world.now, batch))

    def answered(self, answers: Any) -> None:
        for lane, answer in answers.items():
            if lane not in self.known:
                self.known.add(lane)
                self.note("start", lane, answer.cursor.epoch, answer.cursor.offset)
        self.do(self.receiver.answered(self.world.now, answers))

    def refused(self, error: SteadcastError) -> None:
        self.do(
            self.receiver.refused(
                self.world.now,
                code=error.code,
                temporary=error.temporary,
                retry_after=error.retry_after,
                jitter=self.world.rng.random(),
            )
        )

    def pinged(self, heads: Any) -> None:
        self.do(self.receiver.pinged(self.world.now, heads))

    # What goes out

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Deliver():
                    self.handle(effect)
                case Told():
                    self.tell(effect)
                case SendSubscribe(_, cursors, start):
                    if self.link is not None:
                        request = Subscribe(STREAM, dict(cursors), check_from(start))
                        self.link.up(self.link.server.subscribe, self.link, request)
                case SendAck(stream, lane, epoch, offset):
                    if self.link is not None:
                        self.link.up(self.link.acked, Ack(stream, lane, epoch, offset))
        self.arm()

    def arm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        due = self.receiver.next_deadline()
        self.timer = None if due is None else self.world.loop.call_at(due, self.timeout, self.life)

    def timeout(self, life: int) -> None:
        if life == self.life:
            self.do(self.receiver.handle_timeout(self.world.now))

    def handle(self, delivery: Deliver) -> None:
        took = self.world.rng.choice((0.0, 0.0, 0.0, self.world.rng.uniform(0, 0.2)))
        at = max(self.world.now + took, self.asleep_until)
        if at <= self.world.now:
            self.world.loop.call_soon(self.done, delivery, self.life)
        else:
            self.world.loop.call_at(at, self.done, delivery, self.life)

    def done(self, delivery: Deliver, life: int) -> None:
        if life != self.life:
            return
        lane, event = delivery.lane, delivery.entry.event
        if self.world.rng.random() < self.world.handler_fails:
            self.do(self.receiver.failed(self.world.now, lane))
            return
        applied = self.receiver.counts.applied
        effects = self.receiver.handled(self.world.now, lane)
        if self.receiver.counts.applied > applied:
            position = delivery.position
            self.note("applied", lane, position.epoch, position.offset, event.id)
        self.do(effects)

    def tell(self, told: Told) -> None:
        if told.kind == "trimmed" and told.lane is not None and told.lost is not None:
            self.note("trimmed", told.lane, *told.lost)
        elif told.kind == "reset" and told.lane is not None:
            cursor = self.receiver.cursors[told.lane]
            self.note("reset", told.lane, cursor.epoch, cursor.offset)
        elif told.kind == "passed_over" and told.lane is not None:
            epoch = self.receiver.cursors[told.lane].epoch
            self.note("passed_over", told.lane, epoch, told.offset, told.id)

    def note(self, kind: str, lane: Lane, *rest: Any) -> None:
        self.seen.entries.append((kind, str(lane), *rest))


class World:
    """The whole of it, for one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = random.Random(plan.seed ^ 0x5EED)
        self.loop = VirtualLoop()
        self.history = History(window_limit=WINDOW)
        self.story: list[str] = []
        self.epochs = 1
        self.handler_fails = 0.01
        self.connects_refused_until = 0.0
        self.server: Server | None = None
        self.subscribers: list[Subscriber] = []
        self.published = 0
        self.stopping = False

    @property
    def now(self) -> float:
        return self.loop.time()

    def note(self, text: str) -> None:
        self.story.append(f"{self.now:7.2f}  {text}")

    def refuses(self) -> bool:
        return self.now < self.connects_refused_until

    async def nap(self, least: float, most: float) -> None:
        await asyncio.sleep(self.rng.uniform(least, most))

    def run(self) -> History:
        """Run to the end; what is left over is an error of the simulation itself."""
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self.main())
        finally:
            self.loop.close()
            asyncio.set_event_loop(None)
        return self.history

    async def main(self) -> None:
        self.engine = SlowEngine(self, "e1")
        self.server = Server(self)
        await self.server.start()
        starts: list[object] = ["start", "end", {"last": 5}]
        self.subscribers = [
            Subscriber(self, f"sub{n}", self.rng.choice(starts)) for n in range(self.plan.subscribers)
        ]
        for subscriber in self.subscribers:
            self.loop.call_later(self.rng.uniform(0, 20), subscriber.connect)
        publishers = [self.loop.create_task(self.publish(n)) for n in range(self.plan.publishers)]
        faults = [self.loop.create_task(self.fault(*fault)) for fault in self.plan.faults]
        await asyncio.sleep(self.plan.seconds)
        self.stopping = True
        await asyncio.gather(*publishers, *faults)
        await self.settle()

    async def publish(self, number: int) -> None:
        """Publish a group again and again, under the same ids, until it is answered."""
        count = 0
        while not self.stopping:
            await self.nap(0.05, 1.5)
            group = [self.event(number, count + n) for n in range(self.rng.choice((1, 1, 3, 20)))]
            count += len(group)
            await self.publish_until_acked(group)

    def event(self, number: int, count: int) -> Event:
        lane = Lane.CRITICAL if self.rng.random() < 0.2 else Lane.NORMAL
        return Event(f"p{number}-{count}", "sim", "t", "2026-01-01T00:00:00Z", DATA, lane)

    async def publish_until_acked(self, group: list[Event]) -> None:
        while True:
            server = self.server
            if server is not None:
                task = server.spawn(server.hub.append(STREAM, group))
                done, _ = await asyncio.wait({task}, timeout=5)
                if done and not task.cancelled() and task.exception() is None:
                    if self.rng.random() < 0.95:  # else the answer is lost on its way
                        self.acked(task.result())
                        return
                elif not done:
                    task.cancel()
            await self.nap(0.1, 1.0)

    def acked(self, receipts: list[Receipt]) -> None:
        for receipt in receipts:
            place = (receipt.position.epoch, str(receipt.lane), receipt.position.offset)
            self.history.receipts.append((receipt.id, place, receipt.duplicate))

    async def fault(self, at: float, kind: str, seed: int) -> None:
        await asyncio.sleep(at)
        self.history.faults[kind] += 1
        self.note(kind)
        await FAULTS[kind](self, random.Random(seed))

    async def settle(self) -> None:
        """End every fault, and wait until every subscriber has reached the head."""
        self.engine.heal()
        self.handler_fails = 0.0
        if self.server is None:
            await self.restart()
        description = await self.engine.engine.describe(STREAM)
        self.history.final_epoch = description.epoch
        heads = {lane: state.head for lane, state in description.streams[STREAM].items()}
        self.history.heads = {str(lane): head for lane, head in heads.items()}
        deadline = self.now + 200
        while not all(self.arrived(s, description.epoch, heads) for s in self.subscribers):
            if self.now > deadline:
                for late in self.subscribers:
                    if not self.arrived(late, description.epoch, heads):
                        self.history.undelivered[late.name] = (
                            f"never reached the head: {late.receiver.cursors}"
                        )
                break
            await asyncio.sleep(1)
        assert self.server is not None
        await self.server.crash()
        for subscriber in self.subscribers:
            subscriber.life += 1

    @staticmethod
    def arrived(subscriber: Subscriber, epoch: str, heads: dict[Lane, int]) -> bool:
        cursors = subscriber.receiver.cursors
        return all(
            (c := cursors.get(lane)) is not None and (c.epoch, c.offset) == (epoch, head)
            for lane, head in heads.items()
        )

    async def restart(self) -> None:
        self.server = Server(self)
        await self.server.start()

    async def crash(self, away: float) -> None:
        """Kill the server; the engine's log is what was durable."""
        server, self.server = self.server, None
        if server is None:
            return
        await server.crash()
        await asyncio.sleep(away)
        if self.server is None:
            await self.restart()

    def some_link(self, rng: random.Random) -> Link | None:
        links = list(self.server.links) if self.server is not None else []
        return rng.choice(links) if links else None


# Faults, by name: each is a coroutine that begins one and, where it lasts, ends it.


async def cut(world: World, rng: random.Random) -> None:
    if link := world.some_link(rng):
        link.break_both(rng.uniform(0, 1), rng.uniform(0, 1))


async def half_open(world: World, rng: random.Random) -> None:
    if link := world.some_link(rng):
        link.break_both(rng.uniform(0, 15), rng.uniform(5, 40))


async def stall(world: World, rng: random.Random) -> None:
    """Hold everything on its way down for a while, and tell the hub that the transport is paused."""
    if link := world.some_link(rng):
        seconds = rng.uniform(0.5, 15)
        link.down_at = max(link.down_at, world.now + seconds)
        link.server.hub.pause(link)
        await asyncio.sleep(seconds)
        link.server.hub.resume(link)


async def delay(world: World, rng: random.Random) -> None:
    if link := world.some_link(rng):
        link.down_at = link.up_at = world.now + rng.uniform(0.5, 8)


async def lose_ack(world: World, rng: random.Random) -> None:
    if link := world.some_link(rng):
        link.drop_next = "ack"


async def lose_batch(world: World, rng: random.Random) -> None:
    if link := world.some_link(rng):
        link.drop_next = "batch"


async def kill_server(world: World, rng: random.Random) -> None:
    await world.crash(rng.uniform(0.1, 8))


async def engine_fails(world: World, rng: random.Random) -> None:
    error = EngineUnavailable("away")
    which = rng.choice(("append", "read", "describe", "all"))
    if which in {"append", "all"}:
        world.engine.fail_appends(error=error)
    if which in {"read", "all"}:
        world.engine.read_error = error
    if which in {"describe", "all"}:
        world.engine.describe_error = error
    await asyncio.sleep(rng.uniform(0.5, 10))
    world.engine.heal()


async def engine_hangs(world: World, rng: random.Random) -> None:
    world.engine.append_hangs = True
    await asyncio.sleep(rng.uniform(0.5, 10))
    world.engine.append_hangs = False


async def answers_lost(world: World, rng: random.Random) -> None:
    world.engine.answers_lost = True
    await asyncio.sleep(rng.uniform(0.5, 5))
    world.engine.answers_lost = False


async def watch_silent(world: World, rng: random.Random) -> None:
    world.engine.watch_silent = True
    await asyncio.sleep(rng.uniform(0.5, 10))
    world.engine.watch_silent = False


async def watch_ends(world: World, rng: random.Random) -> None:
    world.engine.end_watches()


async def retention(world: World, rng: random.Random) -> None:
    """Trim a lane up to anywhere, cursors or not."""
    lane = rng.choice(LANES)
    description = await world.engine.engine.describe(STREAM)
    await world.engine.engine.trim(STREAM, lane, rng.randint(0, description.streams[STREAM][lane].head))


async def rewind(world: World, rng: random.Random) -> None:
    """Restore an older backup: a new epoch, whose log is the front of the old one."""
    server, world.server = world.server, None
    if server is not None:
        await server.crash()
    old = world.engine.engine
    world.epochs += 1
    fresh = SlowEngine(world, f"e{world.epochs}")
    description = await old.describe(STREAM)
    for lane, state in description.streams[STREAM].items():
        at, upto = state.trimmed, rng.randint(state.trimmed, state.head)
        while at < upto:
            page = await old.read(STREAM, lane, at, min(256, upto - at))
            await fresh.append(STREAM, [entry.event for entry in page.events])
            at = page.upto
    world.engine = fresh
    await asyncio.sleep(rng.uniform(0.1, 3))
    if world.server is None:
        await world.restart()


async def subscriber_sleeps(world: World, rng: random.Random) -> None:
    world.rng.choice(world.subscribers).asleep_until = world.now + rng.uniform(1, 30)


async def subscriber_crashes(world: World, rng: random.Random) -> None:
    rng.choice(world.subscribers).crash()


async def handlers_fail(world: World, rng: random.Random) -> None:
    world.handler_fails = 0.5
    await asyncio.sleep(rng.uniform(0.5, 5))
    world.handler_fails = 0.01


async def connects_refused(world: World, rng: random.Random) -> None:
    world.connects_refused_until = world.now + rng.uniform(1, 10)


FAULTS: dict[str, Callable[[World, random.Random], Any]] = {
    fault.__name__.replace("_", " "): fault
    for fault in (
        cut, half_open, stall, delay, lose_ack, lose_batch, kill_server, engine_fails, engine_hangs,
        answers_lost, watch_silent, watch_ends, retention, rewind, subscriber_sleeps, subscriber_crashes,
        handlers_fail, connects_refused,
    )
}  # fmt: skip
