"""Lines from a pipe: as they come, in groups, none lost, each within its bound."""

from __future__ import annotations

import os
import threading

from hypothesis import given
from hypothesis import strategies as st

from steadcast.commands.lines import Lines

Group = list[tuple[int, bytes | None]]


def groups_of(content: bytes, *, events: int = 500, size: int = 10_000, longest: int = 1_000) -> list[Group]:
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    lines = Lines(reading, longest=longest)
    groups = list(iter(lambda: lines.next_group(events, size), []))
    writer.join()
    os.close(reading)
    return groups


LINE = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))


@given(st.lists(LINE, max_size=30), st.booleans())
def test_every_line_comes_once_in_order_with_its_number(lines: list[bytes], ended: bool) -> None:
    content = b"\n".join(lines) + (b"\n" if ended else b"")
    got = [each for group in groups_of(content, events=7) for each in group]
    told = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    assert got == told


def test_a_group_has_at_most_so_many_lines_and_ends_with_the_line_that_fills_it() -> None:
    groups = groups_of(b"".join(b"%03d\n" % number for number in range(10)), events=4, size=1_000)
    assert max(map(len, groups)) <= 4
    groups = groups_of(b"".join(b"%03d\n" % number for number in range(10)), events=100, size=6)
    assert max(map(len, groups)) <= 2


def test_a_line_that_is_too_long_is_passed_over_and_the_next_one_is_whole() -> None:
    (first, second, third) = [
        each for group in groups_of(b"a\n" + b"x" * 1_000_000 + b"\nb\n") for each in group
    ]
    assert (first, second, third) == ((1, b"a"), (2, None), (3, b"b"))
    assert groups_of(b"x" * 1_001) == [[(1, None)]]


def test_what_is_there_is_given_without_waiting_for_more() -> None:
    reading, writing = os.pipe()
    lines = Lines(reading, longest=100)
    os.write(writing, b"one\ntwo\nthr")
    assert lines.next_group(10, 1_000) == [(1, b"one"), (2, b"two")]
    os.write(writing, b"ee\n")
    assert lines.next_group(10, 1_000) == [(3, b"three")]
    os.close(writing)
    assert lines.next_group(10, 1_000) == []
    os.close(reading)


def test_a_pipe_that_is_not_blocking_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    later = threading.Timer(0.1, os.write, (writing, b"1\n"))
    later.start()
    assert Lines(reading, longest=10).next_group(5, 100) == [(1, b"1")]
    later.join()
    os.close(reading)
    os.close(writing)
