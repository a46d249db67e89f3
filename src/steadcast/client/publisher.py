"""`Publisher`: events to a server from a thread of its own, and to the disk while the server is away."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from steadcast.client.address import DEFAULT_URL
from steadcast.client.aside import Aside, log
from steadcast.client.buffer import Buffer
from steadcast.client.delivery import Delivery, deliver
from steadcast.client.drain import (
    BATCH_TYPE,
    EMPTY,
    EVENT_TYPE,
    MAX_GROUP_BYTES,
    MAX_GROUP_EVENTS,
    Drain,
    batch_body,
)
from steadcast.client.ending import at_end
from steadcast.client.outgoing import Outgoing, compose, default_source
from steadcast.client.post import TEMPORARY, Connection, Outcome
from steadcast.client.spool import DELIVERED, REFUSED, Spool
from steadcast.client.spooled import spool_root
from steadcast.core.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from steadcast.client.token import TokenFunction

EXIT_SECONDS: Final = 2.0
"""How long a program's end may wait for a publisher that nobody closed."""

OVERFLOW: Final = "overflow"
CLOSED: Final = "closed"
NO_THREAD: Final = "no_thread"

_STAMP = 42
_IDLE = 5.0
_DISK_PAUSE = 1.0
_ABORT_SECONDS = 1.0
_SPILL = 50


@dataclass(frozen=True, slots=True)
class FlushResult:
    """Where everything stands that was published since the publisher was made.

    `acked`: durable at the server. `spooled`: on disk; this or another drainer of the same spool delivers
    it. `pending`: in memory or on its way. `dropped`: given up; `statistics()` has the reasons.
    """

    acked: int
    spooled: int
    pending: int
    dropped: int


