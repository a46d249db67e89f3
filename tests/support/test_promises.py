"""The checker sees each promise that a record breaks, says which, and lets a good record pass."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.promises import Checker
from tests.support.record import Record, in_words

GOOD: tuple[tuple[Any, ...], ...] = (
    ("opened", "e1"),
    ("asked", "pub", ("a", "b", "c", "d")),
    ("kept", "e1", "normal", 1, "a"),
    ("kept", "e1", "normal", 2, "b"),
    ("acked", "pub", "a", "e1", "normal", 1, False),
    ("acked", "pub", "b", "e1", "normal", 2, False),
    ("session", "sub.1", {"normal": ("e1", 0)}),
    ("began", "sub", "normal", "e1", 0),
    ("sent", "sub.1", "normal", "e1", 0, 2, 2),
    ("applied", "sub", "normal", "e1", 1, "a"),
    ("applied", "sub", "normal", "e1", 2, "b"),
    ("taken", "sub.1", "normal", "e1", 2),
    ("kept", "e1", "normal", 3, "c"),
    ("kept", "e1", "normal", 4, "d"),
    ("dropped", "e1", "normal", 3),
    ("lost", "sub", "normal", 3, 3, False),
    ("sent", "sub.1", "normal", "e1", 3, 4, 1),
    ("applied", "sub", "normal", "e1", 4, "d"),
    ("buffer", "watch", 4, 1, 2, 1),
    ("spooled", "d"),
    ("head", "normal", "e1", 4),
)


def broken(*entries: tuple[Any, ...], window: int = 10) -> list[str]:
    record = Record(lambda: 0.0)
    for entry in entries:
        record.add(*entry)
    return [str(violation) for violation in Checker(record, window=window).check()]


def without(kind: str, nth: int = 0) -> list[tuple[Any, ...]]:
    found = [entry for entry in GOOD if entry[0] == kind][nth]
    return [entry for entry in GOOD if entry is not found]


def test_a_record_that_keeps_every_promise_passes() -> None:
    assert broken(*GOOD) == []


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (("acked", "pub", "x", "e1", "normal", 9, False), "P1: x was acked to pub at"),
        (("acked", "pub", "a", "e1", "normal", 2, True), "P7: a was acked at ('e1', 'normal', 1) and at"),
        (("kept", "e1", "critical", 1, "a"), "P7: a is kept at"),
        (("kept", "e1", "normal", 2, "y"), "P2: y is kept at ('e1', 'normal', 2), behind the head"),
        (("applied", "sub", "normal", "e1", 4, "d"), "P2: sub normal: 4 applied again"),
        (("applied", "sub", "normal", "e2", 5, "d"), "P3: sub normal: 5 of e2 was shown"),
        (("applied", "sub", "normal", "e1", 5, "z"), "P1: sub normal: z at 5 of e1 was applied"),
        (("sent", "sub.1", "normal", "e1", 4, 9, 5), "P1: sub.1 normal: 9 of e1 was delivered while"),
        (("sent", "sub.1", "normal", "e1", 2, 4, 1), "P2: sub.1 normal: the batch (2, 4] of e1 has 1"),
        (("sent", "sub.1", "normal", "e1", 3, 4, 1), "P2: sub.1 normal: (3, 4] was sent behind 4: again"),
        (("sent", "sub.9", "normal", "e1", 3, 4, 1), "P2: sub.9 normal: a batch before any answer"),
        (("lost", "sub", "normal", 5, 9, False), "P3: sub normal: (5, 9) told to be lost, only 3"),
        (("lost", "sub", "normal", 2, 3, False), "P3: sub normal: (2, 3) told to be lost, 4 was applied"),
        (("reset", "sub", "normal", "e1", 0), "P3: sub normal: told of a reset within e1"),
        (("began", "sub", "normal", "e1", 0), "P3: sub normal: began again"),
        (("began", "new", "normal", "e1", 9), "P2: new normal: begins at 9, above the head"),
        (("buffer", "inbox", 5, 1, 2, 1), "P4: inbox: 5 accepted"),
        (("spooled", "z"), "P8: z was spooled and is in no log"),
        (("head", "normal", "e1", 3), "P1: normal: the log ends at 3, 4 was kept"),
        (("raised", "a bug"), "raised: a bug"),
    ],
)
def test_what_must_not_be_seen_is_told_in_words(entry: tuple[Any, ...], says: str) -> None:
    assert any(each.startswith(says) for each in broken(*GOOD, entry)), broken(*GOOD, entry)


def test_an_event_that_was_never_applied_nor_told_lost_is_missed() -> None:
    assert broken(*without("applied", 0)) == ["P2: sub normal: [1] missing before 2"]
    assert broken(*without("lost")) == ["P2: sub normal: [3] missing before 4"]
    assert broken(*without("applied", 2)) == ["P2: sub normal: ended at 2; [4] to 4 never came"]


def test_a_subscriber_that_left_need_not_reach_the_head() -> None:
    assert broken(*without("applied", 2), ("gone", "sub")) == []


def test_a_subscriber_that_stays_in_an_old_epoch_is_missed() -> None:
    assert broken(*without("head"), ("head", "normal", "e2", 0)) == [
        "P2: sub normal: ended in e1, the log is e2"
    ]


def test_a_hole_on_the_wire_is_seen_where_retention_did_not_make_it() -> None:
    says = "P2: sub.1 normal: (3, 4] was sent behind 2: a hole"
    assert says in broken(*without("dropped"))


def test_an_ack_for_what_was_not_applied_is_seen() -> None:
    early = ("confirmed", "sub", "normal", "e1", 2)
    assert broken(*GOOD[:10], early, *GOOD[10:]) == ["P5: sub normal: 2 was acked while 1 was applied"]
    assert broken(*GOOD[:11], early, *GOOD[11:]) == []


def test_more_unacked_events_than_the_window_are_seen() -> None:
    assert broken(*without("taken"), window=2) == ["P5: sub.1 normal: 3 events unacked, 2 allowed"]


def test_what_was_published_after_an_answer_stands_behind_it() -> None:
    late = [("asked", "pub", ("e",)), ("kept", "e1", "normal", 5, "e")]
    early = ("acked", "pub", "e", "e1", "normal", 1, False)
    assert any("stands before what was acked" in each for each in broken(*GOOD, *late, early))


def test_more_arrived_than_a_receiver_has_counted_is_seen() -> None:
    arrived = ("arrived", "sub", "normal", 4)
    assert broken(*GOOD, arrived, ("buffer", "sub life 0", 4, 0, 4, 0)) == []
    assert broken(*GOOD, arrived, ("buffer", "sub life 0", 3, 0, 3, 0)) == [
        "P4: sub life 0: 3 accepted, 4 arrived"
    ]


def test_an_entry_is_told_in_a_line() -> None:
    assert in_words((1.5, "applied", "sub", "normal", "e1", 4, "d")) == "   1.500  applied sub normal e1 4 d"
    assert in_words((1.5, "fault", "sub.1 is cut")) == "   1.500  !! sub.1 is cut"
