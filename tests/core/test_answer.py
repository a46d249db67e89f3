"""What a `subscribe` is answered, case by case, and for every cursor there could be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast.core.answer import answer_cursor, answer_new
from steadcast.event import Position
from steadcast.wire import Cursor, LaneAnswer


def answer(offset: int, event_id: str | None = None, *, epoch: str = "e1", **log: Any) -> LaneAnswer:
    """Ask with a cursor about a log of epoch e1 whose events 11 to 20 are retained."""
    known: dict[str, Any] = {"epoch": "e1", "head": 20, "trimmed": 10, "retained_id": None, "dense": True}
    return answer_cursor(Cursor(epoch, offset, event_id), **(known | log))


@pytest.mark.parametrize("offset", [10, 11, 19, 20])
def test_a_cursor_from_the_trim_mark_to_the_head_is_resumed_where_it_is(offset: int) -> None:
    assert answer(offset) == LaneAnswer(
        status="resumed", cursor=Position("e1", offset), head=Position("e1", 20), behind=20 - offset
    )


@pytest.mark.parametrize("offset", [0, 9])
def test_a_cursor_below_the_trim_mark_is_told_what_is_gone_and_goes_on_before_the_oldest(offset: int) -> None:
    assert answer(offset) == LaneAnswer(
        status="trimmed",
        cursor=Position("e1", 10),
        head=Position("e1", 20),
        behind=10,
        lost=(offset + 1, 10),
    )


@pytest.mark.parametrize(
    "found",
    [
        answer(21),
        answer(15, epoch="e0"),
        answer(0, epoch="e0"),
        answer(15, "mine", retained_id="other"),
        answer(15, "mine", retained_id=None),
        answer(20, "mine", retained_id="other"),
        answer(11, "mine", retained_id="other"),
    ],
    ids=["above the head", "other epoch", "other epoch, low", "other id", "hole", "at the head", "oldest"],
)
def test_a_cursor_of_another_log_is_reset_to_before_the_oldest_event(found: LaneAnswer) -> None:
    expected = LaneAnswer(status="reset", cursor=Position("e1", 10), head=Position("e1", 20), behind=10)
    assert found == expected


def test_the_id_is_compared_only_where_its_event_is_retained() -> None:
    assert answer(15, "mine", retained_id="mine").status == "resumed"
    assert answer(10, "mine").status == "resumed"
    assert answer(5, "mine").status == "trimmed"
    assert answer(15, None, retained_id="other").status == "resumed"


def test_an_engine_with_holes_cannot_know_counts_or_losses() -> None:
    assert answer(15, dense=False).behind is None
    assert answer(20, dense=False).behind == 0
    assert answer(5, dense=False).maybe
    assert not answer(5, dense=True).maybe


def test_a_lane_that_never_held_an_event_is_at_zero() -> None:
    assert answer(0, head=0, trimmed=0).status == "resumed"
    assert answer(1, head=0, trimmed=0).status == "reset"
    assert answer_new(0, epoch="e1", head=0, dense=True).behind == 0


def test_a_new_subscriber_begins_where_it_asked_to() -> None:
    assert answer_new(17, epoch="e1", head=20, dense=True) == LaneAnswer(
        status="new", cursor=Position("e1", 17), head=Position("e1", 20), behind=3
    )
    assert answer_new(17, epoch="e1", head=20, dense=False).behind is None


@given(
    st.builds(
        Cursor, st.sampled_from(["e1", "e2"]), st.integers(0, 30), st.none() | st.sampled_from(["a", "b"])
    ),
    st.integers(0, 25),
    st.integers(0, 25),
    st.none() | st.sampled_from(["a", "b"]),
    st.booleans(),
)
def test_every_answer_is_one_that_a_receiver_can_follow(
    cursor: Cursor, trimmed: int, more: int, retained_id: str | None, dense: bool
) -> None:
    head = trimmed + more
    found = answer_cursor(
        cursor, epoch="e1", head=head, trimmed=trimmed, retained_id=retained_id, dense=dense
    )
    assert trimmed <= found.cursor.offset <= found.head.offset == head
    assert found.behind in {None, head - found.cursor.offset}
    assert (found.behind is None) <= (not dense)
    if found.status == "resumed":
        assert (found.cursor.epoch, found.cursor.offset) == (cursor.epoch, cursor.offset)
    else:
        assert found.cursor == Position("e1", trimmed)
    if found.status == "trimmed":
        assert found.lost == (cursor.offset + 1, trimmed)
    else:
        assert found.lost is None
