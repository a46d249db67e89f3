"""The delivery state of one connection and stream, and the group that live sessions share.

A session has a flow for each lane. A flow moves through `TRANSITIONS`:

    REPLAYING   reads the log, page by page
    LIVE        is in its group: no work per event, the group's bytes are its bytes
    LAGGING     may not be written to: its ack window is full or its transport is paused
    CLOSED      is over

Windows are counted with cumulative numbers: a flow's own while it replays, its group's while it is live
(less a difference that is fixed on joining). So an event that goes to a group costs its flows nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from steadcast.errors import IllegalInput
from steadcast.event import LANES, Lane
from steadcast.wire import PAGE_BYTES, PAGE_EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from steadcast.wire import Cursor

WINDOW_EVENTS: Final = 1_024
WINDOW_BYTES: Final = 1024 * 1024
ACK_OVERDUE: Final = 40.0
"""Seconds without any ack, while something is unacked, after which a client is disconnected."""


class State(Enum):
    """Where a flow stands; see the module's table."""

    REPLAYING = "replaying"
    LIVE = "live"
    LAGGING = "lagging"
    CLOSED = "closed"


class _In(Enum):
    JOIN = auto()
    MISS = auto()
    BLOCK = auto()
    FREE = auto()
    RESTART = auto()
    CLOSE = auto()


TRANSITIONS: Final[dict[tuple[State, _In], State]] = {
    (State.REPLAYING, _In.JOIN): State.LIVE,
    (State.REPLAYING, _In.BLOCK): State.LAGGING,
    (State.LIVE, _In.MISS): State.REPLAYING,
    (State.LIVE, _In.BLOCK): State.LAGGING,
    (State.LAGGING, _In.BLOCK): State.LAGGING,
    (State.LAGGING, _In.FREE): State.REPLAYING,
    (State.REPLAYING, _In.RESTART): State.REPLAYING,
    (State.LAGGING, _In.RESTART): State.LAGGING,
    **{(state, _In.CLOSE): State.CLOSED for state in State},
}


class Window(msgspec.Struct, frozen=True):
    """How much may be unacked in a flow."""

    events: int = WINDOW_EVENTS
    bytes: int = WINDOW_BYTES


class Mark(msgspec.Struct, frozen=True):
    """The end of a batch that was written at `at`, with all that was written up to there."""

    upto: int
    events: int
    bytes: int
    at: float


_NOTHING: Final = Mark(0, 0, 0, 0.0)

Route: TypeAlias = tuple[Any, Any]
"""How a session's batches go out: the way that it shares with others, and what that way knows it by."""


