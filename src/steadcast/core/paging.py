"""Cutting, splitting and merging batches so that they stay honest and fit the wire's limits."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from steadcast.event import Batch, Entry
from steadcast.wire import PAGE_BYTES, PAGE_EVENTS, size_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def cut(batch: Batch, upto: int) -> Batch:
    """Give the part of a batch at or below an offset."""
    if batch.upto <= upto:
        return batch
    events = tuple(entry for entry in batch.events if entry.offset <= upto)
    return Batch(batch.stream, batch.lane, batch.epoch, batch.after, max(upto, batch.after), events)


def split(batch: Batch, after: int) -> Iterator[Batch]:
    """Give what of a batch lies above an offset, in batches that fit the wire's limits."""
    rest = deque(entry for entry in batch.events if entry.offset > after)
    while rest:
        part = list(_page(rest))
        upto = part[-1].offset if rest else batch.upto
        yield Batch(batch.stream, batch.lane, batch.epoch, after, upto, tuple(part))
        after = upto


def merge(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Give consecutive batches of one lane as one; where the chain has a gap another one begins."""
    run: list[Batch] = []
    for batch in batches:
        if run and (batch.epoch != run[-1].epoch or batch.after != run[-1].upto):
            yield _joined(run)
            run = []
        run.append(batch)
    if run:
        yield _joined(run)


def _joined(run: list[Batch]) -> Batch:
    first, last = run[0], run[-1]
    if first is last:
        return first
    events = tuple(entry for batch in run for entry in batch.events)
    return Batch(first.stream, first.lane, first.epoch, first.after, last.upto, events)


def _page(rest: deque[Entry]) -> Iterator[Entry]:
    """Take one page's entries off the front: at most 256 and 256 KiB, a larger one alone."""
    size = taken = 0
    while rest and taken < PAGE_EVENTS:
        size += size_of(rest[0].event)
        if taken and size > PAGE_BYTES:
            return
        taken += 1
        yield rest.popleft()
