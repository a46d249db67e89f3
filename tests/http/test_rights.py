"""What a token with few rights may do over HTTP; other origins, rates, and the end of a token."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from steadcast.core.scopes import Scope, TokenRule
from steadcast.http.app import ENDPOINTS, OPEN
from steadcast.http.rates import Rates
from steadcast.http.tokens import JwtRules, Tokens
from tests.support.http_serving import Answer, Client, Server, an_event

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "a secret of at least thirty-two bytes"  # noqa: S105 - made up for these tests
EVENTS = "/v1/streams/{}/events"
RULES = [
    TokenRule(name=name, token=name, scopes=scopes, streams=streams)
    for name, scopes, streams in (
        ("pub", [Scope.PUBLISH], ("orders.*",)),
        ("sub", [Scope.SUBSCRIBE], ("orders.*",)),
        ("all", [Scope.SUBSCRIBE], ("*",)),
        ("admin", [Scope.ADMIN], ()),
        ("claude", [Scope.PUBLISH], ("claude",)),
    )
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    tokens = Tokens("root", RULES, JwtRules(secret=SECRET))
    origins = ["https://app.example"]
    with Server(tokens=tokens, cors_origins=origins, rates=Rates(publishes="50/minute")) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    client = Client(server.port)
    yield client
    client.close()


def ask(client: Client, token: str, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    return client.ask(method, path, body, {"Authorization": f"Bearer {token}", **headers})


def test_every_route_but_the_open_ones_names_the_scope_that_it_asks_for() -> None:
    assert {each.path for each in ENDPOINTS if each.scope is OPEN} == {
        "/v1/login",
        "/v1/logout",
        "/healthz",
        "/readyz",
        "/openapi.json",
    }
    admin = {each.path for each in ENDPOINTS if each.scope is Scope.ADMIN}
    assert all("/clients" in path or "/dead" in path or "/trim" in path for path in admin)
    for each in ENDPOINTS:
        writes = each.method != "GET" and each.scope not in {OPEN, Scope.ADMIN}
        assert (each.scope is Scope.PUBLISH) is writes, each


@pytest.mark.parametrize(
    ("method", "path", "may"),
    [
        ("POST", EVENTS.format("orders.eu"), {"root", "pub"}),
        ("POST", EVENTS.format("other"), {"root"}),
        ("GET", EVENTS.format("orders.eu"), {"root", "sub", "all"}),
        ("GET", EVENTS.format("other"), {"root", "all"}),
        ("GET", EVENTS.format("steadcast.dead"), {"root", "all"}),
        ("POST", "/v1/hooks/claude", {"root", "claude"}),
        ("POST", "/api/events", {"root", "claude"}),
        ("GET", "/v1/streams", {"root", "sub", "all"}),
        ("GET", "/v1/stats", {"root", "all"}),
        ("GET", "/metrics", {"root", "all"}),
        ("GET", "/v1/dead", {"root", "admin"}),
        ("POST", "/v1/dead/x/redrive", {"root", "admin"}),
        ("DELETE", "/v1/dead/x", {"root", "admin"}),
        ("POST", "/v1/streams/orders.eu/trim?lane=normal&upto=0", {"root", "admin"}),
        ("GET", "/v1/clients", {"root", "admin"}),
        ("POST", "/v1/clients/x/disconnect", {"root", "admin"}),
    ],
)
def test_each_route_lets_in_whom_it_is_for(client: Client, method: str, path: str, may: set[str]) -> None:
    for token in ("root", *(rule.name for rule in RULES)):
        body = {"data": {}} if method == "POST" and "streams" not in path else an_event(id=f"{token}{path}")
        answer = ask(client, token, method, path, body if method == "POST" else None)
        if token in may:
            assert answer.status in {200, 204, 404}, (token, answer.body)
        else:
            assert (answer.status, answer.json["code"]) == (403, "forbidden"), token
            assert answer.json["temporary"] is False
            assert answer.json["scope"] in set(Scope)


def test_a_feed_is_refused_as_a_page_is(client: Client) -> None:
    assert ask(client, "sub", "GET", "/v1/streams/other/sse").status == 403


def test_the_list_of_streams_has_those_that_may_be_read(client: Client) -> None:
    for stream in ("orders.eu", "secret.plans"):
        ask(client, "root", "POST", EVENTS.format(stream), an_event(id=stream))

    def listed(token: str) -> set[str]:
        return {each["stream"] for each in ask(client, token, "GET", "/v1/streams").json["streams"]}

    assert listed("sub") == {"orders.eu"}
    assert {"orders.eu", "secret.plans"} <= listed("all")


def minted(life: float, **claims: Any) -> str:
    rights = {"scope": "subscribe", "streams": ["orders.*"], "exp": time.time() + life}
    return jwt.encode(rights | claims, SECRET)


def test_a_feed_ends_with_its_token_and_says_why(client: Client) -> None:
    token = minted(1.0)
    client.http.request("GET", "/v1/streams/orders.eu/sse", headers={"Authorization": f"Bearer {token}"})
    told = client.http.getresponse().read().decode()
    assert told.count("event: subscribed") == 1
    assert '"reason":"token_expired"' in told


def test_an_expired_token_is_401_and_a_fresh_one_can_help(client: Client) -> None:
    answer = ask(client, minted(-1), "GET", "/v1/streams")
    assert (answer.status, answer.json["code"], answer.json["temporary"]) == (401, "token_expired", True)
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_login_with_a_jwt_gives_a_cookie_that_ends_with_it(client: Client) -> None:
    answer = client.ask("POST", "/v1/login", {"token": minted(100)})
    cookie = answer.headers["set-cookie"]
    age = int(cookie.partition("Max-Age=")[2].partition(";")[0])
    assert 90 <= age <= 100
    pair = cookie.partition(";")[0]
    assert client.ask("GET", EVENTS.format("orders.eu"), headers={"Cookie": pair}).status == 200
    assert client.ask("GET", EVENTS.format("other"), headers={"Cookie": pair}).status == 403
    assert "secure" not in cookie.lower()


def test_behind_tls_the_cookie_is_secure(client: Client) -> None:
    headers = {"X-Forwarded-Proto": "https"}
    cookie = client.ask("POST", "/v1/login", {"token": "root"}, headers).headers["set-cookie"]
    assert {"Secure", "HttpOnly"} <= {part.strip() for part in cookie.split(";")}


def test_pages_of_set_origins_may_read_every_header_that_stands_for_a_page_in_ndjson(client: Client) -> None:
    asked = {"Origin": "https://app.example", "Accept": "application/x-ndjson"}
    answer = ask(client, "all", "GET", EVENTS.format("orders.o"), **asked)
    shown = set(answer.headers["access-control-expose-headers"].lower().split(", "))
    ours = {name.lower() for name in answer.headers if name.lower().startswith("steadcast-")}
    assert len(ours) == 4
    assert shown == ours | {"link", "retry-after"}


def test_pages_of_set_origins_may_come_in_with_a_token_and_never_with_the_cookie(client: Client) -> None:
    app = {"Origin": "https://app.example"}
    answer = ask(client, "all", "GET", "/v1/streams", **app)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-credentials" not in answer.headers
    assert ask(client, "pub", "POST", EVENTS.format("orders.o"), an_event(id="cors"), **app).status == 200
    asked = app | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, ce-id",
    }
    before = client.ask("OPTIONS", EVENTS.format("orders.o"), headers=asked, documented=False)
    assert before.status == 200
    assert "POST" in before.headers["access-control-allow-methods"]
    assert "authorization" in before.headers["access-control-allow-headers"]
    for origin in ("https://evil.example", "https://app.example.evil", "http://app.example", "null"):
        answer = ask(client, "all", "GET", "/v1/streams", Origin=origin)
        assert "access-control-allow-origin" not in answer.headers, origin
        posted = ask(client, "pub", "POST", EVENTS.format("orders.o"), an_event(id="x"), Origin=origin)
        assert (posted.status, posted.json["code"]) == (403, "wrong_origin")


def test_over_the_publish_rate_is_429_with_the_time_to_wait(client: Client) -> None:
    headers = {"X-Forwarded-For": "203.0.113.9"}
    batch = [an_event(id=f"r{n}") for n in range(50)]
    assert ask(client, "pub", "POST", EVENTS.format("orders.r"), batch, **headers).status == 200
    answer = ask(client, "pub", "POST", EVENTS.format("orders.r"), an_event(id="more"), **headers)
    assert (answer.status, answer.json["code"], answer.json["temporary"]) == (429, "rate_limited", True)
    assert int(answer.headers["retry-after"]) >= 1
    assert ask(client, "root", "POST", EVENTS.format("orders.r"), an_event(id="o"), **headers).status == 200


def test_after_too_many_guesses_an_address_is_429_but_for_the_token_that_was_right_there() -> None:
    with Server(token="right", rates=Rates(guesses="3/minute")) as server:  # noqa: S106 - made up
        client = Client(server.port)
        near, far = {"X-Forwarded-For": "203.0.113.1"}, {"X-Forwarded-For": "203.0.113.2"}
        assert ask(client, "right", "GET", "/v1/streams", **near).status == 200
        told = [client.ask("POST", "/v1/login", {"token": f"w{n}"}, near).status for n in range(5)]
        assert told == [401, 401, 401, 429, 429]
        assert ask(client, "wrong", "GET", "/v1/streams", **near).status == 429
        assert ask(client, "right", "GET", "/v1/streams", **near).status == 200
        assert ask(client, "right", "GET", "/v1/streams", **far).status == 200
        client.close()


def test_open_pages_whose_token_was_taken_back_keep_nobody_from_showing_the_new_one() -> None:
    with Server(token="new", rates=Rates(guesses="3/minute")) as server:  # noqa: S106 - made up
        client = Client(server.port)
        near = {"X-Forwarded-For": "203.0.113.1"}
        old = near | {"Cookie": f"steadcast_session_{server.port}={Tokens('old').session_of('old')}"}
        assert [client.ask("GET", "/v1/streams", None, old).status for _ in range(10)] == [401] * 10
        assert client.ask("POST", "/v1/login", {"token": "new"}, near).status == 204
        client.close()