class Group:
    """All live flows of one lane of a stream; they share bytes and this one position.

    `targets` has them by the way on which they are written to, kept as they come and go.
    """

    def __init__(self, stream: str, lane: Lane, epoch: str, position: int) -> None:
        """Begin at the lane's head, with nobody in it."""
        self.stream = stream
        self.lane = lane
        self.epoch = epoch
        self.position = position
        self.events = 0
        self.bytes = 0
        self.flows: dict[Flow, None] = {}
        self.targets: dict[Any, dict[Flow, Any]] = {}
        self._marks: list[Mark] = []
        self._ends: list[int] = []  # of the marks, each one's `upto`: where to look for one
        self._floor_events = 0
        self._floor_bytes = 0

    def mark_at(self, offset: int) -> Mark | None:
        """Give the last mark at or below an offset, or None where it lies before all that is kept."""
        index = bisect_right(self._ends, offset)
        return self._marks[index - 1] if index else None

    def marks_after(self, offset: int) -> list[Mark]:
        """Give the marks above an offset."""
        return self._marks[bisect_right(self._ends, offset) :]

    def written_since(self, offset: int) -> float | None:
        """Give the time of the first write above an offset, or None where there is none."""
        index = bisect_right(self._ends, offset)
        return self._marks[index].at if index < len(self._marks) else None

    def room_for(self, events: int, size: int) -> list[Flow]:
        """Take out, and return, the flows whose window has no room for so much more.

        The floors are the smallest totals that any flow allows; acks only raise what a flow allows,
        so the flows are looked at only when a floor is passed.
        """
        total, total_bytes = self.events + events, self.bytes + size
        if total <= self._floor_events and total_bytes <= self._floor_bytes:
            return []
        full = [flow for flow in self.flows if not flow.allows(total, total_bytes)]
        for flow in full:
            flow.block()
            # With nothing unacked no ack would come to free it: it reads on in pages that fit.
            flow.settle()
        self._set_floors()
        return full

    def advance(self, now: float, upto: int, events: int, size: int) -> None:
        """Note that a batch that ends at `upto` goes to every flow in the group."""
        self.position = upto
        self.events += events
        self.bytes += size
        if events:
            self._marks.append(Mark(upto, self.events, self.bytes, now))
            self._ends.append(upto)
        if len(self._marks) > 4 * WINDOW_EVENTS:
            del self._marks[: -2 * WINDOW_EVENTS], self._ends[: -2 * WINDOW_EVENTS]

    def miss(self, epoch: str, position: int) -> list[Flow]:
        """Note that batches up to `position` never came this way: every flow must read them from the log."""
        missed = list(self.flows)
        for flow in missed:
            flow.miss()
        self.epoch, self.position = epoch, position
        self._marks.clear()
        self._ends.clear()
        return missed

    def add(self, flow: Flow) -> None:
        """Take a flow in; only `Flow.join` calls this."""
        self.flows[flow] = None
        way, target = flow.session.route
        self.targets.setdefault(way, {})[flow] = target
        self._set_floors_with(flow)

    def remove(self, flow: Flow) -> None:
        """Let a flow go; only the flow calls this."""
        del self.flows[flow]
        way, _ = flow.session.route
        del self.targets[way][flow]
        if not self.targets[way]:
            del self.targets[way]

    def _set_floors_with(self, flow: Flow) -> None:
        events, size = flow.limits()
        first = len(self.flows) == 1
        self._floor_events = events if first else min(self._floor_events, events)
        self._floor_bytes = size if first else min(self._floor_bytes, size)

    def _set_floors(self) -> None:
        limits = [flow.limits() for flow in self.flows]
        self._floor_events = min((events for events, _ in limits), default=0)
        self._floor_bytes = min((size for _, size in limits), default=0)


