"""What answers repeated emissions are given: the first one's, for a while and so many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from steadcast.core.remember import LONG, NODE, Remembered, key_of, weight_of


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


def test_over_the_room_the_oldest_go_and_are_counted() -> None:
    kept = Remembered[int](room=100)
    for number, weight in enumerate([60, 30, 30]):
        kept.keep(0.0, (str(number),), number)
        kept.weigh((str(number),), weight)
    assert [kept.get(0.0, (str(number),)) for number in range(3)] == [None, 1, 2]
    assert (kept.weight, kept.evicted) == (60, 1)
    kept.weigh(("1",), 50)  # weighed anew: what it was before counts no longer
    kept.forget(("2",))
    kept.weigh(("gone",), 1_000)
    assert (kept.weight, len(kept), kept.evicted) == (50, 1, 1)
    kept.weigh(("1",), 101)
    assert (kept.weight, len(kept), kept.evicted) == (0, 0, 2)


def test_time_takes_the_weight_as_well() -> None:
    kept = Remembered[int](seconds=10.0)
    kept.keep(0.0, ("a",), 1)
    kept.weigh(("a",), 5)
    assert kept.get(10.0, ("a",)) is None
    assert kept.weight == 0


def test_a_key_is_short_and_tells_long_names_apart() -> None:
    assert key_of("token", "x" * LONG) == ("token", "x" * LONG)
    long, other = key_of("x" * 5_000), key_of("x" * 5_001)
    assert long != other
    assert len(long[0]) == len(other[0]) == 64
    assert key_of("x" * 5_000) == long
    assert key_of("\udce4" * 200)


def test_an_answer_weighs_at_least_what_its_texts_do_however_deep() -> None:
    assert weight_of({"ok": True}) < 10 * NODE
    assert weight_of({"rows": [{"text": "x" * 1_000}] * 100}) > 100_000
    assert weight_of([b"x" * 1_000, ("y" * 1_000,)]) > 2_000
    circle: list[object] = []
    circle.append(circle)
    assert weight_of(circle, most=1_000) > 1_000


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
