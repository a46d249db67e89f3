"""The hub: engine, groups and sessions under one clock. It is the only scheduler.

What the engine's watch brings is encoded once and written to the live flows of its group; flows that are not
live read the log page by page. A flow joins its group in the same step in which its page was written.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import structlog

from steadcast.core.answer import answer_cursor, answer_new
from steadcast.core.paging import cut, split
from steadcast.core.session import Flow, Group, Session, State, Window
from steadcast.errors import PositionLost, SteadcastError, Unavailable
from steadcast.event import LANES, Lane, Position
from steadcast.wire import Cursor, encode_batch, size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from steadcast.engines.base import Description, Engine, LaneState
    from steadcast.event import Batch, Event, Receipt
    from steadcast.wire import Ack, LaneAnswer, Subscribe

log = structlog.get_logger("steadcast.hub")

READERS: Final = 4
"""Pages that are read at the same time."""
RETRY_READ: Final = 0.5
"""Seconds until a page is read again after the engine failed to give it."""


class Frame:
    """A batch with its JSON, encoded once; a transport may keep its own form of it in `framed`."""

    __slots__ = ("batch", "framed", "payload", "size")

    def __init__(self, batch: Batch) -> None:
        """Encode the batch."""
        self.batch = batch
        self.payload = encode_batch(batch)
        self.size = sum(size_of(entry.event) for entry in batch.events)
        self.framed: object = None


class Connection(Protocol):
    """What the hub writes to: a Socket.IO client, an SSE response."""

    id: str

    def write(self, frame: Frame) -> None:
        """Queue a batch for this client; returns at once."""
        ...

    def kick(self, error: SteadcastError) -> None:
        """Tell the client why, and disconnect it; returns at once."""
        ...


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The hub's own intervals, in seconds."""

    ack_overdue: float = 40.0
    sweep_every: float = 1.0
    look_every: float = 2.5
    behind_limit: float = 5.0
    trim_every: float = 30.0


