"""Small words for the tests of sessions: a flow here, a group there, a batch for all."""

from __future__ import annotations

from steadcast.core.session import Flow, Group, Session, State, Window
from steadcast.event import LANES, Lane
from steadcast.wire import Cursor

NORMAL, CRITICAL = Lane.NORMAL, Lane.CRITICAL


def group_at(position: int = 0, epoch: str = "e1") -> Group:
    return Group("s", NORMAL, epoch, position)


def flow_at(offset: int = 0, window: Window | None = None) -> Flow:
    return Session("s", {lane: Cursor("e1", offset) for lane in LANES}, window).flows[NORMAL]


def live(group: Group, window: Window | None = None) -> Flow:
    flow = flow_at(group.position, window)
    assert flow.join(group)
    return flow


def spread(group: Group, events: int, size: int = 0, now: float = 0.0) -> list[Flow]:
    """Bring one batch of so many events to the group, and give the flows that it finds full."""
    lagging = group.room_for(events, size)
    group.advance(now, group.position + events, events, size)
    return lagging


def in_state(state: State) -> Flow:
    flow = flow_at()
    match state:
        case State.LIVE:
            flow.join(group_at())
        case State.LAGGING:
            flow.block()
        case State.CLOSED:
            flow.close()
        case _:
            pass
    assert flow.state is state
    return flow