class Flow:
    """One lane of a session: what was written, what is acked, and what may be written next."""

    __slots__ = (
        "_acked_bytes",
        "_acked_events",
        "_base",
        "_marks",
        "_own",
        "_window",
        "acked",
        "acked_at",
        "epoch",
        "group",
        "lane",
        "reading",
        "sent",
        "session",
        "state",
    )

    def __init__(self, session: Session, lane: Lane, cursor: Cursor, window: Window) -> None:
        """Begin to replay behind a cursor."""
        self.session = session
        self.lane = lane
        self.epoch = cursor.epoch
        self.sent = cursor.offset
        self.acked = cursor.offset
        self.acked_at = float("-inf")
        self.state = State.REPLAYING
        self.group: Group | None = None
        self.reading = False
        self._window = window
        self._own = _NOTHING
        self._acked_events = 0
        self._acked_bytes = 0
        self._base = _NOTHING
        self._marks: list[Mark] = []  # bounded by the window: a mark has an event at least

    # The window

    @property
    def written(self) -> Mark:
        """What was written so far, in this flow's own numbers."""
        if self.group is None:
            return self._own
        return Mark(self.group.position, *self._own_numbers(self.group.events, self.group.bytes), 0.0)

    @property
    def unacked(self) -> tuple[int, int]:
        """Events and bytes that were written and not acked."""
        written = self.written
        return written.events - self._acked_events, written.bytes - self._acked_bytes

    @property
    def position(self) -> int:
        """The offset up to which everything was written."""
        return self.group.position if self.group is not None else self.sent

    def limits(self) -> tuple[int, int]:
        """Give the totals, in the group's numbers, up to which the window allows writing."""
        events = self._acked_events + self._window.events + self._base.events
        size = self._acked_bytes + self._window.bytes + self._base.bytes
        return events, size

    def allows(self, events: int, size: int) -> bool:
        """Tell whether the group's totals may rise so far."""
        most_events, most_bytes = self.limits()
        return events <= most_events and size <= most_bytes

    @property
    def room(self) -> bool:
        """Whether a whole page fits into the window."""
        events, size = self.unacked
        fits = events <= self._window.events - PAGE_EVENTS and size <= self._window.bytes - PAGE_BYTES
        return events == 0 or fits

    @property
    def page_limit(self) -> int:
        """The most events that the next page may have: a flow with room has it for a whole page."""
        return min(PAGE_EVENTS, self._window.events)

    @property
    def wants_page(self) -> bool:
        """Whether the next page is to be read for this flow."""
        return self.state is State.REPLAYING and not self.reading

    # What happens to it

    def wrote(self, now: float, epoch: str, upto: int, events: int, size: int) -> None:
        """Note that a page that ends at `upto` was written."""
        if self.state is not State.REPLAYING:
            raise IllegalInput(f"a page while {self.state.value}", stream=self.session.stream)
        if epoch != self.epoch:
            self.restart(epoch, 0)
        self.sent = upto
        self._own = Mark(upto, self._own.events + events, self._own.bytes + size, now)
        if events:
            self._marks.append(self._own)
        self.settle()

    def join(self, group: Group) -> bool:
        """Enter the group if the flow stands exactly at its position; tells whether it did."""
        if self.state is not State.REPLAYING or (group.epoch, group.position) != (self.epoch, self.sent):
            return False
        self._move(_In.JOIN)
        self.group = group
        self._base = Mark(0, group.events - self._own.events, group.bytes - self._own.bytes, 0.0)
        group.add(self)
        return True

    def block(self) -> None:
        """Stop: the window is full or the transport is paused."""
        self._move(_In.BLOCK)
        self._leave()

    def miss(self) -> None:
        """Go back to the log: the group's batches have a gap."""
        self._move(_In.MISS)
        self._leave()
        self.settle()

    def restart(self, epoch: str, after: int) -> None:
        """Go on in another epoch; the subscriber sees it in the next batch and asks.

        What was unacked is forgotten: no ack of the old epoch counts any more.
        """
        self._move(_In.RESTART)
        self.epoch, self.sent = epoch, after
        self.acked, self.acked_at = after, float("-inf")
        self._acked_events, self._acked_bytes = self._own.events, self._own.bytes
        self._marks.clear()
        self.settle()

    def skip(self, epoch: str, after: int) -> None:
        """Go on above what retention took; the subscriber sees the gap in the next batch and asks.

        A session that ended while its page was being read has nothing to skip any more.
        """
        if self.state is State.CLOSED:
            return
        if epoch != self.epoch:
            self.restart(epoch, after)
        elif self.state is not State.LIVE:
            self.sent = max(self.sent, after)

    def settle(self) -> None:
        """Block a replaying flow without room, free a lagging one that has room again."""
        free = self.room and not self.session.paused
        if self.state is State.REPLAYING and not free:
            self.block()
        elif self.state is State.LAGGING and free:
            self._move(_In.FREE)
        elif self.state is State.LIVE and self.session.paused:
            self.block()

    def take_ack(self, now: float, epoch: str, offset: int) -> bool:
        """Take a cumulative ack; False where it is lower, foreign, or for what was never sent."""
        group = self.group
        position = self.sent if group is None else group.position
        if epoch != self.epoch or not self.acked < offset <= position:
            return False
        if group is None and self.state is State.CLOSED:
            return False
        self.acked, self.acked_at = offset, now
        self._count_acked(offset)
        if group is None and self.state is State.LAGGING:
            self.settle()
        return True

    def _count_acked(self, offset: int) -> None:
        marks = self._marks
        while marks and marks[0].upto <= offset:
            mark = marks.pop(0)
            self._acked_events, self._acked_bytes = mark.events, mark.bytes
        if self.group is not None and not marks:
            shared = self.group.mark_at(offset)
            if shared is not None and shared.events - self._base.events >= self._acked_events:
                self._acked_events, self._acked_bytes = self._own_numbers(shared.events, shared.bytes)

    def overdue(self, now: float, limit: float = ACK_OVERDUE) -> bool:
        """Tell whether nothing was acked for `limit` seconds while something was unacked."""
        since = self._marks[0].at if self._marks else None
        if since is None and self.group is not None:
            since = self.group.written_since(max(self.acked, self.sent))
        return since is not None and now - max(since, self.acked_at) >= limit

    def close(self) -> None:
        """End; leaves the group."""
        self._move(_In.CLOSE)
        self._leave()

    def _leave(self) -> None:
        """Take over the group's numbers as the flow's own, from what it has not acked yet."""
        group, self.group = self.group, None
        if group is None:
            return
        fresh = group.marks_after(max(self.acked, self.sent))
        self._marks.extend(Mark(m.upto, *self._own_numbers(m.events, m.bytes), m.at) for m in fresh)
        self._own = Mark(group.position, *self._own_numbers(group.events, group.bytes), 0.0)
        self.sent = group.position
        group.remove(self)

    def _own_numbers(self, events: int, size: int) -> tuple[int, int]:
        return events - self._base.events, size - self._base.bytes

    def _move(self, given: _In) -> None:
        target = TRANSITIONS.get((self.state, given))
        if target is None:
            raise IllegalInput(f"{given.name} while {self.state.value}", stream=self.session.stream)
        self.state = target


