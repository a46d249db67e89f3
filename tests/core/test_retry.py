"""The RetryQueue: the specification's numbers, and conservation against a model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from steadcast.core.backoff import Backoff
from steadcast.core.retry import REASONS, TRANSITIONS, Abandon, Retry, RetryQueue, State
from steadcast.errors import IllegalInput
from steadcast.event import Lane

CRITICAL, NORMAL = Lane.CRITICAL, Lane.NORMAL


def due(queue: RetryQueue[str], now: float) -> list[Retry[str]]:
    return [effect for effect in queue.handle_timeout(now) if isinstance(effect, Retry)]


def entries(effects: list[Any]) -> list[str]:
    return [effect.entry for effect in effects]


def run_dry(queue: RetryQueue[str]) -> tuple[list[float], list[Abandon[str]]]:
    """Let every retry fail at its earliest time; give the times of the retries, and what was given up."""
    times: list[float] = []
    gone: list[Abandon[str]] = []
    while (now := queue.next_deadline()) is not None:
        for effect in queue.handle_timeout(now):
            if isinstance(effect, Abandon):
                gone.append(effect)
            else:
                times.append(now)
                gone += queue.failed(now, effect.ticket)
    return times, gone


# The specification's numbers


def test_there_are_three_retries_after_the_failed_first_try() -> None:
    queue: RetryQueue[str] = RetryQueue()
    queue.put(0.0, "a")
    times, gone = run_dry(queue)
    assert len(times) == 3
    assert gone == [Abandon(1, "a", "exhausted", 3)]


def test_the_delays_are_1_2_and_4_seconds() -> None:
    queue: RetryQueue[str] = RetryQueue()
    queue.put(0.0, "a")
    times, _ = run_dry(queue)
    assert times == [1, 1 + 2, 1 + 2 + 4]


def test_with_more_retries_the_delay_stays_at_8_seconds() -> None:
    queue: RetryQueue[str] = RetryQueue(max_retries=6, age_limit=100)
    queue.put(0.0, "a")
    times, _ = run_dry(queue)
    assert times == [1, 3, 7, 15, 23, 31]


def test_the_delays_are_those_that_were_set() -> None:
    """Once they were 0, 2, 4 s, whatever was set."""
    queue: RetryQueue[str] = RetryQueue(backoff=Backoff(base=3, factor=1, cap=3, spread=0))
    queue.put(0.0, "a")
    times, _ = run_dry(queue)
    assert times == [3, 6, 9]


def test_a_delay_is_the_earliest_time() -> None:
    queue: RetryQueue[str] = RetryQueue()
    queue.put(10.0, "a")
    assert due(queue, 10.999) == []
    assert due(queue, 12.0) == [Retry(1, "a", 1)]
    queue.failed(12.5, 1)
    assert queue.next_deadline() == 14.5


def test_an_event_older_than_30_seconds_is_abandoned() -> None:
    queue: RetryQueue[str] = RetryQueue()
    queue.put(0.0, "a")
    assert due(queue, 29.9)
    assert queue.postponed(1) == []
    assert queue.handle_timeout(30.0) == [Abandon(1, "a", "expired", 0)]


def test_age_counts_from_when_it_was_handed_over_and_not_from_the_first_failure() -> None:
    queue: RetryQueue[str] = RetryQueue()
    queue.put(5.0, "a", since=0.0)
    assert queue.expire(29.9) == []
    assert queue.expire(30.0) == [Abandon(1, "a", "expired", 0)]


def test_the_queue_holds_1000_events() -> None:
    queue: RetryQueue[int] = RetryQueue()
    assert not any(queue.put(0.0, n) for n in range(1_000))
    assert queue.put(0.0, 1_000) == [Abandon(1, 0, "evicted", 0)]
    assert queue.stats["queue_size"] == 1_000


def test_the_statistics_have_exactly_the_five_keys() -> None:
    queue: RetryQueue[str] = RetryQueue()
    assert list(queue.stats) == ["queued", "retried", "succeeded", "abandoned", "queue_size"]
    assert tuple(queue.abandoned_by) == REASONS


def test_exhausted_and_overflowing_retries_are_counted() -> None:
    """Once they vanished without a trace."""
    queue: RetryQueue[str] = RetryQueue(max_size=2)
    for name in "abc":
        queue.put(0.0, name)
    run_dry(queue)
    assert queue.stats == {"queued": 3, "retried": 6, "succeeded": 0, "abandoned": 3, "queue_size": 0}
    assert queue.abandoned_by == {"exhausted": 2, "expired": 0, "evicted": 1, "refused": 0, "closed": 0}


# Order and room


def test_critical_goes_before_normal_and_each_in_order_of_arrival() -> None:
    queue: RetryQueue[str] = RetryQueue()
    for name, lane in [("n1", NORMAL), ("c1", CRITICAL), ("n2", NORMAL), ("c2", CRITICAL)]:
        queue.put(0.0, name, lane=lane)
    assert entries(due(queue, 2.0)) == ["c1", "c2", "n1", "n2"]


def test_a_full_queue_evicts_the_oldest_normal_event_before_any_critical_one() -> None:
    queue: RetryQueue[str] = RetryQueue(max_size=3)
    for name, lane in [("c1", CRITICAL), ("n1", NORMAL), ("n2", NORMAL)]:
        queue.put(0.0, name, lane=lane)
    assert entries(queue.put(0.0, "c2", lane=CRITICAL)) == ["n1"]
    assert entries(queue.put(0.0, "c3", lane=CRITICAL)) == ["n2"]


def test_among_critical_ones_alone_the_oldest_goes_for_a_critical_newcomer() -> None:
    queue: RetryQueue[str] = RetryQueue(max_size=2)
    for name in ("c1", "c2"):
        queue.put(0.0, name, lane=CRITICAL)
    assert entries(queue.put(0.0, "c3", lane=CRITICAL)) == ["c1"]


def test_a_normal_newcomer_evicts_no_critical_event_but_is_evicted_itself() -> None:
    queue: RetryQueue[str] = RetryQueue(max_size=2)
    for name in ("c1", "c2"):
        queue.put(0.0, name, lane=CRITICAL)
    assert queue.put(0.0, "n1") == [Abandon(3, "n1", "evicted", 0)]
    assert queue.stats["queued"] == 3


def test_what_is_being_tried_is_not_evicted() -> None:
    queue: RetryQueue[str] = RetryQueue(max_size=1)
    queue.put(0.0, "a")
    due(queue, 1.0)
    assert entries(queue.put(1.0, "b")) == ["b"]
    queue.succeeded(1)
    assert queue.put(1.0, "c") == []


def test_an_entry_of_several_events_counts_as_many_and_goes_as_one() -> None:
    queue: RetryQueue[str] = RetryQueue(max_size=5)
    queue.put(0.0, "three", size=3)
    queue.put(0.0, "two", size=2)
    assert entries(queue.put(0.0, "one", size=1)) == ["three"]
    assert queue.stats == {"queued": 6, "retried": 0, "succeeded": 0, "abandoned": 3, "queue_size": 3}


def test_an_entry_that_no_eviction_makes_room_for_evicts_nothing_but_itself() -> None:
    queue: RetryQueue[str] = RetryQueue(max_size=5)
    queue.put(0.0, "kept", size=3)
    assert entries(queue.put(0.0, "huge", size=6)) == ["huge"]
    assert queue.stats["queue_size"] == 3


# Outcomes


def test_a_refusal_by_an_open_breaker_uses_up_no_attempt() -> None:
    queue: RetryQueue[str] = RetryQueue()
    queue.put(0.0, "a")
    for now in (2.0, 4.0, 6.0, 8.0, 10.0):
        assert due(queue, now) == [Retry(1, "a", 1)]
        assert queue.postponed(1) == []
    assert queue.stats["retried"] == 0
    assert due(queue, 12.0) == [Retry(1, "a", 1)]


def test_a_retry_that_succeeds_is_counted_and_gone() -> None:
    queue: RetryQueue[str] = RetryQueue()
    queue.put(0.0, "a")
    due(queue, 1.0)
    queue.succeeded(1)
    assert queue.stats == {"queued": 1, "retried": 1, "succeeded": 1, "abandoned": 0, "queue_size": 0}
    assert queue.next_deadline() is None


def test_a_permanent_refusal_ends_the_retries() -> None:
    queue: RetryQueue[str] = RetryQueue()
    queue.put(0.0, "a")
    due(queue, 1.0)
    assert queue.refused(1) == [Abandon(1, "a", "refused", 1)]
    assert queue.stats["retried"] == 1


def test_closing_gives_everything_one_last_try_and_then_gives_up() -> None:
    queue: RetryQueue[str] = RetryQueue()
    for name in "abc":
        queue.put(0.0, name)
    last = queue.close(0.5)
    assert entries(last) == ["a", "b", "c"]
    queue.succeeded(1)
    assert queue.failed(0.6, 2) == [Abandon(2, "b", "closed", 1)]
    assert queue.postponed(3) == [Abandon(3, "c", "closed", 0)]
    assert queue.put(0.7, "d") == [Abandon(4, "d", "closed", 0)]
    assert queue.stats == {"queued": 4, "retried": 2, "succeeded": 1, "abandoned": 3, "queue_size": 0}


def test_what_is_tried_while_the_queue_closes_is_given_up_when_that_fails() -> None:
    queue: RetryQueue[str] = RetryQueue()
    queue.put(0.0, "a")
    due(queue, 1.0)
    assert queue.close(1.5) == []
    assert queue.failed(2.0, 1) == [Abandon(1, "a", "closed", 1)]


def test_an_outcome_for_what_is_not_being_tried_is_illegal() -> None:
    queue: RetryQueue[str] = RetryQueue()
    queue.put(0.0, "a")
    with pytest.raises(IllegalInput):
        queue.succeeded(1)
    with pytest.raises(IllegalInput):
        queue.failed(0.0, 7)
    with pytest.raises(IllegalInput):
        queue.put(0.0, "b", size=0)


@pytest.mark.parametrize("wrong", [{"max_retries": 0}, {"age_limit": 0}, {"max_size": 0}])
def test_numbers_that_make_no_queue_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="retry queue"):
        RetryQueue(**wrong)  # type: ignore[arg-type]


def test_nothing_comes_back_from_being_gone() -> None:
    assert {state for state, _ in TRANSITIONS} == {State.WAITING, State.TRYING}


class QueueModel(RuleBasedStateMachine):
    """Whatever happens in whatever order: queued = succeeded + abandoned + queue_size, by entry."""

    limit = 8

    def __init__(self) -> None:
        super().__init__()
        self.queue: RetryQueue[int] = RetryQueue(max_size=self.limit)
        self.now = 0.0
        self.here: dict[int, tuple[Lane, int, float]] = {}
        self.trying: dict[int, int] = {}
        self.succeeded = 0
        self.abandoned = 0
        self.put_so_far = 0
        self.closed = False

    def drain(self, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Retry):
                assert effect.entry not in self.trying.values()
                assert 1 <= effect.retry <= 3
                self.trying[effect.ticket] = effect.entry
            else:
                self.trying.pop(effect.ticket, None)
                self.abandoned += self.here.pop(effect.entry)[1]

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(lane=st.sampled_from(Lane), size=st.integers(1, 10), age=st.floats(0, 6))
    def put(self, lane: Lane, size: int, age: float) -> None:
        entry = self.put_so_far
        self.put_so_far += 1
        before = dict(self.here)
        self.here[entry] = (lane, size, self.now - age)
        effects = self.queue.put(self.now, entry, lane=lane, size=size, since=self.now - age)
        for effect in effects:
            assert effect.reason == ("closed" if self.closed else "evicted")
            assert effect.entry not in self.trying.values()
            if lane is NORMAL and effect.entry != entry:
                assert before[effect.entry][0] is NORMAL
        self.drain(effects)

    @rule()
    def look(self) -> None:
        effects = self.queue.handle_timeout(self.now)
        retries = [self.here[effect.entry][0] for effect in effects if isinstance(effect, Retry)]
        assert retries == sorted(retries)
        self.drain(effects)
        deadline = self.queue.next_deadline()
        assert deadline is None or deadline > self.now

    @rule()
    def spare(self) -> None:
        effects = self.queue.expire(self.now)
        assert all(self.now - self.here[effect.entry][2] >= 30 - 1e-9 for effect in effects)
        self.drain(effects)

    @precondition(lambda self: self.trying)
    @rule(data=st.data(), outcome=st.sampled_from(["succeeded", "failed", "postponed", "refused"]))
    def tell(self, data: st.DataObject, outcome: str) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.trying)))
        entry = self.trying.pop(ticket)
        if outcome == "succeeded":
            self.queue.succeeded(ticket)
            self.succeeded += self.here.pop(entry)[1]
        elif outcome == "failed":
            self.drain(self.queue.failed(self.now, ticket))
        else:
            self.drain(getattr(self.queue, outcome)(ticket))

    @rule(really=st.integers(0, 9))
    def close(self, really: int) -> None:
        if really == 0:
            self.closed = True
            self.drain(self.queue.close(self.now))

    @invariant()
    def nothing_vanishes_uncounted(self) -> None:
        stats = self.queue.stats
        assert stats["queued"] == stats["succeeded"] + stats["abandoned"] + stats["queue_size"]
        assert stats["succeeded"] == self.succeeded
        assert stats["abandoned"] == self.abandoned == sum(self.queue.abandoned_by.values())
        assert stats["queue_size"] == sum(size for _, size, _ in self.here.values())

    @invariant()
    def the_limit_holds(self) -> None:
        assert self.queue.stats["queue_size"] <= self.limit


TestQueueModel = QueueModel.TestCase
TestQueueModel.settings = settings(stateful_step_count=30)
