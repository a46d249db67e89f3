"""Backoff: the delays a retry waits, by table and by property."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast.core.backoff import Backoff

backoffs = st.builds(
    lambda base, factor, room, spread: Backoff(base, factor, base * room, spread),
    st.floats(0.001, 1000),
    st.floats(1, 100),
    st.floats(1, 10_000),
    st.floats(0, 1),
)
attempts = st.integers(1, 10**9)
jitters = st.floats(0, 1)


def test_the_delays_of_the_specification_come_out_exactly_without_jitter() -> None:
    assert [Backoff().delay(attempt) for attempt in range(1, 7)] == [1, 2, 4, 8, 8, 8]


def test_the_cap_need_not_be_a_power_of_the_factor() -> None:
    assert [Backoff(base=1, factor=3, cap=5).delay(n) for n in (1, 2, 3)] == [1, 3, 5]


def test_a_factor_of_one_waits_the_same_each_time() -> None:
    assert {Backoff(base=2, factor=1, cap=2).delay(n) for n in (1, 2, 50)} == {2}
    assert {Backoff(base=2, factor=1, cap=9).delay(n) for n in (1, 2, 50)} == {2}


def test_jitter_shortens_by_the_spread() -> None:
    assert Backoff(spread=0.5).delay(3, jitter=1.0) == 2
    assert Backoff(spread=1.0).delay(3, jitter=1.0) == 0
    assert Backoff(spread=0.0).delay(3, jitter=1.0) == 4


def test_a_billion_failures_still_give_the_cap() -> None:
    assert Backoff().delay(10**9) == 8


@given(backoffs, attempts, jitters)
def test_a_delay_stays_between_the_spread_and_the_cap(backoff: Backoff, attempt: int, jitter: float) -> None:
    delay = backoff.delay(attempt, jitter)
    assert backoff.base * (1 - backoff.spread) * (1 - 1e-9) <= delay <= backoff.cap * (1 + 1e-9)


@given(backoffs, attempts, jitters)
def test_a_later_attempt_never_waits_less(backoff: Backoff, attempt: int, jitter: float) -> None:
    assert backoff.delay(attempt, jitter) <= backoff.delay(attempt + 1, jitter) * (1 + 1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"base": 0},
        {"base": -1},
        {"base": 9, "cap": 8},
        {"cap": math.inf},
        {"factor": 0.9},
        {"factor": math.inf},
        {"base": math.nan},
        {"spread": -0.1},
        {"spread": 1.1},
    ],
)
def test_numbers_that_make_no_backoff_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="backoff"):
        Backoff(**wrong)


@pytest.mark.parametrize(("attempt", "jitter"), [(0, 0.5), (-1, 0.5), (1, -0.1), (1, 1.1), (1, math.nan)])
def test_an_attempt_or_jitter_outside_its_range_is_refused(attempt: int, jitter: float) -> None:
    with pytest.raises(ValueError, match=r"retries|jitter"):
        Backoff().delay(attempt, jitter)
