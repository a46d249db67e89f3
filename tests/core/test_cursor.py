"""The receiver's rule, sentence by sentence; whole conversations are in conformance/."""

from __future__ import annotations

from steadcast.core.cursor import Link, Receiver
from steadcast.core.effects import Deliver, Told
from steadcast.core.receiving import INBOX_EVENTS
from steadcast.event import Position
from steadcast.wire import Cursor, size_of
from tests.support.receiving import (
    CRITICAL,
    NORMAL,
    acks,
    answers,
    asks,
    batch,
    delivered,
    empty,
    entry,
    finish,
    following,
    heads,
    lane_answer,
    told,
)

# One at a time


def test_the_events_of_a_batch_are_handled_one_after_the_other() -> None:
    receiver = following()
    assert delivered(receiver.received(1, batch(0, 3))) == [1]
    assert delivered(receiver.handled(1, NORMAL)) == [2]
    assert delivered(receiver.handled(1, NORMAL)) == [3]
    assert delivered(receiver.handled(1, NORMAL)) == []


def test_a_batch_waits_until_the_batch_before_it_is_done() -> None:
    receiver = following()
    receiver.received(1, batch(0, 1))
    assert receiver.received(1, batch(1, 2)) == []
    assert delivered(receiver.handled(1, NORMAL)) == [2]


def test_the_lanes_do_not_wait_for_each_other() -> None:
    receiver = following()
    assert delivered(receiver.received(1, batch(0, 1))) == [1]
    assert delivered(receiver.received(1, batch(0, 1, lane=CRITICAL))) == [1]


def test_a_batch_is_judged_when_its_turn_comes_not_when_it_arrives() -> None:
    receiver = following()
    receiver.received(1, batch(0, 2))
    assert receiver.received(1, batch(1, 3)) == []  # above the cursor now, an overlap when its turn comes
    assert delivered(finish(receiver, 1, 2)) == [2, 3]
    assert receiver.counts.duplicates_dropped == 1


def test_the_cursor_moves_with_each_event_after_its_handler_returned() -> None:
    receiver = following()
    receiver.received(1, batch(0, 9, 2, 5))
    assert receiver.cursors[NORMAL] == Cursor("e1", 0)
    receiver.handled(1, NORMAL)
    assert receiver.cursors[NORMAL] == Cursor("e1", 2, "n2")
    receiver.handled(1, NORMAL)
    assert receiver.cursors[NORMAL] == Cursor("e1", 9)  # the batch is honest: nothing up to 9 is missing


def test_the_last_event_at_the_end_of_a_batch_leaves_its_id_in_the_cursor() -> None:
    receiver = following()
    receiver.received(1, batch(0, 1))
    receiver.handled(1, NORMAL)
    assert receiver.cursors[NORMAL] == Cursor("e1", 1, "n1")


def test_a_batch_without_events_moves_the_cursor_and_is_acked_within_a_second() -> None:
    receiver = following()
    assert receiver.received(1, empty(0, 4)) == []
    assert receiver.cursors[NORMAL] == Cursor("e1", 4)
    assert receiver.next_deadline() == 2
    assert acks(receiver.handle_timeout(2)) == [(NORMAL, 4)]
    assert receiver.counts.acks == 1


def test_what_came_before_the_first_answer_is_dropped_and_counted() -> None:
    receiver = Receiver("s")
    receiver.connected(0)
    assert receiver.received(0, batch(0, 2)) == []
    assert receiver.counts.strays_dropped == 2
    assert receiver.cursors == {}


# Handlers that fail


def test_a_handler_is_tried_three_times_and_the_count_starts_anew_with_the_next_event() -> None:
    receiver = following()
    effects = receiver.received(1, batch(0, 2))
    attempts = [effects[0]]
    attempts += receiver.failed(1, NORMAL)
    attempts += receiver.failed(1, NORMAL)
    assert [e.attempt for e in attempts if isinstance(e, Deliver)] == [1, 2, 3]
    passing = receiver.failed(1, NORMAL)
    assert told(passing) == [Told(kind="passed_over", lane=NORMAL, offset=1, id="n1")]
    assert [(e.position.offset, e.attempt) for e in passing if isinstance(e, Deliver)] == [(2, 1)]
    assert receiver.cursors[NORMAL] == Cursor("e1", 1, "n1")
    assert (receiver.counts.passed_over, receiver.counts.applied) == (1, 0)


