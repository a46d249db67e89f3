"""One stream of a subscriber: the real receiver, and the program that applies what it delivers."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from steadcast.core.cursor import Receiver
from steadcast.core.effects import Deliver, Effect, SendAck, SendSubscribe, Told
from steadcast.wire import Ack, Subscribe, check_from
from tests.sim.names import within

if TYPE_CHECKING:
    import asyncio

    from steadcast.errors import SteadcastError
    from steadcast.event import Batch, Lane
    from tests.sim.server import Link
    from tests.sim.subscriber import Subscriber


class Follow:
    """Stores its cursors together with what it applied, so that a crash loses neither."""

    def __init__(self, subscriber: Subscriber, stream: str) -> None:
        self.subscriber, self.stream = subscriber, stream
        self.world, self.rng = subscriber.world, subscriber.rng
        self.name = f"{subscriber.name}:{stream}"
        self.life = 0
        self.known: set[Lane] = set()
        self.timer: asyncio.TimerHandle | None = None
        self._effects: deque[Effect] = deque()
        self._doing = False
        self.receiver = Receiver(stream, start=subscriber.start)

    @property
    def now(self) -> float:
        return self.subscriber.now

    def note(self, kind: str, lane: Lane | None, *rest: Any) -> None:
        self.world.record.add(kind, self.name, within(self.stream, lane), *rest)

    # Its lives

    def connected(self) -> None:
        self.do(self.receiver.connected(self.now))

    def disconnected(self) -> None:
        self.do(self.receiver.disconnected(self.now))

    def renew(self) -> None:
        """Go on as another receiver that has nothing but the kept cursors."""
        self.counted()
        self.life += 1
        self._effects.clear()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.receiver = Receiver(self.stream, start=self.subscriber.start, cursors=self.receiver.cursors)

    def leave(self, back_after: float) -> None:
        """Unsubscribe, keep the connection, and subscribe on it again later."""
        link = self.subscriber.link
        self.receiver.close()
        self.renew()
        if link is None:
            return
        link.up(link.server.unsubscribe, link, self.stream)
        self.world.loop.call_later(back_after, self._come_back, link, self.life)

    def _come_back(self, link: Link, life: int) -> None:
        if self.subscriber.link is link and self.life == life:
            self.connected()

    def counted(self) -> None:
        """Write down what became of what this receiver was given."""
        c = self.receiver.counts
        dropped = c.passed_over + c.duplicates_dropped + c.strays_dropped + c.cut_dropped + c.full_dropped
        name = f"{self.name} life {self.life}"
        self.world.record.add("buffer", name, c.received, self.receiver.pending, c.applied, dropped)

    # What comes in

    def received(self, batch: Batch) -> None:
        self.note("arrived", batch.lane, len(batch.events))
        self.do(self.receiver.received(self.now, batch))

    def answered(self, answers: Any) -> None:
        counted = self.receiver.counts.answers_dropped
        effects = self.receiver.answered(self.now, answers)
        if self.receiver.counts.answers_dropped == counted:
            for lane, answer in answers.items():
                if lane not in self.known:
                    self.known.add(lane)
                    self.note("began", lane, answer.cursor.epoch, answer.cursor.offset)
        self.do(effects)

    def refused(self, error: SteadcastError) -> None:
        again = self.receiver.refused(
            self.now,
            code=error.code,
            temporary=error.temporary,
            retry_after=error.retry_after,
            jitter=self.rng.random(),
        )
        self.do(again)

    def pinged(self, heads: Any) -> None:
        self.do(self.receiver.pinged(self.now, heads))

    # What goes out

    def do(self, effects: list[Effect]) -> None:
        """Do what the receiver wants done, in order, and what that leads to."""
        self._effects.extend(effects)
        if self._doing:
            return
        self._doing = True
        try:
            while self._effects:
                self._do(self._effects.popleft())
        finally:
            self._doing = False
        self.arm()

    def _do(self, effect: Effect) -> None:
        link = self.subscriber.link
        match effect:
            case Deliver():
                self.handle(effect)
            case Told():
                self.tell(effect)
            case SendSubscribe(stream, cursors, start) if link is not None:
                request = Subscribe(stream, dict(cursors), check_from(start))
                link.up(link.server.subscribe, link, request, self)
            case SendAck(stream, lane, epoch, offset) if link is not None:
                self.note("confirmed", lane, epoch, offset)
                link.up(link.acked, Ack(stream, lane, epoch, offset))

    def arm(self) -> None:
        """Have a timer that is not later than what is due; one that comes too early does no harm."""
        due = self.receiver.next_deadline()
        if due is None:
            return
        when = due - self.subscriber.skew
        if self.timer is not None:
            if self.timer.when() <= when:
                return
            self.timer.cancel()
        self.timer = self.world.loop.call_at(when, self._timeout, self.life, due)

    def _timeout(self, life: int, due: float) -> None:
        if life == self.life:
            self.timer = None
            # Not before it was due, by a last digit: it would be due again, for ever.
            self.do(self.receiver.handle_timeout(max(self.now, due)))

    def handle(self, delivery: Deliver) -> None:
        pace = self.subscriber.pace
        took = self.rng.uniform(0, pace) if pace and self.rng.random() < 0.3 else 0.0
        at = max(self.world.loop.now + took, self.subscriber.asleep_until)
        if at <= self.world.loop.now:
            self.done(delivery, self.life)
        else:
            self.world.loop.call_at(at, self.done, delivery, self.life)

    def done(self, delivery: Deliver, life: int) -> None:
        if life != self.life:
            return
        lane, position = delivery.lane, delivery.position
        if self.rng.random() < self.subscriber.failing:
            self.do(self.receiver.failed(self.now, lane))
            return
        effects = self.receiver.handled(self.now, lane)
        name = within(self.stream, delivery.entry.event.id)
        self.note("applied", lane, position.epoch, position.offset, name)
        self.do(effects)

    def tell(self, told: Told) -> None:
        lane = told.lane
        if lane is None:
            self.world.record.add("raised", f"{self.name} was refused for good: {told.code}")
        elif told.kind == "trimmed" and told.lost is not None:
            self.note("lost", lane, *told.lost, told.maybe)
        elif told.kind == "reset":
            cursor = self.receiver.cursors[lane]
            self.note("reset", lane, cursor.epoch, cursor.offset)
        elif told.kind == "passed_over":
            name = within(self.stream, told.id)
            self.note("passed_over", lane, self.receiver.cursors[lane].epoch, told.offset, name)
