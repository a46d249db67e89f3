"""No handler hangs: each runs within its time, an application's in a task of its own.

One that swallows its cancellation goes on alone, counted; the connection and the acknowledgement don't wait
for it. Steadcast's own handlers swallow none, and need no task.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, TypeVarTuple

import structlog

from steadcast.errors import HandlerTimeout, InvalidRequest
from steadcast.socketio.deadlines import MOMENT, STILL, Deadlines
from steadcast.wire import visible

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping

log = structlog.get_logger("steadcast.timeouts")

DEFAULT_TIMEOUT: Final = 5.0
SIMPLE_TIMEOUT: Final = 3.0
WARN_AT: Final = 0.8
LONGEST_NAME: Final = 128
"""Characters of an event's name that are told: a client chooses it."""

P = ParamSpec("P")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

SIMPLE: Final = frozenset({"subscribe", "unsubscribe"})
"""Steadcast's own events whose handlers have the shorter time."""
OTHERS: Final = "*"
"""Counts stand under this name for events without a handler of their own: a client may think of any name."""

_timed: ContextVar[object] = ContextVar("steadcast_timed", default=None)
"""The registered handler whose time an attached server keeps."""


class TimeoutCounts:
    """What happened to handlers, by the name of the event that they are registered for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin at zero; `clock` measures how long a handler took, in seconds."""
        self.clock = clock
        self.runs: Counter[str] = Counter()
        self.timeouts: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.runaways: set[asyncio.Future[Any]] = set()

    def timed_out(self, label: str, name: str, seconds: float) -> HandlerTimeout:
        """Count and log a handler whose time is over; gives what is to be raised."""
        self.timeouts[label] += 1
        shown = visible(name[:LONGEST_NAME])
        log.error("handler timed out", handler=shown, timeout=seconds)
        return HandlerTimeout(f"{shown} took longer than {seconds:g} s", event=shown, timeout=seconds)

    def ended(self, label: str, name: str, began: float, seconds: float) -> None:
        """Warn of a handler that came close to its timeout; `began` is by `clock`."""
        took = self.clock() - began
        if took >= WARN_AT * seconds:
            self.warnings[label] += 1
            shown = visible(name[:LONGEST_NAME])
            log.warning(
                "handler is close to its timeout", handler=shown, took=round(took, 3), timeout=seconds
            )

    def statistics(self) -> dict[str, Any]:
        """Give the counts by handler, and how many ignored their cancellation and still run."""
        return {
            "runs": dict(self.runs),
            "timeouts": dict(self.timeouts),
            "warnings": dict(self.warnings),
            "runaways": len(self.runaways),
        }


COUNTS: Final = TimeoutCounts()
"""Counts of handlers that run outside of an attached server."""


async def run_limited(
    coroutine: Coroutine[Any, Any, R],
    *,
    seconds: float | None,
    name: str,
    label: str | None = None,
    counts: TimeoutCounts = COUNTS,
) -> R:
    """Run the handler of the event `name` for at most `seconds`; None means without a limit.

    It is counted under `label`, by default its name. Raises `HandlerTimeout` (fields `event` and `timeout`)
    at once when the time is over; what the handler itself raises goes through.
    """
    label = name if label is None else label
    counts.runs[label] += 1
    if seconds is None:
        return await coroutine
    began = counts.clock()
    task = asyncio.ensure_future(coroutine)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done and counts.clock() - began > seconds + STILL:
            done, _ = await asyncio.wait({task}, timeout=MOMENT)  # another held the loop, not this one
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        _abandon(task, counts)
        raise counts.timed_out(label, name, seconds)
    counts.ended(label, name, began, seconds)
    return task.result()


def _abandon(task: asyncio.Future[Any], counts: TimeoutCounts) -> None:
    task.cancel()
    counts.runaways.add(task)
    task.add_done_callback(lambda done: _laid_to_rest(done, counts))


def _laid_to_rest(task: asyncio.Future[Any], counts: TimeoutCounts) -> None:
    counts.runaways.discard(task)
    if not task.cancelled() and task.exception() is not None:
        log.warning("a handler failed after its time was over", error=repr(task.exception())[:200])