class Hub:
    """Sessions, groups, engine and clock."""

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], float] | None = None,
        window: Window | None = None,
        timing: Timing | None = None,
    ) -> None:
        """Stand ready; `start` begins the work. `clock` gives monotonic seconds, the loop's by default."""
        self.engine = engine
        self.counts: Counter[str] = Counter()
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._window = window or Window()
        self._timing = timing or Timing()
        self._groups: dict[tuple[str, Lane], Group] = {}
        self._waiting: dict[Group, dict[Flow, None]] = {}
        self._sessions: dict[Connection, dict[str, Session]] = {}
        self._wanted: dict[Lane, deque[Flow]] = {lane: deque() for lane in LANES}  # bounded by the flows
        self._work = asyncio.Semaphore(0)
        self._tasks: list[asyncio.Task[None]] = []
        self._watch: asyncio.Task[None] | None = None
        self._holds: Counter[str] = Counter()
        self._behind: dict[Group, tuple[int, float]] = {}

    # Life

    async def start(self) -> None:
        """Follow the engine and begin to serve."""
        self._watch = asyncio.create_task(self._follow(), name="steadcast-watch")
        self._tasks = [
            asyncio.create_task(self._read_pages(), name=f"steadcast-read-{n}") for n in range(READERS)
        ]
        self._tasks += [
            asyncio.create_task(self._every(interval, job), name=f"steadcast-{job.__name__.strip('_')}")
            for interval, job in (
                (self._timing.sweep_every, self._sweep),
                (self._timing.look_every, self._look),
                (self._timing.trim_every, self._trim),
            )
        ]

    async def aclose(self) -> None:
        """Stop every task; the engine stays the caller's."""
        tasks = [*self._tasks, *([self._watch] if self._watch else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for conn in list(self._sessions):
            self.leave(conn)

    # Publishing

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        """Append to the log; what the engine raises goes to the caller."""
        receipts = await self.engine.append(stream, events)
        duplicates = sum(receipt.duplicate for receipt in receipts)
        self.counts["duplicates"] += duplicates
        self.counts["accepted"] += len(receipts) - duplicates
        return receipts

    # Subscribing

    def enter(self, conn: Connection) -> None:
        """Know a connection from now on."""
        self._sessions[conn] = {}

    def leave(self, conn: Connection) -> None:
        """Forget a connection and its sessions."""
        for stream in list(self._sessions.get(conn, ())):
            self.unsubscribe(conn, stream)
        self._sessions.pop(conn, None)

    async def subscribe(self, conn: Connection, request: Subscribe) -> tuple[dict[Lane, LaneAnswer], Session]:
        """Answer a `subscribe` and make its session, which replaces the stream's old one.

        The session gets nothing before `begin`, so that the answer can go out first.
        Raises `EngineUnavailable` where the engine can't tell, `Unavailable` where the connection is gone.
        """
        stream = request.stream
        groups = self._hold(stream)
        try:
            description = await self.engine.describe(stream)
            states = description.streams[stream]
            answers = {
                lane: await self._answer(request, lane, description.epoch, states[lane]) for lane in LANES
            }
            if conn not in self._sessions:
                raise Unavailable("the connection is gone")
            self.unsubscribe(conn, stream)
            for group in groups:
                self._raise_idle(group, description)
            return answers, self._session(conn, stream, answers)
        finally:
            self._release(stream)

    def begin(self, session: Session) -> None:
        """Let a session have batches: its answer is out."""
        for flow in session.flows.values():
            self._pump(flow)

    def unsubscribe(self, conn: Connection, stream: str) -> bool:
        """End a session; tells whether there was one."""
        session = self._sessions.get(conn, {}).pop(stream, None)
        if session is None:
            return False
        session.close()
        for lane, flow in session.flows.items():
            self._waiting[self._groups[stream, lane]].pop(flow, None)
        self._release(stream)
        return True

    def take_ack(self, conn: Connection, ack: Ack) -> bool:
        """Take a client's ack; False, and counted, where there is nothing that it could acknowledge."""
        session = self._sessions.get(conn, {}).get(ack.stream)
        flow = session.flows[ack.lane] if session else None
        if flow is None or not flow.take_ack(self._clock(), ack.epoch, ack.offset):
            self.counts["acks_ignored"] += 1
            return False
        self.counts["acks"] += 1
        self._pump(flow)
        return True

    def pause(self, conn: Connection) -> None:
        """Note that a connection's transport takes no more for now."""
        for session in self._sessions.get(conn, {}).values():
            session.pause()

    def resume(self, conn: Connection) -> None:
        """Note that a connection's transport takes bytes again."""
        for session in self._sessions.get(conn, {}).values():
            session.resume()
            self.begin(session)

    def sessions(self, conn: Connection) -> dict[str, Session]:
        """Give a connection's sessions by stream."""
        return self._sessions.get(conn, {})

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
        states = Counter(s.state.value for by_stream in self._sessions.values() for s in by_stream.values())
        return {
            "connections": len(self._sessions),
            "sessions": {state.value: states[state.value] for state in State if state is not State.CLOSED},
            "groups": len(self._groups),
            "counts": dict(self.counts),
        }

    # Answers

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
        found = page.events[0] if page.events else None
        return found.event.id if found is not None and found.offset == cursor.offset else None

    # Groups

    def _hold(self, stream: str) -> list[Group]:
        """Keep the stream's groups; new ones follow the watch from here on, before their head is read."""
        self._holds[stream] += 1
        for lane in LANES:
            if (stream, lane) not in self._groups:
                group = self._groups[stream, lane] = Group(stream, lane, "", 0)
                self._waiting[group] = {}
        return [self._groups[stream, lane] for lane in LANES]

    def _release(self, stream: str) -> None:
        """Undo one `_hold`; with the last one the groups go."""
        self._holds[stream] -= 1
        if self._holds[stream]:
            return
        del self._holds[stream]
        for lane in LANES:
            group = self._groups.pop((stream, lane))
            del self._waiting[group]
            self._behind.pop(group, None)

    def _session(self, conn: Connection, stream: str, answers: dict[Lane, LaneAnswer]) -> Session:
        cursors = {lane: Cursor(a.cursor.epoch, a.cursor.offset) for lane, a in answers.items()}
        session = Session(stream, cursors, self._window, conn)
        self._sessions[conn][stream] = session
        self._hold(stream)
        for answer in answers.values():
            self.counts[f"subscribed_{answer.status}"] += 1
        return session

    @staticmethod
    def _raise_idle(group: Group, description: Description) -> None:
        """Set the position of a group that nobody shares yet to the head that the engine told."""
        head = description.streams[group.stream][group.lane].head
        if group.epoch == "" or (
            not group.flows and group.epoch == description.epoch and head > group.position
        ):
            group.epoch, group.position = description.epoch, head

    # The live way

    async def _follow(self) -> None:
        while True:
            try:
                async for batch in self.engine.watch():
                    self._take(batch)
            except SteadcastError as error:
                log.warning("following the engine failed", code=error.code)
            self.counts["watch_ended"] += 1
            await asyncio.sleep(RETRY_READ)

    def _take(self, batch: Batch) -> None:
        group = self._groups.get((batch.stream, batch.lane))
        if group is None:
            return
        if group.epoch == "":
            group.epoch, group.position = batch.epoch, batch.upto
        elif batch.epoch != group.epoch or batch.after > group.position:
            self._miss(group, batch.epoch, batch.upto)
        elif batch.upto > group.position:
            for part in split(batch, group.position):
                self._spread(group, part)
        self._wake(group)

    def _spread(self, group: Group, batch: Batch) -> None:
        """Write a batch to every live flow of its group."""
        frame = Frame(batch)
        events = len(batch.events)
        lagging = group.room_for(events, frame.size)
        group.advance(self._clock(), batch.upto, events, frame.size)
        for flow in list(group.flows):
            flow.session.owner.write(frame)
        self.counts["deliveries"] += events * len(group.flows)
        self.counts["lagging"] += len(lagging)
        for flow in lagging:
            flow.settle()
            self._pump(flow)

    def _miss(self, group: Group, epoch: str, position: int) -> None:
        self.counts["missed"] += 1
        changed = epoch != group.epoch
        for flow in group.miss(epoch, position):
            if changed:
                flow.restart(epoch, 0)
            self._pump(flow)

    def _wake(self, group: Group) -> None:
        """Let flows go on that stood ahead of their group."""
        waiting, self._waiting[group] = self._waiting[group], {}
        for flow in waiting:
            self._pump(flow)

    # The log's way

    def _pump(self, flow: Flow) -> None:
        """Do the next thing for a replaying flow: join, wait for the group, or read a page."""
        if not flow.wants_page:
            return
        group = self._groups[flow.session.stream, flow.lane]
        if flow.join(group):
            return
        if flow.epoch == group.epoch and flow.sent > group.position:
            self._waiting[group][flow] = None
            return
        flow.reading = True
        self._wanted[flow.lane].append(flow)
        self._work.release()

    async def _read_pages(self) -> None:
        while True:
            await self._work.acquire()
            lane = next(lane for lane in LANES if self._wanted[lane])
            await self._read_page(self._wanted[lane].popleft())

    async def _read_page(self, flow: Flow) -> None:
        stream = flow.session.stream
        try:
            page = await self.engine.read(stream, flow.lane, flow.sent, flow.page_limit)
        except PositionLost as error:
            self.counts["overtaken"] += 1
            flow.skip(error.epoch, error.lost[1] if error.lost else 0)
            self._again(flow)
        except SteadcastError as error:
            self.counts["reads_failed"] += 1
            log.warning("reading the log failed", stream=stream, lane=str(flow.lane), code=error.code)
            asyncio.get_running_loop().call_later(RETRY_READ, self._again, flow)
        else:
            flow.reading = False
            self._write_page(flow, page)

    def _again(self, flow: Flow) -> None:
        flow.reading = False
        self._pump(flow)

    def _write_page(self, flow: Flow, page: Batch) -> None:
        """Write a page, cut at the group's position, and join in the same step where it ends there."""
        if not flow.wants_page:
            return
        group = self._groups[flow.session.stream, flow.lane]
        page = cut(page, group.position) if page.epoch == group.epoch else page
        if page.upto <= flow.sent and page.epoch == flow.epoch:
            self._stand(flow, group)
            return
        frame = Frame(page)
        flow.session.owner.write(frame)
        flow.wrote(self._clock(), page.epoch, page.upto, len(page.events), frame.size)
        self.counts["replayed"] += len(page.events)
        self._pump(flow)

    def _stand(self, flow: Flow, group: Group) -> None:
        """Wait with a flow for which the log has nothing yet."""
        if not flow.join(group):
            flow.reading = True
            asyncio.get_running_loop().call_later(RETRY_READ, self._again, flow)

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

    def _sweep(self) -> None:
        """Disconnect clients whose acks are overdue."""
        now = self._clock()
        for conn, by_stream in list(self._sessions.items()):
            if any(session.overdue(now, self._timing.ack_overdue) for session in by_stream.values()):
                self.counts["ack_overdue"] += 1
                conn.kick(Unavailable("nothing was acknowledged for too long", code="ack_overdue"))

    async def _look(self) -> None:
        """Compare the groups with the engine's heads; a group that stays behind gets the watch restarted."""
        if not self._groups:
            return
        description = await self.engine.describe()
        now = self._clock()
        stuck = [group for group in self._groups.values() if self._stays_behind(group, description, now)]
        if stuck:
            self.counts["watch_restarts"] += 1
            log.warning("the watch fell silent; following the engine anew", groups=len(stuck))
            self._behind.clear()
            self._restart_watch()
            for group in stuck:
                self._miss(group, description.epoch, self._head(group, description))
                self._wake(group)

    def _stays_behind(self, group: Group, description: Description, now: float) -> bool:
        head = self._head(group, description)
        if group.epoch in {"", description.epoch} and head <= group.position:
            self._behind.pop(group, None)
            return False
        position, since = self._behind.setdefault(group, (group.position, now))
        if position != group.position:
            self._behind[group] = (group.position, now)
            return False
        return now - since >= self._timing.behind_limit

    @staticmethod
    def _head(group: Group, description: Description) -> int:
        states = description.streams.get(group.stream)
        return states[group.lane].head if states else 0

    def _restart_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch = asyncio.create_task(self._follow(), name="steadcast-watch")

    async def _trim(self) -> None:
        went = await self.engine.trim()
        self.counts["trimmed"] += went
