"""The circuit breaker: by table, by example and against a model."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from steadcast.core.backoff import Backoff
from steadcast.core.breaker import TRANSITIONS, Breaker, Permit, State
from steadcast.errors import IllegalInput

OPEN_FOR = Backoff(base=1, factor=2, cap=8, spread=0)


def permit_of(breaker: Breaker, now: float) -> Permit:
    permit = breaker.allow(now)
    assert permit is not None
    return permit


def fail(breaker: Breaker, now: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(now, permit_of(breaker, now))


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(failures=3, window=10, open_for=OPEN_FOR)
    fail(breaker, now, 3)
    return breaker


def test_a_new_breaker_lets_everything_through() -> None:
    breaker = Breaker()
    assert all(breaker.allow(0.0) for _ in range(1_000))
    assert breaker.retry_after(0.0) == 0


def test_failures_within_the_window_open_it() -> None:
    breaker = opened()
    assert breaker.state is State.OPEN
    assert breaker.allow(0.0) is None
    assert breaker.retry_after(0.25) == 0.75


def test_failures_that_are_further_apart_than_the_window_leave_it_closed() -> None:
    breaker = Breaker(failures=3, window=10)
    for now in range(0, 200, 6):
        fail(breaker, now)
    assert breaker.state is State.CLOSED


def test_the_window_includes_its_end() -> None:
    breaker = Breaker(failures=2, window=10)
    fail(breaker, 0.0)
    fail(breaker, 10.0)
    assert breaker.state is State.OPEN


def test_a_success_in_between_leaves_it_closed() -> None:
    breaker = Breaker(failures=3, window=10)
    for _ in range(20):
        fail(breaker, 0.0, 2)
        breaker.succeeded(0.0, permit_of(breaker, 0.0))
    assert breaker.state is State.CLOSED


def test_five_appends_in_a_row_that_hang_for_five_seconds_open_the_default() -> None:
    breaker = Breaker()
    for now in (5, 10, 15, 20, 25):
        assert breaker.state is State.CLOSED
        fail(breaker, now)
    assert breaker.state is State.OPEN


def test_refusals_of_bad_input_never_open_it() -> None:
    breaker = Breaker(failures=1)
    for _ in range(100):
        breaker.released(0.0, permit_of(breaker, 0.0))
    assert breaker.state is State.CLOSED
    assert breaker.counts["released"] == 100


def test_when_its_time_is_over_one_probe_goes_through() -> None:
    breaker = opened()
    assert breaker.allow(0.99) is None
    assert breaker.allow(1.0) is not None
    assert breaker.state is State.HALF_OPEN
    assert breaker.allow(1.0) is None
    assert breaker.retry_after(1.0) == 1.0


def test_a_probe_that_succeeds_closes_it_and_starts_the_doubling_anew() -> None:
    breaker = opened()
    breaker.succeeded(1.0, permit_of(breaker, 1.0))
    assert breaker.state is State.CLOSED
    fail(breaker, 2.0, 3)
    assert breaker.retry_after(2.0) == 1.0


def test_each_probe_that_fails_doubles_the_wait_up_to_the_cap() -> None:
    breaker, now, waits = opened(), 0.0, []
    for _ in range(6):
        wait = breaker.retry_after(now)
        waits.append(wait)
        now += wait
        fail(breaker, now)
    assert waits == [1, 2, 4, 8, 8, 8]


def test_a_probe_that_ends_without_a_verdict_lets_the_next_one_through_at_once() -> None:
    breaker = opened()
    breaker.released(1.5, permit_of(breaker, 1.0))
    assert breaker.state is State.OPEN
    assert breaker.allow(1.5) is not None


def test_a_late_verdict_from_before_the_outage_moves_nothing() -> None:
    breaker = Breaker(failures=3, window=10, open_for=OPEN_FOR)
    late = [permit_of(breaker, 0.0) for _ in range(4)]
    fail(breaker, 0.0, 3)
    probe = permit_of(breaker, 1.0)
    breaker.failed(1.0, late[0])
    breaker.succeeded(1.0, late[1])
    breaker.released(1.0, late[2])
    states = [breaker.state]
    breaker.succeeded(1.5, probe)
    breaker.failed(1.5, late[3])
    states.append(breaker.state)
    assert states == [State.HALF_OPEN, State.CLOSED]
    assert breaker.counts["late"] == 4


def test_a_verdict_on_a_permit_that_was_never_given_is_illegal() -> None:
    with pytest.raises(IllegalInput):
        Breaker().succeeded(0.0, Permit(2))
    with pytest.raises(IllegalInput):
        Breaker().failed(0.0, Permit(0))


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"window": 0}, {"window": -1}])
def test_numbers_that_make_no_breaker_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="breaker"):
        Breaker(**wrong)  # type: ignore[arg-type]


def test_every_state_can_be_left_and_reached() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State) == set(TRANSITIONS.values())


class BreakerModel(RuleBasedStateMachine):
    """Whatever comes in whatever order: at most one probe, every permit accounted for."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(failures=2, window=5, open_for=OPEN_FOR)
        self.now = 0.0
        self.out: list[Permit] = []
        self.probe: Permit | None = None

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        before = self.breaker.state
        said = self.breaker.retry_after(self.now)
        permit = self.breaker.allow(self.now)
        assert (permit is not None) == (said == 0)
        if permit is None:
            return
        if before is not State.CLOSED:
            assert self.probe is None
            self.probe = permit
        self.out.append(permit)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), verdict=st.sampled_from(["succeeded", "failed", "released"]))
    def tell(self, data: st.DataObject, verdict: str) -> None:
        permit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        state = self.breaker.state
        getattr(self.breaker, verdict)(self.now, permit)
        if permit == self.probe:
            self.probe = None
            assert self.breaker.state is (State.CLOSED if verdict == "succeeded" else State.OPEN)
        elif state is not State.CLOSED:
            assert self.breaker.state is state

    @invariant()
    def every_permit_is_accounted_for(self) -> None:
        counts = self.breaker.counts
        verdicts = sum(counts[name] for name in ("succeeded", "failed", "released", "late"))
        assert counts["allowed"] == verdicts + len(self.out)

    @invariant()
    def it_never_refuses_for_longer_than_the_cap(self) -> None:
        assert 0 <= self.breaker.retry_after(self.now) <= 8


TestBreakerModel = BreakerModel.TestCase
TestBreakerModel.settings = settings(stateful_step_count=30)
