"""A server with the real hub, and the connections that lead to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from steadcast.core.scopes import Scope
from steadcast.core.session import State, Window
from steadcast.errors import SteadcastError
from steadcast.event import Lane
from steadcast.gate import Gate
from steadcast.hub import Hub, Timing
from steadcast.wire import Ack, Subscribe
from tests.sim.log import Log
from tests.sim.names import within
from tests.sim.tokens import Right

if TYPE_CHECKING:
    from steadcast.event import Event, Receipt
    from tests.sim.follow import Follow
    from tests.sim.subscriber import Subscriber
    from tests.sim.world import World

T = TypeVar("T")

PING_EVERY = 5.0
TIMING = Timing(ack_overdue=15.0, sweep_every=2.0, look_every=1.0, behind_limit=3.0, trim_every=2.0)


class Link:
    """One connection, both ways: messages arrive in order, later, or never. It has the gate of its token."""

    gate: Gate

    def __init__(self, world: World, server: Server, subscriber: Subscriber, token: str) -> None:
        self.id = f"{subscriber.name}.{subscriber.connects}"
        self.world, self.server, self.subscriber, self.token = world, server, subscriber, token
        self.kicked = False
        self.rng = subscriber.rng
        self.up_at = self.down_at = 0.0
        self.cut = False
        self.drop_next = ""

    # The server's end

    def write(self, frame: Any) -> None:
        if (why := self.gate.ended) is not None:
            self.kick(why)
        if self.kicked:
            return
        batch = frame.batch
        lane = within(batch.stream, batch.lane)
        right = Right(self.token, Scope.SUBSCRIBE, batch.stream)
        self.world.judge(f"a batch of {batch.stream} to {self.id}", "", right)
        self.world.record.add("sent", self.id, lane, batch.epoch, batch.after, batch.upto, len(batch.events))
        if self.drop_next == "batch":
            self.drop_next = ""
            return
        self.down(self.subscriber.follows[batch.stream].received, batch)

    def kick(self, error: SteadcastError) -> None:
        if self.kicked:
            return
        self.kicked = True
        self.server.hub.pause(self)
        if error.code == "token_expired":
            self.world.record.fault("token expired", f"the token of {self.id} has expired")
        else:
            self.world.note(f"{self.id} is told {error.code} and disconnected")
        self.break_both(self.rng.uniform(0.001, 0.05), 0.0)

    def acked(self, ack: Ack) -> None:
        if self.server.hub.take_ack(self, ack):
            lane = within(ack.stream, ack.lane)
            self.world.record.add("taken", self.id, lane, ack.epoch, ack.offset)

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
        self.log = Log(world.disk.engine(self.rng))
        self.tokens = world.issuer.tokens()
        self.gates: dict[str, Gate] = {}
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

    def publish(self, token: str, stream: str, events: list[Event]) -> asyncio.Task[list[Receipt]]:
        return self.spawn(self._publish(token, stream, events))

    async def _publish(self, token: str, stream: str, events: list[Event]) -> list[Receipt]:
        right = Right(token, Scope.PUBLISH, stream)
        self.checked(
            f"a publish to {stream}", lambda: self._gate_of(token).check(Scope.PUBLISH, stream), right
        )
        return await self.hub.append(stream, events)

    def _gate_of(self, token: str) -> Gate:
        """Give the gate of the connection over which a publisher publishes; raises `NotAllowed`."""
        if token not in self.gates:
            self.gates[token] = Gate(self.tokens.identify(token), wall=self.world.wall)
        return self.gates[token]

    def checked(self, what: str, check: Callable[[], T], right: Right) -> T:
        """Have the house check a token, and see that it comes to the truth; raises what it raises."""
        try:
            found = check()
        except SteadcastError as error:
            self.world.judge(what, error.code, right)
            raise
        self.world.judge(what, "", right)
        return found

    async def crash(self) -> int:
        """Die between two steps; tells how many appends had not reached the disk."""
        for link in list(self.links):
            link.break_both(self.rng.uniform(0, 3), 0.0)
            link.gate.close()
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
        """Let a connection in; raises `NotAllowed`."""
        identity = self.checked(
            f"the connect of {link.id}", lambda: self.tokens.identify(link.token), Right(link.token)
        )
        link.gate = Gate(identity, wall=self.world.wall)
        self.links[link] = None
        self.hub.enter(link)
        link.gate.watch(link.kick)

    def gone(self, link: Link) -> None:
        if link in self.links:
            del self.links[link]
            link.gate.close()
            self.hub.leave(link)

    def reload_tokens(self) -> None:
        """Let in by what the issuer says now, and send those away whose token was taken back."""
        self.tokens.replace(*self.world.issuer.rules())
        for link in list(self.links):
            link.gate.look()

    def unsubscribe(self, link: Link, stream: str) -> None:
        self.hub.unsubscribe(link, stream)

    def subscribe(self, link: Link, request: Subscribe, follow: Follow) -> None:
        self.spawn(self._subscribe(link, request, follow))

    async def _subscribe(self, link: Link, request: Subscribe, follow: Follow) -> None:
        try:
            self.check_subscribe(link, request.stream)
            answers, session = await self.hub.subscribe(link, request)
        except SteadcastError as error:
            link.down(follow.refused, error)
            return
        cursors = {
            within(request.stream, lane): (each.cursor.epoch, each.cursor.offset)
            for lane, each in answers.items()
        }
        if session.state is not State.CLOSED:  # a later request of this connection may have overtaken it
            self.world.record.add("session", link.id, cursors)
        link.down(follow.answered, answers)
        self.hub.begin(session)

    def check_subscribe(self, link: Link, stream: str) -> None:
        """Check whether a connection may follow a stream; raises `NotAllowed`."""
        right = Right(link.token, Scope.SUBSCRIBE, stream)
        self.checked(f"a subscribe of {link.id}", lambda: link.gate.check(Scope.SUBSCRIBE, stream), right)

    def trespass(self, link: Link, stream: str) -> None:
        """Be asked for a stream that the token doesn't cover."""
        with suppress(SteadcastError):
            self.check_subscribe(link, stream)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_EVERY)
            try:
                heads = await self.hub.heads(self.world.streams)
            except SteadcastError:
                self.world.note("no heads for a ping")
                continue
            for link in list(self.links):
                for stream in self.hub.sessions(link):
                    told = {Lane(lane): head for lane, head in heads[stream].items()}
                    link.down(link.subscriber.follows[stream].pinged, told)
