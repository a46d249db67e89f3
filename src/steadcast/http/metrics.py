"""Prometheus metrics: what this floor measures itself, and the numbers of everybody else's statistics.

Each context has a registry of its own, so that two servers in one process don't mix. Names:

- `steadcast_http_requests_total{route, method, status}`, `steadcast_http_request_seconds{route}`;
- `steadcast_<kind>_total`: what the hub counts (`accepted`, `duplicates`, `deliveries`, …) and
  `steadcast_http_<kind>_total`: what this floor counts;
- `steadcast_head`, `steadcast_trim_mark`, `steadcast_retained_events`, `steadcast_retained_bytes`
  `{stream, lane}`, for the first `LISTED` streams by name; how many aren't listed is a metric too;
- `steadcast_<path>`: every number of the application's statistics, the path joined with `_`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from steadcast.engines.base import Description

LISTED: Final = 500
"""Streams with metrics of their own, at most: a scrape stays small whatever names publishers think of."""
DEEPEST: Final = 4
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Requests:
    """What this floor measures of each request, and the registry that it is in."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._count = Counter(
            "steadcast_http_requests",
            "HTTP requests by route, method and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "steadcast_http_request_seconds",
            "Seconds until a response was sent.",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )

        self._counted: dict[tuple[str, str, int], Counter] = {}
        self._timed: dict[str, Histogram] = {}

    def observe(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """Count a request; `seconds` is None for responses that never end by themselves."""
        key = (route, method, status)
        counted = self._counted.get(key)
        if counted is None:  # kept, as many as there are metrics: to look one up by its labels takes longer
            counted = self._counted[key] = self._count.labels(route, method, str(status))
        counted.inc()
        if seconds is not None:
            timed = self._timed.get(route)
            if timed is None:
                timed = self._timed[route] = self._seconds.labels(route)
            timed.observe(seconds)


def render(
    requests: Requests,
    *,
    accept: str,
    hub: Mapping[str, Any],
    http: Mapping[str, int],
    stats: Mapping[str, Any],
    description: Description | None,
) -> tuple[bytes, str]:
    """Give the exposition and its content type, in the format that `accept` asks for."""
    encoder, content_type = choose_encoder(accept)
    gauges = {key: value for key, value in hub.items() if key != "counts"}
    counts = hub.get("counts", {})
    families = [
        *_counters("steadcast", counts if isinstance(counts, dict) else {}),
        *_counters("steadcast_http", http),
        *_numbers("steadcast", gauges | dict(stats), 0),
        *([] if description is None else _streams(description)),
    ]
    registry = _Once(requests.registry, families)
    return encoder(registry), content_type


class _Once:
    """A registry's families, then those that were made for this one scrape, each name once."""

    def __init__(self, registry: CollectorRegistry, families: Iterable[Metric]) -> None:
        self._registry = registry
        self._families = families

    def collect(self) -> Iterator[Metric]:
        seen: set[str] = set()
        for family in (*self._registry.collect(), *self._families):
            if family.name not in seen:
                seen.add(family.name)
                yield family


def _counters(prefix: str, counts: Mapping[str, Any]) -> Iterator[Metric]:
    for key, value in sorted(counts.items()):
        if _NAME.fullmatch(key) and _is_number(value):
            yield CounterMetricFamily(f"{prefix}_{key}", f"Count of {key.replace('_', ' ')}.", value)


def _numbers(prefix: str, values: Mapping[Any, Any], depth: int) -> Iterator[Metric]:
    for key, value in values.items():
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            continue
        name = f"{prefix}_{key}"
        if isinstance(value, dict) and depth < DEEPEST:
            yield from _numbers(name, value, depth + 1)
        elif _is_number(value):
            yield GaugeMetricFamily(name, f"{name.removeprefix('steadcast_')} as in /v1/stats.", value)


def _streams(description: Description) -> list[Metric]:
    labels = ("stream", "lane")
    head = GaugeMetricFamily("steadcast_head", "Last offset of a lane.", labels=labels)
    trimmed = GaugeMetricFamily("steadcast_trim_mark", "Offset up to which events are gone.", labels=labels)
    events = GaugeMetricFamily("steadcast_retained_events", "Events retained in a lane.", labels=labels)
    size = GaugeMetricFamily("steadcast_retained_bytes", "Bytes retained in a lane.", labels=labels)
    names = sorted(description.streams)
    for stream in names[:LISTED]:
        for lane, state in description.streams[stream].items():
            where = (stream, str(lane))
            head.add_metric(where, state.head)
            trimmed.add_metric(where, state.trimmed)
            events.add_metric(where, state.events)
            size.add_metric(where, state.bytes)
    hidden = max(0, len(names) - LISTED)
    return [
        head,
        trimmed,
        events,
        size,
        GaugeMetricFamily("steadcast_streams", "Streams known.", len(names)),
        GaugeMetricFamily("steadcast_streams_unlisted", "Streams without metrics of their own.", hidden),
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
