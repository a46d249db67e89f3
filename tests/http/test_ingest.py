"""Events coming in over real sockets: what is taken, what is refused and with which words."""

from __future__ import annotations

import contextlib
import json
import socket
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steadcast.errors import EngineUnavailable
from steadcast.http.context import Limits
from steadcast.wire import MAX_EVENT_BYTES
from tests.support.http_serving import Answer, Client, Server, SickEngine, an_event, check_problem, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOUDEVENT = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


def post(client: Client, stream: str, body: Any, content_type: str = "application/json", **ce: str) -> Answer:
    headers = {"Content-Type": content_type} | {f"ce-{name}": value for name, value in ce.items()}
    return client.ask("POST", f"/v1/streams/{stream}/events", body, headers)


def stored(client: Client, stream: str, lane: str = "normal") -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = client.ask("GET", f"/v1/streams/{stream}/events?lane={lane}").json[
        "events"
    ]
    return events


def still_alive(client: Client) -> None:
    assert client.ask("GET", "/healthz").status == 200, "the connection must stay"


def test_a_structured_event_is_durable_when_it_is_answered(client: Client, stream: str) -> None:
    answer = post(client, stream, an_event(1, specversion="1.0", subject="s"), CLOUDEVENT)
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json == {
        "results": [{"id": "e1", "lane": "normal", "position": ["one", 1], "duplicate": False}]
    }
    [event] = stored(client, stream)
    assert event["data"] == {"n": 1}
    assert event["subject"] == "s"
    assert event["time"].endswith("Z")


def test_a_binary_event_is_taken_from_headers_and_body(client: Client, stream: str) -> None:
    answer = post(
        client, stream, b'{"n": 1}', specversion="1.0", id="a%20b", source="/s", type="t", priority="critical"
    )
    assert answer.json["results"][0]["lane"] == "critical"
    [event] = stored(client, stream, "critical")
    assert (event["id"], event["data"]) == ("a b", {"n": 1})


@pytest.mark.parametrize("content_type", [BATCH, "application/json"])
def test_a_batch_is_answered_in_the_order_sent(client: Client, stream: str, content_type: str) -> None:
    sent = [an_event(n, priority="critical" if n % 3 else "normal") for n in range(20)]
    answer = post(client, stream, sent, content_type)
    assert [result["id"] for result in answer.json["results"]] == [f"e{n}" for n in range(20)]
    again = post(client, stream, sent, content_type).json["results"]
    assert again == [result | {"duplicate": True} for result in answer.json["results"]]


def test_an_empty_batch_has_no_results(client: Client, stream: str) -> None:
    assert post(client, stream, [], BATCH).json == {"results": []}


def test_a_bad_event_is_named_by_its_index_and_nothing_of_the_batch_is_kept(
    client: Client, stream: str
) -> None:
    for index in (0, 3):
        events = [an_event(n) for n in range(5)]
        events[index] = an_event(99, source="")
        answer = post(client, stream, events, BATCH)
        assert (answer.status, answer.json["code"]) == (400, "invalid_event")
        assert (answer.json["index"], answer.json["field"]) == (index, "source")
    assert stored(client, stream) == []
    still_alive(client)


@pytest.mark.parametrize("field", ["id", "source", "type"])
def test_a_missing_attribute_is_named(client: Client, stream: str, field: str) -> None:
    event = an_event()
    del event[field]
    problem = post(client, stream, event).json
    assert (problem["code"], problem["field"]) == ("invalid_event", field)
    assert field in problem["detail"]
    ce = {"id": "1", "source": "/s", "type": "t", "specversion": "1.0"}
    del ce[field]
    assert post(client, stream, b"1", **ce).json["field"] == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": 1}, "id"),
        ({"id": ""}, "id"),
        ({"id": "x" * 300}, "id"),
        ({"source": "a\nb"}, "source"),
        ({"type": None}, "type"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-02-30T00:00:00Z"}, "time"),
        ({"priority": "high"}, "priority"),
        ({"priority": []}, "priority"),
        ({"subject": ""}, "subject"),
        ({"specversion": "0.3"}, "specversion"),
    ],
)
def test_an_attribute_of_the_wrong_form_is_named(
    client: Client, stream: str, change: dict[str, Any], field: str
) -> None:
    answer = post(client, stream, an_event() | change)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "invalid_event", field)
    still_alive(client)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"not json", "invalid_json"),
        (b'{"id": "1"', "invalid_json"),
        (b'{"id": "\xff"}', "invalid_json"),
        (b'{"id": "\xc0\xa0"}', "invalid_json"),
        (b"[" * 300_000, "invalid_json"),
        (b'{"data":' * 50_000, "invalid_json"),
        (b"1", "invalid_event"),
        (b'"x"', "invalid_event"),
        (b"null", "invalid_event"),
        (b"[1]", "invalid_event"),
        (b"[[]]", "invalid_event"),
    ],
)
def test_a_body_that_is_no_event_is_refused_in_words(
    client: Client, stream: str, body: bytes, code: str
) -> None:
    answer = post(client, stream, body)
    assert (answer.status, answer.json["code"]) == (400, code)
    still_alive(client)


