"""The connected clients over HTTP: listed with their figures, pinged, disconnected."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
import socketio
import uvicorn

from steadcast.app import Steadcast
from steadcast.config import Settings
from steadcast.engines.memory import MemoryEngine
from steadcast.http import clients as module
from steadcast.http.clients import ClientListing
from tests.support.asgi import served
from tests.support.house import Peer
from tests.support.http_serving import Client as Asking
from tests.support.plain import PLAIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Stage:
    """A server, its address, and a client that asks over HTTP."""

    def __init__(self, cast: Steadcast, url: str, client: httpx.AsyncClient) -> None:
        self.cast = cast
        self.url = url
        self.client = client

    async def listing(self, query: str = "") -> dict[str, Any]:
        answer = await self.client.get(f"/v1/clients{query}")
        assert answer.status_code == 200
        msgspec.convert(answer.json(), ClientListing, strict=True)
        told: dict[str, Any] = answer.json()
        return told

    async def only(self) -> dict[str, Any]:
        [client] = (await self.listing())["clients"]
        told: dict[str, Any] = client
        return told


@asynccontextmanager
async def staged(sio: socketio.AsyncServer | None = None, **settings: Any) -> AsyncIterator[Stage]:
    cast = Steadcast(sio, engine=MemoryEngine(epoch="e1"), settings=Settings(**settings))
    config = uvicorn.Config(cast, port=0, ws="websockets-sansio", log_config=None)
    async with served(config) as port:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(verify=PLAIN, base_url=url) as client:
            yield Stage(cast, url, client)
    await cast.sio.shutdown()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as running:
        yield running


@pytest.fixture
async def peer(stage: Stage) -> AsyncIterator[Peer]:
    joined = Peer()
    await joined.connect(stage.url, {"client": {"id": "peer-1", "version": "1"}})
    await joined.until(lambda: joined.named("welcome"))
    yield joined
    await joined.close()


async def test_a_plain_client_is_listed_with_its_figures(stage: Stage, peer: Peer) -> None:
    told = await stage.only()
    assert told["id"] == peer.sio.get_sid()
    assert (told["client_id"], told["transport"], told["state"]) == ("peer-1", "websocket", "plain")
    assert (told["reconnects"], told["failures"], told["round_trip"]) == (0, 0, None)
    assert (told["lag"], told["window"], told["streams"]) == (0, 0.0, {})
    assert told["uptime"] >= 0


async def test_a_client_whose_id_is_half_an_emoji_hides_nobodys_figures() -> None:
    async with staged(socketio.AsyncServer(async_mode="asgi")) as stage:  # whose JSON lets it in
        peer = Peer()
        await peer.connect(stage.url, {"client": {"id": "half \ud83d", "version": "1"}})
        await peer.until(lambda: peer.named("welcome"))
        assert (await stage.only())["client_id"] == "half \\ud83d"
        assert (await stage.client.get("/v1/stats")).status_code == 200
        await peer.close()


async def test_what_is_not_acked_shows_as_lag_and_as_a_share_of_the_window(stage: Stage, peer: Peer) -> None:
    await peer.call("subscribe", {"stream": "orders", "from": "start"})
    for n in range(16):
        await stage.cast.publish("orders", type="t", data={"n": n})
    await peer.until(lambda: len(peer.events()) == 16)
    told = await stage.only()
    assert (told["state"], told["lag"], told["window"]) == ("live", 16, 16 / 1024)
    lane = told["streams"]["orders"]["normal"]
    assert (lane["position"], lane["acked"], lane["unacked"]) == (["e1", 16], 0, 16)
    await peer.sio.emit("ack", {"stream": "orders", "lane": "normal", "epoch": "e1", "offset": 16})
    while (await stage.only())["lag"]:
        await asyncio.sleep(0.005)
    assert (await stage.only())["window"] == 0.0


async def test_the_state_is_that_of_the_lane_furthest_from_live() -> None:
    async with staged(window_events=4, flush_window=0.0) as stage:
        peer = Peer()
        await peer.connect(stage.url)
        await peer.call("subscribe", {"stream": "orders", "from": "start"})
        for n in range(6):
            await stage.cast.publish("orders", type="t", data={"n": n})
        await peer.until(lambda: len(peer.events()) == 4)
        told = await stage.only()
        assert told["state"] == "lagging"
        assert told["streams"]["orders"]["critical"]["state"] == "live"
        assert told["window"] == 1.0
        await peer.close()


async def test_a_ping_measures_the_round_trip(stage: Stage, peer: Peer) -> None:
    await peer.call("subscribe", {"stream": "orders"})

    @peer.sio.on("ping")
    async def answer(ping: dict[str, Any]) -> None:
        await peer.sio.emit("pong", {"time": ping["time"]})

    told = (await stage.client.post(f"/v1/clients/{peer.sio.get_sid()}/ping")).json()
    assert 0 <= told["round_trip"] < 3
    assert (await stage.only())["round_trip"] == told["round_trip"]


async def test_a_client_without_a_pong_is_answered_null_in_time(
    stage: Stage, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PONG_PATIENCE", 0.05)
    path = f"/v1/clients/{peer.sio.get_sid()}/ping"
    answers = await asyncio.gather(*(stage.client.post(path) for _ in range(3)))
    assert [answer.json() for answer in answers] == [{"round_trip": None}] * 3
    assert len(peer.named("ping")) == 1, "who asks meanwhile is answered with the same ping"


async def test_a_client_that_leaves_during_its_ping_is_answered_null_at_once(
    stage: Stage, peer: Peer
) -> None:
    asked = asyncio.create_task(stage.client.post(f"/v1/clients/{peer.sio.get_sid()}/ping"))
    await peer.until(lambda: peer.named("ping"))
    await peer.close()
    async with asyncio.timeout(30):
        assert (await asked).json() == {"round_trip": None}


async def test_a_disconnected_client_is_told_why_and_may_come_back(stage: Stage, peer: Peer) -> None:
    assert (await stage.client.post(f"/v1/clients/{peer.sio.get_sid()}/disconnect")).status_code == 204
    await peer.until(lambda: peer.named("disconnect"))
    [error] = peer.named("error")
    assert (error["code"], error["temporary"]) == ("disconnected", True)
    while (await stage.listing())["total"]:
        await asyncio.sleep(0.005)
    again = Peer()
    await again.connect(stage.url, {"client": {"id": "peer-1", "version": "1"}})
    await again.until(lambda: again.named("welcome"))
    assert (await stage.only())["reconnects"] == 1
    await again.close()


async def test_a_listing_is_bounded_and_says_how_many_there_are(stage: Stage, peer: Peer) -> None:
    other = Peer()
    await other.connect(stage.url)
    await other.until(lambda: other.named("welcome"))
    told = await stage.listing("?limit=1")
    assert (told["total"], [each["id"] for each in told["clients"]]) == (2, [peer.sio.get_sid()])
    assert (await stage.client.get("/v1/clients?limit=0")).json()["field"] == "limit"
    await other.close()


@pytest.mark.parametrize("what", ["ping", "disconnect"])
async def test_an_unknown_client_is_404(stage: Stage, what: str) -> None:
    answer = await stage.client.post(f"/v1/clients/nobody/{what}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_server_without_connections_lists_none(client: Asking) -> None:
    assert client.ask("GET", "/v1/clients").json == {"total": 0, "clients": []}
    assert client.ask("POST", "/v1/clients/x/ping", b"").status == 404
