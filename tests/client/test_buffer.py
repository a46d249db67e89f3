"""The publisher's buffer: order per stream, limits, and who has to go."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from steadcast.client.buffer import Buffer
from steadcast.client.outgoing import Outgoing


def item(number: int, stream: str = "s", *, critical: bool = False, size: int = 10) -> Outgoing:
    return Outgoing(f"{number:05d}", stream, str(number), critical, b"x" * size)


def filled(*items: Outgoing, max_events: int = 100, max_bytes: int = 10_000) -> Buffer:
    buffer = Buffer(max_events, max_bytes)
    for each in items:
        buffer.add(each)
    return buffer


def numbers(items: list[Outgoing]) -> list[int]:
    return [int(each.id) for each in items]


def test_a_batch_is_of_one_stream_the_one_whose_turn_it_is() -> None:
    buffer = filled(item(1, "a"), item(2, "b"), item(3, "a"), item(4, "b"))
    assert numbers(buffer.send_batch(10, 1_000)) == [1, 3]
    buffer.settle({"00001", "00003"})
    assert numbers(buffer.send_batch(10, 1_000)) == [2, 4]


def test_a_batch_is_bounded_by_count_and_bytes_but_never_empty() -> None:
    buffer = filled(*(item(number, size=100) for number in range(5)))
    assert numbers(buffer.send_batch(2, 10_000)) == [0, 1]
    buffer.settle(())
    assert numbers(buffer.send_batch(10, 250)) == [0, 1]
    buffer.settle(())
    assert numbers(buffer.send_batch(10, 1)) == [0]


def test_what_was_not_settled_comes_first_again() -> None:
    buffer = filled(*(item(number) for number in range(4)))
    buffer.send_batch(3, 1_000)
    assert buffer.settle({"00001"}) == 1
    assert numbers(buffer.send_batch(10, 1_000)) == [0, 2, 3]


def test_the_oldest_of_all_streams_are_taken_in_order() -> None:
    buffer = filled(item(1, "a"), item(2, "b"), item(3, "a"), item(4, "c"))
    assert numbers(buffer.send_oldest(3)) == [1, 2, 3]


def test_nothing_younger_than_asked_for_is_taken() -> None:
    buffer = filled(item(1), item(3), item(5))
    assert numbers(buffer.send_batch(10, 1_000, before="00004")) == [1, 3]
    buffer.settle({"00001", "00003"})
    assert buffer.send_batch(10, 1_000, before="00004") == []
    assert buffer.oldest() == "00005"


def test_what_is_on_its_way_counts_towards_the_limits() -> None:
    buffer = filled(*(item(number) for number in range(3)), max_events=4, max_bytes=50)
    buffer.send_batch(2, 1_000)
    assert buffer.has_room(item(3, size=20))
    assert not buffer.has_room(item(3, size=21))
    buffer.add(item(3))
    assert not buffer.has_room(item(4, size=0))


def test_the_oldest_normal_event_is_given_up_before_any_critical_one() -> None:
    buffer = filled(item(1, critical=True), item(3, "b"), item(2), item(4, "b", critical=True))
    newcomer = item(5, critical=True)
    assert numbers([buffer.evict_for(newcomer) for _ in range(5)]) == [2, 3, 1, 4, 5]


def test_a_normal_newcomer_does_not_push_out_critical_events() -> None:
    buffer = filled(item(1, critical=True), item(2, critical=True))
    newcomer = item(3)
    assert buffer.evict_for(newcomer) is newcomer
    assert len(buffer) == 2


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from("abc"), st.booleans(), st.integers(0, 50)),
            st.tuples(st.just("batch"), st.integers(1, 4), st.integers(1, 100)),
            st.tuples(st.just("oldest"), st.integers(1, 4)),
            st.tuples(st.just("settle"), st.integers(0, 15)),
            st.tuples(st.just("evict")),
            st.tuples(st.just("pass")),
        )
    )
)
def test_nothing_is_lost_or_reordered_within_a_stream(actions: list[tuple[Any, ...]]) -> None:
    buffer = Buffer(1_000, 10**6)
    added: list[Outgoing] = []
    gone: list[str] = []
    for action in actions:
        match action:
            case ("add", stream, critical, size):
                added.append(item(len(added), stream, critical=critical, size=size))
                buffer.add(added[-1])
            case ("batch", count, size):
                buffer.settle(())
                assert len({each.stream for each in buffer.send_batch(count, size)}) <= 1
            case ("oldest", count):
                buffer.settle(())
                buffer.send_oldest(count)
            case ("settle", bits):
                done = [each.stamp for place, each in enumerate(buffer.away) if bits >> place & 1]
                assert buffer.settle(done) == len(done)
                gone += done
            case ("evict",):
                gone.append(buffer.evict_for(item(99_999, critical=True)).stamp)
            case _:
                gone += [each.stamp for each in buffer.take_oldest()]
    left = [each for each in added if each.stamp not in gone]
    buffer.settle(())
    assert len(buffer) == len(left)
    assert buffer.bytes == sum(len(each.body) for each in left)
    for stream in "abc":
        mine = [each for each in left if each.stream == stream]
        assert list(buffer._streams.get(stream, [])) == mine
