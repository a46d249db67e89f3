"""Feeds over real sockets: order, ids, resuming, gaps, parked and vanished readers, ends."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from steadcast.errors import EngineUnavailable, InvalidRequest
from steadcast.event import Lane
from steadcast.http import sse
from steadcast.http.context import Limits
from steadcast.http.sse import parse_id
from tests.support.http_serving import Client, Server, SickEngine, an_event, serving, until

if TYPE_CHECKING:
    from collections.abc import Iterator

QUICK = Limits(keep_alive=0.1, park_after=0.2, stalled_after=10.0, retry=0.05)


class Told(NamedTuple):
    event: str
    data: Any
    id: str | None


class Reader:
    """An EventSource on a plain socket, which reads only when it is asked to."""

    def __init__(
        self, port: int, path: str, headers: dict[str, str] | None = None, *, buffer: int = 0
    ) -> None:
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(20.0)
        self.socket.connect(("127.0.0.1", port))
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers = dict(self._headers())
        self.last_id: str | None = None
        self.retry: int | None = None
        self.comments = 0
        self._text = b""

    def _headers(self) -> Iterator[tuple[str, str]]:
        while (line := self.file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            yield name.lower(), value.strip()

    def _block(self) -> bytes | None:
        while b"\n\n" not in self._text:
            size = int(self.file.readline().strip() or b"0", 16)
            if size == 0:
                return None
            self._text += self.file.read(size)
            self.file.readline()
        block, _, self._text = self._text.partition(b"\n\n")
        return block

    def next(self) -> Told | None:
        """Give the next event, None at the end of the response."""
        while (block := self._block()) is not None:
            fields = [line.partition(": ") for line in block.decode().split("\n")]
            self.comments += block.startswith(b":")
            told = {name: value for name, _, value in fields if name}
            self.last_id = told.get("id", self.last_id)
            self.retry = int(told["retry"]) if "retry" in told else self.retry
            if "data" in told:
                return Told(told.get("event", "message"), json.loads(told["data"]), told.get("id"))
        return None

    def events(self, count: int) -> list[Told]:
        found: list[Told] = []
        while len(found) < count:
            told = self.next()
            assert told is not None, "the feed ended"
            found.append(told)
        return found

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@contextlib.contextmanager
def reading(server: Server, path: str, *, buffer: int = 0, **headers: str) -> Iterator[Reader]:
    reader = Reader(server.port, path, {k.replace("_", "-"): v for k, v in headers.items()}, buffer=buffer)
    try:
        yield reader
    finally:
        reader.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(limits=QUICK) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    client = Client(server.port)
    yield client
    client.close()


def ids(told: list[Told]) -> list[str]:
    return [each.data["id"] for each in told]


def no_feed_left(server: Server) -> bool:
    statistics = server.context.hub.statistics()
    return statistics["connections"] == 0 and statistics["groups"] == 0 and len(server.context.feeds) == 0


def test_a_feed_answers_like_subscribe_then_gives_every_event_with_its_lane_and_an_id_of_both_lanes(
    server: Server, client: Client, stream: str
) -> None:
    client.publish(stream, an_event(1), an_event(2, priority="critical", subject="s"))
    with reading(server, f"/v1/streams/{stream}/sse?from=start") as reader:
        assert reader.status == 200
        assert reader.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reader.headers["cache-control"] == "no-store"
        subscribed, *events = reader.events(3)
        assert subscribed.event == "subscribed"
        assert subscribed.id == "one:0:0"
        assert subscribed.data["lanes"]["critical"] == {
            "status": "new",
            "cursor": ["one", 0],
            "head": ["one", 1],
            "behind": 1,
        }
        by_id = {each.data["id"]: each for each in events}
        assert by_id["e2"].data["lane"] == by_id["e2"].data["priority"] == "critical"
        assert by_id["e2"].data["subject"] == "s"
        assert by_id["e1"].data | {"time": ""} == {
            **an_event(1),
            "lane": "normal",
            "offset": 1,
            "priority": "normal",
            "time": "",
        }
        assert all(each.event == "message" and each.id for each in events)
        assert reader.last_id == "one:1:1"
        assert reader.retry == 2000


def test_live_events_arrive_in_order_behind_the_replayed_ones(
    server: Server, client: Client, stream: str
) -> None:
    client.publish(stream, *(an_event(n) for n in range(600)))
    with reading(server, f"/v1/streams/{stream}/sse?from=start") as reader:
        first = reader.events(301)[1:]
        client.publish(stream, *(an_event(n) for n in range(600, 1_000)))
        assert ids(first + reader.events(700)) == [f"e{n}" for n in range(1_000)]


def test_a_reader_that_comes_back_with_its_last_event_id_misses_and_doubles_nothing(
    server: Server, client: Client, stream: str
) -> None:
    client.publish(stream, *(an_event(n) for n in range(50)))
    with reading(server, f"/v1/streams/{stream}/sse?from=start") as reader:
        seen = ids(reader.events(21)[1:])
        last = reader.last_id
    assert last == "one:0:20"
    client.publish(stream, *(an_event(n) for n in range(50, 60)), an_event(99, priority="critical"))
    with reading(server, f"/v1/streams/{stream}/sse?from=end", Last_Event_ID=last) as reader:
        subscribed, *rest = reader.events(42)
        assert {lane["status"] for lane in subscribed.data["lanes"].values()} == {"resumed"}
        assert sorted(seen + ids(rest)) == sorted([f"e{n}" for n in range(60)] + ["e99"])


def test_from_end_has_an_id_at_once_so_that_a_reader_cut_off_before_its_first_event_misses_nothing(
    server: Server, client: Client, stream: str
) -> None:
    client.publish(stream, an_event(1))
    with reading(server, f"/v1/streams/{stream}/sse") as reader:
        reader.events(1)
        last = reader.last_id
    client.publish(stream, an_event(2))
    with reading(server, f"/v1/streams/{stream}/sse?last_event_id={last}") as reader:
        assert ids(reader.events(2)[1:]) == ["e2"]


def test_from_last_gives_so_many_per_lane(server: Server, client: Client, stream: str) -> None:
    client.publish(stream, *(an_event(n) for n in range(10)), an_event(10, priority="critical"))
    with reading(server, f"/v1/streams/{stream}/sse?from=last:2") as reader:
        assert sorted(ids(reader.events(4)[1:])) == ["e10", "e8", "e9"]


def test_a_silent_feed_is_kept_alive_by_comments(server: Server, stream: str) -> None:
    with reading(server, f"/v1/streams/{stream}/sse") as reader:
        reader.events(1)
        while reader.comments < 3:
            assert reader._block() == b": keep-alive"
            reader.comments += 1


def test_what_was_trimmed_is_told_with_its_range_before_the_id_passes_it(
    server: Server, client: Client, stream: str
) -> None:
    client.publish(stream, *(an_event(n) for n in range(1, 11)))
    server.call(lambda: server.engine.trim(stream, Lane.NORMAL, 6))
    with reading(server, f"/v1/streams/{stream}/sse", Last_Event_ID="one:0:2") as reader:
        subscribed, trimmed, *events = reader.events(6)
        assert subscribed.id is None, "cut off here, the reader would never be told"
        assert trimmed == Told(
            "trimmed", {"stream": stream, "lane": "normal", "epoch": "one", "lost": [3, 6]}, "one:0:6"
        )
        assert ids(events) == ["e7", "e8", "e9", "e10"]


def test_an_id_of_another_epoch_is_told_as_reset_and_the_feed_goes_on_from_what_is_retained(
    server: Server, client: Client, stream: str
) -> None:
    client.publish(stream, an_event(1))
    with reading(server, f"/v1/streams/{stream}/sse", Last_Event_ID="other:7:9") as reader:
        _, first, second, event = reader.events(4)
        assert [first.event, second.event] == ["reset", "reset"]
        assert {first.data["lane"], second.data["lane"]} == {"critical", "normal"}
        assert second.data["cursor"] == ["one", 0]
        assert (first.id, second.id) == (None, "one:0:0")
        assert ids([event]) == ["e1"]


def test_a_reader_that_is_overtaken_by_retention_is_told_in_the_middle_of_its_feed() -> None:
    with serving(limits=QUICK) as (server, client):
        path = "/v1/streams/s/sse?from=start"
        for start in range(0, 4_000, 200):
            client.publish("s", *(an_event(n, data="x" * 4_000) for n in range(start, start + 200)))
        with reading(server, path, buffer=4_096) as reader:
            until(lambda: server.context.counts["feeds_parked"])
            server.call(lambda: server.engine.trim("s", Lane.NORMAL, 3_990))
            told: list[Told] = []
            while not told or told[-1].data.get("offset") != 4_000:
                told += reader.events(1)
            [gap] = [each for each in told if each.event == "trimmed"]
            offsets = [each.data["offset"] for each in told if each.event == "message"]
            before = gap.data["lost"][0] - 1
            assert gap.data["lost"] == [before + 1, 3_990]
            assert offsets == [*range(1, before + 1), *range(3_991, 4_001)]


def test_a_stopped_reader_costs_a_cursor_and_gets_everything_when_it_reads_again() -> None:
    with (
        serving(limits=QUICK) as (server, client),
        reading(server, "/v1/streams/s/sse", buffer=4_096) as reader,
    ):
        reader.events(1)
        for start in range(0, 6_000, 200):
            client.publish("s", *(an_event(n, data="x" * 2_000) for n in range(start, start + 200)))
        until(lambda: server.context.counts["feeds_parked"])
        until(lambda: server.context.hub.statistics()["groups"] == 0)
        assert ids(reader.events(6_000)) == [f"e{n}" for n in range(6_000)]
        assert server.context.hub.counts["ack_overdue"] == 0


def test_an_epoch_that_changes_under_an_open_feed_is_told_once_per_lane_and_the_feed_goes_on() -> None:
    engine = SickEngine(epoch="one")
    with serving(engine, limits=QUICK) as (server, client), reading(server, "/v1/streams/s/sse") as reader:
        client.publish("s", *(an_event(n) for n in range(5)))
        assert ids(reader.events(6)[1:]) == [f"e{n}" for n in range(5)]
        server.call(lambda: engine.recreate("two"))
        client.publish("s", an_event(7), an_event(8))
        first, second, *events = reader.events(4)
        assert [first.event, second.event] == ["reset", "reset"]
        assert (first.id, second.id) == (None, "two:0:0")
        assert ids(events) == ["e7", "e8"]
        assert reader.last_id == "two:0:2"
        assert server.context.counts["feeds_gaps"] == 1


def test_what_finds_no_room_in_the_queue_is_read_from_the_log_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "QUEUE", 1)
    with serving(limits=QUICK) as (server, client), reading(server, "/v1/streams/s/sse") as reader:
        reader.events(1)
        for start in range(0, 3_000, 1_000):
            client.publish("s", *(an_event(n) for n in range(start, start + 1_000)))
        assert ids(reader.events(3_000)) == [f"e{n}" for n in range(3_000)]
        assert server.context.counts["feeds_torn"] >= 1


def test_a_stopped_reader_slows_no_other(server: Server, client: Client, stream: str) -> None:
    path = f"/v1/streams/{stream}/sse"
    with reading(server, path, buffer=4_096) as stopped, reading(server, path) as other:
        stopped.events(1)
        other.events(1)
        for start in range(0, 2_000, 200):
            client.publish(stream, *(an_event(n, data="x" * 4_000) for n in range(start, start + 200)))
        assert ids(other.events(2_000)) == [f"e{n}" for n in range(2_000)]


def test_a_reader_that_never_reads_again_is_given_up() -> None:
    limits = Limits(keep_alive=0.1, park_after=0.1, stalled_after=0.5)
    with (
        serving(limits=limits) as (server, client),
        reading(server, "/v1/streams/s/sse", buffer=4_096) as reader,
    ):
        reader.events(1)
        for start in range(0, 4_000, 200):
            client.publish("s", *(an_event(n, data="x" * 4_000) for n in range(start, start + 200)))
        until(lambda: server.context.counts["feeds_stalled"] == 1)
        assert no_feed_left(server)


def test_one_event_larger_than_a_slice_arrives_whole(server: Server, client: Client, stream: str) -> None:
    with reading(server, f"/v1/streams/{stream}/sse") as reader:
        reader.events(1)
        client.publish(stream, an_event(1, data="ü" * 100_000))
        [event] = reader.events(1)
        assert event.data["data"] == "ü" * 100_000


def test_data_with_line_breaks_of_every_kind_stays_one_event(
    server: Server, client: Client, stream: str
) -> None:
    text = "a\nb\r\nc\rd\u2028e\u0085f\n\nid: x\n\n"
    client.publish(stream, an_event(1, data={text: text}))
    with reading(server, f"/v1/streams/{stream}/sse?from=start") as reader:
        assert reader.events(2)[1].data["data"] == {text: text}
        assert reader.last_id == "one:0:1"


def test_a_client_that_vanishes_leaves_no_session_group_or_feed() -> None:
    with serving(limits=QUICK) as (server, client):
        readers = [Reader(server.port, "/v1/streams/s/sse?from=start") for _ in range(5)]
        for reader in readers:
            reader.events(1)
        client.publish("s", an_event(1))
        for number, reader in enumerate(readers):
            if number % 2:
                reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST
            reader.close()
        until(lambda: no_feed_left(server))
        assert server.context.counts["internal_errors"] == 0


def test_a_client_that_vanishes_while_it_is_stuck_leaves_nothing() -> None:
    with serving(limits=QUICK) as (server, client):
        reader = Reader(server.port, "/v1/streams/s/sse?from=start", buffer=4_096)
        for start in range(0, 4_000, 200):
            client.publish("s", *(an_event(n, data="x" * 4_000) for n in range(start, start + 200)))
        until(lambda: server.context.counts["feeds_parked"])
        reader.close()
        until(lambda: no_feed_left(server))


def test_a_feed_that_comes_while_the_server_ends_is_told_so_and_ended_too(stream: str) -> None:
    with serving(limits=QUICK) as (server, _):
        server.loop.call_soon_threadsafe(server.context.feeds.end, (3.0, 4.0))
        with reading(server, f"/v1/streams/{stream}/sse") as reader:
            assert reader.status == 200, "a browser gives up for good at any other"
            until(lambda: no_feed_left(server))
            told = []
            while (block := reader.next()) is not None:
                told.append(block)
        assert told[-1].event == "goaway"
        assert 3.0 <= told[-1].data["reconnect_in"] <= 4.0


def test_the_server_ends_its_feeds_with_a_goaway_and_when_to_come_back(stream: str) -> None:
    with serving(limits=QUICK) as (server, _), reading(server, f"/v1/streams/{stream}/sse") as reader:
        reader.events(1)
        server.loop.call_soon_threadsafe(server.context.feeds.end, (3.0, 4.0))
        told = reader.next()
        assert told is not None
        assert told.event == "goaway"
        assert told.data["reason"] == "draining"
        assert 3.0 <= told.data["reconnect_in"] <= 4.0
        assert reader.retry is not None
        assert 3_000 <= reader.retry <= 4_000
        assert reader.next() is None
        until(lambda: no_feed_left(server))


def test_a_feed_that_must_end_does_not_wait_for_a_stuck_reader() -> None:
    with serving(limits=QUICK) as (server, client):
        reader = Reader(server.port, "/v1/streams/s/sse?from=start", buffer=4_096)
        for start in range(0, 4_000, 200):
            client.publish("s", *(an_event(n, data="x" * 4_000) for n in range(start, start + 200)))
        until(lambda: server.context.counts["feeds_parked"])
        began = time.monotonic()
        server.loop.call_soon_threadsafe(server.context.feeds.end)
        until(lambda: no_feed_left(server))
        assert time.monotonic() - began < 5.0, "the patience for stalled readers is 10 s"
        reader.close()


def test_an_event_source_outlives_an_engine_that_is_away_and_is_told() -> None:
    engine = SickEngine(epoch="one")
    engine.sick = EngineUnavailable("the disk is away")
    with serving(engine, limits=QUICK) as (server, client), reading(server, "/v1/streams/s/sse") as reader:
        assert reader.status == 200, "an EventSource gives up for good at anything else"
        [told] = reader.events(1)
        assert (told.event, told.data["code"], told.data["temporary"]) == (
            "unavailable",
            "engine_unavailable",
            True,
        )
        engine.sick = None
        assert reader.events(1)[0].event == "subscribed"
        client.publish("s", an_event(1))
        assert ids(reader.events(1)) == ["e1"]


def test_other_clients_get_503_while_the_engine_is_away() -> None:
    engine = SickEngine(epoch="one")
    engine.sick = EngineUnavailable("the disk is away", retry_after=3.5)
    with serving(engine, limits=QUICK) as (server, client):
        answer = client.ask("GET", "/v1/streams/s/sse")
        assert (answer.status, answer.json["code"]) == (503, "engine_unavailable")
        assert answer.headers["retry-after"] == "4"
        assert no_feed_left(server)


def test_more_feeds_than_the_limit_are_refused_with_words() -> None:
    limits = Limits(feeds=1)
    with serving(limits=limits) as (server, client), reading(server, "/v1/streams/s/sse") as reader:
        reader.events(1)
        answer = client.ask("GET", "/v1/streams/s/sse")
        assert (answer.status, answer.json["code"]) == (503, "queue_full")


@pytest.mark.parametrize(
    "bad", ["x", "one:1", "one:1:2:3", "one:-1:2", "one:1:x", "o ne:1:1", f"one:1:{2**53}"]
)
def test_a_last_event_id_that_is_none_is_refused(client: Client, stream: str, bad: str) -> None:
    answer = client.ask("GET", f"/v1/streams/{stream}/sse", headers={"Last-Event-ID": bad})
    assert (answer.status, answer.json["field"]) == (400, "last_event_id")


@pytest.mark.parametrize("start", ["middle", "last", "last:", "last:-1", "last:x", "start:1"])
def test_a_from_that_is_none_is_refused(client: Client, stream: str, start: str) -> None:
    answer = client.ask("GET", f"/v1/streams/{stream}/sse?from={start}")
    assert (answer.status, answer.json["field"]) == (400, "from")


def test_an_id_names_both_lanes() -> None:
    cursors = parse_id("e-1:3:4")
    assert {lane: (cursor.epoch, cursor.offset) for lane, cursor in cursors.items()} == {
        Lane.CRITICAL: ("e-1", 3),
        Lane.NORMAL: ("e-1", 4),
    }
    with pytest.raises(InvalidRequest):
        parse_id("")


def test_a_head_request_does_not_open_a_feed(client: Client, stream: str) -> None:
    answer = client.ask("HEAD", f"/v1/streams/{stream}/sse", documented=False)
    assert answer.status == 405
