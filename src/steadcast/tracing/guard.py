"""Stands before a tracer, whoever wrote it: it may fail, and what it follows goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

from steadcast.plain_log import plain_log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from steadcast.event import Batch, Event, Lane, Receipt
    from steadcast.tracer import Tracer
    from steadcast.wire import Ack

log = plain_log("steadcast.tracing")

T = TypeVar("T")


class Guarded:
    """A tracer that can't break what it follows: what it raises is counted (`failed`), and logged once."""

    def __init__(self, tracer: Tracer) -> None:
        """Stand before a tracer."""
        self._tracer = tracer
        self._failed = 0

    def attempt(self, what: Callable[[], T]) -> T | None:
        """Do something of the tracer's, which may even lack it; None where it fails."""
        try:
            return what()
        except Exception as error:  # noqa: BLE001 - whatever it is: counted, and logged where it is the first
            self._fail(error)
            return None

    def _fail(self, error: Exception) -> None:
        self._failed += 1
        if self._failed == 1:
            log.error("the tracer fails; what it follows goes on", exc_info=error)

    def publish(self, stream: str | None, headers: Mapping[str, str] | None = None) -> _Following:
        """Follow a publish."""
        return _Following(self, lambda: self._tracer.publish(stream, headers))

    def origins(self, told: object) -> None:
        """Note where events came from."""
        self.attempt(lambda: self._tracer.origins(told))

    def append(self, stream: str, events: Sequence[Event]) -> _Following:
        """Follow an append."""
        return _Following(self, lambda: self._tracer.append(stream, events))

    def deliver(self, batch: Batch, receivers: int) -> _Following:
        """Follow a flush."""
        return _Following(self, lambda: self._tracer.deliver(batch, receivers))

    def ack(self, ack: Ack, before: int) -> None:
        """Note an ack."""
        self.attempt(lambda: self._tracer.ack(ack, before))

    def replay(self, stream: str, lane: Lane, after: int) -> _Following:
        """Follow the reading of a page."""
        return _Following(self, lambda: self._tracer.replay(stream, lane, after))

    def statistics(self) -> dict[str, int]:
        """Tell what the tracer counted, and how often it failed."""
        told = self.attempt(lambda: self._tracer.statistics())  # noqa: PLW0108 - it may lack it
        return {**(told or {}), "failed": self._failed}

    async def aclose(self) -> None:
        """Let the tracer send off what it holds."""
        try:
            await self._tracer.aclose()
        except Exception as error:  # noqa: BLE001 - as in `attempt`
            self._fail(error)


class _Following:
    """One of a tracer's contexts; where it fails, what is inside goes on without it."""

    __slots__ = ("_context", "_guard", "_inner", "_open")

    def __init__(self, guard: Guarded, start: Callable[[], AbstractContextManager[Any]]) -> None:
        self._guard = guard
        self._open = start
        self._context: AbstractContextManager[Any] | None = None
        self._inner: Any = None

    def __enter__(self) -> Self:
        self._guard.attempt(self._enter)
        return self

    def _enter(self) -> None:
        context = self._open()
        self._inner = context.__enter__()
        self._context = context  # only what was entered is left

    def __exit__(self, *error: object) -> None:
        if (context := self._context) is not None:
            self._guard.attempt(lambda: context.__exit__(*error))  # type: ignore[arg-type] # as `with` calls it

    def answered(self, receipts: Sequence[Receipt]) -> None:
        if self._context is not None:
            self._guard.attempt(lambda: self._inner.answered(receipts))

    def read(self, batch: Batch, receivers: int) -> None:
        if self._context is not None:
            self._guard.attempt(lambda: self._inner.read(batch, receivers))
