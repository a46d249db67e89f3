"""The seam for whoever follows a publish through the house; by default nobody does.

It is touched once for each publish, append, flush, ack and page that is read, never for an event. `tracing`
is the implementation that speaks OpenTelemetry; nothing below the wiring knows it. Who follows stands behind
a `tracing.guard`: it may fail, and what it follows goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from steadcast.event import Batch, Event, Lane, Receipt
    from steadcast.wire import Ack


class Appending(Protocol):
    """An append that is under way."""

    def answered(self, receipts: Sequence[Receipt]) -> None:
        """Note that its events are durable."""
        ...


class Reading(Protocol):
    """A page of the log that is being read for subscribers who are behind."""

    def read(self, batch: Batch, receivers: int) -> None:
        """Note what was read, and how many subscribers it is for."""
        ...


class Tracer(Protocol):
    """Follows publishes. What leaves one of its contexts as an exception is noted, and goes on."""

    def publish(
        self, stream: str | None, headers: Mapping[str, str] | None = None
    ) -> AbstractContextManager[object]:
        """Follow a publish from its arrival to its answer; `headers` are those of its request."""
        ...

    def origins(self, told: object) -> None:
        """Note the traces that the events of the publish under way name as their own.

        `told` is what came in, not checked yet: a body of JSON, or the payload of a `publish`.
        """
        ...

    def append(self, stream: str, events: Sequence[Event]) -> AbstractContextManager[Appending]:
        """Follow an append to the engine until it is durable."""
        ...

    def deliver(self, batch: Batch, receivers: int) -> AbstractContextManager[object]:
        """Follow a flush: a batch on its way to so many live subscribers."""
        ...

    def ack(self, ack: Ack, before: int) -> None:
        """Note that a subscriber has applied a lane up to an offset; `before` is what it acked last."""
        ...

    def replay(self, stream: str, lane: Lane, after: int) -> AbstractContextManager[Reading]:
        """Follow the reading of a page behind an offset, for subscribers who are behind."""
        ...

    def statistics(self) -> dict[str, int]:
        """Tell what was counted; empty where nobody follows."""
        ...

    async def aclose(self) -> None:
        """Send off what is still held."""
        ...


class Nothing:
    """A context in which nobody follows anything."""

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let everything through."""

    def answered(self, receipts: Sequence[Receipt]) -> None:
        """Note nothing."""

    def read(self, batch: Batch, receivers: int) -> None:
        """Note nothing."""


NOTHING: Final = Nothing()


class NoTracer:
    """Follows nothing."""

    @staticmethod
    def publish(stream: str | None, headers: Mapping[str, str] | None = None) -> Nothing:  # noqa: ARG004 - the seam's form
        """Follow nothing."""
        return NOTHING

    @staticmethod
    def origins(told: object) -> None:
        """Note nothing."""

    @staticmethod
    def append(stream: str, events: Sequence[Event]) -> Nothing:  # noqa: ARG004 - the seam's form
        """Follow nothing."""
        return NOTHING

    @staticmethod
    def deliver(batch: Batch, receivers: int) -> Nothing:  # noqa: ARG004 - the seam's form
        """Follow nothing."""
        return NOTHING

    @staticmethod
    def ack(ack: Ack, before: int) -> None:
        """Note nothing."""

    @staticmethod
    def replay(stream: str, lane: Lane, after: int) -> Nothing:  # noqa: ARG004 - the seam's form
        """Follow nothing."""
        return NOTHING

    @staticmethod
    def statistics() -> dict[str, int]:
        """Tell nothing."""
        return {}

    @staticmethod
    async def aclose() -> None:
        """Hold nothing."""


NO_TRACER: Final[Tracer] = NoTracer()
