"""Missed batches, other epochs, trimmed logs, whole sessions, and the table of transitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from steadcast.core.session import (
    TRANSITIONS,
    Flow,
    Group,
    Session,
    State,
)
from steadcast.core.session import _In as In
from steadcast.errors import IllegalInput
from steadcast.event import LANES
from steadcast.wire import Cursor
from tests.support.sessions import CRITICAL, NORMAL, flow_at, group_at, in_state, live, spread

if TYPE_CHECKING:
    from collections.abc import Callable

# Missed batches, another epoch, trimmed logs


def test_a_miss_sends_every_live_flow_to_the_log_from_where_it_stood() -> None:
    group = group_at()
    flows = [live(group), live(group)]
    spread(group, 3, 30)
    assert group.miss("e1", 9) == flows
    assert [(flow.state, flow.sent, flow.unacked) for flow in flows] == [(State.REPLAYING, 3, (3, 30))] * 2
    assert (group.position, dict(group.flows)) == (9, {})
    flows[0].wrote(1, "e1", 9, 6, 60)
    assert flows[0].join(group)
    assert flows[0].take_ack(2, "e1", 9)
    assert flows[0].unacked == (0, 0)


def test_a_miss_leaves_a_flow_without_room_lagging() -> None:
    group = group_at()
    flow = live(group)
    spread(group, 1_000)
    group.miss("e1", 2_000)
    assert flow.state is State.LAGGING
    assert flow.take_ack(1, "e1", 1_000)
    assert flow.wants_page


def test_a_restart_forgets_what_was_unacked_and_old_acks_are_foreign() -> None:
    group = group_at()
    flow = live(group)
    spread(group, 1_000, now=1)
    group.miss("e2", 4)
    flow.restart("e2", 0)
    assert (flow.state, flow.epoch, flow.position, flow.unacked) == (State.REPLAYING, "e2", 0, (0, 0))
    assert not flow.overdue(1_000)
    assert not flow.take_ack(2, "e1", 1_000)
    flow.wrote(3, "e2", 4, 4, 40)
    assert flow.take_ack(4, "e2", 2)
    assert flow.join(group)


def test_a_page_of_another_epoch_restarts_the_flow() -> None:
    flow = flow_at(1_000)
    flow.wrote(0, "e2", 4, 4, 40)
    assert (flow.epoch, flow.unacked) == ("e2", (4, 40))
    assert flow.take_ack(1, "e2", 4)
    assert flow.unacked == (0, 0)


def test_a_paused_flow_that_restarts_goes_on_lagging() -> None:
    flow = flow_at()
    flow.session.pause()
    flow.restart("e2", 0)
    assert flow.state is State.LAGGING
    flow.session.resume()
    assert flow.wants_page


def test_a_lagging_flow_that_restarts_in_another_epoch_has_room_again() -> None:
    flow = flow_at()
    flow.wrote(0, "e1", 1_000, 1_000, 0)
    assert flow.state is State.LAGGING
    flow.restart("e2", 0)
    assert flow.wants_page


def test_a_flow_skips_what_retention_took_and_never_goes_back() -> None:
    flow = flow_at(5)
    flow.skip("e1", 9)
    assert flow.sent == 9
    flow.skip("e1", 7)
    assert flow.sent == 9
    flow.skip("e2", 3)
    assert (flow.epoch, flow.sent) == ("e2", 3)


def test_a_live_flow_skips_nothing_it_is_at_the_head() -> None:
    flow = live(group_at(5))
    flow.skip("e1", 9)
    assert flow.position == 5


@pytest.mark.parametrize("epoch", ["e1", "e2"])
def test_a_page_that_comes_after_the_end_skips_nothing(epoch: str) -> None:
    flow = flow_at(5)
    flow.close()
    flow.skip(epoch, 9)
    assert flow.state is State.CLOSED


# Sessions


@pytest.mark.parametrize(
    ("one", "other", "whole"),
    [
        (State.LIVE, State.LIVE, State.LIVE),
        (State.LIVE, State.REPLAYING, State.REPLAYING),
        (State.REPLAYING, State.LAGGING, State.LAGGING),
        (State.LAGGING, State.CLOSED, State.CLOSED),
    ],
)
def test_a_session_is_as_far_as_its_furthest_lane(one: State, other: State, whole: State) -> None:
    session = Session("s", {lane: Cursor("e1", 0) for lane in LANES})
    session.flows[CRITICAL].state, session.flows[NORMAL].state = one, other
    assert session.state is whole


def test_the_end_of_a_session_takes_both_lanes_out_of_their_groups() -> None:
    groups = {lane: Group("s", lane, "e1", 0) for lane in LANES}
    session = Session("s", {lane: Cursor("e1", 0) for lane in LANES})
    for lane, flow in session.flows.items():
        assert flow.join(groups[lane])
    session.close()
    assert session.state is State.CLOSED
    assert not any(group.flows for group in groups.values())


def test_either_lane_can_be_overdue() -> None:
    for lane in LANES:
        session = Session("s", {each: Cursor("e1", 0) for each in LANES})
        session.flows[lane].wrote(0, "e1", 1, 1, 1)
        assert session.overdue(40)
        assert not session.overdue(39)


# Transitions


INPUTS: dict[In, Callable[[Flow], object]] = {
    In.JOIN: lambda flow: flow._move(In.JOIN),  # `join` tells, it doesn't raise
    In.FREE: lambda flow: flow._move(In.FREE),  # `settle` frees only where the table allows
    In.MISS: lambda flow: flow.miss(),
    In.BLOCK: lambda flow: flow.block(),
    In.CLOSE: lambda flow: flow.close(),
    In.RESTART: lambda flow: flow.restart("e2", 0),
}


@pytest.mark.parametrize("given", list(In), ids=lambda given: given.name)
@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
def test_the_table_says_what_every_input_does_and_forbids_the_rest(state: State, given: In) -> None:
    flow = in_state(state)
    if (state, given) in TRANSITIONS:
        flow._move(given)
        assert flow.state is TRANSITIONS[state, given]
    else:
        with pytest.raises(IllegalInput, match=f"{given.name} while {state.value}"):
            INPUTS[given](flow)


@pytest.mark.parametrize("state", [State.LIVE, State.LAGGING, State.CLOSED])
def test_a_page_for_a_flow_that_is_not_replaying_is_illegal(state: State) -> None:
    flow = in_state(state)
    with pytest.raises(IllegalInput, match=f"a page while {state.value}"):
        flow.wrote(0, "e1", 1, 1, 1)


def test_closing_twice_is_no_harm() -> None:
    flow = in_state(State.CLOSED)
    flow.close()
    assert flow.state is State.CLOSED
