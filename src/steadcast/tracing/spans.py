"""Publishes as OpenTelemetry spans, from the request to the ack.

- `publish`: from the request to its answer. It belongs to the trace of the W3C `traceparent` header, else to
  that of the first event with the CloudEvents extension attribute `traceparent`; other events' are linked.
- `append`: until the log has it, under its publish; or under what the application follows where it publishes
  from inside the process, and alone after a retry.
- `deliver`: one flush of a batch to the live subscribers of a lane, linked to the appends that it carries,
  as far as this node knows them, and under the first of these, so that it is sampled as they are.

- `ack`: from a flush until everybody that it went to has acked it, under its `deliver`.
- `replay`: a page that is read from the log for subscribers who are behind; a trace of its own.

Links are found by the events' ids: a batch may reach the hub before the append that it came of is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import msgspec
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from steadcast.errors import SteadcastError
from steadcast.tracer import NOTHING
from steadcast.tracing.acks import Unacked
from steadcast.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from steadcast.event import Batch, Event, Lane, Receipt
    from steadcast.tracer import Nothing
    from steadcast.wire import Ack

REMEMBERED: Final = 8_192
"""Events whose appends are remembered until they are delivered; the oldest go first, counted."""
MAX_LINKS: Final = 128
"""Links of one span, as OpenTelemetry's own limit is; what is over isn't linked, and counted."""
MAX_NAME: Final = 128
"""Characters of a stream's name; one that is refused may be longer."""

_Key = tuple[str, str, str]
"""Stream, source and id."""
_Place = tuple[int, int]
"""A trace and a span of it; a whole `SpanContext` can't be a key."""

_w3c = TraceContextTextMapPropagator()


class _Origin(msgspec.Struct):
    traceparent: str | None = None
    tracestate: str | None = None


class _Payload(msgspec.Struct):
    events: list[_Origin]


_decode_origins = msgspec.json.Decoder(list[_Origin] | _Origin).decode


class Outlet(Protocol):
    """Where spans leave the process."""

    def statistics(self) -> dict[str, int]:
        """Tell what became of them."""
        ...

    def close(self) -> None:
        """Send off the last ones; blocks for a limited time."""
        ...


class Publish:
    """A publish under way.

    Its span is begun late, with the time of its beginning: it may be its events that tell its trace.
    """

    def __init__(self, spans: Spans, stream: str | None, parent: Context | None) -> None:
        """Note the time; `parent` is what the request said, None where it said nothing."""
        self._spans = spans
        self._stream = stream
        self._parent = parent
        self._links: dict[_Place, SpanContext] = {}
        self._span: Span | None = None
        self._token: Token[Publish | None] | None = None
        self._began = time.time_ns()

    def __enter__(self) -> Self:
        """Be under way."""
        self._token = _UNDER_WAY.set(self)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End the span, with what went wrong."""
        if self._token is not None:
            _UNDER_WAY.reset(self._token)
        _end(self.span, error)

    def came_from(self, origins: Iterable[_Origin]) -> None:
        """Note where the events came from, the first to say so first; up to the limit of links."""
        for origin in origins:
            if origin.traceparent is not None:
                said = {"traceparent": origin.traceparent, "tracestate": origin.tracestate or ""}
                self._came_from(trace.get_current_span(_w3c.extract(said, Context())).get_span_context())

    def _came_from(self, origin: SpanContext) -> None:
        if not origin.is_valid:
            self._spans.counts["origins_unreadable"] += 1
        elif self._parent is None:
            self._parent = _under(origin)
        elif _place(origin) in {
            *self._links,
            _place(trace.get_current_span(self._parent).get_span_context()),
        }:
            return
        elif len(self._links) < MAX_LINKS:
            self._links[_place(origin)] = origin
        else:
            self._spans.counts["links_over"] += 1

    @property
    def span(self) -> Span:
        """The span, begun when it is first asked for."""
        if self._span is None:
            self._span = self._spans.begin(
                "publish",
                self._stream,
                context=self._parent or _now(),
                kind=SpanKind.SERVER,
                links=[Link(origin) for origin in self._links.values()],
                start_time=self._began,
            )
        return self._span


_UNDER_WAY: Final[ContextVar[Publish | None]] = ContextVar("steadcast_publish", default=None)


class Append:
    """An append under way; its events are remembered until they are delivered."""

    def __init__(self, spans: Spans, span: Span, keys: list[_Key]) -> None:
        """Follow an append of the events that `keys` name."""
        self._spans = spans
        self._span = span
        self._keys = keys

    def __enter__(self) -> Self:
        """Remember the events, where their trace is kept."""
        if self._span.get_span_context().trace_flags.sampled:
            self._spans.remember(self._keys, self._span.get_span_context())
        return self

    def answered(self, receipts: Sequence[Receipt]) -> None:
        """Note the positions; a duplicate isn't delivered again."""
        fresh = {key for key, receipt in zip(self._keys, receipts, strict=True) if not receipt.duplicate}
        self._spans.forget(set(self._keys) - fresh, self._span.get_span_context())
        self._span.set_attribute("steadcast.duplicates", len(receipts) - len(fresh))
        self._span.set_attribute("steadcast.epoch", receipts[-1].position.epoch)
        self._span.set_attribute("steadcast.upto", receipts[-1].position.offset)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End the span, with what went wrong."""
        if error is not None:
            self._spans.forget(self._keys, self._span.get_span_context())
        _end(self._span, error)


class Delivery:
    """A flush under way."""

    def __init__(self, span: Span) -> None:
        """Follow it as a span."""
        self._span = span

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End the span, with what went wrong."""
        _end(self._span, error)