class Session:
    """One connection's subscription to one stream."""

    __slots__ = ("begun", "flows", "paused", "route", "stream")

    def __init__(
        self,
        stream: str,
        cursors: Mapping[Lane, Cursor],
        window: Window | None = None,
        route: Route = (None, None),
    ) -> None:
        """Begin to replay both lanes behind their cursors; `route` is how the hub writes to it.

        `begun` is False until the answer to its `subscribe` is out.
        """
        self.stream = stream
        self.route = route
        self.begun = False
        self.paused = False
        self.flows = {lane: Flow(self, lane, cursors[lane], window or Window()) for lane in LANES}

    @property
    def state(self) -> State:
        """The state of the lane that is furthest from being live."""
        states = {flow.state for flow in self.flows.values()}
        order = (State.CLOSED, State.LAGGING, State.REPLAYING, State.LIVE)
        return next(state for state in order if state in states)

    def pause(self) -> None:
        """Note that the transport takes no more for now."""
        self.paused = True
        self._settle()

    def resume(self) -> None:
        """Note that the transport takes bytes again."""
        self.paused = False
        self._settle()

    def reroute(self, route: Route) -> None:
        """Go another way from now on."""
        groups = [(flow, flow.group) for flow in self.flows.values() if flow.group is not None]
        for flow, group in groups:
            group.remove(flow)
        self.route = route
        for flow, group in groups:
            group.add(flow)

    def close(self) -> None:
        """End both lanes."""
        for flow in self.flows.values():
            flow.close()

    def overdue(self, now: float, limit: float = ACK_OVERDUE) -> bool:
        """Tell whether a lane's acks are overdue."""
        return any(flow.overdue(now, limit) for flow in self.flows.values())

    def _settle(self) -> None:
        for flow in self.flows.values():
            if flow.state is not State.CLOSED:
                flow.settle()
