"""Pages of a lane and the list of streams over real sockets."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from steadcast.engines.base import Description, LaneState, Retention
from steadcast.errors import PositionLost
from steadcast.event import Batch, Lane
from steadcast.http.reads import Page, Streams
from tests.support.http_serving import Client, Server, SickEngine, an_event, serving

if TYPE_CHECKING:
    from typing import Any

    from tests.support.http_serving import Answer


def read(client: Client, stream: str, query: str = "", **headers: str) -> Answer:
    return client.ask("GET", f"/v1/streams/{stream}/events?{query}", headers=headers)


def offsets(answer: Answer) -> list[int]:
    return [event["offset"] for event in answer.json["events"]]


def test_a_page_tells_where_it_stands_and_holds_the_events_as_a_batch_does(
    client: Client, stream: str
) -> None:
    client.publish(stream, *(an_event(n) for n in range(1, 6)))
    answer = read(client, stream, "after=one:2&limit=2")
    page = msgspec.json.decode(answer.body, type=Page)
    assert (page.stream, page.lane, page.epoch) == (stream, Lane.NORMAL, "one")
    assert (page.after, page.upto, page.head) == (2, 4, 5)
    assert [event.id for event in page.events] == ["e3", "e4"]
    assert page.next == f"/v1/streams/{stream}/events?lane=normal&after=one:4&limit=2"
    assert answer.headers["link"] == f'<{page.next}>; rel="next"'
    assert answer.headers["cache-control"] == "no-store"


def test_a_page_tells_when_each_event_was_kept_whatever_its_own_time(client: Client, stream: str) -> None:
    before = datetime.now(UTC)
    client.publish(stream, an_event(1, time="2001-01-01T00:00:00Z"))
    [event] = read(client, stream).json["events"]
    assert event["time"] == "2001-01-01T00:00:00Z"
    # Milliseconds, rounded.
    assert abs(datetime.fromisoformat(event["kept"]) - before) < timedelta(seconds=60)
    [line] = read(client, stream, Accept="application/x-ndjson").body.splitlines()
    assert json.loads(line)["kept"].endswith("Z")


def test_following_next_reads_the_whole_lane_once(client: Client, stream: str) -> None:
    client.publish(stream, *(an_event(n, priority="critical") for n in range(1, 601)))
    found: list[int] = []
    path: str | None = f"/v1/streams/{stream}/events?lane=critical"
    while path is not None:
        answer = client.ask("GET", path)
        found += offsets(answer)
        path = answer.json["next"]
    assert found == list(range(1, 601))


def test_a_page_begins_at_the_start_the_end_or_so_many_before_it(client: Client, stream: str) -> None:
    client.publish(stream, *(an_event(n) for n in range(1, 6)))
    assert offsets(read(client, stream)) == [1, 2, 3, 4, 5]
    assert offsets(read(client, stream, "from=start")) == [1, 2, 3, 4, 5]
    assert offsets(read(client, stream, "from=last:2")) == [4, 5]
    end = read(client, stream, "from=end").json
    assert (end["events"], end["upto"], end["head"], end["next"]) == ([], 5, 5, None)


def test_a_stream_that_never_held_an_event_is_an_empty_page(client: Client, stream: str) -> None:
    page = read(client, stream).json
    assert (page["events"], page["after"], page["upto"], page["head"]) == ([], 0, 0, 0)


def test_ndjson_has_an_event_a_line_and_the_rest_in_headers(client: Client, stream: str) -> None:
    client.publish(stream, *(an_event(n) for n in range(1, 4)))
    answer = read(client, stream, "limit=2", Accept="application/x-ndjson")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["id"] for line in answer.body.splitlines()] == ["e1", "e2"]
    assert {name: answer.headers[f"steadcast-{name}"] for name in ("epoch", "after", "upto", "head")} == {
        "epoch": "one",
        "after": "0",
        "upto": "2",
        "head": "3",
    }
    assert 'rel="next"' in answer.headers["link"]


def test_a_trimmed_position_is_410_with_the_range_that_is_lost_and_where_to_read_on(
    shared_server: Server, client: Client, stream: str
) -> None:
    client.publish(stream, *(an_event(n) for n in range(1, 11)))
    shared_server.call(lambda: shared_server.engine.trim(stream, Lane.NORMAL, 6))
    answer = read(client, stream, "after=one:2")
    assert (answer.status, answer.json["code"]) == (410, "trimmed")
    assert (answer.json["lost"], answer.json["epoch"]) == ([3, 6], "one")
    assert offsets(client.ask("GET", answer.json["next"])) == [7, 8, 9, 10]
    assert offsets(read(client, stream)) == [7, 8, 9, 10], "without a position nothing is lost"


@pytest.mark.parametrize("after", ["one:99", "other:1"])
def test_a_position_of_another_log_is_410_with_the_epoch_that_is(
    client: Client, stream: str, after: str
) -> None:
    client.publish(stream, an_event(1))
    answer = read(client, stream, f"after={after}")
    assert (answer.status, answer.json["code"], answer.json["epoch"]) == (410, "reset", "one")
    assert offsets(client.ask("GET", answer.json["next"])) == [1]


def test_a_trimmed_position_of_another_epoch_is_reset_and_no_range_is_claimed(
    shared_server: Server, client: Client, stream: str
) -> None:
    client.publish(stream, *(an_event(n) for n in range(1, 11)))
    shared_server.call(lambda: shared_server.engine.trim(stream, Lane.NORMAL, 6))
    problem = read(client, stream, "after=other:2").json
    assert problem["code"] == "reset"
    assert "lost" not in problem


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("lane=x", "lane"),
        ("after=1", "after"),
        ("after=one:", "after"),
        ("after=one:-1", "after"),
        ("after=o%20ne:1", "after"),
        ("after=one:99999999999999999999", "after"),
        ("after=one:%C2%B2", "after"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=" + "9" * 5_000, "limit"),
        ("from=x", "from"),
        ("from=last:x", "from"),
        ("after=one:1&from=start", "from"),
    ],
)
def test_a_query_of_the_wrong_form_is_refused_by_its_name(
    client: Client, stream: str, query: str, field: str
) -> None:
    answer = read(client, stream, query)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "invalid_request", field)


def test_a_larger_limit_gives_a_full_page_and_the_way_on(client: Client, stream: str) -> None:
    client.publish(stream, *(an_event(n) for n in range(1, 301)))
    page = read(client, stream, "limit=100000").json
    assert (len(page["events"]), page["upto"], page["head"]) == (256, 256, 300)
    assert page["next"] is not None


def test_the_systems_streams_can_be_read_but_not_written(client: Client) -> None:
    assert read(client, "steadcast.dead").json["events"] == []
    assert read(client, ".bad").json["code"] == "invalid_stream"


def test_streams_are_listed_with_heads_sizes_and_retention() -> None:
    engine = SickEngine(epoch="one", retention=Retention(age=5.0, events=7, bytes=9_000))
    with serving(engine) as (server, client):
        client.publish("b", an_event(1), an_event(2), an_event(3, priority="critical"))
        client.publish("a", an_event(1))
        server.call(lambda: engine.trim("b", Lane.NORMAL, 1))
        listed = msgspec.json.decode(client.ask("GET", "/v1/streams").body, type=Streams)
        assert listed.retention == {"age": 5.0, "events": 7, "bytes": 9_000}
        assert [each.stream for each in listed.streams] == ["a", "b"]
        normal = listed.streams[1].lanes[Lane.NORMAL]
        assert (normal.head.offset, normal.trimmed, normal.events) == (2, 1, 1)
        assert normal.bytes > 0
        assert listed.streams[1].lanes[Lane.CRITICAL].head.offset == 1


class Overtaken(SickEngine):
    """Loses every position that it is asked for, or changes its epoch after each page."""

    def __init__(self, *, times: int, epochs: bool = False) -> None:
        super().__init__(epoch="one")
        self.times = times
        self.epochs = epochs

    async def read(
        self, stream: str, lane: Lane, after: int, limit: int = 256, *, kept: bool = False
    ) -> Batch:
        if not self.epochs and self.times > 0:
            self.times -= 1
            raise PositionLost("gone", epoch="one", lost=(1, 2))
        return await super().read(stream, lane, after, limit, kept=kept)

    async def describe(self, stream: str | None = None) -> Description:
        found = await super().describe(stream)
        lanes = {"s": {lane: LaneState() for lane in Lane}}
        return Description(epoch="two", streams=lanes) if self.epochs else found


def test_a_page_without_a_position_begins_anew_when_retention_overtakes_it() -> None:
    with serving(Overtaken(times=2)) as (server, client):
        assert read(client, "s").status == 200
        assert server.context.counts["pages_overtaken"] == 2


def test_a_page_that_is_overtaken_again_and_again_is_503() -> None:
    with serving(Overtaken(times=9)) as (_, client):
        answer = read(client, "s")
        assert (answer.status, answer.json["code"]) == (503, "engine_unavailable")


def test_an_epoch_that_changes_between_page_and_head_is_reset() -> None:
    with serving(Overtaken(times=0, epochs=True)) as (_, client):
        answer = read(client, "s")
        assert (answer.status, answer.json["code"], answer.json["epoch"]) == (410, "reset", "two")


def test_links_stand_under_the_base_path() -> None:
    with serving(base_path="/cast/") as (_, client):
        client.publish("s", an_event(1), an_event(2))
        page: dict[str, Any] = read(client, "s", "limit=1").json
        assert page["next"].startswith("/cast/v1/streams/s/events?")
