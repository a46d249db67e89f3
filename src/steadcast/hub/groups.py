"""The groups: which streams are followed, and which flows stand ahead of their group."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from steadcast.core.session import Flow, Group
from steadcast.event import LANES, Lane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from steadcast.engines.base import Description


class Groups:
    """A group for each lane of each stream that somebody holds."""

    def __init__(self) -> None:
        """Begin with none."""
        self._groups: dict[tuple[str, Lane], Group] = {}
        self._waiting: dict[Group, dict[Flow, None]] = {}
        self._holds: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(list(self._groups.values()))

    def get(self, stream: str, lane: Lane) -> Group | None:
        """Give a lane's group, or None where nobody holds its stream."""
        return self._groups.get((stream, lane))

    def of(self, flow: Flow) -> Group:
        """Give the group that a flow is to join: its session holds the stream."""
        return self._groups[flow.session.stream, flow.lane]

    def hold(self, stream: str) -> list[Group]:
        """Keep the stream's groups; new ones follow the watch from here on, before their head is read."""
        self._holds[stream] += 1
        for lane in LANES:
            if (stream, lane) not in self._groups:
                group = self._groups[stream, lane] = Group(stream, lane, "", 0)
                self._waiting[group] = {}
        return [self._groups[stream, lane] for lane in LANES]

    def release(self, stream: str) -> None:
        """Undo one `hold`; with the last one the groups go."""
        self._holds[stream] -= 1
        if self._holds[stream]:
            return
        del self._holds[stream]
        for lane in LANES:
            del self._waiting[self._groups.pop((stream, lane))]

    def wait(self, flow: Flow) -> None:
        """Let a flow wait that stands ahead of its group."""
        self._waiting[self.of(flow)][flow] = None

    def forget(self, flow: Flow) -> None:
        """Let a flow that is over wait no longer."""
        self._waiting[self.of(flow)].pop(flow, None)

    def woken(self, group: Group) -> list[Flow]:
        """Take the flows that waited for the group to move."""
        waiting, self._waiting[group] = self._waiting[group], {}
        return list(waiting)


def raise_idle(group: Group, description: Description) -> None:
    """Set the position of a group that nobody shares yet to the head that the engine told."""
    head = description.streams[group.stream][group.lane].head
    if group.epoch == "" or (not group.flows and group.epoch == description.epoch and head > group.position):
        group.epoch, group.position = description.epoch, head