def test_data_nested_deeper_than_the_limit_is_refused(client: Client, stream: str) -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    problem = post(client, stream, an_event(data=deep)).json
    assert (problem["code"], problem["field"]) == ("invalid_event", "data")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "a/b"])
def test_a_foreign_content_type_is_415_and_says_what_is_taken(
    client: Client, stream: str, content_type: str
) -> None:
    answer = post(client, stream, b"{}", content_type)
    assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")
    assert "application/cloudevents+json" in answer.json["detail"]
    still_alive(client)


def test_a_compressed_body_is_415(client: Client, stream: str) -> None:
    path = f"/v1/streams/{stream}/events"
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert client.ask("POST", path, b"{}", headers).json["code"] == "unsupported_media_type"


def test_no_content_type_is_taken_as_json(client: Client, stream: str) -> None:
    body = json.dumps(an_event()).encode()
    assert client.ask("POST", f"/v1/streams/{stream}/events", body).status == 200


def test_an_event_over_256_kib_is_413_with_its_index(client: Client, stream: str) -> None:
    large = an_event(2, data="x" * 300 * 1024)
    single = post(client, stream, large)
    assert (single.status, single.json["code"], single.json["limit"]) == (
        413,
        "event_too_large",
        MAX_EVENT_BYTES,
    )
    batch = post(client, stream, [an_event(1), large], BATCH)
    assert (batch.status, batch.json["index"]) == (413, 1)
    assert stored(client, stream) == []
    still_alive(client)


@pytest.mark.parametrize(("count", "status"), [(1_000, 200), (1_001, 413), (5_000, 413)])
def test_a_batch_has_at_most_1000_events(client: Client, stream: str, count: int, status: int) -> None:
    answer = post(client, stream, [an_event(n) for n in range(count)], BATCH)
    assert answer.status == status
    if status == 413:
        assert (answer.json["code"], answer.json["limit"]) == ("batch_too_large", 1_000)
    still_alive(client)


def test_a_body_over_4_mib_is_413_and_the_connection_stays(client: Client, stream: str) -> None:
    limit = 4 * 1024 * 1024
    answer = post(client, stream, b" " * (limit + 1))
    assert (answer.status, answer.json["code"], answer.json["limit"]) == (413, "body_too_large", limit)
    still_alive(client)
    assert post(client, stream, b" " * limit).json["code"] == "invalid_json"


def head_of(stream: str, header: str) -> bytes:
    return f"POST /v1/streams/{stream}/events HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode()


def chunks(size: int, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b" " * size


def test_a_chunked_body_over_the_limit_is_413_and_the_connection_stays(client: Client, stream: str) -> None:
    path = f"/v1/streams/{stream}/events"
    client.http.request("POST", path, chunks(64 * 1024, 128), {"Content-Type": "application/json"})
    response = client.http.getresponse()
    answer = Answer(response.status, dict(response.getheaders()), response.read())
    assert (answer.status, answer.json["code"]) == (413, "body_too_large")
    still_alive(client)


def test_a_chunked_body_is_taken(client: Client, stream: str) -> None:
    body = json.dumps(an_event()).encode()
    path = f"/v1/streams/{stream}/events"
    client.http.request("POST", path, iter([body[:9], body[9:]]), {"Content-Type": "application/json"})
    response = client.http.getresponse()
    assert response.status == 200
    response.read()


def test_an_endless_body_is_refused_before_it_ends(shared_server: Server, stream: str) -> None:
    with contextlib.closing(socket.create_connection(("127.0.0.1", shared_server.port), 20)) as raw:
        raw.sendall(head_of(stream, "Transfer-Encoding: chunked"))
        for _ in range(80):
            raw.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")
        assert raw.recv(12) == b"HTTP/1.1 413", "answered although the body has no end"


def test_a_declared_length_that_is_too_large_is_refused_without_the_body(
    shared_server: Server, stream: str
) -> None:
    with contextlib.closing(socket.create_connection(("127.0.0.1", shared_server.port), 20)) as raw:
        raw.sendall(head_of(stream, "Content-Length: 99999999999"))
        assert raw.recv(12) == b"HTTP/1.1 413"


def test_a_body_shorter_than_it_was_declared_times_out_in_words(stream: str) -> None:
    with (
        serving(limits=Limits(body_timeout=0.2)) as (server, _),
        contextlib.closing(socket.create_connection(("127.0.0.1", server.port), 20)) as raw,
    ):
        raw.sendall(head_of(stream, "Content-Length: 9") + b"1")
        response = HTTPResponse(raw)
        response.begin()
        problem = json.loads(response.read())
        assert (response.status, problem["code"], problem["temporary"]) == (408, "request_timeout", True)
        assert server.context.counts["bodies_too_slow"] == 1


def test_a_client_that_goes_away_in_the_middle_of_its_body_is_counted_and_nothing_else(stream: str) -> None:
    with serving() as (server, client):
        raw = socket.create_connection(("127.0.0.1", server.port), 20)
        raw.sendall(head_of(stream, "Content-Length: 9") + b"1")
        raw.close()
        while not server.context.counts["clients_gone"]:
            still_alive(client)
        assert server.context.counts["internal_errors"] == 0


def test_the_same_id_with_another_body_is_409_with_its_id_and_index(client: Client, stream: str) -> None:
    client.publish(stream, an_event(1))
    answer = post(client, stream, [an_event(2), an_event(1, data="other")], BATCH)
    assert (answer.status, answer.json["code"]) == (409, "id_conflict")
    assert (answer.json["id"], answer.json["index"]) == ("e1", 1)
    assert len(stored(client, stream)) == 1
    still_alive(client)


@pytest.mark.parametrize("name", ["steadcast.dead", ".x", "a%20b", "x" * 129, "%C3%BC", "a%00"])
def test_streams_that_are_not_for_publishing_are_refused(client: Client, name: str) -> None:
    answer = post(client, name, an_event())
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "invalid_stream", "stream")
    still_alive(client)