class Replay(Delivery):
    """A page under way."""

    def read(self, batch: Batch, receivers: int) -> None:
        """Note what the page holds."""
        self._span.set_attribute("messaging.batch.message_count", len(batch.events))
        self._span.set_attribute("steadcast.epoch", batch.epoch)
        self._span.set_attribute("steadcast.upto", batch.upto)
        self._span.set_attribute("steadcast.receivers", receivers)


class Spans:
    """The `Tracer` that speaks OpenTelemetry.

    `counts`: `spans` that were begun. Of events whose append is remembered: `remembered` = `linked` (to their
    delivery) + `forgotten` (not appended, or a duplicate) + `evicted` + pending. Besides: `unlinked` events
    that were delivered and not known, `links_over` the limit of a span, `origins_unreadable`. Those
    of flushes are told at `Unacked`.
    """

    def __init__(self, provider: trace.TracerProvider, exporting: Outlet | None = None) -> None:
        """Make spans with a provider that stays the caller's; `exporting` is closed with this."""
        self.counts: Counter[str] = Counter()
        self._tracer = provider.get_tracer("steadcast", __version__)
        self._appends: OrderedDict[_Key, SpanContext] = OrderedDict()
        self._unacked = Unacked(self.counts)
        self._exporting = exporting

    def publish(self, stream: str | None, headers: Mapping[str, str] | None = None) -> Publish:
        """Follow a publish: under the span of its request where there is one, else as its headers say.

        What is current where there are no headers, over Socket.IO, is the connection's at best: events that
        name a trace know better.
        """
        here = headers is not None and trace.get_current_span().get_span_context().is_valid
        context = None if here else propagate.extract(headers or {}, Context())
        told = context is not None and trace.get_current_span(context).get_span_context().is_valid
        publish = Publish(self, stream, _now() if here else context if told else None)
        if headers is not None and "ce-traceparent" in headers:
            publish.came_from([_Origin(headers["ce-traceparent"], headers.get("ce-tracestate"))])
        return publish

    def origins(self, told: object) -> None:
        """Note the traces that events name; what can't be read is counted, and refuses nothing."""
        publish = _UNDER_WAY.get()
        if publish is None or (isinstance(told, bytes) and b'"traceparent"' not in told):
            return
        try:
            publish.came_from(_origins(told))
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            self.counts["origins_unreadable"] += 1

    def append(self, stream: str, events: Sequence[Event]) -> Append | Nothing:
        """Follow an append; one of nothing is a probe, and isn't followed."""
        if not events:
            return NOTHING
        publish = _UNDER_WAY.get()
        context = _now() if publish is None else trace.set_span_in_context(publish.span, Context())
        span = self.begin("append", stream, context=context, kind=SpanKind.INTERNAL, events=len(events))
        return Append(self, span, [(stream, event.source, event.id) for event in events])

    def deliver(self, batch: Batch, receivers: int) -> Delivery | Nothing:
        """Follow a flush; one that nobody takes isn't followed."""
        appends = self._known(batch)
        if not receivers:
            return NOTHING
        self.counts["links_over"] += max(0, len(appends) - MAX_LINKS)
        span = self.begin(
            "deliver",
            batch.stream,
            context=_under(appends[0]) if appends else Context(),
            kind=SpanKind.PRODUCER,
            events=len(batch.events),
            links=[Link(each) for each in appends[:MAX_LINKS]],
        )
        span.set_attribute("steadcast.lane", str(batch.lane))
        span.set_attribute("steadcast.epoch", batch.epoch)
        span.set_attribute("steadcast.after", batch.after)
        span.set_attribute("steadcast.upto", batch.upto)
        span.set_attribute("steadcast.receivers", receivers)
        self._follow_acks(batch, receivers, span)
        return Delivery(span)

    def _follow_acks(self, batch: Batch, receivers: int, delivery: Span) -> None:
        context = delivery.get_span_context()
        if context.trace_flags.sampled:
            span = self.begin("ack", batch.stream, context=_under(context), kind=SpanKind.INTERNAL)
            span.set_attribute("steadcast.lane", str(batch.lane))
            span.set_attribute("steadcast.upto", batch.upto)
            span.set_attribute("steadcast.receivers", receivers)
            self._unacked.add(batch, receivers, span)

    def ack(self, ack: Ack, before: int) -> None:
        """Count an ack for the flushes that it covers."""
        self._unacked.ack(ack, before)

    def replay(self, stream: str, lane: Lane, after: int) -> Replay:
        """Follow the reading of a page."""
        span = self.begin("replay", stream, context=Context(), kind=SpanKind.INTERNAL)
        span.set_attribute("steadcast.lane", str(lane))
        span.set_attribute("steadcast.after", after)
        return Replay(span)

    def statistics(self) -> dict[str, int]:
        """Tell what was counted here, and of spans on their way out."""
        exported = self._exporting.statistics() if self._exporting is not None else {}
        return {
            **self.counts,
            "pending": len(self._appends),
            "flushes_pending": len(self._unacked),
            **exported,
        }

    async def aclose(self) -> None:
        """Send off what is still held, in time that is limited."""
        self._unacked.end()
        if self._exporting is not None:
            await asyncio.to_thread(self._exporting.close)

    # Spans

    def begin(self, name: str, stream: str | None, *, events: int | None = None, **more: Any) -> Span:
        """Begin a span; `more` is what OpenTelemetry's `start_span` takes."""
        self.counts["spans"] += 1
        attributes: dict[str, str | int] = {"messaging.system": "steadcast", "messaging.operation.name": name}
        if stream is not None:
            attributes["messaging.destination.name"] = stream[:MAX_NAME]
        if events is not None:
            attributes["messaging.batch.message_count"] = events
        return self._tracer.start_span(name, attributes=attributes, **more)

    def remember(self, keys: Iterable[_Key], append: SpanContext) -> None:
        """Remember which append events are in; the oldest go where there are too many."""
        for key in keys:
            if key not in self._appends:
                self._appends[key] = append
                self.counts["remembered"] += 1
        while len(self._appends) > REMEMBERED:
            self._appends.popitem(last=False)
            self.counts["evicted"] += 1

    def forget(self, keys: Iterable[_Key], append: SpanContext) -> None:
        """Forget what of an append isn't delivered."""
        for key in keys:
            if self._appends.get(key) == append:
                del self._appends[key]
                self.counts["forgotten"] += 1

    def _known(self, batch: Batch) -> list[SpanContext]:
        """Take the appends of a batch's events, each once, in their order."""
        found = [
            self._appends.pop((batch.stream, entry.event.source, entry.event.id), None)
            for entry in batch.events
        ]
        appends = [append for append in found if append is not None]
        self.counts["linked"] += len(appends)
        self.counts["unlinked"] += len(found) - len(appends)
        return list({_place(append): append for append in appends}.values())


def _origins(told: object) -> Iterator[_Origin]:
    if isinstance(told, bytes):
        found = _decode_origins(told)
        yield from found if isinstance(found, list) else [found]
    else:
        # A payload that was read into structs has none of these: they hold the attributes of ours alone.
        yield from msgspec.convert(told, _Payload, from_attributes=True).events


def _place(context: SpanContext) -> _Place:
    return context.trace_id, context.span_id


def _now() -> Context:
    """Give the context of what the application follows at this moment."""
    return trace.set_span_in_context(trace.get_current_span(), Context())


def _under(parent: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def _end(span: Span, error: BaseException | None) -> None:
    if error is not None:
        code = error.code if isinstance(error, SteadcastError) else type(error).__name__
        span.set_attribute("error.type", code)
        span.set_status(Status(StatusCode.ERROR, code))
    span.end()
