"""What stands in front of an engine that fails: the circuit breaker, the retry queue and its processor.

Three ways lead through it. `append_once` is for publishes from outside: through the breaker, without the
queue. `publish` waits through the retries. `broadcast` hands over and returns at once; handed over is not
yet accepted.

Order is append order. A retry comes later than what was published meanwhile, and what overflows goes round
by the queue: each may change a publisher's order. The event itself never changes: a retry is the same event,
with its id, source, type and time, so an append whose answer was lost is answered as a duplicate.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from steadcast.core.breaker import Breaker, State
from steadcast.core.retry import Retry, RetryQueue
from steadcast.errors import (
    Abandoned,
    BreakerOpen,
    Draining,
    EngineRefused,
    EngineUnavailable,
    QueueFull,
    SteadcastError,
    Unavailable,
)
from steadcast.event import Event, Lane
from steadcast.plain_log import plain_log
from steadcast.socketio.dead import STREAM as DEAD_STREAM
from steadcast.socketio.deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from steadcast.core.retry import Abandon, Effect
    from steadcast.event import Receipt
    from steadcast.socketio.dead import DeadEvents

T = TypeVar("T")

log = plain_log("steadcast.broadcaster")

RETRY_INTERVAL: Final = 2.0
APPEND_TIMEOUT: Final = 5.0
CLOSE_LIMIT: Final = 5.0
INBOX_LIMIT: Final = 1_000
"""Events that were handed over and are still to be tried for the first time; more go to the retry queue."""
TOGETHER: Final = 256
"""Events of one stream that are tried in one append."""


@dataclass(slots=True, eq=False)
class Held:
    """A publish on its way: what it holds, since when, how often it was tried, and who waits for it."""

    stream: str
    events: tuple[Event, ...]
    since: float
    attempts: int = 0
    error: SteadcastError | None = None
    waiter: asyncio.Future[list[Receipt]] | None = None

    @property
    def lane(self) -> Lane:
        """Critical where one of the events is: they go together."""
        critical = any(event.priority is Lane.CRITICAL for event in self.events)
        return Lane.CRITICAL if critical else Lane.NORMAL

    def fail(self, error: SteadcastError) -> None:
        """Note a failed try; the refusal of an open breaker was none."""
        self.error = error
        self.attempts += not isinstance(error, BreakerOpen)


_Retries: TypeAlias = dict[int, Retry[Held]]


class SocketIOEventBroadcaster:
    """Takes events to the log through an engine's failures; counts each by what became of it.

    `append` is `Hub.append`. `retry_interval` (seconds) is how often the processor looks at the queue and may
    be set at any time; `append_timeout` (seconds) is when an append counts as failed: it may become durable
    all the same, which the ids make harmless. `clock` gives monotonic seconds, the loop's by default.
    `dead` keeps what is given up; without it that is counted only.

    `counts`, of events: `handed` to `broadcast` = `accepted` + `queued` (for a retry) + `refused` + pending;
    of these, `overflowed` were queued without a first try. Besides, of occurrences: `unexpected` errors of
    the engine, `rounds_failed`, `close_timed_out`.
    """

    def __init__(
        self,
        append: Callable[[str, Sequence[Event]], Awaitable[list[Receipt]]],
        *,
        clock: Callable[[], float] | None = None,
        retry_interval: float = RETRY_INTERVAL,
        append_timeout: float = APPEND_TIMEOUT,
        breaker: Breaker | None = None,
        queue: RetryQueue[Held] | None = None,
        dead: DeadEvents | None = None,
        inbox_limit: int = INBOX_LIMIT,
    ) -> None:
        """Stand ready; `start` begins the work in the background."""
        self.retry_interval = retry_interval
        self.append_timeout = append_timeout
        self._deadlines = Deadlines()
        self.breaker = breaker or Breaker()
        self.queue = queue or RetryQueue[Held]()
        self.dead = dead
        self.counts: Counter[str] = Counter()
        self._append = append
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._inbox: deque[Held] = deque()
        self._inbox_limit = inbox_limit
        self._handed = asyncio.Event()
        self._buried = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._given_up: Counter[str] = Counter()
        self._abandoned_told = 0
        self._closed = False
        if dead is not None:
            dead.append = self.append_once

    # Life

    def start(self) -> None:
        """Begin to drain what is handed over, to process the queue, and to keep dead events."""
        jobs = {"drain": self._drain, "retry": self._retry_regularly, "bury": self._save_dead}
        self._tasks = [
            # A context of its own: whoever publishes first is not whom the work in the background is for.
            asyncio.create_task(self._again_and_again(job), name=f"steadcast-{name}", context=Context())
            for name, job in jobs.items()
        ]

    async def aclose(self, limit: float = CLOSE_LIMIT) -> None:
        """End the work: one last try for what is queued, within `limit` seconds; the rest becomes dead."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._inbox:
            self._queue_handed(self._inbox.popleft())
        try:
            async with asyncio.timeout(limit):
                await self._retry(self._sort(self.queue.close(self._clock())))
        except TimeoutError:
            self.counts["close_timed_out"] += 1
        self._tell_given_up()
        if self.dead is not None:
            await self._bury_the_last(self.dead, limit)

    async def _bury_the_last(self, dead: DeadEvents, limit: float) -> None:
        await dead.save()
        try:
            async with asyncio.timeout(limit):
                await dead.move()
        except TimeoutError:
            self.counts["close_timed_out"] += 1

    # Publishing

    async def append_once(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        """Append through the breaker, without a retry; returns once the events are durable.

        Raises `BreakerOpen` (with `retry_after`) while the engine is spared, `EngineUnavailable` where it
        fails or takes longer than `append_timeout`, and what the engine refuses.
        """
        now = self._clock()
        permit = self.breaker.allow(now)
        if permit is None:
            wait = self.breaker.retry_after(now)
            raise BreakerOpen("the log fails, and is spared for a moment", retry_after=wait)
        verdict = self.breaker.released
        try:
            receipts = await self._append_in_time(stream, events)
            verdict = self.breaker.succeeded
        except (Unavailable, EngineRefused) as error:
            # A log that has more to do than it takes works: to spare it would refuse what it can do.
            if not isinstance(error, QueueFull):
                verdict = self.breaker.failed
            raise
        finally:
            verdict(self._clock(), permit)
        return receipts

    async def publish(self, stream: str, events: Event | Sequence[Event]) -> list[Receipt]:
        """Append an event or several, all or none, waiting through the retries; returns their receipts.

        Raises `Abandoned` (field `reason`) when it was given up: the events are dead events then. Raises at
        once what no retry can help (`IdConflict`, `InvalidInput`), and `Draining` after `aclose`. A call that
        is cancelled while its events wait for a retry leaves them there: they are still appended, or dead.
        """
        held = self._hold(stream, (events,) if isinstance(events, Event) else tuple(events))
        if not held.events:
            return []
        try:
            return await self.append_once(stream, held.events)
        except SteadcastError as error:
            if not error.temporary or self._closed:
                raise
            held.fail(error)
        held.waiter = asyncio.get_running_loop().create_future()
        # Whoever is cancelled never looks at the outcome, and asyncio would complain about it.
        held.waiter.add_done_callback(lambda waiter: waiter.cancelled() or waiter.exception())
        self._queue(held)
        return await held.waiter

    def broadcast(self, stream: str, event: Event) -> None:
        """Hand an event over and return at once; what becomes of it is counted, or kept as a dead event.

        Raises `Draining` after `aclose`.
        """
        held = self._hold(stream, (event,))
        self.counts["handed"] += 1
        if len(self._inbox) >= self._inbox_limit:
            self.counts["overflowed"] += 1
            self._queue_handed(held)
            return
        self._inbox.append(held)
        self._handed.set()

    def statistics(self) -> dict[str, object]:
        """Tell the queue's five numbers, the breaker's state, and what was counted."""
        now = self._clock()
        return {
            "retry_queue": self.queue.stats,
            "abandoned_by": dict(self.queue.abandoned_by),
            "breaker": {
                "state": self.breaker.state.value,
                "retry_after": self.breaker.retry_after(now),
                "counts": dict(self.breaker.counts),
            },
            "pending": len(self._inbox),
            "counts": dict(self.counts),
            "dead": self.dead.statistics() if self.dead else None,
        }

    def _hold(self, stream: str, events: tuple[Event, ...]) -> Held:
        if self._closed:
            raise Draining("the server is going away")
        return Held(stream, events, self._clock())

    async def _append_in_time(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        try:
            with self._deadlines.within(self.append_timeout):
                return await self._append(stream, events)
        except TimeoutError as error:
            message = f"the log took longer than {self.append_timeout:g} s"
            raise EngineUnavailable(message, timeout=self.append_timeout) from error
        except SteadcastError:
            raise
        except Exception as error:
            # An engine that breaks its word is still an engine that failed: what it was given is retried.
            self.counts["unexpected"] += 1
            log.exception("the engine raised what it should not")
            raise EngineUnavailable(f"the engine failed: {type(error).__name__}") from error

    # First tries of what was handed over

    async def _drain(self) -> None:
        await self._handed.wait()
        while self._inbox:
            await self._try_first(self._front())
        self._handed.clear()

    def _front(self) -> list[Held]:
        """Give the front of the inbox that can go in one append. It leaves the inbox with its outcome."""
        return next(_together(self._inbox, lambda held: held))

    async def _try_first(self, group: list[Held]) -> None:
        try:
            await self.append_once(group[0].stream, [event for held in group for event in held.events])
        except SteadcastError as error:
            if not error.temporary and len(group) > 1:
                for held in group:
                    await self._try_first([held])
                return
            for _ in group:
                self._failed_first(self._inbox.popleft(), error)
        else:
            for _ in group:
                self._inbox.popleft()
            self.counts["accepted"] += len(group)

    def _failed_first(self, held: Held, error: SteadcastError) -> None:
        held.fail(error)
        if error.temporary:
            self._queue_handed(held)
        else:
            self.counts["refused"] += 1
            self._bury(held, "refused")

    def _queue_handed(self, held: Held) -> None:
        self.counts["queued"] += 1
        self._queue(held)

    # Retries

    async def process(self) -> None:
        """Do one round: give up what is too old, retry what is due, and move dead events into the log."""
        retries: _Retries = {}
        if await self._engine_may_be_tried():
            retries = self._sort(self.queue.handle_timeout(self._clock()))
        else:
            self._sort(self.queue.expire(self._clock()))
        count = sum(len(retry.entry.events) for retry in retries.values())
        if count:
            self._tell(f"🔄 Processing {count} events from retry queue")
            await self._retry(retries)
        self._tell_given_up()
        if count or sum(self.queue.abandoned_by.values()) > self._abandoned_told:
            self._tell_stats()
        if self.dead is not None and self.breaker.state is State.CLOSED:
            await self.dead.keep()

    async def _engine_may_be_tried(self) -> bool:
        """Probe for a breaker that isn't closed by appending nothing, which costs no event an attempt."""
        if self.breaker.state is State.CLOSED:
            return True
        try:
            await self.append_once(DEAD_STREAM, [])
        except SteadcastError:
            return False  # counted by the breaker
        return True

    async def _retry(self, retries: _Retries) -> None:
        """Try them, in groups; what a cancellation leaves untried goes back as it was."""
        try:
            for group in list(_together(retries.values(), lambda retry: retry.entry)):
                await self._retry_together(group, retries)
        finally:
            for ticket in retries:
                self._settle(self.queue.postponed(ticket))

    async def _retry_together(self, group: list[Retry[Held]], retries: _Retries) -> None:
        """Try a group in one append; each one's outcome takes it out of `retries`."""
        events = [event for retry in group for event in retry.entry.events]
        try:
            receipts = await self.append_once(group[0].entry.stream, events)
        except SteadcastError as error:
            if not error.temporary and len(group) > 1:
                for retry in group:
                    await self._retry_together([retry], retries)
                return
            for retry in group:
                del retries[retry.ticket]
                self._failed_again(retry, error)
        else:
            for retry in group:
                del retries[retry.ticket]
                size = len(retry.entry.events)
                self._succeeded(retry, receipts[:size])
                receipts = receipts[size:]

    def _succeeded(self, retry: Retry[Held], receipts: list[Receipt]) -> None:
        self.queue.succeeded(retry.ticket)
        waiter = retry.entry.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(receipts)

    def _failed_again(self, retry: Retry[Held], error: SteadcastError) -> None:
        retry.entry.fail(error)
        if isinstance(error, BreakerOpen):
            self._settle(self.queue.postponed(retry.ticket))
        elif error.temporary:
            self._settle(self.queue.failed(self._clock(), retry.ticket))
        else:
            self._settle(self.queue.refused(retry.ticket))

    def _queue(self, held: Held) -> None:
        self._settle(
            self.queue.put(self._clock(), held, lane=held.lane, size=len(held.events), since=held.since)
        )

    def _sort(self, effects: Iterable[Effect[Held]]) -> _Retries:
        """Settle what was given up, and return what is to be tried."""
        retries: _Retries = {}
        for effect in effects:
            if isinstance(effect, Retry):
                retries[effect.ticket] = effect
            else:
                self._settle([effect])
        return retries

    def _settle(self, gone: Iterable[Abandon[Held]]) -> None:
        for abandon in gone:
            held = abandon.entry
            self._bury(held, abandon.reason)
            if held.waiter is not None and not held.waiter.done():
                held.waiter.set_exception(self._outcome(held, abandon.reason))

    @staticmethod
    def _outcome(held: Held, reason: str) -> SteadcastError:
        if reason == "refused" and held.error is not None:
            return held.error
        outcome = Abandoned(
            f"given up after {held.attempts} attempts: {reason}", reason=reason, attempts=held.attempts
        )
        outcome.__cause__ = held.error
        return outcome

    def _bury(self, held: Held, reason: str) -> None:
        error = None if held.error is None else f"{held.error.code}: {held.error.message}"
        self._given_up[reason] += len(held.events)
        if self.dead is not None:
            self.dead.bury(held.stream, held.events, reason=reason, attempts=held.attempts, error=error)
            self._buried.set()

    def _tell_given_up(self) -> None:
        """Log once per round what was given up since the last one: a line per event would be a flood."""
        given_up, self._given_up = self._given_up, Counter()
        if given_up:
            log.warning("events were given up", **given_up)

    def _tell_stats(self) -> None:
        stats = self.queue.stats
        self._abandoned_told = stats["abandoned"]
        numbers = ", ".join(f"{name}: {stats[name]}" for name in ("queued", "retried", "succeeded"))
        self._tell(f"📊 Retry queue stats - {numbers}")

    @staticmethod
    def _tell(message: str) -> None:
        log.info(message)

    # Background work

    async def _retry_regularly(self) -> None:
        await asyncio.sleep(self.retry_interval)
        await self.process()

    async def _save_dead(self) -> None:
        """Write to the file at once what is given up; the processor moves it into the log."""
        self._buried.clear()
        if self.dead is not None:
            await self.dead.save()
        await self._buried.wait()

    async def _again_and_again(self, job: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await job()
            except Exception:
                # A defect must not end the work for ever; nor may it spin.
                self.counts["rounds_failed"] += 1
                log.exception("a round of background work failed")
                await asyncio.sleep(self.retry_interval)


def _together(items: Iterable[T], held_of: Callable[[T], Held]) -> Iterator[list[T]]:
    """Cut items into groups that can go in one append: neighbours of one stream, with few enough events."""
    group: list[T] = []
    size = 0
    for item in items:
        held = held_of(item)
        size += len(held.events)
        if group and (held.stream != held_of(group[0]).stream or size > TOGETHER):
            yield group
            group, size = [], len(held.events)
        group.append(item)
    if group:
        yield group
