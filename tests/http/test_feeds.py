"""The registry of feeds: its limit, and the encoding that all readers of a batch share."""

from __future__ import annotations

import json

import msgspec
import pytest

from steadcast.errors import Draining, NotAllowed, QueueFull, SteadcastError
from steadcast.event import Batch, Entry, Event, Lane
from steadcast.http.feeds import Feeds
from steadcast.hub import Frame


class Kicked:
    def __init__(self) -> None:
        self.errors: list[SteadcastError] = []

    def kick(self, error: SteadcastError) -> None:
        self.errors.append(error)

    def look(self) -> None:
        self.errors.append(NotAllowed("x", code="token_revoked"))


def a_frame(*offsets: int) -> Frame:
    entries = tuple(
        Entry(n, Event(f"e{n}", "/s", "t", "2026-01-01T00:00:00Z", msgspec.Raw(b'{"a":1}'))) for n in offsets
    )
    return Frame(Batch("s", Lane.NORMAL, "one", 0, offsets[-1], entries))


def test_there_is_room_for_so_many_and_a_place_that_is_left_is_free_again() -> None:
    feeds = Feeds()
    first, second = Kicked(), Kicked()
    feeds.enter(first, 1)
    with pytest.raises(QueueFull) as caught:
        feeds.enter(second, 1)
    assert caught.value.temporary
    feeds.leave(first)
    feeds.leave(first)
    feeds.enter(second, 1)
    assert len(feeds) == 1


def test_an_end_tells_each_reader_its_own_time_in_the_range() -> None:
    feeds = Feeds()
    readers = [Kicked() for _ in range(50)]
    for reader in readers:
        feeds.enter(reader, 50)
    feeds.end((2.0, 4.0))
    errors = [error for reader in readers for error in reader.errors]
    assert all(isinstance(error, Draining) for error in errors)
    times = {error.retry_after for error in errors}
    assert len(times) > 40
    assert all(time is not None and 2.0 <= time <= 4.0 for time in times)


def test_who_comes_behind_the_end_is_told_it_at_once() -> None:
    feeds, late = Feeds(), Kicked()
    feeds.end((2.0, 4.0))
    feeds.enter(late, 1)
    (told,) = late.errors
    assert isinstance(told, Draining)
    assert told.retry_after is not None
    assert 2.0 <= told.retry_after <= 4.0


def test_all_feeds_are_told_to_look_at_their_tokens() -> None:
    feeds = Feeds()
    readers = [Kicked() for _ in range(3)]
    for reader in readers:
        feeds.enter(reader, 3)
    feeds.look()
    assert [error.code for reader in readers for error in reader.errors] == ["token_revoked"] * 3


def test_a_batch_is_encoded_once_for_all_its_readers_and_the_next_one_anew() -> None:
    feeds = Feeds()
    frame = a_frame(3, 4)
    lines = feeds.lines(frame)
    assert feeds.lines(frame) is lines
    assert [offset for offset, _ in lines] == [3, 4]
    first = json.loads(lines[0][1].removeprefix(b"data: "))
    assert first == {
        "lane": "normal",
        "offset": 3,
        "id": "e3",
        "source": "/s",
        "type": "t",
        "time": "2026-01-01T00:00:00Z",
        "priority": "normal",
        "data": {"a": 1},
    }
    assert feeds.lines(a_frame(5)) is not lines
