"""Who may come in: Host, Origin, token and cookie."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast.errors import NotAllowed
from steadcast.http.access import authorize, bearer, check_host, check_origin
from steadcast.http.rates import Rates
from steadcast.http.tokens import Tokens
from tests.support.http_serving import Answer, Client, Server, an_event, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from steadcast.http.context import Context

TOKEN = "a-token-with-ü"  # noqa: S105 - made up for these tests
PLAIN = "plain"
SESSION = Tokens(TOKEN).session_of(TOKEN)
COOKIE = f"steadcast_session={SESSION}"
CLOSED = [
    ("GET", "/v1/streams"),
    ("GET", "/v1/stats"),
    ("GET", "/metrics"),
    ("GET", "/v1/streams/s/events"),
    ("GET", "/v1/streams/s/sse"),
    ("POST", "/v1/streams/s/events"),
    ("POST", "/v1/hooks/claude"),
    ("POST", "/api/events"),
]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    with Server(token=TOKEN, allowed_hosts=["Cast.Example."]) as server:
        yield server


@pytest.fixture
def client(guarded: Server) -> Iterator[Client]:
    client = Client(guarded.port)
    yield client
    client.close()


@pytest.fixture
def context(guarded: Server) -> Context:
    return guarded.context


def get(client: Client, path: str = "/v1/streams", **headers: str) -> Answer:
    return client.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(("method", "path"), CLOSED)
@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}, {"Cookie": "a=b"}]
)
def test_without_the_token_everything_but_health_and_page_is_401(
    client: Client, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = client.ask(method, path, b"{}" if method == "POST" else None, headers)
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert TOKEN.encode() not in answer.body


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/"])
def test_health_page_and_description_are_open(client: Client, path: str) -> None:
    assert get(client, path).status == 200


def test_the_token_lets_in(client: Client) -> None:
    encoded = TOKEN.encode().decode("latin-1")
    assert get(client, Authorization=f"Bearer {encoded}").status == 200, "UTF-8, a byte a character"
    with serving(token=PLAIN) as (_, plain):
        assert get(plain, Authorization="Bearer plain").status == 200
        assert get(plain, authorization="bearer  plain ").status == 200
        assert (
            plain.ask("POST", "/v1/streams/s/events", an_event(), {"Authorization": "Bearer plain"}).status
            == 200
        )


def test_a_page_logs_in_once_and_gets_a_cookie_that_no_script_reads(client: Client) -> None:
    answer = client.ask("POST", "/v1/login", {"token": TOKEN})
    assert (answer.status, answer.body) == (204, b"")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert "Path=/" in cookie
    assert TOKEN not in cookie
    assert "secure" not in cookie.lower(), "the connection isn't"
    pair = cookie.partition(";")[0]
    assert get(client, Cookie=f"other=1; a,b=c; =; x; {pair}").status == 200
    gone = client.ask("POST", "/v1/logout", b"", {"Cookie": pair})
    assert gone.status == 204
    assert "Max-Age=0" in gone.headers["set-cookie"]


def test_servers_on_other_ports_of_a_host_leave_each_other_their_cookies() -> None:
    with serving(token=TOKEN) as (_, one), serving(token=PLAIN) as (_, other):
        logins = [
            one.ask("POST", "/v1/login", {"token": TOKEN}),
            other.ask("POST", "/v1/login", {"token": PLAIN}),
        ]
        # A browser keeps one cookie of a name for all ports of a host, and shows it to each.
        kept = dict(login.headers["set-cookie"].partition(";")[0].split("=", 1) for login in logins)
        assert len(kept) == 2
        cookies = "; ".join(f"{name}={value}" for name, value in kept.items())
        assert [get(each, Cookie=cookies).status for each in (one, other)] == [200, 200]


@pytest.mark.parametrize(
    ("body", "status"), [({"token": "wrong"}, 401), ({"token": 1}, 400), ([], 400), (b"x", 400)]
)
def test_a_login_that_fails_gives_no_cookie(client: Client, body: object, status: int) -> None:
    answer = client.ask("POST", "/v1/login", body)
    assert answer.status == status
    assert "set-cookie" not in answer.headers


def test_a_login_is_short_for_nobody_is_known_who_sends_one(client: Client) -> None:
    answer = client.ask("POST", "/v1/login", {"token": "x" * 65_536})
    assert (answer.status, answer.json["code"], answer.json["limit"]) == (413, "body_too_large", 65_536)


def test_without_a_token_set_a_login_changes_nothing() -> None:
    with serving() as (_, client):
        answer = client.ask("POST", "/v1/login", {"token": "any"})
        assert answer.status == 204
        assert "set-cookie" not in answer.headers


def test_the_cookie_stays_under_the_base_path() -> None:
    with serving(token=PLAIN, base_path="cast") as (_, client):
        assert "Path=/cast;" in client.ask("POST", "/v1/login", {"token": PLAIN}).headers["set-cookie"]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1:99999",
        "[::1]",
        "[::1]:8765",
        "cast.example",
        "CAST.example.:80",
    ],
)
def test_our_names_are_served_whatever_the_port(context: Context, host: str) -> None:
    check_host(context, host)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil", "cast.example.evil", "", "[::", None]
)
def test_other_names_are_refused(context: Context, host: str | None) -> None:
    with pytest.raises(NotAllowed) as caught:
        check_host(context, host)
    assert caught.value.code == "wrong_host"


def test_a_wrong_host_is_421_before_anything_else_is_looked_at(client: Client) -> None:
    for path in ("/", "/v1/streams", "/openapi.json"):
        answer = get(client, path, Host="evil.example")
        assert (answer.status, answer.json["code"]) == (421, "wrong_host")
    assert get(client, "/healthz", Host="10.0.0.7").status == 200, "probes ask by address"


def test_a_star_allows_any_host() -> None:
    with serving(allowed_hosts=["*"]) as (_, client):
        assert get(client, Host="any.example").status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "http://[", "x"])
def test_another_origin_may_not_change_anything(client: Client, origin: str) -> None:
    cookie = f"steadcast_session_{client.port}={SESSION}"
    for path in ("/v1/streams/s/events", "/v1/login", "/v1/logout"):
        answer = client.ask("POST", path, b"{}", {"Origin": origin, "Cookie": cookie})
        assert (answer.status, answer.json["code"]) == (403, "wrong_origin")
    assert get(client, Origin=origin, Cookie=cookie).status == 200, "reading needs no such check"


def test_the_same_origin_may(client: Client, guarded: Server) -> None:
    cookie = f"steadcast_session_{guarded.port}={SESSION}"
    headers = {"Origin": f"http://127.0.0.1:{guarded.port}", "Cookie": cookie}
    assert client.ask("POST", "/v1/streams/s/events", an_event(), headers).status == 200


def test_the_origin_may_be_the_address_that_browsers_know() -> None:
    with serving(server_url="https://cast.example") as (server, _):
        check_origin(server.context, "https://cast.example", "127.0.0.1:8765")
        check_origin(server.context, "https://cast.example:443", None)
        with pytest.raises(NotAllowed):
            check_origin(server.context, "https://cast.example:444", "127.0.0.1:8765")


async def test_authorize_serves_other_doors_too(context: Context) -> None:
    await authorize(context, token=TOKEN)
    await authorize(context, cookie=COOKIE)
    before = context.counts["unauthorized"]
    for token, cookie in (
        (None, None),
        ("", None),
        (TOKEN + " ", None),
        (None, "steadcast_session="),
        ("\ud800", None),
    ):
        with pytest.raises(NotAllowed):
            await authorize(context, token=token, cookie=cookie)
    assert context.counts["unauthorized"] == before + 5


@given(st.text(max_size=40))
async def test_no_header_lets_in_or_breaks_anything(text: str) -> None:
    bare: Any = SimpleNamespace(
        tokens=Tokens(TOKEN),
        rates=Rates(),
        counts=Counter(),
        allowed_hosts=(),
        cors_origins=(),
        server_url=None,
    )
    with pytest.raises(NotAllowed):
        await authorize(bare, token=bearer(f"Bearer {text}x"), cookie=text)
    with pytest.raises(NotAllowed):
        check_host(bare, f"{text}.evil")
    with pytest.raises(NotAllowed):
        check_origin(bare, f"http://evil{text}", "h")
