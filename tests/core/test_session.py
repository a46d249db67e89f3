"""Joining, the window, acks and their being overdue; the model is in test_session_model.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from steadcast.core.session import (
    WINDOW_BYTES,
    WINDOW_EVENTS,
    Flow,
    Session,
    State,
    Window,
)
from steadcast.event import LANES
from steadcast.wire import PAGE_BYTES, PAGE_EVENTS, Cursor
from tests.support.sessions import CRITICAL, NORMAL, flow_at, group_at, in_state, live, spread

if TYPE_CHECKING:
    from collections.abc import Callable

# Joining


@pytest.mark.parametrize(("epoch", "position"), [("e1", 4), ("e1", 6), ("e2", 5)])
def test_a_flow_joins_only_at_the_groups_exact_position(epoch: str, position: int) -> None:
    flow = flow_at(5)
    assert not flow.join(group_at(position, epoch))
    assert flow.wants_page
    assert flow.join(group_at(5))
    assert flow.state is State.LIVE


@pytest.mark.parametrize("state", [State.LIVE, State.LAGGING, State.CLOSED])
def test_only_a_replaying_flow_joins(state: State) -> None:
    flow = in_state(state)
    assert not flow.join(group_at(flow.position, flow.epoch))


def test_a_live_flow_costs_nothing_per_event(monkeypatch: pytest.MonkeyPatch) -> None:
    group = group_at()
    for _ in range(50):
        live(group)
    calls: list[str] = []

    def noting(name: str, whole: Callable[..., object]) -> Callable[..., object]:
        def noted(*args: object) -> object:
            calls.append(name)
            return whole(*args)

        return noted

    for name in ("limits", "allows", "settle", "block", "take_ack", "overdue"):
        monkeypatch.setattr(Flow, name, noting(name, getattr(Flow, name)))
    for _ in range(WINDOW_EVENTS):
        assert spread(group, 1, 1_024) == []
    assert calls == []


def test_leftovers_of_the_replay_count_on_in_the_group() -> None:
    group = group_at(10)
    group.advance(0, 30, 20, 2_000)
    flow = flow_at(25)
    flow.wrote(1, "e1", 30, 5, 500)
    assert flow.join(group)
    spread(group, 3, 300, now=2)
    assert flow.unacked == (8, 800)
    assert flow.take_ack(3, "e1", 27)  # within a page: nothing more is known to be done
    assert flow.unacked == (8, 800)
    assert flow.take_ack(3, "e1", 30)
    assert flow.unacked == (3, 300)
    assert flow.take_ack(3, "e1", 33)
    assert flow.unacked == (0, 0)
    assert flow.written.events == 8


def test_what_a_group_wrote_before_a_flow_joined_is_not_that_flows() -> None:
    group = group_at()
    spread(group, 7, 70)
    flow = live(group)
    assert flow.unacked == (0, 0)
    assert (flow.written.events, flow.written.bytes) == (0, 0)
    assert not flow.overdue(1_000)


def test_an_ack_between_the_marks_frees_what_the_mark_below_it_covers() -> None:
    group = group_at()
    flow = live(group)
    spread(group, 4, 40)
    spread(group, 4, 40)
    assert flow.take_ack(1, "e1", 6)
    assert flow.unacked == (4, 40)


# The window


def test_the_window_is_1024_events_and_one_mebibyte() -> None:
    assert (Window().events, Window().bytes) == (1_024, 1_048_576)


def test_the_window_may_be_filled_to_the_last_event_and_one_more_makes_the_flow_lag() -> None:
    group = group_at()
    flow = live(group)
    assert spread(group, WINDOW_EVENTS) == []
    assert flow.unacked == (WINDOW_EVENTS, 0)
    assert spread(group, 1) == [flow]
    assert flow.state is State.LAGGING
    assert flow.unacked == (WINDOW_EVENTS, 0)
    assert flow.position == WINDOW_EVENTS


def test_the_window_may_be_filled_to_the_last_byte_and_one_more_makes_the_flow_lag() -> None:
    group = group_at()
    flow = live(group)
    assert spread(group, 1, WINDOW_BYTES) == []
    assert flow.unacked == (1, WINDOW_BYTES)
    assert spread(group, 1, 1) == [flow]
    assert flow.state is State.LAGGING


def test_a_full_flow_leaves_the_group_and_the_others_stay() -> None:
    group = group_at()
    slow, quick = live(group), live(group)
    spread(group, 1_000)
    quick.take_ack(1, "e1", 1_000)
    assert spread(group, 100) == [slow]
    assert list(group.flows) == [quick]
    assert (slow.position, quick.position) == (1_000, 1_100)


def test_the_floor_is_that_of_the_fullest_flow_whoever_joins_last() -> None:
    group = group_at()
    full = live(group)
    spread(group, 1_000)
    fresh = live(group)
    assert spread(group, 25) == [full]
    assert fresh.state is State.LIVE
    assert spread(group, 999) == []
    assert spread(group, 1) == [fresh]


def test_the_floor_of_bytes_is_kept_beside_that_of_events() -> None:
    group = group_at()
    full = live(group)
    spread(group, 1, 1_000_000)
    fresh = live(group)
    assert spread(group, 1, 50_000) == [full]
    assert spread(group, 1, WINDOW_BYTES - 50_000) == []
    assert spread(group, 1, 1) == [fresh]


def test_when_the_fullest_flow_is_out_the_floor_is_that_of_the_next() -> None:
    group = group_at()
    first = live(group)
    spread(group, 500)
    second = live(group)
    spread(group, 100)
    third = live(group)
    assert spread(group, 425) == [first]
    assert spread(group, 499) == []
    assert spread(group, 1) == [second]
    assert third.state is State.LIVE


def test_when_the_flow_with_most_bytes_is_out_the_floor_is_that_of_the_next() -> None:
    group = group_at()
    first = live(group)
    spread(group, 1, 500_000)
    second = live(group)
    spread(group, 1, 100_000)
    third = live(group)
    assert spread(group, 1, WINDOW_BYTES - 600_000 + 1) == [first]
    assert spread(group, 1, 500_000 - 1) == []
    assert spread(group, 1, 1) == [second]
    assert third.state is State.LIVE


def test_a_flow_that_is_just_full_stays_while_a_fuller_one_leaves() -> None:
    group = group_at()
    fuller = live(group)
    spread(group, 1, 1)
    full = live(group)
    assert spread(group, WINDOW_EVENTS, WINDOW_BYTES) == [fuller]
    assert full.unacked == (WINDOW_EVENTS, WINDOW_BYTES)
    assert full.state is State.LIVE


def test_a_flow_that_joins_an_empty_group_sets_its_floor_anew() -> None:
    group = group_at()
    gone = live(group)
    spread(group, 5_000)
    assert gone.state is State.REPLAYING  # with nothing unacked it reads on in pages
    flow = live(group)
    assert spread(group, WINDOW_EVENTS) == []
    assert spread(group, 1) == [flow]


def test_acks_raise_the_floor_when_it_is_passed() -> None:
    group = group_at()
    flow = live(group)
    for _ in range(20):
        assert spread(group, 256) == []
        assert flow.take_ack(1, "e1", group.position)


@pytest.mark.parametrize("paused", [False, True])
def test_a_batch_that_no_window_allows_sends_a_flow_with_nothing_unacked_back_to_the_log(
    *, paused: bool
) -> None:
    group = group_at()
    flow = live(group, Window(10, PAGE_BYTES))
    assert spread(group, 11) == [flow]
    assert flow.wants_page, "no ack would ever come to free it"
    assert flow.page_limit == 10
    if paused:
        flow.session.pause()
        assert flow.state is State.LAGGING


def test_a_replaying_flow_lags_when_no_whole_page_fits_and_acks_free_it() -> None:
    flow = flow_at()
    flow.wrote(0, "e1", 256, 256, 0)
    flow.wrote(0, "e1", 512, 256, 0)
    flow.wrote(0, "e1", 768, 256, 0)
    assert flow.wants_page
    flow.wrote(0, "e1", 769, 1, 0)
    assert flow.state is State.LAGGING
    assert flow.take_ack(1, "e1", 255)
    assert flow.state is State.LAGGING
    assert flow.take_ack(1, "e1", 256)
    assert flow.wants_page
    assert flow.page_limit == 256


def test_a_replaying_flow_lags_when_no_whole_pages_bytes_fit() -> None:
    flow = flow_at()
    flow.wrote(0, "e1", 1, 1, WINDOW_BYTES - PAGE_BYTES)
    assert flow.wants_page
    flow.wrote(0, "e1", 2, 1, 1)
    assert flow.state is State.LAGGING


def test_with_nothing_unacked_a_page_is_read_whatever_the_window() -> None:
    flow = flow_at(0, Window(3, 10))
    assert flow.wants_page
    assert flow.page_limit == 3
    flow.wrote(0, "e1", 3, 3, 300)
    assert flow.state is State.LAGGING
    flow.take_ack(1, "e1", 3)
    assert flow.wants_page


def test_a_page_never_has_more_events_than_the_window_has_left() -> None:
    flow = flow_at(0, Window(600, WINDOW_BYTES))
    flow.wrote(0, "e1", 344, 344, 0)
    assert flow.page_limit == 256 == PAGE_EVENTS
    assert flow_at(0, Window(100, WINDOW_BYTES)).page_limit == 100


def test_a_flow_that_is_reading_wants_no_second_page() -> None:
    flow = flow_at()
    flow.reading = True
    assert not flow.wants_page


def test_a_paused_transport_makes_every_flow_lag_and_the_log_goes_on_from_the_last_batch() -> None:
    group = group_at()
    flow = live(group)
    spread(group, 3)
    flow.session.pause()
    assert {f.state for f in flow.session.flows.values()} == {State.LAGGING}
    spread(group, 2)
    assert flow.take_ack(1, "e1", 3)
    assert flow.state is State.LAGGING
    flow.session.resume()
    assert flow.wants_page
    assert flow.sent == 3
    assert not flow.join(group)


def test_a_resume_frees_only_flows_that_have_room() -> None:
    group = group_at()
    flow = live(group)
    spread(group, WINDOW_EVENTS)
    flow.session.pause()
    flow.session.resume()
    assert flow.state is State.LAGGING
    assert flow.session.flows[CRITICAL].state is State.REPLAYING


def test_a_resume_leaves_a_live_flow_where_it_is() -> None:
    flow = live(group_at())
    flow.session.resume()
    assert flow.state is State.LIVE


def test_pausing_after_one_lane_is_over_touches_only_the_other() -> None:
    session = Session("s", {lane: Cursor("e1", 0) for lane in LANES})
    session.flows[NORMAL].close()
    session.pause()
    assert [flow.state for flow in session.flows.values()] == [State.LAGGING, State.CLOSED]


# Acks


@pytest.mark.parametrize(
    ("epoch", "offset"),
    [("e1", 5), ("e1", 4), ("e1", 11), ("e0", 8)],
    ids=["same", "lower", "never sent", "foreign"],
)
def test_an_ack_that_acknowledges_nothing_is_ignored_and_said_so(epoch: str, offset: int) -> None:
    group = group_at(5)
    flow = live(group)
    spread(group, 5)
    assert not flow.take_ack(1, epoch, offset)
    assert (flow.acked, flow.unacked) == (5, (5, 0))
    assert flow.take_ack(1, "e1", 10)


def test_a_closed_flow_takes_no_acks() -> None:
    group = group_at()
    flow = live(group)
    spread(group, 5)
    flow.close()
    assert not flow.take_ack(1, "e1", 5)


def test_acks_find_their_batch_among_very_many() -> None:
    group = group_at()
    flow = live(group)
    for _ in range(20_000):
        if spread(group, 1, 100):
            raise AssertionError("the client acked all along")
        if group.position % 64 == 0:
            assert flow.take_ack(1, "e1", group.position)
            assert flow.unacked == (0, 0)
    assert len(group._marks) <= 4 * WINDOW_EVENTS


def test_marks_of_a_whole_window_are_always_kept() -> None:
    group = group_at()
    for _ in range(3 * WINDOW_EVENTS):
        spread(group, 1)
    flow = live(group)
    for _ in range(WINDOW_EVENTS):  # the marks are cut in the middle of this window
        spread(group, 1)
    spread(group, 0)
    assert flow.take_ack(1, "e1", flow.acked + 1)
    assert flow.unacked == (WINDOW_EVENTS - 1, 0)
    flow.session.pause()
    assert flow.take_ack(1, "e1", flow.acked + 1)
    assert flow.unacked == (WINDOW_EVENTS - 2, 0)


# Overdue


def test_a_live_client_is_overdue_40_seconds_after_the_first_unacked_batch() -> None:
    group = group_at()
    flow = live(group)
    assert not flow.overdue(1_000)
    spread(group, 1, now=100)
    spread(group, 1, now=130)
    assert not flow.overdue(139.9)
    assert flow.overdue(140)
    assert flow.session.overdue(140)


def test_each_ack_begins_the_40_seconds_anew_and_with_nothing_unacked_none_run() -> None:
    group = group_at()
    flow = live(group)
    spread(group, 1, now=100)
    spread(group, 1, now=101)
    flow.take_ack(135, "e1", 1)
    assert not flow.overdue(174.9)
    assert flow.overdue(175)
    flow.take_ack(180, "e1", 2)
    assert not flow.overdue(1_000)


def test_a_batch_after_a_long_silence_has_its_own_40_seconds() -> None:
    group = group_at()
    flow = live(group)
    spread(group, 1, now=0)
    flow.take_ack(1, "e1", 1)
    spread(group, 1, now=1_000)
    assert not flow.overdue(1_039)
    assert flow.overdue(1_040)


def test_a_replaying_client_is_overdue_too() -> None:
    flow = flow_at()
    flow.wrote(100, "e1", 5, 5, 0)
    assert not flow.overdue(139.9)
    assert flow.overdue(140)


def test_leftovers_of_the_replay_are_overdue_in_the_group_by_their_own_time() -> None:
    flow = flow_at()
    flow.wrote(100, "e1", 5, 5, 0)
    group = group_at(5)
    flow.join(group)
    spread(group, 1, now=120)
    assert flow.overdue(140)
    flow.take_ack(141, "e1", 5)
    assert not flow.overdue(160)
    assert flow.overdue(181)


def test_a_lagging_client_is_overdue_by_what_its_group_wrote() -> None:
    group = group_at()
    flow = live(group)
    spread(group, 1, now=100)
    flow.session.pause()
    assert not flow.overdue(139.9)
    assert flow.overdue(140)


def test_a_client_that_acked_all_before_it_lagged_is_not_overdue() -> None:
    group = group_at()
    flow = live(group)
    spread(group, 1, now=100)
    flow.take_ack(101, "e1", 1)
    flow.session.pause()
    assert not flow.overdue(1_000)


def test_a_flow_that_leaves_takes_only_what_was_written_to_it() -> None:
    group = group_at()
    spread(group, 2, 20, now=90)
    spread(group, 2, 20, now=91)
    flow = flow_at(1)
    flow.wrote(100, "e1", 4, 3, 30)
    flow.join(group)
    spread(group, 2, 20, now=101)
    flow.session.pause()
    assert flow.unacked == (5, 50)
    assert not flow.overdue(139.9)
    assert flow.take_ack(102, "e1", 4)
    assert flow.unacked == (2, 20)
    assert flow.take_ack(103, "e1", 6)
    assert flow.unacked == (0, 0)


def test_a_batch_without_events_is_never_overdue() -> None:
    group = group_at()
    flow = live(group)
    group.advance(100, 9, 0, 0)
    assert not flow.overdue(1_000)
    replaying = flow_at()
    replaying.wrote(100, "e1", 9, 0, 0)
    assert not replaying.overdue(1_000)


def test_the_limit_can_be_another_one() -> None:
    flow = flow_at()
    flow.wrote(100, "e1", 5, 5, 0)
    assert flow.session.overdue(102, 2)
    assert not flow.session.overdue(101.9, 2)
