"""One lane at the receiver: the numbers and buffers that the receiver's rule works on."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from steadcast.event import Batch, Entry, Lane
    from steadcast.wire import Cursor, LaneAnswer

INBOX_EVENTS: Final = 4_096
"""More waiting events than this in a lane are dropped: the chain then shows the gap, and it is repaired."""


class ReceivingLane:
    """One lane: its cursor, what waits for its turn, what is being handled, what is not yet acked."""

    def __init__(self, lane: Lane, cursor: Cursor | None) -> None:
        """Begin behind a kept cursor, or without one."""
        self.lane = lane
        self.cursor = cursor
        self.inbox: deque[Batch] = deque()  # bounded by INBOX_EVENTS, see full_for
        self.inbox_events = 0
        self.turn: deque[Entry] = deque()  # bounded by one batch
        self.turn_upto = 0
        self.attempt = 0
        self.reset: LaneAnswer | None = None
        self.was_reset = False  # on this connection
        self.unacked = 0
        self.unacked_bytes = 0
        self.ack_due: float | None = None
        self.replay_upto = 0
        self.tail: int | None = None
        self.tail_due: float | None = None
        self.last_arrival = float("-inf")

    @property
    def offset(self) -> int:
        """The offset of the cursor, 0 where there is none yet."""
        return self.cursor.offset if self.cursor else 0

    @property
    def busy(self) -> bool:
        """Whether anything waits or is being handled."""
        return bool(self.turn or self.inbox)

    @property
    def epoch(self) -> str | None:
        """The epoch that is followed: that of a reset, as soon as it is known."""
        return self.reset.cursor.epoch if self.reset else self.cursor.epoch if self.cursor else None

    @property
    def reach(self) -> int:
        """The offset up to which everything is applied or in hand."""
        return self.turn_upto if self.turn else self.offset

    @property
    def pending(self) -> int:
        """How many events wait or are being handled."""
        return len(self.turn) + self.inbox_events

    def is_late(self, answer: LaneAnswer) -> bool:
        """Tell whether a reset answers an older subscribe: this connection has led into that log already.

        A log isn't exchanged under an epoch while its server runs: a second reset into it is no news.
        """
        led = self.was_reset and self.cursor is not None and self.cursor.epoch == answer.cursor.epoch
        return answer.status == "reset" and led

    def full_for(self, batch: Batch) -> bool:
        """Tell whether a batch finds the inbox full; a batch without events takes a place like any other."""
        return (
            bool(self.inbox)
            and max(self.inbox_events + len(batch.events), len(self.inbox) + 1) > INBOX_EVENTS
        )

    def cut_inbox(self) -> int:
        """Drop what waits, and tell how many events that were."""
        dropped, self.inbox_events = self.inbox_events, 0
        self.inbox.clear()
        return dropped

    def cut_turn(self) -> int:
        """Drop what waits and the batch in hand but for its first event, whose handler is running."""
        dropped = self.cut_inbox()
        while len(self.turn) > 1:
            self.turn.pop()
            dropped += 1
        if self.turn:
            self.turn_upto = self.turn[0].offset
        return dropped
