"""Pages that sessions share: read, encoded and framed once for all who stand at the same place."""

from __future__ import annotations

from collections import Counter

import msgspec

from steadcast.event import Batch, Entry, Event, Lane
from steadcast.hub.pages import Pages, Place


def batch(after: int, upto: int, epoch: str = "e1") -> Batch:
    entries = tuple(
        Entry(n, Event(f"e{n}", "test", "t", "2026-01-01T00:00:00Z", msgspec.Raw(b"1")))
        for n in range(after + 1, upto + 1)
    )
    return Batch("s", Lane.NORMAL, epoch, after, upto, entries)


def place(after: int, epoch: str = "e1") -> Place:
    return Place("s", Lane.NORMAL, epoch, after, 256)


def test_a_page_is_kept_for_a_moment() -> None:
    pages = Pages(Counter(), max_age=2.0)
    kept = pages.keep(place(0), batch(0, 5), now=10.0)
    assert pages.get(place(0), now=11.9) is kept
    assert pages.get(place(0), now=12.0) is None
    pages.forget_old(now=12.0)
    assert pages.size == 0


def test_everybody_who_is_cut_at_the_same_offset_shares_one_frame() -> None:
    page = Pages(Counter()).keep(place(0), batch(0, 5), now=0.0)
    assert page.frame(9) is page.frame(5)
    cut = page.frame(3)
    assert [entry.offset for entry in cut.batch.events] == [1, 2, 3]
    assert page.frame(3) is cut


def test_over_the_limit_the_longest_unwanted_pages_go_and_are_counted() -> None:
    counts: Counter[str] = Counter()
    size = len(Pages(Counter()).keep(place(100), batch(100, 105), now=0.0).frame(105).payload)
    pages = Pages(counts, max_bytes=2 * size)
    for after in (100, 200):
        pages.keep(place(after), batch(after, after + 5), now=0.0)
    assert pages.get(place(100), now=0.0)
    pages.keep(place(300), batch(300, 305), now=0.0)
    assert pages.get(place(200), now=0.0) is None
    assert pages.get(place(100), now=0.0) is not None
    assert pages.size == 2 * size
    assert counts["pages_evicted"] == 1


def test_neither_an_empty_page_nor_one_of_another_epoch_nor_a_huge_one_is_kept() -> None:
    pages = Pages(Counter(), max_bytes=2_000)
    pages.keep(place(5), batch(5, 5), now=0.0)
    pages.keep(place(0), batch(0, 5, "e2"), now=0.0)
    pages.keep(place(6), batch(6, 200), now=0.0)
    assert [pages.get(place(n), now=0.0) for n in (5, 0, 6)] == [None, None, None]
    assert pages.size == 0
