"""What stands around every request: headers, counts, 404 and 405, and the last net."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from steadcast.http.app import Endpoint, build
from steadcast.http.edge import SECURITY, as_asked
from tests.support.http_serving import Client, Server, check_problem, serving

if TYPE_CHECKING:
    from steadcast.http.context import Context


TOKEN = "t"  # noqa: S105 - made up for these tests


@pytest.mark.parametrize("path", ["/", "/v1/streams", "/nope", "/v1/streams/.bad/events", "/healthz"])
def test_every_answer_has_the_security_headers(client: Client, path: str) -> None:
    answer = client.ask("GET", path, documented=False)
    assert {name: answer.headers[name] for name in SECURITY} == SECURITY
    assert "unsafe" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PROPFIND"])
@pytest.mark.parametrize(
    "path", ["/nope", "/v1", "/v1/streams/", "/v1/streams/a/b", "/v1/streams/a%2Fb/events"]
)
def test_an_unknown_path_is_404_in_words(client: Client, method: str, path: str) -> None:
    answer = client.ask(method, path, documented=False)
    assert (answer.status, answer.json["code"]) == (404, "not_found")
    check_problem(answer)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/streams/s/events", {"GET", "HEAD", "POST"}),
        ("POST", "/v1/streams/s/sse", {"GET"}),
        ("DELETE", "/v1/streams", {"GET", "HEAD"}),
        ("GET", "/v1/hooks/claude", {"POST"}),
        ("GET", "/api/events", {"POST"}),
        ("PROPFIND", "/healthz", {"GET", "HEAD"}),
    ],
)
def test_a_method_that_a_path_does_not_have_is_405_with_those_that_it_has(
    client: Client, method: str, path: str, allowed: set[str]
) -> None:
    answer = client.ask(method, path, documented=False)
    assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed
    check_problem(answer)


def test_head_is_get_without_a_body(client: Client) -> None:
    answer = client.ask("HEAD", "/v1/streams")
    assert (answer.status, answer.body) == (200, b"")


def test_requests_are_counted_by_the_route_they_took_and_foreign_methods_are_one() -> None:
    with serving(base_path="/cast") as (_, client):
        client.ask("GET", "/v1/streams/some/events")
        client.ask("GET", "/v1/streams/other/events")
        client.ask("PROPFIND", "/healthz", documented=False)
        client.ask("GET", "/nope", documented=False)
        metrics = client.ask("GET", "/metrics").body.decode()
        route = 'method="GET",route="/v1/streams/{stream}/events",status="200"'
        assert f"steadcast_http_requests_total{{{route}}} 2.0" in metrics
        assert 'method="other",route="/healthz",status="405"' in metrics
        assert 'method="GET",route="none",status="404"' in metrics


def test_a_response_that_breaks_off_half_way_ends_the_connection() -> None:
    class Breaking(Response):
        async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise ZeroDivisionError

    async def breaking(_context: Context, _request: Request) -> Response:
        return Breaking()

    with Server(more=[Endpoint("GET", "/more", breaking)]) as server:
        client = Client(server.port)
        client.http.request("GET", "/more")
        response = client.http.getresponse()
        with pytest.raises(Exception, match="IncompleteRead"):
            response.read()
        assert server.context.counts["internal_errors"] == 1
        client.close()


def test_the_application_can_add_routes_which_ask_for_the_token_too() -> None:
    async def hello(context: Context, request: Request) -> Response:
        return Response(f"{context.node} {request.path_params['name']}")

    with Server(more=[Endpoint("GET", "/v1/hello/{name}", hello)], token=TOKEN) as server:
        client = Client(server.port)
        headers = {"Authorization": "Bearer t"}
        assert client.ask("GET", "/v1/hello/you", documented=False).status == 401
        answer = client.ask("GET", "/v1/hello/you", headers=headers, documented=False)
        assert answer.body == b"node-1 you"
        client.close()


@pytest.mark.parametrize(
    ("asked", "path", "root", "served"),
    [
        (b"/live/healthz", "/healthz/", "", "/healthz"),  # as Litestar mounts
        (b"/live/healthz", "/live/healthz/", "/live", "/live/healthz"),
        (b"/healthz/", "/healthz/", "", "/healthz/"),
        (b"/a%2F", "/a/", "", "/a/"),
        (b"/healthz?a=/", "/healthz/", "", "/healthz"),
        (b"/live", "/", "", "/"),
        (b"/live", "/live/", "/live", "/live/"),
        (None, "/healthz/", "", "/healthz/"),
    ],
)
def test_a_slash_is_taken_off_only_where_nobody_asked_for_it(
    asked: bytes | None, path: str, root: str, served: str
) -> None:
    scope = {"path": path, "root_path": root, "raw_path": asked}
    assert as_asked(scope) == scope | {"path": served}


async def test_a_websocket_is_closed_since_none_is_served_here() -> None:
    with serving() as (server, _):
        app = build(server.context)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await app({"type": "websocket", "path": "/nope", "headers": []}, None, send)  # type: ignore[arg-type]  # unasked
        assert [message["type"] for message in sent] == ["websocket.close"]
