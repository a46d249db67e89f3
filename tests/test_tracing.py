"""A publish is followed through to its delivery, by OpenTelemetry's own SDK, on a real server."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest
import uvicorn
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from steadcast import Steadcast
from steadcast.config import Settings
from steadcast.engines.memory import MemoryEngine
from steadcast.errors import EngineUnavailable, InvalidSettings
from steadcast.event import Batch, Lane
from steadcast.socketio.websocket import DirectWebSocket
from steadcast.testing import FaultyEngine
from steadcast.tracing import acks
from steadcast.tracing import spans as tracing
from steadcast.tracing.export import Exporting, open_tracer
from steadcast.tracing.spans import Spans
from steadcast.wire import Ack
from tests.support.asgi import served
from tests.support.house import Peer, event
from tests.support.plain import PLAIN
from tests.support.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

TRACE = 0x0AF7651916CD43DD8448EB211C80319C
OTHER = 0x1111111111111111111111111111AAAA


def traceparent(trace: int = TRACE, span: int = 7) -> str:
    return f"00-{trace:032x}-{span:016x}-01"


class House:
    """Steadcast that listens, whose spans stay in memory."""

    def __init__(self, *, engine: Any = None, sampler: Any = None, tracer: Any = None) -> None:
        self.kept = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.kept))
        self.spans = Spans(self.provider)
        self.cast = Steadcast(
            engine=engine or MemoryEngine(epoch="e1"), settings=Settings(), tracer=tracer or self.spans
        )
        self.url = ""

    async def post(self, body: Any, stream: str = "s", **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(verify=PLAIN) as client:
            return await client.post(
                f"{self.url}/v1/streams/{stream}/events", json=body, headers=headers, timeout=10
            )

    def named(self, name: str) -> list[ReadableSpan]:
        """Give the spans of a name, without those of the announcement of a new stream."""
        return [
            span
            for span in self.kept.get_finished_spans()
            if span.name == name and told(span)["messaging.destination.name"] != "steadcast.streams"
        ]

    async def until(self, name: str, count: int = 1) -> list[ReadableSpan]:
        async with asyncio.timeout(30):
            while len(self.named(name)) < count:
                await asyncio.sleep(0.005)
        return self.named(name)


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def trace_of(span: ReadableSpan) -> int:
    return span.get_span_context().trace_id  # type: ignore[union-attr] # an ended span has one


def id_of(span: ReadableSpan) -> int:
    return span.get_span_context().span_id  # type: ignore[union-attr] # as above


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def links_of(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


@asynccontextmanager
async def listening(house: House) -> AsyncIterator[House]:
    config = uvicorn.Config(house.cast, port=0, ws=DirectWebSocket, log_config=None, lifespan="on")
    try:
        async with served(config) as port:
            house.url = f"http://127.0.0.1:{port}"
            try:
                yield house
            finally:
                await house.cast.drain((0.0, 0.1))
    finally:
        await house.cast.sio.shutdown()
        house.provider.shutdown()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with listening(House()) as running:
        yield running


@asynccontextmanager
async def subscribed(house: House, stream: str = "s") -> AsyncIterator[Peer]:
    peer = Peer()
    await peer.connect(house.url)
    await peer.call("subscribe", {"stream": stream})
    # What comes from here on is live: a session has joined its group where a first event was delivered.
    await house.post(event(0), stream)
    await peer.until(peer.events)
    house.kept.clear()
    try:
        yield peer
    finally:
        await peer.close()


# From the publish to the delivery


async def test_a_publish_belongs_to_the_trace_of_its_request_and_the_delivery_is_linked(house: House) -> None:
    async with subscribed(house):
        assert (await house.post(event(1), traceparent=traceparent())).status_code == 200
        [delivery] = await house.until("deliver")
        [publish], [append] = house.named("publish"), house.named("append")
    assert {trace_of(span) for span in (publish, append, delivery)} == {TRACE}
    assert (parent_of(publish), parent_of(append)) == (7, id_of(publish))
    assert links_of(delivery) == [id_of(append)]
    assert told(append) == {
        "messaging.system": "steadcast",
        "messaging.operation.name": "append",
        "messaging.destination.name": "s",
        "messaging.batch.message_count": 1,
        "steadcast.duplicates": 0,
        "steadcast.epoch": "e1",
        "steadcast.upto": 2,
    }
    assert (
        told(delivery).items()
        >= {
            "messaging.batch.message_count": 1,
            "steadcast.lane": "normal",
            "steadcast.after": 1,
            "steadcast.upto": 2,
            "steadcast.receivers": 1,
        }.items()
    )


async def test_a_publish_over_socketio_belongs_to_the_trace_that_its_event_names(house: House) -> None:
    async with subscribed(house) as peer:
        sent = [event(1, traceparent=traceparent()), event(2, traceparent=traceparent(OTHER, 8)), event(3)]
        assert (await peer.call("publish", {"stream": "s", "events": sent}))["ok"]
        [delivery] = await house.until("deliver")
        [publish], [append] = house.named("publish"), house.named("append")
    assert {trace_of(span) for span in (publish, append, delivery)} == {TRACE}
    assert links_of(publish) == [8]
    assert links_of(delivery) == [id_of(append)]
    assert not any("traceparent" in each for each in peer.events())


async def test_a_publish_over_socketio_that_names_no_trace_begins_one(house: House) -> None:
    async with subscribed(house) as peer:
        assert (await peer.call("publish", {"stream": "s", "events": [event(1)]}))["ok"]
        [publish] = await house.until("publish")
    assert (parent_of(publish), links_of(publish)) == (None, [])
    assert "origins_unreadable" not in house.spans.statistics()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (event(1, specversion="1.0", traceparent=traceparent()), {}),
        ([event(1, traceparent=traceparent())], {"content-type": "application/cloudevents-batch+json"}),
        (
            {"n": 1},
            {"ce-id": "1", "ce-source": "s", "ce-type": "t", "ce-specversion": "1.0",
             "ce-traceparent": traceparent()},
        ),
    ],
    ids=["structured", "batched", "binary"],
)  # fmt: skip
async def test_without_a_header_the_trace_that_a_cloudevent_names_counts(
    house: House, body: Any, headers: dict[str, str]
) -> None:
    assert (await house.post(body, **headers)).status_code == 200
    [publish] = await house.until("publish")
    assert (trace_of(publish), parent_of(publish)) == (TRACE, 7)


async def test_the_trace_of_the_request_goes_before_that_of_the_event_which_is_linked(house: House) -> None:
    named = [event(1, traceparent=traceparent(OTHER, 8)), event(2, traceparent=traceparent(OTHER, 8))]
    await house.post(named, traceparent=traceparent())
    [publish] = await house.until("publish")
    assert (trace_of(publish), links_of(publish)) == (TRACE, [8])


async def test_a_trace_that_cannot_be_read_refuses_nothing(house: House) -> None:
    assert (await house.post(event(1, traceparent=17))).status_code == 200
    assert (await house.post(event(2, traceparent="of no form"))).status_code == 200
    assert (await house.post(event(3), traceparent="of no form")).status_code == 200
    await house.until("publish", 3)
    assert house.spans.statistics()["origins_unreadable"] == 2


async def test_a_flush_of_several_publishes_is_linked_to_each_of_them(house: House) -> None:
    async with subscribed(house):
        await asyncio.gather(*(house.post(event(n)) for n in range(1, 21)))
        async with asyncio.timeout(30):
            while sum(len(span.links) for span in house.named("deliver")) < 20:
                await asyncio.sleep(0.005)
    linked = [each for span in house.named("deliver") for each in links_of(span)]
    assert sorted(linked) == sorted(id_of(span) for span in house.named("append"))


async def test_a_publish_from_inside_is_under_what_the_application_follows(house: House) -> None:
    with house.provider.get_tracer("application").start_as_current_span("checkout") as checkout:
        await house.cast.publish("s", type="order.paid")
    [append] = await house.until("append")
    assert parent_of(append) == checkout.get_span_context().span_id


def test_a_span_that_the_application_made_for_the_request_goes_before_its_headers() -> None:
    house = House()
    with house.provider.get_tracer("application").start_as_current_span("POST") as request:
        with house.spans.publish("s", {"traceparent": traceparent()}):
            house.spans.origins(b'{"traceparent": "%s"}' % traceparent(OTHER, 8).encode())
        with house.spans.publish("s"):
            house.spans.origins({"events": [{"traceparent": traceparent(OTHER, 8)}]})
    over_http, over_socketio = house.named("publish")
    assert (parent_of(over_http), links_of(over_http)) == (request.get_span_context().span_id, [8])
    assert (parent_of(over_socketio), links_of(over_socketio)) == (8, [])


async def test_work_in_the_background_is_not_taken_for_that_of_the_first_publisher() -> None:
    house = House()
    with house.provider.get_tracer("application").start_as_current_span("checkout"):
        await house.cast.publish("s", type="order.paid")  # this starts it
    house.cast.broadcast("s", type="order.sent")
    [_, sent] = await house.until("append", 2)
    assert parent_of(sent) is None
    await house.cast.aclose()


async def test_a_delivery_is_followed_until_it_is_acked(house: House) -> None:
    async with subscribed(house) as peer:
        await house.post(event(1))
        [delivery] = await house.until("deliver")
        batch = peer.named("batch")[-1]
        assert house.named("ack") == []
        await peer.sio.emit("ack", {**{k: batch[k] for k in ("stream", "lane", "epoch")}, "offset": 2})
        [_, ack] = await house.until("ack", 2)  # the first delivery's, which nobody had acked, ends too
    assert (trace_of(ack), parent_of(ack)) == (trace_of(delivery), id_of(delivery))
    assert told(ack)["steadcast.acked"] == told(ack)["steadcast.receivers"] == 1
    counts = house.spans.statistics()
    assert (counts["flushes"], counts["acked"], counts["flushes_pending"]) == (2, 2, 0)


async def test_what_is_read_for_those_who_are_behind_is_followed_page_by_page(house: House) -> None:
    await house.post([event(n) for n in range(3)])
    peer = Peer()
    await peer.connect(house.url)
    await peer.call("subscribe", {"stream": "s", "from": "start"})
    [replay] = await house.until("replay")
    await peer.close()
    assert parent_of(replay) is None
    assert (
        told(replay).items()
        >= {"messaging.batch.message_count": 3, "steadcast.after": 0, "steadcast.receivers": 1}.items()
    )


# What goes wrong


class Broken:
    """A tracer that raises wherever it is called, or else in the contexts that it gives."""

    def __init__(self, *, late: bool) -> None:
        self._late = late
        self.publish = self.append = self.deliver = self.replay = self.follow
        self.origins = self.ack = self.statistics = self.fail

    def follow(self, *_: object) -> BrokenContext:
        return BrokenContext() if self._late else self.fail()

    def fail(self, *_: object) -> Any:
        raise ValueError("on purpose")

    async def aclose(self) -> None:
        self.fail()


class BrokenContext:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> bool:
        raise ValueError("on purpose")


@pytest.mark.parametrize("late", [False, True])
async def test_a_tracer_that_fails_breaks_nothing_and_is_counted(late: bool) -> None:
    async with listening(House(tracer=Broken(late=late))) as house, subscribed(house) as peer:
        assert (await house.post(event(1))).status_code == 200
        assert (await house.post({"id": "x"})).status_code == 400
        assert (await peer.call("publish", {"stream": "s", "events": [event(2)]}))["ok"]
        await peer.until(lambda: [each["id"] for each in peer.events()] == ["e0", "e1", "e2"])
        await peer.sio.emit("ack", {"stream": "s", "lane": "normal", "epoch": "e1", "offset": 3})
        hub = house.cast.hub
        await peer.until(lambda: hub.counts["acks"] == 1)
        before = house.cast.tracer.statistics()["failed"]
        assert before > 5
    await house.cast.tracer.aclose()
    assert house.cast.tracer.statistics()["failed"] > before


async def test_a_refused_publish_says_why() -> None:
    engine = FaultyEngine(MemoryEngine())
    async with listening(House(engine=engine)) as house:
        assert (await house.post([event(1), {"id": "x"}])).status_code == 400
        [refused] = await house.until("publish")
        assert (told(refused)["error.type"], refused.status.is_ok) == ("invalid_event", False)
        engine.append_error = EngineUnavailable("away")
        assert (await house.post(event(1))).status_code == 503
        [failed] = await house.until("append")
        assert told(failed)["error.type"] == "engine_unavailable"
        assert house.spans.statistics()["pending"] == 0


# Bounds


async def test_what_is_remembered_is_bounded_and_every_event_is_counted(
    monkeypatch: pytest.MonkeyPatch, house: House
) -> None:
    monkeypatch.setattr(tracing, "REMEMBERED", 3)
    async with subscribed(house):
        before = house.spans.statistics()
        await house.post([event(n) for n in range(1, 9)])
        await house.until("deliver")
        await house.post([event(1), event(9), event(9)])  # the first and the last are duplicates
        await house.until("deliver", 2)
        await house.post([event(n) for n in range(20, 25)], stream="unseen")
    after = house.spans.statistics()
    counted = {name: after.get(name, 0) - before.get(name, 0) for name in after}
    assert counted["remembered"] == sum(
        counted[name] for name in ("linked", "forgotten", "evicted", "pending")
    )
    assert counted["evicted"] >= 5
    assert counted["unlinked"] >= 5
    assert counted["forgotten"] == 1
    assert after["pending"] == 3


def test_flushes_that_not_all_ack_are_bounded_and_every_one_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acks, "UNACKED", 3)
    house = House()
    for n in range(1, 8):
        batch = Batch("s", Lane.NORMAL, "e1", n - 1, n, ())
        with house.spans.deliver(batch, 2):
            pass
    house.spans.ack(Ack("s", Lane.NORMAL, "e1", 6), 0)
    house.spans.ack(Ack("s", Lane.NORMAL, "other", 6), 0)
    house.spans.ack(Ack("s", Lane.NORMAL, "e1", 6), 5)
    counts = house.spans.statistics()
    assert (counts["flushes"], counts["acked"], counts["unacked"], counts["flushes_pending"]) == (7, 1, 5, 1)
    assert [told(span)["steadcast.acked"] for span in house.named("ack")] == [0, 0, 0, 0, 1, 2]


async def test_the_links_of_a_delivery_are_bounded(monkeypatch: pytest.MonkeyPatch, house: House) -> None:
    monkeypatch.setattr(tracing, "MAX_LINKS", 2)
    async with subscribed(house):
        sent = [event(n, traceparent=traceparent(OTHER, n)) for n in range(1, 6)]
        await house.post(sent)
        [publish] = await house.until("publish")
    assert links_of(publish) == [2, 3]
    assert house.spans.statistics()["links_over"] == 2


async def test_what_is_not_sampled_is_not_remembered() -> None:
    async with listening(House(sampler=ParentBased(ALWAYS_OFF))) as house:
        assert (await house.post(event(1))).status_code == 200
        await house.post(event(2), traceparent=traceparent())
        await house.until("append")
        assert house.spans.statistics()["remembered"] == 1


class Refusing(SpanExporter):
    """An exporter that refuses."""

    def export(self, _: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.FAILURE


def test_spans_that_wait_for_their_export_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    exporting = Exporting(Refusing())
    exporting._batch_processor._worker_awaken.set = lambda: None  # type: ignore[method-assign]
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(exporting)
    for n in range(20):
        provider.get_tracer("t").start_span(str(n)).end()
    told = {"exported": 0, "export_failed": 0, "export_dropped": 12, "export_queued": 8}
    assert exporting.statistics() == told
    provider.force_flush()
    assert exporting.statistics() == told | {"export_failed": 8, "export_queued": 0}
    del exporting._batch_processor._worker_awaken.set
    exporting.close()


# The setting


def test_the_exporter_is_chosen_by_opentelemetrys_own_variables_and_gets_the_last_spans(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, STEADCAST_OTEL="true", OTEL_TRACES_EXPORTER="console") as server:
        counted = event(1, specversion="1.0", traceparent=traceparent())
        assert server.publish("s", counted).status_code == 200
        assert server.get("/v1/stats").json()["tracing"]["spans"] >= 2
        assert server.kill(signal.SIGTERM) == 0
        log = server.log()
    assert '"service.name": "steadcast"' in log
    assert log.count(f'"trace_id": "0x{TRACE:032x}"') == 2


async def test_the_provider_of_the_application_is_used_where_it_has_set_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    kept = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    async with Steadcast(engine=MemoryEngine(), settings=Settings(otel=True)) as cast:
        await cast.publish("s", type="t")
    assert "append" in [span.name for span in kept.get_finished_spans()]


def test_an_exporter_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    with pytest.raises(InvalidSettings, match=r"pip install opentelemetry-exporter-otlp-proto-http"):
        open_tracer("n1")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tracing = ("opentelemetry", "steadcast.tracing")
    for name in [name for name in sys.modules if name.startswith(tracing)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(InvalidSettings, match=r"pip install 'steadcast\[otel\]'"):
        Steadcast(engine="memory:", settings=Settings(otel=True))


def test_serving_without_it_imports_nothing_of_opentelemetry(tmp_path: Path) -> None:
    program = """
import asyncio, sys
import steadcast.serve
from steadcast.app import Steadcast
from steadcast.config import Settings

async def main():
    async with Steadcast(engine="memory:", settings=Settings()) as cast:
        await cast.publish("s", type="t")

asyncio.run(main())
print(*sorted(name for name in sys.modules if name.startswith(("opentelemetry", "steadcast.tracing"))))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == ""
