"""While the log has no majority: publishers wait or spool, the breaker opens, and closes again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from steadcast.client.publisher import Publisher
from tests.engine_nats import Cluster
from tests.support.histories import until
from tests.support.server import Server, event


@dataclass
class Deployment:
    cluster: Cluster
    node: Server

    async def stats(self) -> dict[str, Any]:
        return (await asyncio.to_thread(self.node.get, "/v1/stats")).json()  # type: ignore[no-any-return]

    async def publish(self, n: int) -> httpx.Response:
        return await asyncio.to_thread(self.node.publish, "orders", event(n))

    async def ids(self) -> list[str]:
        """Read the whole log."""
        found: list[str] = []
        after = ""
        while True:
            page = (await asyncio.to_thread(self.node.get, f"/v1/streams/orders/events?{after}")).json()
            if not page["events"]:
                return found
            found += [each["id"] for each in page["events"]]
            after = f"after={page['epoch']}:{page['upto']}"


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    cluster = Cluster(tmp_path)
    url = f"nats://{cluster.addresses}?stream=log&replicas=3&sync=always"
    node = Server(tmp_path, engine=url)
    try:
        await asyncio.to_thread(cluster.start)
        await asyncio.to_thread(node.start)
        yield Deployment(cluster, node)
    finally:
        node.__exit__()
        cluster.kill()


async def test_without_a_majority_publishers_wait_or_spool_and_nothing_is_lost_or_doubled(
    deployment: Deployment, tmp_path: Path
) -> None:
    one, two, _ = deployment.cluster.servers
    with Publisher(deployment.node.url, source="/program", spool=tmp_path / "programs") as publisher:
        publisher.publish("orders", type="t", id="before")
        assert (await asyncio.to_thread(publisher.flush, 30)).acked == 1
        for server in (one, two):
            await asyncio.to_thread(server.kill)

        async with asyncio.timeout(60):
            while (await deployment.stats())["breaker"]["closed"]:
                answers = await asyncio.gather(*(deployment.publish(n) for n in range(6)))
                assert {answer.status_code for answer in answers} == {503}
                assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
        refused = await refused_at_once(deployment)
        assert int(refused.headers["retry-after"]) >= 1

        for n in range(50):
            publisher.publish("orders", type="t", id=f"meanwhile-{n}")
        await until(lambda: publisher.statistics()["spooled"] == 50, within=60, what="all are spooled")

        for server in (one, two):
            await asyncio.to_thread(server.start)
        await until(lambda: publisher.statistics()["acked"] == 51, within=60, what="the spool is drained")
    async with asyncio.timeout(60):
        while (await deployment.stats())["breaker"]["closed"] == 0:
            await asyncio.sleep(0.1)
    retried = await asyncio.gather(*(deployment.publish(n) for n in range(6)))
    assert {answer.status_code for answer in retried} == {200}
    expected = {"before", *(f"meanwhile-{n}" for n in range(50)), *(f"e{n}" for n in range(6))}
    found = await deployment.ids()
    assert len(found) == len(expected)
    assert set(found) == expected


async def refused_at_once(deployment: Deployment) -> httpx.Response:
    """Publish until the open breaker refuses: between two openings it lets one probe through."""
    async with asyncio.timeout(60):
        while True:
            answer = await deployment.publish(7)
            assert answer.status_code == 503
            if answer.json()["code"] == "breaker_open":
                return answer
