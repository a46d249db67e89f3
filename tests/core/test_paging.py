"""Batches are cut, split and merged without losing their honesty."""

from __future__ import annotations

from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from steadcast.core.paging import cut, merge, split
from steadcast.event import Batch, Entry, Event, Lane


def batch(after: int, upto: int, epoch: str = "e1", *, holes: frozenset[int] = frozenset()) -> Batch:
    entries = tuple(
        Entry(n, Event(f"e{n}", "test", "t", "2026-01-01T00:00:00Z", msgspec.Raw(b"1")))
        for n in range(after + 1, upto + 1)
        if n not in holes
    )
    return Batch("s", Lane.NORMAL, epoch, after, upto, entries)


def test_consecutive_batches_become_one() -> None:
    assert list(merge([batch(0, 2), batch(2, 3), batch(3, 7)])) == [batch(0, 7)]


def test_a_gap_or_another_epoch_begins_another_batch() -> None:
    parts = [batch(0, 2), batch(3, 5), batch(5, 6), batch(6, 8, "e2")]
    assert list(merge(parts)) == [batch(0, 2), batch(3, 6), batch(6, 8, "e2")]


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(0, 50), st.sets(st.integers(1, 2_000))
)
def test_what_is_merged_and_split_again_is_the_same_chain(
    lengths: list[int], behind: int, holes: set[int]
) -> None:
    parts, at = [], 0
    for length in lengths:
        parts.append(batch(at, at + length, holes=frozenset(holes)))
        at += length
    (whole,) = merge(parts)
    after = min(behind, at)
    pages = list(split(whole, after))
    offsets = [entry.offset for page in pages for entry in page.events]
    assert offsets == [entry.offset for entry in whole.events if entry.offset > after]
    assert all(a.upto == b.after for a, b in pairwise(pages))
    assert all(len(page.events) <= 256 for page in pages)


def test_a_cut_batch_ends_where_it_was_cut() -> None:
    assert cut(batch(0, 9), 4) == batch(0, 4)
    assert cut(batch(5, 9), 2) == batch(5, 5)
    assert cut(batch(0, 3), 9) == batch(0, 3)