def test_a_handler_that_fails_while_offline_is_tried_again() -> None:
    receiver = following()
    receiver.received(1, batch(0, 1))
    receiver.disconnected(1)
    assert delivered(receiver.failed(1, NORMAL)) == [1]


# Acks


def test_the_ack_goes_out_with_the_sixty_fourth_event_not_before() -> None:
    receiver = following()
    receiver.received(1, batch(0, 64))
    assert acks(finish(receiver, 1, 63)) == []
    assert acks(finish(receiver, 1, 1)) == [(NORMAL, 64)]
    assert receiver.next_deadline() is None


def test_the_ack_goes_out_with_256_kib_not_one_byte_before() -> None:
    frame = size_of(entry(1).event) - len("null")
    half = "x" * (128 * 1024 - frame - 2)
    receiver = following()
    receiver.received(1, batch(0, 1, data=half[1:]))
    receiver.received(1, batch(1, 2, data=half))
    assert acks(finish(receiver, 1, 2)) == []
    exact = following()
    exact.received(1, batch(0, 2, data=half))
    assert acks(finish(exact, 1, 1)) == []
    assert acks(finish(exact, 1, 1)) == [(NORMAL, 2)]


def test_an_ack_is_sent_a_second_after_the_first_event_that_it_covers() -> None:
    receiver = following()
    receiver.received(1, batch(0, 1))
    finish(receiver, 1, 1)
    receiver.received(1.9, batch(1, 2))
    finish(receiver, 1.9, 1)
    assert acks(receiver.handle_timeout(1.99)) == []
    assert acks(receiver.handle_timeout(2.0)) == [(NORMAL, 2)]
    assert acks(receiver.handle_timeout(9.0)) == []


def test_the_next_second_begins_after_an_ack() -> None:
    receiver = following()
    receiver.received(1, batch(0, 65))
    finish(receiver, 1, 64)
    finish(receiver, 1.5, 1)
    assert receiver.next_deadline() == 2.5


def test_a_dropped_duplicate_is_acked_at_once_and_takes_the_waiting_ack_with_it() -> None:
    receiver = following()
    receiver.received(1, batch(0, 1))
    finish(receiver, 1, 1)
    assert acks(receiver.received(1.1, batch(0, 1))) == [(NORMAL, 1)]
    assert receiver.next_deadline() is None


def test_an_ack_never_covers_what_is_still_being_handled() -> None:
    receiver = following()
    receiver.received(1, batch(0, 2))
    receiver.handled(1, NORMAL)
    assert acks(receiver.handle_timeout(2)) == [(NORMAL, 1)]


def test_what_is_handled_while_offline_is_not_acked_but_asked_behind() -> None:
    receiver = following()
    receiver.received(1, batch(0, 2))
    receiver.received(1, batch(2, 5))
    receiver.disconnected(1)
    assert (receiver.counts.received, receiver.counts.cut_dropped, receiver.pending) == (5, 3, 2)
    assert acks(finish(receiver, 1, 2)) == []
    assert receiver.next_deadline() is None
    assert asks(receiver.connected(2)) == [{CRITICAL: Cursor("e1", 0), NORMAL: Cursor("e1", 2, "n2")}]
    assert acks(receiver.handle_timeout(5)) == []


def test_many_events_that_are_handled_while_offline_send_no_ack_either() -> None:
    receiver = following()
    receiver.received(1, batch(0, 100))
    receiver.disconnected(1)
    assert acks(finish(receiver, 1, 100)) == []
    receiver.connected(2)
    assert acks(receiver.handle_timeout(4)) == []


def test_old_unacked_events_do_not_hasten_the_acks_of_a_new_connection() -> None:
    receiver = following()
    receiver.received(1, batch(0, 63))
    finish(receiver, 1, 63)
    receiver.disconnected(1.5)
    receiver.connected(2)
    receiver.answered(2, answers(lane_answer("resumed", 63, 64)))
    receiver.received(2, batch(63, 64))
    assert acks(finish(receiver, 2, 1)) == []
    assert receiver.next_deadline() == 3


def test_what_is_applied_while_a_subscribe_is_under_way_is_acked() -> None:
    receiver = following()
    receiver.received(1, batch(0, 1))
    receiver.received(1, batch(5, 6, lane=CRITICAL))
    assert receiver.link is Link.ASKING
    finish(receiver, 1, 1)
    assert acks(receiver.handle_timeout(2)) == [(NORMAL, 1)]


# Gaps


