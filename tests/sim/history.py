"""What was seen from outside, and whether it kept the promises P1 to P5 and P7."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

Lane = str
Place = tuple[str, Lane, int]


@dataclass
class Seen:
    """What one subscriber saw, in order: `start`, `applied`, `trimmed`, `reset`, `passed_over` entries."""

    name: str
    entries: list[tuple[Any, ...]] = field(default_factory=list)


@dataclass
class History:
    """A run from outside: what was acked, what each log held, what each subscriber saw."""

    logs: dict[str, dict[Lane, dict[int, str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    receipts: list[tuple[str, Place, bool]] = field(default_factory=list)
    subscribers: dict[str, Seen] = field(default_factory=dict)
    heads: dict[Lane, int] = field(default_factory=dict)
    final_epoch: str = ""
    windows: list[tuple[str, int]] = field(default_factory=list)
    window_limit: int = 0
    faults: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    undelivered: dict[str, str] = field(default_factory=dict)


@dataclass
class Track:
    """Where a subscriber stands in a lane, and which ranges it was told to be lost."""

    epoch: str
    at: int
    told: list[tuple[int, int]] = field(default_factory=list)

    def was_told(self, offset: int) -> bool:
        return any(first <= offset <= last for first, last in self.told)


class Checker:
    """Reads a history and lists every violation in words."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.violations: list[str] = []

    def check(self) -> list[str]:
        self._receipts()
        for seen in self.history.subscribers.values():
            self._subscriber(seen)
        self._windows()
        return self.violations

    def _say(self, text: str) -> None:
        self.violations.append(text)

    def _receipts(self) -> None:
        """P1 and P7: what was acked is in the log, where it was told to be, once."""
        places: dict[tuple[str, str], Place] = {}
        for event_id, place, _ in self.history.receipts:
            epoch, lane, offset = place
            kept = self.history.logs[epoch][lane].get(offset)
            if kept != event_id:
                self._say(f"P1: {event_id} was acked at {place}, where {kept} is kept")
            first = places.setdefault((epoch, event_id), place)
            if first != place:
                self._say(f"P7: {event_id} was acked at {first} and at {place}")
        for epoch, lanes in self.history.logs.items():
            ids = [event_id for lane in lanes.values() for event_id in lane.values()]
            if len(ids) != len(set(ids)):
                self._say(f"P7: an id stands twice in the log {epoch}")

    def _subscriber(self, seen: Seen) -> None:
        """P2 and P3: each lane in order, each event once, nothing missing that wasn't told."""
        lanes: dict[Lane, Track] = {}
        for kind, lane, *rest in seen.entries:
            if kind in {"start", "reset"}:
                lanes[lane] = Track(rest[0], rest[1])
            elif kind == "trimmed":
                lanes[lane].told.append((rest[0], rest[1]))
            else:
                self._moved(f"{seen.name} {lane}", kind, lanes[lane], self.history.logs[rest[0]][lane], *rest)
        if seen.name in self.history.undelivered:
            self._say(f"P2: {seen.name} {self.history.undelivered[seen.name]}")
        for lane, track in lanes.items():
            self._reached_the_head(f"{seen.name} {lane}", lane, track)

    def _moved(self, who: str, kind: str, track: Track, log: dict[int, str], *rest: Any) -> None:
        epoch, offset, event_id = rest
        if epoch != track.epoch:
            self._say(f"P3: {who}: {kind} {offset} of {epoch} while in {track.epoch}")
            return
        if offset <= track.at:
            self._say(f"P2: {who}: {kind} {offset} again or too late, it stood at {track.at}")
        if track.was_told(offset):
            self._say(f"P3: {who}: {kind} {offset}, which was told to be lost")
        if missing := [o for o in log if track.at < o < offset and not track.was_told(o)]:
            self._say(f"P2: {who}: {missing[:5]} missing before {offset}")
        if log.get(offset) != event_id:
            self._say(f"P2: {who}: {event_id} at {offset} is not what the log holds")
        track.at = max(track.at, offset)

    def _reached_the_head(self, who: str, lane: Lane, track: Track) -> None:
        final, head = self.history.final_epoch, self.history.heads.get(lane, 0)
        if track.epoch != final:
            self._say(f"P2: {who}: ended in {track.epoch}, the log is {final}")
        elif left := [o for o in range(track.at + 1, head + 1) if not track.was_told(o)]:
            self._say(f"P2: {who}: ended at {track.at}, {left[:5]} up to the head {head} are missing")

    def _windows(self) -> None:
        """P4 and P5: what is unacked is bounded."""
        for name, unacked in self.history.windows:
            if unacked > self.history.window_limit:
                self._say(f"P5: {name} had {unacked} unacked events, {self.history.window_limit} are allowed")
