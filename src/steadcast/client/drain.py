"""Drain a spool: the oldest entry first, one unanswered group at a time, stop at a temporary failure."""

from __future__ import annotations

import os
import time

from steadcast.client.delivery import deliver
from steadcast.client.post import TEMPORARY, Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Event

    from steadcast.client.post import Connection
    from steadcast.client.spool import Spool
    from steadcast.client.spooled import Request

    Pair = tuple[str, Request]

EVENT_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"
MAX_GROUP_EVENTS = 1_000
MAX_GROUP_BYTES = 1024 * 1024

EMPTY = "empty"
SENT = "sent"
STOPPED = "stopped"

_REQUEST_TIMEOUT = 10.0
_IDLE = 2.0


def batch_body(bodies: Sequence[bytes]) -> bytes:
    """Join events, each JSON already, to a batch (CloudEvents 1.0.2 JSON format, section 4)."""
    return b"[" + b",".join(bodies) + b"]"


class Step:
    """What one step did: `kind` is EMPTY, SENT (or given up: the line moved) or STOPPED, with the outcome."""

    __slots__ = ("kind", "outcome")

    def __init__(self, kind: str, outcome: Outcome | None = None) -> None:
        self.kind = kind
        self.outcome = outcome


class Drain:
    """Takes what is spooled for one server to that server.

    Entries that follow each other and are single events for the same stream travel as one batch of at
    most `max_events` and `max_bytes`; any other request travels alone.
    """

    def __init__(
        self,
        spool: Spool,
        connection: Connection,
        *,
        max_events: int = MAX_GROUP_EVENTS,
        max_bytes: int = MAX_GROUP_BYTES,
    ) -> None:
        self.spool = spool
        self.connection = connection
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._line: list[str] = []

    def head(self) -> str | None:
        """Give the name of the oldest entry, None where there is none; raises OSError."""
        if not self._line:
            self._line = self.spool.names()[::-1]
        return self._line[-1] if self._line else None

    def step(self, timeout: float = _REQUEST_TIMEOUT, before: str | None = None) -> Step:
        """Send the oldest group; over after `timeout` seconds. Raises OSError where the disk refuses.

        With `before`, a stamp or name, only what is older than that.
        """
        try:
            group = self._next_group(before) if self.head() is not None else []
        except OSError:
            self.forget()  # what was taken from the line before is in no group
            raise
        if not group:
            return Step(EMPTY)
        deadline = time.monotonic() + timeout
        delivery = deliver(lambda entries: self._send(entries, deadline), group)
        for name, _ in delivery.accepted:
            self.spool.delivered(name)
        for (name, _), outcome in delivery.refused:
            self.spool.refuse(name, outcome.reason)
        if delivery.stopped is not None:
            self.forget()
            return Step(STOPPED, delivery.stopped)
        return Step(SENT)

    def until(self, deadline: float) -> Step:
        """Step until the spool is empty, the server fails for now, or the monotonic clock says `deadline`."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return Step(STOPPED, Outcome(TEMPORARY, code="timeout"))
            step = self.step(left)
            if step.kind != SENT:
                return step

    def run(
        self,
        stop: Event,
        *,
        idle: float = _IDLE,
        timeout: float = _REQUEST_TIMEOUT,
        jitter: Callable[[], float] | None = None,
        told: Callable[[Outcome], None] | None = None,
    ) -> None:
        """Drain until `stop` is set: for a thread of its own, as a server runs it for its own folder.

        Looks every `idle` seconds while there is nothing; after a failure it backs off, at least as long as
        the server asked. `stop` is seen between two requests, so within `timeout` seconds. `told` hears of a
        failure when it begins and when it becomes another one.
        """
        from steadcast.core.backoff import Backoff

        backoff = Backoff(base=min(1.0, idle))
        failures = 0
        trouble = ""
        while not stop.is_set():
            step = self._step_or_trouble(timeout)
            failures = failures + 1 if step.kind == STOPPED else 0
            known, trouble = trouble, "" if step.outcome is None else step.outcome.reason
            if told is not None and step.outcome is not None and trouble != known:
                told(step.outcome)
            if step.kind == EMPTY:
                stop.wait(idle)
            elif step.outcome is not None:
                delay = backoff.delay(failures, (jitter or _jitter)())
                stop.wait(max(delay, step.outcome.retry_after or 0.0))
        self.connection.close()

    def forget(self) -> None:
        """List anew at the next step: something older may have come in meanwhile."""
        self._line = []

    def _step_or_trouble(self, timeout: float) -> Step:
        try:
            return self.step(timeout)
        except OSError as error:
            self.forget()
            return Step(STOPPED, Outcome(TEMPORARY, code="spool_failed", detail=str(error)))

    def _next_group(self, before: str | None) -> list[Pair]:
        first = self._pull(before)
        if first is None:
            return []
        group = [first]
        size = len(first[1].body)
        while _is_event(first[1]) and len(group) < self._max_events:
            following = self._pull(before)
            if following is None:
                break
            name, request = following
            size += len(request.body) + 1
            if not _is_event(request) or request.path != first[1].path or size > self._max_bytes:
                self._line.append(name)
                break
            group.append(following)
        return group

    def _pull(self, before: str | None) -> Pair | None:
        while self._line and (before is None or self._line[-1] < before):
            name = self._line.pop()
            request = self.spool.take(name)
            if request is not None:
                return name, request
        return None

    def _send(self, entries: Sequence[Pair], deadline: float) -> Outcome:
        request = entries[0][1]
        left = deadline - time.monotonic()
        if left <= 0:
            return Outcome(TEMPORARY, code="timeout", detail="no time left for this group")
        if len(entries) == 1:
            return self.connection.post(request.path, request.headers, request.body, timeout=left)
        body = batch_body([each.body for _, each in entries])
        return self.connection.post(request.path, {"content-type": BATCH_TYPE}, body, timeout=left)


def _is_event(request: Request) -> bool:
    return request.headers.get("content-type") == EVENT_TYPE


def _jitter() -> float:
    return os.urandom(1)[0] / 255
