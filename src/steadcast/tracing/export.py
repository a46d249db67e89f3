"""Where OpenTelemetry's spans leave the process, and who says so: its own OTEL_* variables."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.environment_variables import OTEL_TRACES_EXPORTER
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from steadcast.errors import InvalidSettings
from steadcast.tracing.spans import Spans

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOSE_LIMIT: Final = 3_000
"""Milliseconds that the last spans may take to be sent when the server ends."""


class _Counted(SpanExporter):
    """An exporter that is counted; `taken` are spans that left the queue, `failed` those not taken in."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.taken = 0
        self.failed = 0
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        self.failed += len(spans)
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.failed -= len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class Exporting(BatchSpanProcessor):
    """OpenTelemetry's queue of spans, counted: `OTEL_BSP_MAX_QUEUE_SIZE` of them, the oldest go first."""

    def __init__(self, exporter: SpanExporter) -> None:
        """Export in the background, as the OTEL_BSP_* variables say."""
        self._handed = 0
        self._dropped = 0
        self._exporter = _Counted(exporter)
        super().__init__(self._exporter)

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span that has ended."""
        context = span.get_span_context()
        if context is not None and context.trace_flags.sampled:
            self._dropped += self._queued >= self._batch_processor._max_queue_size  # noqa: SLF001 - the SDK drops without a number that could be asked for
            self._handed += 1
        super().on_end(span)

    @property
    def _queued(self) -> int:
        return self._handed - self._dropped - self._exporter.taken

    def close(self) -> None:
        """Export what is queued, and end; blocks for a limited time."""
        self._batch_processor.shutdown(CLOSE_LIMIT)

    def statistics(self) -> dict[str, int]:
        """Tell what became of the spans: `exported`, `export_failed`, `export_dropped`, `export_queued`."""
        return {
            "exported": self._exporter.taken - self._exporter.failed,
            "export_failed": self._exporter.failed,
            "export_dropped": self._dropped,
            "export_queued": self._queued,
        }


def open_tracer(node: str) -> Spans:
    """Follow with the provider that the application has set, or else with one made by the OTEL_* variables.

    Raises `InvalidSettings` where the exporter that is to be used isn't installed.
    """
    given = trace.get_tracer_provider()
    if not isinstance(given, trace.ProxyTracerProvider):
        return Spans(given)
    own = Resource({"service.name": "steadcast", "service.instance.id": node})
    provider = TracerProvider(
        resource=Resource.create().merge(own).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    exporting = _exporting(os.environ.get(OTEL_TRACES_EXPORTER) or "otlp")
    if exporting is not None:
        provider.add_span_processor(exporting)
    return Spans(provider, exporting)


def _exporting(name: str) -> Exporting | None:
    if name == "none":
        return None
    found = entry_points(group="opentelemetry_traces_exporter", name=_entry(name))
    if not found:
        why = (
            f"no exporter {name!r} is installed: pip install opentelemetry-exporter-otlp-proto-http,"
            f" or name another one in {OTEL_TRACES_EXPORTER}"
        )
        raise InvalidSettings(f"otel: {why}", wrong={"otel": (why, True)})
    exporter: SpanExporter = next(iter(found)).load()()
    return Exporting(exporter)


def _entry(name: str) -> str:
    """Give the name under which an exporter is found; OTLP goes over HTTP where nothing else is said."""
    if name != "otlp":
        return name
    said = os.environ.get(OTEL_EXPORTER_OTLP_TRACES_PROTOCOL) or os.environ.get(OTEL_EXPORTER_OTLP_PROTOCOL)
    return "otlp_proto_grpc" if said == "grpc" else "otlp_proto_http"
