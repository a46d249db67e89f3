"""What answers repeated emissions are given: the first one's, for a while and so many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from steadcast.core.remember import Remembered


def test_the_first_answer_stays_until_its_time_is_over() -> None:
    kept = Remembered[int](seconds=10.0)
    kept.keep(0.0, ("a",), 1)
    kept.keep(5.0, ("a",), 2)
    assert kept.get(9.9, ("a",)) == 1
    assert kept.get(10.0, ("a",)) is None
    assert (kept.expired, kept.evicted, len(kept)) == (1, 0, 0)


def test_over_the_limit_the_oldest_goes_and_is_counted() -> None:
    kept = Remembered[int](limit=2)
    for number in range(3):
        kept.keep(0.0, (str(number),), number)
    assert [kept.get(0.0, (str(number),)) for number in range(3)] == [None, 1, 2]
    assert (kept.expired, kept.evicted, len(kept)) == (0, 1, 2)


def test_what_is_forgotten_is_answered_anew() -> None:
    kept = Remembered[int]()
    kept.forget(("a",))
    kept.keep(0.0, ("a",), 1)
    kept.forget(("a",))
    kept.keep(0.0, ("a",), 2)
    assert kept.get(0.0, ("a",)) == 2


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abcdef")), max_size=60))
def test_kept_is_held_plus_expired_plus_evicted(steps: list[tuple[int, str]]) -> None:
    kept = Remembered[int](seconds=15.0, limit=3)
    now, taken = 0.0, 0
    for wait, key in steps:
        now += wait
        taken += kept.get(now, (key,)) is None
        kept.keep(now, (key,), 1)
        assert taken == len(kept) + kept.expired + kept.evicted
        assert len(kept) <= 3
