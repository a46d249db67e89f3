"""The words of the house as values: events, positions, batches. All frozen, none with behaviour.

What there are thousands of is left out of the collection of garbage, which would look at each of them again
and again: they hold JSON values and each other, never in a circle.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import msgspec


class Lane(StrEnum):
    """One of a stream's two logs; an event's priority chooses it."""

    CRITICAL = "critical"
    NORMAL = "normal"


LANES: Final = (Lane.CRITICAL, Lane.NORMAL)
"""Both lanes, in the order in which they are read."""


class Position(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A place in a lane: `[epoch, offset]` on the wire."""

    epoch: str
    offset: int


class Event(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A CloudEvents 1.0 event plus `priority`.

    `data` is a JSON value. On the server it is a `msgspec.Raw`: the value's compact JSON,
    carried as bytes so that nothing decodes it on its way.
    `time` is RFC 3339.
    """

    id: str
    source: str
    type: str
    time: str
    data: Any
    priority: Lane = Lane.NORMAL
    subject: str | None = None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event at its offset in a lane.

    `kept` is when the log took it, in milliseconds of Unix time: only where `Engine.read` was asked for it.
    """

    offset: int
    event: Event
    kept: int | None = None


class Batch(msgspec.Struct, frozen=True):
    """Consecutive events of a lane.

    Honest: no event of the lane with an offset in (`after`, `upto`] is missing from it.
    """

    stream: str
    lane: Lane
    epoch: str
    after: int
    upto: int
    events: tuple[Entry, ...]


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What a publisher gets for an event: its lane and position, and whether it was there before."""

    id: str
    lane: Lane
    position: Position
    duplicate: bool
