"""The receiver against a model: an honest server, a log that is trimmed and recreated, an unkind network.

The program is a list of small steps that hypothesis makes up; after each of them the history is judged.
At the end the world behaves, and the receiver must come to the head.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from hypothesis import given, note
from hypothesis import strategies as st

from steadcast.core.answer import answer_cursor, answer_new
from steadcast.core.cursor import ANSWER_DELAY, Link, Receiver
from steadcast.core.effects import Deliver, Effect, SendAck, SendSubscribe, Told
from steadcast.event import LANES, Batch, Entry, Event, Lane, Position

if TYPE_CHECKING:
    from steadcast.wire import Cursor, LaneAnswer


class Log:
    """One lane in one epoch."""

    def __init__(self) -> None:
        self.events: dict[int, Entry] = {}
        self.head = 0
        self.trimmed = 0

    def append(self, lane: Lane, epoch: str, step: int) -> None:
        self.head += step
        event = Event(f"{epoch}-{lane}-{self.head}", "test", "t", "2026-01-01T00:00:00Z", None, lane)
        self.events[self.head] = Entry(self.head, event)

    def page(self, after: int, limit: int) -> tuple[int, tuple[Entry, ...]]:
        """Give an honest page behind `after`: where it ends, and what is in it."""
        entries = [e for offset, e in sorted(self.events.items()) if offset > after]
        page = tuple(entries[:limit])
        return (page[-1].offset if len(entries) > limit else self.head), page


class Server:
    """An honest server with one connection."""

    def __init__(self, *, dense: bool) -> None:
        self.dense = dense
        self.number = 1
        self.logs = {lane: Log() for lane in LANES}
        self.every: dict[tuple[str, Lane], Log] = {("e1", lane): log for lane, log in self.logs.items()}
        self.sent: dict[Lane, int] | None = None
        self.session_epoch = ""

    @property
    def epoch(self) -> str:
        return f"e{self.number}"

    def recreate(self) -> None:
        self.number += 1
        self.logs = {lane: Log() for lane in LANES}
        self.every |= {(self.epoch, lane): log for lane, log in self.logs.items()}

    def trim(self, lane: Lane, share: int) -> None:
        log = self.logs[lane]
        log.trimmed += (log.head - log.trimmed) * share // 7
        # The model keeps trimmed events in `every`, to know what the receiver must have been told about.

    def answer(self, asked: SendSubscribe) -> dict[Lane, LaneAnswer]:
        answers = {lane: self._answer_lane(lane, asked) for lane in LANES}
        self.session_epoch = self.epoch
        self.sent = {lane: answer.cursor.offset for lane, answer in answers.items()}
        return answers

    def _answer_lane(self, lane: Lane, asked: SendSubscribe) -> LaneAnswer:
        log, cursor = self.logs[lane], asked.cursors.get(lane)
        if cursor is None:
            begin = {"start": log.trimmed, "end": log.head}.get(
                str(asked.start), max(log.trimmed, log.head - 2)
            )
            return answer_new(begin, epoch=self.epoch, head=log.head, dense=self.dense)
        here = log.events.get(cursor.offset)
        return answer_cursor(
            cursor,
            epoch=self.epoch,
            head=log.head,
            trimmed=log.trimmed,
            retained_id=here.event.id if here else None,
            dense=self.dense,
        )

    def next_batch(self, lane: Lane, limit: int) -> Batch | None:
        """Give what the session sends next; where retention overtook it, it begins at the trim mark."""
        if self.sent is None:
            return None
        log = self.logs[lane]
        if self.session_epoch != self.epoch:
            self.session_epoch, self.sent = self.epoch, dict.fromkeys(LANES, 0)
        after = max(self.sent[lane], log.trimmed)
        upto, page = log.page(after, limit)
        if upto <= after:
            return None
        self.sent[lane] = upto
        return Batch("s", lane, self.epoch, after, upto, page)

    def old_batch(self, lane: Lane, back: int, limit: int) -> Batch | None:
        """Give a batch that begins earlier than need be, for overlaps."""
        if self.sent is None or self.session_epoch != self.epoch:
            return None
        log = self.logs[lane]
        after = max(log.trimmed, self.sent[lane] - back)
        upto, page = log.page(after, limit)
        return Batch("s", lane, self.epoch, after, upto, page) if upto > after else None


class Segment:
    """What happened to a lane since its cursor was set by an answer, or set anew by a reset."""

    def __init__(self, cursor: Cursor | None) -> None:
        self.cursor = cursor
        self.done: set[int] = set()
        self.last_done = -1
        self.lost: set[int] = set()
        self.acked = -1


class World:
    """The receiver in its world; every step ends with a judgement."""

    def __init__(self, start: str, *, dense: bool) -> None:
        self.now = 0.0
        self.server = Server(dense=dense)
        self.receiver = Receiver("s", start={"last": 2} if start == "last" else start)
        self.down: deque[Any] = deque()
        self.up: deque[Effect] = deque()
        self.answers: list[Any] = []
        self.hands: dict[Lane, Deliver] = {}
        self.segments = {lane: Segment(None) for lane in LANES}
        self.asked_at: float | None = None
        self.given = 0
        self.applied = self.passed_over = self.told_lost = self.resets = 0
        self.step = 2 - dense

    # Steps

    def rest(self, _lane: Lane, _n: int) -> None:
        """Do nothing: what a step shrinks to."""

    def publish(self, lane: Lane, n: int) -> None:
        for index in range(n + 1):
            self.server.logs[lane].append(lane, self.server.epoch, 1 + (index % self.step))

    def serve(self, _lane: Lane, _n: int) -> None:
        if not self.up:
            return
        match self.up.popleft():
            case SendSubscribe() as asked:
                self.down.append(("answer", self.server.answer(asked)))

    def put_off(self, _lane: Lane, n: int) -> None:
        if self.up and isinstance(self.up[0], SendSubscribe):
            self.up.popleft()
            self.down.append(("refused", float(n)))

    def send(self, lane: Lane, n: int) -> None:
        self._send(self.server.next_batch(lane, 1 + n))

    def resend(self, lane: Lane, n: int) -> None:
        self._send(self.server.old_batch(lane, 1 + n, 1 + n % 3))

    def _send(self, batch: Batch | None) -> None:
        if batch is not None:
            self.down.append(("batch", batch))

    def ping(self, _lane: Lane, _n: int) -> None:
        if self.receiver.link is not Link.OFFLINE:
            heads = {lane: Position(self.server.epoch, log.head) for lane, log in self.server.logs.items()}
            self.down.append(("ping", heads))

    def deliver(self, _lane: Lane, _n: int) -> None:
        if self.down:
            self._give(self.down.popleft())

    def drop(self, _lane: Lane, _n: int) -> None:
        if self.down:
            self.down.popleft()

    def double(self, _lane: Lane, _n: int) -> None:
        if self.down:
            self._give(self.down[0])

    def delay(self, _lane: Lane, n: int) -> None:
        self.down.rotate(-n)

    def answer_again(self, _lane: Lane, n: int) -> None:
        """Let an answer of this connection come once more, late."""
        if self.answers:
            self._give(self.answers[n % len(self.answers)])

    def finish(self, lane: Lane, _n: int) -> None:
        hand = self.hands.pop(lane, None)
        if hand is None:
            return
        before = self.receiver.counts.applied
        effects = self.receiver.handled(self.now, lane)
        self._note_done(hand, self.receiver.counts.applied > before)
        self._take(effects)

    def fail(self, lane: Lane, n: int) -> None:
        for _ in range(1 + n % 4):
            if self.hands.pop(lane, None) is not None:
                self._take(self.receiver.failed(self.now, lane))

    def connect(self, _lane: Lane, _n: int) -> None:
        if self.receiver.link is Link.OFFLINE:
            self._take(self.receiver.connected(self.now))

    def cut(self, _lane: Lane, _n: int) -> None:
        self.down.clear()
        self.up.clear()
        self.answers.clear()
        self.server.sent = None
        self.asked_at = None
        self._take(self.receiver.disconnected(self.now))

    def wait(self, _lane: Lane, n: int) -> None:
        self._wait_until(self.now + (0.1, 0.5, 1.0, 2.0, 5.0, 7.0, 10.0, 31.0)[n])

    def trim(self, lane: Lane, n: int) -> None:
        self.server.trim(lane, n)

    def recreate(self, _lane: Lane, n: int) -> None:
        if n > 4:  # rarely: most of the rule is about life within an epoch
            self.server.recreate()

    # What the steps are made of

    def _wait_until(self, end: float) -> None:
        for _ in range(100):
            due = self.receiver.next_deadline()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self._take(self.receiver.handle_timeout(self.now))
        else:
            raise AssertionError("the receiver asks for timer after timer without getting anywhere")
        self.now = end

    def _give(self, message: Any) -> None:
        match message:
            case ("answer", answers):
                self.answers.append(message)
                self._end_asking()
                self._take(self.receiver.answered(self.now, answers))
            case ("refused", retry_after):
                self._end_asking()
                self._take(
                    self.receiver.refused(self.now, code="away", temporary=True, retry_after=retry_after)
                )
            case ("batch", batch):
                self.given += len(batch.events)
                self._take(self.receiver.received(self.now, batch))
            case ("ping", heads):
                self._take(self.receiver.pinged(self.now, heads))

    def _end_asking(self) -> None:
        if self.receiver.link is Link.ASKING:
            self.asked_at = None

    def _take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Deliver():
                    assert effect.lane not in self.hands, "two events of a lane are being handled at once"
                    self.hands[effect.lane] = effect
                case SendSubscribe():
                    self._judge_subscribe(effect)
                case SendAck():
                    self._judge_ack(effect)
                case Told():
                    self._note_told(effect)
        self.judge()

    # Judgement

    def _note_done(self, hand: Deliver, applied: bool) -> None:
        segment = self.segments[hand.lane]
        if not applied:
            return
        self.applied += 1
        offset = hand.position.offset
        assert segment.cursor is not None
        assert hand.position.epoch == segment.cursor.epoch
        assert offset > segment.last_done, "out of order, or applied twice"
        assert offset not in segment.lost, "applied although it was told to be lost"
        segment.done.add(offset)
        segment.last_done = offset

    def _note_told(self, told: Told) -> None:
        assert told.lane is not None
        segment = self.segments[told.lane]
        match told.kind:
            case "reset":
                self.resets += 1
                assert told.lane not in self.hands, (
                    "a lane is cleared while one of its events is being handled"
                )
                self.segments[told.lane] = Segment(None)
            case "trimmed":
                assert told.lost is not None
                span = set(range(told.lost[0], told.lost[1] + 1))
                assert span, "an empty loss is told"
                assert not span & segment.done, "told to be lost although it was applied"
                assert not span & segment.lost, "the same loss is told twice"
                segment.lost |= span
                self.told_lost += 0 if told.maybe else len(span)
            case "passed_over":
                assert told.offset is not None
                self.passed_over += 1
                segment.done.add(told.offset)
                segment.last_done = told.offset

    def _judge_subscribe(self, asked: SendSubscribe) -> None:
        waited = self.asked_at is None or self.now >= self.asked_at + ANSWER_DELAY
        assert waited, "two subscribes are under way"
        assert asked.cursors == self.receiver.cursors, "both lanes' cursors are always sent"
        self.asked_at = self.now
        self.up.append(asked)

    def _judge_ack(self, ack: SendAck) -> None:
        segment, cursor = self.segments[ack.lane], self.receiver.cursors[ack.lane]
        assert (ack.epoch, ack.offset) == (cursor.epoch, cursor.offset), "an ack that isn't the cursor"
        if segment.cursor is not None and segment.cursor.epoch == ack.epoch:
            assert ack.offset >= segment.acked, "acks go back"
            segment.acked = ack.offset

    def judge(self) -> None:
        for lane, cursor in self.receiver.cursors.items():
            self._judge_cursor(lane, cursor)
        counts = self.receiver.counts
        assert counts.applied == self.applied
        assert counts.passed_over == self.passed_over
        assert counts.lost == self.told_lost
        dropped = counts.duplicates_dropped + counts.strays_dropped + counts.cut_dropped + counts.full_dropped
        assert counts.received == self.given
        assert counts.received == counts.applied + counts.passed_over + dropped + self.receiver.pending

    def _judge_cursor(self, lane: Lane, cursor: Cursor) -> None:
        segment = self.segments[lane]
        if segment.cursor is not None:
            assert cursor.epoch == segment.cursor.epoch, "another epoch without a told reset"
            assert cursor.offset >= segment.cursor.offset, "the cursor went back"
            log = self.server.every[cursor.epoch, lane]
            passed = {o for o in log.events if segment.cursor.offset < o <= cursor.offset}
            assert passed <= segment.done | segment.lost, "skipped without a word"
        segment.cursor = cursor

    # The end: everything behaves

    def settle(self) -> None:
        self.up.clear()
        self.connect(Lane.NORMAL, 0)
        for _ in range(40):
            self._drain()
            if self._at_head():
                return
            self._wait_until(self.now + 30)
            self._drain()
            self.ping(Lane.NORMAL, 0)
        raise AssertionError("the receiver never came to the head")

    def _drain(self) -> None:
        for _ in range(1_000):
            if not (self.up or self.down or self.hands):
                for lane in LANES:
                    self.send(lane, 2)
            if self.up:
                self.serve(Lane.NORMAL, 0)
            elif self.down:
                self.deliver(Lane.NORMAL, 0)
            elif self.hands:
                self.finish(next(iter(self.hands)), 0)
            else:
                return
        raise AssertionError("the receiver and an honest server talk without end")

    def _at_head(self) -> bool:
        cursors, logs = self.receiver.cursors, self.server.logs
        return all(
            lane in cursors
            and (cursors[lane].epoch, cursors[lane].offset) == (self.server.epoch, logs[lane].head)
            for lane in LANES
        )


OFTEN = ["publish", "serve", "send", "deliver", "finish", "connect"]
SELDOM = ["resend", "ping", "drop", "double", "delay", "answer_again", "put_off"]
SELDOM += ["fail", "cut", "wait", "trim", "recreate"]
MENU = ["rest", *OFTEN * 3, *SELDOM]


def spell(program: bytes) -> list[tuple[str, Lane, int]]:
    """Read two bytes as one step: bytes are drawn and shrunk much faster than lists of tuples."""
    pairs = zip(program[::2], program[1::2], strict=False)
    return [(MENU[first % len(MENU)], LANES[second & 1], second >> 1 & 7) for first, second in pairs]


def run(program: list[tuple[str, Lane, int]], start: str, *, dense: bool) -> World:
    world = World(start, dense=dense)
    for name, lane, n in program:
        getattr(world, name)(lane, n)
    world.settle()
    return world


@given(st.binary(min_size=160, max_size=200), st.sampled_from(["start", "end", "last"]), st.booleans())
def test_whatever_happens_each_event_is_applied_once_in_order_or_told_and_the_head_is_reached(
    program: bytes, start: str, dense: bool
) -> None:
    steps = spell(program)
    note(" ".join(f"{name}({lane[0]},{n})" for name, lane, n in steps if name != "rest"))
    run(steps, start, dense=dense)
