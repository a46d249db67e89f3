"""The hub: engine, groups and sessions under one clock. It is the only scheduler.

Its rooms: `groups` (who shares a stream), `live` (what the watch brings goes to each group), `replay` (who is
not live reads the log). Here stand the connections and their sessions, and the timers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from steadcast.core.answer import answer_cursor, answer_new
from steadcast.core.session import Route, Session, State, Window
from steadcast.errors import EngineRefused, PositionLost, SteadcastError, TooLarge, Unavailable
from steadcast.event import LANES, Lane, Position
from steadcast.hub.frame import ONE_BY_ONE
from steadcast.hub.groups import Groups, raise_idle
from steadcast.hub.live import Live
from steadcast.hub.reading import Looks
from steadcast.hub.replay import READERS, Replay
from steadcast.plain_log import plain_log
from steadcast.tracer import NO_TRACER
from steadcast.wire import Cursor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from steadcast.engines.base import Description, Engine, LaneState
    from steadcast.event import Batch, Event, Receipt
    from steadcast.hub.frame import Connection, Way
    from steadcast.tracer import Tracer
    from steadcast.wire import Ack, LaneAnswer, Subscribe

log = plain_log("steadcast.hub")

STREAMS: Final = 10_000
"""Streams that one connection follows at most, besides the requests under way; each costs some 3 KiB."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The hub's own intervals, in seconds."""

    flush_window: float = 0.005
    ack_overdue: float = 40.0
    sweep_every: float = 1.0
    look_every: float = 2.5
    behind_limit: float = 5.0
    trim_every: float = 30.0


class Link:
    """A connection's side of the hub: how it is written to, whether it takes anything, what it follows.

    `asking` has each stream's last subscribe that isn't answered yet.
    """

    __slots__ = ("asking", "paused", "route", "sessions")

    def __init__(self, route: Route) -> None:
        """Begin without a session."""
        self.route = route
        self.paused = False
        self.sessions: dict[str, Session] = {}
        self.asking: dict[str, object] = {}  # bounded by the requests that a connection may have under way


class Hub:
    """Sessions, groups, engine and clock."""

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], float] | None = None,
        window: Window | None = None,
        timing: Timing | None = None,
        saw: Callable[[Batch | None], None] | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """Stand ready; `start` begins the work.

        `clock` gives monotonic seconds, the loop's by default; `saw` is given every batch of the watch,
        and None where the watch begins anew; `tracer` follows appends, flushes, acks and pages.
        """
        self.engine = engine
        self.counts: Counter[str] = Counter()
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self.window = window or Window()
        self._timing = timing or Timing()
        self._tracer = tracer
        self._links: dict[Connection, Link] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._groups = Groups()
        self._looks = Looks(engine)
        self._replay = Replay(engine, self._groups, self.counts, self._clock, tracer)
        self._live = Live(
            engine,
            self._groups,
            self._replay,
            self.counts,
            self._clock,
            behind_limit=self._timing.behind_limit,
            flush_window=self._timing.flush_window,
            saw=saw,
            tracer=tracer,
        )

    # Life

    async def start(self) -> None:
        """Follow the engine and begin to serve."""
        self._live.start()
        self._tasks = [
            asyncio.create_task(self._replay.read_pages(), name=f"steadcast-read-{n}") for n in range(READERS)
        ]
        self._tasks += [
            asyncio.create_task(self._every(interval, job), name=f"steadcast-{job.__name__.strip('_')}")
            for interval, job in (
                (self._timing.sweep_every, self._sweep),
                (self._timing.look_every, self._live.look),
                (self._timing.trim_every, self._trim),
            )
        ]
        await asyncio.sleep(0)  # the watch is open when this returns: what is appended next is seen

    async def aclose(self) -> None:
        """Stop every task; the engine stays the caller's."""
        await self._live.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for conn in list(self._links):
            self.leave(conn)

    # Publishing

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        """Append to the log; what the engine raises goes to the caller."""
        with self._tracer.append(stream, events) as append:
            receipts = await self.engine.append(stream, events)
            append.answered(receipts)
        duplicates = sum([receipt.duplicate for receipt in receipts])
        self.counts["duplicates"] += duplicates
        self.counts["accepted"] += len(receipts) - duplicates
        return receipts

    # Subscribing

    def enter(self, conn: Connection) -> None:
        """Know a connection from now on."""
        self._links[conn] = Link((ONE_BY_ONE, conn))

    def leave(self, conn: Connection) -> None:
        """Forget a connection and its sessions."""
        for stream in list(self.sessions(conn)):
            self.unsubscribe(conn, stream)
        self._links.pop(conn, None)

    def reroute(self, conn: Connection, way: Way, target: object) -> None:
        """Write to a connection on another way from now on; `target` is what that way knows it by."""
        link = self._links.get(conn)
        if link is not None:
            link.route = (way, target)
            for session in link.sessions.values():
                session.reroute(link.route)

    async def subscribe(
        self, conn: Connection, request: Subscribe, enter: Callable[[], Awaitable[None]] | None = None
    ) -> tuple[dict[Lane, LaneAnswer], Session]:
        """Answer a `subscribe` and make its session, which replaces the stream's old one.

        `enter` is awaited first: its turn, where many subscribe at once; what it raises goes through. The
        session gets nothing before `begin`, so that the answer can go out first. Where the connection
        has asked anew meanwhile, or unsubscribed, that counts: this session is over before it begins.
        Raises `EngineUnavailable` where the engine can't tell, `Unavailable` where the connection is gone,
        and `TooLarge` (`too_many_streams`).
        """
        stream = request.stream
        link = self._links.get(conn)
        if link is None:
            raise Unavailable("the connection is gone")
        self._check_streams(link, stream)
        asked = link.asking[stream] = object()
        groups = self._groups.hold(stream)
        try:
            if enter is not None:
                await enter()
            description = await self._describe(request)
            states = description.streams[stream]
            answers = {
                lane: await self._answer(request, lane, description.epoch, states[lane]) for lane in LANES
            }
            if conn not in self._links:
                raise Unavailable("the connection is gone")
            if link.asking.get(stream) is not asked:
                return answers, self._overtaken(stream, answers)
            self.unsubscribe(conn, stream)
            for group in groups:
                raise_idle(group, description)
            return answers, self._session(link, stream, answers)
        finally:
            if link.asking.get(stream) is asked:
                del link.asking[stream]
            self._groups.release(stream)

    def begin(self, session: Session) -> None:
        """Let a session have batches: its answer is out."""
        session.begun = True
        for flow in session.flows.values():
            self._replay.pump(flow)

    def unsubscribe(self, conn: Connection, stream: str) -> bool:
        """End a session, and a subscribe that isn't answered yet; tells whether there was a session."""
        link = self._links.get(conn)
        if link is None:
            return False
        link.asking.pop(stream, None)
        session = link.sessions.pop(stream, None)
        if session is None:
            return False
        session.close()
        for flow in session.flows.values():
            self._groups.forget(flow)
        self._groups.release(stream)
        return True

    def take_ack(self, conn: Connection, ack: Ack) -> bool:
        """Take a client's ack; False, and counted, where there is nothing that it could acknowledge."""
        taken = self.acked(conn, ack)
        self.counts["acks_ignored"] += not taken
        return taken

    def acked(self, conn: Connection, ack: Ack) -> bool:
        """Take an ack that acknowledges something; False leaves it to be judged."""
        session = self.sessions(conn).get(ack.stream)
        if session is None:
            return False
        flow = session.flows[ack.lane]
        before = flow.acked
        if not flow.take_ack(self._clock(), ack.epoch, ack.offset):
            return False
        self.counts["acks"] += 1
        self._tracer.ack(ack, before)
        self._replay.pump(flow)
        return True

    def pause(self, conn: Connection) -> None:
        """Note that a connection's transport takes no more for now."""
        link = self._links.get(conn)
        if link is not None:
            link.paused = True
            for session in link.sessions.values():
                session.pause()

    def resume(self, conn: Connection) -> None:
        """Note that a connection's transport takes bytes again."""
        link = self._links.get(conn)
        if link is None:
            return
        link.paused = False
        for session in link.sessions.values():
            session.resume()
            if session.begun:
                self.begin(session)

    def sessions(self, conn: Connection) -> dict[str, Session]:
        """Give a connection's sessions by stream."""
        link = self._links.get(conn)
        return link.sessions if link is not None else {}

    async def heads(self, streams: Iterable[str]) -> dict[str, dict[str, Position]]:
        """Read the heads of some streams from the engine; one that holds nothing is at offset 0."""
        description = await self.engine.describe()
        empty: dict[Lane, LaneState] = {}
        return {
            stream: {
                str(lane): Position(description.epoch, state.head if (state := states.get(lane)) else 0)
                for lane in LANES
            }
            for stream in streams
            for states in [description.streams.get(stream, empty)]
        }

    def statistics(self) -> dict[str, object]:
        """Tell how many connections, sessions by state, groups, and what was counted."""
        states = Counter(s.state.value for link in self._links.values() for s in link.sessions.values())
        return {
            "connections": len(self._links),
            "sessions": {state.value: states[state.value] for state in State if state is not State.CLOSED},
            "groups": len(self._groups),
            "pages_bytes": self._replay.pages.size,
            "counts": dict(self.counts),
        }

    # Answers

    async def _describe(self, request: Subscribe) -> Description:
        """Describe the stream that is asked for; twice where a cursor is above its head.

        Of several servers that hold a log, one that lost touch with the others may tell an old head for a
        while. Only a log that takes a write surely knows its end; without one nobody is told `reset`.
        """
        description = await self._looks.describe(request.stream)
        states = description.streams[request.stream]
        above = [
            lane
            for lane, cursor in request.cursors.items()
            if cursor.epoch == description.epoch and cursor.offset > states[lane].head
        ]
        if not above:
            return description
        self.counts["heads_checked"] += 1
        await self.engine.append(request.stream, [])
        return await self._looks.describe(request.stream)

    async def _answer(self, request: Subscribe, lane: Lane, epoch: str, state: LaneState) -> LaneAnswer:
        dense = self.engine.dense
        cursor = request.cursors.get(lane)
        if cursor is not None:
            retained = await self._retained_id(request.stream, lane, cursor, epoch, state)
            return answer_cursor(
                cursor, epoch=epoch, head=state.head, trimmed=state.trimmed, retained_id=retained, dense=dense
            )
        after = await self._start_offset(request, lane, state)
        return answer_new(after, epoch=epoch, head=state.head, dense=dense)

    async def _start_offset(self, request: Subscribe, lane: Lane, state: LaneState) -> int:
        match request.last:
            case None:
                return state.trimmed
            case 0:
                return state.head
            case last:
                page = await self.engine.read(request.stream, lane, -last, 1)
                return min(page.after, state.head)

    async def _retained_id(
        self, stream: str, lane: Lane, cursor: Cursor, epoch: str, state: LaneState
    ) -> str | None:
        if cursor.id is None or cursor.epoch != epoch or not state.trimmed < cursor.offset <= state.head:
            return None
        try:
            page = await self.engine.read(stream, lane, cursor.offset - 1, 1)
        except PositionLost:
            # Retention passed the cursor since `describe`: what stands there can't be compared any more,
            # and the first page will show the loss.
            self.counts["cursors_unchecked"] += 1
            return cursor.id
        except EngineRefused as error:
            if error.code != "engine_invalid":
                raise
            # Damaged since it was applied: that is no reason to keep its reader from what is sound behind it.
            self.counts["cursors_unchecked"] += 1
            return cursor.id
        found = page.events[0] if page.events else None
        return found.event.id if found is not None and found.offset == cursor.offset else None

    def _session(self, link: Link, stream: str, answers: dict[Lane, LaneAnswer]) -> Session:
        session = link.sessions[stream] = Session(stream, _cursors(answers), self.window, link.route)
        if link.paused:
            session.pause()
        self._groups.hold(stream)
        for answer in answers.values():
            self.counts[f"subscribed_{answer.status}"] += 1
        return session

    def _check_streams(self, link: Link, stream: str) -> None:
        if len(link.sessions) >= STREAMS and stream not in link.sessions:
            self.counts["too_many_streams"] += 1
            raise TooLarge(
                f"a connection follows at most {STREAMS} streams", code="too_many_streams", limit=STREAMS
            )

    def _overtaken(self, stream: str, answers: dict[Lane, LaneAnswer]) -> Session:
        """Make the session of a subscribe that a later request of its connection has ended."""
        self.counts["subscribes_overtaken"] += 1
        session = Session(stream, _cursors(answers))
        session.close()
        return session

    # Timers

    async def _every(self, interval: float, job: Callable[[], object]) -> None:
        while True:
            await asyncio.sleep(interval)
            try:
                result = job()
                if asyncio.iscoroutine(result):
                    await result
            except SteadcastError as error:
                self.counts["jobs_failed"] += 1
                log.warning("the engine didn't answer", job=job.__name__.strip("_"), code=error.code)
            except Exception:
                # A defect in one round must not end the work for ever.
                self.counts["jobs_failed"] += 1
                log.exception("a round of work failed", job=job.__name__.strip("_"))

    def _sweep(self) -> None:
        """Let go of old pages, and disconnect clients whose acks are overdue."""
        now = self._clock()
        self._replay.pages.forget_old(now)
        for conn, link in list(self._links.items()):
            if any(session.overdue(now, self._timing.ack_overdue) for session in link.sessions.values()):
                self.counts["ack_overdue"] += 1
                conn.kick(Unavailable("nothing was acknowledged for too long", code="ack_overdue"))

    async def _trim(self) -> None:
        went = await self.engine.trim()
        self.counts["trimmed"] += went


def _cursors(answers: dict[Lane, LaneAnswer]) -> dict[Lane, Cursor]:
    return {lane: Cursor(each.cursor.epoch, each.cursor.offset) for lane, each in answers.items()}
