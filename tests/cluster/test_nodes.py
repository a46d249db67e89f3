"""Two nodes in processes of their own on one log: whatever one knows, the other serves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from steadcast.client.subscriber import Subscriber
from steadcast.socketio.dead import DeadEvents
from tests.engine_backends import event, nats_url, open_jetstream
from tests.support.histories import History, follow, publish_paced, until
from tests.support.server import Server
from tests.support.server import event as cloud_event


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """Give two nodes, each in a folder of its own."""
    url = nats_url()
    servers = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        servers.append(Server(tmp_path / name, engine=url, STEADCAST_NODE=name))
    for server in servers:
        server.start()
    yield servers[0], servers[1]
    for server in servers:
        server.__exit__()


async def test_a_client_cut_from_one_node_goes_on_at_another(pair: tuple[Server, Server]) -> None:
    here, there = pair
    history = History()
    publishing = asyncio.create_task(publish_paced(there.url, "orders", history, count=150))
    async with Subscriber(here.url, "orders", start="start") as subscriber:
        following = asyncio.create_task(follow(subscriber, history))
        await until(lambda: len(history.applied) > 40, what="the first events")
        await asyncio.to_thread(here.kill)
        seen = len(history.applied)
    await following
    told: list[object] = []
    async with Subscriber(there.url, "orders", cursors=subscriber.cursors, on_told=told.append) as subscriber:
        following = asyncio.create_task(follow(subscriber, history))
        await publishing
        await until(lambda: history.complete, what="every acked event")
    await following
    assert 40 < seen < 150
    assert len(history.acked) == 150
    history.check()
    assert told == []


async def test_what_one_node_took_the_other_tells_at_once_and_each_says_its_name(
    pair: tuple[Server, Server],
) -> None:
    here, there = pair
    answer = await asyncio.to_thread(here.publish, "orders", *(cloud_event(n) for n in range(5)))
    results = answer.json()["results"]
    described, stats, page = [
        (await asyncio.to_thread(there.get, path)).json()
        for path in ("/v1/streams", "/v1/stats", "/v1/streams/orders/events")
    ]
    assert "orders" in str(described)
    assert stats["node"] == "b"
    assert [each["id"] for each in page["events"]] == [each["id"] for each in results]
    again = await asyncio.to_thread(there.publish, "orders", cloud_event(3))
    assert again.json()["results"][0] == {**results[3], "duplicate": True}


async def test_a_dead_event_of_one_node_is_seen_and_redriven_at_another() -> None:
    url = nats_url()
    here, there = open_jetstream(url), open_jetstream(url)
    dead, elsewhere = DeadEvents(here), DeadEvents(there)
    try:
        dead.bury("orders", [event("given-up", {"n": 1})], reason="retries", attempts=4, error="away")
        await dead.keep()
        await there.describe()
        [found] = (await elsewhere.list()).dead
        assert found.event.id == "given-up"
        receipt = await elsewhere.redrive(found.id)
        assert receipt is not None
        await here.describe()
        assert (await dead.list()).dead == []
    finally:
        await here.aclose()
        await there.aclose()