def test_an_engine_that_is_away_is_503_with_retry_after() -> None:
    engine = SickEngine()
    with serving(engine) as (_, client):
        engine.sick = EngineUnavailable("the disk is full", code="engine_full", retry_after=2.2)
        answer = post(client, "s", an_event())
        assert (answer.status, answer.json["code"], answer.json["temporary"]) == (503, "engine_full", True)
        assert answer.headers["retry-after"] == "3"
        engine.sick = None
        assert post(client, "s", an_event()).status == 200


def test_an_engine_that_hangs_is_503_after_the_handler_timeout() -> None:
    engine = SickEngine()
    with serving(engine, limits=Limits(handler_timeout=0.1)) as (server, client):
        engine.slow = True
        answer = post(client, "s", an_event())
        assert (answer.status, answer.json["code"], answer.json["event"]) == (503, "timeout", "publish")
        assert answer.json["temporary"] is True
        assert server.context.counts["timeouts"] == 1
        engine.slow = False
        assert post(client, "s", an_event()).json["results"][0]["duplicate"] is False


def test_what_nobody_foresaw_is_500_without_a_word_of_it_and_the_connection_stays() -> None:
    engine = SickEngine()
    with serving(engine) as (server, client):
        engine.sick = ZeroDivisionError("secret")
        answer = post(client, "s", an_event())
        assert (answer.status, answer.json["code"]) == (500, "internal")
        assert b"secret" not in answer.body
        assert server.context.counts["internal_errors"] == 1
        engine.sick = None
        assert post(client, "s", an_event()).status == 200


def test_what_the_application_publishes_with_is_what_is_asked(stream: str) -> None:
    asked: list[str] = []

    async def publish(stream: str, events: list[Any]) -> list[Any]:
        asked.append(stream)
        return []

    with serving(publish=publish) as (_, client):
        assert post(client, stream, an_event()).json == {"results": []}
    assert asked == [stream]


# Hooks


def hook(client: Client, body: Any, **headers: str) -> Answer:
    return client.ask("POST", "/v1/hooks/claude", body, {k.replace("_", "-"): v for k, v in headers.items()})


def test_a_hooks_json_is_kept_as_it_is() -> None:
    with serving() as (_, client):
        body = {
            "hook_event_name": "PreToolUse",
            "session_id": "s",
            "tool_name": "Bash",
            "tool_input": {"a": 1},
        }
        answer = hook(client, body, ce_id="h-1", ce_time="2026-01-01T00:00:00Z")
        assert answer.json["results"][0]["id"] == "h-1"
        assert hook(client, body, ce_id="h-1", ce_time="2026-01-01T00:00:00Z").json["results"][0]["duplicate"]
        [event] = stored(client, "claude")
        assert event | {"offset": 0, "kept": ""} == {
            "offset": 0,
            "kept": "",
            "id": "h-1",
            "source": "claude-code/s",
            "type": "claude.PreToolUse",
            "time": "2026-01-01T00:00:00Z",
            "priority": "normal",
            "data": body,
            "subject": "Bash",
        }


def test_a_bare_hook_is_given_an_id_and_a_time_each_time() -> None:
    with serving() as (server, client):
        first = hook(client, {"hook_event_name": "Stop"}, ce_time="yesterday").json["results"][0]
        second = hook(client, {"hook_event_name": "Stop"}).json["results"][0]
        assert first["id"] != second["id"]
        assert {event["time"][-1] for event in stored(client, "claude")} == {"Z"}
        assert server.context.counts["times_replaced"] == 1