def test_a_batch_that_begins_at_the_cursor_is_no_gap_and_one_above_it_is() -> None:
    assert asks(following().received(1, batch(0, 1))) == []
    assert asks(following().received(1, batch(1, 2))) == [
        {CRITICAL: Cursor("e1", 0), NORMAL: Cursor("e1", 0)}
    ]


def test_gaps_in_both_lanes_are_repaired_by_one_subscribe() -> None:
    receiver = following()
    assert len(asks(receiver.received(1, batch(3, 4)))) == 1
    assert asks(receiver.received(1, batch(3, 4, lane=CRITICAL))) == []
    receiver.answered(2, answers(lane_answer("resumed", 0, 4), lane_answer("resumed", 0, 4)))
    assert receiver.counts.gaps_repaired == 1
    assert receiver.counts.strays_dropped == 2


def test_what_fits_is_applied_while_a_subscribe_is_under_way() -> None:
    receiver = following()
    receiver.received(1, batch(3, 4))
    assert delivered(receiver.received(1, batch(0, 1))) == [1]


def test_a_gap_before_the_answer_is_not_asked_about_twice() -> None:
    receiver = Receiver("s", cursors={NORMAL: Cursor("e1", 1)})
    receiver.connected(0)
    assert asks(receiver.received(0, batch(3, 4))) == []
    assert receiver.counts.strays_dropped == 1


def test_a_subscribe_without_an_answer_is_sent_again_after_ten_seconds() -> None:
    receiver = Receiver("s")
    receiver.connected(5)
    assert receiver.next_deadline() == 15
    assert asks(receiver.handle_timeout(14.9)) == []
    assert asks(receiver.handle_timeout(15)) == [{}]
    assert receiver.next_deadline() == 25


def test_an_answer_that_nobody_waits_for_is_dropped_and_counted() -> None:
    receiver = following()
    assert receiver.answered(1, answers(lane_answer("new", 7, 9))) == []
    assert receiver.refused(1, code="away", temporary=True) == []
    assert receiver.cursors[NORMAL] == Cursor("e1", 0)
    assert receiver.counts.answers_dropped == 2
    assert receiver.next_deadline() is None


def test_more_than_the_inbox_holds_is_dropped_counted_and_repaired() -> None:
    receiver = following()
    receiver.received(1, batch(0, 1))
    receiver.received(1, batch(1, 1 + INBOX_EVENTS))
    receiver.received(1, batch(1 + INBOX_EVENTS, 2 + INBOX_EVENTS))
    assert receiver.counts.full_dropped == 1
    finish(receiver, 1, 1 + INBOX_EVENTS)
    asked = receiver.received(2, batch(2 + INBOX_EVENTS, 3 + INBOX_EVENTS))
    assert asks(asked)[0][NORMAL].offset == 1 + INBOX_EVENTS


def test_a_batch_larger_than_the_inbox_is_taken_when_nothing_waits() -> None:
    receiver = following()
    receiver.received(1, batch(0, 1))
    receiver.received(1, batch(1, 2 + INBOX_EVENTS))
    assert receiver.counts.full_dropped == 0
    assert receiver.pending == 2 + INBOX_EVENTS


def test_batches_without_events_cannot_fill_the_memory_behind_a_hanging_handler() -> None:
    receiver = following()
    receiver.received(1, batch(0, 1))
    for offset in range(1, INBOX_EVENTS + 100):
        receiver.received(1, empty(offset, offset + 1))
    assert len(receiver._lanes[NORMAL].inbox) == INBOX_EVENTS
    receiver.handled(1, NORMAL)
    assert receiver.cursors[NORMAL].offset == 1 + INBOX_EVENTS


# Trimmed and reset


def test_what_was_applied_while_asking_is_not_told_to_be_lost() -> None:
    receiver = following()
    receiver.received(1, batch(9, 10, lane=CRITICAL))
    receiver.received(1, batch(0, 4))
    finish(receiver, 1, 4)
    effects = receiver.answered(2, answers(lane_answer("trimmed", 6, 8, lost=(1, 6))))
    assert told(effects) == [Told(kind="trimmed", lane=NORMAL, lost=(5, 6))]
    assert receiver.counts.lost == 2
    assert receiver.cursors[NORMAL] == Cursor("e1", 6)