class Publisher:
    """Publishes from synchronous code. Thread-safe; after a fork the child starts empty.

    What is in memory is lost with a killed process: `flush` tells what is acked or on disk. A program that
    just ends waits for at most EXIT_SECONDS and leaves the rest in the spool.

    `publish` puts the event into a buffer (at most `buffer_limit` events and `buffer_bytes`) and returns; it
    may be called by signal handlers, finalizers and logging handlers. A background thread sends what has
    gathered, up to 1,000 events or 1 MiB a request, per stream in order. One request is under way at a time
    (docs/adr/0021): a second one could come into the log before it. When the server fails for now, everything
    goes to the spool, and is sent oldest first when it is back. While the buffer is full, `publish` writes to
    the spool itself (one fsync); where there is no spool or the disk refuses, the oldest normal event in the
    buffer is dropped. A full spool drops its oldest normal entry. Each drop is counted by its reason:
    published = acked + spooled + pending + dropped.

    `token` defaults to `STEADCAST_TOKEN`; a function is asked for one at first, in the background thread, and
    again when its token was refused; what was refused is sent again. `source` defaults to `//host/program`.
    `spool` is a folder, a `Spool` (which serves one publisher), True for this server's default folder, or
    False for none.
    Raises `InvalidRequest` for a wrong `url`.
    """

    _retry_at: float | None

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | TokenFunction | None = None,
        source: str | None = None,
        spool: Spool | str | os.PathLike[str] | bool = True,
        buffer_limit: int = 10_000,
        buffer_bytes: int = 64 * 1024 * 1024,
        batch_events: int = MAX_GROUP_EVENTS,
        batch_bytes: int = MAX_GROUP_BYTES,
        request_timeout: float = 10.0,
        backoff: Backoff | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """No thread runs before the first `publish`. `request_timeout` is in seconds."""
        self._token = os.environ.get("STEADCAST_TOKEN") if token is None else token
        self._connection = Connection(url, token=self._token)
        self._source = default_source() if source is None else source
        self._spool = _spool_of(spool, self._connection.address.folder)
        self._batch_events = batch_events
        self._batch_bytes = batch_bytes
        self._timeout = request_timeout
        self._backoff = Backoff() if backoff is None else backoff
        self._jitter = jitter
        self._limits = (buffer_limit, buffer_bytes)
        self._forget_end: Callable[[], None] = lambda: None
        self._start_empty()
        if self._spool is not None:
            self._spool.watch = self._left_spool
        _living.add(self)

    def publish(
        self,
        stream: str,
        *,
        type: str,  # noqa: A002 - CloudEvents' own word
        data: Any = None,
        subject: str | None = None,
        priority: str = "normal",
        id: str | None = None,  # noqa: A002 - see type
        time: str | None = None,
    ) -> str:
        """Hand over an event and return its id at once; trouble with delivery is counted, never raised.

        `time` is RFC 3339 and defaults to now; `id` to a minted one: give your own where the same event may
        be published again after a crash. Raises `InvalidStream`, `InvalidEvent` or `TooLarge` for what
        could never be delivered.
        """
        item = compose(
            stream,
            type=type,
            source=self._source,
            data=data,
            subject=subject,
            priority=priority,
            id=id,
            time=time,
        )
        with self._state:
            self._counts["published"] += 1
            if self._stopping:
                self._spool_or_drop([item])
            elif not self._runs():
                self._spool_or_drop([item], NO_THREAD)
            else:
                self._hold(item)
                self._state.notify_all()
        self._aside.tell()
        return item.id

    def flush(self, timeout: float = 5.0) -> FlushResult:
        """Wait until all is acked, or spooled while the server is away; at most `timeout` seconds."""
        with self._state:
            attempts = self._attempts
            if self._retry_at is not None:
                self._retry_at = 0.0
            self._state.notify_all()
            self._state.wait_for(lambda: self._settled(attempts), timeout)
            return self._result()

    def close(self, timeout: float = 5.0) -> FlushResult:
        """Flush for at most `timeout` seconds, move what is left to the spool, and stop the thread.

        What is published afterwards goes straight to the spool.
        """
        self._forget_end()
        self.flush(timeout)
        with self._state:
            self._stopping = True
            self._state.notify_all()
        self._end_thread()
        with self._state:
            self._buffer.settle(())
            self._spool_or_drop(
                [item for _ in range(len(self._buffer)) for item in self._buffer.take_oldest()]
            )
            result = self._result()
        self._aside.tell()
        return result

    def statistics(self) -> dict[str, Any]:
        """Give the counts: published = acked + spooled + pending + dropped, by reason."""
        with self._state:
            result = self._result()
            return {
                "published": self._counts["published"],
                "acked": result.acked,
                "spooled": result.spooled,
                "pending": result.pending,
                "dropped": dict(self._dropped),
                **{each: self._counts[each] for each in ("requests", "failures", "spool_errors")},
                "unsaid": self._aside.unsaid,
                "away": self._retry_at is not None,
            }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Accounting (under the lock)

    def _start_empty(self) -> None:
        self._state = threading.Condition()
        self._aside = Aside()
        self._buffer = Buffer(*self._limits)
        self._own: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._thread: threading.Thread | None = None
        self._stopping = False
        # Whether something older than the buffer may be in the spool; at first, what an earlier run left.
        self._backlog = self._spool is not None
        self._spills = 0
        self._retry_at = None
        self._failed_in_a_row = 0
        self._attempts = 0
        self._failed_attempt = 0
        self._disk_trouble_until = 0.0
        self._drain = None if self._spool is None else Drain(self._spool, self._connection)

    def _result(self) -> FlushResult:
        pending = len(self._buffer) + len(self._buffer.away)
        spooled = len(self._own) + self._counts["handed_over"]
        return FlushResult(self._counts["acked"], spooled, pending, self._dropped.total())

    def _settled(self, attempts: int) -> bool:
        if self._thread is None or self._stopping:
            return True
        if self._buffer or self._buffer.away:
            return False
        # An attempt that began before the flush says nothing about a server that has just come back.
        return not self._own or self._failed_attempt > attempts

    def _drop(self, reason: str, count: int = 1) -> None:
        if count:
            self._dropped[reason] += count

    def _left_spool(self, name: str, outcome: str) -> None:
        with self._state:
            if name[:_STAMP] not in self._own:
                return  # another program's entry
            self._own.discard(name[:_STAMP])
            if outcome == DELIVERED:
                self._counts["acked"] += 1
            else:
                self._drop(outcome)
            self._state.notify_all()

    # Buffer to spool

    def _hold(self, item: Outgoing) -> None:
        """Take an event into the buffer, or the spool while the buffer is full (under the lock)."""
        if not self._buffer.has_room(item) and self._may_spool() and self._to_spool([item]):
            return
        while not self._buffer.has_room(item):
            if self._buffer.evict_for(item) is item:
                self._drop(OVERFLOW)
                return
            self._drop(OVERFLOW)
        self._buffer.add(item)

    def _may_spool(self) -> bool:
        return self._spool is not None and time.monotonic() >= self._disk_trouble_until

    def _spool_or_drop(self, items: Sequence[Outgoing], reason: str = CLOSED) -> None:
        """Leave nothing in memory (under the lock): nobody sends it any more."""
        self._drop(reason, len(items) - self._to_spool(items))

    def _spill(self) -> None:
        """Move the oldest events to the spool: so few at a time that a `publish` never waits long."""
        with self._state:
            items = self._buffer.send_oldest(_SPILL)
        done = self._to_spool(items)
        with self._state:
            self._buffer.settle({item.stamp for item in items[:done]})
            self._state.notify_all()

    def _to_spool(self, items: Sequence[Outgoing]) -> int:
        if self._spool is None or not items:
            return 0
        with self._state:
            self._own.update(item.stamp for item in items)
        try:
            done = self._spool.put_many([(item.stamp, item.request) for item in items])
        except OSError as error:
            done = 0
            self._aside.say("the spool refuses: %s", error)
        with self._state:
            if done < len(items):
                self._counts["spool_errors"] += 1
                self._disk_trouble_until = time.monotonic() + _DISK_PAUSE
                self._own.difference_update(item.stamp for item in items[done:])
            self._spills += 1
            self._backlog = True
        return done

    # The thread

    def _runs(self) -> bool:
        """Start the thread if need be; False where the system has none left, or the program is at its end."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="steadcast-publisher", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self._aside.say("publishing to the spool alone: %s", error)
                return False
            self._thread = thread
            self._forget_end = at_end(self._at_exit)
        return True

    def _run(self) -> None:
        while (work := self._next_work()) is not None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - a defect must not end the thread: told, counted, and on
                self._aside.say("publishing failed in an unforeseen way", error=error)
                self._batch_done(Delivery(), Outcome(TEMPORARY, code="defect"))
            self._aside.tell()
        self._connection.close()

    def _next_work(self) -> Callable[[], None] | None:
        """Wait for something to do; None when the thread is to end."""
        with self._state:
            while not self._stopping:
                now = time.monotonic()
                if self._retry_at is not None and now < self._retry_at:
                    if self._buffer and self._may_spool():
                        return self._spill
                    self._state.wait(self._retry_at - now)
                elif self._backlog or self._buffer:
                    self._attempts += 1
                    return self._send_oldest
                elif not self._state.wait(_IDLE):
                    # Nobody published for a while: time for what other programs left in the same spool.
                    self._backlog = self._spool is not None
        return None

    def _send_oldest(self) -> None:
        """Send what is oldest, in the spool or in the buffer: what overflowed lies between the two."""
        with self._state:
            backlog, spills = self._backlog, self._spills
        head = self._spool_head() if backlog else None
        with self._state:
            if head is None:
                self._caught_up(spills)
            batch = self._buffer.send_batch(self._batch_events, self._batch_bytes, head)
            oldest = self._buffer.oldest()
        if batch:
            self._send_batch()
        elif head is not None:
            self._drain_step(oldest)

    def _caught_up(self, spills: int) -> None:
        if not self._backlog or self._spills != spills:
            return
        self._backlog = False
        # Ours that are gone without us were taken on by another drainer.
        self._counts["handed_over"] += len(self._own)
        self._own.clear()
        self._state.notify_all()

    def _send_batch(self) -> None:
        deadline = time.monotonic() + self._timeout
        delivery = deliver(lambda items: self._post(items, deadline), self._buffer.away)
        self._aside.sent(delivery)
        for item, outcome in delivery.refused:
            self._keep_refused(item, outcome)
        self._batch_done(delivery, delivery.stopped)

    def _batch_done(self, delivery: Delivery, stopped: Outcome | None) -> None:
        refused = {item.stamp for item, _ in delivery.refused}
        accepted = {item.stamp for item in delivery.accepted}
        with self._state:
            gone = self._buffer.settle(refused | accepted)
            if gone:  # nothing is, where `close` has given up waiting and spooled it all
                self._counts["acked"] += len(accepted)
                self._drop(REFUSED, len(refused))
            self._heard(stopped)
            self._state.notify_all()

    def _post(self, items: Sequence[Outgoing], deadline: float) -> Outcome:
        self._counts["requests"] += 1
        left = deadline - time.monotonic()
        if left <= 0:
            return Outcome(TEMPORARY, code="timeout", detail="no time left for this batch")
        bodies = [item.body for item in items]
        single = len(items) == 1
        headers = {"content-type": EVENT_TYPE if single else BATCH_TYPE}
        body = bodies[0] if single else batch_body(bodies)
        return self._connection.post(items[0].path, headers, body, timeout=left)

    def _keep_refused(self, item: Outgoing, outcome: Outcome) -> None:
        if self._spool is None:
            return
        try:
            self._spool.put_dead(item.request, item.stamp, outcome.reason)
        except OSError:
            self._counts["spool_errors"] += 1

    def _spool_head(self) -> str | None:
        assert self._drain is not None  # noqa: S101 - a backlog is only ever said of a spool
        try:
            return self._drain.head()
        except OSError as error:
            self._cannot_read(error)
            return None

    def _drain_step(self, before: str | None) -> None:
        assert self._drain is not None  # noqa: S101 - see above
        try:
            step = self._drain.step(self._timeout, before)
        except OSError as error:
            self._cannot_read(error)
            return
        with self._state:
            if step.kind != EMPTY:
                self._counts["requests"] += 1
                self._heard(step.outcome)
            self._state.notify_all()

    def _cannot_read(self, error: OSError) -> None:
        self._aside.say("the spool can't be read: %s", error)
        with self._state:
            self._counts["spool_errors"] += 1
            self._backlog = False  # what can't be read must not hold up what can be sent

    def _heard(self, stopped: Outcome | None) -> None:
        if stopped is None:
            if self._failed_in_a_row:
                self._aside.say("the server is back", level=logging.INFO)
            self._failed_in_a_row = 0
            self._retry_at = None
            return
        if self._drain is not None:
            self._drain.forget()  # what failed goes to the spool, before what is listed
        if not self._failed_in_a_row:
            self._aside.say("the server is away: %s", stopped.reason)
        self._failed_in_a_row += 1
        self._failed_attempt = self._attempts
        self._counts["failures"] += 1
        delay = self._backoff.delay(self._failed_in_a_row, self._jitter())
        self._retry_at = time.monotonic() + max(delay, stopped.retry_after or 0.0)

    # The end

    def _end_thread(self) -> None:
        if self._thread is not None:
            self._connection.abort()
            self._thread.join(_ABORT_SECONDS)

    def _at_exit(self) -> None:
        self.close(EXIT_SECONDS)

    def _after_fork(self) -> None:
        # The thread, and what the locks guarded, stayed in the parent, which sends what it holds.
        self._connection.close()
        self._connection = Connection(self._connection.address, token=self._token)
        if self._spool is not None:
            self._spool.after_fork()
        self._start_empty()


def _spool_of(given: Spool | str | os.PathLike[str] | bool, folder: str) -> Spool | None:
    if isinstance(given, Spool):
        return given
    if not isinstance(given, bool):
        return Spool(os.fspath(given))
    try:
        return Spool(f"{spool_root()}/{folder}") if given else None
    except OSError as error:
        # No place for a spool must not keep a program from running: it drops, and counts, on overflow.
        log.warning("publishing without a spool: %s", error)
        return None


_living: weakref.WeakSet[Publisher] = weakref.WeakSet()


def _all_after_fork() -> None:
    for publisher in list(_living):
        publisher._after_fork()  # noqa: SLF001 - the module's own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_all_after_fork)