def test_a_hook_that_asks_for_a_person_is_critical(client: Client) -> None:
    answer = hook(client, {"hook_event_name": "PermissionRequest", "tool_name": "Bash"})
    assert answer.json["results"][0]["lane"] == "critical"


def test_half_an_emoji_costs_a_hook_that_character_alone(client: Client) -> None:
    answer = hook(client, rb'{"hook_event_name": "Stop", "text": "a\ud83d b\ud83d\ude00"}', ce_id="emoji")
    assert answer.status == 200
    [event] = [each for each in stored(client, "claude") if each["id"] == "emoji"]
    assert event["data"]["text"] == "a\ufffd b😀"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"\xff", 400, "invalid_json"),
        (rb'{"a": "\ud83d"', 400, "invalid_json"),
        (rb'["\ud83d", NaN]', 400, "invalid_json"),
        (b'["\\ud83d",' + b"[" * 300_000, 400, "invalid_json"),
        (b"[]", 400, "invalid_request"),
        (b'{"a": "' + b"x" * 300_000 + b'"}', 413, "event_too_large"),
        (b" " * (4 * 1024 * 1024 + 1), 413, "body_too_large"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/hooks/claude", "/api/events"])
def test_a_hook_that_is_none_is_refused_in_words(
    client: Client, path: str, body: bytes, status: int, code: str
) -> None:
    if path == "/api/events" and code == "event_too_large":
        body = b'{"data": %b}' % body
    answer = client.ask("POST", path, body)
    assert (answer.status, answer.json["code"]) == (status, code)
    still_alive(client)


def test_an_id_header_that_is_none_is_refused(client: Client) -> None:
    assert hook(client, {}, ce_id="%FF").json["field"] == "id"
    assert hook(client, {}, ce_id="").json["field"] == "id"


def test_claude_mpms_hook_is_answered_204_with_nothing() -> None:
    with serving() as (_, client):
        body = {
            "namespace": "/hook",
            "event": "claude_event",
            "data": {
                "event": "claude_event",
                "source": "mpm_hook",
                "type": "hook",
                "subtype": "pre_tool",
                "timestamp": "2026-01-01T00:00:00.5+00:00",
                "data": {"tool_name": "Bash"},
                "session_id": "abc",
            },
        }
        answer = client.ask("POST", "/api/events", body, {"ce-id": "m-1"})
        assert (answer.status, answer.body) == (204, b"")
        naive = body | {"data": {"timestamp": "2026-01-01T00:00:00"}}
        assert client.ask("POST", "/api/events", naive).status == 204
        first, second = stored(client, "claude")
        assert (first["id"], first["type"], first["time"]) == (
            "m-1",
            "hook.pre_tool",
            "2026-01-01T00:00:00.5+00:00",
        )
        assert first["data"] == body["data"]
        assert second["time"].endswith("Z"), "a time without a zone says nothing"


# Whatever comes, it is answered below 500 and the connection stays.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
ATTRIBUTE = st.sampled_from(
    ["id", "source", "type", "time", "data", "priority", "subject", "specversion", "data_base64", "x"]
)
EVENTS = st.dictionaries(ATTRIBUTE, JSON, max_size=6) | JSON
BODIES = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda value: json.dumps(value).encode()),
    EVENTS.map(lambda value: json.dumps(value).encode()),
    st.lists(EVENTS, max_size=4).map(lambda value: json.dumps(value).encode()),
)
TYPES = st.sampled_from(
    [
        None,
        "application/json",
        CLOUDEVENT,
        BATCH,
        "text/plain",
        "image/png",
        "text/plain; charset=x",
        ";",
        "é",
    ]
)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=12)
CE_HEADERS = st.dictionaries(
    st.sampled_from(["ce-id", "ce-source", "ce-type", "ce-specversion", "ce-time", "ce-priority", "ce-x"]),
    VALUES.filter(lambda text: text == text.strip()) | st.sampled_from(["1.0", "t", "%FF", '"a b"']),
)
PATHS = st.sampled_from(["/v1/streams/fuzz/events", "/v1/hooks/claude", "/api/events", "/v1/login"])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(path=PATHS, body=BODIES, content_type=TYPES, ce=CE_HEADERS)
def test_whatever_is_posted_is_answered_below_500(
    client: Client, path: str, body: bytes, content_type: str | None, ce: dict[str, str]
) -> None:
    headers = dict(ce) | ({} if content_type is None else {"Content-Type": content_type})
    answer = client.ask("POST", path, body, headers)
    assert answer.status < 500
    if answer.status >= 400:
        check_problem(answer)