def timeout_handler(
    timeout_seconds: float | None = DEFAULT_TIMEOUT, *, name: str | None = None
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R | dict[str, Any]]]]:
    """Protect an async event handler: a plain function, a method or a closure.

    Under an attached server, the server keeps the time (so that it can tell the client); elsewhere the
    wrapper does. When the time is over the handler is cancelled, the error is logged, and the answer is
    `{"ok": False, "error": {"code": "timeout", …}}`. Raises `InvalidRequest` for a timeout that is no
    positive number. The limit stands for this function alone: what it calls keeps limits of its own.
    """
    is_number = isinstance(timeout_seconds, (int, float))
    if timeout_seconds is not None and not (is_number and timeout_seconds > 0):
        raise InvalidRequest("a handler's timeout is a positive number of seconds", field="timeout_seconds")

    def decorate(handler: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R | dict[str, Any]]]:
        label = name or handler.__name__

        @functools.wraps(handler)
        async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R | dict[str, Any]:
            if any(each is wrapper for each in _layers(_timed.get())):
                _timed.set(None)  # it may call itself, or leave a task behind that does
                return await handler(*args, **kwargs)
            try:
                return await run_limited(
                    _await(handler(*args, **kwargs)), seconds=timeout_seconds, name=label
                )
            except HandlerTimeout as error:
                return {"ok": False, "error": error.as_wire()}

        wrapper.timeout_seconds = timeout_seconds  # type: ignore[attr-defined]
        return wrapper

    return decorate


async def _await(awaitable: Awaitable[R]) -> R:
    return await awaitable


def _layers(handler: object) -> Iterator[object]:
    """Give a handler, and what stands below its bindings, partial applications and decorators."""
    while handler is not None:
        yield handler
        below = (getattr(handler, name, None) for name in ("__func__", "func", "__wrapped__"))
        handler = next((each for each in below if each is not None), None)


class Timeouts:
    """Which handler may take how long: by configuration, else by its decorator, else the default."""

    def __init__(
        self,
        default: float | None = DEFAULT_TIMEOUT,
        *,
        by_event: Mapping[str, float | None] | None = None,
    ) -> None:
        """Take seconds; None, for one event or by default, is without a limit."""
        self.default = default
        self.by_event = dict(by_event or {})
        self.counts = TimeoutCounts()
        self._deadlines = Deadlines()

    def limit(self, event: str, handler: object) -> float | None:
        """Give the seconds that an application's handler may take."""
        if event in self.by_event:
            return self.by_event[event]
        for layer in _layers(handler):
            if hasattr(layer, "timeout_seconds"):
                own: float | None = layer.timeout_seconds
                return own
        return self.default

    def own_limit(self, event: str) -> float | None:
        """Give the seconds that Steadcast's own handler of an event may take; they always have a limit.

        The default may be off, which is meant for the application's handlers.
        """
        if event in self.by_event:
            return self.by_event[event]
        default = self.default or DEFAULT_TIMEOUT
        return min(SIMPLE_TIMEOUT, default) if event in SIMPLE else default

    async def run(
        self, event: str, handler: object, call: Coroutine[Any, Any, R], *, label: str = OTHERS
    ) -> R:
        """Run the call of an application's handler within its time; raises `HandlerTimeout` when it is over.

        It is counted under the event's name where that is configured, else under `label`.
        """
        label = event if event in self.by_event else label
        limit = self.limit(event, handler)
        token = _timed.set(handler)
        try:
            return await run_limited(call, seconds=limit, name=event, label=label, counts=self.counts)
        finally:
            _timed.reset(token)

    async def run_own(self, event: str, handler: Callable[[*Ts], Awaitable[R]], *args: *Ts) -> R:
        """Run one of Steadcast's own handlers; raises `HandlerTimeout` when its time is over.

        It begins one step of the loop later, as an application's does in its task: so all of a connection's
        begin in the order in which they came.
        """
        seconds, counts = self.own_limit(event), self.counts
        counts.runs[event] += 1
        began = counts.clock()
        limit = self._deadlines.within(seconds)
        try:
            with limit:
                await asyncio.sleep(0)
                answer = await handler(*args)
        except TimeoutError as error:
            if seconds is None or not limit.over:
                raise
            raise counts.timed_out(event, event, seconds) from error
        if seconds is not None:
            counts.ended(event, event, began, seconds)
        return answer
