"""Watches: what is appended, handed to each follower through a bounded buffer."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import msgspec

from steadcast.event import Batch, Lane

if TYPE_CHECKING:
    from collections.abc import Sequence

WATCH_EVENTS: Final = 16_384
"""A watch buffers at most this many events …"""
WATCH_BYTES: Final = 8 * 1024 * 1024
"""… and at most this many bytes of their JSON."""


class WatchCounts(msgspec.Struct, kw_only=True):
    """Events by what became of them: accepted = pending + delivered + overflowed + abandoned."""

    accepted: int = 0
    pending: int = 0
    delivered: int = 0
    overflowed: int = 0
    abandoned: int = 0


class BufferedWatch:
    """One follower's buffer. Over its limit it empties itself down to one bookmark per lane.

    A bookmark is a batch without events at the offset up to which was dropped: without it a follower whose
    lane falls quiet would never see the gap.
    """

    def __init__(self, counts: WatchCounts, max_events: int, max_bytes: int) -> None:
        self._counts = counts
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._buffer: deque[tuple[Batch, int]] = deque()
        self._bytes = 0
        self._events = 0
        self._wake = asyncio.Event()
        self._closed = False

    def __aiter__(self) -> BufferedWatch:
        return self

    async def __anext__(self) -> Batch:
        """Wait for the next batch; raises `StopAsyncIteration` once closed and drained."""
        while not self._buffer:
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        batch, size = self._buffer.popleft()
        self._forget(len(batch.events), size)
        self._counts.delivered += len(batch.events)
        return batch

    def __del__(self) -> None:
        self._abandon()

    async def aclose(self) -> None:
        """Stop following, and free what is buffered."""
        self.end()
        self._abandon()

    def _abandon(self) -> None:
        self._counts.abandoned += self._events
        self._buffer.clear()
        self._forget(self._events, self._bytes)

    def end(self) -> None:
        """Let the follower drain what is buffered, and then stop."""
        self._closed = True
        self._wake.set()

    def offer(self, batch: Batch, size: int) -> None:
        """Buffer a batch of `size` bytes, making room for it if need be."""
        if self._closed:
            return
        events = len(batch.events)
        if self._events + events > self._max_events or self._bytes + size > self._max_bytes:
            self._overflow()
        self._buffer.append((batch, size))
        self._events += events
        self._bytes += size
        self._counts.accepted += events
        self._counts.pending += events
        self._wake.set()

    def _overflow(self) -> None:
        last: dict[tuple[str, Lane], Batch] = {(batch.stream, batch.lane): batch for batch, _ in self._buffer}
        self._counts.overflowed += self._events
        self._forget(self._events, self._bytes)
        self._buffer = deque((_bookmark(batch), 0) for batch in last.values())

    def _forget(self, events: int, size: int) -> None:
        self._events -= events
        self._bytes -= size
        self._counts.pending -= events


class Watches:
    """All followers of an engine. One that nobody holds any more is forgotten."""

    def __init__(self, *, max_events: int = WATCH_EVENTS, max_bytes: int = WATCH_BYTES) -> None:
        self.counts = WatchCounts()
        self._limits = (max_events, max_bytes)
        self._all: WeakSet[BufferedWatch] = WeakSet()
        self._ended = False

    def __len__(self) -> int:
        return len(self._all)

    def open(self) -> BufferedWatch:
        """Start a watch that gets every batch offered from now on."""
        watch = BufferedWatch(self.counts, *self._limits)
        if self._ended:
            watch.end()
        self._all.add(watch)
        return watch

    def offer(self, batches: Sequence[tuple[Batch, int]]) -> None:
        """Hand batches with their sizes to every follower, in order."""
        for watch in self._all:
            for batch, size in batches:
                watch.offer(batch, size)

    def end(self) -> None:
        """End every watch, also those that are opened later."""
        self._ended = True
        for watch in self._all:
            watch.end()


def _bookmark(batch: Batch) -> Batch:
    return Batch(batch.stream, batch.lane, batch.epoch, batch.upto, batch.upto, ())