def test_what_is_in_hand_is_not_lost_and_does_not_move_the_cursor_back() -> None:
    receiver = following()
    receiver.received(1, batch(0, 4))
    receiver.received(1, batch(9, 10, lane=CRITICAL))
    effects = receiver.answered(2, answers(lane_answer("trimmed", 6, 8, lost=(1, 6))))
    assert told(effects) == [Told(kind="trimmed", lane=NORMAL, lost=(5, 6))]
    assert receiver.cursors[NORMAL] == Cursor("e1", 0)
    finish(receiver, 2, 3)
    assert receiver.cursors[NORMAL] == Cursor("e1", 3, "n3")
    finish(receiver, 2, 1)
    assert receiver.cursors[NORMAL] == Cursor("e1", 6)


def test_a_loss_that_was_told_is_not_told_again_after_a_cut() -> None:
    receiver = following()
    receiver.received(1, batch(0, 4))
    receiver.received(1, batch(9, 10, lane=CRITICAL))
    receiver.answered(2, answers(lane_answer("trimmed", 6, 8, lost=(1, 6))))
    receiver.disconnected(3)
    receiver.connected(4)
    assert told(receiver.answered(5, answers(lane_answer("trimmed", 6, 8, lost=(1, 6))))) == []
    finish(receiver, 5, 4)
    assert receiver.cursors[NORMAL] == Cursor("e1", 6)
    assert receiver.counts.lost == 2


def test_a_trim_mark_at_the_cursor_loses_nothing_and_one_above_it_loses_one() -> None:
    receiver = following()
    receiver.received(1, batch(5, 6))
    assert told(receiver.answered(2, answers(lane_answer("trimmed", 0, 6, lost=(0, 0))))) == []
    receiver.received(3, batch(5, 6))
    lost = told(receiver.answered(4, answers(lane_answer("trimmed", 1, 6, lost=(1, 1)))))
    assert lost == [Told(kind="trimmed", lane=NORMAL, lost=(1, 1))]


def test_a_late_trimmed_answer_of_another_epoch_moves_nothing() -> None:
    receiver = following()
    receiver.received(1, batch(5, 6))
    late = lane_answer("trimmed", 4, 6, epoch="e0", lost=(1, 4))
    assert told(receiver.answered(2, answers(late))) == []
    assert receiver.cursors[NORMAL] == Cursor("e1", 0)


def test_a_reset_within_the_epoch_moves_that_lane_back_and_leaves_the_other() -> None:
    cursors = {CRITICAL: Cursor("e1", 3, "c3"), NORMAL: Cursor("e1", 90, "x")}
    receiver = Receiver("s", cursors=cursors)
    receiver.connected(0)
    effects = receiver.answered(0, answers(lane_answer("reset", 4, 7), lane_answer("resumed", 3, 3)))
    assert told(effects) == [Told(kind="reset", lane=NORMAL)]
    assert receiver.cursors == {CRITICAL: Cursor("e1", 3, "c3"), NORMAL: Cursor("e1", 4)}
    assert delivered(receiver.received(0, batch(4, 7))) == [5]


def test_a_reset_waits_for_the_event_in_hand_so_that_clearing_clears_it_too() -> None:
    receiver = following()
    receiver.received(1, batch(0, 3))
    receiver.received(1, batch(3, 4))
    receiver.received(1, batch(0, 1, lane=CRITICAL, epoch="e2"))
    reset = lane_answer("reset", 0, 2, epoch="e2")
    assert told(receiver.answered(2, answers(reset, reset))) == [Told(kind="reset", lane=CRITICAL)]
    assert receiver.cursors[NORMAL] == Cursor("e1", 0)
    assert receiver.received(2, batch(0, 2, epoch="e2")) == []
    effects = receiver.handled(3, NORMAL)
    assert told(effects) == [Told(kind="reset", lane=NORMAL)]
    assert [e.position for e in effects if isinstance(e, Deliver)] == [Position("e2", 1)]
    assert receiver.counts.cut_dropped == 3
    assert acks(finish(receiver, 3, 2)) == []
    assert receiver.next_deadline() == 4


def test_a_handler_that_fails_for_an_event_of_the_old_epoch_is_not_tried_again() -> None:
    receiver = following()
    receiver.received(1, batch(0, 3))
    receiver.received(1, batch(0, 1, lane=CRITICAL, epoch="e2"))
    reset = lane_answer("reset", 0, 0, epoch="e2")
    receiver.answered(2, answers(reset, reset))
    effects = receiver.failed(3, NORMAL)
    assert effects == [Told(kind="reset", lane=NORMAL)]
    assert receiver.cursors[NORMAL] == Cursor("e2", 0)
    assert (receiver.counts.applied, receiver.counts.cut_dropped, receiver.pending) == (0, 3, 0)


