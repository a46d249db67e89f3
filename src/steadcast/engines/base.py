"""The engine's interface: a durable log of streams, each with two lanes. Six methods, no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from steadcast.event import Event, Lane  # noqa: TC001 - msgspec reads the annotations at run time
from steadcast.wire import PAGE_BYTES, PAGE_EVENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steadcast.event import Batch, Receipt

__all__ = ["IDS_AGE", "PAGE_BYTES", "PAGE_EVENTS", "Description", "Engine", "LaneState", "Retention", "Watch"]

IDS_AGE: Final = 7 * 24 * 3600.0
"""An id is known for at least this many seconds after its append, and as long as its event is retained."""


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a lane is kept: by age in seconds, count and bytes, whichever is met first."""

    age: float = 7 * 24 * 3600.0
    events: int = 1_000_000
    bytes: int = 2 * 1024**3


class LaneState(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine knows of one lane.

    `head` is the last offset, 0 where the lane never held an event; `trimmed` is the offset up to which
    (inclusive) events are gone: the oldest retained event is above it. `events` and `bytes` are the sizes
    of what is retained.
    """

    head: int = 0
    trimmed: int = 0
    events: int = 0
    bytes: int = 0


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """An engine's streams at one moment. A stream that was asked for and never held an event is all zeros."""

    epoch: str
    streams: dict[str, dict[Lane, LaneState]]


class Watch(Protocol):
    """What `Engine.watch` gives: batches until the engine closes, or until `aclose`.

    A batch without events, `after == upto`, stands where batches of its lane were dropped.
    """

    def __aiter__(self) -> Watch:
        """Give itself."""
        ...

    async def __anext__(self) -> Batch:
        """Wait for the next batch; raises `StopAsyncIteration` once closed and drained."""
        ...

    async def aclose(self) -> None:
        """Stop following, and free what is buffered."""
        ...


class Engine(Protocol):
    """A log with positions. `append` is durable before it answers; `read` pages; `watch` follows.

    Any method may raise `EngineUnavailable` (temporary). Every method may be called from one event loop only.
    """

    retention: Retention
    dense: bool
    """Whether a lane's offsets have no holes, so that the events between two offsets can be counted."""

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        """Add events to a stream, all or none, and return when they are durable.

        Idempotent by (source, id) within the stream, both lanes together: a known id is answered with the
        receipt of its first append, `duplicate` set, once that one is durable; within one call too.
        Raises `IdConflict` (fields `id`, `index`) where type, subject or data differ from the first,
        and `QueueFull` while too much is waiting for the disk.
        Appending nothing asks whether appends work: it returns [] after a small probing write, which
        leaves no trace in the log, or raises what an append would.
        """
        ...

    async def read(
        self, stream: str, lane: Lane, after: int, limit: int = PAGE_EVENTS, *, kept: bool = False
    ) -> Batch:
        """Read the page behind offset `after`: at most `limit` events and `PAGE_BYTES`.

        A negative `after` counts from the end: -n starts before the last n retained events. An empty page
        has `upto == after`; the last page of a lane ends at its head. With `kept`, each entry tells when it
        was appended: people want to know, deliveries don't.
        Raises `PositionLost`: `trimmed` with `lost` = (after + 1, trim mark) when `after` is below the trim
        mark; `reset` when `after` is above the head.
        """
        ...

    def watch(self) -> Watch:
        """Follow everything that is appended from now on, the moment of this call, in each lane's order.

        A watcher that falls behind by more than the engine buffers misses batches: the chain of `after` and
        `upto` shows the gap, at the latest by a batch without events whose `after` and `upto` are the offset
        up to which was dropped; the log has what is missing. Ends when the engine closes.
        """
        ...

    async def describe(self, stream: str | None = None) -> Description:
        """Tell the epoch and the heads, trim marks and sizes of one stream or of all."""
        ...

    async def trim(
        self,
        stream: str | None = None,
        lane: Lane | None = None,
        upto: int | None = None,
        *,
        dry_run: bool = False,
    ) -> int:
        """Apply retention, or with `upto` drop a lane's events up to that offset; returns how many went.

        With `dry_run` nothing goes, and what would is counted. Neither reads an event: one that is damaged,
        or missing, goes and counts as any other. Trimming never lowers a head and never frees an offset for
        another event. Nobody calls it by itself: retention holds as well as somebody calls `trim()`.
        Raises `InvalidRequest` when `upto` comes without both stream and lane, and `dry_run` without `upto`.
        """
        ...

    async def aclose(self) -> None:
        """Finish what is under way, end the watches and release everything."""
        ...
