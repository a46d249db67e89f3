"""The receiver's rule: a subscriber's side of one stream, both lanes, as a pure machine.

What comes in is told by method calls with `now` (monotonic seconds); what must be done goes out as effects,
in order. The shell drains the effects, runs the handler of each `Deliver` and reports `handled` or `failed`;
it re-arms one timer from `next_deadline()`.

The link to the server moves through `TRANSITIONS`; each lane keeps a cursor, the batches that wait for
their turn and at most one event that is being handled.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import msgspec

from steadcast.core.backoff import Backoff
from steadcast.core.effects import Deliver, Effect, SendAck, SendSubscribe, Told
from steadcast.core.receiving import ReceivingLane
from steadcast.errors import IllegalInput
from steadcast.event import LANES, Batch, Entry, Lane, Position
from steadcast.wire import Cursor, LaneAnswer, size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

ACK_EVENTS: Final = 64
ACK_BYTES: Final = 256 * 1024
ACK_DELAY: Final = 1.0
TAIL_DELAY: Final = 5.0
"""A head above the cursor with nothing arriving for so long is a gap."""
ANSWER_DELAY: Final = 10.0
"""A subscribe that has no answer for so long is sent again."""
ATTEMPTS: Final = 3
"""How often an event's handler may fail before the event is passed over."""


class Link(Enum):
    """The state of a subscription at its server."""

    OFFLINE = auto()
    ASKING = auto()
    FOLLOWING = auto()
    WAITING = auto()
    REFUSED = auto()
    CLOSED = auto()


class _In(Enum):
    CONNECTED = auto()
    DISCONNECTED = auto()
    ANSWERED = auto()
    PUT_OFF = auto()
    REFUSED = auto()
    ASK = auto()
    CLOSE = auto()


TRANSITIONS: Final[dict[tuple[Link, _In], Link]] = {
    (Link.OFFLINE, _In.CONNECTED): Link.ASKING,
    (Link.ASKING, _In.ANSWERED): Link.FOLLOWING,
    (Link.ASKING, _In.PUT_OFF): Link.WAITING,
    (Link.ASKING, _In.REFUSED): Link.REFUSED,
    (Link.ASKING, _In.ASK): Link.ASKING,
    (Link.FOLLOWING, _In.ASK): Link.ASKING,
    (Link.WAITING, _In.ASK): Link.ASKING,
    **{(link, _In.DISCONNECTED): Link.OFFLINE for link in Link if link is not Link.CLOSED},
    **{(link, _In.CLOSE): Link.CLOSED for link in Link},
}


class Counts(msgspec.Struct):
    """What happened so far, over both lanes; counted in events unless the name says otherwise.

    Nothing leaves uncounted: what was `received` is `applied`, `passed_over`, dropped for one of four
    reasons, or still `Receiver.pending`. Dropped are duplicates; strays, which fit nowhere (behind a gap,
    of another epoch, before the answer); what a disconnect, a reset or the end cut off; what found the
    inbox full.
    """

    received: int = 0
    applied: int = 0
    replayed: int = 0
    duplicates_dropped: int = 0
    gaps_repaired: int = 0
    lost: int = 0
    resets: int = 0
    passed_over: int = 0
    strays_dropped: int = 0
    cut_dropped: int = 0
    full_dropped: int = 0
    answers_dropped: int = 0
    acks: int = 0


