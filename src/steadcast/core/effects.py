"""What a receiver wants done: values that its shell drains, in order."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from steadcast.event import Entry, Lane, Position  # noqa: TC001 - msgspec reads the annotations at run time
from steadcast.wire import Cursor  # noqa: TC001 - msgspec reads the annotations at run time


class SendSubscribe(msgspec.Struct, frozen=True):
    """Send `subscribe` with these cursors; `start` is the payload's `from`."""

    stream: str
    cursors: dict[Lane, Cursor]
    start: object


class SendAck(msgspec.Struct, frozen=True):
    """Send a cumulative `ack`."""

    stream: str
    lane: Lane
    epoch: str
    offset: int


class Deliver(msgspec.Struct, frozen=True):
    """Run the handler for this event; `attempt` counts from 1."""

    lane: Lane
    position: Position
    entry: Entry
    attempt: int


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the user of the subscription must learn.

    `trimmed`: the offsets `lost` (first, last) are gone, surely or `maybe`. `reset`: the log is another one;
    what was shown of the lane is to be cleared. `passed_over`: the event at `offset` failed in its handler
    three times. `refused`: the server refuses the subscription for good (`code`).
    """

    kind: Literal["trimmed", "reset", "passed_over", "refused"]
    lane: Lane | None = None
    lost: tuple[int, int] | None = None
    maybe: bool = False
    offset: int | None = None
    id: str | None = None
    code: str | None = None


Effect: TypeAlias = SendSubscribe | SendAck | Deliver | Told
