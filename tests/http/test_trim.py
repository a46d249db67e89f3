"""A lane that is trimmed on purpose: what is told of it, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steadcast.event import Lane
from steadcast.http.context import Limits
from tests.support.http_serving import Client, Server, SickEngine, an_event


@pytest.fixture
def path(client: Client, stream: str) -> str:
    """Give the path of a stream with ten events."""
    for n in range(10):
        client.ask("POST", f"/v1/streams/{stream}/events", an_event(id=str(n)))
    return f"/v1/streams/{stream}/trim"


def trim(client: Client, path: str, upto: object, **more: str) -> Any:
    query = {"lane": "normal", "upto": str(upto)} | more
    return client.ask("POST", f"{path}?{'&'.join(f'{name}={value}' for name, value in query.items())}")


def test_what_went_is_told_and_who_reads_on_is_told_too(client: Client, path: str, stream: str) -> None:
    assert trim(client, path, 4).json == {
        "stream": stream,
        "lane": "normal",
        "epoch": "one",
        "dry_run": False,
        "events": 4,
        "lost": [1, 4],
        "trimmed": 4,
        "head": 10,
        "complete": True,
    }
    page = client.ask("GET", f"/v1/streams/{stream}/events?after=one:1")
    assert (page.status, page.json["lost"]) == (410, [2, 4])
    told = trim(client, path, "one:10").json
    assert (told["events"], told["lost"], told["trimmed"]) == (6, [5, 10], 10)


def test_a_dry_run_takes_nothing(client: Client, path: str) -> None:
    told = trim(client, path, 4, dry_run="true").json
    assert (told["dry_run"], told["events"], told["lost"], told["trimmed"]) == (True, 4, [1, 4], 0)
    assert trim(client, path, 4, dry_run="false").json["events"] == 4


@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_where_all_of_it_went_before_there_is_nothing_to_do(client: Client, path: str, dry_run: str) -> None:
    trim(client, path, 4)
    told = trim(client, path, 3, dry_run=dry_run).json
    assert (told["events"], told["lost"], told["trimmed"], told["complete"]) == (0, None, 4, True)


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ({"upto": "11"}, "invalid_request", "upto"),
        ({"upto": "one:11"}, "invalid_request", "upto"),
        ({"upto": ""}, "invalid_request", "upto"),
        ({"upto": "-1"}, "invalid_request", "upto"),
        ({"upto": "one:"}, "invalid_request", "upto"),
        ({"upto": "1", "lane": "both"}, "invalid_request", "lane"),
        ({"upto": "1", "dry_run": "yes"}, "invalid_request", "dry_run"),
    ],
)
def test_what_is_not_clear_is_refused(
    client: Client, path: str, query: dict[str, str], code: str, field: str
) -> None:
    refused = trim(client, path, **query)
    assert (refused.status, refused.json["code"], refused.json["field"]) == (400, code, field)


def test_the_end_of_the_lane_is_told_to_who_is_above_it(client: Client, path: str) -> None:
    refused = trim(client, path, 11).json
    assert (refused["detail"], refused["limit"]) == ("the lane ends at offset 10", 10)
    empty = trim(client, path, 1, lane="critical").json
    assert empty["detail"] == "the lane ends at offset 0"


def test_another_log_is_not_trimmed(client: Client, path: str) -> None:
    refused = trim(client, path, "two:4")
    assert (refused.status, refused.json["code"], refused.json["epoch"]) == (410, "reset", "one")
    assert trim(client, path, 4, dry_run="true").json["events"] == 4


def test_a_stream_that_is_not_there_is_404(client: Client) -> None:
    refused = trim(client, "/v1/streams/nowhere/trim", 1)
    assert (refused.status, refused.json["code"]) == (404, "not_found")


class SlowlyTrimmed(SickEngine):
    """Takes `step` offsets, and is then at it for ever; 0 takes none."""

    step = 3

    async def trim(
        self,
        stream: str | None = None,
        lane: Lane | None = None,
        upto: int | None = None,
        *,
        dry_run: bool = False,
    ) -> int:
        if dry_run or stream is None or lane is None or upto is None:
            return await super().trim(stream, lane, upto, dry_run=dry_run)
        mark = (await self.describe(stream)).streams[stream][lane].trimmed
        if self.step and mark + self.step >= upto:
            return await super().trim(stream, lane, upto)
        await super().trim(stream, lane, mark + self.step)
        await asyncio.Event().wait()
        raise AssertionError


def test_what_takes_longer_than_a_request_goes_on_with_the_next_one() -> None:
    engine = SlowlyTrimmed(epoch="one")
    with Server(engine, limits=Limits(handler_timeout=0.3)) as server:
        client = Client(server.port)
        for n in range(10):
            client.ask("POST", "/v1/streams/s/events", an_event(id=str(n)))
        told = [trim(client, "/v1/streams/s/trim", 8).json for _ in range(3)]
        assert [(each["events"], each["lost"], each["complete"]) for each in told] == [
            (3, [1, 3], False),
            (3, [4, 6], False),
            (2, [7, 8], True),
        ]
        engine.step = 0
        stuck = trim(client, "/v1/streams/s/trim", 10)
        assert (stuck.status, stuck.json["code"], stuck.json["temporary"]) == (503, "timeout", True)
        client.close()