class Receiver:
    """A subscriber's side of one stream: cursors, the receiver's rule, acks and repair."""

    def __init__(
        self,
        stream: str,
        *,
        start: object = "end",
        cursors: Mapping[Lane, Cursor] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """Begin offline; `start` is the protocol's `from`, `cursors` what was kept from before."""
        self.stream = stream
        self.link = Link.OFFLINE
        self.counts = Counts()
        self.behind: int | None = None
        self._start = start
        self._lanes = {lane: ReceivingLane(lane, (cursors or {}).get(lane)) for lane in LANES}
        self._due: float | None = None
        self._repairing = False
        self._tries = 0
        self._backoff = backoff or Backoff(base=1.0, cap=30.0)
        self._effects: list[Effect] = []

    # What can be asked

    @property
    def cursors(self) -> dict[Lane, Cursor]:
        """The cursors to keep and to resume from: of every lane that an answer or an event has set."""
        return {lane: state.cursor for lane, state in self._lanes.items() if state.cursor is not None}

    @property
    def pending(self) -> int:
        """How many events wait for their turn or are being handled."""
        return sum(state.pending for state in self._lanes.values())

    @property
    def replaying(self) -> bool:
        """Whether a lane is still behind the head that the last answer told."""
        return self.link is not Link.FOLLOWING or any(s.offset < s.replay_upto for s in self._lanes.values())

    def next_deadline(self) -> float | None:
        """Give the time at which `handle_timeout` is due, or None."""
        times = [
            self._due,
            *(s.ack_due for s in self._lanes.values()),
            *(s.tail_due for s in self._lanes.values()),
        ]
        return min((t for t in times if t is not None), default=None)

    # What comes in

    def connected(self, now: float) -> list[Effect]:
        """Note that the connect was accepted: the subscription is asked for."""
        self._move(_In.CONNECTED)
        for state in self._lanes.values():
            state.unacked = state.unacked_bytes = 0
        self._ask(now)
        return self._drain()

    def disconnected(self, now: float) -> list[Effect]:  # noqa: ARG002 - every input takes the time
        """Note that the connection is gone: what waits for its turn is dropped, it comes again."""
        if self.link is Link.CLOSED:
            return []
        self._move(_In.DISCONNECTED)
        self._due = None
        self._repairing = False
        for state in self._lanes.values():
            self.counts.cut_dropped += state.cut_inbox()
            # A reset that waits is told by the next answer: the old cursor is asked about again.
            state.reset = None
            state.was_reset = False
            state.ack_due = state.tail_due = state.tail = None
        return self._drain()

    def close(self) -> None:
        """End the subscription; an event whose handler is running is the last that moves a cursor."""
        self._move(_In.CLOSE)
        self._due = None
        for state in self._lanes.values():
            self.counts.cut_dropped += state.cut_turn()
            state.reset = state.ack_due = state.tail_due = None

    def answered(self, now: float, answers: Mapping[Lane, LaneAnswer]) -> list[Effect]:
        """Take the answer to `subscribe`; one that was not asked for is dropped and counted."""
        if self.link is not Link.ASKING:
            self.counts.answers_dropped += 1
            return []
        self._move(_In.ANSWERED)
        self._due = None
        self._tries = 0
        for lane, answer in answers.items():
            self._settle(self._lanes[lane], answer)
        known = [a.behind for a in answers.values()]
        self.behind = None if None in known else sum(n for n in known if n is not None)
        self.counts.gaps_repaired += self._repairing
        self._repairing = False
        for state in self._lanes.values():
            state.last_arrival = now
            state.tail = state.tail_due = None
            self._next_turn(now, state)
        return self._drain()

    def refused(
        self, now: float, *, code: str, temporary: bool, retry_after: float | None = None, jitter: float = 0.0
    ) -> list[Effect]:
        """Take a failed answer: a temporary one is asked again after a backoff, another is told."""
        if self.link is not Link.ASKING:
            self.counts.answers_dropped += 1
            return []
        if temporary:
            self._move(_In.PUT_OFF)
            self._tries += 1
            self._due = now + max(self._backoff.delay(self._tries, jitter), retry_after or 0.0)
        else:
            self._move(_In.REFUSED)
            self._due = None
            self._effects.append(Told(kind="refused", code=code))
        return self._drain()

    def received(self, now: float, batch: Batch) -> list[Effect]:
        """Take a batch; it is judged when its turn comes."""
        self.counts.received += len(batch.events)
        if self.link in {Link.CLOSED, Link.OFFLINE}:
            self.counts.strays_dropped += len(batch.events)
            return []
        state = self._lanes[batch.lane]
        state.last_arrival = now
        if state.full_for(batch):
            self.counts.full_dropped += len(batch.events)
            return []
        state.inbox.append(batch)
        state.inbox_events += len(batch.events)
        self._next_turn(now, state)
        return self._drain()

    def handled(self, now: float, lane: Lane) -> list[Effect]:
        """Note that the handler of the lane's event returned: the cursor moves."""
        state = self._in_hand(lane)
        self.counts.applied += 1
        return self._step(now, state)

    def failed(self, now: float, lane: Lane) -> list[Effect]:
        """Note that the handler raised: it is run again; after the third time it is passed over."""
        state = self._in_hand(lane)
        if state.reset or self.link is Link.CLOSED:
            return self._give_up(now, state)
        if state.attempt < ATTEMPTS:
            self._deliver(state)
            return self._drain()
        entry = state.turn[0]
        self.counts.passed_over += 1
        self._effects.append(Told(kind="passed_over", lane=lane, offset=entry.offset, id=entry.event.id))
        return self._step(now, state)

    def pinged(self, now: float, heads: Mapping[Lane, Position]) -> list[Effect]:
        """Take the heads that a `ping` told: another epoch, or a tail that never came, is asked about."""
        if self.link is not Link.FOLLOWING:
            return []
        for lane, head in heads.items():
            state = self._lanes[lane]
            if state.epoch not in {None, head.epoch}:
                self._ask_again(now)
            elif head.offset > state.offset:
                state.tail = head.offset
                if state.tail_due is None:
                    state.tail_due = now + TAIL_DELAY
        return self._drain() + self.handle_timeout(now)

    def handle_timeout(self, now: float) -> list[Effect]:
        """Do what is due at `now`: acks, a subscribe that is to be sent again, a lost tail."""
        if self._due is not None and self._due <= now:
            self._move(_In.ASK)
            self._ask(now)
        for state in self._lanes.values():
            if state.ack_due is not None and state.ack_due <= now:
                self._ack(state)
            if state.tail_due is not None and state.tail_due <= now:
                self._judge_tail(now, state)
        return self._drain()

    # The rule

    def _next_turn(self, now: float, state: ReceivingLane) -> None:
        while state.inbox and not state.turn:
            batch = state.inbox.popleft()
            state.inbox_events -= len(batch.events)
            self._judge(now, state, batch)

    def _judge(self, now: float, state: ReceivingLane, batch: Batch) -> None:
        cursor = state.cursor
        if cursor is None:
            self.counts.strays_dropped += len(batch.events)
        elif batch.epoch != cursor.epoch or batch.after > cursor.offset:
            self.counts.strays_dropped += len(batch.events)
            self._ask_again(now)
        elif batch.upto <= cursor.offset:
            self.counts.duplicates_dropped += len(batch.events)
            self._ack(state)
        else:
            fresh = deque(entry for entry in batch.events if entry.offset > cursor.offset)
            self.counts.duplicates_dropped += len(batch.events) - len(fresh)
            self._begin(now, state, fresh, batch.upto)

    def _begin(self, now: float, state: ReceivingLane, fresh: deque[Entry], upto: int) -> None:
        state.turn, state.turn_upto, state.attempt = fresh, upto, 0
        if fresh:
            self._deliver(state)
        else:
            self._pass(state, upto)
            self._owe_ack(now, state, 0, 0)

    def _deliver(self, state: ReceivingLane) -> None:
        entry = state.turn[0]
        state.attempt += 1
        epoch = state.cursor.epoch if state.cursor else ""
        self._effects.append(Deliver(state.lane, Position(epoch, entry.offset), entry, state.attempt))

    def _step(self, now: float, state: ReceivingLane) -> list[Effect]:
        """Move the cursor over the event in hand and go on with the next one."""
        entry = state.turn.popleft()
        state.attempt = 0
        if entry.offset <= state.replay_upto:
            self.counts.replayed += 1
        if state.cursor is not None:
            state.cursor = Cursor(state.cursor.epoch, entry.offset, entry.event.id)
        if state.turn:
            self._deliver(state)
        else:
            self._pass(state, state.turn_upto)
        self._owe_ack(now, state, 1, size_of(entry.event))
        self._finish_reset(state)
        self._next_turn(now, state)
        return self._drain()

    def _pass(self, state: ReceivingLane, upto: int) -> None:
        """Move the cursor to the end of a batch whose last offsets hold no event."""
        if state.cursor is not None and upto > state.cursor.offset:
            state.cursor = Cursor(state.cursor.epoch, upto)

    def _give_up(self, now: float, state: ReceivingLane) -> list[Effect]:
        """Drop the event in hand: its handler failed, and its log or the subscription is no more."""
        state.turn.popleft()
        self.counts.cut_dropped += 1
        self._finish_reset(state)
        self._next_turn(now, state)
        return self._drain()

    def _settle(self, state: ReceivingLane, answer: LaneAnswer) -> None:
        """Take one lane's answer: `resumed` never moves the cursor, within an epoch nothing moves it back."""
        told = Cursor(answer.cursor.epoch, answer.cursor.offset)
        state.reset = None
        if answer.status == "reset" and not state.is_late(answer):
            self.counts.cut_dropped += state.cut_turn()
            state.reset = answer
            self._finish_reset(state)
            return
        if state.cursor is None:
            state.cursor = told
        elif answer.status in {"trimmed", "reset"} and told.epoch == state.cursor.epoch:
            self._skip_loss(state, told, answer)
        state.replay_upto = answer.head.offset

    def _finish_reset(self, state: ReceivingLane) -> None:
        """Go on in the other log, once no event of the old one is in hand: clearing then clears them all."""
        if state.reset is None or state.turn:
            return
        answer, state.reset = state.reset, None
        state.was_reset = True
        self.counts.resets += 1
        self._effects.append(Told(kind="reset", lane=state.lane))
        state.cursor = Cursor(answer.cursor.epoch, answer.cursor.offset)
        state.replay_upto = answer.head.offset
        state.unacked = state.unacked_bytes = 0
        state.ack_due = None

    def _skip_loss(self, state: ReceivingLane, told: Cursor, answer: LaneAnswer) -> None:
        """Tell what is gone, then let the cursor pass it; what is in hand is done first, and isn't lost.

        The range is what the cursor will pass, not the answer's `lost`: that counts from the cursor that was
        sent, and more may have been applied since, or an earlier answer come late.
        """
        first, last = state.reach + 1, told.offset
        if first > last:
            return
        maybe = answer.maybe or answer.behind is None
        if not maybe:
            self.counts.lost += last - first + 1
        self._effects.append(Told(kind="trimmed", lane=state.lane, lost=(first, last), maybe=maybe))
        if state.turn:
            state.turn_upto = told.offset
        else:
            state.cursor = told

    # Asking and acking

    def _ask(self, now: float) -> None:
        self._due = now + ANSWER_DELAY
        self._effects.append(SendSubscribe(self.stream, self.cursors, self._start))

    def _ask_again(self, now: float) -> None:
        """Repair from the cursor, unless a subscribe is under way or was refused."""
        if self.link is Link.FOLLOWING:
            self._repairing = True
            self._move(_In.ASK)
            self._ask(now)

    def _owe_ack(self, now: float, state: ReceivingLane, events: int, size: int) -> None:
        state.unacked += events
        state.unacked_bytes += size
        if state.unacked >= ACK_EVENTS or state.unacked_bytes >= ACK_BYTES:
            self._ack(state)
        elif state.ack_due is None and self.link not in {Link.OFFLINE, Link.CLOSED}:
            state.ack_due = now + ACK_DELAY

    def _ack(self, state: ReceivingLane) -> None:
        state.unacked = state.unacked_bytes = 0
        state.ack_due = None
        if state.cursor is None or self.link not in {Link.ASKING, Link.FOLLOWING}:
            return
        self.counts.acks += 1
        self._effects.append(SendAck(self.stream, state.lane, state.cursor.epoch, state.cursor.offset))

    def _judge_tail(self, now: float, state: ReceivingLane) -> None:
        state.tail_due = None
        if state.tail is None or state.offset >= state.tail:
            state.tail = None
        elif state.busy or state.unacked or now < state.last_arrival + TAIL_DELAY:
            quiet = state.last_arrival + TAIL_DELAY
            state.tail_due = quiet if quiet > now else now + TAIL_DELAY
        else:
            state.tail = None
            self._ask_again(now)

    # The frame

    def _move(self, given: _In) -> None:
        target = TRANSITIONS.get((self.link, given))
        if target is None:
            raise IllegalInput(f"{given.name} while {self.link.name}", stream=self.stream)
        self.link = target

    def _in_hand(self, lane: Lane) -> ReceivingLane:
        state = self._lanes[lane]
        if not state.turn:
            raise IllegalInput(f"no event of the {lane} lane is being handled", stream=self.stream)
        return state

    def _drain(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects
