"""What a publisher holds in memory: per stream in order, bounded by count and bytes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from steadcast.client.outgoing import Outgoing


class Buffer:
    """Events by stream, each stream oldest first, and those on their way. Not locked: its owner is.

    `away` is what was taken and is not yet settled; it counts towards the limits, so that putting it back
    never exceeds them.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.bytes = 0
        self.away: list[Outgoing] = []
        self._away_bytes = 0
        self._count = 0
        self._streams: dict[str, deque[Outgoing]] = {}

    def __len__(self) -> int:
        return self._count

    def add(self, item: Outgoing) -> None:
        """Add the youngest event."""
        self._streams.setdefault(item.stream, deque()).append(item)
        self._grown(item)

    def has_room(self, item: Outgoing) -> bool:
        """Tell whether one more event keeps the limits."""
        return (
            self._count + len(self.away) < self.max_events
            and self.bytes + self._away_bytes + len(item.body) <= self.max_bytes
        )

    def oldest(self) -> str | None:
        """Give the stamp of the oldest event that waits."""
        return self._streams[self._oldest_stream()][0].stamp if self._streams else None

    def send_batch(self, max_events: int, max_bytes: int, before: str | None = None) -> list[Outgoing]:
        """Take events of one stream, the one whose turn is oldest, and hold them as `away`.

        With `before`, a stamp, only what is older than that.
        """
        batch: list[Outgoing] = []
        if self._streams:
            items = self._streams[self._oldest_stream()]
            size = 0
            while items and len(batch) < max_events and (before is None or items[0].stamp < before):
                size += len(items[0].body) + 1
                if batch and size > max_bytes:
                    break
                batch.append(self._pop(items))
        return self._hold(batch)

    def send_oldest(self, count: int) -> list[Outgoing]:
        """Take the oldest events of all, oldest first, and hold them as `away`."""
        return self._hold([item for _ in range(min(count, self._count)) for item in self.take_oldest()])

    def settle(self, done: Collection[str]) -> int:
        """Let go of what was away and put back all but the stamps in `done`; give how many those were."""
        away, self.away, self._away_bytes = self.away, [], 0
        left = [item for item in away if item.stamp not in done]
        for item in reversed(left):
            self._streams.setdefault(item.stream, deque()).appendleft(item)
            self._grown(item)
        return len(away) - len(left)

    def take_oldest(self) -> list[Outgoing]:
        """Take the oldest event of all (a list of one, or of none)."""
        return [self._pop(self._streams[self._oldest_stream()])] if self._streams else []

    def evict_for(self, newcomer: Outgoing) -> Outgoing:
        """Give up the oldest normal event, be it the newcomer, or the oldest of all if all are critical."""
        normal = [item for each in self._streams.values() if (item := _first_normal(each))]
        if not newcomer.critical:
            normal.append(newcomer)
        if not normal:
            return next(iter(self.take_oldest()), newcomer)
        victim = min(normal, key=lambda item: item.stamp)
        if victim is not newcomer:
            self._streams[victim.stream].remove(victim)
            self._shrunk(victim)
        return victim

    def _hold(self, items: list[Outgoing]) -> list[Outgoing]:
        self.away = items
        self._away_bytes = sum(len(item.body) for item in items)
        return items

    def _oldest_stream(self) -> str:
        return min(self._streams, key=lambda stream: self._streams[stream][0].stamp)

    def _pop(self, items: deque[Outgoing]) -> Outgoing:
        item = items.popleft()
        self._shrunk(item)
        return item

    def _grown(self, item: Outgoing) -> None:
        self._count += 1
        self.bytes += len(item.body)

    def _shrunk(self, item: Outgoing) -> None:
        self._count -= 1
        self.bytes -= len(item.body)
        if not self._streams[item.stream]:
            del self._streams[item.stream]


def _first_normal(items: deque[Outgoing]) -> Outgoing | None:
    return next((item for item in items if not item.critical), None)
