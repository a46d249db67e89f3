"""No handler hangs: each runs in a task of its own, within its time.

A handler that swallows its cancellation goes on alone, counted; the connection and the acknowledgement
don't wait for it.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import structlog

from steadcast.errors import HandlerTimeout, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

log = structlog.get_logger("steadcast.timeouts")

DEFAULT_TIMEOUT: Final = 5.0
SIMPLE_TIMEOUT: Final = 3.0
WARN_AT: Final = 0.8

P = ParamSpec("P")
R = TypeVar("R")

_limited_by_server: ContextVar[bool] = ContextVar("steadcast_limited", default=False)


class TimeoutCounts:
    """What happened to handlers, by event name."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.runs: Counter[str] = Counter()
        self.timeouts: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.runaways: set[asyncio.Future[Any]] = set()

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
    coroutine: Coroutine[Any, Any, R], *, seconds: float | None, name: str, counts: TimeoutCounts = COUNTS
) -> R:
    """Run a handler for at most `seconds`; None means without a limit.

    Raises `HandlerTimeout` (fields `event` and `timeout`) at once when the time is over; what the handler
    itself raises goes through.
    """
    counts.runs[name] += 1
    if seconds is None:
        return await coroutine
    loop = asyncio.get_running_loop()
    began = loop.time()
    task = asyncio.ensure_future(coroutine)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        _abandon(task, counts)
        counts.timeouts[name] += 1
        log.error("handler timed out", handler=name, timeout=seconds)
        raise HandlerTimeout(f"{name} took longer than {seconds:g} s", event=name, timeout=seconds)
    _warn_if_slow(loop.time() - began, seconds, name, counts)
    return task.result()


def _abandon(task: asyncio.Future[Any], counts: TimeoutCounts) -> None:
    task.cancel()
    counts.runaways.add(task)
    task.add_done_callback(lambda done: _laid_to_rest(done, counts))


def _laid_to_rest(task: asyncio.Future[Any], counts: TimeoutCounts) -> None:
    counts.runaways.discard(task)
    if not task.cancelled() and task.exception() is not None:
        log.warning("a handler failed after its time was over", error=repr(task.exception())[:200])


def _warn_if_slow(took: float, seconds: float, name: str, counts: TimeoutCounts) -> None:
    if took >= WARN_AT * seconds:
        counts.warnings[name] += 1
        log.warning("handler is close to its timeout", handler=name, took=round(took, 3), timeout=seconds)


def timeout_handler(
    timeout_seconds: float | None = DEFAULT_TIMEOUT, *, name: str | None = None
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R | dict[str, Any]]]]:
    """Protect an async event handler: a plain function, a method or a closure.

    Under an attached server, the server keeps the time (so that it can tell the client); elsewhere the
    wrapper does. When the time is over the handler is cancelled, the error is logged, and the answer is
    `{"ok": False, "error": {"code": "timeout", …}}`. Raises `InvalidRequest` for a timeout that is no
    positive number.
    """
    if timeout_seconds is not None and not timeout_seconds > 0:
        raise InvalidRequest("a handler's timeout is a positive number of seconds", field="timeout_seconds")

    def decorate(handler: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R | dict[str, Any]]]:
        label = name or handler.__name__

        @functools.wraps(handler)
        async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R | dict[str, Any]:
            if _limited_by_server.get():
                _limited_by_server.set(False)  # what this handler calls keeps limits of its own
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

    def limit(self, event: str, handler: object) -> float | None:
        """Give the seconds that an event's handler may take."""
        if event in self.by_event:
            return self.by_event[event]
        own: float | None = getattr(handler, "timeout_seconds", self.default)
        return own

    async def run(self, event: str, handler: object, call: Coroutine[Any, Any, R]) -> R:
        """Run a handler's call within its time; raises `HandlerTimeout` when it is over."""
        token = _limited_by_server.set(True)
        try:
            return await run_limited(call, seconds=self.limit(event, handler), name=event, counts=self.counts)
        finally:
            _limited_by_server.reset(token)
