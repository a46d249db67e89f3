"""Dead events over HTTP: listed, re-driven and dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from steadcast.app import Steadcast
from steadcast.config import Settings
from steadcast.engines.memory import MemoryEngine
from steadcast.errors import Abandoned
from steadcast.testing import FaultyEngine
from tests.support.plain import PLAIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def engine() -> FaultyEngine:
    return FaultyEngine(MemoryEngine(epoch="e1"))


@pytest.fixture
async def cast(engine: FaultyEngine) -> AsyncIterator[Steadcast]:
    async with Steadcast(
        engine=engine, settings=Settings(retry_interval=0.01, max_retries=1, retry_delay=0.01)
    ) as running:
        yield running


@pytest.fixture
async def client(cast: Steadcast) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(cast)
    async with httpx.AsyncClient(
        verify=PLAIN, transport=transport, base_url="http://127.0.0.1:8765"
    ) as asking:
        yield asking


async def kill_one(cast: Steadcast, engine: FaultyEngine) -> None:
    engine.fail_appends()
    with pytest.raises(Abandoned):
        await cast.publish("orders", type="order.paid", data={"n": 1}, id="o1")


async def test_a_dead_event_is_listed_with_its_reason_and_redriven(
    cast: Steadcast, engine: FaultyEngine, client: httpx.AsyncClient
) -> None:
    await kill_one(cast, engine)
    [dead] = (await client.get("/v1/dead")).json()["dead"]
    assert (dead["stream"], dead["reason"], dead["event"]["id"]) == ("orders", "exhausted", "o1")
    engine.heal()
    cast.broadcaster.breaker = type(cast.broadcaster.breaker)()
    answer = await client.post(f"/v1/dead/{dead['id']}/redrive")
    assert answer.json()["result"]["position"] == ["e1", 1]
    assert (await client.get("/v1/dead")).json() == {"dead": [], "complete": True}
    page = (await client.get("/v1/streams/orders/events")).json()
    assert [e["id"] for e in page["events"]] == ["o1"]


async def test_a_dead_event_can_be_dropped(
    cast: Steadcast, engine: FaultyEngine, client: httpx.AsyncClient
) -> None:
    await kill_one(cast, engine)
    engine.heal()
    [dead] = (await client.get("/v1/dead")).json()["dead"]
    assert (await client.delete(f"/v1/dead/{dead['id']}")).status_code == 204
    assert (await client.get("/v1/dead")).json()["dead"] == []


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/dead/none/redrive"), ("DELETE", "/v1/dead/none")])
async def test_an_unknown_dead_event_is_404(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"
