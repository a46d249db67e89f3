"""What Steadcast's own door does for Socket.IO: rates, origins, headers, and the gate of each connection."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import uvicorn

from steadcast import Identity, NotAllowed, Scope, Settings, Steadcast
from steadcast.engines.memory import MemoryEngine
from steadcast.errors import InvalidRequest, InvalidSettings
from tests.support.asgi import served
from tests.support.house import Peer, event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FAR = {"X-Forwarded-For": "203.0.113.5"}
POLL = "/socket.io/?EIO=4&transport=polling"


@asynccontextmanager
async def listening(cast: Steadcast) -> AsyncIterator[str]:
    config = uvicorn.Config(
        cast, port=0, ws="websockets-sansio", log_config=None, timeout_graceful_shutdown=1
    )
    try:
        async with served(config) as port:
            yield f"http://127.0.0.1:{port}"
    finally:
        await cast.sio.shutdown()


def house(authorize: Any = None, **settings: Any) -> Steadcast:
    return Steadcast(engine=MemoryEngine(epoch="e1"), settings=Settings(**settings), authorize=authorize)


@pytest.mark.parametrize("authorize", [None, lambda _environ, _auth: None], ids=["tokens", "the application"])
async def test_over_the_connect_rate_polling_is_429_and_a_websocket_is_told_when_to_come_again(
    authorize: Any,
) -> None:
    cast = house(authorize, rate_connects="2/minute")
    async with listening(cast) as url, aiohttp.ClientSession(url) as http:
        for _ in range(2):
            assert (await http.get(POLL, headers=FAR)).status == 200
        refused = await http.get(POLL, headers=FAR)
        told = await refused.json()
        assert (refused.status, told["code"], told["temporary"]) == (429, "rate_limited", True)
        assert int(refused.headers["Retry-After"]) >= 1
        peer = Peer()
        with contextlib.suppress(Exception):
            await peer.sio.connect(url, headers=FAR, transports=["websocket"], wait_timeout=30)
        (error,) = peer.named("connect_error")
        assert error["data"]["code"] == "rate_limited"
        assert error["data"]["temporary"] is True
        assert error["data"]["retry_after"] > 0
        await peer.close()
        near = Peer()
        for _ in range(3):
            await near.connect(url)
            await near.close()
        assert cast.context.counts["limited_connects"] == 2


async def test_over_the_publish_rate_the_answer_says_when_to_come_again() -> None:
    async with listening(house(rate_publishes="3/minute")) as url:
        peer = Peer()
        await peer.connect(url)
        first = await peer.call("publish", {"stream": "s", "events": [event(n) for n in range(3)]})
        assert first["ok"]
        second = await peer.call("publish", {"stream": "s", "events": [event(4)]})
        assert (second["ok"], second["error"]["code"]) == (False, "rate_limited")
        assert second["error"]["retry_after"] > 0
        await peer.close()


async def test_pages_of_other_origins_stay_outside_but_those_that_are_set() -> None:
    async with (
        listening(house(cors_origins=["https://app.example"])) as url,
        aiohttp.ClientSession(url) as http,
    ):
        for origin, status in ((url, 200), ("https://app.example", 200), ("https://evil.example", 403)):
            answer = await http.get(POLL, headers={"Origin": origin})
            assert answer.status == status, origin
            assert answer.headers.get("Access-Control-Allow-Origin") == (origin if status == 200 else None)
            assert "Access-Control-Allow-Credentials" not in answer.headers
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(
                "/socket.io/?EIO=4&transport=websocket", headers={"Origin": "https://evil.example"}
            )
        assert caught.value.status == 403


async def test_what_authorize_returns_is_what_the_connection_may_and_for_how_long() -> None:
    async def authorize(_environ: dict[str, Any], auth: Any) -> Identity | None:
        if auth is None:
            raise NotAllowed("sign in first", code="unauthorized")
        if auth.get("root"):
            return None
        end = time.time() + auth["life"]
        return Identity(scopes=frozenset({Scope.SUBSCRIBE}), streams=("news.*",), expires=end)

    async with listening(house(authorize)) as url:
        root, peer = Peer(), Peer()
        await root.connect(url, auth={"root": True})
        await peer.connect(url, auth={"life": 1.5})
        assert (await root.call("publish", {"stream": "news.a", "events": [event(1)]}))["ok"]
        assert (await peer.call("subscribe", {"stream": "news.a", "from": "start"}))["ok"]
        await peer.until(peer.events, "the replayed event")
        for name, payload in (
            ("publish", {"stream": "news.a", "events": [event(2)]}),
            ("subscribe", {"stream": "s"}),
        ):
            answer = await peer.call(name, payload)
            assert answer["error"]["code"] == "forbidden"
        await peer.until(lambda: peer.named("disconnect"), "the end")
        assert [told["code"] for told in peer.named("error")] == ["token_expired"]
        assert root.named("disconnect") == []
        await root.close()


async def test_an_authorize_that_raises_or_hangs_refuses_the_connect_in_words() -> None:
    async def hangs(_environ: dict[str, Any], auth: Any) -> None:
        await asyncio.sleep(3600 if auth else 0)
        raise ZeroDivisionError

    async with listening(house(hangs, handler_timeout=0.2)) as url:
        for auth, code in ((None, "internal"), ({"x": 1}, "timeout")):
            peer = Peer()
            with contextlib.suppress(Exception):
                await peer.connect(url, auth=auth)
            (told,) = peer.named("connect_error")
            assert (told["data"]["code"], told["data"]["temporary"]) == (code, True)
            await peer.close()


async def test_nothing_is_written_after_the_end_even_where_the_timer_is_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def authorize(_environ: dict[str, Any], auth: Any) -> Identity | None:
        return Identity(expires=time.time() + 3600) if auth else None

    cast = house(authorize)
    async with listening(cast) as url:
        peer = Peer()
        await peer.connect(url, auth={"x": 1})
        await peer.call("subscribe", {"stream": "s"})
        (client,) = list(cast.connections)
        monkeypatch.setattr(client.gate, "_wall", lambda: time.time() + 7200)
        await cast.publish("s", type="t", data=1)
        await peer.until(lambda: peer.named("disconnect"), "the end")
        assert peer.named("batch") == []
        assert client.dropped >= 1


@pytest.mark.parametrize(
    "settings",
    [
        {"cors_origins": ["app.example"]},
        {"cors_origins": ["https://app.example/path"]},
        {"cors_origins": ["*"]},
        {"rate_connects": "often"},
        {"jwt_secret": "short"},
        {"jwt_jwks": "/nowhere/jwks.json"},
        {"mask_patterns": ["("]},
        {"tokens": [{"name": "x", "scopes": ["publish"]}]},
        {"tokens": [{"name": "x", "scopes": ["write"], "token": "t"}]},
        {"tokens": [{"name": "x", "scopes": [], "token": "t"}]},
        {"tokens": [{"name": "x", "scopes": ["publish"], "token": "t", "stream": ["orders"]}]},
        {"tokens": [{"name": "x", "scopes": ["publish"], "sha256": "abc"}]},
    ],
)
def test_a_setting_of_no_use_is_refused_at_start_in_words(settings: dict[str, Any]) -> None:
    with pytest.raises((InvalidRequest, InvalidSettings)) as caught:
        house(**settings)
    assert next(iter(settings)) in str(caught.value) or "token" in str(caught.value)


async def test_no_request_opens_a_file(tmp_path: Path) -> None:
    opened: list[str] = []
    armed = False

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if armed and name == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)  # stays for ever, and does nothing once it is disarmed
    secret = tmp_path / "secret.txt"
    secret.write_text("x")
    names = [f"..{secret}", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "....//etc/passwd", "%00"]
    names += [str(secret), f"file:%2f%2f{secret}", "..%5c..%5cwindows", "assets/../../../etc/passwd"]
    places = [
        "/{}",
        "/assets/{}",
        "/v1/streams/{}/events",
        "/v1/dead/{}",
        "/v1/streams?from={}",
        "/socket.io/{}",
    ]
    async with listening(house()) as url, aiohttp.ClientSession() as http:
        await (await http.get(f"{url}/v1/streams")).read()  # what is imported late is imported
        await (await http.get(f"{url}/nothing")).read()
        armed = True
        for path in [place.format(name) for place in places for name in names]:
            from yarl import URL

            answer = await http.get(URL(f"{url}{path}", encoded=True))
            body = await answer.read()
            assert b"root:" not in body
            assert answer.status < 500, path
        armed = False
    assert opened == []