def test_a_head_of_the_new_epoch_is_no_news_while_a_reset_waits() -> None:
    receiver = following()
    receiver.received(1, batch(0, 3))
    receiver.received(1, batch(0, 1, lane=CRITICAL, epoch="e2"))
    reset = lane_answer("reset", 0, 0, epoch="e2")
    receiver.answered(2, answers(reset, reset))
    assert receiver.pinged(3, {NORMAL: Position("e2", 0), CRITICAL: Position("e2", 0)}) == []
    assert receiver.link is Link.FOLLOWING


def test_an_ack_that_was_due_in_the_old_epoch_is_not_sent_in_the_new_one() -> None:
    receiver = following()
    receiver.received(1, batch(0, 1))
    finish(receiver, 1, 1)
    receiver.received(1.1, batch(0, 1, epoch="e2"))
    reset = lane_answer("reset", 0, 0, epoch="e2")
    receiver.answered(1.2, answers(reset, reset))
    assert acks(receiver.handle_timeout(2)) == []


# Heads


def test_a_head_at_the_cursor_is_no_gap() -> None:
    receiver = following()
    receiver.pinged(30, heads(0))
    assert receiver.next_deadline() is None


def test_a_head_above_the_cursor_with_nothing_arriving_for_five_seconds_is_a_gap() -> None:
    receiver = following()
    receiver.pinged(30, heads(1))
    assert receiver.next_deadline() == 35
    assert asks(receiver.handle_timeout(34.9)) == []
    assert len(asks(receiver.handle_timeout(35))) == 1


def test_a_second_ping_does_not_put_the_judgement_off() -> None:
    receiver = following()
    receiver.pinged(30, heads(1))
    receiver.pinged(33, heads(2))
    assert receiver.next_deadline() == 35


def test_what_arrives_meanwhile_puts_the_judgement_off_to_five_seconds_after_it() -> None:
    receiver = following()
    receiver.pinged(30, heads(3))
    receiver.received(31, batch(0, 1))
    finish(receiver, 31, 1)
    receiver.handle_timeout(32)
    assert asks(receiver.handle_timeout(35)) == []
    assert receiver.next_deadline() == 36
    assert len(asks(receiver.handle_timeout(36))) == 1


def test_a_head_is_no_gap_while_an_event_is_being_handled() -> None:
    receiver = following()
    receiver.received(1, batch(0, 1))
    receiver.pinged(30, heads(2))
    assert asks(receiver.handle_timeout(35)) == []
    assert receiver.next_deadline() == 40
    receiver.handled(39.5, NORMAL)
    assert asks(receiver.handle_timeout(40)) == []  # not all is acked
    assert receiver.next_deadline() == 40.5
    receiver.handle_timeout(40.5)
    assert asks(receiver.handle_timeout(44.9)) == []
    assert len(asks(receiver.handle_timeout(45))) == 1


def test_a_busy_lane_is_looked_at_again_later_never_at_the_same_moment() -> None:
    receiver = following()
    receiver.received(30, batch(0, 1))
    receiver.pinged(30, heads(2))
    receiver.handle_timeout(35)
    assert receiver.next_deadline() == 40


def test_a_head_that_is_reached_in_time_is_forgotten() -> None:
    receiver = following()
    receiver.pinged(30, heads(1))
    receiver.received(31, batch(0, 1))
    finish(receiver, 31, 1)
    receiver.handle_timeout(32)
    assert asks(receiver.handle_timeout(60)) == []
    assert receiver.next_deadline() is None


def test_a_head_of_the_old_epoch_is_forgotten_with_it() -> None:
    receiver = following()
    receiver.pinged(30, heads(100))
    receiver.received(31, batch(0, 1, epoch="e2"))
    reset = lane_answer("reset", 0, 0, epoch="e2")
    receiver.answered(32, answers(reset, reset))
    assert asks(receiver.handle_timeout(60)) == []
    assert receiver.next_deadline() is None


def test_heads_are_judged_only_while_following() -> None:
    receiver = following()
    receiver.received(1, batch(5, 6))
    assert receiver.pinged(2, heads(9, epoch="e2")) == []
    assert receiver.next_deadline() == 11


def test_another_epoch_in_the_heads_of_both_lanes_is_one_subscribe() -> None:
    assert len(asks(following().pinged(30, heads(5, 5, epoch="e2")))) == 1
