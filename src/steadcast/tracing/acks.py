"""From a flush until as many have acked it as it went to: a span for each flush, none for a subscriber."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections import Counter

    from opentelemetry.trace import Span

    from steadcast.event import Batch
    from steadcast.wire import Ack

UNACKED: Final = 1_024
"""Flushes that are followed until they are acked; the oldest go first, counted."""

_Lane = tuple[str, str, str]
"""Stream, lane and epoch."""


class _Flush:
    """A flush that is to be acked; `acked` counts who has."""

    __slots__ = ("acked", "ended", "lane", "receivers", "span", "upto")

    def __init__(self, lane: _Lane, upto: int, receivers: int, span: Span) -> None:
        self.lane = lane
        self.upto = upto
        self.receivers = receivers
        self.span = span
        self.acked = 0
        self.ended = False


class Unacked:
    """Flushes that not everybody has acked yet, each with a span that ends when all have.

    Whoever acks a later flush of a lane has applied those before it: once one is acked by all, what is still
    missing of the older ones comes from subscribers that are gone. `flushes` = `acked` + `unacked` (given up,
    then or as the oldest of too many) + pending.
    """

    def __init__(self, counts: Counter[str]) -> None:
        """Follow none, and count in `counts`."""
        self._counts = counts
        self._order: deque[_Flush] = deque()  # bounded by UNACKED in `add`
        self._lanes: dict[_Lane, deque[_Flush]] = {}  # bounded by `_order`

    def __len__(self) -> int:
        """Tell how many are followed."""
        return sum(map(len, self._lanes.values()))

    def add(self, batch: Batch, receivers: int, span: Span) -> None:
        """Follow a flush; the oldest is given up where there are too many."""
        lane = (batch.stream, str(batch.lane), batch.epoch)
        flush = _Flush(lane, batch.upto, receivers, span)
        self._counts["flushes"] += 1
        self._lanes.setdefault(lane, deque()).append(flush)  # bounded by `_order`, which holds them too
        self._order.append(flush)
        while len(self._order) > UNACKED:
            oldest = self._order.popleft()
            if not oldest.ended:
                self._end(oldest)

    def ack(self, ack: Ack, before: int) -> None:
        """Count an ack for every flush that it is the first of its subscriber's to cover."""
        lane = self._lanes.get((ack.stream, str(ack.lane), ack.epoch))
        if lane is None:
            return
        complete = 0
        for number, flush in enumerate(lane, 1):
            if flush.upto > ack.offset:
                break
            if flush.upto > before:
                flush.acked += 1
                complete = number if flush.acked >= flush.receivers else complete
        for _ in range(complete):
            self._end(lane[0])

    def end(self) -> None:
        """Give up all."""
        while self._order:
            oldest = self._order.popleft()
            if not oldest.ended:
                self._end(oldest)

    def _end(self, flush: _Flush) -> None:
        """End the oldest flush of a lane."""
        self._counts["acked" if flush.acked >= flush.receivers else "unacked"] += 1
        flush.span.set_attribute("steadcast.acked", flush.acked)
        flush.span.end()
        flush.ended = True
        left = self._lanes[flush.lane]
        left.popleft()
        if not left:
            del self._lanes[flush.lane]
