"""The receiver's link to its server: asking, being put off, the end, and the table of transitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from steadcast.core.backoff import Backoff
from steadcast.core.cursor import TRANSITIONS, Link, Receiver, _In
from steadcast.core.effects import Told
from steadcast.errors import IllegalInput
from steadcast.event import LANES, Lane
from steadcast.wire import Cursor
from tests.support.receiving import (
    CRITICAL,
    NORMAL,
    answers,
    asks,
    batch,
    finish,
    following,
    heads,
    lane_answer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# Being put off, being refused, progress


def test_each_temporary_refusal_waits_longer_up_to_the_cap_and_an_answer_starts_it_anew() -> None:
    receiver = Receiver("s", backoff=Backoff(base=1, cap=4))
    receiver.connected(0)
    waits = []
    for _ in range(4):
        receiver.refused(100, code="away", temporary=True)
        waits.append((receiver.next_deadline() or 0) - 100)
        assert len(asks(receiver.handle_timeout(200))) == 1
    assert waits == [1, 2, 4, 4]
    receiver.answered(200, answers())
    receiver.received(200, batch(5, 6))
    receiver.refused(200, code="away", temporary=True)
    assert receiver.next_deadline() == 201


def test_a_server_that_names_a_time_is_not_asked_before_it_and_jitter_only_shortens_the_backoff() -> None:
    receiver = Receiver("s")
    receiver.connected(0)
    receiver.refused(0, code="away", temporary=True, retry_after=7, jitter=1.0)
    assert receiver.next_deadline() == 7
    other = Receiver("s")
    other.connected(0)
    other.refused(0, code="away", temporary=True, jitter=1.0)
    assert other.next_deadline() == 0.5


def test_a_permanent_refusal_is_told_and_never_asked_again() -> None:
    receiver = Receiver("s")
    receiver.connected(0)
    effects = receiver.refused(0, code="forbidden", temporary=False)
    assert effects == [Told(kind="refused", code="forbidden")]
    assert receiver.next_deadline() is None


def test_a_receiver_replays_until_the_heads_of_the_answer_are_reached() -> None:
    receiver = Receiver("s", start="start")
    seen = [receiver.replaying]
    receiver.connected(0)
    seen.append(receiver.replaying)
    receiver.answered(0, answers(lane_answer("new", 0, 2)))
    assert receiver.behind == 2
    receiver.received(0, batch(0, 3))
    for _ in range(3):
        finish(receiver, 0, 1)
        seen.append(receiver.replaying)
    assert seen == [True, True, True, False, False]
    assert (receiver.counts.applied, receiver.counts.replayed) == (3, 2)


def test_behind_is_the_sum_of_the_lanes_and_unknown_where_one_is_unknown() -> None:
    receiver = Receiver("s")
    receiver.connected(0)
    receiver.answered(0, answers(lane_answer("new", 0, 2), lane_answer("new", 0, 3)))
    assert receiver.behind == 5
    receiver.received(0, batch(5, 6))
    receiver.answered(0, answers(lane_answer("resumed", 0, 2, behind=None)))
    assert receiver.behind is None


# The end


def test_after_the_end_nothing_is_sent_and_nothing_is_due() -> None:
    receiver = following()
    receiver.received(1, batch(0, 3))
    receiver.received(1, batch(3, 4))
    receiver.close()
    assert receiver.next_deadline() is None
    assert receiver.received(1, batch(3, 4)) == []
    assert receiver.pinged(1, heads(9)) == []
    assert receiver.disconnected(1) == []
    assert receiver.handled(1, NORMAL) == []
    assert receiver.next_deadline() is None
    assert receiver.handle_timeout(100) == []
    assert (receiver.counts.cut_dropped, receiver.counts.strays_dropped) == (3, 1)


def test_the_event_in_hand_at_the_end_moves_the_cursor_and_is_not_tried_again() -> None:
    receiver = following()
    receiver.received(1, batch(0, 3))
    receiver.received(1, batch(0, 1, lane=CRITICAL))
    receiver.close()
    assert receiver.handled(1, NORMAL) == []
    assert receiver.failed(1, CRITICAL) == []
    assert receiver.cursors == {CRITICAL: Cursor("e1", 0), NORMAL: Cursor("e1", 1, "n1")}
    assert receiver.pending == 0


# Transitions


def in_state(link: Link) -> Receiver:
    receiver = Receiver("s")
    if link is Link.OFFLINE:
        return receiver
    receiver.connected(0)
    match link:
        case Link.FOLLOWING:
            receiver.answered(0, answers())
        case Link.WAITING:
            receiver.refused(0, code="away", temporary=True)
        case Link.REFUSED:
            receiver.refused(0, code="no", temporary=False)
        case Link.CLOSED:
            receiver.close()
        case _:
            pass
    assert receiver.link is link
    return receiver


def ask(receiver: Receiver) -> None:
    """Bring about a subscribe: by a gap, or by what is due."""
    receiver.received(1, batch(5, 6))
    receiver.handle_timeout(1_000)


INPUTS: dict[_In, Callable[[Receiver], object]] = {
    _In.CONNECTED: lambda r: r.connected(1),
    _In.DISCONNECTED: lambda r: r.disconnected(1),
    _In.ANSWERED: lambda r: r.answered(1, answers()),
    _In.PUT_OFF: lambda r: r.refused(1, code="away", temporary=True),
    _In.REFUSED: lambda r: r.refused(1, code="no", temporary=False),
    _In.ASK: ask,
    _In.CLOSE: lambda r: r.close(),
}
RAISES = {(link, _In.CONNECTED) for link in Link if link is not Link.OFFLINE}


@pytest.mark.parametrize("given", list(_In), ids=lambda given: given.name)
@pytest.mark.parametrize("link", list(Link), ids=lambda link: link.name)
def test_every_input_in_every_state_does_what_the_table_says(link: Link, given: _In) -> None:
    receiver = in_state(link)
    if (link, given) in RAISES:
        assert (link, given) not in TRANSITIONS
        with pytest.raises(IllegalInput, match=f"CONNECTED while {link.name}") as caught:
            INPUTS[given](receiver)
        assert caught.value.code == "illegal_input"
        assert caught.value.fields == {"stream": "s"}
    else:
        INPUTS[given](receiver)
    assert receiver.link is TRANSITIONS.get((link, given), link)


def test_the_table_itself_forbids_what_it_does_not_name() -> None:
    for link in Link:
        for given in _In:
            receiver = Receiver("s")
            receiver.link = link
            if (link, given) in TRANSITIONS:
                receiver._move(given)
                assert receiver.link is TRANSITIONS[link, given]
            else:
                with pytest.raises(IllegalInput):
                    receiver._move(given)


@pytest.mark.parametrize("lane", LANES)
def test_a_report_about_an_event_that_is_not_in_hand_is_illegal(lane: Lane) -> None:
    receiver = following()
    for report in (receiver.handled, receiver.failed):
        with pytest.raises(IllegalInput, match=f"no event of the {lane} lane"):
            report(1, lane)
